"""A world's tokenizer as the eyes of an agent: what it learned on a dream's latents, it can do on real frames."""

from collections.abc import Sequence

import numpy as np
import torch
from gymnasium.spaces import Box
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from worldgym.dreams import LATENT_BOUND
from worldgym.world import WorldModel, WorldState


class Eyes:
    """Sees `count` real episodes side by side as a dream sees its own frames: relative to a context.

    The context is the first frame of an episode and, whenever a window is full, the newest one: as in a dream of a
    world that one frame tells enough.

    Raises:
        ValueError: it takes several.
    """

    def __init__(self, world: WorldModel, count: int):
        check_one_frame_tells(world)
        self.world = world
        size = world.config.tokenizer.resolution
        self.frames = np.zeros((count, size, size, 3), np.uint8)
        """Seen last."""
        self._since = np.zeros(count, np.int64)
        self._state: WorldState | None = None

    def begin(self, frames: np.ndarray, which: np.ndarray | None = None) -> np.ndarray:
        """Episodes `which` (bool [n]; all of them first) begin anew: latents, float32 [n, f * g * g], of them alone.

        Args:
            frames: uint8 [n, h, w, 3], of all episodes.
        """
        rows = np.arange(len(self.frames)) if which is None else np.flatnonzero(which)
        self.frames[rows] = frames[rows]
        return self._take_as_context(rows)

    def see(self, frames: np.ndarray) -> np.ndarray:
        """Latents, float32 [n, f * g * g], of the next frames, uint8 [n, h, w, 3]."""
        assert self._state is not None, "begin() first"
        full = np.flatnonzero(self._since == self.world.config.dynamics.window)
        if len(full):
            self._take_as_context(full)
        self.frames[:] = frames
        self._since += 1
        return _flat(self.world.see(torch.from_numpy(self.frames).to(self.world.device), self._state))

    def _take_as_context(self, rows: np.ndarray) -> np.ndarray:
        fresh = self.world.start(self.frames[rows][:, None])
        self._since[rows] = 0
        if len(rows) == len(self.frames):
            self._state = fresh
        else:
            assert self._state is not None, "all episodes begin together first"
            self._state = self._state.put(torch.from_numpy(rows).to(self.world.device), fresh)
        return _flat(fresh.fused)


def check_one_frame_tells(world: WorldModel) -> None:
    """A ValueError if the world is told speed by several frames: latents are of one, and its contexts are others."""
    if (told := world.config.dynamics.observed) > 1:
        raise ValueError(
            f"the world {world.config.name!r} is told speed by {told} frames, and a latent is of one frame; let agents "
            "see stacked pixels instead (Stable-Baselines3's VecFrameStack over DreamVecEnv)"
        )


class SeenVecEnv(VecEnvWrapper):
    """Real environments whose observations are latents.

    `infos[i]["frame"]` is the real frame, uint8 [h, w, 3], at which the action was taken.
    """

    def __init__(self, venv: VecEnv, world: WorldModel):
        tokenizer = world.config.tokenizer
        size = tokenizer.width * tokenizer.grid**2
        super().__init__(venv, observation_space=Box(-LATENT_BOUND, LATENT_BOUND, (size,), np.float32))
        self.eyes = Eyes(world, venv.num_envs)

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
        latents = self.eyes.see(last)
        for index in np.flatnonzero(dones).tolist():
            infos[index]["terminal_observation"] = latents[index].copy()
        if dones.any():
            latents[dones] = self.eyes.begin(frames, dones)
        return latents, rewards, dones, infos


def see_alone(policy, world: WorldModel):
    """A policy on latents (`predict` as Stable-Baselines3 has it) as a function of one episode's frames.

    Returns:
        observation uint8 [h, w, 3] -> action float32 [a]; made anew for each episode.
    """
    eyes, begun = Eyes(world, 1), False

    def act(observation: np.ndarray) -> np.ndarray:
        nonlocal begun
        latents = eyes.see(observation[None]) if begun else eyes.begin(observation[None])
        begun = True
        return policy.predict(latents, deterministic=True)[0][0]

    return act


def _flat(fused: torch.Tensor) -> np.ndarray:
    return fused.flatten(1).clamp(-LATENT_BOUND, LATENT_BOUND).cpu().numpy()


def _pixels(observation: np.ndarray | dict | Sequence) -> np.ndarray:
    assert isinstance(observation, np.ndarray), "a real twin shows pixels"
    return observation
