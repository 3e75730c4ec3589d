"""Can the Tabletop's planner do two things in a row that one sentence asks for, in MuJoCo?

    python benchmarks/two_steps.py     # 50 sentences, one episode each; ends in benchmarks/results/two_steps.json

The pairs are drawn by a seed from all pairs of two instructions, so hardly any was ever seen in a row; no training was
for two things. A part is over when MuJoCo says that it succeeded, and may take as long as an episode lasts.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from section import RESULTS, Results, Section, estimate, made_by, markdown

from worldgym.envs_real.twins import twin_of
from worldgym.metrics import wilson
from worldgym.planners.planning import plan_and_act
from worldgym.planners.settings import Planning
from worldgym.results import current_commit, write_results
from worldgym.world import WorldModel

SAID = ("{0}, then {1}", "{0} and then {1}", "first {0}, then {1}", "{0}. Then {1}.", "please {0}, and after that {1}")
PLANNERS = {
    "the dream": {},
    "true physics": {"on": "mujoco"},
    "nothing: random velocities": {"planner": "random"},
}


@dataclass(frozen=True)
class TwoSteps:
    """Plan for sentences that ask for two things."""

    sentences: int = 50
    samples: int = 64
    """Action sequences tried in each iteration of CEM."""
    iterations: int = 4
    seed: int = 0
    json: Path = RESULTS / "two_steps.json"
    """Where the figures go."""


def main(config: TwoSteps) -> dict[str, Any]:
    commit, world = current_commit(), WorldModel.load("tabletop", "cpu")
    twin, said = twin_of(world.config), sentences(world.config.instructions, config.sentences, config.seed)
    metrics: dict[str, Any] = {"sentences": said, "planners": {}}
    for name, options in PLANNERS.items():
        won, steps = [], []
        for index, sentence in enumerate(said):
            asked = Planning(
                "tabletop", instruction=(sentence,), episodes=1, seed=config.seed + index, samples=config.samples,
                iterations=config.iterations, **options,
            )  # fmt: skip
            found, played = plan_and_act(asked, world, twin)
            won.append(played[0].success)
            steps.append(len(played[0].rewards))
        metrics["planners"][name] = {
            "success": float(np.mean(won)), "interval": wilson(sum(won), len(won)), "by_sentence": won,
            "mean_steps": float(np.mean(steps)), "budget": found["budget"],
        }  # fmt: skip
        print(name, metrics["planners"][name]["success"])
    write_results(config.json, config.seed, metrics, commit)
    return metrics


def sentences(instructions: tuple[str, ...], count: int, seed: int) -> list[str]:
    """Sentences of two different instructions each, which are none of their own."""
    random = np.random.default_rng(seed)
    pairs = [random.choice(len(instructions), 2, replace=False) for _ in range(count)]
    return [SAID[i % len(SAID)].format(*(instructions[one] for one in pair)) for i, pair in enumerate(pairs)]


def body(results: Results) -> list[str]:
    metrics = results["metrics"]
    rows = [
        [name, estimate(one["success"], one["interval"], ".0%"), f"{one['mean_steps']:.0f}"]
        for name, one in metrics["planners"].items()
    ]
    return [
        f"{len(metrics['sentences'])} sentences of two instructions each, drawn by a seed, one episode each in MuJoCo. "
        "CEM plans for one part after the other in the recurrent state; a part is over when MuJoCo says that it "
        "succeeded. Success: of both. For instance: " + "; ".join(f'"{one}"' for one in metrics["sentences"][:3]) + ".",
        "",
        *markdown(["planned on", "success", "steps"], rows),
        "",
        made_by(results),
    ]


SECTION = Section("Two things in one sentence", ("two_steps",), "python benchmarks/two_steps.py", body)

if __name__ == "__main__":
    main(tyro.cli(TwoSteps, description=TwoSteps.__doc__))
