"""The only place where uint8 pictures become float maps and back."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor


def to_float(frames: UInt8[Tensor, "b h w c"]) -> Float[Tensor, "b c h w"]:
    """uint8 in [0, 255], channels last -> float in [-1, 1], channels first."""
    return frames.permute(0, 3, 1, 2).float() / 127.5 - 1.0


def to_uint8(images: Float[Tensor, "b c h w"]) -> UInt8[Tensor, "b h w c"]:
    """The inverse of `to_float`; what lies outside [-1, 1] is clipped."""
    levels = images.float().clamp(-1.0, 1.0).add_(1.0).mul_(127.5).round_()
    return levels.to(torch.uint8).permute(0, 2, 3, 1).contiguous()
