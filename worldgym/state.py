"""Where dreams stand: a value that can be forked, selected from, and written down as bytes."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from safetensors import SafetensorError
from safetensors.torch import load as load_bytes
from safetensors.torch import save as save_bytes
from torch import Tensor

from .model.cache import KVCache
from .model.device import isolated
from .model.outcome_heads import OutcomeVotes

SNAPSHOT_VERSION = 6


@dataclass(frozen=True)
class Outcome:
    """What a step brought, for each dream."""

    reward: Float[Tensor, " b"]
    success: Float[Tensor, " b"]
    """Probability."""
    terminated: Float[Tensor, " b"]
    """Probability."""
    uncertainty: Float[Tensor, " b"]
    """Mean entropy of the drawn tokens, nats; not a number after an imagined step, which draws none."""

    @classmethod
    def of(cls, votes: OutcomeVotes, entropy: Float[Tensor, " b"]) -> "Outcome":
        """What the heads of an ensemble say together."""
        return cls(votes.reward.mean(0), votes.success.mean(0).sigmoid(), votes.terminated.mean(0).sigmoid(), entropy)


class Scored(NamedTuple):
    """The next frame of each dream, and what the heads say of it."""

    latent: Float[Tensor, "b z g g"]
    fused: Float[Tensor, "b f g g"]
    votes: OutcomeVotes
    entropy: Float[Tensor, " b"] | None

    @classmethod
    def joined(cls, parts: Sequence["Scored"]) -> "Scored":
        """Those of all dreams, block after block."""
        latents, maps, votes, entropies = zip(*parts, strict=True)
        return cls(
            torch.cat(latents),
            torch.cat(maps),
            OutcomeVotes(*(torch.cat(columns, 1) for columns in zip(*votes, strict=True))),
            None if entropies[0] is None else torch.cat(entropies),
        )


@dataclass(frozen=True)
class WorldState:
    """Where `b` dreams stand. A value, but for one economy: `step` and `put` write into the cache of the state they
    are given, which is then spent; `fork` it before if you want to go two ways."""

    context: Float[Tensor, "b f g g"]
    """Dense map of the observed frame that tokens are relative to."""
    latent: Float[Tensor, "b z g g"]
    """What the tokens of the newest frame add up to, and the share that is kept of what they leave out."""
    fused: Float[Tensor, "b f g g"]
    """What the newest frame shows; rewards and pixels are read off it."""
    past: Float[Tensor, "b m f g g"]
    """What the m frames before it show, oldest first: one less than the world has `observed`."""
    past_actions: Float[Tensor, "b m d"]
    """What was done at each of those."""
    cache: KVCache
    steps: Int[Tensor, " b"]
    """Steps in the cache, for each dream."""
    seeds: Int[Tensor, " b"]
    counters: Int[Tensor, " b"]
    """Steps dreamed so far; with the seed, all the randomness of a dream."""
    instruction: Float[Tensor, "b d"]
    """What rewards are judged by."""
    recurrent: Float[Tensor, "b s"]
    """The recurrent state: once the newest frame was observed, or of what it foresees, where that is drawn; of no width
    in a world that has none."""
    frame: UInt8[Tensor, "b h w c"]
    """The frame that the recurrent state observed last; of no height in a world that has none."""
    temperature: float = 0.0
    """Of the token distributions; 0 takes the likeliest token."""
    age: int = 0
    """Steps taken from the cache's birth; a spent state is older than its cache."""
    imagined: bool = False
    """Whether a step led here that drew no frame and moved the recurrent state alone; further steps do so, too."""

    def __len__(self) -> int:
        return len(self.seeds)

    @isolated
    def fork(self, copies: int, seeds: Int[Tensor, " n"] | None = None) -> "WorldState":
        """`copies` independent continuations of each dream, next to each other: [b * copies].

        They share their past, which is not copied, and, unless `seeds` (long [b * copies]) are given, their chances
        too: the same actions lead to the same future.
        """
        if copies < 1:
            raise ValueError(f"got {copies} copies to fork into; there must be at least one")
        self._check_fresh()
        tensors: dict[str, Any] = {name: getattr(self, name).repeat_interleave(copies, 0) for name in _TENSORS}
        forked = replace(self, cache=self.cache.fork(copies), age=0, **tensors)
        return forked if seeds is None else replace(forked, seeds=seeds.to(self.seeds))

    @isolated
    def select(self, dreams: Int[Tensor, " n"]) -> "WorldState":
        """A copy with these dreams, in this order."""
        self._check_fresh()
        tensors: dict[str, Any] = {name: getattr(self, name)[dreams] for name in _TENSORS}
        return replace(self, cache=self.cache.select(dreams), age=0, **tensors)

    @isolated
    def put(self, dreams: Int[Tensor, " n"], other: "WorldState") -> "WorldState":
        """With these dreams replaced by those of `other`; this state is then spent."""
        self._check_fresh()
        other._check_fresh()
        tensors: dict[str, Any] = {
            name: getattr(self, name).index_copy(0, dreams, getattr(other, name)) for name in _TENSORS
        }
        self.cache.age += 1
        cache = self.cache.put(dreams, other.cache)
        return replace(self, cache=cache, age=cache.age, imagined=self.imagined or other.imagined, **tensors)

    @isolated
    def snapshot(self) -> bytes:
        """Everything, as bytes that survive the process: what follows a `restore` is what would have followed."""
        self._check_fresh()
        tensors = {name: getattr(self, name) for name in _TENSORS}
        tensors["keys"], tensors["values"], tensors["filled"] = self.cache.whole()
        meta = {"version": SNAPSHOT_VERSION, "temperature": self.temperature, "imagined": self.imagined}
        return save_bytes(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
            {"worldgym_snapshot": json.dumps(meta)},
        )

    @classmethod
    @isolated
    def restore(cls, blob: bytes, device: str | torch.device = "cpu") -> "WorldState":
        """The state behind a `snapshot()`."""
        try:
            size = int.from_bytes(blob[:8], "little")
            meta = json.loads(json.loads(blob[8 : 8 + size])["__metadata__"]["worldgym_snapshot"])
            version, temperature, imagined = meta["version"], meta["temperature"], meta.get("imagined", False)
            tensors = load_bytes(blob)
        except (SafetensorError, ValueError, KeyError, TypeError):
            raise ValueError(f"these {len(blob)} bytes are not a snapshot of a dream, or are cut short") from None
        if version not in (4, 5, SNAPSHOT_VERSION):
            raise ValueError(f"snapshot version is {version}; this release reads 4, 5 and {SNAPSHOT_VERSION}")
        if version == 4:  # the same under an older name
            tensors["past_actions"] = tensors.pop("deeds")
        if meta.get("drafted"):
            raise ValueError("the snapshot is of dreams by a draft, which this release has no longer")
        if version < 6:  # of a world without a recurrent state
            dreams = len(tensors["seeds"])
            tensors["recurrent"] = torch.empty(dreams, 0)
            tensors["frame"] = torch.empty(dreams, 0, 0, 3, dtype=torch.uint8)
        here: dict[str, Any] = {name: tensor.to(device) for name, tensor in tensors.items()}
        cache = KVCache(here.pop("keys"), here.pop("values"), here.pop("filled").cpu())
        return cls(cache=cache, temperature=temperature, imagined=imagined, **here)

    def _check_fresh(self) -> None:
        if self.age != self.cache.age:
            raise ValueError(
                "this state was already stepped from and its cache has moved on; fork() it before stepping"
            )


_TENSORS = (
    "context", "latent", "fused", "past", "past_actions", "steps", "seeds", "counters", "instruction", "recurrent",
    "frame",
)  # fmt: skip
