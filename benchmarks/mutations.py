"""Would the tests notice? Ten mistakes in core code, each made in a copy of the package, and the tests that must fail.

    .venv/bin/python benchmarks/mutations.py --json benchmarks/results/mutations.json

A mistake that no test notices makes the script fail, and so does one that no longer applies: change it with the code.
"""

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import tyro
from safetensors.torch import load_file, save_file
from section import Results, Section, made_by, markdown

from worldgym.results import current_commit, write_results

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("planners", "agents", "envs_real")
"""Installed below the library."""


@dataclass(frozen=True)
class Mutation:
    """One mistake."""

    about: str
    file: str
    """Within the installed package."""
    right: str
    """What stands there, once; empty for a file of weights, whose numbers are shuffled within each tensor."""
    wrong: str
    tests: tuple[str, ...]
    """Files below tests/, one of whose tests must fail."""


MUTATIONS = (
    Mutation(
        "rewards are trained one step early",
        "data.py", "rewards=data.rewards[now + 1]", "rewards=data.rewards[now]",
        ("train/test_training_loss.py",),
    ),
    Mutation(
        "outcome heads are trained on the frame before",
        "model/dynamics.py", "features[:, 1:], read[batch.instructions]", "features[:, :-1], read[batch.instructions]",
        ("train/test_training_loss.py",),
    ),
    Mutation(
        "the sentence loss does not count",
        "model/dynamics.py", "+ 0.1 * sentence", "+ 0.0 * sentence",
        ("train/test_training_loss.py",),
    ),
    Mutation(
        "the bundled Tabletop's weights are shuffled within their tensors",
        "worlds/tabletop/model.safetensors", "", "",
        ("worlds/test_tabletop.py",),
    ),
    Mutation(
        "every step of a dream draws the same random numbers",
        "world.py",
        "            steps=state.steps + 1,\n            counters=state.counters + 1,",
        "            steps=state.steps + 1,\n            counters=state.counters,",
        ("test_world.py",),
    ),
    Mutation(
        "a step may look at the steps after it, in training",
        "model/layout.py", "visible = when[None] < when[:, None]", "visible = when[None] != when[:, None]",
        ("test_world.py",),
    ),
    Mutation(
        "a future earns on after its episode has ended",
        "model/outcome_heads.py", "reward + torch.where(ends > DOUBT, 0.0, open_still)", "reward + open_still",
        ("test_world.py",),
    ),
    Mutation(
        "frames are drawn from the state before the action",
        "world.py", "self._filter.pictured(recurrent)", "self._filter.pictured(state.recurrent)",
        ("test_world.py",),
    ),
    Mutation(
        "a drawn dream earns what its frames say, an imagined one what the state says",
        "world.py", "return after, self._judged(recurrent, state.instruction), entropy", "return after, votes, entropy",
        ("test_drawing.py",),
    ),
    Mutation(
        "time runs out a step late",
        "dreams/core.py", "self.elapsed >= self.max_episode_steps", "self.elapsed > self.max_episode_steps",
        ("test_vector.py",),
    ),
    Mutation(
        "a real end counts as a cut for Stable-Baselines3",
        "sb3.py", "bool(step.truncated[index] and not step.terminated[index])", "bool(step.truncated[index])",
        ("test_sb3.py",),
    ),
    Mutation(
        "planners keep the worst futures",
        "planners/search.py", 'np.argsort(-returns, kind="stable")', 'np.argsort(returns, kind="stable")',
        ("planners/test_planners.py",),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Config:
    """Make each mistake, and see which test notices."""

    json: Path | None = None
    """Write the figures here, with command, commit and hardware."""


def section(results: Results) -> list[str]:
    m = results["metrics"]
    rows = [
        [one["mistake"], f"`{one['file']}`", f"`{one['noticed_by']}`" if one["noticed_by"] else "no test"]
        for one in m["by_mistake"]
    ]
    return [
        "Each mistake is made in a copy of the package, where the tests must fail. "
        f"**{m['noticed']} of {m['mistakes']} are noticed.**",
        "",
        *markdown(["mistake", "in", "the first test that fails"], rows),
        "",
        made_by(results),
    ]


SECTION = Section(
    "Would the tests notice a mistake in core code?",
    ("mutations",),
    "python benchmarks/mutations.py --json benchmarks/results/mutations.json",
    section,
)


def main(config: Config) -> None:
    commit, found = current_commit(), []
    for mutation in MUTATIONS:
        with TemporaryDirectory() as folder:
            began, package = time.perf_counter(), install(Path(folder))
            mutate(package, mutation)
            failed = first_failure(Path(folder), mutation.tests)
        found.append({
            "mistake": mutation.about, "file": mutation.file, "tests": list(mutation.tests), "noticed_by": failed,
            "seconds": time.perf_counter() - began,
        })  # fmt: skip
        print(f"{mutation.about}: {failed or 'NO TEST NOTICED'}", flush=True)
    noticed = sum(row["noticed_by"] is not None for row in found)
    print(f"{noticed} of {len(found)} mistakes are noticed")
    if config.json is not None:
        write_results(config.json, 0, {"mistakes": len(found), "noticed": noticed, "by_mistake": found}, commit)
    if noticed < len(found):
        sys.exit(1)


def install(folder: Path) -> Path:
    """The package as a wheel installs it."""
    ignored = shutil.ignore_patterns("__pycache__")
    package = Path(shutil.copytree(ROOT / "worldgym", folder / "worldgym", ignore=ignored))
    for name in FOLDERS:
        shutil.copytree(ROOT / name, package / name, ignore=ignored)
    return package


def mutate(package: Path, mutation: Mutation) -> None:
    path = package / mutation.file
    if not mutation.right:
        torch.manual_seed(0)
        weights = load_file(path)
        shuffled = {
            name: part.flatten()[torch.randperm(part.numel())].view(part.shape) for name, part in weights.items()
        }
        save_file(shuffled, path)
        return
    code = path.read_text(encoding="utf-8")
    if code.count(mutation.right) != 1:
        raise ValueError(f"{mutation.file} has {mutation.right!r} {code.count(mutation.right)} times; expected once")
    path.write_text(code.replace(mutation.right, mutation.wrong), encoding="utf-8")


def first_failure(folder: Path, tests: tuple[str, ...]) -> str | None:
    """The first test that fails with the package in `folder`; None if all pass."""
    pytest = Path(sys.executable).with_name("pytest")  # `python -m pytest` would import the checkout's package
    command = [pytest, "-q", "-x", "-p", "no:cacheprovider", *(f"tests/{name}" for name in tests)]
    around = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    run = subprocess.run(command, cwd=ROOT, env=around, capture_output=True, text=True)
    if run.returncode == 0:
        return None
    failed = [line.split()[1] for line in run.stdout.splitlines() if line.startswith("FAILED ")]
    if run.returncode != 1 or not failed:
        raise RuntimeError(f"pytest could not run {', '.join(tests)}:\n{run.stdout[-2000:]}{run.stderr[-2000:]}")
    return failed[0].removeprefix("tests/")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
