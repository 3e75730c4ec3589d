"""Data sets in shards: files of episodes in a folder, in object storage or on the Hugging Face hub, read as a stream.

    index.json             what the data set is, and of each file its size, SHA-256, split and episodes' lengths
    train-00000.safetensors, validation-00000.safetensors, ...

A shard is a safetensors file. Its tensors are bytes that Zstandard compressed: `frames` in chunks of 16 frames of one
episode, one after another, which end at `chunk_ends`; every other part (`actions`, `rewards`, ...) as a whole. Any
fsspec URL will do: file://, hf://, s3://, gs://, memory://.
"""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_bytes
from safetensors.numpy import save as save_bytes

from .errors import UserError

VERSION = 1
INDEX = "index.json"
CHUNK = 16
"""Frames that are compressed together. Reading one frame decompresses them all."""
SHARD = 4 * 2**20
"""Bytes after which a shard is full."""
WINDOW = 256 * 2**20
"""Bytes of compressed shards that a reader keeps in memory, and that training shuffles."""
AHEAD = 2
"""Further shards that training fetches before it needs them."""
SPLITS = ("train", "validation", "test")
DTYPES: dict[str, Any] = {
          "frames": np.uint8, "actions": np.float32, "sentences": np.int16, "sentence_actions": np.float32,
          "rewards": np.float32, "successes": np.bool_, "terminations": np.bool_}  # fmt: skip
"""The parts of an episode; each has a row for every frame."""


def split_of(episode: int) -> str:
    """Of every 20 episodes, 18 train, one validates and one tests."""
    return {18: "validation", 19: "test"}.get(episode % 20, "train")


def is_url(dataset: str) -> bool:
    """Whether it names shards, not a Minari data set."""
    return "://" in dataset


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError as error:
        raise ImportError('data sets in shards are compressed: pip install "worldgym[shards]"') from error
    return zstandard


def _filesystem(url: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    if not is_url(url):
        raise UserError(f"{url!r} is no URL; expected such as file://{url}, s3://bucket/name, hf://datasets/user/name")
    try:
        return url_to_fs(url)
    except (ValueError, ImportError) as error:  # fsspec does not know the protocol, or lacks the package for it
        raise UserError(f"{url} cannot be opened: {error}") from None


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
        "version": VERSION, "about": about, "shapes": None, "sources": {}, "shards": [], "rewards": None,
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
    compress = _zstandard().ZstdCompressor(level=1).compress
    files = {split: _Open() for split in SPLITS}
    rewards = _Moments(index["rewards"])
    added = 0

    def close(split: str) -> None:
        number = sum(one["split"] == split for one in index["shards"])
        name = f"{split}-{number:05d}.safetensors"
        lengths, content = files[split].lengths, files[split].content(compress)
        filesystem.pipe_file(f"{root}/{name}", content)
        told = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(), "lengths": lengths}
        index["shards"].append({"file": name, "split": split, **told})
        files[split] = _Open()

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

    def __init__(self):
        self.chunks: list[bytes] = []
        self.rows: dict[str, list[np.ndarray]] = {name: [] for name in DTYPES if name != "frames"}
        self.lengths: list[int] = []
        self.size = 0

    def add(self, episode: dict[str, np.ndarray], compress: Any) -> None:
        frames = np.ascontiguousarray(episode["frames"], DTYPES["frames"])
        self.chunks += [compress(frames[first : first + CHUNK]) for first in range(0, len(frames), CHUNK)]
        for name, rows in self.rows.items():
            rows.append(episode[name])
        self.lengths.append(len(frames))
        self.size += sum(map(len, self.chunks[-_chunks(len(frames)) :]))

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


