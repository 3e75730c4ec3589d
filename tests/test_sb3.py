"""Many dreams behind Stable-Baselines3's API, whose agents learn in them unchanged."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnvWrapper, VecFrameStack, VecMonitor, VecNormalize

from worldgym.env import DreamEnv
from worldgym.sb3 import DreamVecEnv

STILL = np.zeros((3, 2), np.float32)
SMALL = {"net_arch": [8]}  # copied for each agent: SAC writes into its own


@pytest.fixture
def dreams(checkpoint):
    """Makes three dreams of the tiny world, of two steps each unless told otherwise."""
    return lambda **options: DreamVecEnv(
        "worldgym/Dream-v0", 3, **{"world": str(checkpoint), "max_episode_steps": 2, "device": "cpu", **options}
    )


class Recorder(VecEnvWrapper):
    """Keeps what the environment says, before an agent changes it."""

    def reset(self):
        self.steps = []
        return self.venv.reset()

    def step_wait(self):
        step = self.venv.step_wait()
        self.steps.append((step[0].copy(), step[1].copy(), step[2].copy(), [dict(info) for info in step[3]]))
        return step


def alone(checkpoint, seed, actions, **options):
    """What the same actions bring to the same dream on its own: the last observation and all rewards."""
    env = DreamEnv(str(checkpoint), device="cpu", **options)
    env.reset(seed=seed)
    steps = [env.step(action) for action in actions]
    return steps[-1][0], [step[1] for step in steps]


# -- what an agent relies on ---------------------------------------------------------------------------------


def test_truncated_episodes_are_bootstrapped_by_the_value_of_their_last_frame(checkpoint, dreams):
    """By value: reward + gamma * V(terminal observation), for terminal observations made independently."""
    envs = Recorder(dreams(obs_type="latent"))
    model = PPO("MlpPolicy", envs, n_steps=4, batch_size=6, n_epochs=1, gamma=0.9, seed=0, policy_kwargs=dict(SMALL))
    _, callback = model._setup_learn(12, None)
    callback.on_training_start({}, {})
    model.collect_rollouts(envs, callback, model.rollout_buffer, 4)
    buffer, rewards = model.rollout_buffer, np.stack([step[1] for step in envs.steps])
    assert np.array_equal(np.stack([step[2] for step in envs.steps]), [[False] * 3, [True] * 3] * 2)
    for index in range(3):
        last, expected = alone(checkpoint, index, np.clip(buffer.actions[:2, index], -1, 1), obs_type="latent")
        info = envs.steps[1][3][index]
        assert info["TimeLimit.truncated"] is True
        assert np.allclose(info["terminal_observation"], last, atol=1e-4)
        assert np.allclose(rewards[:2, index], expected, atol=1e-4)
        with torch.no_grad():
            value = model.policy.predict_values(torch.as_tensor(last)[None]).item()
        assert abs(value) > 1e-3
        assert buffer.rewards[0, index] == pytest.approx(rewards[0, index], abs=1e-5)
        assert buffer.rewards[1, index] == pytest.approx(rewards[1, index] + 0.9 * value, abs=1e-4)


def test_a_real_end_is_not_taken_for_a_cut(write_checkpoint):
    envs = DreamVecEnv("worldgym/Dream-v0", 3, world=str(write_checkpoint(ends=True)), max_episode_steps=1)
    envs.reset()
    _, _, dones, infos = envs.step(STILL)
    assert dones.all() and not any(info["TimeLimit.truncated"] for info in infos)


def test_a_replay_buffer_keeps_the_last_frame_of_an_episode(dreams):
    envs = Recorder(dreams(obs_type="latent"))
    model = SAC("MlpPolicy", envs, learning_starts=100, buffer_size=24, seed=0, policy_kwargs=dict(SMALL))
    model.learn(6)
    kept = model.replay_buffer
    for index in range(3):
        assert np.array_equal(kept.next_observations[1, index], envs.steps[1][3][index]["terminal_observation"])
        assert not np.array_equal(kept.next_observations[1, index], envs.steps[1][0][index])
    assert kept.dones[1].all() and kept.timeouts[1].all()


def test_episodes_are_counted_without_a_monitor(dreams):
    """With the same figures as SB3's own VecMonitor."""
    envs = dreams()
    with pytest.warns(UserWarning, match="already wrapped"):
        monitored = VecMonitor(dreams())
    for env in (envs, monitored):
        env.seed(0)
        env.reset()
    for count in range(4):
        found, expected = envs.step(STILL)[3], monitored.step(STILL)[3]
        for one, other in zip(found, expected, strict=True):
            assert ("episode" in one) == (count % 2 == 1) == ("is_success" in one)
            if "episode" in one:
                assert one["episode"]["l"] == other["episode"]["l"] == 2
                assert one["episode"]["r"] == pytest.approx(other["episode"]["r"], abs=1e-5)


