"""What processes that share a batch, row i in process i modulo their number, need to know of each other's rows.

A loss that is no mean over rows (it is relative to something measured in the batch, or the mean over a part of it) and
a codebook that follows its inputs look at the rows of all processes. In one process these functions change nothing.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
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


@contextmanager
def joined() -> Iterator[int]:
    """Within it, a process that torchrun or `accelerate launch` started is one of a group, with a GPU of its own where
    there are any; yields its rank. A process that was started alone has rank 0."""
    if "LOCAL_RANK" not in os.environ:
        yield 0
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("gloo")  # what is exchanged is in main memory
    try:
        yield distributed.get_rank()
    finally:
        distributed.destroy_process_group()


def share(count: int) -> np.ndarray:
    """Of that many rows, this process's: rank, rank + processes, ..."""
    return np.arange(distributed.get_rank() if several() > 1 else 0, count, several())


def whole(rows: np.ndarray, count: int) -> np.ndarray:
    """All processes' rows, where `rows` are those of `share(count)`. All of them have to ask."""
    processes = several()
    if processes == 1:
        return rows
    parts: list[np.ndarray | None] = [None] * processes
    distributed.all_gather_object(parts, rows)
    found = np.empty((count, *rows.shape[1:]), rows.dtype)
    for rank, part in enumerate(parts):
        found[rank::processes] = part
    return found
