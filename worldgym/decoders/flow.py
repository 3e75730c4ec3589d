"""Flow matching: straight paths from data to noise, and the velocity along them (PAN 3.3.1).

Everything here is in *noise levels*: 0 is data, 1 is noise. The paper's equation 7 counts the other way (k = 1 is
clean), but its "K/2", its "k + 0.5 for the second chunk" and its "k = 0.055" only make sense as noise levels, and
Wan's weights expect the velocity towards noise.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from ..config import Schedule

TIMESTEPS = 1000
"""What a diffusion transformer calls noise level 1."""


def mix(clean: Tensor, noise: Tensor, level: Float[Tensor, "b f"]) -> Tensor:
    """Frames on the way to noise: `(1 - level) clean + level noise`, [b, c, f, h, w], a level for each frame."""
    level = level[:, None, :, None, None].to(clean)
    return (1 - level) * clean + level * noise


def velocity(clean: Tensor, noise: Tensor) -> Tensor:
    """The derivative of `mix` by the level, which the network learns: constant along a path."""
    return noise - clean


def guide(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance: away from what would be shown without the condition. 1 is none."""
    return unconditional + scale * (conditional - unconditional)


def noise_levels(schedule: Schedule) -> Float[Tensor, " steps_and_one"]:
    """From 1 to 0, both included."""
    return schedule.level(torch.linspace(1, 0, schedule.steps + 1, dtype=torch.float64)).float()


def advance(x: Tensor, velocity: Tensor, level: Tensor | float, following: Tensor | float) -> Tensor:
    """One Euler step along the velocity, from one level to the following."""
    return x + (following - level) * velocity
