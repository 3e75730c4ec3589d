"""An environment of Gymnasium's own whose actions are a choice, all the way: CartPole, from its id to an agent."""

import json
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Discrete

from worldgym.agents import AGENTS
from worldgym.checkpoint import load_config
from worldgym.data import load_episodes
from worldgym.envs_real.twins import twin_of
from worldgym.lerobot import lerobot_to_minari, minari_to_lerobot
from worldgym.planners.settings import Planning

from .briefly import SMALL, TOKENIZER, run

pytest.importorskip("pygame")  # draws it

DATASET = "test/cart-v0"
BRIEFLY = ["--episodes", "1", "--horizon", "2", "--action-repeat", "1", "--replan-every", "1", "--samples", "4"]


@pytest.fixture(scope="module", autouse=True)
def shelf(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(tmp_path_factory.mktemp("datasets")))
        yield


@pytest.fixture(scope="module")
def world(shelf, tmp_path_factory) -> Path:
    """Folder of a world that was trained for two steps of each stage."""
    runs = tmp_path_factory.mktemp("runs")
    run(
        "record", "--env", "CartPole-v1", "--dataset", DATASET, "--episodes", 80, "--resolution", 48, "--fit", "pad",
        "--steps", 20,
    )  # fmt: skip
    briefly = ["--dataset", DATASET, "--steps", 2, "--batch", 4, "--device", "cpu"]
    run("train", "tokenizer", *briefly, "--out", runs / "tokenizer", *TOKENIZER)
    run(
        "train", "dynamics", *briefly, "--tokenizer", runs / "tokenizer", "--out", runs / "world", "--processes", 1,
        *SMALL,
    )  # fmt: skip
    return runs / "world"


def test_the_world_knows_the_choice_and_how_it_was_seen(world):
    config, _ = load_config(world)
    assert config.codec.space == Discrete(2) and config.action_size == 2
    assert config.twin == "CartPole-v1" and config.twin_options == {"fit": "pad"}
    twin = twin_of(config)
    dream = gym.make("worldgym/Dream-v0", world=str(world), device="cpu")
    assert dream.action_space == twin.action_space == gym.make("CartPole-v1").action_space
    twin.reset(seed=0)
    assert not twin.step(np.int64(1))[2]
    with pytest.raises(ValueError, match=r"action is 2, which is not in Discrete\(2\)"):
        twin.step(2)
    twin.close()


def test_what_is_tried_on_its_twin_comes_true(world):
    config, _ = load_config(world)
    twin = twin_of(config)
    twin.reset(seed=1)
    twin.step(1)
    tried = np.random.default_rng(0).integers(2, size=(4, 5))
    vectors = np.stack([[config.codec.encode(action) for action in actions] for actions in tried])
    expected, blob = twin.evaluate(vectors), twin.snapshot()
    for actions, value in zip(tried, expected, strict=True):
        twin.restore(blob)
        assert sum(twin.step(action)[1] for action in actions) == value
    twin.close()


def test_it_is_evaluated(world, tmp_path, capsys):
    run("evaluate", world, "--dataset", DATASET, "--episodes", 4, "--steps", 4, "--report", tmp_path)
    assert "nan" not in capsys.readouterr().out


@pytest.mark.parametrize("how", ["--on dream", "--on mujoco", "--planner icem", "--planner mppi", "--planner random"])
def test_it_is_planned_in(world, tmp_path, how):
    file = tmp_path / "plan.json"
    run("plan", world, *how.split(), *BRIEFLY, "--json", file)
    metrics = json.loads(file.read_text(encoding="utf-8"))["metrics"]
    assert metrics["mean_steps"] == metrics["mean_return"] >= 5  # it is paid for every step on which the pole stands


def test_gradients_do_not_choose(world, capsys):
    with pytest.raises(SystemExit):
        run("plan", world, "--planner", "gradient", *BRIEFLY)
    assert "among continuous actions alone" in (said := capsys.readouterr().err) and "cem" in said
    assert Planning(str(world), "gradient").planner == "gradient"


@pytest.mark.parametrize("where", ["dream", "mujoco"])
def test_ppo_learns_in_it(world, tmp_path, where):
    run("learn", world, "--agent", "ppo", "--in", where, "--steps", 32, "--episodes", 1, "--out", tmp_path / "out")
    metrics = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))["metrics"]
    assert metrics["steps"] >= 32 and metrics["by_episode"][0]["steps"] >= 5


@pytest.mark.parametrize("agent", ["sac", "mbpo"])
def test_what_learns_numbers_alone_names_ppo(world, tmp_path, capsys, agent):
    where = AGENTS[agent].where[0]
    with pytest.raises(SystemExit):
        run("learn", world, "--agent", agent, "--in", where, "--steps", 16, "--out", tmp_path / "out")
    assert "takes actions in Discrete(2)" in (said := capsys.readouterr().err) and "--agent ppo" in said
    assert not (tmp_path / "out").exists()


def test_it_is_played(world, monkeypatch, tmp_path):
    page = pytest.importorskip("worldgym.play.page")
    played = []
    monkeypatch.setattr(page, "run", lambda make_session, *_: played.append(make_session()))
    run("play", world, "--recordings", tmp_path)
    (session,) = played
    session.hold(session.codec.encode(1))
    session.tick()
    assert session.now.action == "action 1" and session.now.twin_reward == 1.0
    session.twin.close()


def test_it_is_a_lerobot_data_set_and_comes_back(world, tmp_path):
    minari_to_lerobot(DATASET, tmp_path / "lerobot")
    lerobot_to_minari(tmp_path / "lerobot", "test/back-v0", size=48)
    data, back = load_episodes(DATASET), load_episodes("test/back-v0")
    assert back.action_space == data.action_space
    assert np.array_equal(back.actions[:3], data.actions[:3])
