"""What a planner looks ahead by: a small network that goes from fused map to fused map, and draws no token.

A dream is drawn token by token, so that it stays a picture of its world for hundreds of steps. Who compares a thousand
futures of a dozen steps each needs their order and not their pictures. So a world may have a *draft* beside its
dynamics (as a draft model runs ahead of a language model): the next map as a change of the last, for the same heads to
judge. It is trained on what it is used for, its own maps of several steps, with the heads' rewards in the loss.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..config import DraftConfig, TokenizerConfig
from .scale_head import zero_init


class Draft(nn.Module):
    """The next fused map, given the newest one and a vector action; its only memory is the motion that it is given."""

    def __init__(self, tokenizer: TokenizerConfig, config: DraftConfig, action_size: int, motion: bool):
        super().__init__()
        width = config.width
        self.told = nn.Sequential(nn.Linear(action_size, 64), nn.SiLU(), nn.Linear(64, 2 * width * config.blocks))
        self.enter = nn.Conv2d((2 if motion else 1) * tokenizer.width, width, 3, padding=1)
        self.position = nn.Parameter(torch.zeros(width, tokenizer.grid, tokenizer.grid))
        self.blocks = nn.ModuleList(DraftBlock(width) for _ in range(config.blocks))
        self.leave = zero_init(nn.Conv2d(width, tokenizer.width, 3, padding=1))

    def forward(
        self, fused: Float[Tensor, "b f g g"], action: Float[Tensor, "b a"], motion: Float[Tensor, "b f g g"] | None
    ) -> Float[Tensor, "b f g g"]:
        """Args:
        action: vectors, as the environment takes them.
        motion: how the map differs from the one before, in a world with `memory`.
        """
        x = self.enter(fused if motion is None else torch.cat([fused, motion], 1)) + self.position
        told = self.told(action)[..., None, None].chunk(2 * len(self.blocks), 1)
        for block, scale, shift in zip(self.blocks, told[::2], told[1::2], strict=True):
            x = block(x, scale, shift)
        return fused + self.leave(F.silu(x))


class DraftBlock(nn.Module):
    """Two 3x3 convolutions round a skip; the action scales and shifts what is between them (FiLM)."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.one, self.other = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return x + self.other(F.silu(self.one(F.silu(self.norm(x))) * (1 + scale) + shift))
