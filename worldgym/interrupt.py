"""Ctrl-C, taken between two steps: what runs long saves where it is, and the same command goes on from there.

with between_steps() as interrupted:
    for step in range(first, steps):
        ...
        if interrupted():
            save(step)
            raise KeyboardInterrupt(f"saved at step {step}")

In the middle of a step weights may be new and the optimizer's state old: nothing to go on from. A command, within
`in_one_line()`, ends with what the interruption says, and not with a traceback.
"""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import parent_process


@contextmanager
def between_steps() -> Iterator[Callable[[], bool]]:
    """Within it a first Ctrl-C is only noted, which the function that it gives tells; a second one is as ever.

    Outside the main thread, where Python lets nobody take signals, nothing is ever noted.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    noted = False

    def note(number: int, frame: object) -> None:
        nonlocal noted
        if noted:
            raise KeyboardInterrupt
        noted = True
        if parent_process() is None:
            print("\ninterrupted: saving after this step; once more, and it stops at once", file=sys.stderr)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: noted
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def in_one_line() -> Iterator[None]:
    """A command's Ctrl-C, or a mistake of its user's, is one line and an exit status, not a traceback."""
    try:
        yield
    except (ValueError, TypeError, OSError, ImportError) as error:
        print(f"worldgym: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt as interruption:  # what can go on says how
        print(f"worldgym: interrupted{f', {interruption}' if interruption.args else ''}", file=sys.stderr)
        raise SystemExit(128 + signal.SIGINT) from None
