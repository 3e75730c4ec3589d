"""Transfer: policies that see, tables that vary, and a report of what they cost."""

import json
import sys
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest

from worldgym import cli
from worldgym.agents.ranking import Start
from worldgym.agents.transfer import Cell, zero_shot
from worldgym.agents.transfer_report import write_report
from worldgym.envs_real.tabletop import FACTORS, Variation
from worldgym.envs_real.tabletop.transfer import SCRIPTED, SeenSkill, other_goal, varied_tables

TWIN = "worldgym/TabletopMuJoCo-v0"
CENTRE = "reach the centre"


@pytest.fixture
def twin():
    env = gym.make(TWIN, instruction=CENTRE, max_episode_steps=12)
    yield env
    env.close()


def scripted(name):
    return lambda instruction, seed: SeenSkill(instruction, seed=seed, **SCRIPTED[name])


# -- policies that see --------------------------------------------------------------------------------------------


def test_a_script_that_sees_reaches_what_it_is_told_to(twin):
    policy = SeenSkill(CENTRE)
    frame, _ = twin.reset(seed=1)
    done = False
    while not done:
        frame, _, terminated, truncated, info = twin.step(policy(frame))
        done = terminated or truncated
    assert info["success"]


def test_what_is_out_of_sight_is_where_it_was_seen_last(twin):
    frame, info = twin.reset(seed=1)
    policy = SeenSkill("push the red block left")
    seen = policy(frame)
    assert np.allclose(policy(np.full_like(frame, 255)), seen)
    assert np.allclose(policy.positions, info["positions"], atol=0.06)


def test_mistakes_depend_on_the_seed_alone(twin):
    """So that they are the same in both worlds, whatever these show."""
    frame, _ = twin.reset(seed=1)
    other, _ = twin.reset(seed=2)
    one, two = (SeenSkill(CENTRE, mistakes=1.0, seed=5) for _ in range(2))
    assert np.array_equal([one(frame) for _ in range(3)], [two(other) for _ in range(3)])
    assert not np.array_equal(SeenSkill(CENTRE, mistakes=1.0, seed=6)(frame), SeenSkill(CENTRE, 1.0, seed=5)(frame))


def test_speed_scales_the_script_and_not_its_mistakes(twin):
    frame, _ = twin.reset(seed=1)
    assert np.allclose(SeenSkill(CENTRE, speed=-0.5)(frame), -0.5 * SeenSkill(CENTRE)(frame))
    assert not SeenSkill(CENTRE, speed=0.0)(frame).any()
    assert np.array_equal(SeenSkill(CENTRE, 1.0, speed=0.0)(frame), SeenSkill(CENTRE, 1.0)(frame))


def test_another_goal_is_another(twin):
    goals = {other_goal(CENTRE, seed) for seed in range(50)}
    assert CENTRE not in goals and len(goals) > 10


# -- other tables -----------------------------------------------------------------------------------------------------


def test_each_table_differs_in_one_factor():
    tables = varied_tables(tuple(FACTORS))
    assert tables[0].variation == Variation()
    for table in tables[1:]:
        assert table.variation == replace(Variation(), **{table.factor: table.value}) != Variation()
        assert table.trained == (table.value in FACTORS[table.factor][0])
    held_out = [table.value for table in tables if table.factor == "camera_tilt"]
    assert held_out == [10.0, 20.0]


def test_a_table_is_asked_for_what_it_has():
    tables = {table.value: table.instructions for table in varied_tables(("colors",))}
    assert "reach the red block" in tables[("red",)] and "reach the blue block" not in tables[("red",)]


def test_an_unknown_factor_is_refused():
    with pytest.raises(ValueError, match=r"unknown factors \['weather'\]"):
        varied_tables(("weather",))


def test_the_grid_says_what_a_table_costs():
    """On a table where actions come late by 12 steps of 12, nothing is reached."""
    cells = [
        Cell(name, "", True, gym.make(TWIN, variation=variation, max_episode_steps=12), [Start(CENTRE, 1)] * 2)
        for name, variation in (("nominal", Variation()), ("delay", Variation(action_delay=12)))
    ]
    nominal, late, still, late_and_still = zero_shot(cells, {name: scripted(name) for name in ("script", "still")})
    assert [one["policy"] for one in (nominal, late, still)] == ["script", "script", "still"]
    assert (still["success_rate"], late_and_still["cost"]) == (0.0, 0.0), "each policy pays off its own nominal rate"
    assert (nominal["success_rate"], nominal["cost"]) == (1.0, 0.0)
    assert (late["success_rate"], late["cost"]) == (0.0, 100.0)
    assert late["success_interval"][1] < 1.0


# -- all of it --------------------------------------------------------------------------------------------------------


def test_the_report_needs_nothing_beside_it(twin, tmp_path):
    cells = [Cell("nominal", "", True, gym.make(TWIN, max_episode_steps=12), [Start(CENTRE, 3)])]
    grid = zero_shot(cells, {"script": scripted("script")})
    won = {"dream": {"value": 0.5, "interval": (0.3, 0.7), "cases": 20}}
    text = write_report(tmp_path, "A <b>title", "About.", grid, {"ways": won}).read_text(encoding="utf-8")
    assert "A &lt;b&gt;title" in text and "nominal" in text
    assert "search in the dream</td><td>50%</td><td>30% to 70%" in text
    assert text.count('src="data:image/') == 1 and 'src="' not in text.replace('src="data:image/', "")


def test_transfer_writes_figures_and_a_report(monkeypatch, make_world, write_checkpoint, tmp_path):
    world = make_world()
    world.config = replace(world.config, twin=TWIN)
    file, report = tmp_path / "transfer.json", tmp_path / "report"
    arguments = [
        "transfer", write_checkpoint(world), "--table-episodes", 1, "--factors", "mass", "--instruction", CENTRE,
        "--horizon", 6, "--samples", 4, "--iterations", 1, "--json", file, "--report", report,
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["worldgym", *map(str, arguments)])
    cli.main()
    metrics = json.loads(file.read_text(encoding="utf-8"))["metrics"]
    assert [one["factor"] for one in metrics["zero_shot"]] == ["nominal"] + ["mass"] * 4
    assert {path.name for path in report.iterdir()} == {"index.html", "zero_shot.png", "run.json"}
