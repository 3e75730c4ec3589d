"""Planning by gradient: climb the dream's return through the dream itself.

Tokens are drawn, and nothing flows through a draw. The gradient goes past it, straight through the scale head's first
guess of the next latent, of which the drawn tokens are the rounding (Bengio et al., 2013, arXiv 1308.3432).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from worldgym.model.outcome_heads import returns_until_end
from worldgym.world import WorldModel, WorldState

from .mpc import DreamReturns
from .search import Plan, Search, best_first

Slope = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Returns [n] of action sequences [n, horizon, a], and their gradients [n, horizon, a]."""
MOMENTUM = 0.7
"""How much of the direction of the rounds before a round keeps."""


class DreamSlope(DreamReturns):
    """`DreamReturns` that also says which way is up."""

    def slope(self, sequences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns [n] as `__call__` has them, and their gradients [n, horizon, a]."""
        with torch.enable_grad():
            actions = torch.from_numpy(sequences).to(self.world.device, torch.float32).requires_grad_()
            if isinstance(self.state, WorldState):
                returns = differentiable_returns(self.world, self.state.fork(len(sequences)), actions)
            else:
                returns = self._through_the_state(self.state, actions)
            (gradient,) = torch.autograd.grad(returns.sum(), actions)
        return returns.detach().cpu().numpy(), gradient.cpu().numpy()

    def _through_the_state(self, state: Float[Tensor, "1 s"], actions: Float[Tensor, "n h a"]) -> Float[Tensor, " n"]:
        """The same in the recurrent state, where nothing is drawn."""
        assert self.world.recurrent is not None
        count = len(actions)
        return self.world.recurrent.returns(
            state.expand(count, -1), actions, self.read.expand(count, -1), expected=True
        )


def differentiable_returns(
    world: WorldModel, dreams: WorldState, actions: Float[Tensor, "n h a"]
) -> Float[Tensor, " n"]:
    """What `WorldModel.evaluate` says of one sequence for each dream, with a gradient. Spends the state.

    Raises:
        ValueError: the horizon is longer than what is left of the world's window: continuing from a new context is not
            differentiated.
    """
    if world.recurrent is not None and world.foretells(dreams):
        return world.recurrent.returns(dreams.recurrent, actions, dreams.instruction)
    dynamics = world.dynamics
    room = world.config.dynamics.window - int(dreams.steps.max())
    if actions.shape[1] > room:
        raise ValueError(f"the horizon is {actions.shape[1]}; gradients reach {room} steps in this world")
    latent, fused = dreams.latent, dreams.fused
    motion = world.motion(dreams)
    outcomes = []
    with torch.autocast(world.device.type, world.dtype, enabled=world.dtype != torch.float32):
        for when, action in enumerate(dynamics.from_vector(actions).float().unbind(1)):
            hidden = dynamics.hidden_state(dreams.cache, dreams.steps + when, fused, action, motion)
            latent, fused, motion, _ = dynamics.next_frame(
                world.tokenizer, hidden, fused, latent, dreams.context, action, motion,
                measure=False, straight_through=True,
            )  # fmt: skip
            fused = fused.float()
            outcomes.append(dynamics.outcome_heads.score(fused, motion, dreams.instruction))
    return returns_until_end(outcomes)


class Gradient(Search):
    """Try random sequences, then climb from the best of them.

    Steps have the same length whatever the gradient's: through a dozen dreamed frames gradients differ by orders of
    magnitude, while their directions can be used.

    Args:
        evaluate: returns, such as a `DreamSlope`.
        slope: returns and gradients; `evaluate.slope` by default.
        samples: sequences tried before climbing.
        climbers: the best of them, which climb; 8 by default, or all if they are fewer.
        iterations: steps climbed.
        step: length of the first step in each action, in units of half the bounds; later ones are shorter.
    """

    def __init__(
        self,
        evaluate: Any,
        low: np.ndarray,
        high: np.ndarray,
        horizon: int = 10,
        samples: int = 64,
        iterations: int = 4,
        climbers: int | None = None,
        step: float = 0.4,
        action_repeat: int = 2,
        seconds: float = float("inf"),
        seed: int = 0,
        slope: Slope | None = None,
    ):
        super().__init__(evaluate, low, high, horizon, samples, iterations, action_repeat, seconds, seed)
        climbers = min(8, samples) if climbers is None else climbers
        if not 0 < climbers <= samples:
            raise ValueError(f"climbers is {climbers}; it must be between 1 and samples, {samples}")
        self.slope: Slope = evaluate.slope if slope is None else slope
        self.climbers, self.step = climbers, step

    def plan(self, warm_start: np.ndarray | None = None) -> Plan:
        centre, half = self.centre(warm_start), (self.high - self.low) / 2
        drawn = self.random.uniform(self.low, self.high, (self.samples, self.knots, len(self.low)))
        drawn[0] = centre
        here = self.within(drawn)
        returns = self.score(here)
        here = here[best_first(returns, self.climbers)]
        best, best_return = here[0], returns.max()
        direction = np.zeros_like(here)
        for number in self.rounds():
            returns, gradient = self.slope(here.repeat(self.action_repeat, axis=1))
            finite = np.isfinite(returns) & np.isfinite(gradient).all((1, 2))
            returns = np.where(finite, returns, -np.inf)
            if returns.max() > best_return:
                best, best_return = here[returns.argmax()], returns.max()
            up = np.where(finite[:, None, None], gradient, 0.0) * half
            up = up.reshape(len(here), self.knots, self.action_repeat, -1).sum(2)
            size = np.sqrt(np.square(up).mean((1, 2), keepdims=True))
            direction = MOMENTUM * direction + (1 - MOMENTUM) * up / np.maximum(size, 1e-12)
            here = self.within(here + self.step * (1 - number / self.iterations) * half * direction)
        last = np.concatenate([best[None], here])  # where the last step led may have diverged altogether
        returns = self.score(last)
        return self.made(last[returns.argmax()], returns.max(), here.std(0))
