"""Real frames that dreams begin from: bundled with the world, or out of a recording."""

import zipfile
from functools import lru_cache
from pathlib import Path

import numpy as np

from .checkpoint import find_world


class Starts:
    """Frames, uint8 [k, h, w, 3], and which of the instructions are already done in each, bool [k, m]."""

    def __init__(self, frames: np.ndarray, successes: np.ndarray, instructions: tuple[str, ...]):
        self.frames, self.successes, self.instructions = frames, successes, instructions
        self._unsolved: dict[str, np.ndarray] = {}

    def draw(self, instruction: str | None, random: np.random.Generator) -> np.ndarray:
        """A frame, uint8 [h, w, 3], in which the instruction is still to be done."""
        if instruction is None:
            return self.frames[random.integers(len(self.frames))]
        if instruction not in self._unsolved:
            if instruction not in self.instructions:
                raise ValueError(f"the starting frames say nothing of {instruction!r}; pass your own frames to reset")
            done = self.successes[:, self.instructions.index(instruction)]
            self._unsolved[instruction] = np.flatnonzero(~done)
        if not len(self._unsolved[instruction]):
            raise ValueError(
                f"{instruction!r} is already done in all {len(self.frames)} starting frames; pass your own"
            )
        return self.frames[random.choice(self._unsolved[instruction])]


def bundled_starts(world: str, instructions: tuple[str, ...]) -> Starts | None:
    """The held-out frames in a world's checkpoint; None if there are none."""
    path = find_world(world) / "starts.npz"
    return _load(path.resolve(), path.stat().st_mtime_ns, instructions) if path.exists() else None


@lru_cache(maxsize=8)
def _load(path: Path, modified: int, instructions: tuple[str, ...]) -> Starts:
    try:
        with path.open("rb") as stream, np.load(stream) as file:
            return Starts(file["frames"], file["successes"], instructions)
    except (ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is damaged: {error}") from None


def recorded_starts(dataset_id: str) -> Starts:
    """Every frame of a Minari dataset that `worldgym record` wrote."""
    from .data import load_episodes  # brings Minari

    data = load_episodes(dataset_id)
    return Starts(data.frames, data.successes, data.instructions)
