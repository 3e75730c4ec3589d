"""Reward, success and the end of the episode, read off the fused map for a given instruction.

They judge what was *sampled*: the map of the very frame that would be rendered. Several members with different
beginnings vote; their spread is one measure of uncertainty.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .config import DynamicsConfig, TokenizerConfig


class Judgement(NamedTuple):
    reward: Tensor
    """[e, b], one row for each member."""
    success: Tensor
    """[e, b], logits."""
    terminated: Tensor
    """[e, b], logits."""


class OutcomeHeads(nn.Module):
    """An ensemble of small networks on the fused map, modulated by the instruction."""

    def __init__(self, tokenizer: TokenizerConfig, config: DynamicsConfig):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(tokenizer.width, 64, 3, padding=1), nn.SiLU(), nn.Conv2d(64, 64, 1))
        self.film = nn.Linear(config.width, 128)
        self.squeeze = nn.Conv2d(64, 24, 1)
        flat = 24 * tokenizer.grid**2
        self.members = nn.ModuleList(Member(flat, config.width) for _ in range(config.outcome_heads))

    def features(self, fused: Float[Tensor, "b f g g"]) -> Float[Tensor, "b 64 g g"]:
        """What does not depend on the instruction."""
        return self.stem(fused)

    def forward(self, features: Float[Tensor, "b 64 g g"], instruction: Float[Tensor, "b d"]) -> Judgement:
        scale, shift = self.film(instruction)[..., None, None].chunk(2, 1)
        x = self.squeeze(F.silu(features * (1 + scale) + shift))
        x = F.silu(x).flatten(1)
        votes = torch.stack([member(x, instruction) for member in self.members])
        return Judgement(*votes.unbind(-1))


class Member(nn.Module):
    """One voter."""

    def __init__(self, flat: int, width: int):
        super().__init__()
        self.inner = nn.Linear(flat, 192)
        self.film = nn.Linear(width, 2 * 192)
        self.outer = nn.Sequential(nn.SiLU(), nn.Linear(192, 96), nn.SiLU(), nn.Linear(96, 3))

    def forward(self, x: Tensor, instruction: Tensor) -> Tensor:
        scale, shift = self.film(instruction).chunk(2, -1)
        return self.outer(self.inner(x) * (1 + scale) + shift)
