"""What do an actor and a critic that imagine add to a planner that imagines?

    for seed in 0 1 2; do worldgym learn hopper --agent actor-critic --steps 4000 --discount 0.97 \\
        --starts worldgym/hopper-v1 --seed $seed --out runs/agents/hopper_$seed; done
    python benchmarks/guided.py hopper --agents runs/agents/hopper_{0,1,2}

    for seed in 0 1 2; do worldgym learn tabletop --agent actor-critic --steps 4000 --discount 0.95 \\
        --instruction "push the red block to the centre" --starts worldgym/tabletop-v0 --seed $seed \\
        --out runs/agents/tabletop_$seed; done
    python benchmarks/guided.py tabletop --agents runs/agents/tabletop_{0,1,2}

All act in the same episodes on the twin. CEM searches alone, among the actor's proposals as well, with the critic's
value of where a plan ends, and with both; then on true physics, with the same budget.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from learning import share_of_the_way
from section import RESULTS, Results, Section, estimate, made_by, markdown, over_seeds

from worldgym.agents.learning import load_policy
from worldgym.agents.observers import SeeAlone
from worldgym.envs_real.twins import twin_of
from worldgym.evaluate.rollout import Episode, Policy, episode_statistics, play
from worldgym.metrics import bootstrap
from worldgym.planners import CEM, MPC, DreamReturns, GuidedReturns, TwinReturns
from worldgym.planners.mpc import Returns
from worldgym.planners.shooting import RandomActions
from worldgym.results import current_commit, write_results
from worldgym.world import WorldModel

BUDGETS = {
    "hopper": {"horizon": 16, "samples": 64, "iterations": 3, "elites": 10, "action_repeat": 2},
    "tabletop": {"horizon": 12, "samples": 32, "iterations": 2, "elites": 5, "action_repeat": 3},
}
REPLAN = {"hopper": 2, "tabletop": 4}


@dataclass(frozen=True)
class Guided:
    """Judge agents, and planners that they guide."""

    world: Annotated[str, tyro.conf.Positional]
    """hopper or tabletop."""
    agents: tuple[Path, ...] = ()
    """Folders of `worldgym learn --agent actor-critic`, of one instruction."""
    episodes: int = 50
    seed: int = 1000
    """Episode i begins from seed + i: others than those that budgets were chosen by."""
    json: Path | None = None
    """By default benchmarks/results/WORLD_guided.json."""


class Proposals(GuidedReturns):
    """What the actor proposes is tried, and judged as without it."""

    def __call__(self, sequences: np.ndarray) -> np.ndarray:
        return DreamReturns.__call__(self, sequences)


class Values(GuidedReturns):
    """The critic's value counts, and nothing is proposed."""

    propose = None  # type: ignore[assignment]


class Judge:
    """What policies do on the twin, all in the same episodes.

    Args:
        name: whose budget CEM has.
        goal: the instruction.
        seeds: of the episodes.
    """

    def __init__(self, name: str, world: WorldModel, goal: str, seeds: range):
        self.name, self.world, self.goal, self.seeds = name, world, goal, seeds
        self.twin = twin_of(world.config)

    def planned(self, make: Callable[[int], Returns], seed: int) -> Policy:
        """CEM that searches for what `make` of a seed says is best."""
        high, returns = np.ones(self.world.config.codec.size, np.float32), make(seed)
        search = CEM(returns, -high, high, seed=seed, **BUDGETS[self.name])
        return MPC(returns, search, REPLAN[self.name], self.world.config.observed, self.world.config.codec)

    def row(self, name: str, make: Callable[[int], Policy]) -> dict[str, Any]:
        """The figures of what `make` of a seed does in its episode."""
        played: list[Episode] = [play(self.twin, make(seed), seed, {"instruction": self.goal}) for seed in self.seeds]
        totals = [episode.total for episode in played]
        print(name, np.mean(totals), flush=True)
        return {"row": name, **episode_statistics(played), "return_interval": bootstrap(np.mean, np.array(totals))}


def main(config: Guided) -> None:
    commit, world = current_commit(), WorldModel.load(config.world, "cpu")
    loaded = [load_policy(folder, world) for folder in config.agents]
    [goal] = {made.instruction for _, made in loaded}
    judge = Judge(config.world, world, goal, range(config.seed, config.seed + config.episodes))
    row, planned = judge.row, judge.planned
    rows = [row("random actions", partial(RandomActions, judge.twin.action_space))]
    rows.append(row("CEM alone", partial(planned, lambda seed: DreamReturns(world, goal))))
    for agent, _ in loaded:
        rows.append(row("the actor alone", lambda seed, agent=agent: SeeAlone(agent, world, "state")))
        for name, kind in {"proposals": Proposals, "values": Values, "both": GuidedReturns}.items():
            make = partial(planned, lambda seed, kind=kind, agent=agent: kind(world, goal, agent, seed))
            rows.append(row(f"CEM, {name}", make))
    rows.append(row("CEM on true physics", partial(planned, lambda seed: TwinReturns(judge.twin))))
    metrics = {
        "instruction": goal, "episodes": config.episodes, "budget": BUDGETS[config.world],
        "learning": [{"steps": made.steps, "discount": made.discount, "seed": made.seed} for _, made in loaded],
        "rows": rows,
    }  # fmt: skip
    write_results(config.json or RESULTS / f"{config.world}_guided.json", config.seed, metrics, commit)


def mean_of(rows: list[dict[str, Any]], name: str, figure: str = "mean_return") -> float:
    """Over the rows of one name."""
    return float(np.mean([row[figure] for row in rows if row["row"] == name]))


def shown(rows: list[dict[str, Any]]) -> str:
    """Returns of some seeds, or of one with its interval."""
    if len(rows) == 1:
        return estimate(rows[0]["mean_return"], rows[0]["return_interval"], ".1f")
    return over_seeds([row["mean_return"] for row in rows], 1)


def _body(results: Results) -> list[str]:
    metrics = results["metrics"]
    rows, floor = metrics["rows"], metrics["rows"][0]["mean_return"]
    top, cells = metrics["rows"][-1]["mean_return"], []
    for name in dict.fromkeys(row["row"] for row in rows):
        seeds = [row for row in rows if row["row"] == name]
        share = share_of_the_way(mean_of(rows, name), top, floor)
        won = over_seeds([100 * row["success_rate"] for row in seeds], 0)
        cells.append([name, str(len(seeds)), won, shown(seeds), f"{share:.0%}"])
    budget, learning = metrics["budget"], metrics["learning"][0]
    return [
        f'"{metrics["instruction"]}", {metrics["episodes"]} episodes in MuJoCo, the same for all. CEM tries '
        f"{budget['samples']} x {budget['iterations']} sequences of {budget['horizon']} steps. Agents imagine "
        f"{learning['steps']} updates in the recurrent state and do nothing real; of several seeds mean and range, "
        "else the 95% interval over episodes. Share of the way: from random actions to CEM on true physics. On the "
        "Hopper the budget was chosen after the fact, with the first agent and other episodes.",
        "",
        *markdown(["", "agents", "success, %", "return", "share of the way"], cells),
        "",
        made_by(results),
    ]


def _section(world: str, title: str) -> Section:
    return Section(title, (f"{world}_guided",), f"python benchmarks/guided.py {world} --agents ...", _body)


HOPPER = _section("hopper", "The Hopper: a planner guided by an agent")
TABLETOP = _section("tabletop", "Pushing: an agent of the dream alone, and a planner that it guides")


if __name__ == "__main__":
    main(tyro.cli(Guided))
