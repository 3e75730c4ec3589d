"""A user's own environment, all the way: recorded, trained on, evaluated, planned and learned in, played."""

import importlib
import json
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest

from worldgym.actions import ActionCodec
from worldgym.checkpoint import load_config
from worldgym.config import WorldConfig
from worldgym.envs_real.twins import twin_of
from worldgym.errors import UserError

from .briefly import SMALL, TOKENIZER, run

ROBOT = '''
import gymnasium as gym
import numpy as np


class Robot(gym.Env):
    """A square that is pushed about for 12 steps; the nearer to the middle, the better."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    action_space = gym.spaces.Box(-2.0, 1.0, (2,), np.float32)
    observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        assert not options, options
        self.place, self.steps = self.np_random.uniform(-1, 1, 2).astype(np.float32), 0
        return self.place, {}

    def step(self, action):
        noise = self.np_random.normal(size=2)
        moved = self.place + 0.3 * np.asarray(action) + 0.01 * noise
        self.place, self.steps = np.clip(moved, -1, 1).astype(np.float32), self.steps + 1
        return self.place, -float(np.linalg.norm(self.place)), False, self.steps == 12, {}

    def render(self):
        frame = np.zeros((96, 96, 3), np.uint8)
        row, column = ((self.place + 1) * 40).astype(int)
        frame[row : row + 16, column : column + 16] = 255, 60, 0
        return frame


class Dice(Robot):
    """Heeds no seed."""

    def reset(self, *, seed=None, options=None):
        return super().reset()


class Wide(Robot):
    """Takes one number more."""

    action_space = gym.spaces.Box(-2.0, 1.0, (3,), np.float32)


for kind in (Robot, Dice, Wide):
    gym.register(f"{kind.__name__}-v0", kind)
'''
DATASET = "test/robot-v0"
SPACE = gym.spaces.Box(-2.0, 1.0, (2,), np.float32)


@pytest.fixture(scope="module", autouse=True)
def robots(tmp_path_factory):
    """The user's package, and a place for data sets."""
    folder = tmp_path_factory.mktemp("theirs")
    (folder / "robots.py").write_text(ROBOT, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("MINARI_DATASETS_PATH", str(folder / "datasets"))
        yield importlib.import_module("robots")


@pytest.fixture(scope="module")
def world(robots, tmp_path_factory):
    """Folder of a world that was trained as the documentation has it, in three commands."""
    runs = tmp_path_factory.mktemp("runs")
    run("record", "--env", "robots:Robot-v0", "--dataset", DATASET, "--episodes", 80, "--resolution", 48)
    briefly = ["--dataset", DATASET, "--steps", 2, "--batch", 4, "--device", "cpu"]
    for _ in range(2):  # the second time it is there already
        run("train", "tokenizer", *briefly, "--out", runs / "tokenizer", *TOKENIZER)
    run(
        "train", "dynamics", *briefly, "--tokenizer", runs / "tokenizer", "--out", runs / "world", "--processes", 1,
        *SMALL,
    )  # fmt: skip
    return runs / "world"


@pytest.fixture
def config(world) -> WorldConfig:
    return load_config(world)[0]


# -- the commands ---------------------------------------------------------------------------------------------------


def test_resolution_and_scales_are_the_data_sets(config):
    assert config.tokenizer.resolution == 48 and config.tokenizer.scales == (1, 2, 4, 6)
    assert config.twin == "robots:Robot-v0" and config.instructions == ("Robot-v0",)
    assert config.codec.space == SPACE


def test_it_is_evaluated(world, tmp_path, capsys):
    run("evaluate", world, "--dataset", DATASET, "--episodes", 4, "--steps", 4, "--report", tmp_path)
    said = capsys.readouterr().out
    assert said.startswith("The tokenizer draws frames worse")
    assert "nan" not in said
    assert "The tokenizer draws frames worse" in (tmp_path / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("how", ["--on dream", "--on mujoco", "--planner gradient", "--planner random"])
def test_it_is_planned_in(world, tmp_path, how):
    file = tmp_path / "plan.json"
    run(
        "plan", world, *how.split(), "--episodes", 1, "--horizon", 2, "--action-repeat", 1, "--replan-every", 1,
        "--samples", 4, "--json", file,
    )  # fmt: skip
    metrics = json.loads(file.read_text(encoding="utf-8"))["metrics"]
    assert metrics["mean_steps"] == 12 and len(metrics["by_episode"]) == 1


@pytest.mark.parametrize(("agent", "where"), [("sac", "dream"), ("sac", "mujoco"), ("mbpo", "mujoco")])
def test_it_is_learned_in(world, tmp_path, agent, where):
    run("learn", world, "--agent", agent, "--in", where, "--steps", 16, "--episodes", 1, "--out", tmp_path / "out")
    metrics = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))["metrics"]
    assert metrics["steps"] == 16 and metrics["by_episode"][0]["steps"] == 12


