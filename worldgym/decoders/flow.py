"""Flow matching: straight paths from data to noise, and the velocity along them (PAN 3.3.1).

Everything here is in *noise levels*: 0 is data, 1 is noise. The paper's equation 7 counts the other way (k = 1 is
clean), but its "K/2", its "k + 0.5 for the second chunk" and its "k = 0.055" only make sense as noise levels, and
Wan's weights expect the velocity towards noise.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

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


@dataclass(frozen=True)
class Schedule:
    """The noise levels that sampling passes through."""

    steps: int = 50
    """K."""
    shift: float = 5.0
    """How long it stays at high noise; a picture of more pixels needs more noise to be hidden (SD3). 1 is evenly."""

    def __post_init__(self):
        if self.steps < 1 or not self.shift > 0:
            raise ValueError(f"a schedule takes at least 1 step and a positive shift, got {self}")

    def level(self, share: Tensor) -> Tensor:
        """Noise level of a share of the steps that remains, in [0, 1]: the shift is applied here and nowhere else.

        Chunks are paired by the share, that is by step index, *before* the shift: with shift 5, the half of the
        steps is a level of 0.83.
        """
        return self.shift * share / (1 + (self.shift - 1) * share)

    def levels(self) -> Float[Tensor, " steps_and_one"]:
        """From 1 to 0, both included."""
        return self.level(torch.linspace(1, 0, self.steps + 1, dtype=torch.float64)).float()


def advance(x: Tensor, velocity: Tensor, level: Tensor | float, following: Tensor | float) -> Tensor:
    """One Euler step along the velocity, from one level to the following."""
    return x + (following - level) * velocity
