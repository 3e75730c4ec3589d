"""What is installed: one top-level name, light to import."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ["worldgym", "planners", "agents", "envs_real"]


@pytest.fixture(scope="module")
def wheel_files(tmp_path_factory) -> list[str]:
    """The files of a wheel built from a copy, so that nothing an earlier build left behind gets in."""
    source = tmp_path_factory.mktemp("source")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ["pyproject.toml", "README.md", "LICENSE"]:
        shutil.copy(ROOT / file, source)
    dist = tmp_path_factory.mktemp("dist")
    pip_wheel = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip_wheel, "--wheel-dir", dist, source], check=True)
    (wheel,) = dist.glob("*.whl")
    return zipfile.ZipFile(wheel).namelist()


def python(code: str, cwd: Path) -> subprocess.CompletedProcess:
    """Run code in a fresh interpreter that has neither the checkout nor this process's imports in sight."""
    return subprocess.run([sys.executable, "-I", "-c", code], cwd=cwd, capture_output=True, text=True)


def test_the_wheel_installs_one_name(wheel_files):
    top_level = {name.split("/")[0] for name in wheel_files}
    assert {name for name in top_level if not name.endswith(".dist-info")} == {"worldgym"}


def test_the_wheel_holds_every_module(wheel_files):
    expected = set()
    for folder in FOLDERS:
        installed = "worldgym" if folder == "worldgym" else f"worldgym/{folder}"
        for path in (ROOT / folder).rglob("*.py"):
            expected.add(f"{installed}/{path.relative_to(ROOT / folder).as_posix()}")
    assert {name for name in wheel_files if name.endswith(".py")} == expected


def test_the_wheel_holds_the_bundled_worlds(wheel_files):
    """A world is its weights and its configuration; what was left over from training stays out."""
    files = [path for path in (ROOT / "worldgym" / "worlds").rglob("*") if path.is_file()]
    expected = {path for path in files if path.suffix in {".json", ".safetensors", ".npz"}}
    packed = {name for name in wheel_files if name.startswith("worldgym/worlds/")}
    assert {name for name in packed if not name.endswith(".py")} == {
        path.relative_to(ROOT).as_posix() for path in expected
    }


@pytest.mark.parametrize("folder", ["planners", "agents", "envs_real"])
def test_each_folder_has_one_import_name(folder, tmp_path):
    assert python(f"import worldgym.{folder}", tmp_path).returncode == 0
    bare = python(f"import {folder}", tmp_path)
    assert f"No module named '{folder}'" in bare.stderr


def test_importing_worldgym_leaves_torch_alone(tmp_path):
    """Registering the ids happens in every process that imports worldgym; loading torch takes seconds."""
    result = python("import sys, worldgym; sys.exit('torch' in sys.modules)", tmp_path)
    assert result.returncode == 0, result.stderr or "torch was imported"
