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

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dis import opmap
from multiprocessing import parent_process

from .errors import UserError


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


BUG = (
    "worldgym: this is a bug of ours, not a mistake of yours. Please report it to the maintainers with all of the above"
)


@contextmanager
def in_one_line() -> Iterator[None]:
    """A command's Ctrl-C, or a mistake of its user, is one line and an exit status, not a traceback.

    A bug of ours keeps its traceback and says so. `WORLDGYM_TRACEBACK=1` shows every traceback.
    """
    try:
        yield
    except KeyboardInterrupt as interruption:  # what can be continued says how
        print(f"worldgym: interrupted{f', {interruption}' if interruption.args else ''}", file=sys.stderr)
        raise SystemExit(128 + signal.SIGINT) from None
    except Exception as error:
        if not is_users(error):
            error.add_note(BUG)
            raise
        if os.environ.get("WORLDGYM_TRACEBACK") == "1":
            raise
        print(f"worldgym: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def is_users(error: Exception) -> bool:
    """Whether an error is a mistake of the user, or a fault of the machine such as a full disk or a missing file.

    `UserError` and `OSError` always are. So is a `ValueError`, `TypeError` or `ImportError` that a `raise` statement of
    our own code raised, to say what was wrong with an argument. The same types from anywhere else, such as a library
    that we called wrongly, are bugs of ours.
    """
    if isinstance(error, (UserError, OSError)):
        return True
    if not isinstance(error, (ValueError, TypeError, ImportError)):
        return False
    innermost = error.__traceback__
    while innermost is not None and innermost.tb_next is not None:
        innermost = innermost.tb_next
    if innermost is None:
        return False
    frame = innermost.tb_frame
    ours = str(frame.f_globals.get("__name__")).startswith("worldgym.")
    return ours and frame.f_code.co_code[innermost.tb_lasti] == opmap["RAISE_VARARGS"]
