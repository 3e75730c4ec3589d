"""Real frames that dreams begin from: bundled with the world, or out of a recording."""

import zipfile
from functools import lru_cache
from pathlib import Path

import numpy as np

from .checkpoint import find_world


class Starts:
    """Frames, uint8 [k, h, w, 3], and which of the instructions are already over in each, bool [k, m]."""

    def __init__(self, frames: np.ndarray, over: np.ndarray, instructions: tuple[str, ...]):
        self.frames, self.over, self.instructions = frames, over, instructions
        self._open: dict[str | None, np.ndarray] = {}

    def draw(self, instruction: str | None, random: np.random.Generator) -> np.ndarray:
        """A frame, uint8 [h, w, 3], in which the instruction is still to be done; without one, where anything is."""
        if instruction not in self._open:
            if instruction is not None and instruction not in self.instructions:
                raise ValueError(f"the starting frames say nothing of {instruction!r}; pass your own frames to reset")
            over = self.over.all(1) if instruction is None else self.over[:, self.instructions.index(instruction)]
            self._open[instruction] = np.flatnonzero(~over)
        if not len(self._open[instruction]):
            done = "everything" if instruction is None else repr(instruction)
            raise ValueError(f"{done} is already done in all {len(self.frames)} starting frames; pass your own")
        return self.frames[random.choice(self._open[instruction])]


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
    """Every frame of a Minari dataset that `worldgym record` wrote but those where an episode has ended."""
    from .data import load_episodes  # brings Minari

    data = load_episodes(dataset_id)
    return Starts(data.frames, data.successes | data.terminations, data.instructions)
