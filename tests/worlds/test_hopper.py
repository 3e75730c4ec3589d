"""The bundled Hopper: its dreams hop, are paid for speed, and fall."""

import gymnasium as gym
import numpy as np
import pytest

from worldgym.data import Segment
from worldgym.envs_real.hopper_record import play_episode
from worldgym.envs_real.settings import HOPPER, RecordConfig
from worldgym.evaluate import dream, evaluate_ends, unseen
from worldgym.metrics import correlation, psnr
from worldgym.world import WorldModel

STEPS = 12
"""Of each episode, its last ones."""


@pytest.fixture(scope="module")
def world() -> WorldModel:
    return WorldModel.load("hopper", "cpu")


@pytest.fixture(scope="module")
def real() -> Segment:
    """Episodes of no recording, the last steps of each before its fall."""
    config = RecordConfig(env=HOPPER, dataset="test/none-v0", steps=48, seed=977)
    parts: dict[str, list[np.ndarray]] = {}
    for index in range(40):
        episode = play_episode(config, index)
        fall = int(episode["terminations"][:, 0].argmax())
        if fall > STEPS:
            rows = {"frames": slice(fall - STEPS, fall + 1), "actions": slice(fall - STEPS, fall)}
            for name, array in episode.items():
                parts.setdefault(name, []).append(array[rows.get(name, slice(fall - STEPS + 1, fall + 1))])
    cut = {name: np.stack(stretches) for name, stretches in parts.items()}
    count = len(cut["frames"])
    assert count > 15
    nothing = np.zeros((count, STEPS, 0), np.int16), np.zeros((count, STEPS, 0, 3), np.float32)
    judged = (cut[name] for name in ("rewards", "successes", "terminations"))
    return Segment(cut["frames"], cut["actions"], *nothing, *judged)


def test_it_is_an_environment_of_its_twins_spaces():
    dream, twin = gym.make("worldgym/Hopper-v0"), gym.make(HOPPER)
    assert dream.observation_space == twin.observation_space and dream.action_space == twin.action_space
    assert dream.spec.max_episode_steps == twin.spec.max_episode_steps
    twin.close()


def test_it_begins_in_motion(world):
    """Two frames tell how fast it goes, also where nobody gives any."""
    env = gym.make("worldgym/Hopper-v0")
    moving = []
    for seed in range(8):
        env.reset(seed=seed)
        state = env.unwrapped.dreams.state
        moving.append(float((state.fused - state.past[:, -1]).abs().mean()))
    assert sum(speed > 1e-3 for speed in moving) > 4


def test_it_hops_is_paid_and_falls_as_in_truth(world, real):
    dreamed, truth = dream(world, real, 0), unseen(world, real)
    steps = truth.actions.shape[1]
    still = np.broadcast_to(truth.frames[:, :1], truth.frames[:, 1:].shape)
    gain = (psnr(dreamed.frames, truth.frames[:, 1:]) - psnr(still, truth.frames[:, 1:])).mean(0)
    assert gain[3] > 8.0 and gain[-1] > 5.0
    assert correlation(dreamed.rewards[:, :4].flatten(), truth.rewards[:, :4, 0].flatten()) > 0.85
    ends = evaluate_ends(world, real, 0)
    assert ends["ended"] == len(real.frames) and ends["steps"] == steps
    assert ends["foreseen"]["rate"] > 0.6 and ends["too_early"]["rate"] < 0.2
