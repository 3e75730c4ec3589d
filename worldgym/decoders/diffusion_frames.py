"""A `FrameStream` by diffusion: n dreams, each of which began at its own time.

A picture depends on the pictures before it. So the maps of a dream wait here until a picture is asked for, and are then
drawn in order.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from ..checkpoint import fingerprint
from ..state import WorldState
from ..world import WorldModel
from .diffusion import DiffusionDecoder
from .swin import Asked, Stream
from .wan import Condition


class Map(NamedTuple):
    """A step that has not been shown yet, [1, ...] each."""

    fused: Tensor
    seed: Tensor
    counter: Tensor


class DiffusionFrames:
    """See `FrameStream` for the verbs."""

    def __init__(self, decoder: DiffusionDecoder, world: WorldModel, dreams: int):
        if decoder.config.swin.frames != 1:
            raise ValueError(f"this decoder shows {decoder.config.swin.frames} frames at a time; a step takes one of 1")
        self.decoder, self.tokenizer = decoder, world.tokenizer
        self.streams: list[Stream | None] = [None] * dreams
        self.waiting: list[list[Map]] = [[] for _ in range(dreams)]
        self.pictures: list[Tensor | None] = [None] * dreams

    def begin(self, rows: Sequence[int], frames: UInt8[Tensor, "n h w c"]) -> None:
        """These dreams now begin from frames that were really seen."""
        stream = self.decoder.start(frames)
        for place, row in enumerate(rows):
            self.streams[row] = _row(stream, place)
            self.waiting[row] = []
            self.pictures[row] = frames[place]

    def put(
        self,
        rows: Sequence[int],
        fused: Float[Tensor, "n d g g"],
        seeds: Int[Tensor, " n"],
        counters: Int[Tensor, " n"],
    ) -> None:
        """These dreams have moved on by one frame."""
        for place, row in enumerate(rows):
            one = slice(place, place + 1)
            self.waiting[row].append(Map(fused[one], seeds[one], counters[one]))

    @property
    def fingerprint(self) -> str:
        """Weights and settings; a snapshot can only be restored where they are the same."""
        return f"{fingerprint(self.decoder)} {self.decoder.config}"

    def look(self, state: WorldState) -> UInt8[Tensor, "n h w c"]:
        """The newest picture of each dream."""
        return self._look()

    def _look(self) -> UInt8[Tensor, "n h w c"]:
        while any(self.waiting):
            for fresh in (True, False):  # a stream's first chunk has none to look back at
                rows = [row for row, maps in enumerate(self.waiting) if maps and self._is_fresh(row) == fresh]
                if rows:
                    self._show(rows)
        return torch.stack([picture for picture in self.pictures if picture is not None])

    def select(self, rows: Sequence[int]) -> "DiffusionFrames":
        """Of these dreams, in this order; one may be there many times."""
        if len(set(rows)) < len(rows):
            self._look()  # what waits is shown once, not by each branch
        chosen = copy.copy(self)
        chosen.streams = [self.streams[row] for row in rows]
        chosen.waiting = [list(self.waiting[row]) for row in rows]
        chosen.pictures = [self.pictures[row] for row in rows]
        return chosen

    def replace(self, rows: Sequence[int], other: "DiffusionFrames") -> None:
        """These dreams are now those of `other`."""
        for place, row in enumerate(rows):
            self.streams[row], self.pictures[row] = other.streams[place], other.pictures[place]
            self.waiting[row] = list(other.waiting[place])

    def snapshot(self) -> dict[str, Tensor]:
        """Everything, as tensors by name."""
        self._look()
        tensors = {}
        for row, (stream, picture) in enumerate(zip(self.streams, self.pictures, strict=True)):
            if stream is None or picture is None:
                continue
            tensors |= {f"{row}.condition": stream.condition, f"{row}.picture": picture}
            if stream.before is not None and stream.asked is not None:
                told = stream.asked.condition
                tensors |= {f"{row}.before": stream.before, f"{row}.text": told.text, f"{row}.aligned": told.aligned}
                tensors |= {f"{row}.trail.{step}": chunk for step, chunk in enumerate(stream.trail)}
        # Copies: branches of one dream share tensors, which a file of tensors cannot.
        return {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Return to a `snapshot()` of as many dreams."""
        for row in range(len(self.streams)):
            own = {name.removeprefix(f"{row}."): part for name, part in tensors.items() if name.startswith(f"{row}.")}
            self.waiting[row] = []
            self.pictures[row] = own.get("picture")
            self.streams[row] = None
            if "condition" in own:
                stream = Stream(own["condition"])
                if "before" in own:
                    told = Condition(own["text"], aligned=own["aligned"])
                    steps = sum(name.startswith("trail.") for name in own)
                    trail = tuple(own[f"trail.{step}"] for step in range(steps))
                    stream = replace(stream, before=own["before"], trail=trail, asked=Asked(told, told))
                self.streams[row] = stream

    def _is_fresh(self, row: int) -> bool:
        stream = self.streams[row]
        if stream is None:
            raise ValueError(f"dream {row} has no frame to continue from; begin it first")
        return not stream.trail

    def _show(self, rows: list[int]) -> None:
        """The next waiting map of each of these dreams, all fresh or all under way."""
        maps = [self.waiting[row][0] for row in rows]
        stream = _join([stream for row in rows if (stream := self.streams[row]) is not None])
        fused, seeds, counters = (torch.cat(part) for part in zip(*maps, strict=True))
        stream, pictures = self.decoder.show(stream, self.tokenizer, fused[:, None], seeds, counters)
        for place, row in enumerate(rows):
            self.streams[row], self.pictures[row] = _row(stream, place), pictures[place, 0]
            self.waiting[row].pop(0)  # not before it has been drawn: an interrupted caller may ask again


def _row(stream: Stream, row: int) -> Stream:
    one = slice(row, row + 1)
    asked = stream.asked and Asked(
        *(Condition(*(None if part is None else part[one] for part in told)) for told in stream.asked)
    )
    return replace(
        stream,
        condition=stream.condition[one],
        before=None if stream.before is None else stream.before[one],
        trail=tuple(chunk[one] for chunk in stream.trail),
        asked=asked,
    )


def _join(streams: list[Stream]) -> Stream:
    """Streams that are all fresh or all under way, as one."""
    first = streams[0]
    if not first.trail:
        return Stream(torch.cat([stream.condition for stream in streams]))
    told = [stream.asked.condition for stream in streams if stream.asked is not None]
    condition = Condition(
        torch.cat([part.text for part in told]), aligned=torch.cat([p.aligned for p in told if p.aligned is not None])
    )
    return replace(
        first,
        condition=torch.cat([stream.condition for stream in streams]),
        before=torch.cat([stream.before for stream in streams if stream.before is not None]),
        trail=tuple(torch.cat(chunks) for chunks in zip(*(stream.trail for stream in streams), strict=True)),
        asked=Asked(condition, condition),
    )
