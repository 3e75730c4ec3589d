"""How a command ends: a user's Ctrl-C or mistake is one line."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


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
