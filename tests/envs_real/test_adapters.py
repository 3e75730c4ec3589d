"""Environments of Meta-World, dm_control and Gymnasium-Robotics, recorded by their ids.

What needs a package that is not there is skipped: none of the three runs with the newest MuJoCo. benchmarks/adapters.sh
runs this file in an environment of each.
"""

import importlib
import sys
from types import ModuleType, SimpleNamespace

import gymnasium as gym
import minari
import numpy as np
import pytest

from worldgym.data import load_episodes
from worldgym.envs_real.gym_record import make_twin, record
from worldgym.envs_real.settings import RecordConfig

METAWORLD = tuple(
    f"worldgym.envs_real.metaworld:MetaWorld-{task}-v3"
    for task in ("button-press-topdown-wall", "coffee-push", "door-lock", "hammer", "handle-pull-side", "plate-slide")
)
"""The six tasks on which iVideoGPT and SAMPO learn."""
DM_CONTROL = tuple(
    f"shimmy:dm_control/{task}-v0" for task in ("cartpole-swingup", "cheetah-run", "finger-spin", "walker-walk")
)
ROBOTICS = tuple(f"gymnasium_robotics:{task}" for task in ("AdroitHandDoor-v1", "FetchPush-v4", "FetchReach-v4"))
EXTRAS = {"metaworld": ("metaworld", METAWORLD), "dm_control": ("dm-control", DM_CONTROL)} | {
    "gymnasium_robotics": ("robotics", ROBOTICS)
}

THEIRS = pytest.mark.filterwarnings("default")
"""What others' packages warn of is not for us to mend."""


def need(package: str) -> None:
    """Skip what cannot be tested here."""
    pytest.importorskip(package, reason=f'{package} is not installed: pip install "worldgym[{EXTRAS[package][0]}]"')


@pytest.fixture(params=[(package, env) for package, (_, envs) in EXTRAS.items() for env in envs], ids=lambda p: p[1])
def config(request, tmp_path, monkeypatch):
    """How a few frames of one of them are recorded, into a place of its own."""
    package, env = request.param
    need(package)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return RecordConfig("test/theirs-v0", env, episodes=2, steps=3, seed=1, workers=1)


def without(monkeypatch, *packages: str) -> None:
    """As on a machine on which they were never installed."""
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)
    for name in [name for name in sys.modules if name.endswith("envs_real.metaworld")]:
        monkeypatch.delitem(sys.modules, name)


# -- the packages themselves ---------------------------------------------------------------------------------


@THEIRS
def test_it_is_recorded(config, capsys):
    """Into a dataset that can be trained on and made into its environment again."""
    record(config)
    tells_success = "dm_control" not in config.env
    assert ("success is recorded as False" in capsys.readouterr().out) != tells_success
    data = load_episodes(config.dataset)
    assert data.environment == config.env and len(data.instructions) == 1
    assert data.frames.shape == (8, 64, 64, 3) and data.frames[0].std() > 10
    assert not np.array_equal(data.frames[0], data.frames[3])  # something moves
    assert np.abs(data.actions).max() <= 1 and np.isfinite(data.rewards).all()

    twin = minari.load_dataset(config.dataset).recover_environment()
    frame, _ = twin.reset(seed=int(np.random.default_rng([config.seed, 0]).integers(2**31)))
    assert np.array_equal(frame, data.frames[0])
    for action, expected in zip(data.actions[:3], data.frames[1:4], strict=True):
        assert np.array_equal(twin.step(action)[0], expected)
    twin.close()


@THEIRS
def test_an_episode_follows_from_its_seed(config):
    """Whatever was played before it, and by another environment, too."""
    twin = make_twin(config.env)
    episodes = []
    for seed in (3, 4, 3):
        frames = [twin.reset(seed=seed)[0]]
        actions = np.random.default_rng(seed).uniform(-1, 1, (6, *twin.action_space.shape)).astype(np.float32)
        rewards = []
        for action in actions:
            frame, reward, *_ = twin.step(action)
            frames.append(frame)
            rewards.append(float(reward))
        episodes.append((np.stack(frames), rewards))
    twin.close()
    assert np.array_equal(episodes[0][0], episodes[2][0]) and episodes[0][1] == episodes[2][1]
    assert not np.array_equal(episodes[0][0], episodes[1][0])


@THEIRS
def test_a_frame_is_drawn_no_bigger_than_it_takes(config):
    twin = make_twin(config.env, resolution=48)
    twin.reset(seed=0)
    assert twin.env.render().shape == (96, 96, 3)
    twin.close()


@THEIRS
@pytest.mark.parametrize(
    ("task", "policy"), [("hammer", "SawyerHammerV3Policy"), ("plate-slide", "SawyerPlateSlideV3Policy")]
)
def test_meta_world_tells_of_success(task, policy):
    """Its own scripted policies succeed, in half as many steps as they take there."""
    need("metaworld")
    env = gym.make(f"worldgym.envs_real.metaworld:MetaWorld-{task}-v3")
    scripted = getattr(importlib.import_module("metaworld.policies"), policy)()
    observation, _ = env.reset(seed=0)
    succeeded = False
    for _ in range(100):
        action = np.clip(scripted.get_action(observation), -1, 1).astype(np.float32)
        observation, reward, _, _, info = env.step(action)
        assert 0 <= reward <= 20  # of two steps of at most 10
        succeeded |= info["success"]
    env.close()
    assert succeeded


