"""benchmarks/past.py: what a dream is without its past."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from worldgym.data import Segment

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def past(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    return importlib.import_module("past")


def test_the_first_step_has_no_past_to_forget(past, make_world, frames, actions):
    """The second has."""
    nothing = np.zeros((3, 3, 0))
    real, world = Segment(frames, actions[:, :3], *[nothing] * 5), make_world()
    whole, forgetful = (past.dream(world, real, (1, 2, 3), forgetful) for forgetful in (False, True))
    assert whole.shape == (3, 3, 64, 64, 3)
    assert np.array_equal(whole[:, 0], forgetful[:, 0]) and not np.array_equal(whole[:, 1:], forgetful[:, 1:])
