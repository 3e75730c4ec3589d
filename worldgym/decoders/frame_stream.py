"""What every decoder of dreams has to do, behind one Protocol."""

from collections.abc import Sequence
from typing import Any, Protocol

from jaxtyping import Float, Int, UInt8
from torch import Tensor

from ..state import WorldState


class FrameStream(Protocol):
    """Shows n dreams: `begin` at a reset, `put` after a step, `look` at any time.

    What has been shown is its own state: forks and snapshots of dreams carry it along.
    """

    @property
    def fingerprint(self) -> str | None:
        """Tells decoders apart, so that a snapshot is restored with the one it was taken with."""

    def begin(self, rows: Sequence[int], frames: UInt8[Tensor, "n h w c"]) -> None:
        """These dreams now continue from frames that were really seen."""

    def put(
        self,
        rows: Sequence[int],
        fused: Float[Tensor, "n f g g"],
        seeds: Int[Tensor, " n"],
        counters: Int[Tensor, " n"],
    ) -> None:
        """These dreams have moved on by one frame, which their fused maps describe.

        Args:
            seeds, counters: the dreams' random state, so that a dream looks the same alone and in a batch.
        """

    def look(self, state: WorldState) -> UInt8[Tensor, "n h w c"]:
        """The newest picture of each dream, on the model's device."""

    def select(self, rows: Sequence[int]) -> "FrameStream":
        """The stream of these dreams, in this order; one may be there many times."""

    def replace(self, rows: Sequence[int], other: Any) -> None:
        """These dreams are now those of `other`, a stream of the same class."""

    def snapshot(self) -> dict[str, Tensor]:
        """Everything that it remembers, as tensors by name; nothing where it remembers nothing."""

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Return to a `snapshot()` of as many dreams."""
