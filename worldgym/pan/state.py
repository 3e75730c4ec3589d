"""Where PAN's simulations stand: a value that can be forked, selected from, and written down as bytes."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from safetensors.torch import save as save_bytes
from torch import Tensor

from ..checkpoint import read_tensors
from ..model.device import isolated

SNAPSHOT_VERSION = 1


class Scene(NamedTuple):
    """What one simulation remembers in tensors; with a first axis b, what b of them do."""

    frame: UInt8[Tensor, "*b h w c"]
    """The newest frame."""
    seen: Float[Tensor, "*b r m d"]
    """What the vision tower says of the newest chunks, oldest first."""
    predicted: Float[Tensor, "*b p q d"]
    """What the backbone had said of the newest p of them, those that were dreamed. Together they are the enhanced
    state."""
    latents: Float[Tensor, "*b k f y x"]
    """The newest chunk, which the autoencoder looks back at."""
    text: Float[Tensor, "*b n l t"]
    """The words that asked for it; n is 0 if it was observed, else 1."""
    before: Float[Tensor, "*b k n y x"]
    """The noised frame that it was conditioned on."""
    trail: Float[Tensor, "*b s k f y x"]
    """How it looked at each step of which the next chunk sees it."""


@dataclass(frozen=True)
class Simulation:
    """One simulation."""

    scene: Scene
    said: tuple[str, ...]
    """What was done after each remembered chunk but the newest."""
    seed: int
    count: int = 0
    """Steps dreamed so far; with the seed, all the randomness that there is."""


@dataclass(frozen=True)
class PanState:
    """Where `b` simulations stand. Nothing ever writes into it, so forks share it and two actions can be tried from it.

    The simulations may remember different lengths of past; those that remember as much go through the networks
    together.
    """

    simulations: tuple[Simulation, ...]

    def __len__(self) -> int:
        return len(self.simulations)

    def fork(self, copies: int, seeds: Int[Tensor, " n"] | None = None) -> "PanState":
        """`copies` continuations of each simulation, next to each other: [b * copies].

        They share their past, which is not copied, and, unless `seeds` (long [b * copies]) are given, their chances
        too: the same actions lead to the same future.
        """
        if copies < 1:
            raise ValueError(f"got {copies} copies to fork into; there must be at least one")
        forked = [simulation for simulation in self.simulations for _ in range(copies)]
        if seeds is not None:
            forked = [replace(one, seed=seed) for one, seed in zip(forked, seeds.tolist(), strict=True)]
        return PanState(tuple(forked))

    def select(self, rows: Int[Tensor, " n"]) -> "PanState":
        """These simulations, in this order."""
        return PanState(tuple(self.simulations[row] for row in rows.tolist()))

    def put(self, rows: Int[Tensor, " n"], other: "PanState") -> "PanState":
        """With these simulations replaced by those of `other`."""
        changed = dict(zip(rows.tolist(), other.simulations, strict=True))
        return PanState(tuple(changed.get(row, one) for row, one in enumerate(self.simulations)))

    def groups(self, most: int) -> Iterator[list[int]]:
        """Rows of at most `most` simulations that remember as much, so that their tensors can be stacked."""
        alike: dict[tuple[torch.Size, ...], list[int]] = {}
        for row, one in enumerate(self.simulations):
            alike.setdefault(tuple(part.shape for part in one.scene), []).append(row)
        for rows in alike.values():
            yield from (rows[first : first + most] for first in range(0, len(rows), most))

    def stack(self, rows: Sequence[int]) -> Scene:
        """What the simulations of a group remember."""
        return Scene(*map(torch.stack, zip(*(self.simulations[row].scene for row in rows), strict=True)))

    @isolated
    def snapshot(self) -> bytes:
        """Everything, as bytes that survive the process: what follows a `restore` is what would have followed."""
        tensors = {
            f"{row}.{name}": part.detach().cpu().contiguous()
            for row, one in enumerate(self.simulations)
            for name, part in one.scene._asdict().items()
        }
        rest = [{"said": one.said, "seed": one.seed, "count": one.count} for one in self.simulations]
        return save_bytes(tensors, {"pan_snapshot": json.dumps({"version": SNAPSHOT_VERSION, "simulations": rest})})

    @classmethod
    @isolated
    def restore(cls, blob: bytes, device: str | torch.device = "cpu") -> "PanState":
        """The state behind a `snapshot()`."""
        try:
            size = int.from_bytes(blob[:8], "little")
            meta = json.loads(json.loads(blob[8 : 8 + size])["__metadata__"]["pan_snapshot"])
            if (version := meta["version"]) == SNAPSHOT_VERSION:
                tensors = read_tensors(blob, torch.device(device))
                return cls(
                    tuple(
                        Simulation(
                            Scene(*(tensors[f"{row}.{name}"] for name in Scene._fields)),
                            tuple(rest["said"]), int(rest["seed"]), int(rest["count"]),
                        )
                        for row, rest in enumerate(meta["simulations"])
                    )
                )  # fmt: skip
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"these {len(blob)} bytes are not a snapshot of PAN, or are cut short") from None
        raise ValueError(f"snapshot version is {version}; this release reads {SNAPSHOT_VERSION}")
