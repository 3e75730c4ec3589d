"""A world's tokenizer as the eyes of an agent: what it learned on a dream's latents, it can do on real frames."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from worldgym.dreams import latent_space, latents
from worldgym.world import WorldModel, WorldState


class LatentObserver:
    """Sees `count` real episodes side by side as a dream sees its own frames: relative to a context.

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

    def see(self, frames: np.ndarray) -> np.ndarray:
        """Latents, float32 [n, l], of the next frames, uint8 [n, h, w, 3]."""
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
    """Real environments whose observations are latents.

    `infos[i]["frame"]` is the real frame, uint8 [h, w, 3], at which the action was taken.
    """

    def __init__(self, venv: VecEnv, world: WorldModel):
        super().__init__(venv, observation_space=latent_space(world))
        self.eyes = LatentObserver(world, venv.num_envs)

    def reset(self) -> np.ndarray:
        return self.eyes.begin(_pixels(self.venv.reset()))

    def step_wait(self):
        frames, rewards, dones, infos = self.venv.step_wait()
        frames = _pixels(frames)
        for index, info in enumerate(infos):
            info["frame"] = self.eyes.frames[index].copy()
        last = frames.copy()
        for index in np.flatnonzero(dones).tolist():
            last[index] = infos[index]["terminal_observation"]
        seen = self.eyes.see(last)
        for index in np.flatnonzero(dones).tolist():
            infos[index]["terminal_observation"] = seen[index].copy()
        if dones.any():
            seen[dones] = self.eyes.begin(frames, dones)
        return seen, rewards, dones, infos


def see_alone(policy, world: WorldModel):
    """A policy on latents (`predict` as Stable-Baselines3 has it) as a function of one episode's frames.

    Returns:
        observation uint8 [h, w, 3] -> an action of the policy's space; made anew for each episode.
    """
    eyes, begun = LatentObserver(world, 1), False

    def act(observation: np.ndarray) -> Any:
        nonlocal begun
        seen = eyes.see(observation[None]) if begun else eyes.begin(observation[None])
        begun = True
        return policy.predict(seen, deterministic=True)[0][0]

    return act


def _array(seen: torch.Tensor) -> np.ndarray:
    return seen.cpu().numpy()


def _pixels(observation: np.ndarray | dict | Sequence) -> np.ndarray:
    assert isinstance(observation, np.ndarray), "a real twin shows pixels"
    return observation
