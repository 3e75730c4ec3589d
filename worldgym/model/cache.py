"""Keys and values of a dream's past, which forks share instead of copying."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ..config import DynamicsConfig


@dataclass
class Pass:
    """Where the tokens of one cached step stand."""

    slots: slice | Int[Tensor, "b n"]
    reach: int
    """Slots that are looked at."""
    mask: Bool[Tensor, "#b 1 #n past"] | None
    """None if every new token sees everything."""


class KVCache:
    """Keys and values of the past, in slots, with each dream as far along as it is.

    Slots below a dream's `filled` are never written again while other dreams share them. So a fork copies nothing: its
    dreams look at their parent's slots, the *trunk*, and write into slots of their own.
    """

    def __init__(self, keys: Tensor, values: Tensor, filled: Int[Tensor, " b"]):
        self.keys = keys
        """[layers, b, kv_heads, slots, head_dim]."""
        self.values = values
        self.filled = filled
        """On the host: slots of its own that each dream has filled."""
        self.age = 0
        """Steps written so far; a state that is younger has been left behind."""
        self.trunk: KVCache | None = None
        self.copies = 1
        """Dreams that look at one dream of the trunk, next to each other."""
        self.rooted = torch.ones(len(filled), dtype=torch.bool)
        """On the host: whether a dream still attends to the trunk, or has started a new window since."""
        self.now: Pass | None = None
        self._shared = False
        self._finite = int(filled.max()) if len(filled) else 0  # slots from here on may hold anything

    @classmethod
    def empty(cls, config: DynamicsConfig, batch: int, slots: int, like: Tensor) -> "KVCache":
        shape = (config.layers, batch, config.kv_heads, slots, config.width // config.heads)
        return cls(like.new_empty(shape), like.new_empty(shape), torch.zeros(batch, dtype=torch.long))

    def __len__(self) -> int:
        return len(self.filled)

    @property
    def lengths(self) -> Int[Tensor, " b"]:
        """On the host: past tokens that each dream sees."""
        if self.trunk is None:
            return self.filled
        return self.filled + self.trunk.filled.repeat_interleave(self.copies) * self.rooted

    @property
    def even(self) -> bool:
        """Whether all dreams see equally many tokens."""
        lengths = self.lengths
        return bool((lengths == lengths[0]).all())

    @property
    def level(self) -> bool:
        """Whether all dreams see the same slots: equally many of their own, and equally many of a trunk."""
        trunk = self.trunk
        if bool((self.filled != self.filled[0]).any()):
            return False
        return trunk is None or (bool(self.rooted.all()) and bool((trunk.filled == trunk.filled[0]).all()))

    # -- one pass ---------------------------------------------------------------------------------------------------

    def begin(self, own: Bool[Tensor, "n n"] | None, count: int) -> None:
        """Make room for `count` new tokens a dream.

        Args:
            own: which of them (row) sees which (column); None if they all see each other.
        """
        first, last = int(self.filled.min()), int(self.filled.max())
        reach, device = last + count, self.keys.device
        if reach > self.keys.shape[3]:
            raise ValueError(f"the cache has {self.keys.shape[3]} slots; this step needs {reach}")
        if first == last:
            self._finite = max(self._finite, reach)
            slots: slice | Tensor = slice(first, reach)
        else:
            self._clear(reach)
            slots = (self.filled[:, None] + torch.arange(count)).to(device)
        self.now = Pass(slots, reach, self._mask(own, count, reach))

    def _mask(self, own: Tensor | None, count: int, reach: int) -> Tensor | None:
        """bool [b or 1, 1, n or 1, trunk + reach], True where a new token may look; None if it may look everywhere."""
        device, trunk = self.keys.device, self.trunk
        if self.level:
            if own is None:
                return None
            past = torch.ones(count, reach - count + (0 if trunk is None else trunk.keys.shape[3]), dtype=torch.bool)
            return torch.cat([past.to(device), own], 1)[None, None]
        offset = torch.arange(reach) - self.filled[:, None]  # [b, reach], 0 at the first new token
        if own is None:
            mask = (offset < count)[:, None].to(device)
        else:
            offset = offset.to(device)
            mask = own[:, offset.clamp(0, count - 1)].transpose(0, 1)
            mask = (offset < 0)[:, None] | mask & (offset < count)[:, None]
        if trunk is not None:
            known = torch.arange(trunk.keys.shape[3]) < trunk.filled[:, None]
            known = known.repeat_interleave(self.copies, 0) & self.rooted[:, None]
            mask = torch.cat([known.to(device)[:, None].expand(-1, mask.shape[1], -1), mask], -1)
        return mask[:, None]

    def update(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Write a layer's new keys and values; returns them with the dreams' own past, [b, kv_heads, reach, d]. A trunk
        is left to `forked_attention`."""
        assert self.now is not None, "begin() a pass first"
        seen = []
        for past, new in ((self.keys, keys), (self.values, values)):
            new = new.to(past.dtype)
            if isinstance(self.now.slots, slice):
                past[layer, :, :, self.now.slots] = new
            else:
                past[layer].scatter_(2, self.now.slots[:, None, :, None].expand_as(new), new)
            view = past[layer, :, :, : self.now.reach]
            # Where gradients are wanted, the next pass must not write into the memory that they need.
            seen.append(view.clone() if view.requires_grad and torch.is_grad_enabled() else view)
        return seen[0], seen[1]

    def end(self, keep: int) -> None:
        """Of the new tokens the first `keep` stay; the next pass overwrites the others."""
        self.filled += keep
        self.now = None

    def seen(self) -> tuple[Tensor, Tensor]:
        """Keys and values of all that dreams see which are `level`, [layers, b, kv_heads, m, d] each."""
        filled, trunk = int(self.filled[0]), self.trunk
        keys, values = self.keys[:, :, :, :filled], self.values[:, :, :, :filled]
        if trunk is None:
            return keys, values
        old = (part.repeat_interleave(self.copies, 1) for part in (trunk.keys, trunk.values))
        keys, values = (torch.cat(parts, 3) for parts in zip(old, (keys, values), strict=True))
        return keys, values

    def append(self, keys: Tensor, values: Tensor, keep: int) -> None:
        """Write what a pass elsewhere made of new tokens, [layers, b, kv_heads, n, d] each; the first `keep` stay."""
        self.begin(None, keys.shape[3])
        for layer in range(len(keys)):
            self.update(keys[layer], values[layer], layer)
        self.end(keep)

    def _clear(self, reach: int) -> None:
        """What is masked is still multiplied, by 0: it has to be finite."""
        if reach > self._finite:
            self.keys[:, :, :, self._finite : reach] = 0
            self.values[:, :, :, self._finite : reach] = 0
            self._finite = reach

    # -- many dreams --------------------------------------------------------------------------------------------------

    def fork(self, copies: int) -> "KVCache":
        """`copies` of each dream, next to each other, that share its past."""
        parent = self if self.trunk is None else self.select(torch.arange(len(self), device=self.keys.device))
        parent._shared = True
        seen = int(parent.filled.max())
        shape = list(self.keys.shape)
        shape[1] *= copies
        nothing = torch.zeros(shape[1], dtype=torch.long)
        forked = KVCache(self.keys.new_empty(shape), self.keys.new_empty(shape), nothing)
        forked.trunk = KVCache(parent.keys[:, :, :, :seen], parent.values[:, :, :, :seen], parent.filled.clone())
        forked.copies = copies
        return forked

    def select(self, dreams: Int[Tensor, " n"]) -> "KVCache":
        """A copy with these dreams, in this order, that shares nothing."""
        host = dreams.cpu()
        lengths = self.lengths[host]
        top = int(lengths.max()) if len(lengths) else 0
        shape = list(self.keys.shape)
        shape[1] = len(dreams)
        chosen = KVCache(self.keys.new_empty(shape), self.keys.new_empty(shape), lengths.clone())
        for name in ("keys", "values"):
            own = getattr(self, name)
            if self.trunk is None:
                whole = own[:, :, :, :top].index_select(1, dreams)
            else:
                reach = int(self.filled[host].max()) if len(host) else 0
                old = getattr(self.trunk, name).index_select(1, dreams // self.copies)
                new = own[:, :, :, :reach].index_select(1, dreams)
                whole = torch.cat([old, torch.zeros_like(new)], 3)
                slots = (lengths - self.filled[host])[:, None] + torch.arange(reach)
                index = slots.to(dreams.device)[None, :, None, :, None].expand_as(new)
                whole = whole.scatter(3, index, new.nan_to_num())[:, :, :, :top]
            getattr(chosen, name)[:, :, :, :top] = whole
        return chosen

    def put(self, dreams: Int[Tensor, " n"], other: "KVCache") -> "KVCache":
        """With these dreams replaced by those of another cache of the same capacity; in place if nothing shares it."""
        if self.trunk is not None or self._shared:
            mine = self.select(torch.arange(len(self), device=self.keys.device))
        else:
            mine = self
        if other.trunk is not None:
            other = other.select(torch.arange(len(other), device=self.keys.device))
        top = int(other.filled.max()) if len(other) else 0
        mine._clear(top)
        mine.keys[:, dreams, :, :top] = other.keys[:, :, :, :top]
        mine.values[:, dreams, :, :top] = other.values[:, :, :, :top]
        mine.filled[dreams.cpu()] = other.filled
        return mine

    def whole(self) -> tuple[Tensor, Tensor, Tensor]:
        """(keys, values, filled) without a trunk; free slots are zeros, so that equal dreams are equal bytes."""
        if self.trunk is not None:
            return self.select(torch.arange(len(self), device=self.keys.device)).whole()
        slots = self.keys.shape[3]
        free = (torch.arange(slots) >= self.filled[:, None]).to(self.keys.device)[None, :, None, :, None]
        for part in (self.keys, self.values):
            part.masked_fill_(free, 0)
        self._finite = slots
        return self.keys, self.values, self.filled
