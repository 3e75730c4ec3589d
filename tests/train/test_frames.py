"""Frames that are drawn from the recurrent state: what training shows the scale head, and what it leaves alone."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from worldgym.checkpoint import load_config
from worldgym.config import DynamicsConfig, RecurrentConfig
from worldgym.data import load_episodes, segments_at
from worldgym.train.dynamics import train_dynamics
from worldgym.train.frames import FramesStage, drawing_from_state, train_frames
from worldgym.train.recurrent_state import train_recurrent_state
from worldgym.train.settings import DynamicsTraining, FramesTraining, RecurrentTraining
from worldgym.world import WorldModel

from ..conftest import tiny_world, write_world
from .killing import killed_at

SIZES = RecurrentConfig(width=48, embedding=32, head_width=32, channels=(4, 8, 8), observed=3)


@pytest.fixture(scope="module")
def planned(tmp_path_factory, dataset) -> Path:
    """A world that is told of motion, whose state was trained for a moment."""
    folder, world = tmp_path_factory.mktemp("worlds"), tiny_world(memory=2, prompt=2)
    world.config = replace(world.config, instructions=load_episodes(dataset).instructions)
    return train_recurrent_state(
        RecurrentTraining(
            dataset, str(write_world(folder / "source", world)), folder / "planned", steps=10, batch=8, ahead=4,
            recurrent=SIZES, evaluate_every=10, device="cpu",
        )
    )  # fmt: skip


def training(dataset: str, planned: Path, out: Path, **arguments) -> FramesTraining:
    return FramesTraining(
        dataset, str(planned), out, device="cpu",
        **{"steps": 6, "batch": 4, "processes": 1, "evaluate_every": 3, **arguments},
    )  # fmt: skip


def test_the_scale_head_is_shown_what_a_dream_foresees(planned, dataset, tmp_path):
    """Frames are observed up to one of them, with or without those before the context; what follows is imagined."""
    stage = FramesStage(training(dataset, planned, tmp_path / "drawn"), torch.device("cpu"))
    batches, recurrent = stage.batches, stage.world.recurrent
    lead, steps = batches.dynamics.lead, batches.dynamics.window
    segment = segments_at(stage.data, np.array([0, 1, 13]), batches.steps)
    first, shown = np.array([0, lead, 0]), np.array([1, 3, 2])
    found = batches.foresee(segment, first, shown)
    for row in range(3):
        frames = torch.from_numpy(segment.frames[row : row + 1])
        actions = torch.from_numpy(segment.actions[row : row + 1])
        for when in range(steps):
            newest = lead + min(when, int(shown[row]) - 1)  # frame that was observed last before this action
            begin, end = int(first[row]), lead + when + 1
            state = recurrent.observe(frames[:, begin : newest + 1], actions[:, begin:newest])
            expected = recurrent.imagine(state, actions[:, newest:end])[:, -1]
            torch.testing.assert_close(found[row, when], recurrent.pictured(expected)[0], atol=1e-5, rtol=1e-5)


def test_what_training_draws_is_what_a_dream_draws(planned, dataset, tmp_path):
    """Of a batch's first segment, open loop: the training's own dream of it, and the environment's."""
    stage = FramesStage(training(dataset, planned, tmp_path / "drawn"), torch.device("cpu"))
    world, batches = stage.world, stage.batches
    torch.nn.init.normal_(world.dynamics.scale_head.from_state.weight, std=0.5)
    world.dynamics.scale_head.residual = 1.0  # no token can flip by rounding
    lead, memory = batches.dynamics.lead, batches.dynamics.memory
    segment = segments_at(stage.data, np.array([2]), batches.steps)
    seen = lead + memory
    state = world.start(segment.frames[:, :seen], segment.actions[:, : seen - 1])
    foreseen = batches.foresee(segment, np.array([0]), np.array([memory]))
    for when in range(memory - 1, batches.dynamics.window):
        state, _ = world.step(state, segment.actions[:, lead + when])
        pictured = world.recurrent.pictured(state.recurrent)
        torch.testing.assert_close(pictured, foreseen[:, when], atol=1e-5, rtol=1e-5)


