"""Recorders that act by a policy: who acts when, and what is refused."""

import sys

import gymnasium as gym
import minari
import numpy as np
import pytest
from stable_baselines3 import PPO

from worldgym.envs_real.gym_record import PERIOD, play_episode, record
from worldgym.envs_real.policies import load_policy
from worldgym.envs_real.settings import RecordConfig
from worldgym.errors import UserError

EXPERTS = '''
import gymnasium as gym
import numpy as np


class Line(gym.Env):
    """A place, moved by one number; two gears that do nothing."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    observation_space = gym.spaces.Box(-100.0, 100.0, (1,), np.float32)
    action_space = gym.spaces.Dict(gear=gym.spaces.Discrete(3), push=gym.spaces.Box(-2.0, 2.0, (1,)))

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = np.zeros(1, np.float32)
        return self.place, {}

    def step(self, action):
        self.place = self.place + 0.25 * np.asarray(action["push"], np.float32)
        return self.place, float(self.place[0]), False, False, {}

    def render(self):
        return np.zeros((48, 48, 3), np.uint8)


gym.register("Line-v0", Line)


def right(observation):
    """Half of full speed, in a gear that says where it is."""
    return {"push": np.array([1.0], np.float32), "gear": int(observation[0] > 3)}


def wrong(observation):
    return {"push": "far", "gear": 0}


number = 3
'''


@pytest.fixture(scope="module")
def experts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("experts")
    (folder / "experts.py").write_text(EXPERTS, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield
    sys.modules.pop("experts", None)
    gym.registry.pop("Line-v0", None)


def asked(policy: str | None) -> RecordConfig:
    return RecordConfig("mine/line-v0", "experts:Line-v0", steps=3 * PERIOD, resolution=16, policy=policy)


def test_noise_the_policy_and_both_take_turns(experts):
    speeds, gears = [], []
    for index in range(12):
        actions = play_episode(asked("experts:right"), index)["actions"].reshape(3, PERIOD, 4)
        gears.append(actions[..., :3].argmax(-1))
        speeds.append(actions[..., 3])
    speeds, gears = np.concatenate(speeds), np.concatenate(gears)
    pure = (speeds == 0.5).all(1)
    assert 0.15 < pure.mean() < 0.55
    assert set(np.unique(gears[pure])) <= {0, 1}, "the policy knows two gears"
    middles = speeds[~pure].mean(1)
    assert (middles > 0.3).sum() >= 4 and (middles < 0.2).sum() >= 4, "with noise added, and noise alone"
    assert (gears[~pure] == 2).any(), "noise knows the third"


def test_it_sees_what_the_environment_observes(experts):
    for index in range(8):
        episode = play_episode(asked("experts:right"), index)
        places = episode["rewards"][:-1, 0].reshape(3, PERIOD)
        actions = episode["actions"].reshape(3, PERIOD, 4)
        for place, action in zip(places, actions, strict=True):
            if (action[:, 3] == 0.5).all():
                assert (action[:, :3].argmax(-1) == (place > 3)).all()


def test_without_a_policy_all_is_noise(experts):
    assert not (play_episode(asked(None), 0)["actions"][:, 3] == 0.5).any()


def test_a_data_set_says_who_acted(experts, tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "data"))
    record(RecordConfig("mine/line-v0", "experts:Line-v0", 2, 4, resolution=16, policy="experts:right", workers=1))
    assert minari.load_dataset("mine/line-v0").storage.metadata["algorithm_name"].startswith("experts:right and smooth")


def test_an_agent_of_stable_baselines_acts(tmp_path):
    agent = PPO("MlpPolicy", gym.make("CartPole-v1"), n_steps=8, batch_size=8, device="cpu")
    agent.save(tmp_path / "agent.zip")
    policy, seen = load_policy(f"ppo:{tmp_path / 'agent.zip'}"), np.array([0.1, 0.0, -0.1, 0.2], np.float32)
    assert policy(seen) == agent.predict(seen, deterministic=True)[0]


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ("experts", 'expected "module:function"'),
        ("nowhere:right", "needs the module nowhere"),
        ("experts:left", "has no left"),
        ("experts:number", "is a int"),
        ("sac:missing.zip", "no file missing.zip"),
        ("magic:agent.zip", "agents are of a2c"),
        ("sac:experts.py.zip", "no agent that SAC can load"),
    ],
)
def test_what_is_no_policy_is_refused_before_anything_is_made(experts, tmp_path, monkeypatch, policy, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experts.py.zip").write_text("no zip", encoding="utf-8")
    with pytest.raises(UserError, match=says):
        record(asked(policy))


def test_a_policy_that_fails_says_where(experts):
    with pytest.raises(UserError, match=r"Line-v0, step \d+: the policy failed: TypeError"):
        for index in range(8):
            play_episode(asked("experts:wrong"), index)


def test_bundled_recorders_take_none():
    with pytest.raises(UserError, match="leave out --policy"):
        RecordConfig(policy="experts:right")
