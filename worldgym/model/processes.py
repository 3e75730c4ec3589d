"""What processes that share a batch, row i in process i modulo their number, need to know of each other's rows.

A loss that is no mean over rows (it is relative to something measured in the batch, or the mean over a part of it) and
a codebook that follows its inputs look at the rows of all processes. In one process these functions change nothing.
"""

import torch
from torch import Tensor, distributed


def several() -> int:
    """How many there are."""
    if not distributed.is_available() or not distributed.is_initialized():
        return 1
    return distributed.get_world_size()


def mean_of_processes(value: Tensor) -> Tensor:
    """The mean of what each process measured in its rows. No gradient passes."""
    processes = several()
    if processes == 1:
        return value
    total = value.detach().clone()
    distributed.all_reduce(total)
    return total / processes


def rows_of_processes(rows: Tensor) -> Tensor:
    """All processes' rows, [b, ...] -> [b * processes, ...], in the order of the whole batch. No gradient passes."""
    processes = several()
    if processes == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(processes)]
    distributed.all_gather(parts, rows.detach().contiguous())
    return torch.stack(parts, 1).flatten(0, 1)
