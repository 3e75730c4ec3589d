"""What a policy makes of a fused map: where things are."""

from typing import Any

import torch
from gymnasium.spaces import Box, Space
from jaxtyping import Float
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn


class Places(BaseFeaturesExtractor):
    """`count` learned detectors, each a place: the mean position of where it answers (Finn et al., 2016,
    arXiv 1509.06113). Rewards here are about places, and a flat vector would leave that to be learned.

    Args:
        grid: width of the square map, which comes flat, [f * grid * grid].
        count: detectors.
    """

    places: Tensor

    def __init__(self, observation_space: Box, grid: int, count: int = 16):
        super().__init__(observation_space, features_dim=3 * count)
        self.grid, width = grid, observation_space.shape[0] // grid**2
        self.detect = nn.Sequential(nn.Conv2d(width, 32, 1), nn.SiLU(), nn.Conv2d(32, count, 1))
        steps = torch.linspace(-1.0, 1.0, grid)
        places = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), -1).flatten(0, 1)
        self.register_buffer("places", places, persistent=False)

    def forward(self, observations: Float[Tensor, "b n"]) -> Float[Tensor, "b k"]:
        answers = self.detect(observations.unflatten(1, (-1, self.grid, self.grid))).flatten(2)
        return torch.cat([(answers.softmax(-1) @ self.places).flatten(1), answers.mean(-1)], 1)


def policy_for(observations: Space, grid: int) -> tuple[str, dict[str, Any]]:
    """Stable-Baselines3's policy and its arguments: `Places` for latents, Nature's network for pixels."""
    if len(observations.shape or ()) == 1:
        places = {"features_extractor_class": Places, "features_extractor_kwargs": {"grid": grid}}
        return "MlpPolicy", places | {"net_arch": [64, 64]}
    return "CnnPolicy", {}
