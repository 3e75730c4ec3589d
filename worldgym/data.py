"""Minari datasets as memory-mapped arrays, and segments cut out of them.

The only place that aligns time: `frame_t, action_t -> reward_t, terminated_t, frame_{t+1}`. A segment of t
steps holds t + 1 frames and t of everything else.
"""

import json
import shutil
import tempfile
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Literal

import minari
import numpy as np
from minari.storage import get_dataset_path
from tqdm import tqdm

CACHE_VERSION = 3


@dataclass(frozen=True)
class Episodes:
    """A data set: flat arrays over all frames, and where each episode begins.

    `frames`, `rewards`, `successes`, `terminations` have one row for every frame of every episode; `actions`
    has one too, whose last in each episode is padding. Row i of `rewards` judges frame i, so the
    reward of step t is row t + 1.
    """

    frames: np.ndarray
    """uint8 [n, h, w, 3]."""
    actions: np.ndarray
    """float32 [n, a]."""
    sentences: np.ndarray
    """int16 [n, s], indices into `phrase_list` of sentences whose meaning at this frame is known; -1 for none."""
    sentence_actions: np.ndarray
    """float32 [n, s, a], the vector action that carries each of them out from this frame."""
    rewards: np.ndarray
    """float32 [n, m], one column for each instruction."""
    successes: np.ndarray
    """bool [n, m]."""
    terminations: np.ndarray
    """bool [n, m]."""
    starts: np.ndarray
    """int64 [episodes + 1]: episode e is rows starts[e] to starts[e + 1]."""
    instructions: tuple[str, ...]
    phrase_list: tuple[str, ...]
    frames_per_action: int
    environment: str
    """Gymnasium id of the recorded environment; empty if there is none to make."""

    @cached_property
    def reward_variance(self) -> float:
        """Of rewards by the same instruction; never quite zero."""
        return max(float(self.rewards.var(0).mean()), 1e-6)

    def split(self, name: Literal["train", "validation", "test"]) -> np.ndarray:
        """Episode indices of a split: of every 20 episodes, 18 train, 1 validates and 1 tests."""
        turn = np.arange(len(self.starts) - 1) % 20
        episodes = np.flatnonzero({"train": turn < 18, "validation": turn == 18, "test": turn == 19}[name])
        if not len(episodes):
            raise ValueError(
                f"the data set has {len(turn)} episodes, and none of them for the {name} split: of every 20, 18 train, "
                "one validates and one tests. Record 20 or more"
            )
        return episodes


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
    """`batch` stretches of `steps` steps, uniform over the given episodes and their offsets.

    Args:
        ends: of the stretches of episodes that end under every instruction, the share in which they do: an end is one
            frame of an episode, and seldom in a stretch by chance.
    """
    lengths = np.diff(data.starts)[episodes]
    episodes = episodes[lengths > steps]
    if len(lengths) == 0:
        raise ValueError("no episodes to sample from; the validation and test splits need 20 recorded episodes")
    if len(episodes) == 0:
        raise ValueError(
            f"none of these {len(lengths)} episodes has {steps} steps, the longest has {lengths.max() - 1}: ask for "
            "fewer (in training --window and --prompt, in evaluation --steps) or record longer ones"
        )
    chosen = rng.choice(episodes, batch)
    room = data.starts[chosen + 1] - data.starts[chosen] - steps
    first = data.starts[chosen] + rng.integers(room)
    if ends > 0:
        last = np.array([last_row(data, episode) for episode in chosen.tolist()])
        around = np.clip(last - rng.integers(1, steps + 1, batch), data.starts[chosen], data.starts[chosen] + room - 1)
        first = np.where(data.terminations[last].all(1) & (rng.random(batch) < ends), around, first)
    return segments_at(data, first, steps)


def last_row(data: Episodes, episode: int) -> int:
    """Row of the frame in which an episode ends under every instruction, or of its last; a recording may go on."""
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
    """Open a Minari dataset, through a memory-mapped cache beside it that the first call writes."""
    try:
        dataset = minari.load_dataset(dataset_id)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"there is no dataset {dataset_id!r} in {get_dataset_path('')}; "
            f"`worldgym record --dataset {dataset_id}` makes one of an environment"
        ) from None
    cache = Path(dataset.storage.data_path).parent / "worldgym_cache"
    if not (cache / "meta.json").exists():
        _write_cache(dataset, cache)
    meta = json.loads((cache / "meta.json").read_text())
    if meta["version"] != CACHE_VERSION:
        shutil.rmtree(cache)
        return load_episodes(dataset_id)
    arrays = {name: np.load(cache / f"{name}.npy", mmap_mode="r") for name in _ARRAYS}
    return Episodes(
        **arrays,
        instructions=tuple(meta["instructions"]),
        phrase_list=tuple(meta["phrases"]),
        frames_per_action=meta["frames_per_action"],
        environment=meta["environment"],
    )


_INFOS = ("sentences", "sentence_actions", "rewards", "successes", "terminations")
_ARRAYS = ("frames", "actions", *_INFOS, "starts")


def _write_cache(dataset: minari.MinariDataset, cache: Path) -> None:
    metadata = dataset.storage.metadata
    if "worldgym_instructions" not in metadata:
        raise ValueError(
            f"dataset {dataset.spec.dataset_id} has no rewards by instruction; record it with `worldgym record`"
        )
    # A name of its own: two processes may find the cache missing at the same time.
    temporary = Path(tempfile.mkdtemp(prefix="worldgym_cache.", suffix=".tmp", dir=cache.parent))
    frames = None
    rows, starts = 0, [0]
    columns: dict[str, list[np.ndarray]] = {name: [] for name in _ARRAYS if name not in ("frames", "starts")}
    total = dataset.total_steps + dataset.total_episodes
    for episode in tqdm(dataset.iterate_episodes(), total=dataset.total_episodes, desc="caching", unit="episode"):
        length = len(episode.observations)
        if frames is None:
            shape = (total, *episode.observations.shape[1:])
            frames = np.lib.format.open_memmap(temporary / "frames.npy", "w+", np.uint8, shape)
        frames[rows : rows + length] = episode.observations
        rows += length
        starts.append(rows)
        columns["actions"].append(np.concatenate([episode.actions, episode.actions[-1:]]).astype(np.float32))
        nothing_said = {
            "sentences": np.zeros((length, 0), np.int16),
            "sentence_actions": np.zeros((length, 0, episode.actions.shape[-1]), np.float32),
        }
        infos = episode.infos if metadata["worldgym_phrases"] else {**nothing_said, **episode.infos}
        for name in _INFOS:
            columns[name].append(infos[name])
    if frames is None:
        raise ValueError(f"dataset {dataset.spec.dataset_id} has no episodes")
    frames.flush()
    for name, parts in columns.items():
        np.save(temporary / f"{name}.npy", np.concatenate(parts))
    np.save(temporary / "starts.npy", np.asarray(starts))
    meta = {
        "version": CACHE_VERSION,
        "instructions": list(metadata["worldgym_instructions"]),
        "phrases": list(metadata["worldgym_phrases"]),
        "frames_per_action": int(metadata["worldgym_frames_per_action"]),
        "environment": dataset.env_spec.id if dataset.env_spec else "",
    }
    (temporary / "meta.json").write_text(json.dumps(meta))
    if cache.exists():  # the other process was faster; its content is the same
        shutil.rmtree(temporary)
    else:
        temporary.rename(cache)
