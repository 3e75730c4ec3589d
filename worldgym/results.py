"""Result files: every published figure with the command, commit, seed and hardware that made it."""

import errno
import json
import math
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import torch


def write_results(path: Path, seed: int, metrics: dict[str, Any], commit: str) -> None:
    """Write `metrics` with their provenance, as JSON, in one rename.

    Args:
        commit: `current_commit()` of when the measurement began; the checkout may have moved on since.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(provenance(seed, metrics, commit), encoding="utf-8")
    temporary.rename(path)


def check_results(path: Path) -> None:
    """Before anything long is done that ends in results: can they be written there?"""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=path.parent):
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, "it is a folder")
    except OSError as error:
        raise OSError(f"cannot write figures to {path}: {error.strerror}") from None


def provenance(seed: int, metrics: dict[str, Any], commit: str) -> str:
    """`metrics` and what made them: command, commit, seed and machine, as JSON."""
    called = Path(sys.argv[0])  # by its name, or as python -m worldgym
    ours = called.name == "worldgym" or called.parts[-2:] == ("worldgym", "__main__.py")
    content = {
        "command": shlex.join(["worldgym", *sys.argv[1:]] if ours else sys.argv),
        "commit": commit,
        "seed": seed,
        "hardware": hardware(),
        "metrics": metrics,
    }
    return json.dumps(_finite(content), indent=1, allow_nan=False, default=str) + "\n"


def _finite(value: Any) -> Any:
    """JSON knows neither nan nor infinity: such figures become null."""
    match value:
        case dict():
            return {key: _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
        case float():
            return value if math.isfinite(value) else None
        case _:
            return value


def hardware() -> dict[str, Any]:
    """The machine and the versions that figures depend on."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [
            line.split(":")[1].strip()
            for line in info.read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ]
        cpu = models[0] if models else cpu
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def current_commit() -> str:
    """The checkout's commit, and whether anything differs from it."""

    def git(*arguments: str) -> str:
        where = Path(__file__).parent
        return subprocess.run(["git", *arguments], cwd=where, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!*results*")
        return git("rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "not a git checkout"
