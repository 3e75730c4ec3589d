"""The order in which training draws episodes from shards: shuffled, exact, and a function of the number of the draw.

An epoch lays the shards on a circle, in a random order, and a window of neighbouring shards moves round it once. The
window advances by one shard in each slot. The draws of a shard are shuffled and dealt out over the slots in which the
window has it, and the draws of a slot are shuffled together. So

- a slot mixes episodes of all shards in the window, and needs one shard that the slot before it did not;
- every draw happens exactly once in an epoch;
- what is drawn at a step is known without going through the steps before it.
"""

from functools import lru_cache

import numpy as np

_STREAM = 0x0E90C4
"""Keeps these random numbers apart from those of the stages."""


class EpochOrder:
    """Draws of episodes that lie in shards.

    Args:
        episodes: int [e], those that may be drawn.
        shards: int [e], the shard of each.
        draws: int [e], how often an epoch draws each.
        window: shards that are mixed at a time.
    """

    def __init__(self, episodes: np.ndarray, shards: np.ndarray, draws: np.ndarray, window: int):
        placed = np.argsort(shards, kind="stable")
        self.shards, begins = np.unique(shards[placed], return_index=True)
        self.members = [np.repeat(episodes[one], draws[one]) for one in np.split(placed, begins[1:])]
        self.window = min(window, len(self.shards))
        self.length = int(draws.sum())
        """Draws in an epoch."""
        self._epoch, self._slot = lru_cache(2)(self._make_epoch), lru_cache(8)(self._make_slot)

    def batch(self, seed: int, step: int, size: int) -> np.ndarray:
        """The episodes of batch number `step`, int [size]: draws `step * size` to `(step + 1) * size - 1`."""
        taken: list[np.ndarray] = []
        now, missing = step * size, size
        while missing:
            epoch, slot, begin = self._place(seed, now)
            taken.append(self._slot(seed, epoch, slot)[begin : begin + missing])
            now, missing = now + len(taken[-1]), missing - len(taken[-1])
        return np.concatenate(taken)

    def needs(self, seed: int, step: int, size: int, ahead: int) -> list[int]:
        """The shards in the window of this batch, and those that enter it in the next `ahead` slots."""
        (before, first, _), (epoch, last, _) = (
            self._place(seed, draw) for draw in (step * size, (step + 1) * size - 1)
        )
        order, _ = self._epoch(seed, epoch)
        following = order[last + 1 : last + 1 + ahead]
        if len(following) < ahead:
            following = np.concatenate([following, self._epoch(seed, epoch + 1)[0][: ahead - len(following)]])
        found = [*self._window(seed, before, first), *self._window(seed, epoch, last), *following]
        return list(dict.fromkeys(self.shards[found].tolist()))

    def _place(self, seed: int, draw: int) -> tuple[int, int, int]:
        """(epoch, slot, place within the slot) of a draw."""
        epoch, within = divmod(draw, self.length)
        _, ends = self._epoch(seed, epoch)
        slot = int(np.searchsorted(ends, within, side="right"))
        return epoch, slot, within - (int(ends[slot - 1]) if slot else 0)

    def _make_epoch(self, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The order of the shards, and the number of draws up to the end of each slot."""
        count, parts = len(self.shards), np.arange(self.window)
        order = np.random.default_rng([seed, _STREAM, epoch]).permutation(count)
        draws = np.array([len(self.members[one]) for one in order])[:, None]
        sizes = draws // self.window + (parts < draws % self.window)  # the first parts have one more
        slots = np.arange(count)[:, None]
        return order, sizes[(slots - parts) % count, parts].sum(1).cumsum()

    def _make_slot(self, seed: int, epoch: int, slot: int) -> np.ndarray:
        parts = []
        for part, shard in enumerate(self._window(seed, epoch, slot).tolist()):
            dealt = np.random.default_rng([seed, _STREAM, epoch, 1, shard]).permutation(self.members[shard])
            each, more = divmod(len(dealt), self.window)
            begin = part * each + min(part, more)
            parts.append(dealt[begin : begin + each + (part < more)])
        return np.random.default_rng([seed, _STREAM, epoch, 2, slot]).permutation(np.concatenate(parts))

    def _window(self, seed: int, epoch: int, slot: int) -> np.ndarray:
        """The shards in it, the newest first, as indices of `shards`."""
        order, _ = self._epoch(seed, epoch)
        return order[(slot - np.arange(self.window)) % len(order)]
