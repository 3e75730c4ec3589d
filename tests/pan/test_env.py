"""PAN's door: `worldgym/Pan-v0`, its vector form, its rewards, its ends."""

from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from worldgym.checks import check_dream_env, check_vector_env

SIZE = 32
NO_TOKENS = {"infos tell uncertainty": "PAN draws no tokens whose entropy could be told"}


def brightness(frames: np.ndarray) -> np.ndarray:
    return frames.mean((1, 2, 3)) / 255


@pytest.fixture
def arguments(pan_folder) -> dict[str, Any]:
    return {
        "trained": str(pan_folder / "joint"), "reward": brightness, "starts": str(pan_folder / "clips"),
        "device": "cpu", "dtype": "float32", "render_mode": "rgb_array",
    }  # fmt: skip


@pytest.fixture
def make(arguments):
    """`gym.make` of the toy, with other arguments."""
    return lambda **changes: gym.make("worldgym/Pan-v0", **{**arguments, **changes})


def test_the_checker_of_dreams_accepts_it(make):
    report = check_dream_env(make(), NO_TOKENS)
    assert set(report.not_applicable) == set(NO_TOKENS)


def test_the_checker_of_vector_environments_accepts_it(arguments):
    report = check_vector_env(partial(gym.make_vec, "worldgym/Pan-v0", **arguments, at_once=4))
    assert all("the other modes are compared" in why for why in report.not_applicable.values())
