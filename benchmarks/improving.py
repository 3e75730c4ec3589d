"""Does a world learn from what is done in it? Agents that learned in rounds of `worldgym improve`, judged on the twin.

    benchmarks/improving.sh    # makes them, and calls this

In each run the agent that earned most in its counted episodes is judged in 50 others, the same for all, with the world
in whose dream it learned: alone, and as a guide of CEM. What the first round shows is the bundled world's own.
"""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from guided import Judge, Proposals, mean_of, shown
from learning import share_of_the_way
from section import RESULTS, Results, Section, load, made_by, markdown, over_seeds, three_digits

from worldgym.agents.actor_critic import ActorCritic
from worldgym.agents.observers import SeeAlone
from worldgym.planners import DreamReturns, GuidedReturns
from worldgym.results import current_commit, write_results
from worldgym.world import WorldModel


@dataclass(frozen=True)
class Improving:
    """Judge what rounds of `worldgym improve` left in their folders."""

    world: Annotated[str, tyro.conf.Positional]
    """The bundled world that the rounds began from."""
    runs: tuple[Path, ...] = ()
    """Folders of the rounds, one for each seed."""
    episodes: int = 50
    seed: int = 1000
    """Episode i begins from seed + i: the episodes of guided.py."""


def main(config: Improving) -> None:
    commit = current_commit()
    metrics = {"episodes": config.episodes, "runs": [_judged(config, run) for run in config.runs]}
    write_results(RESULTS / f"{config.world}_improved.json", config.seed, metrics, commit)


def _judged(config: Improving, run: Path) -> dict[str, Any]:
    """The rounds of a run, and what the agent that it kept does."""
    world = WorldModel.load(str(run / "best"), "cpu")
    agent = ActorCritic.load(run / "best" / "agent.safetensors", world)
    told = json.loads((run / "rounds.json").read_text(encoding="utf-8"))["metrics"]
    judge = Judge(config.world, world, agent.instruction, range(config.seed, config.seed + config.episodes))
    rows = [judge.row("the actor alone", lambda seed: SeeAlone(agent, world, "state"))]
    rows.append(judge.row("CEM alone", partial(judge.planned, lambda seed: DreamReturns(world, agent.instruction))))
    for name, kind in {"proposals": Proposals, "both": GuidedReturns}.items():
        make = partial(judge.planned, lambda seed, kind=kind: kind(world, agent.instruction, agent, seed))
        rows.append(judge.row(f"CEM, {name}", make))
    return {**told, "rows": rows}


def body(results: Results) -> list[str]:
    metrics = results["metrics"]
    runs, asked = metrics["runs"], metrics["runs"][0]["improving"]
    lines = [
        f"Rounds of `worldgym improve {asked['world']}`: an actor and a critic learn {asked['updates']} updates in the "
        "dream, the actor and CEM act on the twin in turn, every second episode with bursts of random actions, and the "
        f"state learns {asked['steps']} updates, half of them from what was done. A row's figures are of episodes "
        "that the world had not seen, before it learned from them, without bursts. Mean over the seeds and range.",
        "",
    ]
    rounds = [[run["rounds"][index] for run in runs] for index in range(min(len(run["rounds"]) for run in runs))]
    table = [
        [
            str(which[0]["round"]), f"{np.mean([one['real_steps'] for one in which]):,.0f}",
            over_seeds([one["agent"]["mean_return"] for one in which], 1),
            over_seeds([one["agent"]["dreamed_return"] for one in which], 1),
            over_seeds([one["mean_return"] for one in which], 1),
            three_digits(float(np.mean([one["reward_correlation_8"] for one in which]))),
        ]
        for which in rounds
    ]  # fmt: skip
    head = [
        "round", "real steps so far", "agent on the twin", "... in its dream", "CEM on the twin",
        "rewards eight steps ahead, correlation",
    ]  # fmt: skip
    lines += [*markdown(head, table), ""]
    chosen = list(map(best_round, runs))
    of_rounds, spent = (", ".join(f"{one[what]:,}" for one in chosen) for what in ("round", "real_steps"))
    return [
        *lines,
        f"The agent of each run that did best in those episodes (of round {of_rounds}, by which {spent} real steps had "
        f"been taken), in {metrics['episodes']} other episodes; CEM has the budget of guided.py. The rule was stated "
        "after the first seed's rounds and before the others'. The bundled world had seen its own recording, with "
        "rewards, before all this.",
        "",
        *markdown(["", "seeds", "return", "steps", "share of the way"], _cells(asked["world"], runs)),
        "",
        made_by(results),
    ]


def best_round(run: dict[str, Any]) -> dict[str, Any]:
    """That of the agent that was kept."""
    return max(run["rounds"], key=lambda one: one["agent"]["mean_return"])


def _cells(world: str, runs: list[dict[str, Any]]) -> list[list[str]]:
    """The rows of the second table, among those of guided.py in the same episodes."""
    before, after = load(f"{world}_guided")["metrics"]["rows"], [row for run in runs for row in run["rows"]]
    floor, top = "random actions", "CEM on true physics"
    rows = [(floor, before, floor), ("the actor alone, no rounds", before, "the actor alone")]
    rows += [(f"{name}, after the rounds", after, name) for name in dict.fromkeys(row["row"] for row in after)]
    cells = []
    for title, among, name in [*rows, (top, before, top)]:
        seeds = [row for row in among if row["row"] == name]
        share = share_of_the_way(mean_of(among, name), mean_of(before, top), mean_of(before, floor))
        steps = mean_of(among, name, "mean_steps")
        cells.append([title, str(len(seeds)), shown(seeds), f"{steps:.0f}", f"{share:.0%}"])
    return cells


SECTION = Section("Does a world learn from what is done in it?", ("hopper_improved",), "benchmarks/improving.sh", body)


if __name__ == "__main__":
    main(tyro.cli(Improving))
