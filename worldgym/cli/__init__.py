"""The command line, `worldgym`: a file a command, and the only place that composes the library with its planners, its
agents and the real worlds.

Each file holds what its command can be asked for, a dataclass, and a function of it. Nothing heavy is imported before
that function runs, so `--help` is quick; `main.py` lists the commands.
"""

from .main import main

__all__ = ["main"]
