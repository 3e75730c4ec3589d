"""Any action space that RL uses, as the vector in [-1, 1] that the networks see, and back.

    codec = ActionCodec(gym.spaces.Dict(grip=gym.spaces.Discrete(3), arm=gym.spaces.Box(-2.0, 2.0, (2,))))
    vector = codec.encode({"grip": 1, "arm": [0.0, 1.0]})    # float32 [5]
    action = codec.decode(vector)                            # the same action again

Numbers of a `Box` are scaled from its bounds to [-1, 1]. A choice is *categorical*: one of n is n numbers, 1 for the
chosen one and -1 for the others; a bit of a `MultiBinary` is one number, 1 or -1. Whatever a vector says, reading it
back takes the nearest choice.
"""

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from .errors import UserError

UNBOUNDED = 1e9
"""A bound of actions as large as this stands for none: many write the largest float there."""
MOST_CATEGORIES = 1000
"""Of one choice. More would be as many inputs of the network, of which one in a thousand says something."""
KINDS = "Box, Discrete, MultiDiscrete, MultiBinary, and Dict or Tuple of those"


class Choice(NamedTuple):
    """A categorical factor: where it stands in the vector, and how each of its categories is written there."""

    first: int
    """Index of its first number."""
    codes: np.ndarray
    """float32 [categories, width], of 1 and -1."""
    name: str
    """Which part of an action it is."""
    start: int
    """The number of its first category in the action space."""

    @property
    def place(self) -> slice:
        return slice(self.first, self.first + self.codes.shape[1])

    def read(self, vectors: np.ndarray) -> np.ndarray:
        """The nearest categories, int [...], of vectors [..., a]; of several as near, the first."""
        return np.asarray((vectors[..., self.place] @ self.codes.T - np.square(self.codes).sum(1) / 2).argmax(-1))


class ActionCodec:
    """An action space and its vectors.

    Args:
        space: of one action; a `Box` has to be bounded (`bounded` gives it bounds).

    Raises:
        UserError: it is of another kind, unbounded, or has a factor that leaves nothing to choose.
    """

    size: int
    """Numbers in a vector."""
    choices: tuple[Choice, ...]
    """The categorical factors."""
    continuous: np.ndarray
    """int [n], the indices of the other numbers of a vector."""

    def __init__(self, space: gym.Space):
        self._space = _copy(space)
        self._leaves = list(_leaves(self._space, "action"))
        widths = [_width(leaf, where) for where, leaf in self._leaves]
        self._places = [slice(end - width, end) for width, end in zip(widths, np.cumsum(widths).tolist(), strict=True)]
        self.size = sum(widths)
        if not self.size:
            raise UserError(f"the action space {space} has nothing to choose")
        placed = zip(self._leaves, self._places, strict=True)
        self.choices = tuple(choice for (where, leaf), place in placed for choice in _choices(leaf, place.start, where))
        taken = [np.arange(self.size)[choice.place] for choice in self.choices]
        self.continuous = np.setdiff1d(np.arange(self.size), np.concatenate([np.zeros(0, np.int64), *taken]))
        self.plain = self._space == _plain(self.size)
        """Whether an action is its vector: the space is Box(-1, 1, (a,), float32), as in worlds that describe none."""

    @property
    def space(self) -> gym.Space:
        """A copy of the action space, with random numbers of its own."""
        return _copy(self._space)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ActionCodec) and self._space == other._space

    def __hash__(self) -> int:
        return hash(self.size)

    def __repr__(self) -> str:
        return f"ActionCodec({self._space})"

    # -- there and back -----------------------------------------------------------------------------------------------

    def encode(self, action: Any) -> np.ndarray:
        """The vector of an action, float32 [a]; numbers of a Box beyond its bounds are clipped to them.

        Raises:
            TypeError, ValueError: it can't be an action of this space.
        """
        return self._encode(_parts(self._space, action, "action"), ())[0]

    def encode_batch(self, actions: Any, count: int) -> np.ndarray:
        """The vectors, float32 [count, a], of as many actions, batched as Gymnasium's `batch_space` has them.

        Raises:
            TypeError, ValueError: they can't be so many actions of this space.
        """
        return self._encode(_parts(self._space, actions, "action"), (count,))

    def _encode(self, parts: Iterator[Any], batch: tuple[int, ...]) -> np.ndarray:
        leaves = zip(self._leaves, parts, strict=True)
        return np.concatenate([_encode(leaf, part, where, batch) for (where, leaf), part in leaves], 1)

    def decode(self, vector: np.ndarray) -> Any:
        """The action of a vector, [a]: clipped into the bounds, the nearest categories."""
        placed = zip(self._leaves, self._places, strict=True)
        return _assemble(self._space, (_decode(leaf, vector[place]) for (_, leaf), place in placed))

    def snap(self, vectors: np.ndarray) -> np.ndarray:
        """The nearest vectors of an action, float32 [..., a]."""
        return nearest(vectors, self.choices).clip(-1.0, 1.0).astype(np.float32)

    # -- description --------------------------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any] | None:
        """The space in JSON, for `read_codec`; None where it is the plain one."""
        return None if self.plain else _describe(self._space)


