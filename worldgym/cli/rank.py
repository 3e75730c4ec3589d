"""`worldgym rank`: does a world rank policies as reality does?"""

from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import gymnasium as gym
import numpy as np

from ..agents.settings import Rank
from ..envs_real.settings import HELD_OUT
from ..errors import UserError

ITERATIONS = 2
"""Rounds of trying and narrowing down of the planners that are ranked."""


def rank(config: Rank) -> dict[str, Any]:
    from ..agents.policies import agent_policies
    from ..agents.rank_report import write_report
    from ..agents.ranking import MakePolicy, Nearness, draw_starts, rank_policies
    from ..envs_real.twins import twin_kind, twin_of
    from ..results import current_commit, write_results
    from ..world import WorldModel

    commit, world = current_commit(), WorldModel.load(config.world)
    twin, kind = twin_of(world.config), twin_kind(world.config.twin)
    only = len(world.config.instructions) == 1
    wanted = world.config.matching(config.instruction or (("*",) if only else ("reach *",)))
    if config.imagined and world.recurrent is None:
        raise UserError(f"{world.config.name!r} has no recurrent state to imagine in; leave out --imagined")
    policies: dict[str, MakePolicy] = {}
    if kind.policies and not config.imagined:  # these look at pictures
        policies |= resolve_name(kind.policies)()
    policies |= {name: make for name, make in _blind(world).items() if name not in policies}
    policies |= _planned(config, world, twin)
    for folder in config.agents:
        of = f"{folder.name}: " if len(config.agents) > 1 else ""
        policies |= {of + name: make for name, make in agent_policies(folder, world).items()}
    sees: dict[str, Any] = {"obs_type": "state", "imagined": True} if config.imagined else {}
    limit = twin.spec.max_episode_steps if twin.spec else None
    dream = gym.make("worldgym/Dream-v0", world=config.world, max_episode_steps=limit, **sees)
    nearness = None
    if kind.locate and kind.cases and not config.imagined:
        nearness = Nearness(resolve_name(kind.locate), resolve_name(kind.cases).BLOCK_WIDTH / 2)
    starts = draw_starts(wanted, config.episodes, HELD_OUT + config.seed)
    ranking = rank_policies(dream, twin, policies, starts, nearness)
    metrics = {"instructions": wanted, "imagined": config.imagined, **ranking.metrics}
    print(
        f"{len(metrics['policies'])} policies, {config.episodes} episodes each, mean return in the dream and in "
        f"reality: Pearson {metrics['return_pearson']:.3f}, Spearman {metrics['return_spearman']:.3f}"
    )
    page = write_report(
        config.report or Path("runs/rank") / world.config.name,
        f"Does {world.config.name} rank policies as {world.config.twin} does?",
        f"{', '.join(wanted[:3])}{', ...' * (len(wanted) > 3)}. The dream "
        f"{'moves its recurrent state alone' if config.imagined else 'draws every frame'}.",
        ranking,
        partial(_picture, world) if config.imagined else None,
    )
    print(f"report: {page}")
    for path in filter(None, (page.with_name("run.json"), config.json)):
        write_results(path, config.seed, metrics, commit)
    return metrics


def _picture(world, states: np.ndarray) -> np.ndarray:
    """What recurrent states [t, s] show, uint8 [t, h, w, 3]."""
    import torch

    with torch.no_grad():
        return world.recurrent.render(torch.from_numpy(states).to(world.device)).cpu().numpy()


def _planned(config: Rank, world, twin: gym.Env) -> dict[str, Any]:
    """CEM in the dream, by each of its budgets, as makers of policies."""
    from ..planners.planning import make_policy
    from ..planners.settings import Planning

    def planner(samples: int):
        budget = Planning(
            config.world, samples=samples, iterations=ITERATIONS, horizon=config.horizon,
            action_repeat=config.action_repeat, replan_every=config.replan_every,
        )  # fmt: skip
        return lambda instruction, seed: make_policy(budget, world, twin, instruction, seed)

    return {f"CEM, {samples} x {ITERATIONS}": planner(samples) for samples in sorted(config.samples)}


def _blind(world) -> dict[str, Any]:
    """Those that look at nothing."""
    from ..planners.shooting import RandomActions

    codec = world.config.codec
    rest = np.zeros(codec.size, np.float32)

    def still(instruction: str, seed: int):
        return lambda observation: rest if codec.plain else codec.decode(rest)

    return {"random": lambda instruction, seed: RandomActions(codec.space, seed), "still": still}
