"""What every other planner has to beat: random shooting at the same budget, and acting at random."""

from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np

from .search import Plan, Search


class RandomShooting(Search):
    """Try sequences drawn uniformly from the bounds, and take the best. The warm start is one of them.

    The nearest categories to uniform numbers are uniform, too.
    """

    def plan(self, warm_start: np.ndarray | None = None) -> Plan:
        best, best_return = self.centre(warm_start), -np.inf
        for number in self.rounds():
            drawn = self.random.uniform(self.low, self.high, (self.samples, self.knots, len(self.low)))
            if number == 0:
                drawn[0] = best
            sequences = self.within(drawn)
            returns = self.score(sequences)
            if returns.max() > best_return:
                best, best_return = sequences[returns.argmax()], returns.max()
        uniform = np.broadcast_to((self.high - self.low) / np.sqrt(12), best.shape)
        return self.made(best, best_return, uniform)


class RandomActions:
    """A policy that searches nothing: any action of its space, whatever it sees."""

    def __init__(self, space: gym.Space, seed: int = 0):
        self.space, self.random = deepcopy(space), np.random.default_rng(seed)
        self.space.seed(seed)

    def __call__(self, observation: np.ndarray) -> Any:
        if isinstance(self.space, gym.spaces.Box) and self.space.dtype == np.float32:
            return self.random.uniform(self.space.low, self.space.high).astype(np.float32)
        return self.space.sample()
