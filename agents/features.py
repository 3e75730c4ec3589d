"""What a policy makes of a fused map: where things are."""

from typing import Any

import torch
from gymnasium.spaces import Box, Space
from jaxtyping import Float
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from worldgym.config import WorldConfig


class Places(BaseFeaturesExtractor):
    """`count` learned detectors, each a place: the mean position of where it answers (Finn et al., 2016,
    arXiv 1509.06113). Rewards here are about places, and a flat vector would leave that to be learned. Of two maps, the
    newest and the one before, also how far each place has moved.

    Args:
        grid: width of the square maps, which come flat, [maps * f * grid * grid].
        maps: 1 or 2.
        count: detectors.
    """

    places: Tensor

    def __init__(self, observation_space: Box, grid: int, maps: int = 1, count: int = 16):
        super().__init__(observation_space, features_dim=(3 if maps == 1 else 5) * count)
        self.grid, self.maps, width = grid, maps, observation_space.shape[0] // (maps * grid**2)
        self.detect = nn.Sequential(nn.Conv2d(width, 32, 1), nn.SiLU(), nn.Conv2d(32, count, 1))
        steps = torch.linspace(-1.0, 1.0, grid)
        places = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), -1).flatten(0, 1)
        self.register_buffer("places", places, persistent=False)

    def forward(self, observations: Float[Tensor, "b n"]) -> Float[Tensor, "b k"]:
        maps = observations.unflatten(1, (self.maps, -1, self.grid, self.grid))
        answers = self.detect(maps.flatten(0, 1)).flatten(2).unflatten(0, maps.shape[:2])
        here, *before = (answers.softmax(-1) @ self.places).flatten(2).unbind(1)
        return torch.cat([here, *(here - place for place in before), answers[:, 0].mean(-1)], 1)


def policy_for(observations: Space, world: WorldConfig) -> tuple[str, dict[str, Any]]:
    """Stable-Baselines3's policy and its arguments: `Places` for the world's latents, Nature's network for pixels, two
    layers for the recurrent state."""
    if world.recurrent is not None and observations.shape == (world.recurrent.width,):
        return "MlpPolicy", {"net_arch": [256, 256]}
    if len(observations.shape or ()) == 1:
        eyes = {"grid": world.tokenizer.grid, "maps": min(world.dynamics.memory, 2)}
        places = {"features_extractor_class": Places, "features_extractor_kwargs": eyes}
        return "MlpPolicy", places | {"net_arch": [64, 64]}
    return "CnnPolicy", {}
