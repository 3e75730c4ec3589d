"""Stable-Baselines3's PPO from pixels, trained in a dream or in MuJoCo and judged in MuJoCo.

python -m worldgym.agents.ppo --world tabletop --steps 20000
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import gymnasium as gym
import numpy as np
import tyro
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv

from worldgym.sb3 import DreamVecEnv


@dataclass(frozen=True)
class PPOTraining:
    """Train PPO on the Tabletop."""

    world: str = "tabletop"
    """The dream: a bundled world or a checkpoint folder."""
    twin: str = "worldgym/TabletopMuJoCo-v0"
    """Where the agent is judged."""
    learn_in: Literal["dream", "mujoco"] = "dream"
    instruction: str = "reach the centre"
    steps: int = 20_000
    environments: int = 4
    episodes: int = 20
    """Episodes in MuJoCo at the end."""
    seed: int = 0
    out: Path = Path("runs/ppo")


def train(config: PPOTraining) -> float:
    """Train, save the policy to `out`, and return its success rate in MuJoCo."""
    envs: VecEnv
    if config.learn_in == "dream":
        envs = DreamVecEnv("worldgym/Dream-v0", config.environments, world=config.world, instruction=config.instruction)
    else:
        envs = make_vec_env(config.twin, config.environments, env_kwargs={"instruction": config.instruction})
    model = PPO(
        "CnnPolicy", envs, n_steps=128, batch_size=128, gamma=0.95, seed=config.seed,
        tensorboard_log=str(config.out / "tensorboard"),
    )  # fmt: skip
    model.learn(config.steps, progress_bar=False)
    config.out.mkdir(parents=True, exist_ok=True)
    model.save(config.out / "policy.zip")
    envs.close()
    return judge(model, config)


def judge(model: PPO, config: PPOTraining) -> float:
    """Success rate of the policy in MuJoCo."""
    env = gym.make(config.twin, instruction=config.instruction)
    successes = []
    for episode in range(config.episodes):
        observation, info = env.reset(seed=10_000 + config.seed + episode)
        done = False
        while not done:
            action, _ = model.predict(observation, deterministic=True)
            observation, _, terminated, truncated, info = env.step(action)
            done = terminated or truncated
        successes.append(info["success"])
    env.close()
    return float(np.mean(successes))


if __name__ == "__main__":
    config = tyro.cli(PPOTraining)
    print(f"success in MuJoCo: {train(config):.0%} of {config.episodes} episodes")
