"""Episodes of a policy, in a dream or in reality alike, and what they are worth."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from ..metrics import wilson

Policy = Callable[[np.ndarray], Any]
"""Observation uint8 [h, w, 3] -> action, float32 [a] or a sentence; may have state, and is made for each episode."""


class Episode(NamedTuple):
    """What happened in t steps."""

    frames: np.ndarray
    """uint8 [t + 1, h, w, 3]."""
    rewards: np.ndarray
    """float64 [t]."""
    success: bool
    uncertainty: float
    """Mean over the steps, nats; nan in reality, which has none."""

    @property
    def total(self) -> float:
        """The return."""
        return float(self.rewards.sum())

    def then(self, more: "Episode") -> "Episode":
        """With what happened next, which began with the last frame of this one."""
        lengths = [len(self.rewards), len(more.rewards)]
        return Episode(
            np.concatenate([self.frames, more.frames[1:]]),
            np.concatenate([self.rewards, more.rewards]),
            more.success,
            float(np.average([self.uncertainty, more.uncertainty], weights=lengths)),
        )


def play(env: gym.Env, act: Policy, seed: int, options: dict[str, Any] | None = None) -> Episode:
    """Reset with this seed and these options, and act to the end."""
    observation, _ = env.reset(seed=seed, options=options)
    return go_on(env, act, observation)


def go_on(env: gym.Env, act: Policy, observation: np.ndarray, steps: int | None = None) -> Episode:
    """Act from what is observed now to the end, or for so many steps."""
    frames, rewards, doubts, done, success = [observation], [], [], False, False
    while not done:
        observation, reward, terminated, truncated, info = env.step(act(observation))
        frames.append(observation)
        rewards.append(float(reward))
        doubts.append(info.get("uncertainty", np.nan))
        success, done = bool(info["success"]), terminated or truncated or len(rewards) == steps
    return Episode(np.stack(frames), np.array(rewards), success, float(np.mean(doubts)))


def episode_statistics(played: Sequence[Episode]) -> dict[str, Any]:
    """Success rate with its 95% interval, mean return and length."""
    won = [bool(episode.success) for episode in played]
    return {
        "success_rate": float(np.mean(won)),
        "success_interval": wilson(sum(won), len(won)),
        "mean_return": float(np.mean([episode.total for episode in played])),
        "mean_steps": float(np.mean([len(episode.rewards) for episode in played])),
    }
