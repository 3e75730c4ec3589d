"""The recurrent state learns what it is for, and what training shows it is what there was."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from minari import delete_dataset
from safetensors.torch import load_file

from worldgym.config import RecurrentConfig
from worldgym.data import load_episodes
from worldgym.envs_real.settings import RecordConfig
from worldgym.envs_real.tabletop.record import record
from worldgym.train.recurrent_state import (
    RecurrentLoss,
    RecurrentStage,
    principal_components,
    train_recurrent_state,
)  # fmt: skip
from worldgym.train.settings import RecurrentTraining
from worldgym.world import WorldModel

from ..conftest import tiny_world, write_world
from .killing import killed_at

RECURRENT = RecurrentConfig(width=48, embedding=32, head_width=32, channels=(4, 8, 8), observed=3)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def source(tmp_path_factory, dataset) -> Path:
    """A world that judges by the recording's instructions."""
    world = tiny_world()
    world.config = replace(world.config, instructions=load_episodes(dataset).instructions)
    return write_world(tmp_path_factory.mktemp("worlds") / "source", world)


def training(dataset: str, source: Path, out: Path, **arguments) -> RecurrentTraining:
    return RecurrentTraining(
        dataset, str(source), out, device="cpu",
        **{"steps": 20, "batch": 8, "ahead": 4, "recurrent": RECURRENT, "evaluate_every": 10, **arguments},
    )  # fmt: skip


@pytest.fixture
def stage(source, dataset, tmp_path) -> RecurrentStage:
    return RecurrentStage(training(dataset, source, tmp_path / "planned"), CPU)


def told(out: Path) -> dict[str, float]:
    return json.loads((out / "run.json").read_text(encoding="utf-8"))["metrics"]["held_out"]


# -- what it is shown ------------------------------------------------------------------------------------------------


def test_stretches_are_what_was_recorded(source, dataset, tmp_path):
    stage = RecurrentStage(training(dataset, source, tmp_path / "planned", looks=False), CPU)
    data, (stretches,) = stage.data, stage.draw(12, 0, 1)
    _, _, rows = stage._rows(12)
    at = 0
    for index, row in enumerate(rows):
        end = data.starts[data.episodes_of(rows[index : index + 1])[0] + 1]
        inside = int(stretches.inside[index].sum())
        assert inside == min(stretches.inside.shape[1], end - row)
        shown = int(stretches.shown[index].sum())
        assert 1 <= shown <= min(3, inside)
        assert np.array_equal(stretches.frames[at : at + shown], data.frames[row : row + shown])
        at += shown
        for name in ("rewards", "successes", "terminations"):
            expected = getattr(data, name)[row + 1 : row + inside]
            assert np.array_equal(getattr(stretches, name)[index, : inside - 1], expected), name
        assert np.array_equal(stretches.actions[index, : inside - 1], data.actions[row : row + inside - 1])
        for which, frame in zip(stretches.drawn[index], stretches.targets[2 * index : 2 * index + 2], strict=True):
            assert shown - 1 <= which < inside
            assert np.array_equal(frame, data.frames[row + int(which)])
    assert at == len(stretches.frames)


def test_half_of_the_stretches_look_different_and_nothing_else_does(source, dataset, tmp_path):
    plain, altered = (
        RecurrentStage(training(dataset, source, tmp_path / str(looks), looks=looks, batch=64), CPU).draw(12, 0, 1)[0]
        for looks in (False, True)
    )
    differ = (plain.frames.int() - altered.frames.int()).abs().flatten(1).amax(1) > 2
    by_stretch = torch.stack([part.any() for part in differ.split(plain.shown.sum(1).tolist())])
    assert 0.25 < by_stretch.float().mean() < 0.7
    for name, was, now in zip(plain._fields, plain, altered, strict=True):
        assert name == "frames" or torch.equal(was, now), name


def test_processes_share_a_batch(stage):
    """Row i is in process i modulo their number; what is measured over a batch is measured over the same steps."""
    (whole,), parts = stage.draw(3, 0, 1), [stage.draw(3, rank, 2)[0] for rank in (0, 1)]
    for rank, part in enumerate(parts):
        for name in ("shown", "actions", "rewards", "inside", "components", "drawn"):
            assert torch.equal(getattr(part, name), getattr(whole, name)[rank::2]), name
        assert torch.equal(part.frames, whole.frames[whole.shown.nonzero()[:, 0] % 2 == rank])


def test_imagined_frames_do_not_reach_the_state(stage):
    """Of what the frames behind the observed ones show, training compares with it and learns by it alone."""
    (stretches,) = stage.draw(5, 0, 1)
    stage.model.eval()
    embedded = torch.zeros(*stretches.shown.shape, RECURRENT.embedding)
    embedded[stretches.shown] = stage.model.state.embed(stretches.frames)
    states, _ = stage.model._follow(embedded, stretches)
    hidden = torch.where(stretches.shown[..., None], embedded, torch.randn_like(embedded))
    again, _ = stage.model._follow(hidden, stretches)
    assert torch.equal(states, again)
    for index in range(3):  # and it is what the world makes of the same frames and actions
        count = int(stretches.shown[index].sum())
        frames = stretches.frames[: int(stretches.shown[: index + 1].sum())][-count:]
        observed = stage.model.state.observe(frames[None], stretches.actions[index : index + 1, : count - 1])
        torch.testing.assert_close(states[index, count - 1], observed[0], atol=1e-5, rtol=1e-5)


