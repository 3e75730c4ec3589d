"""Sequences tried on a MuJoCo environment that cannot branch: by a copy of its data where that is all it goes by."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.mujoco.inverted_pendulum_v5 import InvertedPendulumEnv

from worldgym.envs_real.gym_record import make_twin
from worldgym.envs_real.replayed import Replayed


class Tiring(InvertedPendulumEnv):
    """What it pays depends on how often it moved, which MuJoCo does not know."""

    moved = 0

    def reset(self, *, seed=None, options=None):
        self.moved = 0
        return super().reset(seed=seed, options=options)

    def step(self, action):
        self.moved += 1
        observation, reward, *rest = super().step(action)
        return observation, reward / self.moved, *rest


def _replayed(id: str, entry: str, moves: int) -> tuple[Replayed, np.ndarray]:
    gym.register(id, entry, max_episode_steps=12)
    twin = Replayed(make_twin(id), lambda: make_twin(id), "stand")
    twin.reset(seed=3)
    random = np.random.default_rng(0)
    for _ in range(moves):
        twin.step(random.uniform(-0.1, 0.1, 1).astype(np.float32))
    return twin, random.uniform(-1, 1, (6, 10, 1)).astype(np.float32)


@pytest.mark.parametrize(("env", "copies"), [(InvertedPendulumEnv, True), (Tiring, False)])
def test_a_copy_of_the_data_does_what_going_through_the_episode_does_or_is_not_used(env, copies):
    id = f"test/{env.__name__}-v0"
    try:
        twin, tried = _replayed(id, f"{env.__module__}:{env.__name__}", moves=5)
        found = twin.evaluate(tried)
        assert twin._copies is copies
        assert np.array_equal(found, twin.evaluate(tried))
        one_by_one = [_lived(twin, sequence) for sequence in tried]
        assert np.array_equal(found, np.float32(one_by_one))
        assert not copies or found.max() == 7  # of the 12 steps of an episode, five were taken
    finally:
        del gym.registry[id]


def _lived(twin: Replayed, sequence: np.ndarray) -> float:
    """The return of taking a sequence, after which nothing has happened."""
    before, total = twin.snapshot(), 0.0
    for action in sequence:
        _, reward, terminated, truncated, _ = twin.step(action)
        total += reward
        if terminated or truncated:
            break
    twin.restore(before)
    return total
