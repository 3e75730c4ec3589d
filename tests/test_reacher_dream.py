"""The bundled Reacher: what one frame does not tell, several do."""

import shutil

import gymnasium as gym
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import worldgym
from worldgym.envs_real.reacher_record import play_episode
from worldgym.envs_real.recording import REACHER, RecordConfig
from worldgym.metrics import psnr
from worldgym.world import WorldModel

AHEAD = 4


@pytest.fixture(scope="module")
def world() -> WorldModel:
    return WorldModel.load("reacher", "cpu")


@pytest.fixture(scope="module")
def real() -> dict[str, np.ndarray]:
    """Episodes of no recording."""
    config = RecordConfig(env=REACHER, dataset="none", steps=24, seed=977)
    episodes = [play_episode(config, index) for index in range(12)]
    return {name: np.stack([one[name] for one in episodes]) for name in ("frames", "actions", "rewards")}


def test_it_is_an_environment_of_its_twins_spaces():
    dream, twin = gym.make("worldgym/Reacher-v0"), gym.make(REACHER)
    assert dream.observation_space == twin.observation_space and dream.action_space == twin.action_space
    assert dream.spec.max_episode_steps == twin.spec.max_episode_steps == 50
    assert not worldgym.check_dream_env(dream).failed


def test_it_knows_no_sentences(world):
    """It was trained on none, and has no weights for them."""
    assert world.dynamics.sentence_policy is None
    state = world.start(np.zeros((1, 1, 64, 64, 3), np.uint8))
    with pytest.raises(ValueError, match="'reacher' was trained on no sentences; act by vectors"):
        world.step(state, ["move up"])


def test_a_world_without_sentences_that_has_a_policy_for_them_still_loads(world, tmp_path):
    """As they were written before."""
    shutil.copytree(world.folder, tmp_path / "old")
    weights = load_file(tmp_path / "old" / "model.safetensors")
    save_file({**weights, "dynamics.sentence_policy.extra": torch.zeros(2)}, tmp_path / "old" / "model.safetensors")
    again = WorldModel.load(str(tmp_path / "old"), "cpu")
    assert all(torch.equal(a, b) for a, b in zip(world.parameters(), again.parameters(), strict=True))


def test_told_of_motion_it_goes_on_moving(world, real):
    """From as many frames as tell the speed it beats the last frame, and itself from one frame."""
    seen = world.config.dynamics.observed
    assert world.config.dynamics.prompt > 0 and seen > 1
    begin = 12
    truth = real["frames"][:, begin + seen : begin + seen + AHEAD]
    last = real["frames"][:, begin + seen - 1 : begin + seen]

    def dream(shown: int) -> tuple[np.ndarray, np.ndarray]:
        first, end = begin + seen - shown, begin + seen
        state = world.start(real["frames"][:, first:end], real["actions"][:, first : end - 1])
        frames, rewards = [], []
        for when in range(AHEAD):
            state, outcome = world.step(state, real["actions"][:, end - 1 + when])
            frames.append(world.render(state).numpy())
            rewards.append(outcome.reward.numpy())
        return np.stack(frames, 1), np.stack(rewards, 1)

    (told, rewards), (alone, _) = dream(seen), dream(1)
    still = np.broadcast_to(last, truth.shape)
    assert psnr(told, truth).mean() > psnr(still, truth).mean() + 1.0
    assert psnr(told, truth).mean() > psnr(alone, truth).mean() + 1.0
    true_rewards = real["rewards"][:, begin + seen : begin + seen + AHEAD, 0]
    assert np.abs(rewards - true_rewards).mean() < 0.04
