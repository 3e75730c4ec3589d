"""Ranking: the same policies in dream and MuJoCo, and how far their values agree."""

import json
import sys
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest

from worldgym import cli
from worldgym.agents.ranking import Mistaken, Nearness, Start, divergence, draw_starts, rank_policies
from worldgym.envs_real.tabletop import locate
from worldgym.envs_real.tabletop.transfer import SCRIPTED, SeenSkill

TWIN = "worldgym/TabletopMuJoCo-v0"
CENTRE = "reach the centre"


@pytest.fixture
def twin():
    env = gym.make(TWIN, instruction=CENTRE, max_episode_steps=12)
    yield env
    env.close()


class Again(gym.Wrapper):
    """A perfect dream: the twin itself, which begins where it is told to begin and fails to notice that it need not
    be told."""

    def reset(self, *, seed=None, options=None):
        options = dict(options or {})
        given = options.pop("frames")
        observation, info = self.env.reset(seed=seed, options=options)
        assert np.array_equal(given[-1], observation), "the dream begins with the twin's first frame"
        return observation, info


def scripted(name):
    return lambda instruction, seed: SeenSkill(instruction, seed=seed, **SCRIPTED[name])


def test_a_perfect_dream_ranks_perfectly(twin):
    names = ("script", "script, half speed", "script, backwards")
    starts = [Start(CENTRE, 3), Start("reach the left side", 4)]
    ranking = rank_policies(
        Again(gym.make(TWIN, max_episode_steps=12)),
        twin,
        {name: scripted(name) for name in names},
        starts,
        Nearness(locate, 0.1),
    )
    metrics = ranking.metrics
    assert [one["policy"] for one in metrics["policies"]] == list(names)
    for one in metrics["policies"]:
        assert one["dream"] == one["mujoco"] and one["diverged"] == 0.0
    returns = [one["mujoco"]["mean_return"] for one in metrics["policies"]]
    assert returns == sorted(returns, reverse=True)
    assert metrics["return_pearson"] == pytest.approx(1.0) and metrics["return_spearman"] == pytest.approx(1.0)
    assert metrics["success_bias"] == 0.0
    assert set(ranking.shown) == set(names)


def test_divergence_is_the_first_step_apart(twin):
    """A frame in which the pusher is 0.15 away; one in which it is lost."""
    twin.reset(seed=1)
    frames = [twin.step(np.array([1.0, 0.0], np.float32))[0] for _ in range(3)]
    real = np.stack([frames[0]] * 4)
    dreamed = real.copy()
    assert divergence(real, dreamed, locate, 0.1) is None
    dreamed[2] = frames[1]
    assert divergence(real, dreamed, locate, 0.1) == 2
    assert divergence(real, dreamed[:2], locate, 0.1) is None
    dreamed[1] = 255
    assert divergence(real, dreamed, locate, 0.1) == 1


def test_starts_are_the_same_again():
    starts = draw_starts(["a", "b", "c"], 5, seed=7)
    assert [start.seed for start in starts] == [7, 8, 9, 10, 11]
    assert starts == draw_starts(["a", "b", "c"], 5, seed=7)


class Sure:
    """An agent that always does one thing."""

    def predict(self, observation, deterministic=True):
        return np.full((len(observation), 2), 0.25, np.float32), None


def test_an_agent_errs_as_often_as_it_is_told_to_and_the_same_again():
    def acts(share, seed):
        agent = Mistaken(Sure(), share, gym.spaces.Box(-1.0, 1.0, (2,)), seed)
        return np.concatenate([agent.predict(np.zeros((1, 3)))[0] for _ in range(400)])

    wrong = (acts(0.3, 0) != 0.25).any(1)
    assert 0.2 < wrong.mean() < 0.4
    assert np.array_equal(acts(0.3, 0), acts(0.3, 0)) and not np.array_equal(acts(0.3, 0), acts(0.3, 1))
    assert not (acts(0.0, 0) != 0.25).any()


# -- all of it --------------------------------------------------------------------------------------------------------


def ranked(monkeypatch, world, tmp_path, *more):
    file, report = tmp_path / "rank.json", tmp_path / "report"
    arguments = [
        "rank", world, "--episodes", 2, "--instruction", CENTRE, "--horizon", 6, "--samples", 4, "--json", file,
        "--report", report, *more,
    ]  # fmt: skip
    monkeypatch.setattr(gym.spec(TWIN), "max_episode_steps", 12)  # of 40, which take three times as long
    monkeypatch.setattr(sys, "argv", ["worldgym", *map(str, arguments)])
    cli.main()
    assert {path.name for path in report.iterdir()} == {"index.html", "policies.png", "run.json"}
    text = (report / "index.html").read_text(encoding="utf-8")
    assert text.count('src="data:image/') == 2 and 'src="' not in text.replace('src="data:image/', "")
    return json.loads(file.read_text(encoding="utf-8"))["metrics"]


def test_a_drawn_dream_ranks_what_looks_at_pictures(monkeypatch, make_world, write_checkpoint, tmp_path):
    world = make_world()
    world.config = replace(world.config, twin=TWIN)
    monkeypatch.setattr("worldgym.envs_real.tabletop.transfer.SCRIPTED", {"script": {}, "still": {"speed": 0.0}})
    metrics = ranked(monkeypatch, write_checkpoint(world), tmp_path)
    assert [one["policy"] for one in metrics["policies"]] == [
        "script", "still", "script, another goal", "random", "CEM, 4 x 2",
    ]  # fmt: skip
    assert all("diverged" in one for one in metrics["policies"])


def test_an_imagined_dream_ranks_what_acts_on_states(monkeypatch, tmp_path):
    agent = tmp_path / "agent"
    learn = [
        "learn", "tabletop", "--agent", "actor-critic", "--steps", 2, "--episodes", 1, "--instruction", CENTRE,
        "--out", agent,
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["worldgym", *map(str, learn)])
    cli.main()
    metrics = ranked(monkeypatch, "tabletop", tmp_path, "--imagined", "--agents", agent)
    names = [one["policy"] for one in metrics["policies"]]
    assert names[:3] == ["random", "still", "CEM, 4 x 2"] and len(names) == 3 + 1 + 4  # one checkpoint, four mistaken
    of = {one["policy"]: one for one in metrics["policies"]}
    planned, still = of["CEM, 4 x 2"], of["still"]
    assert all(planned[side]["mean_return"] > still[side]["mean_return"] for side in ("dream", "mujoco"))
    assert "diverged" not in still
