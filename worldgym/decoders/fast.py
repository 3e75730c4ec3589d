"""The tokenizer's own decoder as a `FrameStream`: one pass, straight from the newest map, and no memory."""

from collections.abc import Sequence

from jaxtyping import UInt8
from torch import Tensor

from ..state import WorldState
from ..world import WorldModel


class FastFrames:
    """See `FrameStream` for the verbs."""

    fingerprint = None

    def __init__(self, world: WorldModel, dreams: int):
        self.world = world

    def begin(self, rows: Sequence[int], frames: Tensor) -> None: ...

    def put(self, rows: Sequence[int], fused: Tensor, seeds: Tensor, counters: Tensor) -> None: ...

    def look(self, state: WorldState) -> UInt8[Tensor, "n h w c"]:
        return self.world.render(state)

    def select(self, rows: Sequence[int]) -> "FastFrames":
        return self

    def replace(self, rows: Sequence[int], other: "FastFrames") -> None: ...

    def snapshot(self) -> dict[str, Tensor]:
        return {}

    def restore(self, tensors: dict[str, Tensor]) -> None: ...
