"""Files that appear whole or not at all, one writer at a time, and never on a disk that is too small for them."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from .errors import UserError

SPARE = 32 * 2**20
"""Bytes to leave free on a disk. HDF5 needs some to close a file; where it finds none, it ends the process."""


@contextmanager
def whole_folder(target: Path, within: Path | None = None) -> Iterator[Path]:
    """A new folder to fill. In the end it becomes `target`; if anything goes wrong, nothing of it is left.

    Args:
        target: must not exist.
        within: the existing folder in which the new one has its temporary, hidden name; by default that of `target`,
            or the nearest one above it that exists.

    Raises:
        FileExistsError: another process wrote `target` meanwhile.
    """
    within = next(folder for folder in target.absolute().parents if folder.exists()) if within is None else within
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=within))
    temporary.chmod(0o755)  # mkdtemp makes folders for their owner alone
    try:
        yield temporary
        if target.exists():
            raise FileExistsError(f"{target} exists by now; another process wrote it")
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary)
        raise


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """An empty folder that takes the place of `folder` in one rename once all is in it; if anything goes wrong, nothing
    of it is left and `folder` is as it was."""
    temporary, old = folder.with_name(folder.name + ".tmp"), folder.with_name(folder.name + ".old")
    shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed
    temporary.mkdir(parents=True)
    try:
        yield temporary
    except BaseException:
        shutil.rmtree(temporary)
        raise
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.rename(folder, old)
    os.rename(temporary, folder)
    shutil.rmtree(old, ignore_errors=True)


def recover(folder: Path) -> None:
    """Put back what was in a folder whose writer was killed between the two renames of `replacing`."""
    old = folder.with_name(folder.name + ".old")
    if old.exists() and not folder.exists():
        with suppress(FileNotFoundError):  # another process of the same run was faster
            os.rename(old, folder)


@contextmanager
def alone(lock: Path, doing: str) -> Iterator[None]:
    """Within it, every other process that wants the same lock file is refused; a killed process frees its lock.

    Raises:
        UserError: another process has the lock; `doing` says in the message what it does.
    """
    held = FileLock(lock)
    try:
        held.acquire(timeout=0)
    except Timeout:
        raise UserError(f"another process is {doing}; wait until it ends, or choose another name") from None
    try:
        yield
    finally:
        held.release()


def check_room(folder: Path, size: int) -> None:
    """An OSError if the disk that holds `folder` has not `size` bytes left, and some to spare."""
    free = shutil.disk_usage(folder).free
    if free < size + SPARE:
        raise OSError(
            errno.ENOSPC,
            f"the disk is full: {size / 1e6:,.1f} MB are to be written, besides {SPARE / 1e6:,.0f} MB to spare, and "
            f"{free / 1e6:,.1f} MB are free",
            str(folder),
        )
