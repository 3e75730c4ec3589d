"""An episode, dreamed or real, shown again by a diffusion decoder.

pictures = rerender(world, load_decoder("tabletop", "diffusion", world), frames, seed=0)
"""

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ..world import WorldModel
from .diffusion import DiffusionDecoder


@torch.no_grad()
def rerender(
    world: WorldModel, decoder: DiffusionDecoder, frames: UInt8[np.ndarray, "t h w c"], seed: int
) -> UInt8[np.ndarray, "t h w c"]:
    """An episode redrawn by a diffusion decoder, which starts from the first frame and leaves it as it is."""
    if len(frames) == 1:
        return frames
    seeds = torch.tensor([seed], device=world.device)
    first = torch.from_numpy(frames[:1]).to(world.device)
    drawn = decoder.rerender(world.tokenizer, first, read_maps(world, frames)[None], seeds)[0]
    return np.concatenate([frames[:1], drawn.cpu().numpy()])


@torch.no_grad()
def read_maps(world: WorldModel, frames: UInt8[np.ndarray, "t1 h w c"]) -> Float[Tensor, "t f g g"]:
    """Fused maps of all frames but the first, as the world dreams them: relative to the first of their window, by the
    same tokens and residual."""
    window, maps = world.config.dynamics.window, []
    for begin in range(0, len(frames) - 1, window):
        new = torch.from_numpy(frames[begin + 1 : begin + 1 + window]).to(world.device)
        maps.append(world.see(new, world.start(frames[None, begin : begin + 1]).fork(len(new))))
    return torch.cat(maps)
