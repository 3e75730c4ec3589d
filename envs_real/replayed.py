"""Trying things out on an environment that cannot branch: from the start again, by the same seed and actions."""

import json
from collections.abc import Callable
from copy import copy
from typing import Any, NamedTuple

import gymnasium as gym
import mujoco
import numpy as np
from gymnasium.envs.mujoco import MujocoEnv
from gymnasium.utils.env_checker import data_equivalence

from worldgym.errors import UserError

from .gym_record import Twin

LIMIT = 1000
"""Steps of an episode where the environment is registered without `max_episode_steps`: some never end."""
SNAPSHOT_VERSION = 1


class Replayed(gym.Wrapper):
    """A `Twin` with `snapshot`, `restore` and `evaluate`, for any environment that its seed and its actions determine.

    Where a snapshot is of a late step, going back to it takes as many steps, and so does each sequence that is tried,
    unless MuJoCo's data, which can be copied, are all that matters. A second environment tries them, without pictures.
    After the end of an episode it stands still, and earns nothing.

    Args:
        twin: what is acted on.
        again: makes another one like it.
        instruction: its task, by its name in the data set; there is no other.
    """

    def __init__(self, twin: Twin, again: Callable[[], Twin], instruction: str):
        super().__init__(twin)
        self.twin, self.again, self.instruction = twin, again, instruction
        self.limit = LIMIT if twin.spec is None or twin.spec.max_episode_steps is None else None
        self._other: Twin | None = None
        self._copies: bool | None = None
        """Whether to copy MuJoCo's data does what going through the episode does; None until it was tried."""
        self._seeds = np.random.default_rng()
        self._seed: int | None = None
        self._actions: list[np.ndarray] = []
        self._last: tuple[np.ndarray, bool, bool, dict[str, Any]]

    # -- Gymnasium --------------------------------------------------------------------------------------------------

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """The environment's own start. Of `options` it knows "instruction", which can only be its own."""
        if unknown := set(options or {}) - {"instruction"}:
            raise UserError(f"unknown reset options {sorted(unknown)}; the twin knows instruction")
        if (asked := (options or {}).get("instruction", self.instruction)) != self.instruction:
            raise UserError(f"unknown instruction {asked!r}; the twin knows {self.instruction!r}")
        if seed is not None:
            self._seeds = np.random.default_rng(seed)
        self._seed = int(self._seeds.integers(2**31)) if seed is None else seed
        self._actions = []
        frame, info = self.twin.reset(seed=self._seed)
        self._last = frame, False, False, info
        return frame, info

    def step(self, action: Any):
        return self._take(self.twin.vector(action))

    def _take(self, vector: np.ndarray):
        frame, terminated, truncated, info = self._last
        if terminated or truncated:
            return frame, 0.0, terminated, truncated, info
        self._actions.append(np.array(vector, np.float32))
        frame, reward, terminated, truncated, info = self.twin.take(vector)
        truncated = truncated or len(self._actions) == self.limit
        self._last = frame, terminated, truncated, info
        return frame, reward, terminated, truncated, info

    def close(self) -> None:
        super().close()
        if self._other is not None:
            self._other.close()
            self._other = None

    # -- trying things out ------------------------------------------------------------------------------------------

    def evaluate(self, action_sequences: np.ndarray) -> np.ndarray:
        """Returns [n] of sequences of vectors [n, horizon, a] in [-1, 1], tried from here, each until its episode ends.

        Raises:
            UserError: the environment does something else when it is reset with the same seed and takes the same
                actions.
        """
        returns = np.zeros(len(action_sequences), np.float32)
        _, terminated, truncated, _ = self._last
        if terminated or truncated:
            return returns
        if self._other is None:
            self._other = self.again()
        other, here = self._other, None
        for index, sequence in enumerate(action_sequences):
            if here is None:
                self._go_through(other)
                here = _mujoco_data(other) if self._copies is not False else None
            else:
                _set_mujoco_data(other, here)
            returns[index], _ = found = _try(other, sequence)
            if self._copies is None and here is not None:
                _set_mujoco_data(other, here)
                self._copies = data_equivalence(_try(other, sequence), found, exact=True)
                here = here if self._copies else None
        return returns

    def snapshot(self) -> bytes:
        """How the episode came here: its seed and its actions."""
        if self._seed is None:
            raise RuntimeError("reset() the twin first")
        actions = [action.tolist() for action in self._actions]
        return json.dumps({"version": SNAPSHOT_VERSION, "seed": self._seed, "actions": actions}).encode()

    def restore(self, blob: bytes) -> None:
        """Go back to a snapshot of this environment, by playing its episode again.

        Raises:
            UserError: the snapshot is not one, or of another version.
        """
        try:
            content = json.loads(blob)
            version, seed, actions = (content[name] for name in ("version", "seed", "actions"))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"these {len(blob)} bytes are not a snapshot of {self.twin.spec}: {error}") from None
        if version != SNAPSHOT_VERSION:
            raise UserError(f"snapshot version is {version}; this release reads {SNAPSHOT_VERSION}")
        if seed == self._seed and actions == [action.tolist() for action in self._actions]:
            return
        self.reset(seed=seed)
        for vector in actions:
            self._take(np.array(vector, np.float32))

    def _go_through(self, other: Twin) -> None:
        """Bring another environment to where this one is."""
        observed, _ = other.env.reset(seed=self._seed)
        for action in self._actions:
            observed, *_ = other.advance(action)
        if not data_equivalence(observed, self.twin.observed, exact=True):
            raise UserError(
                f"{other.spec.id if other.spec else other} does something else when it is reset with the same seed and "
                "takes the same actions, so nothing can be tried on it; the dream can be planned in all the same"
            )


def _try(env: Twin, sequence: np.ndarray) -> tuple[float, Any]:
    """The return of a sequence of vectors until the episode ends, and what it shows then."""
    total, observed = 0.0, None
    for action in sequence:
        observed, reward, terminated, truncated, _ = env.advance(action)
        total += reward
        if terminated or truncated:
            break
    return total, observed


class _Here(NamedTuple):
    """What a MuJoCo environment of Gymnasium goes back to."""

    data: mujoco.MjData
    counted: list[tuple[gym.wrappers.TimeLimit, Any]]
    """The wrappers that count steps, and how many they had counted."""


def _mujoco_data(env: Twin) -> _Here | None:
    """None where this is no MuJoCo environment of Gymnasium."""
    true, layer = env.unwrapped, env.env
    counted: list[tuple[gym.wrappers.TimeLimit, Any]] = []
    if not isinstance(true, MujocoEnv):
        return None
    while isinstance(layer, gym.Wrapper):
        if isinstance(layer, gym.wrappers.TimeLimit):
            counted.append((layer, layer._elapsed_steps))
        layer = layer.env
    return _Here(copy(true.data), counted)


def _set_mujoco_data(env: Twin, here: _Here) -> None:
    assert isinstance(env.unwrapped, MujocoEnv)
    mujoco.mj_copyData(env.unwrapped.data, env.unwrapped.model, here.data)
    for layer, steps in here.counted:
        layer._elapsed_steps = steps
