"""The cross-entropy method over action sequences."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Evaluate = Callable[[np.ndarray], np.ndarray]
"""Returns [n] of action sequences [n, horizon, a]."""


@dataclass(frozen=True)
class Plan:
    """What a planner thinks best, and how sure it is: the warm start of the next decision."""

    actions: np.ndarray
    """float32 [horizon, a]."""
    expected_return: float
    spread: np.ndarray
    """float32 [horizon, a], standard deviation of the last elites."""

    def shifted(self, steps: int) -> np.ndarray:
        """The plan after its first `steps` actions were taken; the last action is repeated."""
        return np.concatenate([self.actions[steps:], np.repeat(self.actions[-1:], min(steps, len(self.actions)), 0)])


class CEM:
    """Sample, keep the best, fit a Gaussian to them, repeat.

    Args:
        evaluate: returns [n] of action sequences [n, horizon, a]; non-finite ones are never elite.
        low, high: [a], bounds of an action.
        horizon: steps looked ahead.
        samples: sequences tried in each iteration.
        iterations: rounds of sampling.
        elites: how many of the best are fitted.
        action_repeat: each sampled action is held for this many steps.
        seed: of the sampling.
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
        seed: int = 0,
    ):
        if not 0 < elites <= samples:
            raise ValueError(f"elites is {elites}; it must be between 1 and samples, {samples}")
        if horizon % action_repeat:
            raise ValueError(f"horizon {horizon} must be a multiple of action_repeat {action_repeat}")
        self.evaluate = evaluate
        self.low, self.high = np.asarray(low, np.float32), np.asarray(high, np.float32)
        self.horizon, self.samples, self.iterations = horizon, samples, iterations
        self.elites, self.action_repeat = elites, action_repeat
        self.random = np.random.default_rng(seed)

    def plan(self, warm_start: np.ndarray | None = None) -> Plan:
        """The best sequence found.

        Args:
            warm_start: [horizon, a] to begin around, such as the last plan `shifted`.
        """
        knots = self.horizon // self.action_repeat
        mean = np.broadcast_to((self.low + self.high) / 2, (knots, len(self.low)))
        if warm_start is not None:
            mean = warm_start.reshape(knots, self.action_repeat, -1).mean(1).clip(self.low, self.high)
        spread = np.broadcast_to((self.high - self.low) / 2, mean.shape)
        kept = mean[None].clip(self.low, self.high)  # the centre is tried too, and elites live on
        best, best_return = kept[0], -np.inf
        for _ in range(self.iterations):
            noise = self.random.standard_normal((self.samples - len(kept), *mean.shape))
            sequences = np.concatenate([kept, (mean + spread * noise).clip(self.low, self.high)]).astype(np.float32)
            returns = np.asarray(self.evaluate(sequences.repeat(self.action_repeat, axis=1)), np.float64)
            if returns.shape != (len(sequences),):
                raise ValueError(f"evaluate returned shape {returns.shape} for {len(sequences)} sequences")
            returns = np.where(np.isfinite(returns), returns, -np.inf)
            if not np.isfinite(returns).any():
                raise FloatingPointError("every action sequence has a non-finite return; the world has diverged")
            order = np.argsort(-returns, kind="stable")[: self.elites]
            order = order[np.isfinite(returns[order])]
            elite = sequences[order]
            mean, spread = elite.mean(0), elite.std(0) + 0.02 * (self.high - self.low)
            kept = elite[: max(1, self.elites // 4)]
            if returns[order[0]] > best_return:
                best, best_return = elite[0], float(returns[order[0]])
        repeat = self.action_repeat
        return Plan(
            best.repeat(repeat, axis=0).astype(np.float32),
            best_return,
            spread.repeat(repeat, axis=0).astype(np.float32),
        )
