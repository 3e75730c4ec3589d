"""Several processes that train one model on the CPU, from the plain command, by torch's own elastic agent.

Small matrices leave a second thread half idle; a second process does not wait. Measured on two cores: 256 frames
take 0.8 s in two processes of one thread, 1.1 s in one process of two.
"""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import parent_process
from multiprocessing.connection import wait
from typing import Any

import torch
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from ..errors import UserError
from ..model.device import pick_device


def launched() -> bool:
    """Whether torchrun, `accelerate launch` or `launch` started this process as one of several."""
    return "LOCAL_RANK" in os.environ


def launch(train: Callable[[Any], None], config: Any) -> None:
    """Call `train(config)` in as many processes as `config.processes` says.

    On a GPU, and in a process that torchrun or `accelerate launch` started, it is called in this one.

    Raises:
        RuntimeError: one of the processes ended; it says which and why. The others are ended, too.
        KeyboardInterrupt: all processes were told to stop, and saved.
    """
    if config.processes == 1 or launched() or pick_device(config.device).type != "cpu":
        train(config)
        return
    here = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=config.processes, max_restarts=0, monitor_interval=0.05,
        run_id="worldgym", rdzv_backend="c10d", rdzv_endpoint="localhost:0", local_addr="localhost",
    )  # fmt: skip
    stopped = KeyboardInterrupt("the same command continues from the last checkpoint")
    with _as_it_was():
        try:
            elastic_launch(here, _work)(train, config)
        except SignalException as received:  # the agent has handed it on and waited for the processes to end
            raise (stopped if received.sigval == signal.SIGINT else received) from None
        except ChildFailedError as failed:
            rank, failure = failed.get_first_failure()
            if failure.exitcode == 128 + signal.SIGINT:
                raise stopped from None
            raise _told(f"process {rank} of {config.processes}", failure) from None


def _work(train: Callable[[Any], None], config: Any) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    threads = max(1, (os.cpu_count() or 1) // config.processes)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)
    try:
        train(config)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _end_with_parent() -> None:
    """Else a killed run's processes would train on, and write into the folder of the run that resumes it."""
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _told(process: str, failure: ProcessFailure) -> Exception:
    """The error that ended a process. A user's mistake remains one; any other error comes with its traceback."""
    if isinstance(failure.message, str):
        return RuntimeError(f"{process} ended: {failure.message}")
    kind, _, text = failure.message["message"].partition(": ")
    if kind == "UserError":
        return UserError(text)
    return RuntimeError(f"{process} ended: {kind}: {text}\n{failure.message['extraInfo']['py_callstack']}")


@contextmanager
def _as_it_was() -> Iterator[None]:
    """Torch's agent handles signals and logs. Afterwards the handlers are as before; raises the error that matters."""
    log = logging.getLogger("torch.distributed.elastic")
    silent, log.propagate = logging.NullHandler(), False
    log.addHandler(silent)
    taken = [getattr(signal, name, None) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")]
    before = {number: signal.getsignal(number) for number in taken if number is not None}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)
        log.removeHandler(silent)
        log.propagate = True
