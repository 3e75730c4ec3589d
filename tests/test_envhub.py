"""The `env.py` that is pushed beside a world, used as LeRobot uses it: imported from where it lies, and rolled out."""

import importlib.util
import shutil
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
from huggingface_hub import HfApi

from worldgym import hub
from worldgym.env import DreamEnv

GOALS = ("reach the centre", "push the red block to the centre")
RIGHT = np.tile(np.asarray([1.0, 0.0], np.float32), (2, 1))


@pytest.fixture
def pushed(checkpoint, tmp_path):
    """A folder of what was pushed, as it lies in the hub's cache."""
    folder = tmp_path / "models--user--tiny" / "snapshots" / "c0ffee"
    folder.mkdir(parents=True)

    class Hub(HfApi):
        def create_repo(self, *_, **__):
            return ""

        def upload_folder(self, *, folder_path, **_):
            shutil.copytree(folder_path, folder, dirs_exist_ok=True)

    hub.push(checkpoint, "user/tiny", "mit", api=Hub())
    return folder


def make_env(folder, *arguments, **options):
    spec = importlib.util.spec_from_file_location("hub_env_user_tiny", folder / "env.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.make_env(*arguments, **options)


def test_it_makes_a_batch_for_each_instruction(pushed):
    envs = make_env(pushed, n_envs=2, use_async_envs=True)
    assert list(envs) == ["tiny"] and list(envs["tiny"]) == [0, 1]
    for env, goal in zip(envs["tiny"].values(), GOALS, strict=True):
        assert isinstance(env, gym.vector.VectorEnv) and env.num_envs == 2
        assert env.call("task") == env.get_attr("task_description") == (goal, goal)


def test_a_configuration_chooses_one_task(pushed):
    chosen = make_env(pushed, 2, cfg=SimpleNamespace(task=GOALS[1]))
    assert list(chosen["tiny"]) == [1]
    with pytest.raises(ValueError, match="unknown task 'fly'"):
        make_env(pushed, 2, cfg=SimpleNamespace(task="fly"))


def test_a_rollout_is_the_dream_itself(pushed, checkpoint):
    """LeRobot's way of resetting and stepping sees the frames and rewards of the same dream alone."""
    env = make_env(pushed, n_envs=2)["tiny"][0]
    alone = DreamEnv(str(checkpoint), instruction=GOALS[0])
    observation, _ = env.reset(seed=[7, 8], options={"lerobot_new_rollout": True})
    assert env.observation_space.contains(observation)
    assert np.abs(observation["pixels"][0].astype(int) - alone.reset(seed=7)[0]).max() <= 1  # rounding
    observation, rewards, *_ = env.step(RIGHT)
    frame, reward, *_ = alone.step(RIGHT[0])
    assert np.abs(observation["pixels"][0].astype(int) - frame).max() <= 1
    assert rewards[0] == pytest.approx(reward, abs=1e-4)
    assert np.stack(env.call("render")).shape == (2, 64, 64, 3)
    assert [one.task_description for one in env.envs] == [one.task for one in env.envs] == [GOALS[0]] * 2
    assert np.array_equal(np.stack([one.render() for one in env.envs]), np.stack(env.call("render")))
    with pytest.raises(ValueError, match="unknown reset options"):
        env.reset(options={"frame": 0})


def test_an_end_says_whether_it_was_a_success(pushed):
    env = make_env(pushed, n_envs=2)["tiny"][0]
    env.reset(seed=0)
    for _ in range(env.call("_max_episode_steps")[0]):
        observation, _, _, truncated, infos = env.step(RIGHT)
    assert truncated.all()
    assert infos["final_info"]["is_success"].tolist() == infos["final_info"]["success"].tolist()
    assert env.single_observation_space.contains(infos["final_obs"][0])
    assert not np.array_equal(infos["final_obs"][0]["pixels"], observation["pixels"][0])


def test_a_file_that_was_downloaded_alone_fetches_the_rest_of_its_commit(pushed, checkpoint, monkeypatch):
    for name in hub.FILES:
        (pushed / name).unlink(missing_ok=name.startswith("decoder/"))

    def download(name, revision, cache_dir, allow_patterns):
        assert (name, revision, cache_dir) == ("user/tiny", "c0ffee", pushed.parents[2])
        assert "env.py" not in allow_patterns
        return shutil.copytree(checkpoint, pushed, dirs_exist_ok=True)

    hub.pull.cache_clear()
    monkeypatch.setattr(hub, "snapshot_download", download)
    observation, _ = make_env(pushed)["tiny"][0].reset(seed=0)
    assert observation["pixels"].shape == (1, 64, 64, 3)


def test_a_file_that_was_carried_off_is_a_mistake(pushed, tmp_path):
    shutil.copy(pushed / "env.py", tmp_path)
    with pytest.raises(ValueError, match=r"without its world.*user/tiny"):
        make_env(tmp_path)
