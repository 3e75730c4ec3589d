"""Files that appear whole or not at all, on disks that have room for them, in UTF-8 whatever the locale."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from worldgym.checkpoint import export_world
from worldgym.errors import UserError
from worldgym.files import alone, check_room, whole_folder

ROOT = Path(__file__).parent.parent


def test_a_folder_is_there_whole_or_not_at_all(tmp_path):
    target = tmp_path / "some" / "where" / "new"
    for wrong in (ZeroDivisionError, KeyboardInterrupt):
        with pytest.raises(wrong), whole_folder(target) as folder:
            (folder / "half").write_text("", encoding="utf-8")
            raise wrong
        assert not list(tmp_path.iterdir())
    with whole_folder(target) as folder:
        assert folder.name.startswith(".")
        (folder / "all").write_text("", encoding="utf-8")
    assert [path.name for path in target.iterdir()] == ["all"]


def test_what_another_process_wrote_meanwhile_stays(tmp_path):
    with pytest.raises(FileExistsError, match="another process wrote it"), whole_folder(tmp_path / "new"):
        (tmp_path / "new").mkdir()
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_two_that_want_the_same_are_not_let_in(tmp_path):
    refused = pytest.raises(UserError, match="another process is baking; wait")
    with alone(tmp_path / "lock", "baking"), refused, alone(tmp_path / "lock", "baking"):
        pytest.fail("let in")
    with alone(tmp_path / "lock", "baking"):
        pass


def test_a_process_that_is_killed_frees_its_lock(tmp_path):
    code = "import os, pathlib, worldgym.files as f\nwith f.alone(pathlib.Path('lock'), ''): os._exit(3)"
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path).returncode == 3
    with alone(tmp_path / "lock", "baking"):
        pass


def test_a_disk_without_room_is_told_with_place_and_size(tmp_path, monkeypatch):
    check_room(tmp_path, 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=50_000_000))
    check_room(tmp_path, 16_000_000)
    with pytest.raises(OSError, match=rf"full: 17.0 MB are to be written.* 50.0 MB are free: '{tmp_path}'"):
        check_room(tmp_path, 17_000_000)


def test_a_full_disk_leaves_nothing_of_an_export(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(OSError, match="the disk is full"):
        export_world(checkpoint, tmp_path / "exported")
    assert not list(tmp_path.iterdir())


def test_a_world_dreams_in_a_locale_that_is_not_utf_8():
    code = "import gymnasium, worldgym; gymnasium.make('worldgym/Tabletop-v0').reset(seed=0); print('dreams')"
    locale = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | locale, capture_output=True, text=True)
    assert done.stdout == "dreams\n", done.stderr


@pytest.mark.parametrize("folder", ["worldgym", "planners", "agents", "envs_real", "benchmarks", "tests"])
def test_text_files_are_utf_8(folder):
    """The linter's rule knows paths only where it sees that they are some."""
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                named = node.func.attr in ("read_text", "write_text")
                assert not named or any(word.arg == "encoding" for word in node.keywords), f"{path}:{node.lineno}"