def test_it_is_played(world, monkeypatch, tmp_path):
    page = pytest.importorskip("worldgym.play.page")
    played = []
    monkeypatch.setattr(page, "run", lambda make_session, *_: played.append(make_session()))
    run("play", world, "--recordings", tmp_path)
    (session,) = played
    first = session.now.twin
    session.hold([1.0, -1.0])
    for _ in range(14):  # beyond its end, at which the twin stands still
        session.tick()
    assert session.now.twin_reward == 0.0 and not np.array_equal(session.now.twin, first)
    session.goto(0)
    session.hold([1.0, -1.0])
    session.tick()
    assert session.now.twin_reward < 0.0  # it is back at its beginning
    session.twin.close()


def test_a_refused_run_leaves_its_folder_free(world, tmp_path):
    with pytest.raises(SystemExit):
        run("learn", world, "--starts", "nobody/none-v0", "--steps", 16, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_two_episodes_are_too_few(tmp_path, capsys):
    run("record", "--env", "robots:Robot-v0", "--dataset", "test/two-v0", "--episodes", 2, "--workers", 1)
    assert "20 episodes or more" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run("train", "tokenizer", "--dataset", "test/two-v0", "--out", tmp_path / "tokenizer", *TOKENIZER)
    assert "2 episodes leave none for the" in capsys.readouterr().err
    assert not (tmp_path / "tokenizer").exists()


# -- its twin -------------------------------------------------------------------------------------------------------


@pytest.fixture
def twin(config):
    env = twin_of(config)
    yield env
    env.close()


def own(vector: np.ndarray) -> np.ndarray:
    """The robot's own action."""
    return ActionCodec(SPACE).decode(vector)


def sequences(count: int, seed: int = 0) -> np.ndarray:
    """Of vectors."""
    return np.random.default_rng(seed).uniform(-1, 1, (count, 3, 2)).astype(np.float32)


def test_what_is_tried_comes_true_and_changes_nothing(twin):
    twin.reset(seed=3)
    before, tried = sequences(1, seed=1)[0], sequences(4)
    for action in before:
        twin.step(own(action))
    expected = twin.evaluate(tried)
    assert np.array_equal(twin.evaluate(tried), expected)
    blob = twin.snapshot()
    for sequence, value in zip(tried, expected, strict=True):
        twin.restore(blob)
        assert sum(twin.step(own(action))[1] for action in sequence) == pytest.approx(value, rel=1e-5)


def test_a_snapshot_brings_back_the_picture_and_what_follows(twin):
    twin.reset(seed=3)
    twin.step(np.ones(2, np.float32))
    blob = twin.snapshot()
    after = twin.step(np.ones(2, np.float32))
    twin.reset(seed=4)
    twin.restore(blob)
    again = twin.step(np.ones(2, np.float32))
    assert np.array_equal(after[0], again[0]) and after[1] == again[1]
    with pytest.raises(UserError, match="not a snapshot"):
        twin.restore(b"junk")


def test_nothing_is_earned_beyond_the_end(twin):
    twin.reset(seed=0)
    for _ in range(11):
        twin.step(own(np.zeros(2)))
    reward = twin.evaluate(np.zeros((1, 3, 2), np.float32))[0]
    frame, last, _, truncated, _ = twin.step(own(np.zeros(2)))
    assert truncated and last == pytest.approx(reward)
    still, nothing, _, truncated, _ = twin.step(np.ones(2, np.float32))
    assert truncated and nothing == 0.0 and np.array_equal(still, frame)
    assert twin.evaluate(sequences(2)).tolist() == [0.0, 0.0]


def test_resets_without_a_seed_follow_from_the_last_one(twin):
    def film():
        twin.reset(seed=5)
        return [twin.reset()[0] for _ in range(2)]

    one, other = film(), film()
    assert np.array_equal(one, other) and not np.array_equal(*one)


@pytest.mark.parametrize(
    ("id", "says"),
    [
        ("", "names no twin"),
        ("robots:Atlantis-v0", "cannot make the environment"),
        ("robots:Wide-v0", r"takes Box\(-2.0, 1.0, \(3,\).* was trained on .* and Box\(-2.0, 1.0, \(2,\)"),
    ],
)
def test_a_twin_that_is_not_the_worlds_is_refused(config, id, says):
    with pytest.raises(UserError, match=says):
        twin_of(replace(config, twin=id))


def test_what_does_not_follow_from_its_seed_is_noticed(config):
    env = twin_of(replace(config, twin="robots:Dice-v0"))
    env.reset(seed=0)
    with pytest.raises(UserError, match="does something else when it is reset with the same seed"):
        env.evaluate(sequences(1))
    env.close()


def test_a_world_of_an_earlier_release_keeps_its_vectors(config, twin):
    before = twin_of(replace(config, actions=None))
    assert before.action_space == gym.spaces.Box(-1.0, 1.0, (2,), np.float32) and twin.action_space == SPACE
    for env in (before, twin):
        env.reset(seed=1)
    vector = np.array([0.3, -0.7], np.float32)
    assert np.array_equal(before.step(vector)[0], twin.step(own(vector))[0])
    before.close()


def test_it_takes_vectors_and_its_own_instruction(config, twin):
    with pytest.raises(UserError, match="takes vectors, not sentences"):
        twin_of(config, action_mode="text")
    with pytest.raises(UserError, match="unknown instruction 'fly'"):
        twin.reset(options={"instruction": "fly"})
