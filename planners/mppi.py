"""Model-predictive path integral control: all samples vote, weighted by their returns (Williams et al., 2017)."""

import numpy as np

from worldgym.actions import Choice

from .search import Evaluate, Plan, Search


class MPPI(Search):
    """Sample around a mean, move it to the average of all samples weighted by exp(return / temperature), repeat.

    At the end the average and the best sample are compared: two sequences beyond `samples * iterations`.

    Args:
        temperature: in units of the standard deviation of a round's returns, so that it does not depend on the scale
            of the reward; the lower, the fewer samples have a say.
        noise: standard deviation of the samples, in units of half the bounds.
    """

    def __init__(
        self,
        evaluate: Evaluate,
        low: np.ndarray,
        high: np.ndarray,
        horizon: int = 10,
        samples: int = 64,
        iterations: int = 4,
        temperature: float = 0.3,
        noise: float = 0.6,
        action_repeat: int = 2,
        seconds: float = float("inf"),
        seed: int = 0,
        choices: tuple[Choice, ...] = (),
    ):
        super().__init__(evaluate, low, high, horizon, samples, iterations, action_repeat, seconds, seed, choices)
        if not temperature > 0 or not noise > 0:
            raise ValueError(f"temperature is {temperature} and noise {noise}; both must be above 0")
        self.temperature, self.noise = temperature, noise

    def plan(self, warm_start: np.ndarray | None = None) -> Plan:
        mean = self.centre(warm_start)
        scale, chances = self.noise * (self.high - self.low) / 2, self.chances(warm_start)
        best, best_return = mean, -np.inf
        spread = np.broadcast_to(scale, mean.shape)
        for _ in self.rounds():
            drawn = self.draw(mean + scale * self.random.standard_normal((self.samples, *mean.shape)), chances)
            drawn[0] = mean
            sequences = self.within(drawn)
            returns = self.score(sequences)
            if returns.max() > best_return:
                best, best_return = sequences[returns.argmax()], returns.max()
            finite = np.isfinite(returns)
            unit = max(returns[finite].std(), 1e-8)
            weights = np.exp((returns - returns.max()) / (self.temperature * unit))
            weights /= weights.sum()
            mean, chances = np.einsum("n,nka->ka", weights, sequences), self.frequencies(sequences, weights)
            spread = np.sqrt(np.einsum("n,nka->ka", weights, (sequences - mean) ** 2))
        # The average has not been tried yet; where it is worse than the best sample, that is the plan.
        last = self.within(np.stack([mean, best]))
        returns = self.score(last)
        return self.made(last[returns.argmax()], returns.max(), spread)
