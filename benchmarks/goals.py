"""Which share of goals that are pictures does a planner reach, under CLEAR-LeWM's audited rules?

    python benchmarks/goals.py reacher            # or a folder: --world runs/reacher/planned
    python benchmarks/goals.py tabletop           # ends in benchmarks/results/goals_tabletop.json

Start and goal are 25 steps apart in episodes that the recorder plays under seeds that no recording has; the twin begins
at rest, has 50 steps, and says by its own pose whether it is there. Three seeds of 50 pairs, the same for all planners.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import tyro
from section import RESULTS, Results, Section, estimate, made_by, markdown

from worldgym.envs_real.goals import APART, BUDGET, GoalTwin, digest, draw_pairs, rules_of, write_manifest
from worldgym.envs_real.twins import twin_of
from worldgym.metrics import student, wilson
from worldgym.planners.reaching import Wanted, plan_and_reach
from worldgym.planners.settings import Planning
from worldgym.results import current_commit, write_results
from worldgym.world import WorldModel

PLANNERS: dict[str, dict[str, Any]] = {
    "the dream": {},
    "true physics": {"on": "mujoco"},
    "nothing: random actions": {"planner": "random"},
}
PAIRS = RESULTS / "pairs"


@dataclass(frozen=True)
class Goals:
    """Plan for recorded pictures, on the Reacher or the Tabletop."""

    name: Annotated[str, tyro.conf.Positional]
    """reacher or tabletop, which names the results."""
    world: str | None = None
    """A folder, if it is not the bundled world."""
    pairs: int = 50
    """Of each seed."""
    seeds: tuple[int, ...] = (0, 1, 2)
    horizon: int = 12
    samples: int = 128
    iterations: int = 4
    action_repeat: int = 1
    replan_every: int = 3


def main(config: Goals) -> None:
    commit, world = current_commit(), WorldModel.load(config.world or config.name, "cpu")
    rules = rules_of(world.config)
    twin = GoalTwin(twin_of(world.config), rules)
    asked = Planning(
        config.world or config.name, goal="recorded", episodes=config.pairs, horizon=config.horizon,
        samples=config.samples, iterations=config.iterations, action_repeat=config.action_repeat,
        replan_every=config.replan_every,
    )  # fmt: skip
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in PLANNERS}
    digests = []
    for seed in config.seeds:
        pairs = draw_pairs(world.config, config.pairs, seed)
        write_manifest(PAIRS / f"goals_{config.name}_{seed}.json", world.config, seed, pairs)
        digests.append(digest(pairs))
        wanted = [Wanted(pair.picture, {"start": pair.start, "goal": pair.goal}) for pair in pairs]
        for name, options in PLANNERS.items():
            metrics, _ = plan_and_reach(replace(asked, seed=seed, **options), world, twin, wanted)
            found[name].append(metrics)
            print(seed, name, {rule: one["rate"] for rule, one in metrics["reached"].items()}, flush=True)
        metrics = {
            "world": world.config.name,
            "twin": world.config.twin,
            "compared_by": found["the dream"][0]["compared_by"],
            "rules": {name: rule.about for name, rule in rules.items()},
            "seeds": list(config.seeds[: len(digests)]),
            "pairs": config.pairs,
            "digests": digests,
            "planners": {name: _over_seeds(runs, config.pairs) for name, runs in found.items()},
        }
        write_results(RESULTS / f"goals_{config.name}.json", config.seeds[0], metrics, commit)  # each seed takes long


def _over_seeds(runs: list[dict[str, Any]], pairs: int) -> dict[str, Any]:
    reached = {}
    for rule in runs[0]["reached"]:
        rates = [run["reached"][rule]["rate"] for run in runs]
        mean, over_seeds = student(rates)
        won = round(sum(rates) * pairs)
        reached[rule] = {
            "rate": mean, "over_seeds": over_seeds, "interval": wilson(won, pairs * len(runs)), "by_seed": rates,
        }  # fmt: skip
    seconds = [run["seconds_per_decision"] for run in runs]
    return {
        "reached": reached,
        "seconds_per_decision": None if None in seconds else float(np.mean(seconds)),
        "budget": runs[0]["budget"],
        "by_seed": runs,
    }


def _body(results: Results) -> list[str]:
    metrics = results["metrics"]
    rules = list(metrics["rules"])
    rows = []
    for name, one in metrics["planners"].items():
        shares = [estimate(one["reached"][rule]["rate"], one["reached"][rule]["interval"], ".0%") for rule in rules]
        seconds = one["seconds_per_decision"]
        rows.append([name, *shares, "-" if seconds is None else f"{1000 * seconds:.0f}"])
    budget, said = metrics["planners"]["the dream"]["budget"], metrics["rules"]
    return [
        f"{len(metrics['seeds'])} seeds of {metrics['pairs']} pairs: the goal is what the recorder's episode shows "
        f"{APART} steps after the start, no episode is of a recording, none is solved already. MuJoCo begins at rest "
        f"and has {BUDGET} steps. {'. '.join(f'{rule.capitalize()}: {about}' for rule, about in said.items())}. CEM "
        f"tries {budget['samples']} x {budget['iterations']} sequences of {budget['horizon']} steps, each action held "
        f"for {budget['action_repeat']}, for each decision of {budget['replan_every']}; in the dream, states are "
        f"compared by their {metrics['compared_by']}. Intervals are Wilson's over all pairs.",
        "",
        *markdown(["planned on", *rules, "ms a decision"], rows),
        "",
        made_by(results),
    ]


def _section(name: str, title: str) -> Section:
    return Section(title, (f"goals_{name}",), f"python benchmarks/goals.py {name}", _body)


REACHER = _section("reacher", "Goals that are pictures: Gymnasium's Reacher")
TABLETOP = _section("tabletop", "Goals that are pictures: the Tabletop")

if __name__ == "__main__":
    main(tyro.cli(Goals, description=Goals.__doc__))
