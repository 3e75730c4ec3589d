"""Workers on a Ray cluster, on this machine or on many: the same tasks as `in_workers`, whose results come back here.

Ray starts the processes, sends results, and repeats a task whose worker or machine died.
"""

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

from worldgym.errors import UserError

from .workers import Result, WorkerUserError, attempt, raise_failure

RETRIES = 3
"""How often Ray repeats a task whose worker died, before the environment is to blame."""


def on_ray(
    task: Callable[[int], Result],
    indices: Sequence[int],
    workers: int,
    address: str,
    what: str = "episode",
    gpus: float = 0.0,
) -> Iterator[tuple[int, Result]]:
    """Call `task` with each of the indices, at most `workers` at a time, and yield (index, result) as they are done.

    Args:
        task: a function that the workers can import.
        workers: also the size of a cluster that "local" starts. Each takes one of a cluster's CPUs.
        address: `ray.init`'s; "local" starts a cluster on this machine, which ends with the last task.
        what: an index counts.
        gpus: of the cluster, that each task takes.

    Raises:
        WorkerError: as `in_workers` does; here a `WorkerUserError` if the worker of one index died `RETRIES` + 1 times.
        UserError: Ray is missing, or finds no cluster.
    """
    if not indices:
        return
    left = iter(indices)
    with _cluster(address, workers) as ray:
        remote = ray.remote(max_retries=RETRIES, num_gpus=gpus)(attempt)
        playing = {remote.remote(task, index): index for index in islice(left, workers)}
        while playing:
            (done,), _ = ray.wait(list(playing), num_returns=1)
            index = playing.pop(done)
            try:
                result, failure = ray.get(done)
            except ray.exceptions.RayError as error:
                raise WorkerUserError(f"Ray could not finish {what} {index}: {_last_line(error)}") from error
            raise_failure(f"{what} {index}", failure)
            playing |= {remote.remote(task, following): following for following in islice(left, 1)}
            yield index, result


@contextmanager
def _cluster(address: str, workers: int) -> Iterator[Any]:
    """Ray, connected to the cluster."""
    try:
        import ray
    except ImportError:
        raise UserError('--ray needs Ray: pip install "worldgym[ray]"') from None
    # What workers print, progress bars too, stays in Ray's log; how they fail comes back.
    options: dict[str, Any] = {"logging_level": "warning", "log_to_driver": False}
    if address == "local":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers
        options |= {"num_cpus": workers, "include_dashboard": False}
    try:
        if address not in ("local", "auto"):
            _knock(address)
        ray.init(address, **options)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"no Ray cluster at --ray {address}: {_last_line(error)}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raise at once if nobody listens there: Ray itself goes on trying for many minutes."""
    where = urlsplit(address if "//" in address else f"//{address}")
    if where.port is None:
        raise ValueError('it is neither "local" nor "auto" nor HOST:PORT nor ray://HOST:PORT')
    socket.create_connection((where.hostname, where.port), timeout=10).close()


def _last_line(error: Exception) -> str:
    """Of messages that have whole tracebacks in them."""
    return str(error).strip().splitlines()[-1]
