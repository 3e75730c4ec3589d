"""Data sets in shards: files of episodes in a folder, in object storage or on the Hugging Face hub, read as a stream.

    index.json             what the data set is, and of each file its size, SHA-256, split and episodes' lengths
    train-00000.safetensors, validation-00000.safetensors, ...

A shard is a safetensors file. Its tensors are bytes that Zstandard compressed: `frames` in chunks of 8 frames of one
episode, one after another, which end at `chunk_ends`; every other part (`actions`, `rewards`, ...) as a whole. Any
fsspec URL will do: file://, hf://, s3://, gs://, memory://.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_bytes
from safetensors.numpy import save as save_bytes

from . import streams
from .errors import UserError
from .streams import SPLITS, Stream, filesystem_of, groups, split_of

VERSION = 1
INDEX = "index.json"
SHARD = 4 * 2**20
"""Bytes after which a shard is full."""
CHUNK = 8
"""Frames of an episode that are compressed together."""
OLD_CHUNK = 16
"""The same, in data sets whose index does not say."""
DTYPES: dict[str, Any] = {
          "frames": np.uint8, "actions": np.float32, "sentences": np.int16, "sentence_actions": np.float32,
          "rewards": np.float32, "successes": np.bool_, "terminations": np.bool_}  # fmt: skip
"""The parts of an episode; each has a row for every frame."""


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError as error:
        raise ImportError('data sets in shards are compressed: pip install "worldgym[shards]"') from error
    return zstandard


def _filesystem(url: str) -> tuple[Any, str]:
    if "://" not in url:
        raise UserError(f"{url!r} is no URL; expected such as file://{url}, s3://bucket/name, hf://datasets/user/name")
    return filesystem_of(url)


# -- writing ---------------------------------------------------------------------------------------------------------


def write_shards(url: str, source: str, about: dict[str, Any], episodes: Iterable[dict[str, np.ndarray]]) -> int:
    """Add episodes to the data set at a URL, which is made if there is none; returns how many were added.

    The index is written last. If anything goes wrong, the data set is as it was.

    Args:
        source: what they are of. A data set takes the episodes of each source once.
        about: `instructions`, `phrases`, `frames_per_action`, `environment`, `action_space` and `twin_options`, as in
            `data.Episodes`; the same for all sources.
        episodes: by name the parts in `DTYPES`, each with a row for every frame; the last action is padding.

    Raises:
        UserError: the source is already there; the data set there is another one; there are no episodes.
    """
    filesystem, root = _filesystem(url)
    about = json.loads(json.dumps(about))
    index = _read_index(filesystem, root, url) or {
        "version": VERSION, "chunk": CHUNK, "about": about, "shapes": None, "sources": {}, "shards": [],
        "rewards": None,
    }  # fmt: skip
    if source in index["sources"]:
        raise UserError(f"{url} has the episodes of {source} already")
    if differ := [name for name, value in about.items() if index["about"].get(name) != value]:
        raise UserError(
            f"{url} holds a data set of other {', '.join(differ)} than {source}; choose another URL: all episodes of a "
            "data set are of one environment"
        )
    if set(filesystem.protocol if isinstance(filesystem.protocol, tuple) else (filesystem.protocol,)) & {"file"}:
        filesystem.makedirs(root, exist_ok=True)
    before = sum(index["sources"].values())
    compress, chunk = _zstandard().ZstdCompressor(level=1).compress, index.get("chunk", OLD_CHUNK)
    files = {split: _Open(chunk) for split in SPLITS}
    rewards = _Moments(index["rewards"])
    added = 0

    def close(split: str) -> None:
        number = sum(one["split"] == split for one in index["shards"])
        name = f"{split}-{number:05d}.safetensors"
        lengths, content = files[split].lengths, files[split].content(compress)
        filesystem.pipe_file(f"{root}/{name}", content)
        told = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(), "lengths": lengths}
        index["shards"].append({"file": name, "split": split, **told})
        files[split] = _Open(chunk)

    for episode in episodes:
        if missing := [name for name in DTYPES if name not in episode]:
            raise UserError(f"{source}, episode {added}: it has no {', '.join(missing)}")
        if len(rows := {len(episode[name]) for name in DTYPES}) > 1:
            raise UserError(
                f"{source}, episode {added}: its parts have {sorted(rows)} rows; expected one for each frame"
            )
        shapes = {name: list(episode[name].shape[1:]) for name in DTYPES}
        index["shapes"] = index["shapes"] or shapes
        if shapes != index["shapes"]:
            raise UserError(f"{source}, episode {added}: a row has shapes {shapes}; expected {index['shapes']}")
        rewards.add(episode["rewards"])
        split = split_of(before + added)
        files[split].add(episode, compress)
        if files[split].size >= SHARD:
            close(split)
        added += 1
    if not added:
        raise UserError(f"{source} has no episodes to write")
    for split in SPLITS:
        if files[split].lengths:
            close(split)
    index["sources"][source], index["rewards"] = added, rewards.told()
    filesystem.pipe_file(f"{root}/{INDEX}.tmp", json.dumps(index).encode())
    filesystem.mv(f"{root}/{INDEX}.tmp", f"{root}/{INDEX}")
    return added


class _Open:
    """A shard that is not full yet."""

    def __init__(self, chunk: int):
        self.chunk, self.chunks = chunk, list[bytes]()
        self.rows: dict[str, list[np.ndarray]] = {name: [] for name in DTYPES if name != "frames"}
        self.lengths: list[int] = []
        self.size = 0

    def add(self, episode: dict[str, np.ndarray], compress: Any) -> None:
        frames = np.ascontiguousarray(episode["frames"], DTYPES["frames"])
        chunks = [compress(frames[first : first + self.chunk]) for first in range(0, len(frames), self.chunk)]
        self.chunks += chunks
        for name, rows in self.rows.items():
            rows.append(episode[name])
        self.lengths.append(len(frames))
        self.size += sum(map(len, chunks))

    def content(self, compress: Any) -> bytes:
        rows = {name: np.concatenate(parts).astype(DTYPES[name]) for name, parts in self.rows.items()}
        packed = {name: np.frombuffer(compress(values.tobytes()), np.uint8) for name, values in rows.items()}
        frames = np.frombuffer(b"".join(self.chunks), np.uint8)
        return save_bytes(packed | {"frames": frames, "chunk_ends": np.cumsum([len(one) for one in self.chunks])})


class _Moments:
    """Mean and variance of rewards under each instruction, of episodes that come one after another."""

    def __init__(self, told: dict[str, Any] | None):
        self.count = told["count"] if told else 0
        self.sums = np.array(told["sums"] if told else 0.0)
        self.squares = np.array(told["squares"] if told else 0.0)

    def add(self, rewards: np.ndarray) -> None:
        values = rewards.astype(np.float64)
        self.count += len(values)
        self.sums, self.squares = self.sums + values.sum(0), self.squares + (values**2).sum(0)

    def told(self) -> dict[str, Any]:
        return {"count": self.count, "sums": self.sums.tolist(), "squares": self.squares.tolist()}

    def variance(self) -> np.ndarray:
        return np.maximum(self.squares / self.count - (self.sums / self.count) ** 2, 0)


# -- reading ---------------------------------------------------------------------------------------------------------


class Shards(Stream):
    """A data set in shards. Reading one frame decompresses those of its chunk.

    Raises:
        FileNotFoundError: there is none at this URL.
        UserError: this release cannot read it.
    """

    def __init__(self, url: str):
        self.url, (self.filesystem, self.root) = url, _filesystem(url)
        index = _read_index(self.filesystem, self.root, url)
        if index is None:
            raise FileNotFoundError(
                f"there is no data set at {url}: it has no {INDEX}; `worldgym shard --dataset ID --out {url}` makes one"
            )
        self.about, self.files, self.chunk = index["about"], index["shards"], index.get("chunk", OLD_CHUNK)
        self.rewards = _Moments(index["rewards"])
        super().__init__(
            [one["lengths"] for one in self.files],
            [one["split"] for one in self.files],
            {name: np.dtype((DTYPES[name], tuple(shape))) for name, shape in index["shapes"].items()},
            int(streams.WINDOW / np.mean([one["bytes"] for one in self.files])),
        )
        self._decompress = _zstandard().ZstdDecompressor

    @property
    def reward_variance(self) -> np.ndarray:
        return self.rewards.variance()

    def load(self, number: int) -> "_Shard":
        told = self.files[number]
        where = f"{self.url}/{told['file']}"
        try:
            content = self.filesystem.cat_file(f"{self.root}/{told['file']}")
        except FileNotFoundError:
            raise UserError(f"{where} is missing; the index of the data set lists it") from None
        if hashlib.sha256(content).hexdigest() != told["sha256"]:
            raise UserError(f"{where} is damaged: it is not the file that the index of the data set lists")
        try:
            tensors = load_bytes(content)
        except SafetensorError as error:
            raise UserError(f"{where} is damaged: {error}") from None
        lengths, decompress = np.asarray(told["lengths"]), self._decompress().decompress
        parts = {
            name: np.frombuffer(decompress(tensors[name].tobytes()), row.base).reshape(lengths.sum(), *row.shape)
            for name, row in self.parts.items()
            if name in tensors and name != "frames"
        }
        return _Shard(parts, tensors["frames"], tensors["chunk_ends"], lengths, self.chunk, self.parts["frames"].shape)


@dataclass(frozen=True)
class _Shard:
    parts: dict[str, np.ndarray]
    frames: np.ndarray
    """uint8, chunks one after another."""
    chunk_ends: np.ndarray
    lengths: np.ndarray
    """Of its episodes."""
    chunk: int
    """Frames."""
    shape: tuple[int, ...]
    """Of a frame."""

    @cached_property
    def _firsts(self) -> tuple[np.ndarray, np.ndarray]:
        """Of every episode, its first row and its first chunk."""
        first_row, first_chunk = (np.cumsum(counts) for counts in (self.lengths, -(-self.lengths // self.chunk)))
        return np.concatenate([[0], first_row]), np.concatenate([[0], first_chunk])

    def read(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Rows by their numbers within the shard, int [n]."""
        if name != "frames":
            return self.parts[name][rows]
        starts, first_chunk = self._firsts
        episode = np.searchsorted(starts, rows, side="right") - 1
        chunk, place = np.divmod(rows - starts[episode], self.chunk)
        found = np.empty((len(rows), *self.shape), np.uint8)
        decompress = _zstandard().ZstdDecompressor().decompress
        for number, here in groups(first_chunk[episode] + chunk):
            begin = int(self.chunk_ends[number - 1]) if number else 0
            content = decompress(self.frames[begin : int(self.chunk_ends[number])].data)
            found[here] = np.frombuffer(content, np.uint8).reshape(-1, *self.shape)[place[here]]
        return found


def _read_index(filesystem: Any, root: str, url: str) -> dict[str, Any] | None:
    try:
        index = json.loads(filesystem.cat_file(f"{root}/{INDEX}"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError(f"{url}/{INDEX} is damaged: {error}") from None
    if not isinstance(index, dict) or index.get("version") != VERSION:
        raise UserError(f"{url}/{INDEX} is no index of shards of version {VERSION}, which this release reads")
    return index
