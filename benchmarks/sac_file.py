"""SAC in one file, in the manner of CleanRL: it knows Gymnasium and torch, and nothing of dreams. Whatever has vector
actions and is seen as a vector will do:

    python benchmarks/sac_file.py --env worldgym/Tabletop-v0 --options obs_type latent instruction "reach the centre"
"""

from copy import deepcopy
from dataclasses import dataclass, field

import gymnasium as gym
import numpy as np
import torch
import tyro
from gymnasium.vector import AutoresetMode, VectorEnv
from torch import Tensor, nn
from torch.distributions import Normal

import worldgym  # noqa: F401  registers the environments


@dataclass(frozen=True)
class Settings:
    env: str = "worldgym/Tabletop-v0"
    """Gymnasium id, observed as vectors."""
    options: dict[str, str] = field(default_factory=lambda: {"obs_type": "latent"})
    """Further arguments of gym.make_vec: name value name value ..."""
    num_envs: int = 16
    steps: int = 20_000
    """Of all environments together."""
    kept: int = 20_000
    """Transitions in the replay buffer."""
    random_steps: int = 1_000
    """Before the policy acts."""
    batch: int = 256
    learning_rate: float = 3e-4
    gamma: float = 0.95
    follow: float = 0.005
    """How much of the critics the target critics take on with each update."""
    temperature: float = 0.05
    """Reward of a nat of entropy."""
    seed: int = 0


class Actor(nn.Module):
    """A squashed Gaussian over actions in [-1, 1]."""

    def __init__(self, observed: int, acted: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(observed, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU())
        self.mean, self.log_spread = nn.Linear(256, acted), nn.Linear(256, acted)

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """An action drawn for each observation, and its log-probability."""
        thought = self.layers(observation)
        normal = Normal(self.mean(thought), self.log_spread(thought).clamp(-5, 2).exp())
        drawn = normal.rsample()
        action = drawn.tanh()
        return action, (normal.log_prob(drawn) - (1 - action.square() + 1e-6).log()).sum(-1)


class Critics(nn.Module):
    """Two estimates of the return of an action; the lower one counts."""

    def __init__(self, observed: int, acted: int):
        super().__init__()
        shape = [nn.Linear(observed + acted, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 1)]
        self.both = nn.ModuleList([nn.Sequential(*shape), deepcopy(nn.Sequential(*shape))])
        self.both[1].apply(lambda layer: layer.reset_parameters() if isinstance(layer, nn.Linear) else None)

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        """[2, b]."""
        return torch.stack([critic(torch.cat([observation, action], -1))[:, 0] for critic in self.both])


def train(envs: VectorEnv, settings: Settings) -> tuple[Actor, list[float]]:
    """The actor, and the return of each episode in the order in which they ended."""
    if envs.metadata["autoreset_mode"] != AutoresetMode.SAME_STEP:
        raise ValueError(f"autoreset is {envs.metadata['autoreset_mode']}; this file counts on SAME_STEP")
    torch.manual_seed(settings.seed)
    random = np.random.default_rng(settings.seed)
    observed, acted = envs.single_observation_space.shape[0], envs.single_action_space.shape[0]
    actor, critics = Actor(observed, acted), Critics(observed, acted)
    target = deepcopy(critics)
    optimizers = [torch.optim.Adam(part.parameters(), settings.learning_rate) for part in (actor, critics)]
    buffer = [np.zeros((settings.kept, *shape), np.float32) for shape in ((observed,), (acted,), (), (observed,), ())]

    observation, _ = envs.reset(seed=settings.seed)
    running, returns, filled = np.zeros(envs.num_envs), [], 0
    for _ in range(settings.steps // envs.num_envs):
        if filled < settings.random_steps:
            action = random.uniform(-1, 1, (envs.num_envs, acted)).astype(np.float32)
        else:
            with torch.no_grad():
                action = actor(torch.as_tensor(observation))[0].numpy()
        after, reward, terminated, truncated, info = envs.step(action)
        running += reward
        reached = after.copy()
        for index in np.flatnonzero(terminated | truncated):
            reached[index] = info["final_obs"][index]  # what was reached, and not the first of the next episode
            returns.append(float(running[index]))
            running[index] = 0.0
        rows = np.arange(filled, filled + envs.num_envs) % settings.kept
        for part, new in zip(buffer, (observation, action, reward, reached, terminated), strict=True):
            part[rows] = new
        observation, filled = after, filled + envs.num_envs
        if filled < max(settings.random_steps, settings.batch):
            continue
        chosen = random.integers(min(filled, settings.kept), size=settings.batch)
        seen, done, earned, next_seen, ended = (torch.from_numpy(part[chosen]) for part in buffer)
        with torch.no_grad():
            next_action, log_probability = actor(next_seen)
            worth = target(next_seen, next_action).min(0).values - settings.temperature * log_probability
            aim = earned + settings.gamma * (1 - ended) * worth
        _update(optimizers[1], (critics(seen, done) - aim).square().mean())
        action, log_probability = actor(seen)
        _update(optimizers[0], (settings.temperature * log_probability - critics(seen, action).min(0).values).mean())
        for old, new in zip(target.parameters(), critics.parameters(), strict=True):
            old.data.lerp_(new.data, settings.follow)
    return actor, returns


def _update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


if __name__ == "__main__":
    settings = tyro.cli(Settings)
    envs = gym.make_vec(settings.env, settings.num_envs, autoreset_mode="SameStep", **settings.options)
    _, returns = train(envs, settings)
    print(f"first and last fifty episodes: {np.mean(returns[:50]):.3f}, {np.mean(returns[-50:]):.3f}")
