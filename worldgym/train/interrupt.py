"""Ctrl-C, taken between two steps: what runs long saves where it is, and the same command continues from there.

with between_steps() as interrupted:
    for step in range(first, steps):
        ...
        if interrupted():
            save(step)
            raise KeyboardInterrupt(f"saved at step {step}")

In the middle of a step weights may be new and the optimizer's state old: nothing to continue from.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def between_steps() -> Iterator[Callable[[], bool]]:
    """Within it, a first Ctrl-C only sets a flag, which the yielded function returns; a second one interrupts as usual.

    In a process that a launcher started, no Ctrl-C interrupts: the terminal and the launcher both send it the same
    Ctrl-C, and the user's second one ends the launcher. Outside the main thread Python allows no signal handlers, so
    the flag is never set.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    noted, rank = False, os.environ.get("LOCAL_RANK")

    def note(number: int, frame: object) -> None:
        nonlocal noted
        if noted and rank is None:
            raise KeyboardInterrupt
        if not noted and rank in (None, "0"):
            print("\ninterrupted: saving after this step; once more, and it stops at once", file=sys.stderr)
        noted = True

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: noted
    finally:
        signal.signal(signal.SIGINT, before)
