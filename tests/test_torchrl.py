"""TorchRL takes dreams as it takes any Gymnasium environment, one or a batch, and its own checker agrees."""

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("torchrl", reason='TorchRL is not installed: pip install "worldgym[dev]"')

from torchrl.envs import GymEnv, GymWrapper, check_env_specs

import worldgym  # noqa: F401  registers the environments


@pytest.mark.parametrize("options", [{}, {"obs_type": "latent"}, {"obs_type": "both"}, {"action_mode": "discrete"}])
def test_a_dream_passes_its_checker(checkpoint, options):
    env = GymEnv("worldgym/Dream-v0", world=str(checkpoint), **options)
    check_env_specs(env)


@pytest.mark.parametrize("mode", ["SameStep", "Disabled"])
def test_a_batch_of_dreams_passes_and_keeps_the_last_frames(checkpoint, mode):
    """Of an episode of two steps, the second leads to the frame that the same dream alone ends in; then it begins
    anew."""
    batch = gym.make_vec(
        "worldgym/Dream-v0", 3, world=str(checkpoint), max_episode_steps=2, autoreset_mode=mode, device="cpu"
    )
    envs = GymWrapper(batch)
    check_env_specs(envs)
    envs.set_seed(5)
    rollout = envs.rollout(4, break_when_any_done=False)
    assert rollout.batch_size == (3, 4)
    assert rollout["next", "truncated"][..., 0].tolist() == [[False, True, False, True]] * 3
    seen, reached = rollout["observation"][0].numpy(), rollout["next", "observation"][0].numpy()
    alone = gym.make("worldgym/Dream-v0", world=str(checkpoint), device="cpu")
    alone.reset(seed=5)
    assert close(seen[0], alone.reset()[0])  # the second reset: seeding is the first
    for action in rollout["action"][0, :2].numpy():
        frame, *_ = alone.step(action)
    assert close(reached[1], frame)
    assert not close(seen[2], frame)


def close(one: np.ndarray, other: np.ndarray) -> bool:
    """Frames to within rounding."""
    return bool(np.abs(one.astype(int) - other).max() <= 1)
