"""The documentation keeps its word: its code runs, its links lead somewhere, its pages are in the menu."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from worldgym.errors import UserError
from worldgym.listing import find_world
from worldgym.planners import PLANNERS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")

SWEEP = "tutorials/sweep.md"
SMALL = {
    "index.md": {"num_envs=8": "num_envs=2", "range(10)": "range(2)"},
    "tutorials/mpc.md": {
        "horizon=12": "horizon=6", "samples=32": "samples=4", "iterations=2": "iterations=1", "elites=5": "elites=2",
        "(1, 16, 8, 2)": "(1, 4, 2, 2)", "replan_every=4": "replan_every=2",
        "instruction=instruction)\nbounds": "instruction=instruction, max_episode_steps=3)\nbounds",
    },
    "tutorials/goals.md": {
        "horizon=12": "horizon=3", "samples=64": "samples=4", "iterations=3": "iterations=1", "elites=10": "elites=2",
        "range(40)": "range(2)",
    },
    "tutorials/sb3.md": {
        "num_envs=8": "num_envs=2", "n_steps=64": "n_steps=4", "batch_size=128": "batch_size=8",
        "total_timesteps=20_000": "total_timesteps=8", "range(20)": "range(1)",
    },
    "tutorials/zero_shot.md": {
        "horizon=12": "horizon=6", "samples=32": "samples=2", "iterations=2": "iterations=1", "elites=5": "elites=1",
        "replan_every=4": "replan_every=2", "EPISODES = 20": "EPISODES = 1",
        '("nominal", *FACTORS[name][1])': '("nominal",)',
        "instruction=INSTRUCTION, variation": "instruction=INSTRUCTION, max_episode_steps=2, variation",
    },
    SWEEP: {
        "mine/few-v0": "test/tabletop-v0", "steps=120": "steps=2, ahead=6", "batch=16": "batch=4",
        "[1e-3, 4e-3]": "[1e-3]", "RecurrentConfig(": "RecurrentConfig(channels=(4, 8, 8), ",
    },
    "tutorials/text.md": {"phrases[:8]": "phrases[:2]"},
    "pan.md": {'trained="runs/pan/joint"': 'trained="runs/pan/joint", dtype="float32"'},
}  # fmt: skip
"""What takes long is run at a smaller size: on each page, what stands there -> what is run instead."""

ELSEWHERE = ("tutorials/serve.md", "tutorials/ray.md")
"""Needs a server, or Ray: compiled, not run."""


def name(page: Path) -> str:
    return page.relative_to(DOCS).as_posix()


@pytest.mark.parametrize("page", [page for page in PAGES if CODE.search(page.read_text(encoding="utf-8"))], ids=name)
def test_its_code_runs(page, tmp_path, monkeypatch, checkpoint, request):
    monkeypatch.chdir(tmp_path)
    world = tmp_path / "runs" / "reacher" / "world"  # where adding.md has trained its own
    shutil.copytree(checkpoint, world)
    described = json.loads((world / "config.json").read_text(encoding="utf-8"))
    (world / "config.json").write_text(json.dumps(described | {"twin": "Reacher-v5"}), encoding="utf-8")
    if name(page) == "pan.md":  # where PAN was trained: here at toy size
        toy = request.getfixturevalue("pan_folder")
        (tmp_path / "runs" / "pan").symlink_to(toy)
        (tmp_path / "clips").symlink_to(toy / "clips")
    if name(page) == SWEEP:
        pytest.importorskip("ray")
        monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        request.getfixturevalue("dataset")
    code = "\n".join(CODE.findall(page.read_text(encoding="utf-8")))
    for stands, runs in SMALL.get(name(page), {}).items():
        assert stands in code, f"{stands!r} is no longer on the page"
        code = code.replace(stands, runs)
    compiled = compile(code, name(page), "exec")
    if name(page) in ELSEWHERE:
        return
    if name(page) == SWEEP:  # a script, whose functions Ray sends to its workers
        (tmp_path / "sweep.py").write_text(code, encoding="utf-8")
        ran = subprocess.run([sys.executable, "sweep.py"], capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        best = re.search(r"the best is in (.*)", ran.stdout)
        assert best and (Path(best[1]) / "model.safetensors").exists(), ran.stdout
        return
    try:
        exec(compiled, {})
    except UserError as error:
        if "for this processor" in str(error):  # OpenVINO compiles for none without AVX2
            pytest.skip(str(error))
        raise


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_its_links_lead_somewhere(page):
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if link.startswith(("http://", "https://")):
            continue
        target, _, anchor = link.partition("#")
        there = (page.parent / target).resolve() if target else page
        assert there.exists(), f"{name(page)} links to {link}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w]+", "-", heading.lower()).strip("-") for heading in headings}, link


def test_every_page_is_in_the_menu():
    menu = re.findall(r"^ +- .*?: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(menu) == sorted(map(name, PAGES))


def test_the_reference_names_what_there_is():
    from importlib import import_module

    for path in re.findall(r"^::: (\S+)$", (DOCS / "api.md").read_text(encoding="utf-8"), re.MULTILINE):
        module, _, member = path.rpartition(".")
        assert (getattr(import_module(module), member).__doc__ or "").strip(), f"{path} has no docstring"


def test_the_reference_has_every_planner():
    listed = (DOCS / "api.md").read_text(encoding="utf-8")
    for kind in PLANNERS.values():
        assert kind.over == "nothing" or f"::: {kind.make.replace(':', '.')}\n" in listed, kind


def test_the_bundled_world_of_the_tutorials_is_there():
    assert (find_world("tabletop") / "config.json").exists()


def test_the_tour_names_every_part_of_the_library_and_nothing_else():
    tour = (DOCS / "tour.md").read_text(encoding="utf-8")
    parts = {path.name for path in (ROOT / "worldgym").iterdir() if (path / "__init__.py").exists()}
    assert {f"worldgym/{part}/" for part in parts} <= set(re.findall(r"worldgym/\w+/", tour))
    for path in re.findall(r"`((?:worldgym|planners|agents|envs_real)/[\w/.]*)`", tour):
        assert (ROOT / path).exists(), f"the tour names {path}"
