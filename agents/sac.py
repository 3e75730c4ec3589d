"""Stable-Baselines3's SAC with settings for a few minutes in a dream."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box, Space
from stable_baselines3 import SAC
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.vec_env import VecEnv

from worldgym.config import WorldConfig
from worldgym.world import WorldModel

from .features import policy_for
from .settings import Learning

CAPACITY = 50_000
"""Transitions remembered."""


class HalfReplay(ReplayBuffer):
    """A replay buffer that keeps latents in half precision: 50,000 transitions are 1.2 GB instead of 2.5."""

    def __init__(
        self,
        buffer_size: int,
        observation_space: Space,
        action_space: Space,
        device: torch.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
    ):
        if isinstance(observation_space, Box) and observation_space.dtype == np.float32:
            low, high = observation_space.low.astype(np.float16), observation_space.high.astype(np.float16)
            observation_space = Box(low, high, dtype=np.float16)
        super().__init__(buffer_size, observation_space, action_space, device, n_envs, optimize_memory_usage)

    def arrays(self) -> list[str]:
        """Names of what has one row for each step, most of them empty at first."""
        return ["observations", "next_observations", "actions", "rewards", "dones", "timeouts"]

    def __getstate__(self) -> dict[str, Any]:
        """Without the rows that hold nothing yet: they would be most of a checkpoint."""
        return self.__dict__ | {name: getattr(self, name)[: self.size()] for name in self.arrays()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        for name in self.arrays():
            rows = state[name]
            whole = np.zeros((self.buffer_size, *rows.shape[1:]), rows.dtype)
            whole[: len(rows)] = rows
            setattr(self, name, whole)


def sac(
    envs: VecEnv,
    world: WorldConfig,
    seed: int,
    log: Path,
    replay: type[ReplayBuffer] = HalfReplay,
    replay_arguments: dict[str, Any] | None = None,
    updates: float = 0.5,
    discount: float = 0.9,
    warm_up: int = 500,
) -> SAC:
    """A new agent.

    Args:
        world: whose latents the observations are, if they are latents.
        log: TensorBoard's folder.
        replay, replay_arguments: the replay buffer's class and what it takes besides Stable-Baselines3's own.
        updates: gradient steps for each step of an environment.
        discount: of rewards a step later.
        warm_up: steps of random actions before the first of them.
    """
    policy, arguments = policy_for(envs.observation_space, world)
    return SAC(
        policy, envs, buffer_size=CAPACITY, learning_starts=warm_up, train_freq=1, batch_size=128, gamma=discount,
        gradient_steps=max(1, round(updates * envs.num_envs)), learning_rate=1e-3, policy_kwargs=arguments,
        replay_buffer_class=replay, replay_buffer_kwargs=replay_arguments, seed=seed, tensorboard_log=str(log),
    )  # fmt: skip


def make_sac(config: Learning, envs: VecEnv, world: WorldModel) -> SAC:
    """The agent of `worldgym learn --agent sac`."""
    updates = 0.5 if config.updates is None else config.updates
    log = config.out / "tensorboard"
    return sac(envs, world.config, config.seed, log, updates=updates, discount=config.discount)
