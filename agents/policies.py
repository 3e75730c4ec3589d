"""Agents as policies of every quality, by name: what a world that is asked to rank them needs."""

from pathlib import Path

from worldgym.evaluate.rollout import Policy
from worldgym.world import WorldModel

from .learning import checkpoints as ages
from .learning import load_policy, policy_of
from .ranking import MakePolicy, Mistaken

MISTAKES = 0.2, 0.4, 0.6, 0.8
"""Shares of an agent's actions that are drawn at random."""


def agent_policies(folder: Path, world: WorldModel, checkpoints: bool = True) -> dict[str, MakePolicy]:
    """The agent in a folder of `worldgym learn`; or each of its checkpoints, and the newest with mistakes."""
    if not checkpoints:
        return dict([_agent(folder, "", world)])
    found = dict(_agent(folder, age, world) for age in ages(folder))
    return found | dict(_agent(folder, "", world, share) for share in MISTAKES)


def _agent(folder: Path, age: str, world: WorldModel, share: float = 0.0) -> tuple[str, MakePolicy]:
    """An agent by what it is, and as a maker of policies."""
    model, made = load_policy(folder, world, age)
    called, sees = f"{made.agent} of {made.where}, {model.num_timesteps} steps", made.sees
    assert sees is not None

    def make(instruction: str, seed: int) -> Policy:
        return policy_of(Mistaken(model, share, world.config.codec.space, seed) if share else model, world, sees)

    return f"{called}, {share:.0%} mistakes" if share else called, make