@THEIRS
def test_goals_of_meta_world_follow_from_the_seed():
    """Which its own environments do not heed."""
    need("metaworld")
    env = gym.make(METAWORLD[3])
    first, again, other = (env.reset(seed=seed)[0] for seed in (0, 0, 1))
    env.close()
    assert np.array_equal(first, again) and not np.array_equal(first, other)


# -- where they are not there --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "packages", "extra"),
    [
        (METAWORLD[0], ["metaworld"], "metaworld"),
        (DM_CONTROL[0], ["shimmy"], "dm-control"),
        (ROBOTICS[0], ["gymnasium_robotics"], "robotics"),
    ],
)
def test_what_is_missing_is_named(monkeypatch, env, packages, extra):
    without(monkeypatch, *packages)
    with pytest.raises(ValueError, match=rf'cannot make .*It comes with: pip install "worldgym\[{extra}\]"'):
        make_twin(env)


def test_shimmy_alone_has_no_dm_control(monkeypatch):
    """Without it, it registers nothing, and Gymnasium knows no reason."""
    monkeypatch.setitem(sys.modules, "shimmy", ModuleType("shimmy"))
    for name in [name for name in gym.registry if name.startswith("dm_control/")]:
        monkeypatch.delitem(gym.registry, name)
    with pytest.raises(ValueError, match=r'It comes with: pip install "worldgym\[dm-control\]"'):
        make_twin(DM_CONTROL[0])


def test_a_package_that_is_nobodys_extra_is_missing_without_advice():
    with pytest.raises(ValueError, match="cannot make the environment 'atlantis:Slide-v0'") as caught:
        make_twin("atlantis:Slide-v0")
    assert "pip install" not in str(caught.value)


def test_an_id_without_its_package_is_said_to_lack_it():
    with pytest.raises(ValueError, match="name the package, too: PACKAGE:atlantis/Slide-v0"):
        make_twin("atlantis/Slide-v0")


# -- a package of the same kind ------------------------------------------------------------------------------


class Goal(gym.Env):
    """As Gymnasium-Robotics' are: a goal among what it observes, success as a float. As Shimmy's: `render_kwargs`."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    observation_space = gym.spaces.Dict({"observation": gym.spaces.Box(-1, 1, (1,), np.float64)})
    action_space = gym.spaces.Box(-2.0, 2.0, (1,), np.float64)

    def __init__(self, cameras: int, render_mode: str | None = None):
        self.render_mode, self.render_kwargs = render_mode, {}
        quality = SimpleNamespace(shadowsize=4096, offsamples=4)
        model = SimpleNamespace(ncam=cameras, vis=SimpleNamespace(quality=quality), mat_reflectance=np.ones(2))
        self.physics = SimpleNamespace(model=model)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.np_random.uniform(0, 4)
        return {"observation": np.zeros(1)}, {}

    def step(self, action):
        assert action.dtype == np.float64 and action == self.action_space.high
        self.place += 1
        return {"observation": np.zeros(1)}, np.float32(-1), False, False, {"is_success": np.float32(self.place > 3)}

    def render(self):
        shape = self.render_kwargs.get("height", 240), self.render_kwargs.get("width", 320), 3
        return np.full(shape, int(20 * self.place), np.uint8)


@pytest.fixture
def goal(monkeypatch):
    """It in a module of its own, registered with an argument."""
    module = ModuleType("theirs")
    monkeypatch.setitem(sys.modules, "theirs", module)
    monkeypatch.setattr(gym.envs.registration, "registry", dict(gym.registry))
    gym.register("cameras/none-v0", Goal, kwargs={"cameras": 0}, max_episode_steps=4)
    gym.register("cameras/two-v0", Goal, kwargs={"cameras": 2}, max_episode_steps=4)
    return "theirs:cameras/two-v0"


def test_what_is_observed_may_be_anything(goal):
    """The picture is what it renders."""
    twin = make_twin(goal, resolution=32)
    frame, info = twin.reset(seed=0)
    assert frame.shape == (32, 32, 3) and info["success"] is False
    *_, (_, reward, terminated, truncated, info) = (twin.step(np.ones(1, np.float32)) for _ in range(4))
    assert reward == -1 and info["success"] is True and truncated and not terminated


def test_dm_control_is_drawn_small_and_plain_by_its_first_camera(goal):
    bare = make_twin(goal, resolution=32).unwrapped
    assert bare.render_kwargs == {"width": 64, "height": 64, "camera_id": 0}
    model = bare.physics.model
    assert model.vis.quality.shadowsize == model.vis.quality.offsamples == 0 and not model.mat_reflectance.any()
    assert "camera_id" not in make_twin("theirs:cameras/none-v0").unwrapped.render_kwargs


def test_gymnasium_is_drawn_small_and_plain():
    twin = make_twin("Reacher-v5", resolution=32)
    model, renderer = twin.unwrapped.model, twin.unwrapped.mujoco_renderer
    assert renderer.width == renderer.height == 64
    assert model.vis.quality.shadowsize == model.vis.quality.offsamples == 0 and not model.mat_reflectance.any()
    twin.close()