# -- what it learns by -----------------------------------------------------------------------------------------------


def test_the_loss_is_what_was_read_wrong(stage):
    """By value: of states, rewards and frames that are read as nothing."""
    model: RecurrentLoss = stage.model.eval()
    readouts = model.readouts
    for module in (
        model.state.heads.question[-1], readouts.components[-1], readouts.seen[-1], model.state.picture.convolutions[-2]
    ):  # fmt: skip
        torch.nn.init.zeros_(module.weight)
        torch.nn.init.zeros_(module.bias)
    (stretches,) = stage.draw(5, 0, 1)
    found = model(stretches)
    ahead = (torch.arange(stretches.inside.shape[1]) - stretches.shown.sum(1, keepdim=True) + 1).clamp(min=0)
    weights = stretches.inside / (1 + ahead / 8)
    after = weights[:, 1:] / weights[:, 1:].sum()
    reward = (stretches.rewards.square().mean(-1) * after).sum() / stage.data.reward_variance
    torch.testing.assert_close(found["reward"], reward)
    torch.testing.assert_close(found["success"], torch.tensor(2.0).log())
    components = (stretches.components.square().sum(-1) * weights).sum() / weights.sum() / model.readouts.spread
    torch.testing.assert_close(found["components"], components)
    torch.testing.assert_close(found["frame"], model.state.centred(stretches.targets).square().mean())
    shown = stretches.shown & stretches.inside[:, : stretches.shown.shape[1]]
    judged = shown[:, 1:]  # the first frame of a stretch is not
    seen = stretches.components[:, : shown.shape[1]][shown].square().sum(-1).mean() / model.readouts.spread
    worth = stretches.rewards[:, : judged.shape[1]][judged].square().mean() / stage.data.reward_variance
    torch.testing.assert_close(found["seen"], seen + 3 * worth)


def test_what_lies_behind_an_end_weighs_nothing(stage):
    (stretches,) = stage.draw(5, 0, 1)
    model = stage.model.eval()
    cut = stretches._replace(inside=stretches.inside & (torch.arange(stretches.inside.shape[1]) < 4))
    other = cut._replace(
        rewards=cut.rewards + 100.0 * ~cut.inside[:, 1:, None], components=cut.components + ~cut.inside[..., None]
    )
    for name, value in model(cut).items():
        torch.testing.assert_close(model(other)[name], value)


def test_components_of_little_variance_count(stage):
    model, data = stage.model, stage.data
    some = np.sort(np.random.default_rng(0).permutation(len(data.frames))[: min(3000, len(data.frames))])
    spread = model.project(torch.from_numpy(data.frames[some])).square().mean(0)
    assert spread.sum().item() == pytest.approx(model.readouts.spread.item(), rel=1e-3)
    basis = model.readouts.basis
    plain = spread / basis.square().sum(1)  # its variance along a unit vector
    large, small = plain[-1], plain[-5]
    assert (spread[-1] / spread[-5]).item() == pytest.approx((large / small).sqrt().item(), rel=1e-3)


def test_principal_components_are_those_of_numpy():
    centred = torch.randn(40, 12, generator=torch.Generator().manual_seed(0))
    values, vectors = principal_components(centred, 3)
    _, singular, right = np.linalg.svd(centred.numpy(), full_matrices=False)
    np.testing.assert_allclose(values.numpy()[::-1], singular[:3] ** 2 / 40, rtol=1e-4)
    np.testing.assert_allclose(np.abs(vectors.numpy()[::-1] @ right[:3].T), np.eye(3), atol=1e-3)


# -- the training ----------------------------------------------------------------------------------------------------


def test_a_state_learns_and_leaves_the_world_as_it_was(source, dataset, tmp_path):
    out = train_recurrent_state(training(dataset, source, tmp_path / "planned", steps=120, learning_rate=4e-3))
    assert told(out)["reward_correlation_1"] > 0.5, told(out)
    before, after = load_file(source / "model.safetensors"), load_file(out / "model.safetensors")
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert {name.split(".")[0] for name in after.keys() - before.keys()} == {"recurrent"}
    assert WorldModel.load(str(out), device="cpu").recurrent is not None


def test_what_is_trained_on_begins_with_its_readouts(source, dataset, tmp_path):
    first = training(dataset, source, tmp_path / "planned", steps=3)
    train_recurrent_state(first)
    on = training(dataset, first.out, tmp_path / "on", fresh=False, seed=5)
    stage = RecurrentStage(on, CPU)
    for name, saved in load_file(first.out / "readouts.safetensors").items():
        assert torch.equal(stage.model.readouts.state_dict()[name], saved), name
    again = RecurrentStage(replace(first, seed=5), CPU)
    assert torch.equal(stage.model.readouts.basis, again.model.readouts.basis)  # whatever the seed, so they fit


