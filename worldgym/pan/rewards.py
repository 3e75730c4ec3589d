"""What PAN is rewarded by: a goal in words, which the language model judges, a goal image, or a function of frames."""

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ..dreams.rewards import FrameReward, of_frames
from .world import PanReward, PanWorld

QUESTION = "Does the picture show this: {}? Answer yes or no."


def make_reward(source: str | np.ndarray | FrameReward, world: PanWorld) -> PanReward:
    """What the newest frame of each simulation is worth.

    Args:
        source: a goal in words: the probability, in [0, 1], that the language model says it is there. Or uint8
            [h, w, 3], a goal image: minus the distance between latents of the autoencoder, relative to the goal's own
            size; 0 is there. Or a function of frames, uint8 [b, h, w, 3] -> [b].
    """
    match source:
        case str():
            if not source.strip():
                raise ValueError("the goal is empty; say what the picture should show")
            return lambda state: world.backbone.agrees(world.render(state), QUESTION.format(source))
        case np.ndarray():
            return _goal_image(source, world)
    if callable(source):
        return lambda state: of_frames(source, world.render(state))
    raise TypeError(
        f"reward is {type(source).__name__} {source!r:.80}; it must be a goal in words, a goal image (uint8 [h, w, 3]) "
        "or a function of frames (uint8 [b, h, w, 3] -> [b])"
    )


def _goal_image(goal: np.ndarray, world: PanWorld) -> PanReward:
    size = (world.config.height, world.config.width, 3)
    if goal.shape != size or goal.dtype != np.uint8:
        raise ValueError(f"the goal image is {goal.dtype} {goal.shape}; this PAN takes uint8 {size}")

    def latents(frames: UInt8[Tensor, "b h w c"]) -> Float[Tensor, "b n"]:
        return world.wan.encode(frames[:, None]).flatten(1)

    wanted = latents(torch.from_numpy(goal.copy()).to(world.device)[None])
    return lambda state: -(latents(world.render(state)) - wanted).norm(dim=1) / wanted.norm()
