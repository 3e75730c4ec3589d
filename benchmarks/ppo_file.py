"""PPO in one file, in the manner of CleanRL: it knows Gymnasium and torch, and nothing of dreams. Whatever has vector
actions will do, a dream or its true twin:

    python benchmarks/ppo_file.py --env worldgym/Tabletop-v0 --options instruction "reach the centre"
    python benchmarks/ppo_file.py --env worldgym/Tabletop-v0 --options obs_type latent
    python benchmarks/ppo_file.py --env worldgym/TabletopMuJoCo-v0 --options instruction "reach the centre"
"""

from dataclasses import dataclass, field

import gymnasium as gym
import numpy as np
import torch
import tyro
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from torch import Tensor, nn
from torch.distributions import Independent, Normal

import worldgym  # noqa: F401  registers the environments


@dataclass(frozen=True)
class Settings:
    env: str = "worldgym/Tabletop-v0"
    """Gymnasium id. It observes pictures, uint8 [h, w, 3], or vectors."""
    options: dict[str, str] = field(default_factory=dict)
    """Further arguments of gym.make_vec: name value name value ..."""
    num_envs: int = 32
    steps: int = 50_000
    """Of all environments together."""
    rollout: int = 32
    """Steps of each environment between two updates."""
    epochs: int = 10
    batch: int = 256
    learning_rate: float = 1e-3
    gamma: float = 0.9
    trace: float = 0.95
    """Lambda of the generalised advantage estimate."""
    clip: float = 0.2
    entropy: float = 0.003
    seed: int = 0


class Agent(nn.Module):
    """Mean and spread of the action, and the value, from a picture or a vector."""

    def __init__(self, observed: gym.spaces.Box, acted: gym.spaces.Box):
        super().__init__()
        self.sees = len(observed.shape) == 3
        look = [nn.Conv2d(3, 16, 8, 4), nn.ReLU(), nn.Conv2d(16, 32, 4, 2), nn.ReLU()] if self.sees else []
        self.look = nn.Sequential(*look, nn.Flatten())
        seen = self.look(self.scaled(torch.zeros(1, *observed.shape))).shape[1]
        self.think = nn.Sequential(nn.Linear(seen, 128), nn.ReLU())
        self.mean, self.value = nn.Linear(128, acted.shape[0]), nn.Linear(128, 1)
        self.log_spread = nn.Parameter(torch.full(acted.shape, -0.5))
        nn.init.orthogonal_(self.mean.weight, 0.01)

    def scaled(self, observation: Tensor) -> Tensor:
        return observation.movedim(-1, 1) / 255 - 0.5 if self.sees else observation

    def forward(self, observation: Tensor) -> tuple[Independent, Tensor]:
        thought = self.think(self.look(self.scaled(observation)))
        return Independent(Normal(self.mean(thought), self.log_spread.exp()), 1), self.value(thought)[:, 0]


def train(envs: VectorEnv, settings: Settings) -> tuple[Agent, list[float]]:
    """The agent, and the mean return of the episodes that ended in each rollout (nan if none did)."""
    if envs.metadata["autoreset_mode"] != AutoresetMode.NEXT_STEP:
        raise ValueError(f"autoreset is {envs.metadata['autoreset_mode']}; this file counts on NEXT_STEP, the default")
    torch.manual_seed(settings.seed)
    envs = RecordEpisodeStatistics(envs)
    low, high = envs.single_action_space.low, envs.single_action_space.high
    agent = Agent(envs.single_observation_space, envs.single_action_space)
    optimizer = torch.optim.Adam(agent.parameters(), settings.learning_rate, eps=1e-5)

    observation, _ = envs.reset(seed=settings.seed)
    over = np.zeros(envs.num_envs, bool)
    returns: list[float] = []
    for update in range(1, settings.steps // (settings.rollout * envs.num_envs) + 1):
        observations, actions, log_probs, values, rewards, ended, cut, counts = ([] for _ in range(8))
        finished: list[float] = []
        for _ in range(settings.rollout):
            observations.append(torch.as_tensor(observation).float())
            with torch.no_grad():
                policy, value = agent(observations[-1])
                action = policy.sample()
            counts.append(torch.as_tensor(~over))  # the step after an end only begins anew
            observation, reward, terminated, truncated, info = envs.step(np.clip(action.numpy(), low, high))
            over = terminated | truncated
            for part, new in (
                (actions, action), (log_probs, policy.log_prob(action)), (values, value),
                (rewards, torch.as_tensor(reward).float()), (ended, torch.as_tensor(terminated)),
                (cut, torch.as_tensor(over)),
            ):  # fmt: skip
                part.append(new)
            if "episode" in info:
                finished += info["episode"]["r"][info["_episode"]].tolist()
        with torch.no_grad():
            values.append(agent(torch.as_tensor(observation).float())[1])

        # What follows an episode's last step is its last observation, so a truncated one is worth what is expected
        # there; the trace goes no further.
        advantages, ahead = [], torch.zeros(envs.num_envs)
        for step in reversed(range(settings.rollout)):
            surprise = rewards[step] + settings.gamma * values[step + 1] * ~ended[step] - values[step]
            ahead = surprise + settings.gamma * settings.trace * ahead * ~cut[step]
            advantages.insert(0, ahead)

        kept = torch.cat(counts)
        seen, done, before, advantage, expected = (
            torch.cat(part)[kept] for part in (observations, actions, log_probs, advantages, values[:-1])
        )
        target = advantage + expected
        for _ in range(settings.epochs):
            for rows in torch.randperm(len(seen)).split(settings.batch):
                policy, value = agent(seen[rows])
                ratio = (policy.log_prob(done[rows]) - before[rows]).exp()
                gain = (advantage[rows] - advantage[rows].mean()) / (advantage[rows].std(correction=0) + 1e-8)
                clipped = ratio.clamp(1 - settings.clip, 1 + settings.clip)
                loss = (
                    -torch.min(ratio * gain, clipped * gain).mean()
                    + 0.5 * (value - target[rows]).square().mean()
                    - settings.entropy * policy.entropy().mean()
                )
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
                optimizer.step()
        returns.append(float(np.mean(finished)) if finished else float("nan"))
        print(f"step {update * settings.rollout * envs.num_envs:7d}  return {returns[-1]:8.3f}", flush=True)
    return agent, returns


if __name__ == "__main__":
    settings = tyro.cli(Settings)
    train(gym.make_vec(settings.env, settings.num_envs, **settings.options), settings)
