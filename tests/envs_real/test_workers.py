"""Worker processes that play: whatever happens to one, the recording ends, and says what it was."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from worldgym.envs_real.workers import WorkerError, in_workers
from worldgym.errors import UserError

TASKS = '''
import os, signal, sys, time

from worldgym.errors import UserError


class Unpicklable(Exception):
    """Is made of two things, and pickled as one."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


class Unprintable(Exception):
    def __str__(self):
        raise ZeroDivisionError


def raises(error):
    raise error


ENDS = {
    "exit": lambda: os._exit(9),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "system exit": lambda: sys.exit("enough"),
    "unpicklable": lambda: raises(Unpicklable("this", "that")),
    "unprintable": lambda: raises(Unprintable()),
    "theirs": lambda: raises(UserError("the robot has no arms")),
    "full disk": lambda: raises(OSError(28, "No space left on device", "there")),
}


def works(index):
    open(f"{index}.done", "x").close()


def ends(how, index):
    if index == 2:
        ENDS[how]()
    works(index)


def lasts(index):
    open(f"{os.getpid()}.pid", "x").close()
    time.sleep(0.5)
'''


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Where workers find their tasks, and leave what they did."""
    (tmp_path / "tasks.py").write_text(TASKS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("tasks", None)


def test_all_is_done_once(folder):
    from tasks import works

    assert sorted(in_workers(works, range(5), 2)) == list(range(5))
    assert sorted(path.name for path in folder.glob("*.done")) == [f"{index}.done" for index in range(5)]
    assert list(in_workers(works, [], 0)) == []


@pytest.mark.parametrize(
    ("how", "ours", "says"),
    [
        ("exit", False, "died with exit status 9 while it played episode 2"),
        ("kill", False, "died by SIGKILL while it played episode 2.*fewer --workers"),
        ("system exit", True, "episode 2: SystemExit: enough"),
        ("unpicklable", True, "episode 2: tasks.Unpicklable: this and that"),
        ("unprintable", True, "episode 2: tasks.Unprintable: <exception str.. failed>"),
        ("theirs", False, "episode 2: the robot has no arms"),
        ("full disk", False, r"episode 2: .Errno 28. No space left on device: 'there'"),
    ],
)
def test_a_failure_ends_it_with_its_cause(folder, how, ours, says):
    """What is a mistake of ours has its traceback; what came before is done."""
    from tasks import ends

    with pytest.raises(WorkerError, match=says) as failure:
        list(in_workers(partial(ends, how), range(4), 1))
    assert isinstance(failure.value, UserError) is not ours
    if ours:
        assert "tasks.py" in str(failure.value.__cause__)
    assert [path.name for path in sorted(folder.glob("*.done"))] == ["0.done", "1.done"]


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")
def test_workers_end_with_what_started_them(folder):
    """Else those of a killed recording would go on playing."""
    code = "from tasks import lasts; from worldgym.envs_real.workers import in_workers; list(in_workers(lasts, [0], 1))"
    (folder / "run.py").write_text(f"if __name__ == '__main__':\n    {code}\n", encoding="utf-8")
    run = subprocess.Popen([sys.executable, "run.py"], env=os.environ | {"PYTHONPATH": str(folder)})
    until(lambda: list(folder.glob("*.pid")))
    (worker,) = folder.glob("*.pid")
    run.send_signal(signal.SIGKILL)
    run.wait()
    until(lambda: not alive(int(worker.stem)))


def until(happens) -> None:
    end = time.monotonic() + 60
    while not happens():
        assert time.monotonic() < end
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").split(")")[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
