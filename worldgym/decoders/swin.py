"""Causal Swin-DPM: chunks that overlap in time while they are still noise (PAN 3.3.3).

The window holds two chunks of frames whose noise differs by half the steps. When the early one is clean it leaves,
the late one takes its place, and a new one enters as noise, so that no chunk ever begins from pixels alone: it begins
from what the chunk before it is about to be. The late chunk sees the early one, never the other way round; therefore a
chunk can be finished before the next action exists, and what it was at each step is kept for the next.

    window     [ condition | early chunk, K/2 .. 0 | late chunk, K .. K/2 ]
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..config import SwinConfig
from .flow import advance, guide, mix, noise_levels, velocity
from .wan import Condition, Keys

# -- training ---------------------------------------------------------------------------------------------------------


def window_levels(config: SwinConfig, shares: Float[Tensor, " b"], first: Tensor) -> Float[Tensor, "b f"]:
    """Noise level of each frame of a training window of one condition and two chunks.

    Args:
        shares: uniform in [0, 1): where each window stands in its course.
        first: bool [b], the windows that begin a video. Their early chunk goes all the way from noise.
    """
    early = torch.where(first, shares, shares * (1 - config.offset))
    late = (early + config.offset).clamp(max=1.0)
    steps = torch.stack([early, late], 1).repeat_interleave(config.frames, 1)
    condition = torch.full_like(shares, config.condition_level)[:, None]
    return torch.cat([condition, config.schedule.level(steps)], 1)


def window_loss(
    model: nn.Module,
    config: SwinConfig,
    latents: Float[Tensor, "b c f h w"],
    condition: Condition,
    without: Condition,
    noise: Float[Tensor, "b c f h w"],
    chances: Float[Tensor, "b 3"],
) -> Float[Tensor, " b"]:
    """Flow-matching loss of each window, on its two chunks and not on the condition frame.

    Args:
        latents: clean, one condition frame and two chunks.
        condition: of the two chunks.
        without: the same, saying nothing; taken for the dropped ones.
        chances: uniform in [0, 1): everything else that is random.
    """
    first = chances[:, 1] < config.first
    levels = window_levels(config, chances[:, 0], first)
    told = select(chances[:, 2] < config.drop, without, condition)
    mixed = mix(latents, noise, levels)
    predicted, _ = model(mixed, levels, with_condition_frame(told), (1 + config.frames, config.frames))
    error = (predicted.float() - velocity(latents, noise).float()).square().mean((1, 3, 4))
    early, late = error[:, 1:].split(config.frames, 1)
    # A video's first chunk has no late chunk with it.
    return torch.where(first, early.mean(1), (early.mean(1) + late.mean(1)) / 2)


def select(rows: Tensor, one: Condition, other: Condition) -> Condition:
    """The conditions of `one` where `rows` says so, of `other` elsewhere."""

    def pick(here: Tensor | None, there: Tensor | None) -> Tensor | None:
        if here is None or there is None:
            return None
        return torch.where(rows.view(-1, *[1] * (here.ndim - 1)), here, there)

    return Condition(*(pick(here, there) for here, there in zip(one, other, strict=True)))


# -- sampling ---------------------------------------------------------------------------------------------------------


class Asked(NamedTuple):
    """A chunk's condition, and the same without: both of one chunk, [b, 1, ...]."""

    condition: Condition
    without: Condition


@dataclass(frozen=True)
class Stream:
    """A video as far as it has been shown. A value: two actions can be tried from the same one."""

    condition: Float[Tensor, "b c 1 h w"]
    """The newest clean frame."""
    before: Float[Tensor, "b c 1 h w"] | None = None
    """The noised frame that the newest chunk was conditioned on."""
    trail: tuple[Float[Tensor, "b c f h w"], ...] = ()
    """The newest chunk as it was at each step of which the next chunk sees it."""
    asked: Asked | None = None
    """What the newest chunk was asked to show."""
    keys: tuple[Keys, ...] = ()
    """Its keys and values at each of these steps, if they are kept."""