def nearest(vectors: np.ndarray, choices: tuple[Choice, ...]) -> np.ndarray:
    """Vectors [..., a] whose choices are the nearest ones that can be made; the same array where there are none."""
    if choices:
        vectors = vectors.copy()
        for choice in choices:
            vectors[..., choice.place] = choice.codes[choice.read(vectors)]
    return vectors


def read_codec(description: dict[str, Any] | None, size: int) -> ActionCodec:
    """What `ActionCodec.describe` described; without a description, Box(-1, 1, (size,), float32).

    Raises:
        UserError: the description is damaged, or its vectors are not of `size` numbers.
    """
    return _read_codec("null" if description is None else json.dumps(description), size)


@lru_cache(maxsize=64)
def _read_codec(description: str, size: int) -> ActionCodec:
    content = json.loads(description)
    try:
        codec = ActionCodec(_plain(size) if content is None else _read(content))
    except (KeyError, TypeError, AttributeError, AssertionError, ValueError) as error:
        raise UserError(f"{description:.200} describes no action space of a world: {error!r}") from None
    if codec.size != size:
        raise UserError(f"actions in {codec._space} are vectors of {codec.size} numbers; here they have {size}")
    return codec


def bounded(space: gym.Space, limits: tuple[float, float] | None) -> gym.Space:
    """The space, with the limits in place of the bounds that a `Box` in it lacks.

    Args:
        limits: low and high, in the environment's own units; None if nobody gave any.

    Raises:
        UserError: bounds are missing and there are no limits, or there are limits and nothing is missing.
    """
    missing = [leaf for _, leaf in _leaves(space, "action") if isinstance(leaf, gym.spaces.Box) and _open(leaf).any()]
    if missing and limits is None:
        raise UserError(
            f"its actions are in {space}, without finite bounds (below {UNBOUNDED:g}), so nothing says what -1 and 1 "
            "stand for. Say between which numbers to act: --limits LOW HIGH"
        )
    if limits is None:
        return space
    if not missing:
        raise UserError(f"its actions are in {space}, which has bounds of its own: leave out --limits")
    low, high = limits
    if not (np.isfinite([low, high]).all() and low < high):
        raise UserError(f"limits are {low:g} and {high:g}; the first must be below the second, and both finite")
    return _bounded(space, low, high)


# -- spaces of spaces, from here on one function for each thing to do -------------------------------------------------


def _plain(size: int) -> gym.spaces.Box:
    return gym.spaces.Box(-1.0, 1.0, (size,), np.float32)


def _copy(space: gym.Space) -> gym.Space:
    """A space like it, of Gymnasium's own class, with random numbers of its own."""
    match space:
        case gym.spaces.Dict():
            return gym.spaces.Dict([(key, _copy(part)) for key, part in space.items()])
        case gym.spaces.Tuple():
            return gym.spaces.Tuple([_copy(part) for part in space])
        case gym.spaces.Box():
            return gym.spaces.Box(space.low, space.high, space.shape, space.dtype.type)
        case gym.spaces.Discrete():
            return gym.spaces.Discrete(space.n, start=space.start, dtype=space.dtype)
        case gym.spaces.MultiDiscrete():
            return gym.spaces.MultiDiscrete(space.nvec, space.dtype, start=space.start)
        case gym.spaces.MultiBinary():
            return gym.spaces.MultiBinary(space.n)
    raise UserError(f"actions in {space} cannot be a vector; a dream takes {KINDS}")


def _leaves(space: gym.Space, where: str) -> Iterator[tuple[str, gym.Space]]:
    """The parts of a space that hold no others, with their names."""
    match space:
        case gym.spaces.Dict():
            for key, part in space.items():
                yield from _leaves(part, f"{where}[{key!r}]")
        case gym.spaces.Tuple():
            for index, part in enumerate(space):
                yield from _leaves(part, f"{where}[{index}]")
        case _:
            yield where, space


def _parts(space: gym.Space, action: Any, where: str) -> Iterator[Any]:
    """An action's part for each leaf."""
    match space:
        case gym.spaces.Dict():
            if not isinstance(action, dict) or set(action) != set(space):
                found = f"keys {sorted(map(str, action))}" if isinstance(action, dict) else f"{action!r:.80}"
                raise ValueError(f"{where} has {found}; this world takes a dict with {', '.join(map(str, space))}")
            for key, part in space.items():
                yield from _parts(part, action[key], f"{where}[{key!r}]")
        case gym.spaces.Tuple():
            if not isinstance(action, (tuple, list)) or len(action) != len(space):
                raise ValueError(f"{where} is {action!r:.80}; this world takes a tuple of {len(space)} parts")
            for index, part in enumerate(space):
                yield from _parts(part, action[index], f"{where}[{index}]")
        case _:
            yield action


