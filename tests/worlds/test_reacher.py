"""The bundled Reacher: what one frame does not tell, several do."""

import shutil

import gymnasium as gym
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import worldgym
from worldgym.data import Segment
from worldgym.envs_real.reacher_record import play_episode
from worldgym.envs_real.settings import REACHER, RecordConfig
from worldgym.evaluate import dream
from worldgym.metrics import psnr
from worldgym.world import WorldModel

AHEAD = 4


@pytest.fixture(scope="module")
def world() -> WorldModel:
    return WorldModel.load("reacher", "cpu")


@pytest.fixture(scope="module")
def real() -> Segment:
    """Episodes of no recording, without their beginnings."""
    config = RecordConfig(env=REACHER, dataset="test/none-v0", steps=12 + 8, seed=977)
    episodes = [play_episode(config, index) for index in range(12)]
    parts = {name: np.stack([one[name] for one in episodes]) for name in episodes[0]}
    rewards, successes, terminations = (parts[name][:, 1:] for name in ("rewards", "successes", "terminations"))
    nothing = np.zeros((12, 20, 0), np.int16), np.zeros((12, 20, 0, 2), np.float32)
    return Segment(parts["frames"], parts["actions"], *nothing, rewards, successes, terminations).since(12)


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


def test_heads_that_were_trained_on_single_frames_still_judge_by_them(world, tmp_path):
    """What judges motion in later worlds is not in their checkpoint, and says nothing."""
    name = "dynamics.outcome_heads.from_motion.weight"
    shutil.copytree(world.folder, tmp_path / "old")
    weights = load_file(tmp_path / "old" / "model.safetensors")
    weights.pop(name)
    save_file(weights, tmp_path / "old" / "model.safetensors")
    assert not WorldModel.load(str(tmp_path / "old"), "cpu").get_parameter(name).any()


def test_told_of_motion_it_goes_on_moving(world, real):
    """From as many frames as tell the speed it beats the last frame, and itself from one frame."""
    seen = world.config.dynamics.observed
    assert world.config.dynamics.prompt > 0 and real.actions.shape[1] == seen - 1 + AHEAD
    truth, last = real.frames[:, seen:], real.frames[:, seen - 1 : seen]
    told, alone = dream(world, real, 0), dream(world, real.since(seen - 1), 0, shown=1)
    still = np.broadcast_to(last, truth.shape)
    assert psnr(told.frames, truth).mean() > psnr(still, truth).mean() + 1.0
    assert psnr(told.frames, truth).mean() > psnr(alone.frames, truth).mean() + 1.0
    assert np.abs(told.rewards - real.rewards[:, seen - 1 :, 0]).mean() < 0.04


@torch.no_grad()
def test_its_state_foresees_what_the_arm_earns(world, real):
    """By distances in metres; the rewards of this recording vary by a tenth of one."""
    seen = world.config.dynamics.observed
    state = world.observe(real.frames[:, :seen], real.actions[:, : seen - 1])
    states = world.recurrent.imagine(state, torch.from_numpy(real.actions[:, seen - 1 :]))
    said = world.recurrent.heads(states, world.read_instructions([*world.config.instructions])).reward[..., 0].numpy()
    wrong = np.abs(said - real.rewards[:, seen - 1 :, 0]).mean(0)
    assert wrong[0] < 0.012 and wrong[-1] < 0.035
