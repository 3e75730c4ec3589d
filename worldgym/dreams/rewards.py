"""What a dream is rewarded by: the learned head of its instruction, a goal in words or as an image, or a function."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ..world import Outcome, WorldModel, WorldState

FrameReward = Callable[[np.ndarray], np.ndarray]
"""Imagined frames, uint8 [b, h, w, 3] -> rewards [b]; called once for every imagined frame."""
StepReward = Callable[[WorldState, Outcome], Tensor]
"""Rewards, float32 [b], of the step that led to this state."""


def make_reward(source: object, world: WorldModel) -> StepReward:
    """The function behind the `reward` argument of an environment; there is no default among them.

    Args:
        source: "learned", what the world was trained to expect for the instruction; a goal in words, one of the
            world's instructions; uint8 [h, w, 3], a goal image; or a function of frames, see `FrameReward`.
    """
    if isinstance(source, str) and source == "learned":
        return lambda state, outcome: outcome.reward
    if isinstance(source, str) and source in world.config.instructions:
        return _goal_in_words(source, world)
    if isinstance(source, np.ndarray):
        return _goal_image(source, world)
    if callable(source):
        return lambda state, outcome: of_frames(source, world.render(state))
    raise ValueError(
        f"reward is {source!r}; it must be 'learned', a goal in words (an instruction that this world judges: "
        f"{'; '.join(world.config.instructions[:3])}; ...), a goal image (uint8 [h, w, 3]) or a function of frames "
        "(uint8 [b, h, w, 3] -> [b])"
    )


def _goal_in_words(goal: str, world: WorldModel) -> StepReward:
    """The learned reward for this goal, whatever instruction decides on success and the end."""
    read = world.read_instructions([goal])

    def reward(state: WorldState, outcome: Outcome) -> Tensor:
        return world.score(state, read.expand(len(state), -1)).reward.mean(0)

    return reward


def _goal_image(goal: np.ndarray, world: WorldModel) -> StepReward:
    """Minus the distance to the goal, between fused maps and relative to the goal's own size; 0 is there.

    Nothing is decoded. Fused maps are relative to a context, so the goal is encoded again when the contexts change.
    """
    size = world.config.tokenizer.resolution
    if goal.shape != (size, size, 3) or goal.dtype != np.uint8:
        raise ValueError(f"the goal image is {goal.dtype} {goal.shape}; this world takes uint8 {(size, size, 3)}")
    image = torch.from_numpy(goal.copy()).to(world.device)
    context: Tensor | None = None
    wanted = torch.empty(0)

    def reward(state: WorldState, outcome: Outcome) -> Tensor:
        nonlocal context, wanted
        if state.context is not context:  # steps hand it on; anchoring and resets replace it
            context, wanted = state.context, world.see(image.expand(len(state), -1, -1, -1), state)
        distance = (state.fused - wanted).flatten(1).norm(dim=1)
        return -distance / wanted.flatten(1).norm(dim=1)

    return reward


def of_frames(function: FrameReward, frames: UInt8[Tensor, "b h w c"]) -> Float[Tensor, " b"]:
    """What a caller's function says of frames, checked, on their device."""
    rewards = np.asarray(function(frames.cpu().numpy()))
    if rewards.shape != (len(frames),) or rewards.dtype.kind not in "fiub" or not np.isfinite(rewards).all():
        raise ValueError(
            f"the reward function returned {rewards.dtype} {rewards.shape} for {len(frames)} frames; "
            f"it must return ({len(frames)},) finite numbers"
        )
    return torch.as_tensor(rewards, dtype=torch.float32, device=frames.device)
