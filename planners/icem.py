"""iCEM: the cross-entropy method for short budgets (Pinneri et al., CoRL 2020, arXiv 2008.06389)."""

import numpy as np

from worldgym.actions import Choice

from .search import Evaluate, Plan, Search, best_first

MOMENTUM = 0.1
"""How much of the old mean and spread a round keeps."""
DECAY = 1.25
"""A round has this many times fewer samples than the one before: the search has narrowed."""
KEPT = 0.3
"""Share of the elites that are tried again in the next round."""


class ICEM(Search):
    """CEM with noise that is correlated in time, elites that live on, and fewer samples as it narrows.

    Args:
        samples: of the first round; all rounds together try no more than `samples * iterations` sequences.
        elites: how many of the best are fitted.
        colour: exponent of the noise's spectrum, 1/f^colour: 0 is white; the larger, the longer a push goes one way.
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
        colour: float = 2.0,
        action_repeat: int = 2,
        seconds: float = float("inf"),
        seed: int = 0,
        choices: tuple[Choice, ...] = (),
    ):
        super().__init__(evaluate, low, high, horizon, samples, iterations, action_repeat, seconds, seed, choices)
        if not 0 < elites <= samples:
            raise ValueError(f"elites is {elites}; it must be between 1 and samples, {samples}")
        self.elites, self.colour = elites, colour

    def plan(self, warm_start: np.ndarray | None = None) -> Plan:
        mean = self.centre(warm_start)
        spread = np.broadcast_to((self.high - self.low) / 2, mean.shape)
        chances = self.chances(warm_start)
        best, best_return, elite = mean, -np.inf, mean[None]
        for number in self.rounds():
            count = max(int(self.samples / DECAY**number), self.elites)
            kept = elite[: max(1, round(KEPT * len(elite)))]
            noise = coloured_noise(self.random, (max(count - len(kept), 0), *mean.shape), self.colour)
            # In every round the mean itself is tried as well: it is often better than all samples.
            drawn = self.draw(mean + spread * noise, chances)
            sequences = self.within(np.concatenate([kept, mean[None], drawn]))[:count]
            returns = self.score(sequences)
            order = best_first(returns, self.elites)
            elite = sequences[order]
            mean = MOMENTUM * mean + (1 - MOMENTUM) * elite.mean(0)
            spread = MOMENTUM * spread + (1 - MOMENTUM) * elite.std(0)
            fitted = zip(chances, self.frequencies(elite), strict=True)
            chances = [MOMENTUM * old + (1 - MOMENTUM) * new for old, new in fitted]
            if returns[order[0]] > best_return:
                best, best_return = elite[0], returns[order[0]]
        return self.made(best, best_return, spread)


def coloured_noise(random: np.random.Generator, shape: tuple[int, int, int], exponent: float) -> np.ndarray:
    """Gaussian noise [n, time, a] of unit variance whose power falls with frequency as 1/f^exponent."""
    count, length, size = shape
    if length == 1 or exponent == 0:
        return random.standard_normal(shape)
    frequency = np.fft.rfftfreq(length)
    frequency[0] = frequency[1]  # the slowest wave that fits stands in for the constant
    scale = frequency ** (-exponent / 2)
    waves = random.standard_normal((2, count, size, len(scale))) * scale
    waves[1, ..., 0] = 0
    if length % 2 == 0:
        waves[1, ..., -1] = 0
    # A bin other than the first and (for even lengths) the last stands for two conjugate waves.
    power = np.full(len(scale), 4.0)
    power[0] = 1.0
    if length % 2 == 0:
        power[-1] = 1.0
    noise = np.fft.irfft(waves[0] + 1j * waves[1], n=length) * length / np.sqrt((power * scale**2).sum())
    return noise.transpose(0, 2, 1)
