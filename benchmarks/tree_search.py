"""Does simulating sentences before saying one help? Instructions of two and three steps, carried out in MuJoCo.

    .venv/bin/python benchmarks/tree_search.py tabletop --episodes 50 --json benchmarks/results/tabletop_tree.json

What can be said are the world's sentences that are not instructions themselves (directional pushes, plain motions). Of
these, all ways have the same proposer: what names no block but the instruction's. They differ in how one is chosen: by
beam search in the dream, by the same search on true physics, or uniformly at random (`worldgym.planners.reasoning`).

Episode i of a task begins from the same table and with the same instruction whatever chooses.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import gymnasium as gym
import numpy as np
import tyro

from worldgym.envs_real.tabletop import TabletopEnv
from worldgym.envs_real.tabletop.reasoning import SENTENCES, TASKS, mean_seconds, talks
from worldgym.envs_real.twins import twin_kind
from worldgym.evaluate.video import side_by_side, write_video
from worldgym.metrics import wilson
from worldgym.planners.reasoning import elementary, ways
from worldgym.results import current_commit, write_results
from worldgym.world import WorldModel


@dataclass(frozen=True)
class Config:
    """Tree search over sentences against the same proposer without simulation."""

    world: Annotated[str, tyro.conf.Positional] = "tabletop"
    """A bundled world or a checkpoint folder."""
    tasks: tuple[str, ...] = TASKS
    ways: tuple[str, ...] = ("dream", "mujoco", "nothing")
    episodes: int = 50
    """Of each task, for each way."""
    seed: int = 0
    sentences: int = SENTENCES
    """That may be said for each instruction."""
    depth: int = 2
    """Sentences looked ahead."""
    breadth: int = 4
    """Futures extended at each level of the tree."""
    device: str = "auto"
    json: Path | None = None
    """Write the figures here, with command, commit and hardware."""
    video: Path | None = None
    """Folder for what MuJoCo showed after each sentence, a picture each way and task."""


def main(config: Config) -> None:
    commit = current_commit()
    world = WorldModel.load(config.world, config.device)
    twin = gym.make("worldgym/TabletopMuJoCo-v0", action_mode="text").unwrapped
    assert isinstance(twin, TabletopEnv)
    propose = elementary(world, twin_kind(world.config.twin).objects)
    known = ways(world, twin, propose, config.depth, config.breadth)
    if unknown := set(config.ways) - set(known):
        raise ValueError(f"unknown ways {sorted(unknown)}; there are {', '.join(known)}")
    tasks: dict[str, dict[str, Any]] = {}
    for task in config.tasks:
        tasks[task] = {}
        for way in config.ways:
            began = time.monotonic()
            held = talks(twin, task, way, known[way], config.episodes, config.seed, config.sentences)
            won, seconds = sum(one.success for one in held), mean_seconds(held)
            low, high = wilson(won, len(held))
            tasks[task][way] = {
                "success_rate": won / len(held),
                "success_interval": [low, high],
                "mean_sentences_of_successes": float(np.mean([len(o.said) for o in held if o.success] or [np.nan])),
                "seconds_per_decision": seconds,
                "seconds": time.monotonic() - began,
                "by_episode": [
                    {"instructions": one.instructions, "success": one.success, "said": one.said} for one in held
                ],
            }
            print(
                f"{task:20s} {way:8s} {won:3d} of {len(held)} ({won / len(held):.0%}, 95% interval {low:.0%} to "
                f"{high:.0%}), {seconds:.2f} s a decision"
            )
            if config.video:
                shown = side_by_side([one.frames for one in held[:8]])
                write_video(config.video / f"{task.replace(' ', '_')}_{way}.gif", shown, 1)
    twin.close()
    if config.json:
        budget = {"sentences": config.sentences, "depth": config.depth, "breadth": config.breadth}
        metrics = {
            "world": config.world,
            "episodes": config.episodes,
            "budget": budget,
            "proposer": list(propose.phrases),
            "tasks": tasks,
        }
        write_results(config.json, config.seed, metrics, commit)


if __name__ == "__main__":
    main(tyro.cli(Config))
