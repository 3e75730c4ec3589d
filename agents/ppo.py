"""Stable-Baselines3's PPO with settings for a few minutes in a dream."""

from pathlib import Path

from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecEnv

from worldgym.config import WorldConfig
from worldgym.world import WorldModel

from .features import policy_for
from .settings import Learning


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


def make_ppo(config: Learning, envs: VecEnv, world: WorldModel) -> PPO:
    """The agent of `worldgym learn --agent ppo`."""
    return ppo(envs, world.config, config.seed, config.out / "tensorboard", config.discount)
