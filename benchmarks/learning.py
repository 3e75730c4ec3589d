"""What agents learn in dreams and in MuJoCo, from every file of `worldgym learn` in benchmarks/results."""

from functools import partial
from typing import Any

import numpy as np
from section import RESULTS, Results, Section, load, made_by, markdown, over_seeds

LEARN_HEAD = ["agent", "learned in", "steps", "of them real", "seeds", "success", "return"]


def learning(world: str, *_: Results) -> list[str]:
    """Of all runs that there are, whichever a section asks for."""
    runs = [load(path.stem) for path in sorted(RESULTS.glob(f"{world}_learn_*.json"))]
    groups: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for run in sorted(runs, key=lambda run: run["metrics"]["steps"]):
        m = run["metrics"]
        groups.setdefault((m["agent"], m["learned_in"], m["steps"]), []).append(m)
    one = runs[0]["metrics"]
    commands = {run["metrics"]["agent"]: made_by(run) for run in reversed(runs)}  # of the first run of each agent
    about = " An actor-critic imagines in the recurrent state, and its steps are updates."
    imagined = about if "actor-critic" in commands else ""
    rows = [
        learn_row(agent.upper(), "the dream" if where == "dream" else "MuJoCo", seeds)
        for (agent, where, _), seeds in sorted(groups.items())
    ]
    return [
        f'Stable-Baselines3 on "{one["instruction"]}", acting on latents, judged in MuJoCo over {one["episodes"]} '
        f"seeded episodes without exploration. Each cell: mean over the seeds and range.{imagined}",
        "",
        *markdown(LEARN_HEAD, rows),
        "",
        "\n\n".join(commands.values()),
    ]


def learned(world: str, agent: str, where: str, steps: int) -> list[dict]:
    """The metrics of every seed of a run."""
    found = sorted(RESULTS.glob(f"{world}_learn_{agent}_{where}_seed*_{steps}.json"))
    return [load(path.stem)["metrics"] for path in found]


def learn_row(agent: str, where: str, seeds: list[dict]) -> list[str]:
    """Cells below LEARN_HEAD, of the metrics of the same run with several seeds."""
    return [
        agent, where, str(seeds[0]["steps"]), str(seeds[0]["real_steps"]), str(len(seeds)),
        over_seeds([100 * m["success_rate"] for m in seeds], 0) + "%", over_seeds([m["mean_return"] for m in seeds], 2),
    ]  # fmt: skip


def share_of_the_way(dream: np.ndarray | float, truth: np.ndarray | float, floor: np.ndarray | float) -> float:
    """How far returns of the dream get from those of the floor (0) to those of the truth (1), of means."""
    low = np.mean(floor)
    return float((np.mean(dream) - low) / (np.mean(truth) - low))


SECTION = Section(
    "Can an agent learn in it?",
    ("tabletop_learn_sac_dream_seed0_8000", "tabletop_learn_sac_mujoco_seed0_8000"),
    "benchmarks/agents.sh",
    partial(learning, "tabletop"),
)