class CausalSwin:
    """Shows chunk after chunk.

    Args:
        model: `ConditionedWan`, or what has its `forward`.
        keep_keys: keep keys and values of the newest chunk at every step instead of computing them again with the
            next one: half the time for it, and as many gigabytes as docs/pan.md computes. Both give the same video.
    """

    def __init__(self, model: nn.Module, config: SwinConfig, keep_keys: bool = False):
        if keep_keys and config.offset < 0.5:
            raise ValueError(
                f"with an offset of {config.offset} a chunk is seen while it sees another; keep_keys needs 0.5 or more"
            )
        self.model, self.config, self.keep_keys = model, config, keep_keys

    def start(self, frame: Float[Tensor, "b c h w"]) -> Stream:
        """A video that continues from a clean latent frame."""
        return Stream(frame[:, :, None])

    @torch.no_grad()
    def next(
        self,
        stream: Stream,
        asked: Asked,
        noise: Float[Tensor, "b c f h w"],
        condition_noise: Float[Tensor, "b c 1 h w"],
    ) -> tuple[Stream, Float[Tensor, "b c f h w"]]:
        """The next chunk, clean.

        Args:
            noise: what the chunk begins from.
            condition_noise: of the frame before it.
        """
        config, levels = self.config, noise_levels(self.config.schedule).to(noise.device)
        steps, overlap = config.schedule.steps, config.overlap if stream.trail else 0
        level = torch.full((len(noise), 1), config.condition_level, device=noise.device)
        before = mix(stream.condition, condition_noise, level)
        chunk, trail, keys = noise, [], []
        for step in range(steps):
            now = levels[step]
            if step < overlap:
                flow = self._late(stream, step, chunk, asked, levels)
            else:
                flow, kept = self._early(before, chunk, asked, now)
                if self.keep_keys and step >= steps - config.overlap:
                    keys.append(kept)
            if step >= steps - config.overlap:
                trail.append(chunk)
            chunk = advance(chunk, flow, now, levels[step + 1])
        newest = replace(
            stream, condition=chunk[:, :, -1:], before=before, trail=tuple(trail), asked=asked, keys=tuple(keys)
        )
        return newest, chunk

    def _early(self, before: Tensor, chunk: Tensor, asked: Asked, level: Tensor) -> tuple[Tensor, Keys]:
        """Alone in the window, behind the condition frame."""
        latents = torch.cat([before, chunk], 2)
        asked = Asked(*(with_condition_frame(part) for part in asked))
        flow, keys = self._flow(latents, self._levels(chunk, level), asked, (latents.shape[2],), None)
        return flow[:, :, 1:], keys

    def _late(self, stream: Stream, step: int, chunk: Tensor, asked: Asked, levels: Tensor) -> Tensor:
        """Behind the chunk before it, as that was when it had as many steps left as this one has before half time."""
        frames = chunk.shape[2]
        level = levels[step].expand(len(chunk), frames)
        if stream.keys:
            return self._flow(chunk, level, asked, (frames,), stream.keys[step])[0]
        assert stream.before is not None and stream.asked is not None
        early = stream.trail[step]
        latents = torch.cat([stream.before, early, chunk], 2)
        offset = self.config.schedule.steps - self.config.overlap
        together = Asked(*(_join(with_condition_frame(one), two) for one, two in zip(stream.asked, asked, strict=True)))
        both = torch.cat([self._levels(early, levels[step + offset]), level], 1)
        return self._flow(latents, both, together, (1 + frames, frames), None)[0][:, :, 1 + frames :]

    def _levels(self, chunk: Tensor, level: Tensor) -> Tensor:
        """Of a condition frame and a chunk."""
        shape = (len(chunk), chunk.shape[2])
        return torch.cat([level.new_full((shape[0], 1), self.config.condition_level), level.expand(shape)], 1)

    def _flow(
        self, latents: Tensor, levels: Tensor, asked: Asked, chunks: tuple[int, ...], past: Keys | None
    ) -> tuple[Tensor, Keys]:
        """Guided velocity. With guidance, both halves are one batch, and so are their keys."""
        if self.config.guidance == 1:
            return self.model(latents, levels, asked.condition, chunks, past)
        both = Condition(*(_cat(one, two, 0) for one, two in zip(*asked, strict=True)))
        flow, keys = self.model(latents.repeat(2, 1, 1, 1, 1), levels.repeat(2, 1), both, chunks, past)
        return guide(*flow.chunk(2), self.config.guidance), keys


def with_condition_frame(condition: Condition) -> Condition:
    """The frame before a chunk is shown what its first frame is shown; it counts as part of the chunk."""
    if condition.aligned is None:
        return condition
    return condition._replace(aligned=torch.cat([condition.aligned[:, :, :1], condition.aligned], 2))


def _join(one: Condition, two: Condition) -> Condition:
    """Of two chunks in a row."""
    return Condition(_cat(one.text, two.text, 1), _cat(one.state, two.state, 1), _cat(one.aligned, two.aligned, 2))


def _cat(one: Tensor | None, two: Tensor | None, axis: int) -> Tensor | None:
    return None if one is None or two is None else torch.cat([one, two], axis)
