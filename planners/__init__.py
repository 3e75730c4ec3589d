"""Planners: those over vectors see `returns = evaluate(action_sequences)`, those over sentences a tree of futures."""

from .cem import CEM
from .icem import ICEM
from .mpc import MPC, DreamReturns, TwinReturns
from .mppi import MPPI
from .search import Plan, Search
from .shooting import RandomShooting
from .tree import BeamSearch, BestFirstSearch, DreamFutures, Judge, Node, Phrases, Proposer, TextMPC, TwinFutures

__all__ = [
    "CEM",
    "ICEM",
    "MPC",
    "MPPI",
    "BeamSearch",
    "BestFirstSearch",
    "DreamFutures",
    "DreamReturns",
    "Judge",
    "Node",
    "Phrases",
    "Plan",
    "Proposer",
    "RandomShooting",
    "Search",
    "TextMPC",
    "TwinFutures",
    "TwinReturns",
]
