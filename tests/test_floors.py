"""The layers of the library, as pyproject.toml draws them: they hold, and a break is noticed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def installed(tmp_path) -> Path:
    """The package as a wheel installs it: planners, agents and real environments below the library."""
    source = shutil.ignore_patterns("worlds", "__pycache__")
    shutil.copytree(ROOT / "worldgym", tmp_path / "worldgym", ignore=source)
    for folder in ("planners", "agents", "envs_real"):
        shutil.copytree(ROOT / folder, tmp_path / "worldgym" / folder, ignore=source)
    return tmp_path


def lint(folder: Path) -> subprocess.CompletedProcess:
    command = [Path(sys.executable).with_name("lint-imports"), "--config", ROOT / "pyproject.toml", "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_every_file_stands_on_its_floor(installed):
    found = lint(installed)
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize(
    "file, line, named",
    [
        ("model/rng.py", "from ..world import WorldModel", "worldgym.model.rng -> worldgym.world"),
        ("world.py", "from .planners import CEM", "worldgym.world -> worldgym.planners"),
        ("state.py", "from .brand_new import anything", "brand_new"),
        ("model/cache.py", "from .backbone import Backbone", "worldgym.model"),
    ],
    ids=["upward", "outward", "undrawn", "circle"],
)
def test_a_deliberate_break_is_caught(installed, file, line, named):
    if "brand_new" in line:
        (installed / "worldgym" / "brand_new.py").write_text("anything = 1\n", encoding="utf-8")
    path = installed / "worldgym" / file
    path.write_text(f"{path.read_text(encoding='utf-8')}\n{line}\n", encoding="utf-8")
    found = lint(installed)
    assert found.returncode == 1 and named in found.stdout, found.stdout
