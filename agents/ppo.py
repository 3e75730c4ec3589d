"""Stable-Baselines3's PPO with settings for a few minutes in a dream."""

from pathlib import Path

from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecEnv

from worldgym.config import WorldConfig

from .features import policy_for

ENVIRONMENTS = 32
"""Side by side. A batch of dreams costs a CPU as much for each as a few would, and a GPU next to nothing more."""


def ppo(envs: VecEnv, world: WorldConfig, seed: int, log: Path, discount: float = 0.9) -> PPO:
    """A new agent.

    Args:
        world: whose latents the observations are, if they are latents.
        log: TensorBoard's folder.
        discount: of rewards a step later.
    """
    policy, arguments = policy_for(envs.observation_space, world)
    return PPO(
        policy, envs, n_steps=32, batch_size=256, n_epochs=10, gamma=discount, learning_rate=1e-3, ent_coef=0.003,
        policy_kwargs=arguments, seed=seed, tensorboard_log=str(log),
    )  # fmt: skip
