"""Planners: those over vectors see `returns = evaluate(action_sequences)`, those over sentences a tree of futures.

A planner is its file and one row of `PLANNERS`, by which `worldgym plan --planner NAME` finds it.
"""

import warnings
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any, Literal

SAMPLING = ("horizon", "samples", "iterations", "action_repeat")


@dataclass(frozen=True)
class PlannerKind:
    """One row. It names functions by path, which are imported when they are used: most of them import torch."""

    about: str
    """A line for the help of the command line."""
    make: str
    """What searches, by what it searches over:

    "actions": (returns, low, high, budget..., seed) -> a `Search`.
    "sentences": (futures, proposer, budget...) -> a `TreeSearch`.
    "nothing": (action space, seed) -> a policy that acts without searching.
    """
    over: Literal["actions", "sentences", "nothing"] = "actions"
    budget: tuple[str, ...] = SAMPLING
    """What of `Planning` `make` takes, by the same names."""
    on: tuple[str, ...] = ("dream", "mujoco")
    """Where it can try things out."""
    dream: str = "worldgym.planners.mpc:DreamReturns"
    """(world, instruction, drawn) -> the dream as its judge of action sequences, drawn or in the recurrent state."""
    choices: bool = True
    """Whether `make` takes `choices`, the categorical factors of an action; else it searches continuous ones alone."""
    guided: bool = False
    """Whether it tries what a guide proposes: see guide.py."""


PLANNERS: dict[str, PlannerKind] = {
    "cem": PlannerKind(
        "the cross-entropy method", "worldgym.planners.cem:CEM", budget=(*SAMPLING, "elites"), guided=True
    ),
    "icem": PlannerKind(
        "the same for short budgets, with noise correlated in time",
        "worldgym.planners.icem:ICEM",
        budget=(*SAMPLING, "elites"),
    ),
    "mppi": PlannerKind("path integrals: all samples vote", "worldgym.planners.mppi:MPPI"),
    "shooting": PlannerKind("the best of random sequences", "worldgym.planners.shooting:RandomShooting"),
    "gradient": PlannerKind(
        "climbs the return through the dream, from the best of random sequences",
        "worldgym.planners.gradient:Gradient",
        on=("dream",),
        dream="worldgym.planners.gradient:DreamSlope",
        choices=False,
    ),
    "beam": PlannerKind(
        "tree search over sentences, level by level",
        "worldgym.planners.tree:BeamSearch",
        over="sentences",
        budget=("depth", "breadth"),
    ),
    "best-first": PlannerKind(
        "tree search over sentences, the most valuable future first",
        "worldgym.planners.tree:BestFirstSearch",
        over="sentences",
        budget=("depth", "breadth"),
    ),
    "random": PlannerKind(
        "acts at random: the floor", "worldgym.planners.shooting:RandomActions", over="nothing", budget=(), on=()
    ),
}

_NAMES = {kind.make.partition(":")[2]: kind.make for kind in PLANNERS.values()} | {
    name: f"worldgym.planners.{module}:{name}"
    for module, names in {
        "goals": ("GoalReturns",),
        "guide": ("Guide", "GuidedReturns"),
        "mpc": ("MPC", "DreamReturns", "TwinReturns"),
        "pan": ("PanFutures",),
        "search": ("Plan", "Search"),
        "tree": ("DreamFutures", "Judge", "Node", "Phrases", "Proposer", "TextMPC", "TwinFutures"),
    }.items()
    for name in names
}
__all__ = ["PLANNERS", "PlannerKind", *_NAMES]


def __getattr__(name: str) -> Any:
    """Import a planner when it is first used."""
    if name == "Speaker":
        warnings.warn("Speaker is now called TextMPC", DeprecationWarning, stacklevel=2)
        name = "TextMPC"
    if name in _NAMES:
        return resolve_name(_NAMES[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
