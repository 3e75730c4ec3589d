"""How a command ends: a user's Ctrl-C or mistake becomes one line."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dis import opmap

from .errors import UserError

BUG = (
    "worldgym {}: this is a bug in WorldGym, not a mistake of yours. Please report it where you got WorldGym, with "
    "your command and everything above"
)


@contextmanager
def in_one_line(version: str) -> Iterator[None]:
    """Turn Ctrl-C or a user's mistake into one line and an exit status instead of a traceback.

    A bug in WorldGym keeps its traceback and says so, with the `version`. `WORLDGYM_TRACEBACK=1` shows every traceback.
    """
    try:
        yield
    except KeyboardInterrupt as interruption:  # what can be continued says how
        print(f"worldgym: interrupted{f', {interruption}' if interruption.args else ''}", file=sys.stderr)
        raise SystemExit(128 + signal.SIGINT) from None
    except Exception as error:
        if not is_users(error):
            error.add_note(BUG.format(version))
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
