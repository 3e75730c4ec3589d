"""The single-file SAC of benchmarks/: it knows nothing of dreams, and learns in one as in any other environment."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode


class Aim(gym.Env):
    """Two steps: the nearer the action is to 0.5, the better; what is seen is the number of steps taken."""

    observation_space = gym.spaces.Box(0, 2, (1,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        self.taken = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.taken += 1
        return np.full(1, self.taken, np.float32), -abs(float(action[0]) - 0.5), False, self.taken == 2, {}


@pytest.fixture
def sac(load_benchmark):
    return load_benchmark("sac_file")


def test_it_learns_in_a_dream(sac, checkpoint):
    """From what was reached at the end of an episode, and not from the first of the next."""
    envs = gym.make_vec(
        "worldgym/Dream-v0", 3, world=str(checkpoint), obs_type="latent", max_episode_steps=2, device="cpu",
        autoreset_mode="SameStep",
    )  # fmt: skip
    settings = sac.Settings(steps=60, random_steps=24, batch=8, kept=60)
    actor, returns = sac.train(envs, settings)
    assert len(returns) == 30 and np.isfinite(returns).all()
    assert all(torch.isfinite(weights).all() for weights in actor.parameters())


def test_it_finds_the_best_action(sac):
    envs = gym.vector.SyncVectorEnv([Aim] * 8, autoreset_mode=AutoresetMode.SAME_STEP)
    _, returns = sac.train(envs, sac.Settings(steps=4000, random_steps=400, batch=64, learning_rate=3e-3))
    assert np.mean(returns[-50:]) > np.mean(returns[:50]) / 2


def test_what_was_reached_is_kept_and_not_what_follows(sac, monkeypatch):
    """Of an episode that is cut after two steps, the second leads to 2."""
    kept, plain = [], sac.Actor.forward

    def forward(self, observation):
        kept.append(observation)
        return plain(self, observation)

    monkeypatch.setattr(sac.Actor, "forward", forward)
    envs = gym.vector.SyncVectorEnv([Aim] * 4, autoreset_mode=AutoresetMode.SAME_STEP)
    sac.train(envs, sac.Settings(steps=160, random_steps=80, batch=40))
    after = {tuple(np.unique(batch)) for batch in kept if len(batch) == 40}
    assert (1.0, 2.0) in after and not any(0.0 in each and 2.0 in each for each in after)


def test_another_autoreset_is_refused(sac):
    with pytest.raises(ValueError, match="counts on SAME_STEP"):
        sac.train(gym.vector.SyncVectorEnv([Aim]), sac.Settings())
