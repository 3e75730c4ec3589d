"""Planning for a picture: action sequences are tried in the recurrent state and judged by how far they stay from it.

returns = GoalReturns(world, picture)
search = CEM(returns, low, high, horizon=12, samples=64, iterations=3)
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from worldgym.errors import UserError
from worldgym.model.goal_heads import GoalHeads
from worldgym.world import WorldModel


class GoalReturns:
    """Minus the distance to a goal picture, summed over the steps of each action sequence.

    Args:
        world: one with a recurrent state.
        picture: uint8 [h, w, 3], of the world's resolution.
        heads: that learned to tell how far a state is from a picture; by default, the pictures that the state draws are
            compared with the goal as the state would draw it, pixel by pixel.

    Raises:
        UserError: the world has no recurrent state, or shows pictures of another size.
    """

    def __init__(self, world: WorldModel, picture: np.ndarray, heads: GoalHeads | None = None):
        size = world.config.tokenizer.resolution
        if world.recurrent is None:
            raise UserError(
                f"{world.config.name!r} has no recurrent state, in which goals are planned for; `worldgym train state` "
                "makes one"
            )
        if picture.shape != (size, size, 3) or picture.dtype != np.uint8:
            raise UserError(f"the goal is {picture.dtype} {picture.shape}; this world shows uint8 {(size, size, 3)}")
        self.world, self.recurrent, self.heads = world, world.recurrent, heads
        frame = torch.from_numpy(picture.copy())[None].to(world.device)
        self.goal = self.recurrent.embed(frame) if heads else self._drawn(world.observe(frame[None])[:, None])
        self._state: Float[Tensor, "1 s"] | None = None

    def ground(self, frames: np.ndarray, actions: np.ndarray | None = None) -> None:
        self._state = self.world.observe(frames[None], None if actions is None else actions[None])

    @torch.no_grad()
    def __call__(self, sequences: np.ndarray) -> np.ndarray:
        if self._state is None:
            raise RuntimeError("ground() the planner on an observation first")
        tried = torch.from_numpy(sequences).to(self._state)
        states = self.recurrent.imagine(self._state.expand(len(tried), -1), tried)
        return -self.distance(states).sum(1).cpu().numpy()

    def distance(self, states: Float[Tensor, "b t s"]) -> Float[Tensor, "b t"]:
        """From states to the goal."""
        if self.heads is not None:
            return self.heads.distance(states, self.goal)
        return (self._drawn(states) - self.goal).square().mean(-1)

    def _drawn(self, states: Float[Tensor, "b t s"]) -> Float[Tensor, "b t p"]:
        return self.recurrent.picture(states.flatten(0, 1)).flatten(1).unflatten(0, states.shape[:2])