ON_POLICY = {"n_steps": 4, "batch_size": 6, "n_epochs": 1}
OFF_POLICY = {"learning_starts": 3, "batch_size": 4, "buffer_size": 30}
WORDS = {"action_mode": "discrete", "obs_type": "latent"}


@pytest.mark.parametrize(
    ("algorithm", "policy", "arguments", "options"),
    [
        (PPO, "CnnPolicy", ON_POLICY, {}),
        (PPO, "MlpPolicy", ON_POLICY, {"obs_type": "latent"}),
        (PPO, "MlpPolicy", ON_POLICY, WORDS),
        (PPO, "MultiInputPolicy", ON_POLICY, {"obs_type": "both"}),
        (SAC, "MlpPolicy", OFF_POLICY, {"obs_type": "latent"}),
        (DQN, "MlpPolicy", OFF_POLICY, WORDS),
    ],
)
def test_agents_learn_unchanged(dreams, monkeypatch, algorithm, policy, arguments, options):
    """And their logs have the returns of episodes."""
    logged = set()
    monkeypatch.setattr(Logger, "record", lambda self, key, *rest, **more: logged.add(key))
    model = algorithm(policy, dreams(**options), seed=0, policy_kwargs=dict(SMALL), **arguments)
    before = {name: weights.clone() for name, weights in model.policy.state_dict().items()}
    model.learn(36, log_interval=1)
    assert any(not torch.equal(weights, before[name]) for name, weights in model.policy.state_dict().items())
    assert {"rollout/ep_rew_mean", "rollout/ep_len_mean", "rollout/success_rate"} <= logged


def test_stacked_frames_end_with_the_episode(dreams):
    """SB3 stacks on the channels; its CNN takes them, and the last stack of an episode is of its own frames."""
    plain, envs = dreams(), VecFrameStack(dreams(), 3)
    for one in (plain, envs):
        one.seed(0)
    first, stacked = plain.reset(), envs.reset()
    assert stacked.shape == (3, 64, 64, 9) and stacked.dtype == np.uint8
    second, (end, _, _, infos) = plain.step(STILL)[0], plain.step(STILL)
    envs.step(STILL)
    begun, _, _, stacked_infos = envs.step(STILL)
    for index in range(3):
        seen = np.concatenate([first[index], second[index], infos[index]["terminal_observation"]], -1)
        assert np.array_equal(stacked_infos[index]["terminal_observation"], seen)
        assert np.array_equal(begun[index], np.concatenate([np.zeros((64, 64, 6), np.uint8), end[index]], -1))
    PPO("CnnPolicy", envs, seed=0, policy_kwargs=dict(SMALL), **ON_POLICY).learn(12)


def test_observations_and_rewards_are_normalised(dreams):
    """The last observation of an episode by the same statistics as those before it; the dream itself is left alone."""
    plain, envs = dreams(obs_type="latent"), VecNormalize(dreams(obs_type="latent"))
    for one in (plain, envs):
        one.seed(0)
        one.reset()
    for _ in range(2):
        (after, earned, _, infos), (normal, reward, _, normal_infos) = plain.step(STILL), envs.step(STILL)
    assert np.allclose(envs.get_original_obs(), after, atol=1e-4)
    assert np.allclose(envs.get_original_reward(), earned, atol=1e-4)
    assert np.allclose(normal, envs.normalize_obs(after), atol=1e-3)
    assert np.allclose(reward, envs.normalize_reward(earned), atol=1e-3) and not np.allclose(reward, earned, atol=0.1)
    for info, normal_info in zip(infos, normal_infos, strict=True):
        last = envs.normalize_obs(info["terminal_observation"])
        assert np.allclose(normal_info["terminal_observation"], last, atol=1e-3)
    PPO("MlpPolicy", envs, seed=0, policy_kwargs=dict(SMALL), **ON_POLICY).learn(12)


def test_evaluation_takes_its_statistics(dreams):
    """Without warning that a Monitor is missing."""
    envs = dreams()
    assert envs.env_is_wrapped(Monitor) == [True] * 3 and envs.env_is_wrapped(gym.Wrapper) == [False] * 3
    policy = type("Still", (), {"predict": lambda self, observation, *rest, **more: (STILL, None)})()
    _, lengths = evaluate_policy(policy, envs, n_eval_episodes=4, return_episode_rewards=True)
    assert lengths == [2] * 4


