"""Randomness that belongs to a dream: a counter-based generator, so dream i is the same alone and in a batch."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def uniforms(seeds: Int[Tensor, " b"], counters: Int[Tensor, " b"], count: int) -> Float[Tensor, "b {count}"]:
    """`count` numbers in [0, 1) for each dream, from nothing but its seed and its counter (splitmix64)."""
    lane = torch.arange(count, device=seeds.device)
    state = _mix(seeds)[:, None] + _mix(counters)[:, None] * _signed(0x9E3779B97F4A7C15)
    mixed = _mix(state + (lane + 1) * _signed(0xD1B54A32D192ED03))
    return (_shift(mixed, 41).float() + 0.5) / (1 << 23)


def gaussians(seeds: Int[Tensor, " b"], counters: Int[Tensor, " b"], count: int) -> Float[Tensor, "b {count}"]:
    """The same, from the standard normal distribution."""
    return torch.erfinv(2 * uniforms(seeds, counters, count) - 1) * 2**0.5


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shift(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift; torch's own keeps the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(constant: int) -> int:
    return constant - (1 << 64) if constant >= 1 << 63 else constant
