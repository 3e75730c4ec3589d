"""Minari datasets as memory-mapped arrays, data sets in shards as streams, and segments cut out of them.

The only place that aligns time: `frame_t, action_t -> reward_t, terminated_t, frame_{t+1}`. A segment of t
steps holds t + 1 frames and t of everything else.
"""

import json
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import minari
import numpy as np
from filelock import FileLock
from gymnasium.spaces import Box
from minari.dataset.minari_storage import is_image_space
from minari.storage import get_dataset_path
from tqdm import tqdm

from .episodes import EpisodeFormat, as_frames
from .epochs import EpochOrder
from .errors import UserError
from .files import check_room, whole_folder
from .shards import Shards
from .storage import read_columns, to_metadata
from .streams import AHEAD, DRAWN, LEROBOT, Stream, is_streamed, split_of

CACHE_VERSION = 4


@runtime_checkable
class Rows(Protocol):
    """What there is of every frame: an array, in memory, on a disk, or fetched from shards as it is asked for."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, rows: Any, /) -> Any: ...


Choice = Callable[[int, int, np.random.Generator], np.ndarray]
"""From a seed, the number of a batch, and the batch's random numbers, the episodes that its rows are cut from."""


@dataclass(frozen=True)
class Episodes:
    """A data set: flat arrays over all frames, and where each episode begins.

    `frames`, `rewards`, `successes`, `terminations` have one row for every frame of every episode; `actions`
    has one too, whose last in each episode is padding. Row i of `rewards` judges frame i, so the
    reward of step t is row t + 1.
    """

    frames: Rows
    """uint8 [n, h, w, 3]."""
    actions: Rows
    """float32 [n, a]."""
    sentences: Rows
    """int16 [n, s], indices into `phrase_list` of sentences whose meaning at this frame is known; -1 for none."""
    sentence_actions: Rows
    """float32 [n, s, a], the vector action that carries each of them out from this frame."""
    rewards: Rows
    """float32 [n, m], one column for each instruction."""
    successes: Rows
    """bool [n, m]."""
    terminations: Rows
    """bool [n, m]."""
    starts: np.ndarray
    """int64 [episodes + 1]: episode e is rows starts[e] to starts[e + 1]."""
    instructions: tuple[str, ...]
    phrase_list: tuple[str, ...]
    frames_per_action: int
    environment: str
    """Gymnasium id of the recorded environment; empty if there is none to make."""
    action_space: dict[str, Any] | None = None
    """The action space that the vectors stand for, as `ActionCodec.describe` has it; None is Box(-1, 1, (a,))."""
    twin_options: dict[str, Any] = field(default_factory=dict)
    """How the environment is made and seen, as `WorldConfig.twin_options`."""

    @cached_property
    def reward_variance(self) -> float:
        """Of rewards by the same instruction; never quite zero."""
        return max(float(np.asarray(self.rewards).var(0).mean()), 1e-6)

    def split(self, name: Literal["train", "validation", "test"]) -> np.ndarray:
        """Episode indices of a split: of every 20 episodes, 18 train, 1 validates and 1 tests.

        Raises:
            UserError: so few episodes leave none for it.
        """
        episodes = self._members(name)
        if not len(episodes):
            raise UserError(
                f"{len(self.starts) - 1} episodes leave none for the {name} split: of every 20, the 19th validates and "
                "the 20th tests. Record at least 20"
            )
        return episodes

    def _members(self, split: str) -> np.ndarray:
        return np.flatnonzero([split_of(episode) == split for episode in range(len(self.starts) - 1)])

    def choice(self, episodes: np.ndarray, batch: int) -> Choice:
        """How training chooses among these episodes: each time at random."""
        return lambda seed, step, rng: rng.choice(episodes, batch)

    def some_rows(self, count: int, seed: int) -> np.ndarray:
        """Rows of frames to take figures from, in their order."""
        return np.sort(np.random.default_rng(seed).permutation(len(self.frames))[:count])

    def episodes_of(self, rows: np.ndarray) -> np.ndarray:
        """The episodes that these rows are of."""
        return np.searchsorted(self.starts, rows, side="right") - 1


