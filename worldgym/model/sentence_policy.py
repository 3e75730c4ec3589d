"""What a sentence means here: the vector action that carries it out from the frame at hand.

A sentence covers many frames, and its motion depends on where things are: "push the red block left" begins by
walking round to the block's right. Asking the backbone to learn that along with the physics did not work (see
docs/decisions.md). So a small head reads the fused map and the sentence and names the next vector action; what
then happens is the same physics that vectors move.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..config import DynamicsConfig, TokenizerConfig
from .processes import mean_of_processes

CHOICES = 6
"""Actions that are weighed against each other; their average would be none of them."""
SPREAD = 0.15
"""Standard deviation round each choice, in units of the action."""


class SentencePolicy(nn.Module):
    """Features of the newest frame and a sentence -> the next vector action, in [-1, 1].

    A mixture: just before a contact, pushing on and walking round are both right, and their mean stands still.
    """

    def __init__(self, tokenizer: TokenizerConfig, config: DynamicsConfig, action_size: int):
        super().__init__()
        self.sentence = nn.Sequential(nn.Linear(config.width, 64), nn.SiLU())
        self.film = nn.Linear(64, 2 * 64)
        self.squeeze = nn.Conv2d(64, 8, 1)
        self.inner = nn.Linear(8 * tokenizer.grid**2, 128)
        self.inner_film = nn.Linear(64, 2 * 128)
        self.outer = nn.Sequential(nn.SiLU(), nn.Linear(128, 64), nn.SiLU())
        self.choices = nn.Linear(64, CHOICES * action_size)
        self.odds = nn.Linear(64, CHOICES)

    def forward(
        self, features: Float[Tensor, "b f g g"], sentence: Float[Tensor, "b d"]
    ) -> tuple[Float[Tensor, "b k a"], Float[Tensor, "b k"]]:
        """The choices and their log-probabilities.

        Args:
            features: those of `OutcomeHeads`.
            sentence: what the backbone read.
        """
        sentence = self.sentence(sentence)
        scale, shift = self.film(sentence)[..., None, None].chunk(2, 1)
        x = F.silu(self.squeeze(F.silu(features * (1 + scale) + shift))).flatten(1)
        scale, shift = self.inner_film(sentence).chunk(2, -1)
        x = self.outer(self.inner(x) * (1 + scale) + shift)
        return self.choices(x).unflatten(1, (CHOICES, -1)).tanh(), self.odds(x).float().log_softmax(-1)

    def loss(self, features: Tensor, sentence: Tensor, action: Float[Tensor, "b a"]) -> Tensor:
        """Negative log-likelihood of the actions, up to a constant; 0 if there are none."""
        choices, odds = self(features, sentence)
        distance = (choices.float() - action[:, None]).square().sum(-1) / (2 * SPREAD**2)
        known = mean_of_processes(odds.new_tensor(len(action))).clamp(min=1e-6)
        return -torch.logsumexp(odds - distance, -1).sum() / known

    def act(self, features: Tensor, sentence: Tensor) -> Float[Tensor, "b a"]:
        """The likeliest choice."""
        choices, odds = self(features, sentence)
        return choices[torch.arange(len(choices), device=choices.device), odds.argmax(-1)]
