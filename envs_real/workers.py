"""Worker processes of a recording: each calls a task with one index after the other.

Whatever happens in one of them, an exception that cannot be pickled or the end of the process, is told by name.
"""

import multiprocessing
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from worldgym.errors import UserError
from worldgym.interrupt import is_users


class WorkerError(RuntimeError):
    """An error in a worker process; its cause has the worker's traceback."""


class WorkerUserError(WorkerError, UserError):
    """A `WorkerError` that is no bug of the package."""


Failure = tuple[type[WorkerError], str, str]
"""An exception as what can be pickled: what it becomes, its message, its traceback."""
Result = TypeVar("Result")


def attempt(task: Callable[[int], Result], index: int) -> tuple[Result | None, Failure | None]:
    """In a worker: what the task gives, or how it failed."""
    try:
        return task(index), None
    except (Exception, SystemExit) as error:
        kind = WorkerUserError if isinstance(error, Exception) and is_users(error) else WorkerError
        told = traceback.TracebackException.from_exception(error)
        message = str(error) if kind is WorkerUserError else "".join(told.format_exception_only()).strip()
        return None, (kind, message, "".join(told.format()))


def raise_failure(what: str, failure: Failure | None) -> None:
    """Raise what went wrong in the worker, if anything did, with `what` it was at."""
    if failure is not None:
        kind, message, trace = failure
        raise kind(f"{what}: {message}") from RuntimeError(f"in the worker:\n{trace}")


def in_workers(task: Callable[[int], Any], indices: Sequence[int], workers: int) -> Iterator[int]:
    """Call `task` with each of the indices in that many processes, and yield them as they are done.

    The first failure ends it: an exception, which need not be one that can be pickled, or a process that dies. Then,
    and if it is left early, all processes are ended.

    Raises:
        WorkerError: naming the index and what happened; a `WorkerUserError` if `task` raised a `UserError` or an
            `OSError`, or its process died, as it does of a crash in a driver.
    """
    left = iter(indices)
    with ExitStack() as processes:
        at: dict[Connection, tuple[Any, int]] = {}  # each pipe's process, and what it is at
        for _ in range(workers):
            process, pipe = processes.enter_context(_worker(task))
            pipe.send(index := next(left))
            at[pipe] = process, index
        while at:
            ready = wait(list(at))
            for pipe in [one for one in at if one in ready]:
                process, index = at.pop(pipe)
                try:
                    failure = pipe.recv()
                except EOFError:
                    process.join()
                    raise WorkerUserError(_died(index, process.exitcode)) from None
                raise_failure(f"episode {index}", failure)
                yield index
                if (following := next(left, None)) is not None:
                    pipe.send(following)
                    at[pipe] = process, following


@contextmanager
def _worker(task: Callable[[int], Any]) -> Iterator[tuple[Any, Connection]]:
    context = multiprocessing.get_context("spawn")  # a forked EGL hangs
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(task, there))
    process.start()
    there.close()  # so that the pipe ends when the process does
    try:
        yield process, here
    except BaseException:
        process.terminate()
        raise
    finally:
        here.close()
        process.join(5)
        process.kill()  # what has not ended by itself
        process.join()


def _work(task: Callable[[int], Any], pipe: Connection) -> None:
    """A worker: it ends when its pipe does, so also when the process that records was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that records, which ends its workers
    while True:
        try:
            index = pipe.recv()
        except EOFError:
            return
        _, failure = attempt(task, index)
        try:
            pipe.send(failure)
        except BrokenPipeError:
            return


def _died(index: int, exit_code: int) -> str:
    how = f"with exit status {exit_code}"
    if exit_code < 0:
        how = f"by {signal.Signals(-exit_code).name}"
    return (
        f"a worker process died {how} while it played episode {index}: the environment or a driver ended it, or the "
        "system did because memory ran out, which fewer --workers avoid"
    )