def test_the_scale_head_alone_is_trained(planned, dataset, tmp_path):
    out = train_frames(training(dataset, planned, tmp_path / "drawn"))
    before, after = load_file(planned / "model.safetensors"), load_file(out / "model.safetensors")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and {name.split(".")[1] for name in moved} == {"scale_head"}
    assert after.keys() - before.keys() == {f"dynamics.scale_head.from_state.{part}" for part in ("weight", "bias")}
    assert after["dynamics.scale_head.from_state.weight"].abs().max() > 1e-5
    assert load_config(out)[0].dynamics.from_state
    for name in ("bpe.json", "starts.npz", "readouts.safetensors"):
        assert (out / name).read_bytes() == (planned / name).read_bytes(), name
    assert WorldModel.load(str(out), device="cpu").config.recurrent == SIZES
    told = json.loads((out / "run.json").read_text(encoding="utf-8"))["metrics"]
    assert told["step"] == 6 and np.isfinite(told["open_loop_psnr_gain"]).all()


def test_a_world_draws_as_before_until_it_has_learned(planned, dataset):
    plain = WorldModel.load(str(planned), device="cpu")
    world, data = drawing_from_state(plain, rereads=False), load_episodes(dataset)
    seen = plain.config.dynamics.observed
    frames, actions = data.frames[None, :seen], data.actions[None, :seen]
    one, other = (each.start(frames, actions[:, :-1]) for each in (plain, world))
    for _ in range(6):  # over a new window
        one, other = (each.step(state, actions[:, -1])[0] for each, state in ((plain, one), (world, other)))
        assert torch.equal(one.fused, other.fused)


def test_a_killed_training_continues_as_it_would_have(planned, dataset, tmp_path, monkeypatch):
    killed_at(monkeypatch, train_frames, training(dataset, planned, tmp_path / "killed"), when=4)
    one, other = (
        load_file(train_frames(training(dataset, planned, tmp_path / name)) / "model.safetensors")
        for name in ("whole", "killed")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_new_state_draws_nothing_until_it_is_taught(planned, dataset, tmp_path):
    """A state that begins anew has another language; one that is trained on keeps what draws from it."""
    drawn = train_frames(training(dataset, planned, tmp_path / "drawn", steps=1, evaluate_every=1))
    again = RecurrentTraining(
        dataset, str(drawn), tmp_path / "anew", steps=1, batch=4, ahead=2, recurrent=SIZES, device="cpu"
    )
    anew = train_recurrent_state(again)
    assert not load_config(anew)[0].dynamics.from_state
    assert not [name for name in load_file(anew / "model.safetensors") if "from_state" in name]
    assert train_recurrent_state(again) == anew  # which is done, and knows it
    on = train_recurrent_state(replace(again, out=tmp_path / "on", fresh=False))
    assert load_config(on)[0].dynamics.from_state


def test_mistakes_are_told_before_anything_is_trained(planned, dataset, tmp_path):
    source = planned.with_name("source")
    with pytest.raises(ValueError, match="has no recurrent state to draw from"):
        train_frames(training(dataset, source, tmp_path / "drawn"))
    with pytest.raises(ValueError, match="it was trained on something else"):
        train_frames(training(dataset, "hopper", tmp_path / "drawn"))
    with pytest.raises(ValueError, match="can't be shared by 3 processes"):
        training(dataset, planned, tmp_path / "drawn", processes=3)
    with pytest.raises(ValueError, match="rereads corrects the state"):
        DynamicsConfig(rereads=True)
    early = DynamicsTraining(dataset, planned, tmp_path / "world", dynamics=DynamicsConfig(from_state=True))
    with pytest.raises(ValueError, match="by `worldgym train frames`, once there is one"):
        train_dynamics(early)
    assert not list(tmp_path.iterdir())
