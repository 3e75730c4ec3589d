"""Other people's environments: each a world by one command, then CEM in its dream and on the truth.

    python benchmarks/environments.py InvertedPendulum --minutes 30    # one a call; a killed one continues
    python benchmarks/environments.py                                  # the table of those that were made

It ends in benchmarks/results/environments_NAME.json. What it takes besides WorldGym is named where it is missing.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
from section import RESULTS, ROOT, Results, Section, made_by, markdown

RUNS = ROOT / "runs" / "environments"


class Other(NamedTuple):
    """An environment that is not ours."""

    pip: str
    """What installs it."""
    options: tuple[str, ...] = ()
    """Of `worldgym new`."""
    truth: bool = True
    """Whether true physics can be planned on: without snapshots an episode is played again for each sequence tried."""


MUJOCO, CLASSIC = "worldgym", "gymnasium[classic-control]"
OTHERS = {
    "InvertedPendulum": Other(MUJOCO),
    "Pusher": Other(MUJOCO),
    "HalfCheetah": Other(MUJOCO),
    "Swimmer": Other(MUJOCO),
    "CartPole": Other(CLASSIC, ("--fit", "pad")),
    "Pendulum": Other(CLASSIC),
    "Acrobot": Other(CLASSIC, truth=False),
    "LunarLander": Other("worldgym[box2d]", ("--fit", "pad"), truth=False),
    "CarRacing": Other("worldgym[box2d]", truth=False),
    "MiniGrid": Other("worldgym[minigrid]", ("--dynamics.memory", "1"), truth=False),
    "Crafter": Other("worldgym[crafter]", ("--dynamics.memory", "1"), truth=False),
    "Pong": Other("worldgym[atari]", ("--fit", "pad"), truth=False),
    "Breakout": Other("worldgym[atari]", ("--fit", "pad"), truth=False),
}
EPISODES = 20
PLANNED = [
    "--episodes", EPISODES, "--horizon", "16", "--samples", "64", "--iterations", "3", "--action-repeat", "1",
    "--replan-every", "2",
]  # fmt: skip


def make(name: str, minutes: float, workers: int) -> None:
    """Make the world, plan in it, and write what came of it."""
    other, runs, dataset = OTHERS[name], RUNS / name, f"environments/{name.lower()}-v0"
    env_id = f"short_worlds:short/{name}-v0"
    _check_installed(env_id, other.pip)
    _worldgym(
        "new", "--env", env_id, "--minutes", minutes, "--workers", workers, "--dataset", dataset, "--out", runs,
        *other.options,
    )  # fmt: skip
    plans = {"dream": ["--on", "dream"], "random": ["--planner", "random"]}
    if other.truth:
        plans["truth"] = ["--on", "mujoco"]
    for on, options in plans.items():
        if not (runs / f"plan_{on}.json").exists():
            _worldgym("plan", runs / "drawn", *PLANNED, *options, "--json", runs / f"plan_{on}.json")
    _write(name, runs, list(plans), minutes)


def _check_installed(env_id: str, pip: str) -> None:
    try:
        env = gym.make(env_id, render_mode="rgb_array")
        env.reset(seed=0)
        env.render()
        env.close()
    except (ImportError, gym.error.Error) as error:
        sys.exit(f"{env_id} cannot be made here: {error}. It comes with: pip install '{pip}'")


def _worldgym(*arguments: Any) -> None:
    subprocess.run([sys.executable, "-m", "worldgym", *map(str, arguments)], check=True, cwd=ROOT)


def _write(name: str, runs: Path, plans: list[str], minutes: float) -> None:
    from worldgym.checkpoint import load_config
    from worldgym.results import current_commit, write_results

    decided, dream = (_metrics(runs / f"{file}.json") for file in ("plan", "dream"))
    planned = {on: _metrics(runs / f"plan_{on}.json") for on in plans}
    kept = ("mean_return", "return_interval", "mean_steps", "success_rate", "seconds_per_decision", "episodes")
    config, _ = load_config(runs / "drawn")
    metrics = {
        "environment": name,
        "actions": str(config.codec.space),
        "twin_options": config.twin_options,
        "minutes": minutes,
        "took": decided["spent"] / 60,
        "decided": {part: decided[part] for part in ("episodes", "tokenizer", "window", "dynamics", "state")},
        "dream": dream,
        "plan": {on: {key: plan.get(key) for key in kept} for on, plan in planned.items()},
    }
    write_results(RESULTS / f"environments_{name}.json", 0, metrics, current_commit())


def _metrics(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))["metrics"]


def body(*results: Results) -> list[str]:
    """The table of the environments whose files there are."""
    rows = []
    for one in (result["metrics"] for result in results):
        dream, plan = one["dream"], one["plan"]
        gains = dream["psnr_gain"]
        rows.append(
            [
                one["environment"],
                one["actions"],
                f"{one['took']:.0f}",
                *(f"{gains[step - 1]:+.1f}" if step <= len(gains) else "-" for step in (1, 4, 8)),
                _correlation(dream),
                *(f"{plan[on]['mean_return']:.1f}" if on in plan else "-" for on in ("random", "dream", "truth")),
                _share(plan),
            ]
        )
    head = [
        "environment", "actions", "minutes", "gain after 1 step, dB", "4", "8", "reward correlation",
        "return at random", "CEM in the dream", "CEM on the truth", "share of the way",
    ]  # fmt: skip
    return [
        "Each world is made by `worldgym new` alone, of random behaviour, in the minutes given, on one or two shared "
        f"cores; then CEM acts in {EPISODES} episodes of 200 steps at most, 16 steps ahead. Gain: PSNR above repeating "
        "the last frame seen. Reward correlation: over all steps dreamed, - where a reward never varies. Share of the "
        "way: from random actions to the same planner on the truth; - where the truth cannot be planned on in the "
        "time, or is no better than chance.",
        "",
        *markdown(head, rows),
        "",
        *(made_by(result) for result in results),
    ]


def _share(plan: dict[str, dict[str, Any]]) -> str:
    low, high = plan["random"]["mean_return"], plan.get("truth", plan["random"])["mean_return"]
    return f"{(plan['dream']['mean_return'] - low) / (high - low):.0%}" if high > low else "-"


def _correlation(dream: dict[str, Any]) -> str:
    value = dream.get("reward_correlation_all_steps")
    return "-" if value is None or value != value else f"{value:.2f}"


def made() -> tuple[str, ...]:
    return tuple(f"environments_{name}" for name in OTHERS if (RESULTS / f"environments_{name}.json").exists())


SECTION = Section(
    "Other people's environments",
    made() or ("environments_InvertedPendulum",),
    "python benchmarks/environments.py NAME --minutes M",
    body,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("name", nargs="?", choices=list(OTHERS))
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    here = str(ROOT / "benchmarks")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    if asked.name:
        make(asked.name, asked.minutes, asked.workers)
    print("\n".join(body(*(json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")) for name in made()))))


if __name__ == "__main__":
    main()
