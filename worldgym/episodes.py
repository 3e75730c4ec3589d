"""The one check that all data pass: recorded, dreamed, or from a LeRobot or Minari data set.

An episode of t steps has t + 1 frames and t actions; what is known of its frames has t + 1 rows, too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .actions import read_codec
from .config import TokenizerConfig
from .errors import UserError

ROUNDING = 1e-5
"""By how much an action may leave [-1, 1] through arithmetic in float32."""


@dataclass(frozen=True)
class EpisodeFormat:
    """What all episodes of a data set have in common."""

    resolution: int
    """Frames are uint8 [resolution, resolution, 3]."""
    action_size: int
    """Actions are float32 [action_size] in [-1, 1]."""
    instructions: tuple[str, ...]
    """What each column of rewards, successes and terminations is for."""
    phrases: tuple[str, ...] = ()
    """What the numbers in `sentences` stand for."""
    frames_per_action: int = 1
    """Frames that a sentence lasts."""
    actions: dict[str, Any] | None = None
    """The space that the vectors stand for, as `ActionCodec.describe` has it; None is Box(-1, 1, (action_size,))."""

    def __post_init__(self):
        for name, listed in (("instruction", self.instructions), ("phrase", self.phrases)):
            if not all(isinstance(one, str) and one for one in listed) or len(set(listed)) < len(listed):
                raise UserError(f"{name}s are {list(listed)}; expected texts that are not empty and all differ")
        if not self.instructions:
            raise UserError("there is no instruction; expected one text for each column of rewards")
        if self.resolution < 1 or self.action_size < 1 or self.frames_per_action < 1:
            raise UserError(
                f"resolution {self.resolution}, action size {self.action_size} and frames per action "
                f"{self.frames_per_action} must be at least 1"
            )
        read_codec(self.actions, self.action_size)  # which refuses what it cannot read

    def check(self, where: str, frames: Any, actions: Any, infos: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The parts of an episode, in the types that `data.Episodes` has.

        Args:
            where: names data set and episode in errors.
            frames: uint8 [t + 1, h, w, 3].
            actions: floats [t, a].
            infos: `rewards`, `successes` and `terminations` [t + 1, m] for m instructions; of a data set with phrases
                also `sentences` [t + 1, s], -1 for none, and `sentence_actions` [t + 1, s, a].

        Raises:
            UserError: naming `where`, the part, the step, what was found and what was expected.
        """
        side, size, columns = self.resolution, self.action_size, len(self.instructions)
        frames = as_array(where, "frames", frames, (None, side, side, 3), "u", "uint8")
        if frames.dtype != np.uint8:
            raise UserError(f"{where}: frames are {frames.dtype}; expected uint8")
        actions = as_floats(where, "actions", actions, (None, size), -1.0, 1.0)
        codec = read_codec(self.actions, size)
        undecided = np.abs(actions - codec.snap(actions)) > ROUNDING
        _refuse_first(where, "actions", actions, undecided, f"1 or -1, the vector of a choice in {codec.space}")
        count = len(frames)
        if count < 2 or len(actions) != count - 1:
            raise UserError(
                f"{where}: it has {count} frames and {len(actions)} actions; expected one frame more than actions, "
                "since each action leads from one frame to the next, and at least one action"
            )
        needed = ("rewards", "successes", "terminations", *(("sentences", "sentence_actions") if self.phrases else ()))
        if missing := [name for name in needed if name not in infos]:
            raise UserError(
                f"{where}: its infos have {', '.join(infos) or 'nothing'}; expected also {', '.join(missing)}, with "
                "a row for each frame (docs/adding.md says more)"
            )
        sentences = infos.get("sentences", np.zeros((count, 0), np.int16))
        several = np.shape(sentences)[1] if np.ndim(sentences) == 2 else 0
        sentence_actions = infos.get("sentence_actions", np.zeros((count, several, size), np.float32))
        return {
            "frames": frames,
            "actions": actions,
            "rewards": as_floats(where, "rewards", infos["rewards"], (count, columns)),
            "successes": as_truths(where, "successes", infos["successes"], (count, columns)),
            "terminations": as_truths(where, "terminations", infos["terminations"], (count, columns)),
            "sentences": _indices(where, "sentences", sentences, (count, several), len(self.phrases)),
            "sentence_actions": as_floats(
                where, "sentence_actions", sentence_actions, (count, several, size), -1.0, 1.0
            ),
        }  # fmt: skip


def check_resolution(resolution: int) -> None:
    """A UserError if the tokenizer cannot halve such pictures as often as it does."""
    halvings = len(TokenizerConfig().channels)
    step = 2**halvings
    if resolution < 2 * step or resolution % step:
        raise UserError(
            f"resolution is {resolution}; the tokenizer halves pictures {halvings} times, so it takes multiples of "
            f"{step} from {2 * step}"
        )


