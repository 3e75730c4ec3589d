"""Dreams of worlds with every kind of action space: the native action goes in, behind every shell."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from gymnasium.vector.utils import batch_space
from stable_baselines3.common.env_checker import check_env as check_sb3

from worldgym.actions import ActionCodec
from worldgym.checkpoint import load_config
from worldgym.checks import check_dream_env, check_vector_env
from worldgym.env import DreamEnv, DreamVectorEnv
from worldgym.envhub import LeRobotDreams
from worldgym.model.text import PhraseTokenizer
from worldgym.sb3 import DreamVecEnv
from worldgym.world import WorldModel

from .conftest import tiny_config, write_world

SPACES = {
    "discrete": Discrete(3, start=2),
    "box": Box(-2.0, 1.0, (2,)),
    "multi": MultiDiscrete([2, 3]),
    "bits": MultiBinary(3),
    "nested": Dict(grip=Discrete(2), arm=Tuple([Box(0.0, 5.0, (1,)), MultiBinary(1)])),
}


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    """A checkpoint of a world with random weights for each space, without sentences."""
    folders = {}
    for name, space in SPACES.items():
        codec = ActionCodec(space)
        torch.manual_seed(0)
        config = replace(tiny_config(), phrases=(), action_size=codec.size, actions=codec.describe())
        text = PhraseTokenizer.train(config.instructions, config.dynamics.vocabulary)
        world = WorldModel(config, text).eval().requires_grad_(False)
        folders[name] = str(write_world(tmp_path_factory.mktemp("native") / name, world))
    return folders


@pytest.fixture(params=list(SPACES))
def case(request, worlds):
    return SPACES[request.param], worlds[request.param]


def samples(space, count, seed=0):
    space = ActionCodec(space).space
    space.seed(seed)
    return [space.sample() for _ in range(count)]


def test_a_checkpoint_knows_its_actions(case):
    space, folder = case
    config, _ = load_config(Path(folder))
    assert config.codec.space == space and config.action_size == ActionCodec(space).size


@pytest.mark.parametrize(
    "name", [name if name in ("discrete", "nested") else pytest.param(name, marks=pytest.mark.slow) for name in SPACES]
)
def test_the_checkers_accept_it(worlds, name):
    space, folder = SPACES[name], worlds[name]
    env = gym.make("worldgym/Dream-v0", world=folder, device="cpu", render_mode="rgb_array", max_episode_steps=6)
    assert env.action_space == space
    check_dream_env(env)
    env.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["discrete", "nested"])
def test_the_vector_checker_accepts_it(worlds, name):
    space, folder = SPACES[name], worlds[name]

    def make(num_envs, autoreset_mode, max_episode_steps):
        return DreamVectorEnv(
            folder, num_envs, max_episode_steps, autoreset_mode, device="cpu", render_mode="rgb_array"
        )

    env = make(3, "NextStep", 4)
    assert env.single_action_space == space and env.action_space == batch_space(space, 3)
    check_vector_env(make)


def test_it_dreams_what_the_vectors_say(case):
    """The same frames as of the contract below, in every shell."""
    space, folder = case
    codec, actions = ActionCodec(space), samples(space, 3)
    env, batch = DreamEnv(folder, device="cpu"), DreamVectorEnv(folder, 2, device="cpu")
    first, _ = env.reset(seed=3)
    world = WorldModel.load(folder, "cpu")
    batch.reset(seed=[3, 4])
    state = env.dreams.state.fork(1)
    for action in actions:
        state, _ = world.step(state, codec.encode(action)[None])
        expected = world.render(state)[0].numpy()
        assert np.abs(env.step(action)[0].astype(int) - expected).max() <= 1
        both = gym.vector.utils.concatenate(space, [action, actions[0]], gym.vector.utils.create_empty_array(space, 2))
        assert np.abs(batch.step(both)[0][0].astype(int) - expected).max() <= 1
    assert not np.array_equal(first, expected)


def test_different_choices_lead_elsewhere(worlds):
    env = DreamEnv(worlds["discrete"], device="cpu")
    shown = []
    for action in (2, 3, np.int64(4), np.array(4)):
        env.reset(seed=0)
        shown.append(env.step(action)[0])
    assert np.array_equal(shown[2], shown[3])
    assert not np.array_equal(shown[0], shown[1]) and not np.array_equal(shown[1], shown[2])


def test_a_tensor_is_an_action(worlds):
    env = DreamEnv(worlds["nested"], device="cpu")
    env.reset(seed=0)
    env.step({"grip": torch.tensor(1), "arm": (torch.tensor([2.0]), torch.tensor([1]))})


def test_dreams_begin_from_actions_of_the_space(case):
    space, folder = case
    actions = samples(space, 2)
    frames = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    env = DreamEnv(folder, device="cpu")
    env.reset(seed=0, options={"frames": frames, "actions": actions})
    after = env.step(actions[0])[0]
    world = WorldModel.load(folder, "cpu")
    vectors = np.stack([ActionCodec(space).encode(action) for action in actions])
    state = world.start(frames[None], vectors[None], seeds=env.dreams.state.seeds.numpy())
    state, _ = world.step(state, vectors[:1])
    assert np.array_equal(world.render(state)[0].numpy(), after)
    several = DreamVectorEnv(folder, 2, device="cpu")
    several.reset(seed=0, options={"frames": frames, "actions": actions})
    several.reset(seed=0, options={"frames": np.stack([frames] * 2), "actions": [actions, actions[::-1]]})
    with pytest.raises((ValueError, TypeError)):
        env.reset(options={"frames": frames, "actions": [None, None]})


@pytest.mark.parametrize("name", ["discrete", "box", "multi", "bits"])
def test_stable_baselines3_accepts_it(worlds, name):
    env = DreamEnv(worlds[name], device="cpu")
    if name != "discrete":  # of which it wants that they count from 0
        check_sb3(env, warn=False)
    batch = DreamVecEnv("worldgym/Dream-v0", 2, world=worlds[name], device="cpu")
    assert batch.action_space == SPACES[name]
    batch.reset()
    batch.step(np.stack(samples(SPACES[name], 2)))


def test_lerobots_policies_act_by_vectors(worlds):
    dreams = LeRobotDreams(DreamVectorEnv(worlds["nested"], 2, device="cpu"))
    codec = ActionCodec(SPACES["nested"])
    assert dreams.single_action_space == Box(-1.0, 1.0, (codec.size,))
    dreams.reset(seed=0)
    vectors = np.random.default_rng(0).uniform(-1, 1, (2, codec.size)).astype(np.float32)
    seen = dreams.step(vectors)[0]["pixels"]
    dreams.reset(seed=0)
    assert np.array_equal(dreams.step(codec.snap(vectors))[0]["pixels"], seen)


def test_a_world_whose_description_is_damaged_is_refused(worlds, tmp_path):
    folder = tmp_path / "world"
    shutil.copytree(worlds["discrete"], folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["actions"] = {"type": "Discrete", "n": 7, "start": 0, "dtype": "int64"}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ValueError, match="vectors of 7 numbers; here they have 3"):
        load_config(folder)