def _chunks(length: Any) -> Any:
    """Of an episode of so many frames."""
    return -(-length // CHUNK)


# -- reading ---------------------------------------------------------------------------------------------------------


class Shards:
    """A data set in shards. Of its files, only the newest few that were asked for are in memory.

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
        self.about, self.files = index["about"], index["shards"]
        self.shapes = {name: tuple(shape) for name, shape in index["shapes"].items()}
        self.reward_variance = _Moments(index["rewards"]).variance()
        counts = [len(one["lengths"]) for one in self.files]
        self.lengths = np.concatenate([one["lengths"] for one in self.files])
        self.shard_of = np.repeat(np.arange(len(self.files)), counts)
        """Of each episode; episodes are in the order of the files."""
        self.starts = np.concatenate([[0], np.cumsum(self.lengths)])
        self.firsts = self.starts[np.concatenate([[0], np.cumsum(counts)])]
        """The first row of each shard."""
        self.window = max(2, int(WINDOW / np.mean([one["bytes"] for one in self.files])))
        self._decompress = _zstandard().ZstdDecompressor
        self._held: OrderedDict[int, Future[_Shard]] = OrderedDict()
        self._lock, self._pool = Lock(), ThreadPoolExecutor(4, "shards")

    def rows(self, name: str) -> "Rows":
        return Rows(self, name)

    def episodes(self, split: str) -> np.ndarray:
        """Of a split, by number."""
        return np.flatnonzero(np.array([one["split"] == split for one in self.files])[self.shard_of])

    def fetch(self, numbers: Sequence[int]) -> "list[Future[_Shard]]":
        """Begin to fetch shards; those that were not asked for the longest are forgotten."""
        with self._lock:
            for number in numbers:
                if number not in self._held:
                    self._held[number] = self._pool.submit(self._load, number)
                self._held.move_to_end(number)
            found = [self._held[number] for number in numbers]
            while len(self._held) > self.window + AHEAD + 1:  # a batch may be of two neighbouring windows
                self._held.popitem(last=False)
        return found

    def _load(self, number: int) -> "_Shard":
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
            name: np.frombuffer(decompress(tensors[name].tobytes()), DTYPES[name]).reshape(lengths.sum(), *shape)
            for name, shape in self.shapes.items()
            if name != "frames"
        }
        return _Shard(parts, tensors["frames"], tensors["chunk_ends"], lengths, self.shapes["frames"])


@dataclass(frozen=True)
class _Shard:
    parts: dict[str, np.ndarray]
    frames: np.ndarray
    """uint8, chunks one after another."""
    chunk_ends: np.ndarray
    lengths: np.ndarray
    """Of its episodes."""
    shape: tuple[int, ...]
    """Of a frame."""

    def read(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Rows by their numbers within the shard, int [n]."""
        if name != "frames":
            return self.parts[name][rows]
        starts = np.concatenate([[0], np.cumsum(self.lengths)])
        episode = np.searchsorted(starts, rows, side="right") - 1
        first_chunk = np.concatenate([[0], np.cumsum(_chunks(self.lengths))])
        chunk, place = np.divmod(rows - starts[episode], CHUNK)
        found = np.empty((len(rows), *self.shape), np.uint8)
        decompress = _zstandard().ZstdDecompressor().decompress
        for number, here in _groups(first_chunk[episode] + chunk):
            begin = int(self.chunk_ends[number - 1]) if number else 0
            content = decompress(self.frames[begin : int(self.chunk_ends[number])].data)
            found[here] = np.frombuffer(content, np.uint8).reshape(-1, *self.shape)[place[here]]
        return found


class Rows:
    """A part of all episodes, by row, as a numpy array has it: `rows[i]`, `rows[3:7]`, `rows[indices]`."""

    def __init__(self, shards: Shards, name: str):
        self.shards, self.name = shards, name
        self.shape = (int(shards.starts[-1]), *shards.shapes[name])
        self.dtype = np.dtype(DTYPES[name])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        wanted = np.arange(*key.indices(len(self))) if isinstance(key, slice) else np.asarray(key)
        flat = wanted.ravel()
        if flat.dtype.kind not in "iu" and flat.size:
            raise IndexError(f"rows are asked for by {flat.dtype}; expected whole numbers")
        if flat.size and not (-len(self) <= flat.min() and flat.max() < len(self)):
            raise IndexError(f"rows {flat.min()} to {flat.max()} of {len(self)}")
        flat = np.where(flat < 0, flat + len(self), flat)
        found = np.empty((len(flat), *self.shape[1:]), self.dtype)
        groups = list(_groups(np.searchsorted(self.shards.firsts, flat, side="right") - 1))
        self.shards.fetch([number for number, _ in groups[: self.shards.window]])
        for number, here in groups:
            shard = self.shards.fetch([number])[0].result()
            found[here] = shard.read(self.name, flat[here] - self.shards.firsts[number])
        return found.reshape(*wanted.shape, *self.shape[1:])


def _groups(numbers: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Each number that occurs, and where."""
    order = np.argsort(numbers, kind="stable")
    values, begins = np.unique(numbers[order], return_index=True)
    yield from zip(values.tolist(), np.split(order, begins)[1:], strict=True)


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
