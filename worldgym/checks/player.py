"""Plays a vector environment in its own autoreset mode, for the checks of vector_checks.py."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import deepcopy
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import concatenate, create_empty_array, iterate

from .report import Keeper, close, describe


class Transition(NamedTuple):
    """A step in the life of one environment, the same in every autoreset mode."""

    before: Any
    reward: float
    terminated: bool
    truncated: bool
    after: Any


class Player:
    """Plays a vector environment as its mode requires, and separates the lives of its environments.

    An environment's k-th true step takes the k-th action of its own stream, whatever happens to its neighbours; where
    the mode ignores an action, it gets one of the stream `ignored`.
    """

    def __init__(self, env: VectorEnv | Keeper, streams: Sequence[int] = range(3), ignored: int = 99):
        self.env, self.mode = env, env.metadata["autoreset_mode"]
        self.streams = [self._stream(number) for number in streams]
        self.ignored = self._stream(ignored)
        self.lives: list[list[Transition]] = [[] for _ in streams]
        self.done = np.zeros(len(self.streams), bool)
        self.before: list[Any] = []

    def _stream(self, number: int) -> gym.Space:
        space = deepcopy(self.env.single_action_space)
        space.seed(1000 + number)
        return space

    def reset(self, seed: int | list[int] | None = None) -> tuple[Any, dict[str, Any]]:
        result = deepcopy(self.env.reset(seed=seed))  # type: ignore[arg-type]
        self.before = self.split(result[0])
        self.done[:] = False
        return result

    def actions(self) -> Any:
        """For the next step."""
        skipped = self.done & (self.mode is AutoresetMode.NEXT_STEP)
        return batch(
            self.env.single_action_space,
            [self.ignored.sample() if skip else s.sample() for s, skip in zip(self.streams, skipped, strict=True)],
        )

    def step(self) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One step, after the resets that the mode leaves to its user; a copy of what it returned."""
        if self.mode is AutoresetMode.DISABLED and self.done.any():
            self.restart(self.done)
        result = deepcopy(self.env.step(self.actions()))
        observations, rewards, terminated, truncated, infos = result
        done = terminated | truncated
        ends = (
            infos.get("final_obs", [None] * len(done)) if self.mode is AutoresetMode.SAME_STEP else [None] * len(done)
        )
        for index, seen in enumerate(self.split(observations)):
            if not (self.done[index] and self.mode is AutoresetMode.NEXT_STEP):
                flags = bool(terminated[index]), bool(truncated[index])
                after = ends[index] if done[index] and self.mode is AutoresetMode.SAME_STEP else seen
                self.lives[index].append(Transition(self.before[index], float(rewards[index]), *flags, after))
            self.before[index] = seen
        self.done = done
        return result

    def restart(self, mask: np.ndarray) -> tuple[Any, dict[str, Any]]:
        result = deepcopy(self.env.reset(options={"reset_mask": mask.copy()}))
        for index, seen in enumerate(self.split(result[0])):
            if mask[index]:
                self.before[index] = seen
        self.done = self.done & ~mask
        return result

    def stagger(self) -> None:
        """Restarts one environment after a step, if the mode allows it, so that episodes end at different steps."""
        self.step()
        with suppress(ValueError, TypeError, NotImplementedError):
            self.restart(np.arange(len(self.done)) == 0)

    def play(self, steps: int) -> list[Any]:
        return [self.step() for _ in range(steps)]

    def split(self, observations: Any) -> list[Any]:
        return list(iterate(self.env.observation_space, observations))

    def bookmark(self) -> Callable[[], None]:
        """A function that brings the player, not the environment, back to here."""
        here = deepcopy((self.streams, self.ignored, self.lives, self.done, self.before))

        def back() -> None:
            self.streams, self.ignored, self.lives, self.done, self.before = deepcopy(here)

        return back


def batch(space: gym.Space, items: Sequence[Any]) -> Any:
    return deepcopy(concatenate(space, items, create_empty_array(space, len(items))))  # type: ignore[arg-type]


def first_difference(one: list[Transition], other: list[Transition]) -> str:
    for count, (here, there) in enumerate(zip(one, other, strict=False)):
        for name, a, b in zip(Transition._fields, here, there, strict=True):
            if not close(a, b):
                return f"otherwise from step {count}: {name} {describe(a)} and {describe(b)}"
    return f"{len(one)} and {len(other)} steps"
