"""`worldgym improve`: rounds of acting, judging and training on, which continue where they stood."""

import json
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import minari
import numpy as np
import pytest
from safetensors.torch import load_file

from worldgym.agents.actor_critic import ActorCritic
from worldgym.cli.improve import improve
from worldgym.cli.improve_settings import Improve
from worldgym.data import load_episodes
from worldgym.errors import UserError
from worldgym.world import WorldModel

from ..conftest import filtered_world, tiny_world, write_world


@pytest.fixture
def source(tmp_path, dataset) -> Path:
    """A world with a recurrent state that judges by the recording's instructions, whose twin is the Tabletop."""
    world = filtered_world()
    world.config = replace(
        world.config, instructions=load_episodes(dataset).instructions, twin="worldgym/TabletopMuJoCo-v0"
    )
    return write_world(tmp_path / "source", world)


@pytest.fixture
def asked(source, dataset, tmp_path, monkeypatch) -> Improve:
    monkeypatch.chdir(tmp_path)
    return Improve(
        str(source), dataset, tmp_path / f"run{abs(hash(tmp_path)) % 10**8}", rounds=1, real_steps=2, steps=2,
        samples=2, iterations=1, horizon=3, replan_every=3, instruction=("reach the centre",), device="cpu",
    )  # fmt: skip


def test_a_world_learns_from_what_was_done_in_it(asked, source):
    found = improve(asked)["rounds"]
    recording = asked.dataset.rpartition("-v")[0].rpartition("/")[2]
    name = f"improve/{recording}-{asked.out.name}-1-v0"
    data, stored = load_episodes(name), minari.load_dataset(name)
    assert len(data.starts) == 3 and found[0]["episodes"] == 1  # the other one had bursts
    assert found[0]["real_steps"] == len(data.frames) - 2
    plain = next(iter(stored.iterate_episodes()))
    assert found[0]["mean_return"] == pytest.approx(float(np.sum(plain.rewards)), rel=1e-5)
    column = data.instructions.index("reach the centre")
    np.testing.assert_allclose(data.rewards[1 : data.starts[1], column], plain.rewards, rtol=1e-5)
    before = load_file(source / "model.safetensors")
    after = load_file(asked.out / "round1" / "model.safetensors")
    changed = {name.split(".")[0] for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {"recurrent"}
    assert np.array_equal(before["recurrent.mean_frame"], after["recurrent.mean_frame"])  # it began from the state
    assert WorldModel.load(str(asked.out / "round1"), "cpu").recurrent is not None


def test_what_another_run_did_is_not_taken(asked, tmp_path):
    improve(asked)
    elsewhere = tmp_path / "elsewhere" / asked.out.name
    with pytest.raises(UserError, match=rf"holds what the run in {asked.out} did"):
        improve(replace(asked, out=elsewhere))
    assert not (elsewhere / "round1").exists()


def test_rounds_continue_where_they_stood(asked, monkeypatch):
    improve(asked)
    with monkeypatch.context() as patch:  # killed in the second round, after acting
        patch.setattr("worldgym.cli.improvement.train_recurrent_state", lambda _: (_ for _ in ()).throw(SystemExit))
        with pytest.raises(SystemExit):
            improve(replace(asked, rounds=2))
        patch.setattr("worldgym.cli.improvement._acted", lambda *_: pytest.fail("it acted again"))
    monkeypatch.setattr("worldgym.cli.improvement._acted", lambda *_: pytest.fail("it acted again"))
    found = improve(replace(asked, rounds=2))["rounds"]
    assert [one["round"] for one in found] == [1, 2]
    assert found[1]["real_steps"] > found[0]["real_steps"]
    told = json.loads((asked.out / "rounds.json").read_text(encoding="utf-8"))
    assert told["metrics"]["rounds"] == found and "commit" in told
    with pytest.raises(ValueError, match="samples was 2 and is 3"):
        improve(replace(asked, rounds=3, samples=3))


def test_an_agent_learns_in_the_dream_and_acts_in_turn_with_the_planner(asked):
    asked = replace(asked, updates=2, rounds=2)
    found = improve(asked)["rounds"]
    recording = asked.dataset.rpartition("-v")[0].rpartition("/")[2]
    for number, one in enumerate(found, 1):
        stored = minari.load_dataset(f"improve/{recording}-{asked.out.name}-{number}-v0")
        acted = [(bool(e.infos["by_agent"][0]), bool(e.infos["plain"][0])) for e in stored.iterate_episodes()]
        assert acted == [(False, True), (False, False), (True, True), (True, False)]
        by_agent = [float(np.sum(e.rewards)) for e in stored.iterate_episodes()][2]
        assert one["agent"]["episodes"] == 1 and one["agent"]["mean_return"] == pytest.approx(by_agent, rel=1e-5)
        world = WorldModel.load(asked.world if number == 1 else str(asked.out / "round1"), "cpu")
        agent = ActorCritic.load(asked.out / f"agent{number}.safetensors", world)
        assert agent.num_timesteps == 2 * number  # the second round's learned on
        frame = next(e.observations[0] for e in stored.iterate_episodes() if e.infos["by_agent"][0])
        assert one["agent"]["dreamed_return"] == pytest.approx(dreamed(world, agent, frame), rel=1e-4)
    text = (asked.out / "index.html").read_text(encoding="utf-8")
    assert text.count('src="data:image/') == 2 and "From left to right: planner, agent." in text
    assert all(f"{one['agent']['dreamed_return']:.2f}" in text for one in found)
    best = 1 + int(np.argmax([one["agent"]["mean_return"] for one in found]))
    kept, agent = (
        path.read_bytes() for path in (asked.out / "best/agent.safetensors", asked.out / f"agent{best}.safetensors")
    )
    assert kept == agent
    lived_in = Path(asked.world) if best == 1 else asked.out / "round1"
    kept, there = (load_file(folder / "model.safetensors") for folder in (asked.out / "best", lived_in))
    assert all(np.array_equal(kept[name], there[name]) for name in there)
    with pytest.raises(ValueError, match="learns one instruction, and --instruction names"):
        improve(replace(asked, out=asked.out / "other", instruction=("*",)))


def dreamed(world: WorldModel, agent: ActorCritic, frame: np.ndarray) -> float:
    """What the dream itself pays the agent, in an environment that draws nothing and lasts as long as the twin's."""
    env = gym.make(
        "worldgym/Dream-v0", world=str(world.folder), instruction=agent.instruction, imagined=True, obs_type="state",
        max_episode_steps=40,
    )  # fmt: skip
    state, _ = env.reset(options={"frames": frame[None]})
    total, over = 0.0, False
    while not over:
        state, reward, terminated, truncated, _ = env.step(agent.predict(state[None])[0][0])
        total, over = total + float(reward), terminated or truncated
    return total


def test_what_cannot_be_improved_is_said(source, dataset, tmp_path):
    plain = tiny_world()
    plain.config = replace(plain.config, twin="worldgym/TabletopMuJoCo-v0")
    folder = write_world(tmp_path / "plain", plain)
    with pytest.raises(ValueError, match="no recurrent state to improve"):
        improve(Improve(str(folder), dataset, tmp_path / "out", device="cpu"))
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="must be a multiple"):
        Improve(str(source), dataset, horizon=10, action_repeat=3)
