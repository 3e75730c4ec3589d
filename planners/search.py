"""What all planners share: bounds, choices, held actions, a budget, and returns.

What diverged never wins.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from worldgym.actions import Choice, nearest

Chances = list[np.ndarray]
"""For each choice of an action, how likely its categories are at each knot, [knots, categories]."""
PROPOSED = 4
"""Sequences that a guide proposes for each plan."""
WARM = 0.5
"""How likely a warm start's own categories are, over an even chance of all."""
FLOOR = 0.1
"""Share of an even chance in what is fitted, so that no category is ever given up."""
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


class Search:
    """A planner's fixed parts; a subclass says how to search, in `plan`.

    Planners work on knots: an action that is held for `action_repeat` steps.

    Args:
        evaluate: returns [n] of action sequences [n, horizon, a]; non-finite ones never win.
        low, high: [a], bounds of an action.
        horizon: steps looked ahead.
        samples: sequences tried in each iteration.
        iterations: rounds of sampling.
        action_repeat: each sampled action is held for this many steps.
        seconds: begin no further round once a decision has taken this long; the first is always made.
        seed: of the sampling.
        choices: the categorical factors of an action, as `ActionCodec` has them; all else is continuous.
    """

    def __init__(
        self,
        evaluate: Evaluate,
        low: np.ndarray,
        high: np.ndarray,
        horizon: int = 10,
        samples: int = 64,
        iterations: int = 4,
        action_repeat: int = 2,
        seconds: float = float("inf"),
        seed: int = 0,
        choices: tuple[Choice, ...] = (),
    ):
        if samples < 1 or iterations < 1:
            raise ValueError(f"samples is {samples} and iterations {iterations}; both must be at least 1")
        if horizon < 1 or horizon % action_repeat:
            raise ValueError(f"horizon {horizon} must be a multiple of action_repeat {action_repeat}")
        self.evaluate = evaluate
        self.low, self.high = np.asarray(low, np.float32), np.asarray(high, np.float32)
        self.horizon, self.samples, self.iterations = horizon, samples, iterations
        self.action_repeat, self.seconds, self.choices = action_repeat, seconds, choices
        self.random = np.random.default_rng(seed)

    def plan(self, warm_start: np.ndarray | None = None) -> Plan:
        """The best sequence found.

        Args:
            warm_start: [horizon, a] to begin around, such as the last plan `shifted`.
        """
        raise NotImplementedError

    # -- for subclasses -------------------------------------------------------------------------------------------

    @property
    def knots(self) -> int:
        return self.horizon // self.action_repeat

    def centre(self, warm_start: np.ndarray | None) -> np.ndarray:
        """Where a search begins, [knots, a]: the warm start, or the middle of the bounds."""
        if warm_start is None:
            return np.broadcast_to((self.low + self.high) / 2, (self.knots, len(self.low))).astype(np.float32)
        return warm_start.reshape(self.knots, self.action_repeat, -1).mean(1).clip(self.low, self.high)

    def rounds(self) -> Iterator[int]:
        """The rounds of a decision, as far as its time goes."""
        began = time.monotonic()
        for number in range(self.iterations):
            if number and time.monotonic() - began >= self.seconds:
                return
            yield number

    def proposals(self) -> np.ndarray:
        """What `evaluate` itself proposes, [n, knots, a], if it can: some are tried in the first round."""
        propose = getattr(self.evaluate, "propose", None)
        if propose is None:
            return np.zeros((0, self.knots, len(self.low)), np.float32)
        sequences = propose(min(PROPOSED, self.samples - 1), self.horizon)
        return sequences.reshape(len(sequences), self.knots, self.action_repeat, -1).mean(2)

    def within(self, sequences: np.ndarray) -> np.ndarray:
        """Sequences [n, knots, a] with the nearest categories and clipped into the bounds, float32."""
        return nearest(sequences, self.choices).clip(self.low, self.high).astype(np.float32)

    def chances(self, warm_start: np.ndarray | None) -> Chances:
        """Where a search among categories begins: even, or with those of the warm start the likeliest."""
        even = [np.full((self.knots, len(choice.codes)), 1 / len(choice.codes)) for choice in self.choices]
        if warm_start is None:
            return even
        fitted = self.frequencies(self.within(self.centre(warm_start)[None]), floor=0.0)
        return [WARM * likely + (1 - WARM) * flat for likely, flat in zip(fitted, even, strict=True)]

    def draw(self, sequences: np.ndarray, chances: Chances) -> np.ndarray:
        """Sequences [n, knots, a] whose categories are drawn anew; the same array where there are none."""
        for choice, likely in zip(self.choices, chances, strict=True):
            edges = likely.cumsum(-1)[None, :, :-1]
            drawn = (self.random.random((*sequences.shape[:2], 1)) >= edges).sum(-1)
            sequences[..., choice.place] = choice.codes[drawn]
        return sequences

    def frequencies(self, sequences: np.ndarray, weights: np.ndarray | None = None, floor: float = FLOOR) -> Chances:
        """How often each category is in sequences [n, knots, a], with `weights` [n] that add up to 1."""
        weights = np.full(len(sequences), 1 / len(sequences)) if weights is None else weights
        found = []
        for choice in self.choices:
            count = len(choice.codes)
            chosen = np.eye(count)[choice.read(sequences)]
            found.append((1 - floor) * np.einsum("n,nkc->kc", weights, chosen) + floor / count)
        return found

    def score(self, sequences: np.ndarray) -> np.ndarray:
        """Returns [n] of knots [n, knots, a]; what is not finite is -inf.

        Raises:
            FloatingPointError: no return is finite.
        """
        returns = np.asarray(self.evaluate(sequences.repeat(self.action_repeat, axis=1)), np.float64)
        if returns.shape != (len(sequences),):
            raise ValueError(f"evaluate returned shape {returns.shape} for {len(sequences)} sequences")
        if not np.isfinite(returns).any():
            raise FloatingPointError("every action sequence has a non-finite return; the world has diverged")
        return np.where(np.isfinite(returns), returns, -np.inf)

    def made(self, knots: np.ndarray, expected_return: float, spread: np.ndarray) -> Plan:
        held = [part.repeat(self.action_repeat, axis=0).astype(np.float32) for part in (knots, spread)]
        return Plan(held[0], float(expected_return), held[1])


def best_first(returns: np.ndarray, count: int) -> np.ndarray:
    """Rows of the `count` best finite returns, the best first."""
    order = np.argsort(-returns, kind="stable")[:count]
    return order[np.isfinite(returns[order])]
