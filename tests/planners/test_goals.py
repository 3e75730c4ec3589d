"""Planning for a picture: what states are compared by, and what the command says of it."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from worldgym.checkpoint import GOALS, READOUTS, export_world, goal_weights
from worldgym.errors import UserError
from worldgym.model.goal_heads import COMPONENTS, GoalHeads
from worldgym.planners.goals import GoalReturns

from ..cli.briefly import run
from ..conftest import RECURRENT, filtered_world, tiny_world, write_world


@pytest.fixture
def judged(tmp_path):
    """A world on disk beside which training has left its readouts."""
    world = filtered_world()
    world.folder = write_world(tmp_path / "world", world)
    torch.manual_seed(0)
    heads = GoalHeads(RECURRENT, COMPONENTS + 2)
    save_file(heads.state_dict() | {"inverse.0.weight": torch.ones(2, 2)}, world.folder / READOUTS)
    return world, heads


def test_states_are_compared_with_the_goal_by_what_heads_read_off_both(judged, frames):
    world, heads = judged
    returns = GoalReturns(world, frames[0, 0])
    seen = world.recurrent.embed(torch.from_numpy(frames[0, :1]))
    assert torch.allclose(returns.goal, heads.seen(seen)[:, :COMPONENTS], atol=1e-5)
    state = world.observe(frames[1, :1][None])
    assert torch.allclose(returns.look(state[:, None])[:, 0], heads.components(state), atol=1e-5)


def test_without_heads_pictures_are_compared(judged, frames):
    world, _ = judged
    (world.folder / READOUTS).unlink()
    returns = GoalReturns(world, frames[0, 0])
    there, elsewhere = (world.observe(frames[0, when][None, None])[:, None] for when in (0, 1))
    assert float((returns.look(there)[:, 0] - returns.goal).abs().max()) < 1e-5
    assert float((returns.look(elsewhere)[:, 0] - returns.goal).abs().max()) > 1e-3


def test_a_sequence_is_worth_its_distances_to_the_goal(judged, frames, actions):
    world, _ = judged
    returns = GoalReturns(world, frames[0, 0])
    with pytest.raises(RuntimeError, match="ground"):
        returns(actions[:, :5])
    returns.ground(frames[1, :2], np.zeros((1, 2), np.float32))
    state = world.observe(frames[1:2, :2], np.zeros((1, 1, 2), np.float32))
    for sequence, found in zip(actions[:, :5], returns(actions[:, :5]), strict=True):
        states = world.recurrent.imagine(state, torch.from_numpy(sequence)[None])
        far = [float((returns.look(one[None, None]) - returns.goal).square().sum()) for one in states[0]]
        assert found == pytest.approx(-sum(far), rel=1e-4)


def test_an_exported_world_keeps_what_goals_are_judged_by(judged, tmp_path):
    world, heads = judged
    export_world(world.folder, tmp_path / "exported")
    kept = goal_weights(tmp_path / "exported")
    assert not (tmp_path / "exported" / READOUTS).exists() and (tmp_path / "exported" / GOALS).exists()
    for name, tensor in heads.state_dict().items():
        assert torch.allclose(kept[name].float(), tensor, atol=1e-3), name
    assert goal_weights(tmp_path) == {}


def test_what_cannot_be_a_goal_is_refused(judged, frames):
    world, _ = judged
    with pytest.raises(UserError, match=r"the goal is uint8 \(32, 32, 3\); this world shows uint8 \(64, 64, 3\)"):
        GoalReturns(world, frames[0, 0, :32, :32])
    with pytest.raises(UserError, match="has no recurrent state, in which goals are planned for"):
        GoalReturns(tiny_world(), frames[0, 0])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--goal", "recorded", "--instruction", "reach *"], "--goal is in place of --instruction"),
        (["--goal", "recorded", "--planner", "beam"], "--goal is in place of --instruction"),
        (["--goal", "recorded", "--planner", "gradient"], "climbs learned rewards"),
        (["--goal", "goal.png", "--on", "mujoco"], "true physics does not judge a picture"),
        (["--goal", "goal.png", "--pairs", "pairs.json"], "--pairs are of --goal recorded"),
        (["--goal", "goal.png", "--guide", "agent.safetensors"], "--guide is of instructions"),
    ],
)
def test_settings_that_do_not_fit_a_goal_are_refused(options, said, capsys):
    with pytest.raises(SystemExit):
        run("plan", "tabletop", *options)
    assert said in " ".join(capsys.readouterr().err.split())


def on_the_tabletop(tmp_path) -> str:
    world = filtered_world()
    object.__setattr__(world.config, "twin", "worldgym/TabletopMuJoCo-v0")
    return str(write_world(tmp_path / "world", world))


SMALL = ["--episodes", "2", "--horizon", "3", "--samples", "4", "--iterations", "1", "--replan-every", "3"]


def test_the_command_plans_for_recorded_goals_and_shows_the_floor(tmp_path, capsys):
    world = on_the_tabletop(tmp_path)
    run("plan", world, "--goal", "recorded", "--pairs", tmp_path / "pairs.json", *SMALL, "--device", "cpu")
    said = capsys.readouterr().out
    for label in ("cem on dream", "random actions"):
        for rule in ("moderate", "strict"):
            assert f"{label}: " in said and f"of 2 goals reached, {rule}" in said
    assert (tmp_path / "pairs.json").exists()


def test_the_command_plans_for_a_picture(tmp_path, capsys, frames):
    world = on_the_tabletop(tmp_path)
    Image.fromarray(frames[0, 0]).save(tmp_path / "goal.png")
    run("plan", world, "--goal", tmp_path / "goal.png", *SMALL, "--device", "cpu")
    assert "dB to the goal" in capsys.readouterr().out
    (tmp_path / "goal.png").write_bytes(b"nothing")
    with pytest.raises(SystemExit):
        run("plan", world, "--goal", tmp_path / "goal.png", *SMALL, "--device", "cpu")
    assert "is no picture" in capsys.readouterr().err
