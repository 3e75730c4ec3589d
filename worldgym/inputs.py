"""What callers hand to a world: checked, and as tensors on its device.

Each function raises a ValueError or a TypeError that says what came and what the world takes.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from .config import WorldConfig
from .reader import reader_of

Array = Tensor | np.ndarray | Sequence


def observed_frames(frames: Array, config: WorldConfig, device: torch.device) -> UInt8[Tensor, "b t h w c"]:
    """Frames that were seen, oldest first."""
    found, size = tensor(frames).to(device), config.tokenizer.resolution
    if found.ndim != 5 or found.shape[2:] != (size, size, 3) or found.shape[1] < 1:
        raise ValueError(f"frames have shape {tuple(found.shape)}; this world takes (batch, time, {size}, {size}, 3)")
    if found.dtype != torch.uint8:
        raise TypeError(f"frames have dtype {found.dtype}; this world takes uint8")
    return found.contiguous()  # products round differently in another memory layout; so with actions


def observed_actions(
    actions: Array | None, batch: int, count: int, config: WorldConfig, device: torch.device
) -> Float[Tensor, "b t a"]:
    """What was done between `count` frames; None is nothing, for a single frame."""
    found = torch.zeros(batch, 0, config.action_size) if actions is None else tensor(actions)
    found = found.to(device, torch.float32).contiguous()
    if found.shape != (batch, count - 1, config.action_size):
        raise ValueError(
            f"actions have shape {tuple(found.shape)}; {count} frames in {batch} dreams of this world take "
            f"{(batch, count - 1, config.action_size)}"
        )
    return _finite(found, "actions are")


def action_vectors(action: Array, batch: int, config: WorldConfig, device: torch.device) -> Float[Tensor, "b a"]:
    """One action for each of `batch` dreams."""
    found = tensor(action).to(device, torch.float32).contiguous()
    if found.shape != (batch, config.action_size):
        raise ValueError(f"action has shape {tuple(found.shape)}; this world takes ({batch}, {config.action_size})")
    return _finite(found, "action is")


def action_sequences(
    sequences: Array, batch: int, config: WorldConfig, device: torch.device
) -> Float[Tensor, "b n t a"]:
    """n futures of each of `batch` dreams; not finite ones get returns that are not finite."""
    found = tensor(sequences).to(device, torch.float32)
    wanted = (batch, config.action_size)
    if found.ndim != 4 or (found.shape[0], found.shape[3]) != wanted or not found.shape[2]:
        raise ValueError(
            f"action sequences have shape {tuple(found.shape)}; {batch} dreams of this world take "
            f"({batch}, n, horizon, {config.action_size})"
        )
    return found


def dream_seeds(seeds: Array | None, batch: int, device: torch.device) -> Int[Tensor, " b"]:
    """A seed for each dream; 0, 1, 2, ... by default."""
    found = torch.arange(batch) if seeds is None else torch.as_tensor(seeds)
    if found.shape != (batch,):
        raise ValueError(f"seeds have shape {tuple(found.shape)}; {batch} dreams take ({batch},)")
    return found.to(device, torch.long)


def known_instructions(instructions: Sequence[str], config: WorldConfig) -> list[str]:
    """The world's own instructions that these mean, in whatever words; a ValueError if one means none."""
    return [
        _meant(one, config.instructions, "instruction", f"the world {config.name!r} judges") for one in instructions
    ]


def known_sentences(sentences: Sequence[str], config: WorldConfig) -> list[str]:
    """The world's own sentences that these mean, in whatever words; a ValueError if one means none, or several."""
    return [_meant(one, config.phrases, "sentence", f"the world {config.name!r} carries out") for one in sentences]


def _meant(sentence: str, known: Sequence[str], kind: str, who: str) -> str:
    reading = reader_of(tuple(known)).read(sentence)
    if reading.phrase is None:
        reason = reading.reason or f"it asks for {len(reading.phrases)} things; give them one by one"
        raise ValueError(
            f"unknown {kind} {sentence!r}: {reason}; {who} {len(known)}, for instance: "
            f"{'; '.join(known[:: max(1, len(known) // 5)])}"
        )
    return reading.phrase


def tensor(array: Array) -> Tensor:
    """As a tensor; of a read-only array, such as a slice of a memory-mapped file, a copy."""
    return array if isinstance(array, Tensor) else torch.from_numpy(np.require(array, requirements="W"))


def _finite(found: Tensor, subject: str) -> Tensor:
    if not torch.isfinite(found).all():
        raise ValueError(f"{subject} not finite")
    return found
