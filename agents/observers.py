"""A world as the eyes of an agent: what it learned on a dream's latents or states, it can do on real frames."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from worldgym.dreams import latent_space, latents, state_space
from worldgym.world import WorldModel, WorldState


@runtime_checkable
class Observer(Protocol):
    """Sees real episodes side by side as dreams see their own frames."""

    @property
    def frames(self) -> np.ndarray:
        """Seen last, uint8 [n, h, w, 3]."""

    def begin(self, frames: np.ndarray, which: np.ndarray | None = None) -> np.ndarray:
        """Episodes `which` (bool [n]; all of them first) begin anew: observations, float32 [m, l], of them alone.

        Args:
            frames: uint8 [n, h, w, 3], of all episodes.
        """

    def see(self, frames: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Observations, float32 [n, l], of the next frames, uint8 [n, h, w, 3], and the actions [n, a] before them."""


class StateObserver:
    """An `Observer` by the recurrent state: it remembers all that an episode showed, at constant cost."""

    def __init__(self, world: WorldModel, count: int):
        assert world.recurrent is not None
        self.world, self._filter = world, world.recurrent
        size = world.config.tokenizer.resolution
        self.frames = np.zeros((count, size, size, 3), np.uint8)
        self._states = np.zeros((count, world.recurrent.width), np.float32)

    def begin(self, frames: np.ndarray, which: np.ndarray | None = None) -> np.ndarray:
        rows = np.arange(len(self.frames)) if which is None else np.flatnonzero(which)
        self.frames[rows] = frames[rows]
        self._states[rows] = _array(self.world.observe(frames[rows, None]))
        return self._states[rows].clip(-1.0, 1.0)

    @torch.no_grad()
    def see(self, frames: np.ndarray, actions: np.ndarray) -> np.ndarray:
        states, done, seen = (torch.from_numpy(part).to(self.world.device) for part in (self._states, actions, frames))
        self.frames, self._states = frames.copy(), _array(self._filter.follow(states, done.float(), seen))
        return self._states.clip(-1.0, 1.0)


class LatentObserver:
    """An `Observer` by the tokenizer: frames are seen as a dream sees its own, relative to a context.

    The context is the first frame of an episode; whenever a window is full, what was seen last begins another, as in a
    dream.
    """

    def __init__(self, world: WorldModel, count: int):
        self.world = world
        size, dynamics = world.config.tokenizer.resolution, world.config.dynamics
        self._seen = np.zeros((count, dynamics.observed, size, size, 3), np.uint8)
        self._steps = np.zeros(count, np.int64)
        self._state: WorldState | None = None

    @property
    def frames(self) -> np.ndarray:
        """Seen last, uint8 [n, h, w, 3]."""
        return self._seen[:, -1]

    def begin(self, frames: np.ndarray, which: np.ndarray | None = None) -> np.ndarray:
        """Restart the episodes `which` (bool [n]; all of them first); returns their latents, float32 [m, l].

        Args:
            frames: uint8 [n, h, w, 3], of all episodes.
        """
        rows = np.arange(len(self._seen)) if which is None else np.flatnonzero(which)
        self._seen[rows, -1] = frames[rows]
        return _array(latents(self.world, self._ground(rows, 1)))

    def see(self, frames: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Latents, float32 [n, l], of the next frames, uint8 [n, h, w, 3]; they tell what the actions did."""
        full = np.flatnonzero(self._steps == self.world.config.dynamics.window)
        if len(full):
            self._ground(full, self._seen.shape[1])
        assert self._state is not None, "begin() first"
        self._seen = np.concatenate([self._seen[:, 1:], frames[:, None]], 1)
        fused = self.world.see(torch.from_numpy(frames).to(self.world.device), self._state)
        past = torch.cat([self._state.past, self._state.fused[:, None]], 1)[:, 1:]
        self._state = replace(self._state, fused=fused, past=past)
        self._steps += 1
        return _array(latents(self.world, self._state))

    def _ground(self, rows: np.ndarray, count: int) -> WorldState:
        """Some episodes continue from their newest frames, as dreams that begin there."""
        frames = self._seen[rows, -count:]
        fresh = self.world.start(frames, np.zeros((len(rows), count - 1, self.world.config.action_size), np.float32))
        self._steps[rows] = fresh.steps.cpu().numpy()
        if len(rows) == len(self._seen):
            self._state = fresh
        else:
            assert self._state is not None, "all episodes begin together first"
            self._state = self._state.put(torch.from_numpy(rows).to(self.world.device), fresh)
        return fresh


class SeenVecEnv(VecEnvWrapper):
    """Real environments whose observations are latents, or the recurrent state.

    `infos[i]["frame"]` is the real frame, uint8 [h, w, 3], at which the action was taken.

    Args:
        sees: "latent" or "state".
    """

    def __init__(self, venv: VecEnv, world: WorldModel, sees: str = "latent"):
        super().__init__(venv, observation_space=state_space(world) if sees == "state" else latent_space(world))
        self.eyes = make_observer(sees, world, venv.num_envs)
        self._codec = world.config.codec
        self._actions = np.zeros((venv.num_envs, world.config.action_size), np.float32)

    def reset(self) -> np.ndarray:
        return self.eyes.begin(_pixels(self.venv.reset()))

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = self._codec.encode_batch(actions, self.num_envs)
        self.venv.step_async(actions)

    def step_wait(self):
        frames, rewards, dones, infos = self.venv.step_wait()
        frames = _pixels(frames)
        for index, info in enumerate(infos):
            info["frame"] = self.eyes.frames[index].copy()
        last = frames.copy()
        for index in np.flatnonzero(dones).tolist():
            last[index] = infos[index]["terminal_observation"]
        seen = self.eyes.see(last, self._actions)
        for index in np.flatnonzero(dones).tolist():
            infos[index]["terminal_observation"] = seen[index].copy()
        if dones.any():
            seen[dones] = self.eyes.begin(frames, dones)
        return seen, rewards, dones, infos


def make_observer(sees: str, world: WorldModel, count: int) -> Observer:
    """Of so many episodes, what an agent that sees "latent" or "state" is shown."""
    return StateObserver(world, count) if sees == "state" else LatentObserver(world, count)


class SeeAlone:
    """A policy on latents or states (`predict` as Stable-Baselines3 has it), for one episode's frames.

    Call it with an observation, uint8 [h, w, 3]; it returns an action of the policy's space. In a dream that shows its
    state, a policy on states takes that, float32 [s].
    """

    def __init__(self, policy, world: WorldModel, sees: str = "latent"):
        self.policy, self.codec, self.eyes = policy, world.config.codec, make_observer(sees, world, 1)
        self._done: np.ndarray | None = None
        """The newest action, as a vector [1, a]."""

    def __call__(self, observation: np.ndarray) -> Any:
        if observation.ndim == 1:
            return self.policy.predict(observation[None], deterministic=True)[0][0]
        frame = observation[None]
        seen = self.eyes.begin(frame) if self._done is None else self.eyes.see(frame, self._done)
        action = self.policy.predict(seen, deterministic=True)[0][0]
        self._done = self.codec.encode(action)[None]
        return action

    def instead(self, vector: np.ndarray) -> Any:
        """The action of another vector, float32 [a], which is done in place of the newest one."""
        self._done = vector[None]
        return self.codec.decode(vector)


def _array(seen: torch.Tensor) -> np.ndarray:
    return seen.cpu().numpy()


def _pixels(observation: np.ndarray | dict | Sequence) -> np.ndarray:
    assert isinstance(observation, np.ndarray), "a real twin shows pixels"
    return observation
