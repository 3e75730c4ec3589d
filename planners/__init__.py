"""Planners: they see `returns = evaluate(action_sequences)` and nothing else of the world."""

from .cem import CEM, Plan
from .mpc import MPC, DreamReturns, TwinReturns

__all__ = ["CEM", "MPC", "DreamReturns", "Plan", "TwinReturns"]
