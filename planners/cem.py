"""The cross-entropy method over action sequences."""

import numpy as np

from worldgym.actions import Choice

from .search import Evaluate, Plan, Search, best_first


class CEM(Search):
    """Sample, keep the best, fit a Gaussian to them, repeat. Categories are drawn from how often the best have them.

    Args:
        elites: how many of the best are fitted; a quarter of them are tried again in the next round.
    """

    def __init__(
        self,
        evaluate: Evaluate,
        low: np.ndarray,
        high: np.ndarray,
        horizon: int = 10,
        samples: int = 64,
        iterations: int = 4,
        elites: int = 8,
        action_repeat: int = 2,
        seconds: float = float("inf"),
        seed: int = 0,
        choices: tuple[Choice, ...] = (),
    ):
        super().__init__(evaluate, low, high, horizon, samples, iterations, action_repeat, seconds, seed, choices)
        if not 0 < elites <= samples:
            raise ValueError(f"elites is {elites}; it must be between 1 and samples, {samples}")
        self.elites = elites

    def plan(self, warm_start: np.ndarray | None = None) -> Plan:
        mean = self.centre(warm_start)
        spread = np.broadcast_to((self.high - self.low) / 2, mean.shape)
        chances = self.chances(warm_start)
        kept = np.concatenate([mean[None], self.proposals()])  # the centre is tried too, and elites live on
        best, best_return = kept[0], -np.inf
        for _ in self.rounds():
            noise = self.random.standard_normal((self.samples - len(kept), *mean.shape))
            drawn = self.draw(mean + spread * noise, chances)
            sequences = self.within(np.concatenate([kept, drawn]))
            returns = self.score(sequences)
            order = best_first(returns, self.elites)
            elite = sequences[order]
            mean, spread = elite.mean(0), elite.std(0) + 0.02 * (self.high - self.low)
            chances = self.frequencies(elite)
            kept = elite[: max(1, self.elites // 4)]
            if returns[order[0]] > best_return:
                best, best_return = elite[0], returns[order[0]]
        return self.made(best, best_return, spread)