@dataclass(frozen=True)
class StreamedEpisodes(Episodes):
    """A data set in shards, or LeRobot's. Training goes through it epoch by epoch; in each it draws every episode once
    for every 4 frames of it."""

    stream: Stream = field(kw_only=True)

    @cached_property
    def reward_variance(self) -> float:
        return max(float(self.stream.reward_variance.mean()), 1e-6)

    def _members(self, split: str) -> np.ndarray:
        return self.stream.episodes(split)

    def draws(self, episodes: np.ndarray) -> np.ndarray:
        """How often an epoch draws each of these episodes."""
        return np.asarray(-(-self.stream.lengths[episodes] // DRAWN))

    def choice(self, episodes: np.ndarray, batch: int) -> Choice:
        """How training chooses among these episodes: as `EpochOrder` says. It also begins to fetch what comes next."""
        stream = self.stream
        order = EpochOrder(episodes, stream.piece_of[episodes], self.draws(episodes), stream.window)
        ahead = AHEAD + len(order.shards) * batch // order.length  # so many pieces come into the window with a batch

        def chosen(seed: int, step: int, rng: np.random.Generator) -> np.ndarray:
            stream.fetch(order.needs(seed, step, batch, ahead))
            return order.batch(seed, step, batch)

        return chosen

    def some_rows(self, count: int, seed: int) -> np.ndarray:
        """Of a few pieces only."""
        random, pieces = np.random.default_rng(seed), len(self.stream.firsts) - 1
        few = random.permutation(pieces)[: self.stream.window]
        rows = np.concatenate([np.arange(*self.stream.firsts[one : one + 2]) for one in few])
        return np.sort(random.permutation(rows)[:count])


@dataclass(frozen=True)
class Segment:
    """A batch of stretches of experience: t + 1 frames and t of everything else."""

    frames: np.ndarray
    """uint8 [b, t+1, h, w, 3]."""
    actions: np.ndarray
    """float32 [b, t, a]."""
    sentences: np.ndarray
    """int16 [b, t, s]."""
    sentence_actions: np.ndarray
    """float32 [b, t, s, a]."""
    rewards: np.ndarray
    """float32 [b, t, m]: of the frame that each action leads to."""
    successes: np.ndarray
    """bool [b, t, m]."""
    terminations: np.ndarray
    """bool [b, t, m]."""

    def since(self, step: int) -> "Segment":
        """Without the first `step` steps."""
        return Segment(*(getattr(self, part.name)[:, step:] for part in fields(self)))


def sample_segments(
    data: Episodes, episodes: np.ndarray, batch: int, steps: int, rng: np.random.Generator, ends: float = 0.0
) -> Segment:
    """`batch` stretches of `steps` steps, which begin where `sample_rows` says."""
    return segments_at(data, sample_rows(data, episodes, batch, steps, rng, ends), steps)


def sample_rows(
    data: Episodes, episodes: np.ndarray, batch: int, steps: int, rng: np.random.Generator, ends: float = 0.0
) -> np.ndarray:
    """Rows at which `batch` stretches of `steps` steps begin, uniform over the given episodes and their offsets."""
    return rows_within(data, rng.choice(long_enough(data, episodes, steps), batch), steps, rng, ends)


def long_enough(data: Episodes, episodes: np.ndarray, steps: int) -> np.ndarray:
    """Those of the episodes that have `steps` steps."""
    lengths = np.diff(data.starts)[episodes]
    fitting = episodes[lengths > steps]
    if len(lengths) == 0:
        raise ValueError("no episodes to sample from; the validation and test splits need 20 recorded episodes")
    if len(fitting) == 0:
        raise ValueError(
            f"none of these {len(lengths)} episodes has {steps} steps, the longest has {lengths.max() - 1}: ask for "
            "fewer (in training --window and --prompt, in evaluation --steps) or record longer ones"
        )
    return fitting


def rows_within(
    data: Episodes, chosen: np.ndarray, steps: int, rng: np.random.Generator, ends: float = 0.0
) -> np.ndarray:
    """Rows at which stretches of `steps` steps begin, one in each of the chosen episodes, uniform over its offsets.

    Args:
        ends: of the stretches of episodes that end under every instruction, the share in which they do: an end is one
            frame of an episode, and seldom in a stretch by chance.
    """
    batch = len(chosen)
    room = data.starts[chosen + 1] - data.starts[chosen] - steps
    first = data.starts[chosen] + rng.integers(room)
    if ends > 0:
        last = np.array([last_row(data, episode) for episode in chosen.tolist()])
        around = np.clip(last - rng.integers(1, steps + 1, batch), data.starts[chosen], data.starts[chosen] + room - 1)
        first = np.where(data.terminations[last].all(1) & (rng.random(batch) < ends), around, first)
    return first


def last_row(data: Episodes, episode: int) -> int:
    """Row of the frame in which an episode ends under every instruction, if there is one, else of its last frame."""
    rows = slice(data.starts[episode], data.starts[episode + 1])
    over = np.flatnonzero(data.terminations[rows].all(1))
    return int(rows.start + over[0] if len(over) else rows.stop - 1)


def segments_at(data: Episodes, rows: np.ndarray, steps: int) -> Segment:
    """The stretches that begin at the given rows."""
    now = rows[:, None] + np.arange(steps)
    return Segment(
        frames=data.frames[rows[:, None] + np.arange(steps + 1)],
        actions=data.actions[now],
        sentences=data.sentences[now],
        sentence_actions=data.sentence_actions[now],
        rewards=data.rewards[now + 1],
        successes=data.successes[now + 1],
        terminations=data.terminations[now + 1],
    )


def load_episodes(dataset_id: str) -> Episodes:
    """Open a Minari dataset, through a memory-mapped cache next to it; the data set in shards at a URL; or a LeRobot
    data set, `lerobot:URL` (see `lerobot_files.read_name`).

    The first call writes the cache, and so does the first one after the dataset has changed. Shards and the pictures of
    a LeRobot data set are fetched as they are needed.

    Raises:
        FileNotFoundError: there is no such dataset.
        UserError: it is not one that a world can learn from; the message names the episode, the step and what was
            expected.
    """
    if dataset_id.startswith(LEROBOT):
        return _stream_lerobot(dataset_id)
    if is_streamed(dataset_id):
        return _stream(dataset_id)
    dataset = open_dataset(dataset_id)
    data, columns = Path(dataset.storage.data_path), read_columns(dataset)
    stamp = {
        "version": CACHE_VERSION,
        "files": _files(data),
        "environment": dataset.env_spec.id if dataset.env_spec else "",
        **to_metadata(*columns),
        **({"twin_options": options} if (options := _twin_options(dataset)) else {}),
    }
    cache = data.parent / "worldgym_cache"
    found = _open_cache(cache, stamp)
    if found is None:
        with FileLock(data.parent / "worldgym_cache.lock"):  # several processes may find it missing at the same time
            found = _open_cache(cache, stamp)
            if found is None:
                for leftover in (cache, *data.parent.glob(".worldgym_cache.*.tmp")):  # of a process that was killed
                    shutil.rmtree(leftover, ignore_errors=True)
                with whole_folder(cache) as temporary:
                    _write_cache(dataset, temporary, stamp)
                found = _open_cache(cache, stamp)
    assert found is not None
    return found


def open_dataset(dataset_id: str) -> minari.MinariDataset:
    """Minari's own, with errors that say what to do."""
    try:
        return minari.load_dataset(dataset_id)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"there is no dataset {dataset_id!r} in {get_dataset_path('')}; "
            f"`worldgym record --dataset {dataset_id}` makes one of an environment"
        ) from None
    except (AssertionError, KeyError, ValueError) as error:  # as Minari says that its metadata are damaged
        raise UserError(f"data set {dataset_id} cannot be read: {error!r}") from error


def _stream(url: str) -> StreamedEpisodes:
    shards = Shards(url)
    about = shards.about
    return StreamedEpisodes(
        **{name: shards.rows(name) for name in ("frames", *_ROWS)},
        starts=shards.starts,
        instructions=tuple(about["instructions"]),
        phrase_list=tuple(about["phrases"]),
        frames_per_action=about["frames_per_action"],
        environment=about["environment"],
        action_space=about["action_space"],
        twin_options=about["twin_options"],
        stream=shards,
    )


def _stream_lerobot(name: str) -> StreamedEpisodes:
    from .lerobot_files import LeRobotStream  # brings pyarrow

    stream = LeRobotStream(name)
    layout = stream.files.layout
    return StreamedEpisodes(
        frames=stream.rows("frames"),
        **stream.numbers,
        starts=stream.starts,
        instructions=layout.instructions,
        phrase_list=layout.phrases,
        frames_per_action=layout.frames_per_action,
        environment="",
        action_space=layout.actions,
        stream=stream,
    )


_ROWS = ("actions", "sentences", "sentence_actions", "rewards", "successes", "terminations")
_ARRAYS = ("frames", *_ROWS, "starts")


def _open_cache(cache: Path, stamp: dict[str, Any]) -> Episodes | None:
    """None if there is no cache, or it is damaged or made of something else than `stamp` says."""
    try:
        found = json.loads((cache / "meta.json").read_text(encoding="utf-8"))
        if found["made_of"] != stamp or found["sizes"] != _sizes(cache):
            return None
        arrays = {name: np.load(cache / f"{name}.npy", mmap_mode="r") for name in _ARRAYS}
    except (FileNotFoundError, ValueError, KeyError):
        return None
    return Episodes(
        **arrays,
        instructions=tuple(stamp["worldgym_instructions"]),
        phrase_list=tuple(stamp["worldgym_phrases"]),
        frames_per_action=stamp["worldgym_frames_per_action"],
        environment=stamp["environment"],
        action_space=stamp.get("worldgym_actions"),
        twin_options=stamp.get("twin_options", {}),
    )


def _twin_options(dataset: minari.MinariDataset) -> dict[str, Any]:
    """What the environment of a recording by `worldgym record --env` was made with, but for its id and resolution."""
    spec = dataset.env_spec
    if spec is None or not str(spec.entry_point).endswith("gym_record:make_twin"):
        return {}
    return {name: value for name, value in spec.kwargs.items() if name not in ("env_id", "resolution")}


def about(dataset: minari.MinariDataset) -> dict[str, Any]:
    """What all episodes of a data set have in common, as `shards.write_shards` takes it."""
    instructions, phrases, frames_per_action, actions = read_columns(dataset)
    return {
        "instructions": instructions,
        "phrases": phrases,
        "frames_per_action": frames_per_action,
        "action_space": actions,
        "environment": dataset.env_spec.id if dataset.env_spec else "",
        "twin_options": _twin_options(dataset),
    }


def episodes_and_about(dataset_id: str) -> tuple[Iterator[dict[str, np.ndarray]], dict[str, Any]]:
    """Both as `shards.write_shards` takes them. Neither copies a data set to the disk."""
    if not is_streamed(dataset_id):
        recorded = open_dataset(dataset_id)
        return checked_episodes(recorded, "sharding"), about(recorded)
    data = load_episodes(dataset_id)
    assert isinstance(data, StreamedEpisodes)
    told = {name: getattr(data, name) for name in ("frames_per_action", "action_space", "environment", "twin_options")}
    return _in_order(data), told | {"instructions": data.instructions, "phrases": data.phrase_list}


def _in_order(data: StreamedEpisodes) -> Iterator[dict[str, np.ndarray]]:
    last = len(data.stream.firsts) - 2
    for number, piece in enumerate(tqdm(data.stream.piece_of.tolist(), desc="sharding", unit="episode")):
        data.stream.fetch(range(piece, min(piece + AHEAD, last) + 1))
        rows = slice(data.starts[number], data.starts[number + 1])
        yield {name: getattr(data, name)[rows] for name in ("frames", *_ROWS)}


def _files(folder: Path) -> dict[str, list[int]]:
    """Size and time of the last change of all files below a folder."""
    found = {str(path.relative_to(folder)): path.stat() for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: [file.st_size, file.st_mtime_ns] for name, file in found.items()}


def _sizes(folder: Path) -> dict[str, int]:
    return {f"{name}.npy": (folder / f"{name}.npy").stat().st_size for name in _ARRAYS}


def _iterate(dataset: minari.MinariDataset) -> Iterator[minari.EpisodeData]:
    try:
        yield from dataset.iterate_episodes()
    except (AssertionError, KeyError, OSError) as error:  # as Minari and HDF5 say that files are damaged
        raise UserError(f"data set {dataset.spec.dataset_id} is damaged: {error}") from error


def checked_episodes(dataset: minari.MinariDataset, doing: str) -> Iterator[dict[str, np.ndarray]]:
    """The parts of each episode as `Episodes` has them; the last action is padding.

    Args:
        doing: the label of the progress bar.

    Raises:
        UserError: the data set is not one that a world can learn from.
    """
    name, space, columns = dataset.spec.dataset_id, dataset.observation_space, read_columns(dataset)
    if not isinstance(space, Box):
        raise UserError(f"data set {name} observes {space}; expected pictures, Box(0, 255, (height, width, 3), uint8)")
    if is_image_space(space) and dataset.storage.metadata.get("jpeg_encoding", True):
        warnings.warn(
            f"data set {name} has its frames as JPEG, whose marks a world learns, too; Minari writes them so, and "
            "`minari combine` as well, unless jpeg_encoding=False",
            stacklevel=4,
        )
    rows, done, widths = 0, set[str](), dict[str, tuple[int, ...]]()
    layout: EpisodeFormat | None = None
    episodes = tqdm(_iterate(dataset), total=dataset.total_episodes, desc=doing, unit="episode")
    for number, episode in enumerate(episodes):
        where = f"data set {name}, episode {number}"
        frames, changes = as_frames(where, episode.observations, float(space.high.max()))
        done |= set(changes)
        if layout is None:
            size = np.shape(episode.actions)[-1] if np.ndim(episode.actions) == 2 else 1
            layout = EpisodeFormat(frames.shape[1], size, *columns)
        checked = layout.check(where, frames, episode.actions, episode.infos or {})
        checked["actions"] = np.concatenate([checked["actions"], checked["actions"][-1:]])
        for part in _ROWS:
            if (width := checked[part].shape[1:]) != widths.setdefault(part, width):
                raise UserError(
                    f"data set {name} has episodes whose {part} differ in width: {sorted({width, widths[part]})}"
                )
        rows += len(checked["frames"])
        yield checked
    if not rows:
        raise UserError(f"data set {name} has no episodes")
    if rows != (total := dataset.total_steps + dataset.total_episodes):
        raise UserError(
            f"data set {name} has {rows} frames; by its metadata it has {total}, one more than steps in each episode"
        )
    if done:
        warnings.warn(f"data set {name} is read with changes: {'; '.join(sorted(done))}", stacklevel=4)


def _write_cache(dataset: minari.MinariDataset, folder: Path, stamp: dict[str, Any]) -> None:
    total, starts = dataset.total_steps + dataset.total_episodes, [0]
    parts: dict[str, list[np.ndarray]] = {part: [] for part in _ROWS}
    # Not a memory map, in which a full disk ends the process.
    with (folder / "frames.npy").open("wb") as file:
        for episode in checked_episodes(dataset, "caching"):
            frames = episode["frames"]
            if len(starts) == 1:
                check_room(folder, total * frames[0].nbytes)
                header = {"descr": "|u1", "fortran_order": False, "shape": (total, *frames.shape[1:])}
                np.lib.format.write_array_header_1_0(file, header)
            file.write(frames.tobytes())
            starts.append(starts[-1] + len(frames))
            for part in _ROWS:
                parts[part].append(episode[part])
    for part, arrays in parts.items():
        np.save(folder / f"{part}.npy", np.concatenate(arrays))
    np.save(folder / "starts.npy", np.asarray(starts))
    content = {"made_of": stamp, "sizes": _sizes(folder)}
    (folder / "meta.json").write_text(json.dumps(content), encoding="utf-8")
