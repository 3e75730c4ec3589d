"""Does simulating sentences before saying one help? Instructions of two and three steps, carried out in MuJoCo.

    .venv/bin/python benchmarks/tree.py tabletop --episodes 50 --json benchmarks/results/tabletop_tree.json

What can be said are the world's sentences that are not instructions themselves (directional pushes, plain motions):
"gather the blocks" as a sentence would be carried out by a controller that knows how, and there would be nothing to
reason about. Of these, all ways have the same proposer: what names no block but the instruction's. They differ in how
one is chosen:

    dream     beam search in the dream, re-grounded on the real frame after each sentence
    mujoco    the same search on true physics: the upper bound
    nothing   uniformly at random, without simulation

Episode i of a task begins from the same table and with the same instruction whatever chooses.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import gymnasium as gym
import numpy as np
import tyro
from tqdm import tqdm

from worldgym.envs_real.tabletop import TabletopEnv
from worldgym.envs_real.tabletop_tasks import find_task
from worldgym.metrics import wilson
from worldgym.planners import BeamSearch, DreamFutures, Phrases, Speaker, TwinFutures
from worldgym.results import current_commit, write_results
from worldgym.video import side_by_side, write_video
from worldgym.world import WorldModel

COLORS = ("red", "blue")
CORNERS = ("top left corner", "top right corner", "bottom left corner", "bottom right corner")
WAYS = ("dream", "mujoco", "nothing")


@dataclass(frozen=True)
class Config:
    """Tree search over sentences against the same proposer without simulation."""

    world: Annotated[str, tyro.conf.Positional] = "tabletop"
    """A bundled world or a checkpoint folder."""
    tasks: tuple[str, ...] = ("gather", "separate", "corner", "one after the other")
    ways: tuple[str, ...] = WAYS
    episodes: int = 50
    """Of each task, for each way."""
    seed: int = 0
    sentences: int = 6
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


def instructions(task: str, random: np.random.Generator) -> tuple[str, ...]:
    """What an episode asks for, one after the other."""
    color, corner = COLORS[random.integers(2)], CORNERS[random.integers(4)]
    other = COLORS[1 - COLORS.index(color)]
    match task:
        case "gather" | "separate":
            return (f"{task} the blocks",)
        case "corner":
            return (f"push the {color} block to the {corner}",)
        case "one after the other":
            return (f"push the {color} block to the {other} block", f"push the {color} block to the {corner}")
    raise ValueError(f"unknown task {task!r}; there are gather, separate, corner, one after the other")


def episode(
    twin: TabletopEnv, asked: tuple[str, ...], choose: Callable[[str], Callable], seed: int, limit: int
) -> tuple[bool, list[str], list[np.ndarray], list[float]]:
    """(success, what was said, frames after each sentence, seconds of each choice).

    Args:
        choose: instruction -> policy from a frame to a sentence.
    """
    frame, _ = twin.reset(seed=seed, options={"instruction": asked[0]})
    said, frames, seconds, success = [], [frame], [], False
    for instruction in asked:
        twin.instruction, twin.task = instruction, find_task(instruction, twin.colors)
        success, policy = False, choose(instruction)
        for _ in range(limit):
            began = time.perf_counter()
            said.append(policy(frame))
            seconds.append(time.perf_counter() - began)
            frame, _, success, _, _ = twin.step(said[-1])
            frames.append(frame)
            if success:
                break
        if not success:
            break
    return success, said, frames, seconds


def main(config: Config) -> None:
    commit = current_commit()
    world = WorldModel.load(config.world, config.device)
    twin = gym.make("worldgym/TabletopMuJoCo-v0", action_mode="text").unwrapped
    assert isinstance(twin, TabletopEnv)
    propose = Phrases([p for p in world.config.phrases if p not in world.config.instructions], relevant=True)

    def chooser(way: str, seed: int) -> Callable[[str], Callable]:
        random = np.random.default_rng(seed)
        match way:
            case "nothing":
                return lambda instruction: (
                    lambda frame: str(random.choice(propose(instruction, TwinFutures(twin).ground(frame))))
                )
            case "dream":
                return lambda instruction: Speaker(search(DreamFutures(world, instruction)))
            case "mujoco":
                return lambda instruction: Speaker(search(TwinFutures(twin)))
        raise ValueError(f"unknown way {way!r}; there are {', '.join(WAYS)}")

    def search(futures) -> BeamSearch:
        return BeamSearch(futures, propose, depth=config.depth, breadth=config.breadth)

    tasks: dict[str, dict[str, Any]] = {}
    for task in config.tasks:
        random = np.random.default_rng(config.seed)
        asked = [instructions(task, random) for _ in range(config.episodes)]
        tasks[task] = {}
        for way in config.ways:
            began, rows, videos, seconds = time.monotonic(), [], [], []
            for index, wanted in enumerate(tqdm(asked, desc=f"{task}, {way}", unit="episode")):
                seed = config.seed + index
                success, said, frames, spent = episode(twin, wanted, chooser(way, seed), seed, config.sentences)
                rows.append({"instructions": wanted, "success": success, "said": said})
                videos.append(frames)
                seconds += spent
            won = sum(row["success"] for row in rows)
            low, high = wilson(won, len(rows))
            tasks[task][way] = {
                "success_rate": won / len(rows),
                "success_interval": [low, high],
                "mean_sentences_of_successes": float(
                    np.mean([len(r["said"]) for r in rows if r["success"]] or [np.nan])
                ),
                "seconds_per_decision": float(np.mean(seconds)),
                "seconds": time.monotonic() - began,
                "by_episode": rows,
            }
            print(
                f"{task:20s} {way:8s} {won:3d} of {len(rows)} ({won / len(rows):.0%}, 95% interval {low:.0%} to "
                f"{high:.0%}), {np.mean(seconds):.2f} s a decision"
            )
            if config.video:
                shown = side_by_side([np.stack(frames) for frames in videos[:8]])
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
