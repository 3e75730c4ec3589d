"""Reward, success and the end of the episode, read off the fused map for a given instruction; in a world with
`memory` also off how it differs from the one before, since many a reward is a speed.

They judge what was *sampled*: the map of the very frame that would be rendered. Several members with different
beginnings vote.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..config import DynamicsConfig, TokenizerConfig
from .scale_head import zero_init


class OutcomeVotes(NamedTuple):
    reward: Tensor
    """[e, b], one row for each member."""
    success: Tensor
    """[e, b], logits."""
    terminated: Tensor
    """[e, b], logits."""


DOUBT = 3.0
"""Logits of an end within this of 0 leave it open: it is likely by 5 to 95%."""
AFTER = 8
"""Steps after a future's last one that are taken to earn what its steps earn on average, if that is positive."""


def returns_until_end(outcomes: Iterable[OutcomeVotes]) -> Float[Tensor, " b"]:
    """Sum of the rewards of each future until the heads say that its episode has ended.

    Where they leave it open, the worse of both counts: planners pick what looks best, and find every success that is
    none and every fall that goes unnoticed.
    """
    steps = _said(outcomes)
    later = torch.zeros_like(steps[0][0])
    for reward, ends in reversed(steps):
        open_still = torch.where(ends > -DOUBT, later.clamp(max=0), later)
        later = reward + torch.where(ends > DOUBT, 0.0, open_still)
    return later


def expected_returns(outcomes: Iterable[OutcomeVotes]) -> Float[Tensor, " b"]:
    """What each future is worth to a planner.

    What is still to be earned counts by the chance that the episode goes on, and so does what comes after the future:
    that tells one that ends upright from one that is about to fall. What is still to be lost counts until an end is
    sure, as in `returns_until_end`.
    """
    steps = _said(outcomes)
    later = AFTER * torch.stack([reward for reward, _ in steps]).mean(0).clamp(min=0)
    for reward, ends in reversed(steps):
        later = reward + torch.where(later > 0, (-ends).sigmoid(), ends <= DOUBT) * later
    return later


def _said(outcomes: Iterable[OutcomeVotes]) -> list[tuple[Float[Tensor, " b"], Float[Tensor, " b"]]]:
    """Reward and logit of an end that the members say on average, step by step."""
    return [(votes.reward.mean(0).float(), votes.terminated.mean(0).float()) for votes in outcomes]


class OutcomeHeads(nn.Module):
    """An ensemble of small networks on the fused map, modulated by the instruction."""

    def __init__(self, tokenizer: TokenizerConfig, config: DynamicsConfig):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(tokenizer.width, 64, 3, padding=1), nn.SiLU(), nn.Conv2d(64, 64, 1))
        if config.memory > 1:  # without a bias: what does not move is what nothing is known to move
            self.from_motion = zero_init(nn.Conv2d(tokenizer.width, 64, 1, bias=False))
        self.question = nn.Sequential(nn.Linear(config.width, 64), nn.SiLU())
        self.film = nn.Linear(64, 128)
        self.squeeze = nn.Conv2d(64, 8, 1)
        flat = 8 * tokenizer.grid**2
        self.members = nn.ModuleList(Member(flat, 64) for _ in range(config.outcome_heads))

    def features(
        self, fused: Float[Tensor, "b f g g"], motion: Float[Tensor, "b f g g"] | None
    ) -> Float[Tensor, "b 64 g g"]:
        """What does not depend on the instruction.

        Args:
            motion: how the map differs from the one before; None in a world without `memory`.
        """
        enter, *rest = self.stem
        x = enter(fused) if motion is None else enter(fused) + self.from_motion(motion)
        for layer in rest:
            x = layer(x)
        return x

    def forward(self, features: Float[Tensor, "b 64 g g"], instruction: Float[Tensor, "b d"]) -> OutcomeVotes:
        question = self.question(instruction)
        scale, shift = self.film(question)[..., None, None].chunk(2, 1)
        x = self.squeeze(F.silu(features * (1 + scale) + shift))
        x = F.silu(x).flatten(1)
        votes = torch.stack([member(x, question) for member in self.members])
        return OutcomeVotes(*votes.unbind(-1))

    def score(
        self,
        fused: Float[Tensor, "b f g g"],
        motion: Float[Tensor, "b f g g"] | None,
        instruction: Float[Tensor, "b d"],
    ) -> OutcomeVotes:
        """What a frame is worth by an instruction, straight from its map."""
        return self(self.features(fused, motion), instruction)

    def loss(
        self,
        features: Float[Tensor, "b t 64 g g"],
        instructions: Float[Tensor, "b t q d"],
        rewards: Float[Tensor, "b t q"],
        successes: Float[Tensor, "b t q"],
        terminations: Float[Tensor, "b t q"],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Squared error of the rewards, cross-entropies of success and end, each frame scored by q instructions."""
        asked = rewards.shape[-1]
        votes = self(features.flatten(0, 1).repeat_interleave(asked, 0), instructions.flatten(0, 2))
        reward = F.mse_loss(votes.reward.float(), rewards.flatten().expand_as(votes.reward))
        success, terminated = (
            F.binary_cross_entropy_with_logits(logits.float(), true.flatten().expand_as(logits))
            for logits, true in ((votes.success, successes), (votes.terminated, terminations))
        )
        return reward, success, terminated


class Member(nn.Module):
    """One voter."""

    def __init__(self, flat: int, width: int):
        super().__init__()
        self.inner = nn.Linear(flat, 128)
        self.film = nn.Linear(width, 2 * 128)
        self.outer = nn.Sequential(nn.SiLU(), nn.Linear(128, 64), nn.SiLU(), nn.Linear(64, 3))

    def forward(self, x: Tensor, question: Tensor) -> Tensor:
        scale, shift = self.film(question).chunk(2, -1)
        return self.outer(self.inner(x) * (1 + scale) + shift)
