"""Drafts: what planners look ahead by, and how they learn to."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from worldgym.checkpoint import export_world, load_config
from worldgym.checks import check_dream_env, check_vector_env
from worldgym.config import DraftConfig
from worldgym.data import load_episodes
from worldgym.train import draft as draft_module
from worldgym.train import loop as loop_module
from worldgym.train.draft import DraftLoss, ask, cut_stretches, drafting, read_maps, train_draft
from worldgym.train.settings import DraftTraining
from worldgym.world import WorldModel, WorldState

from ..conftest import tiny_world, write_world

DRAFT = DraftConfig(width=16, blocks=1)


@pytest.fixture(params=[1, 2], ids=["frame", "motion"])
def drafted(request, make_world) -> WorldModel:
    """A tiny world whose draft says something."""
    world = drafting(make_world(memory=request.param), DRAFT).requires_grad_(False)
    torch.nn.init.normal_(world.draft.leave.weight, std=0.1)
    return world


@pytest.fixture
def tries(actions) -> np.ndarray:
    return np.stack([actions[:, :6], -actions[:, :6], actions[:, 6:]], 1)


# -- looking ahead ---------------------------------------------------------------------------------------------------


def test_thorough_evaluation_does_not_heed_the_draft(drafted, frames, tries):
    plain = WorldModel(replace(drafted.config, draft=None), drafted.text)
    plain.load_state_dict({name: part for name, part in drafted.state_dict().items() if not name.startswith("draft.")})
    plain.eval().requires_grad_(False)
    expected = plain.evaluate(plain.start(frames[:, :1]), tries)
    assert torch.equal(drafted.evaluate(drafted.start(frames[:, :1]), tries, drafted=False), expected)
    assert not torch.allclose(drafted.evaluate(drafted.start(frames[:, :1]), tries), expected)


def test_a_future_is_judged_alone_as_among_others(drafted, frames, tries):
    state = drafted.start(frames, np.zeros((3, 3, 2), np.float32))
    together = drafted.evaluate(state, tries)
    for dream in range(3):
        one = state.select(torch.tensor([dream]))
        alone = drafted.evaluate(one, tries[dream : dream + 1, 2:])
        torch.testing.assert_close(alone[0], together[dream, 2:], atol=1e-5, rtol=1e-5)


def test_later_actions_cannot_change_earlier_rewards(drafted, frames, tries):
    """What sequences earn in their first steps is the same, whatever they do later."""
    state, other = drafted.start(frames[:, :1]), tries.copy()
    other[:, :, 4:] *= -1
    first = [[j.reward for j in drafted._drafted(state, torch.from_numpy(each))][:4] for each in (tries, other)]
    assert all(torch.equal(one, two) for one, two in zip(*first, strict=True))


def test_looking_ahead_leaves_the_dream_where_it_is(drafted, frames, tries, actions):
    state, twin = (drafted.start(frames[:, :1]) for _ in range(2))
    drafted.evaluate(state, tries)
    assert torch.equal(drafted.step(state, actions[:, 0])[1].reward, drafted.step(twin, actions[:, 0])[1].reward)


def test_a_sequence_that_has_ended_earns_no_more(drafted, frames, tries):
    for member in drafted.dynamics.outcome_heads.members:
        member.outer[-1].bias[2] = 20.0
    state = drafted.start(frames[:, :1])
    torch.testing.assert_close(drafted.evaluate(state, tries), drafted.evaluate(state, tries[:, :, :1]))


# -- drafted dreams ------------------------------------------------------------------------------------------------


def test_drafted_steps_earn_what_looking_ahead_says(drafted, frames, tries):
    """`step(..., drafted=True)` and `evaluate` are the same futures."""
    for member in drafted.dynamics.outcome_heads.members:
        member.outer[-1].bias[2] = -20.0  # nothing ends
    state = drafted.start(frames[:, :1])
    foreseen, earned = drafted.evaluate(state, tries)[:, 1], torch.zeros(3)
    for action in tries[:, 1].swapaxes(0, 1):
        state, outcome = drafted.step(state, action, drafted=True)
        earned += outcome.reward
    torch.testing.assert_close(earned, foreseen, atol=1e-5, rtol=1e-5)
    assert outcome.uncertainty.isnan().all()
    torch.testing.assert_close(drafted.evaluate(state, tries), drafted.evaluate(state.fork(1), tries))


def test_a_drafted_step_leaves_its_state_as_it_was(drafted, frames, actions):
    state = drafted.start(frames[:, :1])
    one, other = (drafted.step(state, actions[:, 0], drafted=True)[0] for _ in range(2))
    assert torch.equal(one.fused, other.fused) and not torch.equal(one.fused, state.fused)
    drafted.step(state, actions[:, 0])


def test_drafted_dreams_go_on_from_a_snapshot_and_not_by_tokens(drafted, frames, actions):
    state, _ = drafted.step(drafted.start(frames[:, :1]), actions[:, 0], drafted=True)
    back = WorldState.restore(state.snapshot())
    one, other = (drafted.step(s, actions[:, 1], drafted=True)[0].fused for s in (state, back))
    assert torch.equal(one, other)
    with pytest.raises(ValueError, match="was drafted"):
        drafted.step(back, actions[:, 1])
    fresh = drafted.start(frames[:, :1])
    with pytest.raises(ValueError, match="was drafted"):
        drafted.step(fresh.put(torch.tensor([1]), back.select(torch.tensor([1]))), actions[:, 1])


def test_a_world_without_a_draft_says_so(make_world, frames, actions):
    world = make_world()
    with pytest.raises(ValueError, match="no draft; `worldgym train draft`"):
        world.step(world.start(frames[:, :1]), actions[:, 0], drafted=True)


def test_drafted_environments_pass_the_checkers(drafted, tmp_path):
    drafted_dream = {"world": str(write_world(tmp_path / "drafted", drafted)), "obs_type": "latent", "drafted": True}
    no_tokens = {"infos tell uncertainty": "a draft draws no tokens"}
    check_dream_env(gym.make("worldgym/Dream-v0", **drafted_dream), no_tokens)
    check_vector_env(partial(gym.make_vec, "worldgym/Dream-v0", **drafted_dream))
    with pytest.raises(ValueError, match=r"temperature=1\.0"):
        gym.make("worldgym/Dream-v0", **drafted_dream, temperature=1.0)


# -- learning ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[1, 2], ids=["frame", "motion"])
def source(request, tmp_path_factory, dataset) -> Path:
    """A world that judges by the recording's instructions."""
    data, world = load_episodes(dataset), tiny_world(memory=request.param)
    config = replace(world.config, instructions=data.instructions)
    return write_world(tmp_path_factory.mktemp("worlds") / "source", _named(world, config))