def _assemble(space: gym.Space, parts: Iterator[Any]) -> Any:
    match space:
        case gym.spaces.Dict():
            return {key: _assemble(part, parts) for key, part in space.items()}
        case gym.spaces.Tuple():
            return tuple(_assemble(part, parts) for part in space)
    return next(parts)


def _bounded(space: gym.Space, low: float, high: float) -> gym.Space:
    match space:
        case gym.spaces.Dict():
            return gym.spaces.Dict([(key, _bounded(part, low, high)) for key, part in space.items()])
        case gym.spaces.Tuple():
            return gym.spaces.Tuple([_bounded(part, low, high) for part in space])
        case gym.spaces.Box():
            lows = np.where(_open(space)[0], low, space.low)
            highs = np.where(_open(space)[1], high, space.high)
            if not (lows < highs).all():
                raise UserError(f"limits {low:g} and {high:g} leave nothing between them and the bounds of {space}")
            return gym.spaces.Box(lows.astype(space.dtype), highs.astype(space.dtype), dtype=space.dtype.type)
    return space


def _open(box: gym.spaces.Box) -> np.ndarray:
    """Which of its bounds are missing, bool [2, ...]: the low and the high ones."""
    low, high = box.low.astype(np.float64), box.high.astype(np.float64)
    return np.stack([~(low > -UNBOUNDED), ~(high < UNBOUNDED)])


# -- the leaves -------------------------------------------------------------------------------------------------------


def _width(leaf: gym.Space, where: str) -> int:
    """Numbers that it takes in a vector."""
    match leaf:
        case gym.spaces.Box():
            if _open(leaf).any():
                raise UserError(f"{where} is in {leaf}, which has no bounds, or bounds of {UNBOUNDED:g} or more")
            if not (leaf.low < leaf.high).all():
                raise UserError(f"{where} is in {leaf}, some of whose numbers cannot be chosen: low is not below high")
            return int(np.prod(leaf.shape))
        case gym.spaces.Discrete():
            counts = [int(leaf.n)]
        case gym.spaces.MultiDiscrete():
            counts = leaf.nvec.flatten().tolist()
        case gym.spaces.MultiBinary():
            return int(np.prod(leaf.shape))
        case _:
            raise AssertionError(leaf)
    if max(counts, default=0) > MOST_CATEGORIES:
        raise UserError(f"{where} is in {leaf}: {max(counts)} categories; at most {MOST_CATEGORIES} can be told apart")
    return sum(counts)


def _choices(leaf: gym.Space, first: int = 0, where: str = "action") -> Iterator[Choice]:
    match leaf:
        case gym.spaces.Discrete():
            yield Choice(first, _one_hot(int(leaf.n)), where, int(leaf.start))
        case gym.spaces.MultiDiscrete():
            for index, count, start in zip(np.ndindex(leaf.shape), leaf.nvec.flat, leaf.start.flat, strict=True):
                yield Choice(first, _one_hot(int(count)), _at(where, index), int(start))
                first += int(count)
        case gym.spaces.MultiBinary():
            for offset, index in enumerate(np.ndindex(leaf.shape)):
                yield Choice(first + offset, np.array([[-1.0], [1.0]], np.float32), _at(where, index), 0)


def _at(where: str, index: tuple[int, ...]) -> str:
    return f"{where}[{', '.join(map(str, index))}]"


def _one_hot(count: int) -> np.ndarray:
    return 2 * np.eye(count, dtype=np.float32) - 1


def _encode(leaf: gym.Space, given: Any, where: str, batch: tuple[int, ...]) -> np.ndarray:
    """Vectors [n, width] of one or, by `batch`, of several values of a leaf."""
    kinds = {gym.spaces.Box: "fiu", gym.spaces.MultiBinary: "iub"}.get(type(leaf), "iu")
    try:
        array = np.asarray(given)
    except ValueError:  # a ragged list
        raise ValueError(f"{where} is {given!r:.80}; this world takes {leaf}") from None
    if array.dtype.kind not in kinds:
        raise TypeError(f"{where} is {given!r:.80}, of dtype {array.dtype}; this world takes {leaf}")
    shape = (*batch, *(leaf.shape or ()))
    if array.shape != shape:
        raise ValueError(f"{where} has shape {array.shape}; this world takes {shape}, {leaf}")
    if not np.isfinite(array).all():
        raise ValueError(f"{where} {array.tolist()} is not finite")
    array = array if batch else array[None]
    if isinstance(leaf, gym.spaces.Box):
        return _scale(leaf, array).reshape(len(array), -1)
    if isinstance(leaf, gym.spaces.MultiBinary):
        counts, starts = np.full(int(np.prod(leaf.shape)), 2), np.zeros(1, np.int64)
    else:
        counts, starts = (part.reshape(-1) for part in _counted(leaf))
    chosen = array.reshape(len(array), -1).astype(np.int64) - starts
    if ((chosen < 0) | (chosen >= counts)).any():
        raise ValueError(f"{where} is {given!r:.80}, which is not in {leaf}")
    codes = [choice.codes[index] for choice, index in zip(_choices(leaf), chosen.T, strict=True)]
    return np.concatenate(codes, 1)


