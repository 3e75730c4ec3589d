"""The conversation's tokens: the only place that counts them.

    prefix                        step 0                    step 1
    [context cells: k]            [state: k][action: 1]     [state: k][action: 1]   ...   + [queries: k]

With `predict="in_place"` the outputs at the state tokens are the next state. With `predict="queries"` (PAN's
layout) each step brings k query tokens whose outputs are the next state, and which no other step ever sees.
`predict="queries_kept"` is what that is measured against: all later steps see them, so they stay in the cache.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..config import DynamicsConfig, TokenizerConfig


@dataclass(frozen=True)
class TokenLayout:
    """Counts, masks and space-time positions of the tokens."""

    side: int
    """State tokens form a side x side grid."""
    window: int
    """Steps the cache has room for."""
    queries: bool
    keeps: bool = False
    """Whether later steps still attend to past queries."""

    @classmethod
    def of(cls, tokenizer: TokenizerConfig, dynamics: DynamicsConfig) -> "TokenLayout":
        if tokenizer.grid % dynamics.patch:
            raise ValueError(f"patch {dynamics.patch} does not divide the latent grid, {tokenizer.grid}")
        side, predict = tokenizer.grid // dynamics.patch, dynamics.predict
        return cls(side, dynamics.window, predict != "in_place", predict == "queries_kept")

    @property
    def past(self) -> "TokenLayout":
        """The layout of past steps: without the queries, if no later step attends to them."""
        return replace(self, queries=self.keeps)

    @property
    def cells(self) -> int:
        """Tokens of a state, of the prefix, and of the queries."""
        return self.side * self.side

    @property
    def kept(self) -> int:
        """Tokens of a step that stay in the cache: its state and its action."""
        return self.past.step

    @property
    def step(self) -> int:
        """Tokens that a step brings in all."""
        return self.cells + 1 + (self.cells if self.queries else 0)

    @property
    def output(self) -> slice:
        """Where in a step's tokens the predicted next state comes out."""
        return slice(self.cells + 1, self.step) if self.queries else slice(0, self.cells)

    def capacity(self, steps: int) -> int:
        """Cached tokens after this many steps."""
        return self.cells + steps * self.kept

    def slots(self, steps: int) -> int:
        """Slots of a cache for this many steps: the last one's queries need room for as long as it takes."""
        return self.capacity(steps) + self.step - self.kept

    def training_mask(self, steps: int, device: torch.device) -> Tensor:
        """bool [n, n], True where a row may look at a column, for a prefix and whole steps."""
        when = torch.cat([torch.zeros(self.cells), torch.arange(1, steps + 1).repeat_interleave(self.step)])
        private = torch.cat([torch.zeros(self.cells), self._private().repeat(steps)]).bool()
        same = when[:, None] == when[None]
        visible = when[None] < when[:, None]
        if not self.keeps:
            visible &= ~private[None]
        # Inside a step: queries see everything of it, states and actions see no query.
        visible |= same & (~private[None] | private[:, None])
        return visible.to(device)

    def step_mask(self, device: torch.device) -> Tensor:
        """bool [step, step], True where a row may look at a column, inside a step."""
        private = self._private().bool().to(device)
        return ~private[None] | private[:, None]

    def prefix_positions(self, device: torch.device) -> Tensor:
        """[3, 1, cells]: time 0 and the cells' row and column."""
        return self._cell_positions(torch.zeros(1, 1, device=device))

    def step_positions(self, when: Tensor) -> Tensor:
        """[3, b, t * step] for steps number `when` (long [b, t]): time, row, column of each token."""
        times = when.float() + 1
        cells = self._cell_positions(times)
        middle = torch.full_like(times, (self.side - 1) / 2)
        action = torch.stack([times, middle, middle])[..., None]
        parts = [cells.unflatten(-1, (when.shape[1], self.cells)), action]
        if self.queries:
            parts.append(parts[0])
        return torch.cat(parts, -1).flatten(2)

    def _cell_positions(self, times: Tensor) -> Tensor:
        side = torch.arange(self.side, device=times.device, dtype=torch.float)
        rows, columns = side.repeat_interleave(self.side), side.repeat(self.side)
        shape = (*times.shape, self.cells)
        return torch.stack([times[..., None].expand(shape), rows.expand(shape), columns.expand(shape)]).flatten(2)

    def _private(self) -> Tensor:
        """[step]: 1 for the queries, which inside a step only their own kind may see."""
        return (torch.arange(self.step) > self.cells).float()
