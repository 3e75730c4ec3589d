"""A planner by name that is asked for pictures, judged by what it reaches on a world's twin."""

from collections.abc import Sequence
from pkgutil import resolve_name
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from tqdm import tqdm

from worldgym.checkpoint import goal_weights
from worldgym.evaluate.rollout import Episode, Policy, play
from worldgym.metrics import psnr, wilson
from worldgym.world import WorldModel

from . import PLANNERS
from .goals import GoalReturns
from .mpc import TwinReturns
from .planning import Timed, searching
from .settings import Planning


class Wanted(NamedTuple):
    """What an episode is to look like."""

    picture: np.ndarray
    """uint8 [h, w, 3]."""
    options: dict[str, Any] | None = None
    """Of the twin's reset."""


def plan_and_reach(
    config: Planning, world: WorldModel, twin: gym.Env, wanted: Sequence[Wanted]
) -> tuple[dict[str, Any], list[Episode]]:
    """Play an episode on the world's twin for each goal.

    Args:
        twin: if it can tell, its attribute `reached` says by which rules an episode has reached its goal.

    Returns:
        the metrics that `worldgym plan` writes, and the episodes.
    """
    kind = PLANNERS[config.planner]
    on = config.on if kind.over != "nothing" else "nothing"
    played: list[Episode] = []
    reached: list[dict[str, bool]] = []
    seconds: list[float] = []
    for index, (picture, options) in enumerate(tqdm(wanted, desc=f"{config.planner} on {on}", unit="goal")):
        policy = Timed(_policy(config, world, twin, picture, config.seed + index))
        played.append(play(twin, policy, config.seed + index, options))
        reached.append(getattr(twin, "reached", {}))
        seconds += policy.seconds
    rates = {name: [one[name] for one in reached] for name in reached[0]}
    goals = np.stack([asked.picture for asked in wanted])
    at_first, at_the_end = (psnr(np.stack([one.frames[when] for one in played]), goals) for when in (0, -1))
    return {
        "planner": config.planner,
        "on": on,
        "goal": config.goal,
        "compared_by": _compared_by(world) if on == "dream" else None,
        "episodes": len(played),
        "reached": {
            name: {"rate": float(np.mean(won)), "interval": wilson(sum(won), len(won))} for name, won in rates.items()
        },
        "psnr_at_first": float(np.mean(at_first)),
        "psnr_at_the_end": float(np.mean(at_the_end)),
        "mean_steps": float(np.mean([len(episode.rewards) for episode in played])),
        "seconds_per_decision": float(np.mean(seconds)) if seconds else None,
        "budget": {name: getattr(config, name) for name in (*kind.budget, *(("replan_every",) if kind.budget else ()))},
        "by_episode": [
            {"reached": won, "nearest": float(-episode.rewards.max()), "psnr": float(likeness)}
            for won, episode, likeness in zip(reached, played, at_the_end, strict=True)
        ],
    }, played


def _compared_by(world: WorldModel) -> str:
    """What `GoalReturns` compares states of this world by."""
    return "components" if world.folder is not None and goal_weights(world.folder) else "pictures"


def _policy(config: Planning, world: WorldModel, twin: gym.Env, picture: np.ndarray, seed: int) -> Policy:
    """A policy for one goal."""
    kind = PLANNERS[config.planner]
    if kind.over == "nothing":
        return resolve_name(kind.make)(twin.action_space, seed)
    returns = TwinReturns(twin) if config.on == "mujoco" else GoalReturns(world, picture)
    return searching(config, world, returns, seed)
