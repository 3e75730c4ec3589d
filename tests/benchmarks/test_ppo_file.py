"""The single-file PPO of benchmarks/: it knows nothing of dreams, and learns in one as in any other environment."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

spec = importlib.util.spec_from_file_location("ppo_file", Path(__file__).parents[2] / "benchmarks" / "ppo_file.py")
ppo_file = importlib.util.module_from_spec(spec)
spec.loader.exec_module(ppo_file)

SMALL = ppo_file.Settings(num_envs=3, steps=24, rollout=4, epochs=1, batch=6)


class Aim(gym.Env):
    """One step: the nearer the action is to 0.5, the better."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), -abs(float(action[0]) - 0.5), True, False, {}


@pytest.mark.parametrize("obs_type", ["pixels", "latent"])
def test_it_learns_in_a_dream(checkpoint, obs_type):
    """Weights move, and episodes of the dream's own length are counted."""
    envs = gym.make_vec(
        "worldgym/Dream-v0", 3, world=str(checkpoint), obs_type=obs_type, max_episode_steps=2, device="cpu"
    )
    torch.manual_seed(SMALL.seed)
    before = ppo_file.Agent(envs.single_observation_space, envs.single_action_space).state_dict()
    agent, returns = ppo_file.train(envs, SMALL)
    assert len(returns) == 2 and np.isfinite(returns).all()
    assert all(torch.isfinite(weights).all() for weights in agent.parameters())
    assert not all(torch.equal(weights, before[name]) for name, weights in agent.state_dict().items())


def test_it_finds_the_best_action():
    envs = gym.vector.SyncVectorEnv([Aim] * 8)
    _, returns = ppo_file.train(envs, ppo_file.Settings(num_envs=8, steps=4096, rollout=32, learning_rate=3e-3))
    assert returns[-1] > returns[0] / 2


def test_the_steps_between_episodes_are_left_out(monkeypatch):
    """Every second step of this environment only begins anew; the agent is updated from the other half."""
    seen = []
    plain = ppo_file.Agent.forward

    def forward(self, observation):
        if torch.is_grad_enabled():
            seen.append(len(observation))
        return plain(self, observation)

    monkeypatch.setattr(ppo_file.Agent, "forward", forward)
    ppo_file.train(gym.vector.SyncVectorEnv([Aim] * 3), replace(SMALL, steps=12, batch=100))
    assert seen == [6]


def test_another_autoreset_is_refused():
    envs = gym.vector.SyncVectorEnv([Aim] * 3, autoreset_mode=gym.vector.AutoresetMode.SAME_STEP)
    with pytest.raises(ValueError, match="NEXT_STEP"):
        ppo_file.train(envs, SMALL)