def _named(world: WorldModel, config) -> WorldModel:
    world.config = config
    return world


def training(dataset: str, source: Path, out: Path, **arguments) -> DraftTraining:
    return DraftTraining(
        dataset, str(source), out, batch=4, processes=1, device="cpu",
        **{"steps": 30, "ahead": (1, 2, 4), "draft": DRAFT, "evaluate_every": 10, **arguments},
    )  # fmt: skip


def test_a_draft_learns_and_leaves_the_world_as_it_was(source, dataset, tmp_path):
    out = train_draft(training(dataset, source, tmp_path / "drafted", steps=60, learning_rate=1e-2))
    told = json.loads((out / "run.json").read_text(encoding="utf-8"))["metrics"]["held_out"]
    assert told["error_1"] < 0.95, told
    before, after = load_file(source / "model.safetensors"), load_file(out / "model.safetensors")
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert {name.split(".")[0] for name in after.keys() - before.keys()} == {"draft"}
    assert not list(tmp_path.glob("*maps*"))


def test_a_killed_training_goes_on_as_it_would_have(source, dataset, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def stop(step, steps, warm_up):
        if step == 15:
            raise Killed
        return schedule(step, steps, warm_up)

    schedule = loop_module.schedule
    with monkeypatch.context() as patch:
        patch.setattr(loop_module, "schedule", stop)
        with pytest.raises(Killed):
            train_draft(training(dataset, source, tmp_path / "killed"))
    whole = train_draft(training(dataset, source, tmp_path / "whole"))
    resumed = train_draft(training(dataset, source, tmp_path / "killed"))
    one, other = (load_file(folder / "model.safetensors") for folder in (whole, resumed))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_two_processes_train_a_draft_as_one_does(source, dataset, tmp_path):
    """Up to the rounding of bfloat16."""
    alone = training(dataset, source, tmp_path / "alone" / "drafted", steps=6, learning_rate=1e-4)
    together = replace(alone, out=tmp_path / "together" / "drafted", processes=2)
    for config in (alone, together):
        train_draft(config)
    one, two = (
        json.loads((config.out / "run.json").read_text(encoding="utf-8"))["metrics"]["held_out"]
        for config in (alone, together)
    )
    assert one["error_4"] != 1.0 and one == pytest.approx(two, rel=1e-3)
    one, two = (load_file(config.out / "model.safetensors") for config in (alone, together))
    name = "draft.leave.weight"
    assert (one[name] - two[name]).abs().mean() < 0.05 * one[name].abs().mean()  # it begins at zero


def test_a_finished_training_reads_nothing_anew(source, dataset, tmp_path, monkeypatch):
    out = train_draft(training(dataset, source, tmp_path / "drafted", steps=3))
    monkeypatch.setattr(draft_module, "read_maps", lambda *_: pytest.fail("it read the recording again"))
    assert train_draft(training(dataset, source, tmp_path / "drafted", steps=3)) == out


def test_maps_that_another_world_left_are_not_taken(source, dataset, tmp_path):
    data, world = load_episodes(dataset), WorldModel.load(str(source), device="cpu")
    config = training(dataset, source, tmp_path / "drafted")
    before = draft_module._maps_path(config, world, data)
    assert draft_module._maps_path(config, WorldModel.load(str(source), device="cpu"), data) == before
    world.tokenizer.from_latent.weight.mul_(2.0)
    assert draft_module._maps_path(config, world, data) != before
    assert draft_module._maps_path(replace(config, dataset="test/other-v0"), world, data) != before


def test_a_drafted_world_travels(source, dataset, tmp_path):
    out = train_draft(training(dataset, source, tmp_path / "drafted", steps=3))
    export_world(out, tmp_path / "exported")
    world = WorldModel.load(str(tmp_path / "exported"), device="cpu")
    assert load_config(tmp_path / "exported")[0].draft == DRAFT
    assert world.draft is not None


def test_stretches_tile_the_episodes_to_their_ends(source, dataset, tmp_path):
    data, world = load_episodes(dataset), WorldModel.load(str(source), device="cpu")
    found = read_maps(world, data, tmp_path / "maps.npy")
    frames, covered = found.maps.shape[1], np.zeros(len(data.frames), bool)
    for row, episode in zip(found.rows, found.episodes, strict=True):
        assert data.starts[episode] <= row and row + frames <= data.starts[episode + 1]
        covered[row : row + frames] = True
    assert covered.all()


def test_training_begins_where_planners_do(source, dataset, tmp_path):
    """Training begins from the maps that a planner begins from."""
    data = load_episodes(dataset)
    world = drafting(WorldModel.load(str(source), device="cpu"), DRAFT)
    found, window = read_maps(world, data, tmp_path / "maps.npy"), world.config.dynamics.window
    instructions = world.read_instructions(list(data.instructions))
    stretches = cut_stretches(world, data, found, np.arange(3), ask(world, data, 3, np.random.default_rng(0)))
    off = DraftLoss(world, instructions, data.reward_variance).errors(stretches, window)
    before = int(world.config.dynamics.memory > 1)
    state = world.start(
        np.stack([data.frames[row : row + 1 + before] for row in found.rows[:3]]),
        np.stack([data.actions[row : row + before] for row in found.rows[:3]]),
    )
    np.testing.assert_allclose(state.fused.numpy(), found.maps[:3, before], atol=0.1)  # read in bfloat16
    assert off.error.shape == off.reward.shape == (window,)
    # A draft that says nothing repeats its first map, which is what errors are relative to.
    torch.testing.assert_close(off.error / off.still, torch.ones(window), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"ahead": (3,)}, "window"),
        ({"batch": 5, "processes": 2}, "shared"),
        ({"world": "hopper"}, "instructions"),
    ],
)
def test_mistakes_are_told_before_anything_is_read(source, dataset, tmp_path, arguments, match):
    config = replace(training(dataset, source, tmp_path / "drafted"), **arguments)
    with pytest.raises(ValueError, match=match):
        train_draft(config)
    assert not list(tmp_path.iterdir())
