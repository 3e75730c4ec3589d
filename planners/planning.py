"""A planner by name, judged by what it achieves on a world's twin."""

import time
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pkgutil import resolve_name
from typing import Any

import gymnasium as gym
import numpy as np
from tqdm import tqdm

from worldgym.errors import UserError
from worldgym.evaluate.rollout import Episode, Policy, episode_statistics, go_on, play
from worldgym.reader import reader_of
from worldgym.world import WorldModel

from . import PLANNERS
from .guide import Guide, GuidedReturns
from .mpc import MPC, Returns, TwinReturns
from .settings import Planning
from .tree import DreamFutures, Phrases, TextMPC, TwinFutures

THEN = ", then "
"""Between the parts of an instruction."""


def plan_and_act(
    config: Planning, world: WorldModel, twin: gym.Env, guide: Guide | None = None
) -> tuple[dict[str, Any], list[Episode]]:
    """Play on the world's twin.

    Args:
        twin: in the world's spaces; its actions are sentences if the planner's are.
        guide: proposes action sequences and says what follows them.

    Returns:
        the metrics that `worldgym plan` writes, and the episodes.

    Raises:
        UserError: no such instruction, or no sentences to say.
    """
    kind = PLANNERS[config.planner]
    only = len(world.config.instructions) == 1
    wanted = _wanted(config.instruction or ("*" if only else "reach *",), world, twin)
    random = np.random.default_rng(config.seed)
    asked = [wanted[random.integers(len(wanted))] for _ in range(config.episodes)]
    played: list[Episode] = []
    seconds: list[float] = []
    on = config.on if kind.over != "nothing" else "nothing"
    with tqdm(asked, desc=f"{config.planner} on {on}", unit="episode") as progress:
        for index, parts in enumerate(progress):
            seed = config.seed + index
            policies = [Timed(make_policy(config, world, twin, part, seed, guide)) for part in parts]
            played.append(_play(twin, parts, policies, seed))
            seconds += [second for policy in policies for second in policy.seconds]
            progress.set_postfix(success=f"{np.mean([episode.success for episode in played]):.0%}")
    around = {"actions": ("replan_every",), "sentences": ("say",), "nothing": ()}[kind.over]
    return {
        "planner": config.planner,
        "on": on,
        "guided": guide is not None,
        "drawn": on == "dream" and (config.drawn or world.recurrent is None or kind.over == "sentences"),
        "instructions": [THEN.join(parts) for parts in wanted],
        "episodes": config.episodes,
        **episode_statistics(played),
        "seconds_per_decision": float(np.mean(seconds)) if seconds else None,
        "budget": {name: getattr(config, name) for name in (*kind.budget, *around)},
        "by_episode": [
            {"instruction": THEN.join(parts), "success": episode.success, "return": episode.total}
            for parts, episode in zip(asked, played, strict=True)
        ],
    }, played


def _wanted(patterns: Sequence[str], world: WorldModel, twin: gym.Env) -> list[tuple[str, ...]]:
    """What an episode can ask for: an instruction that matches a pattern, or several that one asks for in a row."""
    read = {pattern: reader_of(world.config.instructions).read(pattern).phrases for pattern in patterns}
    rows = [parts for parts in read.values() if len(parts) > 1]
    if rows and not hasattr(twin.unwrapped, "instruct"):
        raise UserError(f"{world.config.twin} cannot be given one instruction after another; give it one")
    single = [pattern for pattern in patterns if len(read[pattern]) < 2]
    return [(one,) for one in (world.config.matching(single) if single else ())] + rows


def _play(twin: gym.Env, parts: Sequence[str], policies: Sequence[Policy], seed: int) -> Episode:
    """Each part goes on where the one before it succeeded, for as long as an episode lasts at most."""
    episode = play(twin, policies[0], seed, {"instruction": parts[0]})
    limit = None if twin.spec is None else twin.spec.max_episode_steps
    for part, policy in zip(parts[1:], policies[1:], strict=True):
        if not episode.success:
            break
        twin.get_wrapper_attr("instruct")(part)
        episode = episode.then(go_on(twin.unwrapped, policy, episode.frames[-1], limit))
    return episode


class Timed:
    """A policy, and the seconds of each of its decisions that took planning."""

    def __init__(self, policy: Policy):
        self.policy = policy
        self.seconds: list[float] = []

    def __call__(self, observation: np.ndarray) -> Any:
        began, before = time.perf_counter(), getattr(self.policy, "plan", None)
        action = self.policy(observation)
        if getattr(self.policy, "plan", None) is not before:
            self.seconds.append(time.perf_counter() - began)
        return action


def make_policy(
    config: Planning, world: WorldModel, twin: gym.Env, instruction: str, seed: int, guide: Guide | None = None
) -> Policy:
    """A policy for one episode on the world's twin.

    Raises:
        UserError: no sentence of the world matches `config.say`, or the planner cannot search among its actions.
    """
    kind, dreams = PLANNERS[config.planner], config.on == "dream"
    if kind.over == "nothing":
        return resolve_name(kind.make)(twin.action_space, seed)
    if kind.over == "sentences":
        futures = DreamFutures(world, instruction) if dreams else TwinFutures(twin)
        budget = {name: getattr(config, name) for name in kind.budget}
        return TextMPC(resolve_name(kind.make)(futures, Phrases(sayable(config, world)), **budget))
    returns: Returns = TwinReturns(twin)
    if dreams and guide is not None:
        returns = GuidedReturns(world, instruction, guide, seed)
    elif dreams:
        returns = resolve_name(kind.dream)(world, instruction, config.drawn)
    return searching(config, world, returns, seed)


def searching(config: Planning, world: WorldModel, returns: Returns, seed: int) -> MPC:
    """A policy that searches among vector actions for what earns most.

    Raises:
        UserError: the planner cannot search among the world's actions.
    """
    kind, codec = PLANNERS[config.planner], world.config.codec
    if codec.choices and not kind.choices:
        able = ", ".join(name for name, other in PLANNERS.items() if other.over == "actions" and other.choices)
        raise UserError(
            f"--planner {config.planner} searches among continuous actions alone, and {world.config.name!r} takes "
            f"{codec.space}; {able} search among categories, too"
        )
    budget = {name: getattr(config, name) for name in kind.budget}
    if codec.choices:
        budget["choices"] = codec.choices
    high = np.ones(codec.size, np.float32)
    search = resolve_name(kind.make)(returns, -high, high, seed=seed, **budget)
    return MPC(returns, search, config.replan_every, world.config.observed, codec)


def sayable(config: Planning, world: WorldModel) -> list[str]:
    """The sentences that a tree search may say."""
    if not world.config.phrases:
        raise UserError(f"{world.config.name!r} was trained on no sentences; --planner {config.planner} needs some")
    said = [phrase for phrase in world.config.phrases if any(fnmatchcase(phrase, pattern) for pattern in config.say)]
    if not said:
        raise UserError(f"no sentence of {world.config.name!r} matches {' or '.join(map(repr, config.say))}")
    return said