def test_readouts_turn_with_the_components(source, dataset, tmp_path, capsys):
    """Components are of what was lived, too; the frames that readouts speak of stay the same."""
    lived = "test/lived-v0"
    record(RecordConfig(lived, episodes=4, steps=12, seed=9, workers=1))
    first = train_recurrent_state(training(dataset, source, tmp_path / "planned", steps=3))
    same = training(dataset, first, tmp_path / "same", fresh=False)
    on = replace(same, out=tmp_path / "on", lived=(lived,), steps=1)
    before, after = (RecurrentStage(config, CPU).model.readouts for config in (same, on))
    assert not torch.allclose(before.basis, after.basis)
    chance = torch.Generator().manual_seed(0)
    states, embedded = (torch.randn(5, size, generator=chance) for size in (RECURRENT.width, RECURRENT.embedding))
    for said, now in (
        (before.components(states), after.components(states)), (before.of_frames(embedded), after.of_frames(embedded)),
    ):  # fmt: skip
        frames = torch.linalg.lstsq(before.basis, said.T, driver="gelsd").solution
        torch.testing.assert_close(now, (after.basis @ frames).T, atol=1e-3, rtol=1e-3)

    again = replace(on, world=str(train_recurrent_state(on)), out=tmp_path / "again")
    assert torch.equal(RecurrentStage(again, CPU).model.readouts.basis, after.basis)
    delete_dataset(lived)
    capsys.readouterr()
    stage = RecurrentStage(replace(again, lived=(), out=tmp_path / "alone"), CPU)
    assert "so what is read off the state begins along components of other frames" in capsys.readouterr().out
    assert torch.equal(stage.model.readouts.basis, before.basis)


def test_it_begins_from_another_world_as_far_as_that_fits(dataset, source, tmp_path, capsys):
    base = train_recurrent_state(training(dataset, source, tmp_path / "base"))
    wider = replace(RECURRENT, head_width=40)
    again = training(
        dataset, source, tmp_path / "out", begin_from=str(base), steps=1, learning_rate=1e-9, recurrent=wider
    )
    begun = train_recurrent_state(again)
    said = capsys.readouterr().out
    assert f"tensors of {base}; from scratch: heads." in said and "encoder" not in said.partition("from scratch")[2]
    theirs, ours = (load_file(folder / "model.safetensors") for folder in (base, begun))
    for name in ("recurrent.predictor.recur.weight", "recurrent.encoder.leave.0.weight"):
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-4, rtol=1e-4)


def test_what_it_cannot_begin_from_is_a_mistake(dataset, source, tmp_path):
    with pytest.raises(ValueError, match="has no recurrent state to begin from"):
        train_recurrent_state(training(dataset, source, tmp_path / "out", begin_from=str(source)))
    with pytest.raises(ValueError, match="leave it out, or --begin-from"):
        training(dataset, source, tmp_path / "out", begin_from="reacher", fresh=False)
    assert not (tmp_path / "out").exists()


def test_a_killed_training_continues_as_it_would_have(source, dataset, tmp_path, monkeypatch):
    killed_at(monkeypatch, train_recurrent_state, training(dataset, source, tmp_path / "killed"), when=15)
    whole = train_recurrent_state(training(dataset, source, tmp_path / "whole"))
    resumed = train_recurrent_state(training(dataset, source, tmp_path / "killed"))
    with monkeypatch.context() as patch:  # what is done reads no recording
        patch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
        assert train_recurrent_state(training(dataset, source, tmp_path / "killed")) == resumed
    for file in ("model.safetensors", "readouts.safetensors"):
        one, other = (load_file(folder / file) for folder in (whole, resumed))
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_two_processes_train_a_state_as_one_does(source, dataset, tmp_path):
    """Up to rounding."""
    alone = training(dataset, source, tmp_path / "alone" / "planned", steps=4, learning_rate=1e-4)
    together = replace(alone, out=tmp_path / "together" / "planned", processes=2)
    for config in (alone, together):
        train_recurrent_state(config)
    assert told(alone.out) == pytest.approx(told(together.out), abs=2e-2)
    one, two = (load_file(config.out / "model.safetensors") for config in (alone, together))
    for name in one:
        if name.startswith("recurrent."):
            torch.testing.assert_close(one[name], two[name], atol=4e-4, rtol=1e-2)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [({"ahead": 0}, "at least one step"), ({"world": "hopper"}, "it was trained on something else")],
)
def test_mistakes_are_told_before_anything_is_trained(source, dataset, tmp_path, arguments, match):
    with pytest.raises(ValueError, match=match):
        train_recurrent_state(replace(training(dataset, source, tmp_path / "planned"), **arguments))
    assert not list(tmp_path.iterdir())


def test_stretches_name_their_episodes(stage):
    assert "episodes" in stage.source(0)
