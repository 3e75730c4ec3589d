"""`worldgym new`: one command, a world, in the time given, of networks of toy size."""

import json
import time
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from minari import list_local_datasets

from worldgym.cli import new_world
from worldgym.cli.new import new
from worldgym.cli.new_settings import New
from worldgym.config import DynamicsConfig, RecurrentConfig, TokenizerConfig
from worldgym.errors import UserError
from worldgym.world import WorldModel

from .briefly import run
from .test_foreign import robots  # noqa: F401  the user's package, and a place for data sets

SMALL = {
    "tokenizer": TokenizerConfig(channels=(8, 16, 16), latent_channels=4, codes=32, heads=2),
    "dynamics": DynamicsConfig(
        layers=1, width=64, heads=2, kv_heads=1, mlp_width=64, head_width=32, head_layers=1, window=4, memory=2,
        outcome_heads=2,
    ),
    "recurrent": RecurrentConfig(width=32, embedding=16, head_width=16, channels=(4, 8, 8), observed=2),
}  # fmt: skip


@pytest.fixture
def asked(tmp_path, monkeypatch) -> New:
    monkeypatch.setattr(new_world, "FEWEST", 3)
    monkeypatch.setattr(new_world, "MOST", 6)
    monkeypatch.setattr(new_world, "TIMED", 1)
    monkeypatch.setattr(new_world, "PLANNED", new_world.PLANNED | {"horizon": 4, "samples": 4, "iterations": 1})
    return New(
        "robots:Robot-v0", minutes=0.2, out=tmp_path / "robot", dataset=f"{tmp_path.name.replace('_', '-')}/robot-v0",
        frames=500, resolution=48, base="none", device="cpu", **SMALL,
    )  # fmt: skip


def test_one_command_makes_a_world_and_continues_by_what_was_decided(asked, monkeypatch, capsys):
    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    began = time.monotonic()
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(new_world, "train_dynamics", killed)
        new(asked)
    before = json.loads((asked.out / "plan.json").read_text(encoding="utf-8"))["metrics"]
    assert "dynamics" in before and "state" not in before
    with monkeypatch.context() as patch:
        patch.setattr(new_world, "_episode", lambda *_: pytest.fail("it was recorded"))
        decided = new(asked)
    spent = time.monotonic() - began
    assert {name: decided[name] for name in before if name != "spent"} == {
        name: value for name, value in before.items() if name != "spent"
    }
    assert set(decided) == {
        "asked",
        "spent",
        "episodes",
        "tokenizer",
        "window",
        "dynamics",
        "state",
        "steps_a_round",
        "rounds",
        "frames",
        "done",
    }
    assert decided["episodes"] == 100 and before["spent"] < decided["spent"] <= spent
    for stage in ("tokenizer", "dynamics", "state", "frames"):
        assert 3 <= decided[stage] <= 6
    said = capsys.readouterr().out
    assert f"worldgym plan {asked.out / 'drawn'}" in said and "rewards" in said
    assert (asked.out / "report" / "index.html").exists()
    world = WorldModel.load(str(asked.out / "drawn"))
    assert world.recurrent is not None and world.config.name == "robot" and world.config.twin == asked.env
    env = gym.make("worldgym/Dream-v0", world=str(asked.out / "drawn"))
    env.reset(seed=0)
    assert env.step(env.action_space.sample())[0].shape == (48, 48, 3)
    env.close()
    assert not [name for name in list_local_datasets() if "trial" in name]
    with pytest.raises(UserError, match="seed was 0 and is 1"):
        new(replace(asked, seed=1))


def test_steps_fill_the_time_that_is_left(asked, tmp_path, monkeypatch):
    monkeypatch.setattr(new_world, "MOST", 10_000)
    monkeypatch.setattr(new_world, "_seconds_a_step", lambda *_: 0.01)
    (tmp_path / "plan").mkdir()
    plan = new_world.Plan(replace(asked, minutes=1.0), tmp_path / "plan")
    taken = plan.steps("dynamics", lambda most: most, torch.float32)
    assert taken == pytest.approx(new_world.SHARES["dynamics"] * 0.86 * 60 / 0.01, rel=0.01)
    assert plan.steps("dynamics", lambda most: pytest.fail("it was decided"), torch.float32) == taken


def test_short_episodes_shorten_the_window(tmp_path, asked):
    (tmp_path / "plan").mkdir()
    plan, config = new_world.Plan(asked, tmp_path / "plan"), DynamicsConfig(memory=3)
    fitting = new_world._fitting(config, np.array([3, 4, 4, 9]), plan)
    assert (fitting.window, fitting.memory) == (3, 2)
    assert new_world._fitting(config, np.full(9, 40), new_world.Plan(asked, tmp_path)) == config


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--minutes", 0], "--minutes is 0"),
        (["--frames", 0], "--frames is 0"),
        (["--dataset", "no id"], "no id"),
        (["--base", "nowhere"], "nowhere"),
        (["--env", "Nothing-v9"], "Nothing"),
    ],
)
def test_mistakes_are_told_before_anything_is_made(asked, arguments, says, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run("new", *["--env", "robots:Robot-v0", "--out", tmp_path / "out", *arguments])
    assert says in capsys.readouterr().err
    assert not [name for name in list_local_datasets() if "new/" in name]


def test_its_name_is_the_environments():
    assert New("ALE/Pong-v5").name == "pong"
    assert New("package.module:My_Arm-v2").name == "my-arm"
