"""What surrounds n dreams of any world, small or large: their tasks, clocks and random numbers, and how they branch."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple, SupportsIndex

import gymnasium as gym
import numpy as np
import torch
from gymnasium.utils import seeding
from torch import Tensor

from ..spaces import read_action, read_seed


class Step(NamedTuple):
    """What an action brought, for each of n dreams; zeros for those that did not move."""

    reward: np.ndarray
    """float64 [n]."""
    terminated: np.ndarray
    """bool [n]."""
    truncated: np.ndarray
    """bool [n]."""
    info: dict[str, np.ndarray]
    """[n] each, under the names of `first_info`: "success" (bool), "num_frames" (int); where tokens are drawn,
    "uncertainty" (nats, the largest of the action's frames) and "too_uncertain" (bool, truncated for that); where
    sentences are actions, "action_ok" (bool), and where any may be one, "action_reason" (str, why it is not ok)."""


class DreamBatch(ABC):
    """n dreams of one world, as the environments know them.

    Everything that evolves is in `state` (the world's) and in the lists and arrays next to it, with an entry for each
    dream.
    """

    world: Any
    """Has a `device`."""
    options: Any
    """Has an `action_mode`."""
    codec: Any
    """Between actions and vectors; None where actions are sentences alone."""
    phrases: list[str]
    """Sentences that the action space draws."""
    action_space: gym.Space
    observation_space: gym.Space

    def __init__(self, count: int, max_episode_steps: int | None):
        if count < 1:
            raise ValueError(f"got {count} dreams; there must be at least one")
        if max_episode_steps is not None and max_episode_steps < 1:
            raise ValueError(f"max_episode_steps is {max_episode_steps}; it must be positive, or None for no limit")
        self.max_episode_steps = max_episode_steps
        self.state: Any = None
        self.instructions: list[str | None] = [None] * count
        self.randoms: list[np.random.Generator | None] = [None] * count
        self.elapsed = np.zeros(count, np.int64)
        """Actions taken in this episode."""
        self.returns = np.zeros(count)
        """Rewards of this episode so far."""
        self.over = np.zeros(count, bool)
        """Whether the episode has ended; such a dream waits for a reset."""

    def __len__(self) -> int:
        return len(self.instructions)

    def read(self, action: Any) -> np.ndarray | str:
        """What an action asks for, a vector or a sentence; a TypeError or ValueError if it is not in `action_space`."""
        return read_action(action, self.options.action_mode, self.codec, self.phrases)

    # -- what each kind of world does its own way -------------------------------------------------------------------

    @property
    @abstractmethod
    def first_info(self) -> dict[str, Any]:
        """The info of a reset; it has the names and types of `Step.info`.

        They are Python's bool, int and float: of NumPy's own bool, Gymnasium's vector environments make objects.
        """

    @abstractmethod
    def read_past(self, actions: Any) -> np.ndarray:
        """What was done between observed frames, as the world takes it, oldest first."""

    @abstractmethod
    def reset(
        self,
        which: np.ndarray | None = None,
        seeds: Sequence[SupportsIndex | None] | None = None,
        frames: np.ndarray | None = None,
        actions: np.ndarray | None = None,
        instructions: Sequence[str] | None = None,
    ) -> None:
        """Begin new episodes. After an error, nothing has changed.

        Args:
            which: bool [n], the dreams to reset; all by default.
            seeds: n; None keeps the dream's own generator.
            frames: uint8 [n, t, h, w, 3], what was really seen, oldest first; drawn from the starts by default.
            actions: n of `read_past`, what was done in between; may be left out for a single frame.
            instructions: n, from here on.
        """

    @abstractmethod
    def step(self, actions: Sequence[np.ndarray | str], which: np.ndarray | None = None) -> Step:
        """Take an action in each dream.

        Args:
            actions: n, as `read` makes them.
            which: bool [n], the dreams that move; all by default. The actions of the others are ignored.
        """

    @abstractmethod
    def observe(self) -> Tensor | dict[str, Tensor]:
        """What the newest frames look like to an agent; new tensors on the model's device."""

    @abstractmethod
    def render(self) -> Tensor:
        """Pictures, uint8 [n, h, w, 3]; a copy."""

    @abstractmethod
    def instruct(self, rows: Sequence[int], instructions: Sequence[str | None]) -> None:
        """Judge these dreams by other instructions, one for each, from here on."""

    @abstractmethod
    def snapshot(self) -> bytes:
        """Everything that evolves: what follows a `restore` is what would have followed here."""

    @abstractmethod
    def restore(self, blob: bytes) -> None:
        """Return to a `snapshot()` of as many dreams of this world, taken in this process or another."""

    # -- branching ----------------------------------------------------------------------------------------------------

    def select(self, rows: Sequence[int] | np.ndarray) -> "DreamBatch":
        """Independent continuations of these dreams, in this order; one may be there many times.

        They share weights, past and random numbers: the same actions lead to the same future.
        """
        rows = np.asarray(rows, np.int64)
        return self._branch(rows, None if self.state is None else self.state.select(self._index(rows)))

    def fork(self, copies: int) -> "DreamBatch":
        """`copies` independent continuations of each dream, next to each other.

        A single copy continues exactly as its parent does. Several copies share one past instead of copying it, which
        may sum in another order: they are equal to within rounding.
        """
        if copies < 1:
            raise ValueError(f"got {copies} copies to fork into; there must be at least one")
        rows = np.arange(len(self)).repeat(copies)
        return self.select(rows) if copies == 1 or self.state is None else self._branch(rows, self.state.fork(copies))

    def put(self, rows: Sequence[int] | np.ndarray, other: Any) -> None:
        """Replace these dreams by those of `other`, a batch of the same kind."""
        rows = np.asarray(rows, np.int64)
        if other.state is not None:
            if self.state is None and len(rows) < len(self):
                raise gym.error.ResetNeeded("reset all dreams once before replacing some of them")
            self._put(rows, other.state)
        for place, row in enumerate(rows):
            self.instructions[row], self.randoms[row] = other.instructions[place], other.randoms[place]
        self.elapsed[rows], self.returns[rows], self.over[rows] = other.elapsed, other.returns, other.over

    # -- for subclasses -----------------------------------------------------------------------------------------------

    def _branch(self, rows: np.ndarray, state: Any) -> "DreamBatch":
        """What surrounds these dreams, around their new state."""
        branch = type(self).__new__(type(self))
        vars(branch).update(vars(self))
        branch.state = state
        branch.instructions = [self.instructions[row] for row in rows]
        branch.randoms = [copy.deepcopy(self.randoms[row]) for row in rows]
        branch.elapsed, branch.returns, branch.over = self.elapsed[rows], self.returns[rows], self.over[rows]
        return branch

    def _running(self) -> Any:
        if self.state is None:
            raise gym.error.ResetNeeded("call reset() before stepping, rendering or taking a snapshot")
        return self.state

    def _put(self, rows: np.ndarray, state: Any) -> None:
        """These dreams are now as in `state`."""
        if len(rows) == len(self):
            self.state = state
        elif len(rows):
            self.state = self._running().put(self._index(rows), state)

    def _index(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(rows).to(self.world.device)

    def _to_reset(self, which: np.ndarray | None, **given: Sequence | np.ndarray | None) -> np.ndarray:
        """The rows of the dreams that a reset is of; what is given for it has to be given for all dreams."""
        rows = np.arange(len(self)) if which is None else np.flatnonzero(which)
        if self.state is None and len(rows) < len(self):
            raise gym.error.ResetNeeded("reset all dreams once before resetting some of them")
        if given.get("frames") is None and given.get("actions") is not None:
            raise ValueError("reset options have actions but no frames; pass the frames they were taken at, too")
        for name, part in given.items():
            if part is not None and len(part) != len(self):
                raise ValueError(f"got {name} for {len(part)} dreams; there are {len(self)}")
        return rows

    def _random(self, row: int, seed: SupportsIndex | None) -> np.random.Generator:
        """The generator that a reset of this dream will use, not yet its own."""
        random = self.randoms[row]
        if seed is None and random is not None:
            return copy.deepcopy(random)
        return seeding.np_random(read_seed(seed))[0]

    def _surroundings(self) -> dict[str, list]:
        """What a snapshot holds besides the state."""
        return {
            "instructions": self.instructions,
            "randoms": [random and random.bit_generator.state for random in self.randoms],
            "elapsed": self.elapsed.tolist(),
            "returns": self.returns.tolist(),
            "over": self.over.tolist(),
        }

    @staticmethod
    def _recalled(meta: dict[str, Any]) -> dict[str, Any]:
        """The attributes behind `_surroundings`; a KeyError, TypeError or ValueError if they are not there."""
        return {
            "instructions": list(meta["instructions"]),
            "randoms": [_generator(state) for state in meta["randoms"]],
            "elapsed": np.array(meta["elapsed"], np.int64),
            "returns": np.array(meta["returns"], np.float64),
            "over": np.array(meta["over"], bool),
        }


def _generator(state: dict[str, Any] | None) -> np.random.Generator | None:
    if state is None:
        return None
    # With a spawn key, `seed_of` does not take this seed for the one that led to the state.
    random = np.random.Generator(np.random.PCG64(np.random.SeedSequence(0, spawn_key=(0,))))
    random.bit_generator.state = state
    return random