# -- the rest of the contract --------------------------------------------------------------------------------


def test_seeds_are_for_the_next_reset_and_nobody_elses(checkpoint, dreams):
    envs = dreams()
    before = np.random.get_state()[1].copy()
    assert len(envs.seed()) == 3
    assert np.array_equal(np.random.get_state()[1], before)
    assert envs.seed(7) == [7, 8, 9]
    first = envs.reset()
    expected, _ = DreamEnv(str(checkpoint), device="cpu").reset(seed=8)
    assert np.abs(first[1].astype(int) - expected).max() <= 1
    assert not np.array_equal(envs.reset(), first)
    envs.seed(7)
    assert np.array_equal(envs.reset(), first)


def test_options_are_for_the_next_reset(dreams, frames):
    envs = dreams()
    envs.set_options([{"frames": row[:1]} for row in frames])
    first = envs.reset()
    envs.set_options({"frames": frames[1, :1], "instruction": "push the red block to the centre"})
    shared = envs.reset()
    assert np.array_equal(shared[1], first[1]) and not np.array_equal(shared[0], first[0])
    assert envs.get_attr("instruction") == ["push the red block to the centre"] * 3
    envs.set_options([{"frames": frames[0, :1]}, {}, {}])
    with pytest.raises(ValueError, match=r"the same reset options; the first has \['frames'\]"):
        envs.reset()


def test_some_dreams_can_be_asked_and_told(dreams):
    envs = dreams(render_mode="rgb_array")
    envs.reset()
    envs.set_attr("instruction", "push the red block to the centre", indices=[1])
    assert envs.get_attr("instruction", indices=[0, 1]) == ["reach the centre", "push the red block to the centre"]
    difference = envs.env_method("render", indices=2)[0].astype(int) - envs.get_images()[2]
    assert np.abs(difference).max() <= 1
    assert envs.render().shape[2] == 3
    assert envs.has_attr("phrases") and not envs.has_attr("wheels")


def test_infos_are_slim(dreams):
    """A few numbers, while an episode lasts."""
    envs = dreams(action_mode="discrete")
    envs.reset()
    for info in envs.step(np.array([0, 1, 2]))[3]:
        assert {key: type(value) for key, value in info.items()} == {
            "success": bool, "uncertainty": float, "too_uncertain": bool, "num_frames": int, "action_ok": bool,
            "TimeLimit.truncated": bool,
        }  # fmt: skip


def test_a_snapshot_continues_exactly(dreams):
    envs, other = dreams(temperature=1.0), dreams(temperature=1.0)
    envs.reset()
    envs.step(STILL)
    other.restore(envs.snapshot())
    for _ in range(3):
        one, same = envs.step(STILL), other.step(STILL)
        assert all(np.array_equal(a, b) for a, b in zip(one[:3], same[:3], strict=True))
        assert [i.get("episode", {}).get("r") for i in one[3]] == [i.get("episode", {}).get("r") for i in same[3]]


def test_a_fork_goes_its_own_way(dreams):
    """Two of each dream, at the clock of the first; the agent's episodes are counted on."""
    envs = dreams()
    envs.seed(0)
    envs.reset()
    earned = envs.step(STILL)[1]
    forked, before = envs.fork(2), envs.snapshot()
    actions = np.repeat(STILL, 2, 0)
    actions[1::2] = 1.0
    _, rewards, dones, infos = forked.step(actions)
    assert forked.num_envs == 6 and dones.all() and envs.snapshot() == before
    assert np.allclose(rewards[::2], envs.step(STILL)[1], atol=1e-4) and not np.allclose(rewards[::2], rewards[1::2])
    returns = [info["episode"]["r"] for info in infos]
    assert np.allclose(returns, np.repeat(earned, 2) + rewards, atol=1e-4) and infos[0]["episode"]["l"] == 2


@pytest.mark.parametrize(
    ("id", "options", "says"),
    [
        ("worldgym/TabletopMuJoCo-v0", {}, "is no dream.*make_vec_env"),
        ("worldgym/Tabletop-v0", {"action_mode": "text"}, "knows no text; 'discrete'"),
        ("worldgym/Tabletop-v0", {"render_mode": "human"}, "render_mode.*human"),
    ],
)
def test_what_stable_baselines_cannot_use_is_refused(id, options, says):
    with pytest.raises((ValueError, TypeError), match=f"(?s){says}"):
        DreamVecEnv(id, 2, **options)