def _counted(leaf: gym.Space) -> tuple[np.ndarray, np.ndarray]:
    """How many categories each choice has, and the number of its first."""
    assert isinstance(leaf, (gym.spaces.Discrete, gym.spaces.MultiDiscrete))
    counts = leaf.n if isinstance(leaf, gym.spaces.Discrete) else leaf.nvec
    return np.asarray(counts, np.int64), np.asarray(leaf.start, np.int64)


def _scale(box: gym.spaces.Box, action: np.ndarray) -> np.ndarray:
    """From the bounds to [-1, 1]. What is in [-1, 1] stays as it is to the last bit."""
    low, high = box.low.astype(np.float64), box.high.astype(np.float64)
    own = np.clip(action.astype(np.float64), low, high)
    scaled = np.where((low == -1) & (high == 1), own, 2 * (own - low) / (high - low) - 1)
    return scaled.clip(-1.0, 1.0).astype(np.float32)


def _decode(leaf: gym.Space, vector: np.ndarray) -> Any:
    if isinstance(leaf, gym.spaces.Box):
        low, high = leaf.low.astype(np.float64), leaf.high.astype(np.float64)
        given = np.asarray(vector, np.float32).reshape(leaf.shape).clip(-1.0, 1.0)
        # Rounding must not lead out of the bounds: some environments check.
        own = np.where((low == -1) & (high == 1), given, np.clip(low + (high - low) * (given + 1) / 2, low, high))
        return (np.rint(own) if leaf.dtype.kind in "iu" else own).astype(leaf.dtype)
    chosen = np.array([choice.read(vector) for choice in _choices(leaf)], np.int64)
    if isinstance(leaf, gym.spaces.MultiBinary):
        return chosen.reshape(leaf.shape).astype(leaf.dtype)
    own = (chosen + _counted(leaf)[1].flatten()).astype(leaf.dtype)
    return own[0] if isinstance(leaf, gym.spaces.Discrete) else own.reshape(leaf.shape)


# -- JSON -------------------------------------------------------------------------------------------------------------


def _describe(space: gym.Space) -> dict[str, Any]:
    match space:
        case gym.spaces.Dict():  # in its order, which JSON's own objects need not keep
            return {"type": "Dict", "spaces": [[key, _describe(part)] for key, part in space.items()]}
        case gym.spaces.Tuple():
            return {"type": "Tuple", "spaces": [_describe(part) for part in space]}
        case gym.spaces.Box():
            bounds = {"low": space.low.tolist(), "high": space.high.tolist()}
            return {"type": "Box", **bounds, "dtype": space.dtype.name}
        case gym.spaces.Discrete():
            return {"type": "Discrete", "n": int(space.n), "start": int(space.start), "dtype": space.dtype.name}
        case gym.spaces.MultiDiscrete():
            counts = {"nvec": space.nvec.tolist(), "start": space.start.tolist()}
            return {"type": "MultiDiscrete", **counts, "dtype": space.dtype.name}
        case gym.spaces.MultiBinary():
            return {"type": "MultiBinary", "n": np.asarray(space.n).tolist()}
    raise AssertionError(space)


def _read(content: dict[str, Any]) -> gym.Space:
    dtype: Any = np.dtype(content["dtype"]).type if "dtype" in content else None
    match content["type"]:
        case "Dict":
            return gym.spaces.Dict([(str(key), _read(part)) for key, part in content["spaces"]])
        case "Tuple":
            return gym.spaces.Tuple([_read(part) for part in content["spaces"]])
        case "Box":
            return gym.spaces.Box(np.array(content["low"], dtype), np.array(content["high"], dtype), dtype=dtype)
        case "Discrete":
            return gym.spaces.Discrete(content["n"], start=content["start"], dtype=dtype)
        case "MultiDiscrete":
            return gym.spaces.MultiDiscrete(content["nvec"], dtype, start=content["start"])
        case "MultiBinary":
            return gym.spaces.MultiBinary(content["n"])
    raise ValueError(f"type is {content['type']!r}; known are {KINDS}")
