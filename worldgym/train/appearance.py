"""Other looks for what a stretch shows: light, tint, view, an object's colour, things that lie about.

Domain randomisation (Tobin et al., 2017, arXiv 1703.06907) on pixels, for any world. Only frames that are observed are
altered and targets are not, so the recurrent state learns to see a strange scene as the world's own, and imagines that.
A stretch keeps its look, as a scene does. No look is taken from a twin's factors of variation.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from ..model.pixels import to_float, to_uint8

SHARE = 0.5
"""Of the stretches that are altered at all; each of these in each way with the same chance."""
THINGS = 2
"""At most so many discs and squares lie about."""
NEAR_COLOUR = 0.5
"""Pixels within about this distance of a colour, in [-1, 1] a channel, change with it."""
BACKGROUND = 0.25
"""Pixels within this of the recording's mean are where things may lie."""


class Looks(NamedTuple):
    """One for each of b stretches; what a stretch does not change has the value that changes nothing."""

    altered: Bool[Tensor, " b"]
    """Whether anything is changed at all."""
    gain: Float[Tensor, "b c"]
    """Of each channel's brightness: light and tint."""
    view: Float[Tensor, "b two three"]
    """The affine map from altered to recorded places, in [-1, 1] each way."""
    recoloured: Bool[Tensor, " b"]
    """Whether one object has another colour."""
    which: Float[Tensor, " b"]
    """In [0, 1], which pixel of the first frame has the colour that is replaced, by distance from the mean frame."""
    colour: Float[Tensor, "b c"]
    """What replaces it, in [-1, 1]."""
    places: Float[Tensor, "b k two"]
    """Of things that lie about, in [-1, 1] each way."""
    sizes: Float[Tensor, "b k"]
    """Their half widths; 0 for none."""
    square: Bool[Tensor, "b k"]
    """Else they are discs."""
    colours: Float[Tensor, "b k c"]

    def of(self, rows: slice) -> "Looks":
        """Those of some of the stretches."""
        return Looks(*(part[rows] for part in self))


def draw_looks(random: np.random.Generator, count: int) -> Looks:
    """Looks for so many stretches."""
    altered = random.random(count) < SHARE

    def sometimes(*shape: int) -> np.ndarray:
        return (altered & (random.random(count) < 0.5)).reshape(count, *(1,) * len(shape))

    def within(low: float, high: float, *shape: int) -> np.ndarray:
        return random.uniform(low, high, (count, *shape))

    gain = np.exp(sometimes(1) * (within(-0.6, 0.35, 1) + within(-0.15, 0.15, 3)))
    seen = sometimes()
    turn, stretch = seen * within(-0.06, 0.06), 1 + seen[:, None] * within(-0.1, 0.1, 2)
    along, across = np.cos(turn), np.sin(turn)
    view = np.stack([along, -across, across, along], -1).reshape(count, 2, 2) * stretch[:, None]
    shift = seen[:, None] * within(-0.12, 0.12, 2)
    numbers: dict[str, np.ndarray] = dict(
        gain=gain,
        view=np.concatenate([view, shift[..., None]], -1),
        recoloured=sometimes(),
        which=within(0.0, 1.0),
        colour=within(-1.0, 1.0, 3),
        places=within(-1.0, 1.0, THINGS, 2),
        sizes=sometimes(THINGS) * (within(0.0, 1.0, THINGS) < 0.7) * within(0.04, 0.14, THINGS),
        square=within(0.0, 1.0, THINGS) >= 0.5,
        colours=within(-1.0, 1.0, THINGS, 3),
    )
    arrays = {name: values if values.dtype == bool else values.astype(np.float32) for name, values in numbers.items()}
    return Looks(torch.from_numpy(altered), **{name: torch.from_numpy(values) for name, values in arrays.items()})


def alter(
    frames: UInt8[Tensor, "n h w c"], of: Int[Tensor, " n"], looks: Looks, mean: Float[Tensor, "c h w"]
) -> UInt8[Tensor, "n h w c"]:
    """Frames as their stretches look; `of` says which stretch each is of, in order."""
    looks = Looks(*(part.to(frames.device) for part in looks))
    touched = looks.altered[of]
    if not touched.any():
        return frames
    frames = frames.clone()
    frames[touched] = _altered(to_float(frames[touched]), of[touched], looks, mean)
    return frames


def _altered(
    images: Float[Tensor, "n c h w"], of: Int[Tensor, " n"], looks: Looks, mean: Float[Tensor, "c h w"]
) -> UInt8[Tensor, "n h w c"]:
    images = images + recolouring(images, of, looks, mean)
    background = (images - mean).abs().amax(1) < BACKGROUND
    for thing in range(looks.sizes.shape[1]):
        there = _covered(looks.places[of, thing], looks.sizes[of, thing], looks.square[of, thing], images) & background
        images = torch.where(there[:, None], looks.colours[of, thing][:, :, None, None], images)
    images = (images + 1) * looks.gain[of][:, :, None, None] - 1
    grid = F.affine_grid(looks.view[of], list(images.shape), align_corners=False)
    return to_uint8(F.grid_sample(images, grid, padding_mode="border", align_corners=False))


def recolouring(
    images: Float[Tensor, "n c h w"], of: Int[Tensor, " n"], looks: Looks, mean: Float[Tensor, "c h w"]
) -> Float[Tensor, "n c h w"]:
    """What changes pixels that have the colour of one object into another colour."""
    stretches, of = of.unique_consecutive(return_inverse=True)
    first = images[torch.searchsorted(of, torch.arange(len(stretches), device=of.device))]
    stands_out = (first - mean).square().sum(1).flatten(1).cumsum(1)
    sought = looks.which[stretches, None] * stands_out[:, -1:]
    pixel = torch.searchsorted(stands_out, sought).clamp(max=stands_out.shape[1] - 1)
    replaced = first.flatten(2).gather(2, pixel[:, None].expand(-1, first.shape[1], -1)).squeeze(2)
    distance = (images - replaced[of][:, :, None, None]).square().sum(1, keepdim=True)
    share = torch.exp(-distance / NEAR_COLOUR**2) * looks.recoloured[stretches[of], None, None, None]
    return share * (looks.colour[stretches] - replaced)[of][:, :, None, None]


def _covered(
    place: Float[Tensor, "n two"], size: Float[Tensor, " n"], square: Bool[Tensor, " n"], images: Tensor
) -> Tensor:
    """bool [n, h, w]: within a disc or square."""
    height, width = images.shape[-2:]
    down, across = (torch.linspace(-1, 1, length, device=images.device) for length in (height, width))
    dx = (across - place[:, :1]).abs()[:, None].expand(-1, height, -1)
    dy = (down - place[:, 1:]).abs()[:, :, None].expand(-1, -1, width)
    distance = torch.where(square[:, None, None], torch.maximum(dx, dy), torch.hypot(dx, dy))
    return distance < size[:, None, None]
