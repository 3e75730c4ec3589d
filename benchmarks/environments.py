"""Other people's environments, each recorded, trained on for a few minutes, evaluated and planned in.

    python benchmarks/environments.py CartPole      # one a call; a killed one goes on where it stood
    python benchmarks/environments.py               # the table of those that were made

It ends in benchmarks/results/environments_NAME.json. What it takes besides WorldGym is named where it is missing.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
from section import RESULTS, ROOT, Results, Section, made_by, markdown

RUNS = ROOT / "runs" / "environments"


class Other(NamedTuple):
    """An environment that is not ours."""

    pip: str
    """What installs it."""
    record: tuple[str, ...] = ()
    """Further options of `worldgym record`."""
    dynamics: tuple[str, ...] = ("--memory", "3")
    """Further options of `worldgym train dynamics`."""
    truth: bool = True
    """Whether true physics can be planned on: without snapshots an episode is played again for each sequence tried."""


OTHERS = {
    "CartPole": Other("gymnasium[classic-control]"),
    "LunarLander": Other("worldgym[box2d]", ("--fit", "pad")),
    "CarRacing": Other("worldgym[box2d]", truth=False),
    "MiniGrid": Other("worldgym[minigrid]", dynamics=()),
    "Crafter": Other("worldgym[crafter]", dynamics=(), truth=False),
    "Pong": Other("worldgym[atari]", ("--fit", "pad"), truth=False),
    "Breakout": Other("worldgym[atari]", ("--fit", "pad"), truth=False),
}
EPISODES, WINDOW = 200, 8
PLANNED = [
    "--episodes", "5", "--horizon", "8", "--samples", "16", "--action-repeat", "1", "--replan-every", "4",
]  # fmt: skip


def make(name: str, resolution: int, tokenizer_steps: int, dynamics_steps: int) -> None:
    """Record, train, evaluate and plan, and write what came of it."""
    other, runs, dataset = OTHERS[name], RUNS / name, f"environments/{name.lower()}-v0"
    env_id = f"short_worlds:short/{name}-v0"
    _check_installed(env_id, other.pip)
    _timed(
        runs,
        "record",
        "--env",
        env_id,
        "--dataset",
        dataset,
        "--episodes",
        EPISODES,
        "--steps",
        100,
        "--resolution",
        resolution,
        *other.record,
    )
    _timed(
        runs, "train tokenizer", "--dataset", dataset, "--out", runs / "tokenizer", "--steps", tokenizer_steps,
        "--batch", 24,
    )  # fmt: skip
    _timed(
        runs, "train dynamics", "--dataset", dataset, "--tokenizer", runs / "tokenizer", "--out", runs / "world",
        "--steps", dynamics_steps, "--batch", 8, "--window", WINDOW, "--processes", 1, *other.dynamics,
    )  # fmt: skip
    world, dream = runs / "world", runs / "dream.json"
    _timed(
        runs, "evaluate", world, "--dataset", dataset, "--episodes", 64, "--steps", WINDOW, "--report", runs / "report",
        "--json", dream,
    )  # fmt: skip
    plans = {"dream": ["--on", "dream"], "random": ["--planner", "random"]}
    if other.truth:
        plans["truth"] = ["--on", "mujoco"]
    for on, options in plans.items():
        file = runs / f"plan_{on}.json"
        _timed(runs, "plan", world, *PLANNED, *options, "--json", file, part=f"plan {on}")
    _write(name, runs, list(plans), resolution, tokenizer_steps, dynamics_steps)


def _check_installed(env_id: str, pip: str) -> None:
    try:
        env = gym.make(env_id, render_mode="rgb_array")
        env.reset(seed=0)
        env.render()
        env.close()
    except (ImportError, gym.error.Error) as error:
        sys.exit(f"{env_id} cannot be made here: {error}. It comes with: pip install '{pip}'")


def _timed(runs: Path, command: str, *arguments: Any, part: str = "") -> None:
    """Run a command of `worldgym`, unless it was done already, and keep how many minutes it took."""
    runs.mkdir(parents=True, exist_ok=True)
    file, part = runs / "minutes.json", part or command
    minutes = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if part in minutes:
        return
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "worldgym", *command.split(), *map(str, arguments)], check=True, cwd=ROOT)
    minutes[part] = round((time.monotonic() - began) / 60, 2)
    file.write_text(json.dumps(minutes), encoding="utf-8")


def _write(name: str, runs: Path, plans: list[str], resolution: int, tokenizer_steps: int, dynamics_steps: int) -> None:
    from worldgym.checkpoint import load_config
    from worldgym.results import current_commit, write_results

    dream = json.loads((runs / "dream.json").read_text(encoding="utf-8"))["metrics"]
    planned = {on: json.loads((runs / f"plan_{on}.json").read_text(encoding="utf-8"))["metrics"] for on in plans}
    kept = ("mean_return", "mean_steps", "success_rate", "seconds_per_decision", "episodes")
    config, _ = load_config(runs / "world")
    metrics = {
        "environment": name,
        "actions": str(config.codec.space),
        "twin_options": config.twin_options,
        "resolution": resolution,
        "steps": {"tokenizer": tokenizer_steps, "dynamics": dynamics_steps},
        "minutes": json.loads((runs / "minutes.json").read_text(encoding="utf-8")),
        "dream": dream,
        "plan": {on: {key: plan.get(key) for key in kept} for on, plan in planned.items()},
    }
    write_results(RESULTS / f"environments_{name}.json", 0, metrics, current_commit())


def body(*results: Results) -> list[str]:
    """The table of the environments whose files there are."""
    rows = []
    for one in (result["metrics"] for result in results):
        dream, plan = one["dream"], one["plan"]
        rows.append(
            [
                one["environment"],
                one["actions"],
                " + ".join(f"{one['minutes'][part]:.0f}" for part in ("record", "train tokenizer", "train dynamics")),
                *(f"{dream['psnr_gain'][step - 1]:+.1f}" for step in (1, 4, 8)),
                _correlation(dream),
                *(f"{plan[on]['mean_return']:.1f}" if on in plan else "-" for on in ("random", "dream", "truth")),
            ]
        )
    head = [
        "environment", "actions", "minutes: record + tokenizer + dynamics", "gain after 1 step, dB", "4", "8",
        "reward correlation", "return at random", "CEM in the dream", "CEM on the truth",
    ]  # fmt: skip
    return [
        f"{EPISODES} episodes of random behaviour each, minutes of training on shared cores, 32 pixels, and CEM over "
        "5 episodes of 200 steps at most, 8 steps ahead: what a few minutes give, not what can be reached. Gain: PSNR "
        "above repeating the last frame seen.",
        "",
        *markdown(head, rows),
        "",
        *(made_by(result) for result in results),
    ]


def _correlation(dream: dict[str, Any]) -> str:
    value = dream.get("reward_correlation_all_steps")
    return "-" if value is None or value != value else f"{value:.2f}"


def made() -> tuple[str, ...]:
    return tuple(f"environments_{name}" for name in OTHERS if (RESULTS / f"environments_{name}.json").exists())


SECTION = Section(
    "Other people's environments",
    made() or ("environments_CartPole",),
    "python benchmarks/environments.py NAME",
    body,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("name", nargs="?", choices=list(OTHERS))
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--tokenizer-steps", type=int, default=400)
    parser.add_argument("--dynamics-steps", type=int, default=300)
    asked = parser.parse_args()
    here = str(ROOT / "benchmarks")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    if asked.name:
        make(asked.name, asked.resolution, asked.tokenizer_steps, asked.dynamics_steps)
    print("\n".join(body(*(json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")) for name in made()))))


if __name__ == "__main__":
    main()
