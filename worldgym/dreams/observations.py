"""What an agent sees of a dream: pixels, the map that rewards are read off, or the recurrent state."""

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..state import WorldState
from ..world import WorldModel

LATENT_BOUND = 10.0
"""Latent observations are clipped to it; in the bundled world they stay within 1.2."""


def latents(world: WorldModel, state: WorldState) -> Float[Tensor, "b n"]:
    """What an agent sees of each dream: the fused map, flat; in a world with `memory`, behind it the one before."""
    seen = [state.fused] if world.config.dynamics.memory == 1 else [state.fused, state.past[:, -1]]
    return torch.cat(seen, 1).flatten(1).clamp(-LATENT_BOUND, LATENT_BOUND)


def latent_space(world: WorldModel) -> gym.spaces.Box:
    """Of one dream's `latents`."""
    tokenizer, maps = world.config.tokenizer, min(world.config.dynamics.memory, 2)
    return gym.spaces.Box(-LATENT_BOUND, LATENT_BOUND, (maps * tokenizer.width * tokenizer.grid**2,), np.float32)


def state_space(world: WorldModel) -> gym.spaces.Box:
    """Of one dream's recurrent state; a gated cell keeps its numbers within 1."""
    assert world.config.recurrent is not None
    return gym.spaces.Box(-1.0, 1.0, (world.config.recurrent.width,), np.float32)


def observation_space(obs_type: str, world: WorldModel) -> gym.Space:
    tokenizer = world.config.tokenizer
    pixels = gym.spaces.Box(0, 255, (tokenizer.resolution, tokenizer.resolution, 3), np.uint8)
    latent = latent_space(world)
    match obs_type:
        case "pixels":
            return pixels
        case "latent":
            return latent
        case "state":
            return state_space(world)
        case _:
            return gym.spaces.Dict({"pixels": pixels, "latent": latent})
