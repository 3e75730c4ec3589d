"""benchmarks/past.py: what a dream is without its past."""

import numpy as np
import pytest

from worldgym.data import Segment


@pytest.fixture
def past(load_benchmark):
    return load_benchmark("past")


def test_the_first_step_has_no_past_to_forget(past, make_world, frames, actions):
    """The second has."""
    nothing = np.zeros((3, 3, 0))
    real, world = Segment(frames, actions[:, :3], *[nothing] * 5), make_world()
    whole, forgetful = (past.dream(world, real, (1, 2, 3), forgetful) for forgetful in (False, True))
    assert whole.shape == (3, 3, 64, 64, 3)
    assert np.array_equal(whole[:, 0], forgetful[:, 0]) and not np.array_equal(whole[:, 1:], forgetful[:, 1:])