def as_frames(where: str, pictures: Any, highest: float) -> tuple[np.ndarray, list[str]]:
    """Pictures in another layout as uint8 [n, side, side, 3], and what was done to them, a sentence each.

    Converted are: floats and other numbers, grey, an alpha channel that is opaque, channels first, and what is not
    square, of which the square in the middle is kept.

    Args:
        pictures: [n, h, w], [n, h, w, c] or [n, c, h, w] with 1, 3 or 4 channels.
        highest: the value of white, 1 or 255, as the observation space has it.

    Raises:
        UserError: they are of no such kind, or could be of two.
    """
    pictures = np.asarray(pictures)
    found, done = f"{pictures.dtype} {list(pictures.shape)}", []
    if pictures.ndim == 3:
        pictures = pictures[..., None]
    channels = (1, 3, 4)
    if pictures.ndim != 4 or not {pictures.shape[1], pictures.shape[3]} & set(channels):
        raise UserError(f"{where}: frames are {found}; expected uint8 [n, height, width, 3]")
    first, last = pictures.shape[1] in channels, pictures.shape[3] in channels
    if first and last and pictures.shape[1:] != (1, 1, 1):
        raise UserError(
            f"{where}: frames are {found}, and channels may be first or last; expected [n, height, width, 3]"
        )
    if first and not last:
        pictures, done = np.moveaxis(pictures, 1, 3), ["channels are moved from first to last"]
    if pictures.dtype != np.uint8 or highest == 1:
        pictures = _bytes(where, pictures, highest, found)
        done.append(f"{found.split()[0]} up to {highest:g} becomes uint8 up to 255")
    if pictures.shape[3] == 1:
        pictures, done = pictures.repeat(3, 3), [*done, "grey is repeated in all three colours"]
    if pictures.shape[3] == 4:
        if (pictures[..., 3] != 255).any():
            raise UserError(f"{where}: frames are {found} and not opaque; expected three channels, without alpha")
        pictures, done = pictures[..., :3], [*done, "the alpha channel, opaque throughout, is left out"]
    height, width = pictures.shape[1:3]
    if height != width:
        left, top, right, bottom = middle_square(width, height)
        pictures = pictures[:, top:bottom, left:right]
        done.append(f"of {height} x {width} pixels the square in the middle is kept")
    return pictures, done


def middle_square(width: int, height: int) -> tuple[int, int, int, int]:
    """The greatest square in the middle of a picture: left, top, right, bottom."""
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def _bytes(where: str, pictures: np.ndarray, highest: float, found: str) -> np.ndarray:
    """Numbers from 0 to `highest` as uint8 from 0 to 255."""
    if pictures.dtype.kind not in "iuf" or highest not in (1, 255):
        raise UserError(f"{where}: frames are {found} up to {highest:g}; expected numbers from 0 to 1 or from 0 to 255")
    if not np.isfinite(pictures).all() or pictures.min() < 0 or pictures.max() > highest:
        raise UserError(
            f"{where}: frames have values from {pictures.min():g} to {pictures.max():g}; by the observation space "
            f"they are from 0 to {highest:g}"
        )
    if highest == 255 and (pictures != np.rint(pictures)).any():
        raise UserError(
            f"{where}: frames are {found} with fractions, from {pictures.min():g} to {pictures.max():g}; by the "
            "observation space white is 255. If white is 1 in truth, say so in the space: Box(0, 1, ...)"
        )
    return np.rint(pictures * np.float32(255 / highest)).astype(np.uint8)


def as_array(
    where: str, name: str, values: Any, shape: tuple[int | None, ...], kinds: str, expected: str
) -> np.ndarray:
    """An array of one of the kinds (as in `np.dtype.kind`) and of this shape, where None is any length."""
    values = np.asarray(values)
    fits = len(shape) == values.ndim and all(
        want in (None, got) for want, got in zip(shape, values.shape, strict=False)
    )
    if values.dtype.kind not in kinds or not fits:
        wanted = ", ".join("any" if want is None else str(want) for want in shape)
        raise UserError(f"{where}: {name} are {values.dtype} {list(values.shape)}; expected {expected} [{wanted}]")
    return values


def as_floats(
    where: str, name: str, values: Any, shape: tuple[int | None, ...], low: float = -np.inf, high: float = np.inf
) -> np.ndarray:
    """Finite numbers within the limits, as float32."""
    values = as_array(where, name, values, shape, "iuf" if np.isinf(high) else "f", "floats")
    wrong = ~np.isfinite(values) | (values < low - ROUNDING) | (values > high + ROUNDING)
    limits = "" if np.isinf(high) else f" from {low:g} to {high:g}"
    _refuse_first(where, name, values, wrong, f"finite numbers{limits}")
    with np.errstate(over="ignore"):
        small = np.clip(values, low, high).astype(np.float32)
    _refuse_first(where, name, values, ~np.isfinite(small), "numbers that float32 can hold")
    return small


def as_truths(where: str, name: str, values: Any, shape: tuple[int | None, ...]) -> np.ndarray:
    """Truth values, as bool."""
    values = as_array(where, name, values, shape, "biuf", "bool")
    _refuse_first(where, name, values, (values != 0) & (values != 1), "True or False")
    return values.astype(bool)


def _indices(where: str, name: str, values: Any, shape: tuple[int | None, ...], count: int) -> np.ndarray:
    values = as_array(where, name, values, shape, "iu", "whole numbers")
    wrong = (values < -1) | (values >= count)
    _refuse_first(where, name, values, wrong, f"an index of the {count} phrases, or -1 for none")
    return values.astype(np.int16)


def _refuse_first(where: str, name: str, values: np.ndarray, wrong: np.ndarray, expected: str) -> None:
    if wrong.any():
        place = tuple(int(index) for index in np.argwhere(wrong)[0])
        at = f", column {place[1]}" if len(place) > 1 else ""
        raise UserError(f"{where}: {name} have {values[place]} at step {place[0]}{at}; expected {expected}")
