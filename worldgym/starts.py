"""What dreams begin from, out of a checkpoint or a recording: frames really seen, and what was done between them."""

import zipfile
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .actions import read_codec
from .config import WorldConfig
from .episodes import as_array, as_floats, as_truths
from .errors import UserError
from .listing import find_world
from .streams import is_streamed


class Start(NamedTuple):
    """What was seen up to a beginning: as many frames as the world is conditioned on."""

    frames: np.ndarray
    """uint8 [t, h, w, 3], oldest first."""
    actions: np.ndarray
    """float32 [t - 1, a]."""


class InitialStates:
    """Frames to begin from, and what was seen before them.

    Args:
        frames: uint8 [n, h, w, 3], stretches of experience one after the other.
        actions: float32 [n, a], taken at each of them.
        newest: int [k], the frames that a dream can begin from; each has `count` - 1 before it in its stretch.
        over: bool [k, m], which of the instructions are already over in them.
    """

    def __init__(
        self,
        frames: np.ndarray,
        actions: np.ndarray,
        newest: np.ndarray,
        over: np.ndarray,
        instructions: tuple[str, ...],
        count: int = 1,
    ):
        self.frames, self.actions, self.newest, self.over = frames, actions, newest, over
        self.instructions, self.count = instructions, count
        self._open: dict[str | None, np.ndarray] = {}

    def draw(self, instruction: str | None, random: np.random.Generator) -> Start:
        """A beginning in which the instruction is still to be done; without one, where anything is."""
        if instruction not in self._open:
            if instruction is not None and instruction not in self.instructions:
                raise ValueError(f"the starting frames say nothing of {instruction!r}; pass your own frames to reset")
            over = self.over.all(1) if instruction is None else self.over[:, self.instructions.index(instruction)]
            self._open[instruction] = self.newest[~over]
        if not len(self._open[instruction]):
            done = "everything" if instruction is None else repr(instruction)
            raise ValueError(f"{done} is already done in all {len(self.newest)} starting frames; pass your own")
        newest = random.choice(self._open[instruction])
        first = newest - self.count + 1
        return Start(self.frames[first : newest + 1], self.actions[first:newest])


def bundled_starts(world: str, config: WorldConfig) -> InitialStates | None:
    """The held-out beginnings in a world's checkpoint; None if there are none."""
    path = find_world(world) / "starts.npz"
    return _load(path.resolve(), path.stat().st_mtime_ns, config) if path.exists() else None


@lru_cache(maxsize=8)
def _load(path: Path, modified: int, config: WorldConfig) -> InitialStates:
    side, columns = config.tokenizer.resolution, len(config.instructions)
    try:
        with path.open("rb") as stream, np.load(stream) as file:
            parts = dict(file)
        frames = parts["frames"]
        if frames.ndim == 4:  # as checkpoints had it that begin from single frames alone
            frames = frames[:, None]
        frames = as_array(str(path), "frames", frames, (None, None, side, side, 3), "u", "uint8")
        begins, count = frames.shape[:2]
        nothing = np.zeros((begins, count, config.action_size), np.float32)
        actions = parts.get("actions", nothing)
        actions = as_floats(str(path), "actions", actions, (begins, count, config.action_size), -1.0, 1.0)
        over = as_truths(str(path), "successes", parts["successes"], (begins, columns))
    except UserError:
        raise
    except (ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged: {error}") from None
    newest = np.arange(1, begins + 1) * count - 1
    frames, actions = (part.reshape(begins * count, *part.shape[2:]) for part in (frames, actions))
    return InitialStates(frames, actions, newest, over, config.instructions, count)


def recorded_starts(dataset_id: str, config: WorldConfig) -> InitialStates:
    """Every frame of a Minari dataset that `worldgym record` wrote but those where an episode has ended, and the first
    ones of an episode, which have too few before them for the world to begin from.

    Raises:
        UserError: the dataset is none that a world can learn from, or not of a world like this one.
    """
    from .data import load_episodes  # brings Minari

    if is_streamed(dataset_id):
        raise UserError(f"dreams begin from a Minari data set; {dataset_id} is streamed, all of which it would take")
    data, count = load_episodes(dataset_id), config.dynamics.observed
    side, found, size = config.tokenizer.resolution, data.frames.shape[1], data.actions.shape[1]
    if (found, size) != (side, config.action_size):
        raise UserError(
            f"data set {dataset_id} has frames of {found} pixels a side and actions of {size} numbers; the world "
            f"{config.name!r} begins from {side} pixels and takes {config.action_size} numbers"
        )
    if (acted := read_codec(data.action_space, size)) != config.codec:
        raise UserError(
            f"data set {dataset_id} has actions in {acted.space}; the world {config.name!r} takes {config.codec.space}"
        )
    newest = np.arange(len(data.frames))
    newest = newest[newest - np.repeat(data.starts[:-1], np.diff(data.starts)) >= count - 1]
    assert isinstance(data.frames, np.ndarray) and isinstance(data.actions, np.ndarray)
    over = data.successes[newest] | data.terminations[newest]
    return InitialStates(data.frames, data.actions, newest, over, data.instructions, count)
