"""Planning for a picture: action sequences are tried in the recurrent state and judged by how far they stay from it.

returns = GoalReturns(world, picture)
search = CEM(returns, low, high, horizon=12, samples=64, iterations=3)
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from worldgym.checkpoint import goal_weights, load_weights
from worldgym.errors import UserError
from worldgym.model.goal_heads import GoalHeads
from worldgym.world import WorldModel

EVERY = 3
"""Steps between two that are compared as pictures, each of which takes as long as many steps."""


class GoalReturns:
    """Minus the squared distance to a goal picture, summed over the steps of each action sequence.

    States and goal are compared by the principal components that heads read off them, which training leaves beside the
    world (`GoalHeads`); in a world without, by the pictures that a state draws, and one draws that observed the goal.

    Args:
        world: one with a recurrent state.
        picture: uint8 [h, w, 3], of the world's resolution.

    Raises:
        UserError: the world has no recurrent state, or shows pictures of another size.
    """

    def __init__(self, world: WorldModel, picture: np.ndarray):
        size = world.config.tokenizer.resolution
        if world.recurrent is None or world.config.recurrent is None:
            raise UserError(
                f"{world.config.name!r} has no recurrent state, in which goals are planned for; `worldgym train state` "
                "makes one"
            )
        if picture.shape != (size, size, 3) or picture.dtype != np.uint8:
            raise UserError(f"the goal is {picture.dtype} {picture.shape}; this world shows uint8 {(size, size, 3)}")
        self.world, self.recurrent, self.heads = world, world.recurrent, None
        if world.folder is not None and (weights := goal_weights(world.folder)):
            heads = GoalHeads(world.config.recurrent, len(weights["seen.2.bias"]))
            load_weights(heads, weights, world.folder)
            self.heads = heads.to(world.device).requires_grad_(False)
        frame = torch.from_numpy(picture.copy())[None].to(world.device)
        with torch.no_grad():
            if self.heads is not None:
                self.goal = self.heads.of_frames(self.recurrent.embed(frame))
            else:
                self.goal = self.look(world.observe(frame[None])[:, None])[:, 0]
        self._state: Float[Tensor, "1 s"] | None = None

    def ground(self, frames: np.ndarray, actions: np.ndarray | None = None) -> None:
        self._state = self.world.observe(frames[None], None if actions is None else actions[None])

    @torch.no_grad()
    def __call__(self, sequences: np.ndarray) -> np.ndarray:
        if self._state is None:
            raise RuntimeError("ground() the planner on an observation first")
        tried = torch.from_numpy(sequences).to(self._state)
        states = self.recurrent.imagine(self._state.expand(len(tried), -1), tried)
        if self.heads is None:
            states = states[:, (states.shape[1] - 1) % EVERY :: EVERY]
        return -(self.look(states) - self.goal).square().sum((1, 2)).cpu().numpy()

    def look(self, states: Float[Tensor, "b t s"]) -> Float[Tensor, "b t p"]:
        """What states are compared by."""
        if self.heads is not None:
            return self.heads.components(states)
        return self.recurrent.picture(states.flatten(0, 1)).flatten(1).unflatten(0, states.shape[:2])
