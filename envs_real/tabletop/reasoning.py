"""Tasks of the Tabletop that take several sentences, carried out in MuJoCo sentence by sentence as a policy chooses."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from worldgym.evaluate.rollout import Policy
from worldgym.metrics import bootstrap

from .env import TabletopEnv
from .tasks import find_task

COLORS = ("red", "blue")
CORNERS = ("top left corner", "top right corner", "bottom left corner", "bottom right corner")
COMBINED = "one after the other"
"""Two instructions of which each is judged in the recording, and no two in a row."""
TASKS = ("gather", "separate", "corner", COMBINED)
SENTENCES = 6
"""That may be said for each instruction."""

MakePolicy = Callable[[str, np.random.Generator], Policy]
"""An instruction and the episode's random generator -> what chooses the next sentence."""


class Talk(NamedTuple):
    """An episode."""

    instructions: tuple[str, ...]
    success: bool
    """Of all instructions."""
    said: list[str]
    frames: np.ndarray
    """uint8 [1 + len(said), h, w, 3], after each sentence."""
    seconds: list[float]
    """Of each choice."""


def instructions(task: str, random: np.random.Generator) -> tuple[str, ...]:
    """What an episode asks for, one after the other."""
    color, corner = COLORS[random.integers(2)], CORNERS[random.integers(4)]
    other = COLORS[1 - COLORS.index(color)]
    match task:
        case "gather" | "separate":
            return (f"{task} the blocks",)
        case "corner":
            return (f"push the {color} block to the {corner}",)
        case _ if task == COMBINED:
            return (f"push the {color} block to the {other} block", f"push the {color} block to the {corner}")
    raise ValueError(f"unknown task {task!r}; there are {', '.join(TASKS)}")


def talk(twin: TabletopEnv, asked: tuple[str, ...], way: MakePolicy, seed: int, limit: int = SENTENCES) -> Talk:
    """Says up to `limit` sentences for each instruction; an instruction that is not fulfilled by then ends it."""
    frame, _ = twin.reset(seed=seed, options={"instruction": asked[0]})
    random, said, frames, seconds, success = np.random.default_rng(seed), [], [frame], [], False
    for instruction in asked:
        twin.instruction, twin.task = instruction, find_task(instruction, twin.colors)
        success, choose = False, way(instruction, random)
        for _ in range(limit):
            began = time.perf_counter()
            said.append(choose(frame))
            seconds.append(time.perf_counter() - began)
            frame, _, success, _, _ = twin.step(said[-1])
            frames.append(frame)
            if success:
                break
        if not success:
            break
    return Talk(asked, success, said, np.stack(frames), seconds)


def talks(
    twin: TabletopEnv, task: str, name: str, way: MakePolicy, episodes: int, seed: int, limit: int = SENTENCES
) -> list[Talk]:
    """Episodes of a task; the i-th has the same table and instructions whatever chooses, named `name`."""
    random = np.random.default_rng(seed)
    asked = [instructions(task, random) for _ in range(episodes)]
    progress = tqdm(asked, desc=f"{task}, {name}", unit="episode")
    return [talk(twin, wanted, way, seed + index, limit) for index, wanted in enumerate(progress)]


def evaluate_planning(
    twin: TabletopEnv, ways: Mapping[str, MakePolicy], episodes: int, seed: int, tasks: Sequence[str] = TASKS
) -> dict[str, Any]:
    """Success in MuJoCo of each way to choose, over `episodes` episodes of each of the tasks together, with the 95%
    bootstrap interval over episodes; and by task."""
    figures = {}
    for name, way in ways.items():
        held = {task: talks(twin, task, name, way, episodes, seed) for task in tasks}
        won = np.array([one.success for row in held.values() for one in row])
        figures[name] = {
            "value": float(won.mean()),
            "interval": bootstrap(np.mean, won),
            "cases": len(won),
            "by_task": {task: float(np.mean([one.success for one in row])) for task, row in held.items()},
            "seconds_per_decision": mean_seconds([one for row in held.values() for one in row]),
        }
    return {"episodes_of_each_task": episodes, "sentences": SENTENCES, "ways": figures}


def mean_seconds(held: Sequence[Talk]) -> float:
    """Of a choice."""
    return float(np.mean([seconds for one in held for seconds in one.seconds]))
