"""The Hopper's true twin: Gymnasium's physics, reward and falls, another picture."""

import gymnasium as gym
import numpy as np
import pytest

import worldgym
from worldgym.data import load_episodes
from worldgym.envs_real import hopper_record
from worldgym.envs_real.hopper import FRAME_SKIP, HopperEnv
from worldgym.envs_real.hopper_record import gait, play_episode
from worldgym.envs_real.settings import HOPPER, RecordConfig

DREAMS_ALONE = {"infos tell uncertainty": "truth is certain", "it starts from frames": "physics starts from states"}


@pytest.fixture
def leg():
    env = gym.make(HOPPER)
    yield env
    env.close()


def test_it_passes_the_checks(leg):
    assert not worldgym.check_dream_env(leg, DREAMS_ALONE).failed


def test_rewards_motion_and_falls_are_gymnasiums(leg):
    true = gym.make("Hopper-v5", frame_skip=FRAME_SKIP, ctrl_cost_weight=0.0)
    leg.reset(seed=3)
    true.reset(seed=3)
    for action in np.random.default_rng(0).uniform(-1, 1, (20, 3)).astype(np.float32):
        _, reward, over, _, _ = leg.step(action)
        _, expected, falls, _, _ = true.step(action)
        assert (reward, over) == (expected, falls)
        np.testing.assert_array_equal(leg.unwrapped.data.qpos, true.unwrapped.data.qpos)
        if falls:
            break
    assert falls
    true.close()


def test_what_is_evaluated_is_what_then_happens_until_it_falls(leg):
    leg.reset(seed=1)
    sequences = np.random.default_rng(0).uniform(-1, 1, (3, 20, 3)).astype(np.float32)
    before = leg.unwrapped.snapshot()
    promised = leg.unwrapped.evaluate(sequences)
    assert leg.unwrapped.snapshot() == before
    earned, over, steps = 0.0, False, 0
    while not over:
        _, reward, over, _, _ = leg.step(sequences[1, steps])
        earned, steps = earned + reward, steps + 1
    assert steps < 20 and promised[1] == pytest.approx(earned, rel=1e-5)


def test_the_picture_is_drawn_over_the_same_physics(leg):
    """Limbs are thicker to the eye alone; the camera goes along, so a leg that moves on is seen in the same column."""
    leg.reset(seed=0)
    plain = gym.make("Hopper-v5").unwrapped.model
    assert np.array_equal(leg.unwrapped.model.geom_size[1:], plain.geom_size[1:])
    frame = leg.render()
    leg.unwrapped.data.qpos[0] += 2 * 0.6  # two stripes, one light and one dark
    assert np.abs(leg.render().astype(int) - frame).mean() < 1
    leg.unwrapped.data.qpos[0] += 0.6
    assert np.abs(leg.render().astype(int) - frame)[-8:].mean() > 20


def test_the_gait_hops_on():
    env = HopperEnv()
    env.reset(seed=5)
    heights = []
    for _ in range(150):
        env.advance(gait(env))
        heights.append(env.positions[0, 1])
    assert not env.over and env.positions[0, 0] > 5.0 and np.ptp(heights) > 0.2


def test_an_episode_is_recorded_as_it_was_lived():
    config = RecordConfig(dataset="test/hopper-v0", env=HOPPER, steps=48)
    episodes = [play_episode(config, index) for index in range(8)]
    again = play_episode(config, 2)
    assert all(np.array_equal(again[name], episodes[2][name]) for name in again)
    for episode in episodes:
        speed = np.diff(episode["positions"][:, 0, 0]) / (0.002 * FRAME_SKIP)
        up = ~episode["terminations"][1:, 0]
        np.testing.assert_allclose(episode["rewards"][1:, 0][up], speed[up] + 1, atol=1e-3)
        assert (np.diff(up.astype(int)) <= 0).all()  # what has fallen is over
        assert len(up) >= 20 and (len(up) == 48 or (~up).sum() >= 5)
    assert {episode["terminations"].any() for episode in episodes} == {True, False}


def test_what_stays_up_in_a_recording_does_not_always_go_forward():
    config = RecordConfig(dataset="test/hopper-v0", env=HOPPER, steps=48, resolution=16)
    speeds = []
    for index in range(0, 80, 2):
        episode = play_episode(config, index)
        up = ~episode["terminations"][1:, 0]
        if up.sum() >= 12:
            speeds.append(episode["rewards"][1:, 0][up].mean() - 1)
    assert min(speeds) < 0 and max(speeds) > 0.9


def test_a_recording_trains_a_world(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    hopper_record.record(
        RecordConfig(dataset="test/hopper-v0", env=HOPPER, episodes=2, steps=5, resolution=16, workers=1)
    )
    data = load_episodes("test/hopper-v0")
    assert data.instructions == (HopperEnv.INSTRUCTION,) and data.environment == HOPPER
    assert data.frames.shape[1:] == (16, 16, 3)
