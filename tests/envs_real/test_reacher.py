"""The Reacher's true twin: Gymnasium's physics and reward, another picture."""

import gymnasium as gym
import numpy as np
import pytest

import worldgym
from worldgym.data import load_episodes
from worldgym.envs_real import reacher_record
from worldgym.envs_real.reacher import NEAR, ReacherEnv, joints_at
from worldgym.envs_real.reacher_record import play_episode
from worldgym.envs_real.settings import REACHER, RecordConfig

INSTRUCTION = ReacherEnv.INSTRUCTION
DREAMS_ALONE = {"infos tell uncertainty": "truth is certain", "it starts from frames": "physics starts from states"}


@pytest.fixture
def arm():
    env = gym.make(REACHER)
    yield env
    env.close()


def test_it_passes_the_checks(arm):
    assert not worldgym.check_dream_env(arm, DREAMS_ALONE).failed


def test_rewards_and_motion_are_gymnasiums(arm):
    true = gym.make("Reacher-v5", reward_control_weight=0.0)
    arm.reset(seed=3)
    true.reset(seed=3)
    for action in np.random.default_rng(0).uniform(-1, 1, (20, 2)).astype(np.float32):
        reward, expected = arm.step(action)[1], true.step(action)[1]
        assert reward == expected
        np.testing.assert_array_equal(arm.unwrapped.data.qpos, true.unwrapped.data.qpos)


def test_what_is_evaluated_is_what_then_happens(arm):
    arm.reset(seed=1)
    sequences = np.random.default_rng(0).uniform(-1, 1, (3, 8, 2)).astype(np.float32)
    before = arm.unwrapped.snapshot()
    promised = arm.unwrapped.evaluate(sequences)
    assert arm.unwrapped.snapshot() == before
    earned = sum(arm.step(action)[1] for action in sequences[1])
    assert promised[1] == pytest.approx(earned, rel=1e-5)


def test_two_arms_draw_their_own_pictures(arm):
    other = gym.make(REACHER)
    first, second = arm.reset(seed=1)[0], other.reset(seed=2)[0]
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(arm.reset(seed=2)[0], second)
    other.close()


@pytest.mark.parametrize("bend", [-1.0, 1.0])
def test_the_angles_of_a_place_put_the_tip_there(arm, bend):
    env = arm.unwrapped
    env.reset(seed=0)
    for target in ([0.1, 0.05], [-0.12, 0.1], [0.0, -0.18]):
        env.set_state(np.concatenate([joints_at(np.array(target), bend), env.goal]), np.zeros(4))
        np.testing.assert_allclose(env.positions[0], target, atol=1e-3)


def test_another_instruction_is_refused(arm):
    with pytest.raises(ValueError, match=f"unknown instruction 'dance'.*{INSTRUCTION!r}"):
        arm.reset(options={"instruction": "dance"})
    with pytest.raises(ValueError, match="unknown reset options"):
        arm.reset(options={"frames": np.zeros((1, 64, 64, 3), np.uint8)})
    assert arm.reset(seed=0, options={"instruction": INSTRUCTION})[0].shape == (64, 64, 3)


def test_an_episode_is_recorded_as_it_was_lived():
    config = RecordConfig(dataset="test/reacher-v0", env=REACHER, steps=48)
    episodes = [play_episode(config, index) for index in range(6)]
    again = play_episode(config, 2)
    assert all(np.array_equal(again[name], episodes[2][name]) for name in again)
    for episode in episodes:
        distance = np.linalg.norm(episode["positions"][:, 0] - episode["positions"][:, 1], axis=-1)
        assert np.array_equal(episode["successes"][:, 0], distance < NEAR)
        np.testing.assert_allclose(episode["rewards"][1:, 0], -distance[1:], atol=0.05)  # a substep old
    assert any(episode["successes"].any() for episode in episodes)


def test_a_recording_trains_a_world(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    reacher_record.record(
        RecordConfig(dataset="test/reacher-v0", env=REACHER, episodes=2, steps=5, resolution=16, workers=1)
    )
    data = load_episodes("test/reacher-v0")
    assert data.instructions == (INSTRUCTION,) and data.environment == REACHER
    assert data.frames.shape[1:] == (16, 16, 3)
