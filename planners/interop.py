"""Our worlds under the solvers of stable-worldmodel (galilai-group/stable-worldmodel, `pip install stable-worldmodel`).

    solver = CEMSolver(model=DreamCost(world, "reach the centre"), num_samples=64)
    policy = WorldModelPolicy(solver=solver, config=PlanConfig(horizon=4, receding_horizon=2, action_block=3))

Nothing of it is imported here: its `Costable` protocol is `get_cost(info, candidates)` and `criterion` of the same
arguments, and its solvers ask the model for its parameters, to learn their dtype.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from worldgym.errors import UserError
from worldgym.world import WorldModel

from .gradient import differentiable_returns


class DreamCost(nn.Module):
    """A world that says what action sequences cost: minus their return in the dream."""

    def __init__(self, world: WorldModel, instruction: str, low: float = -1.0, high: float = 1.0):
        super().__init__()
        [instruction] = world.known_instructions([instruction])
        if world.config.codec.choices:
            raise UserError(
                f"{world.config.name!r} takes {world.config.codec.space}, and these solvers search among continuous "
                "actions; worldgym.planners.CEM searches among categories"
            )
        self.world, self.instruction, self.low, self.high = world, instruction, low, high

    def get_cost(self, info_dict: dict[str, Tensor], action_candidates: Tensor) -> Float[Tensor, "b s"]:
        """Costs of s candidates for each of b environments; differentiable where the candidates are.

        Args:
            info_dict: of it, "pixels", uint8 [b, s, t, h, w, 3], the same for all s; the newest frame counts.
            action_candidates: [b, s, horizon, block * a]: blocks of actions in a row, as the solvers' `action_block`
                makes them. They are clipped into the bounds of an action.
        """
        if "pixels" not in info_dict:
            raise ValueError(f"info has {', '.join(sorted(info_dict)) or 'nothing'}; a dream begins from its 'pixels'")
        pixels, size = torch.as_tensor(info_dict["pixels"]), self.world.config.action_size
        if pixels.ndim != 6 or pixels.dtype != torch.uint8:
            raise ValueError(
                f"pixels are {pixels.dtype} {tuple(pixels.shape)}; expected uint8 (batch, samples, time, height, "
                "width, 3): leave them as the environment made them, without a transform"
            )
        if action_candidates.ndim != 4 or action_candidates.shape[3] % size:
            raise ValueError(
                f"candidates have shape {tuple(action_candidates.shape)}; expected (batch, samples, horizon, "
                f"a multiple of {size})"
            )
        batch, samples = action_candidates.shape[:2]
        actions = action_candidates.to(self.world.device).reshape(batch, samples, -1, size).clamp(self.low, self.high)
        state = self.world.start(pixels[:, 0, -1:], instruction=self.instruction)
        if not actions.requires_grad:
            return -self.world.evaluate(state, actions).to(action_candidates)
        returns = differentiable_returns(self.world, state.fork(samples), actions.flatten(0, 1))
        return -returns.view(batch, samples).to(action_candidates)

    criterion = get_cost
