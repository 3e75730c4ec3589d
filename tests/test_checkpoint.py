"""Checkpoints: what is written is what is read, and what cannot be read says why."""

import contextlib
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from worldgym.checkpoint import load_config, load_tensors, load_weights, resume, save_checkpoint, training_state
from worldgym.config import RecurrentConfig
from worldgym.env import DreamEnv
from worldgym.listing import find_world
from worldgym.world import WorldModel

from .conftest import tiny_world


class Killed(BaseException):
    """What the operating system does, as far as a test can."""


def edit(folder: Path, **changes) -> None:
    """Change entries of config.json; None removes one."""
    described = json.loads((folder / "config.json").read_text(encoding="utf-8")) | changes
    described = {key: value for key, value in described.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(described), encoding="utf-8")


# -- round trips ---------------------------------------------------------------------------------------------


def test_a_world_comes_back_bit_by_bit(world, write_checkpoint):
    folder = write_checkpoint(world)
    assert load_config(folder) == (world.config, "world")
    found, expected = WorldModel.load(str(folder), "cpu").state_dict(), world.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_loaded_world_dreams_the_same(world, write_checkpoint, frames, actions):
    loaded = WorldModel.load(str(write_checkpoint(world)), "cpu")
    rewards, pictures = [], []
    for each in (world, loaded):
        state, _ = each.step(each.start(frames[:, :1], temperature=1.0), actions[:, 0])
        state, outcome = each.step(state, ["push the red block left"] * 3)
        rewards.append(outcome.reward), pictures.append(each.render(state))
    assert torch.equal(*rewards) and torch.equal(*pictures)


def test_extras_and_training_state_come_back(world, tmp_path):
    weights, extras = world.state_dict(), {"a.bin": b"\x00\xff"}
    training = {"step": torch.tensor(7), "0.exp_avg": torch.randn(3, 4).T}
    save_checkpoint(tmp_path / "w", world.config, weights, "world", extras, training)
    assert (tmp_path / "w" / "a.bin").read_bytes() == b"\x00\xff"
    found = load_tensors(tmp_path / "w" / "training.safetensors")
    assert found.keys() == training.keys()
    assert all(torch.equal(found[name], training[name]) for name in training)


def test_whoever_may_read_the_configuration_may_read_the_weights(world, tmp_path):
    save_checkpoint(tmp_path / "w", world.config, world.state_dict(), "world", {}, {"step": torch.tensor(7)})
    assert len({path.stat().st_mode for path in (tmp_path / "w").iterdir()}) == 1


def test_saving_replaces_all_of_an_older_checkpoint(write_checkpoint):
    folder = write_checkpoint()
    (folder / "stale.txt").write_text("from before", encoding="utf-8")
    assert sorted(path.name for path in write_checkpoint().iterdir()) == [
        "bpe.json", "config.json", "model.safetensors", "starts.npz"
    ]  # fmt: skip
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


# -- a process that dies while saving ------------------------------------------------------------------------


def test_what_a_killed_save_left_behind_is_harmless(write_checkpoint, world):
    folder = write_checkpoint(world)
    for leftover in (folder.with_name(folder.name + ".tmp"), folder.with_name(folder.name + ".old")):
        leftover.mkdir()
        (leftover / "model.safetensors").write_bytes(b"half of it")
    WorldModel.load(str(folder), "cpu")
    write_checkpoint(world)
    WorldModel.load(str(folder), "cpu")
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_full_disk_leaves_the_old_checkpoint(write_checkpoint, world, monkeypatch):
    folder = write_checkpoint(world)
    before = (folder / "model.safetensors").read_bytes()

    def no_space(*args):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", no_space)
        with pytest.raises(OSError, match="No space"):
            save_checkpoint(folder, world.config, world.state_dict(), "world", {"bpe.json": b"{}"})
    assert (folder / "model.safetensors").read_bytes() == before
    WorldModel.load(str(folder), "cpu")


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_there_is_a_checkpoint_whenever_saving_is_killed(write_checkpoint, world, monkeypatch, renames):
    """The old one or the new one, whole, under its own name: a run that resumes must find it."""
    folder = write_checkpoint(world)
    done = []

    def rename(*args):
        if len(done) == renames:
            raise Killed
        done.append(args)
        os_rename(*args)

    os_rename = os.rename
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", rename)
        patch.setattr(os, "replace", rename)
        with contextlib.suppress(Killed):
            save_checkpoint(folder, world.config, world.state_dict(), "tokenizer")
    _, stage = load_config(folder)
    assert stage in ("world", "tokenizer")
    load_weights(world, load_tensors(folder / "model.safetensors"), folder)


# -- checkpoints that cannot be used -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "truncated"),
        (lambda path: path.write_bytes(path.read_bytes()[:20]), "truncated"),
        (lambda path: path.write_bytes(b""), "truncated"),
        (lambda path: path.write_text("PK, says another program", encoding="utf-8"), "not a safetensors file"),
    ],
    ids=["cut", "cut header", "empty", "foreign"],
)
def test_damaged_weights_are_refused(write_checkpoint, spoil, says):
    folder = write_checkpoint()
    spoil(folder / "model.safetensors")
    with pytest.raises(ValueError, match=f"model.safetensors.*{says}"):
        WorldModel.load(str(folder), "cpu")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"model_type": "llama"}', "another program"),
        ("[1, 2]", "another program"),
        ('{"format": "worldgym", "vers', "damaged"),
        (b"\xff\xfe\x00", "damaged"),
        ('{"format": "worldgym"}', "checkpoint format None; this release reads 1"),
        ('{"format": "worldgym", "version": 1}', "does not fit this release"),
        ('{"format": "worldgym", "version": 1, "stage": "world", "name": "x"}', "does not fit this release"),
    ],
    ids=["foreign", "list", "cut", "binary", "no version", "no stage", "no sizes"],
)
def test_a_foreign_configuration_is_refused(write_checkpoint, content, says):
    folder = write_checkpoint()
    (folder / "config.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=f"(?s){says}"):
        WorldModel.load(str(folder), "cpu")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"version": 99}, "checkpoint format 99; this release reads 1"),
        ({"colour": "red"}, "does not fit this release.*colour"),
        ({"action_size": None}, "does not fit this release.*action_size"),
        ({"tokenizer": 3}, "does not fit this release"),
        ({"tokenizer": {"scales": [1, 2, 5]}}, "scales"),
        ({"dynamics": {"predict": "tea leaves"}}, "predict"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(write_checkpoint, changes, says):
    folder = write_checkpoint()
    edit(folder, **changes)
    with pytest.raises(ValueError, match=says):
        WorldModel.load(str(folder), "cpu")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "bpe.json"])
def test_a_missing_file_is_named(write_checkpoint, name):
    folder = write_checkpoint()
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        WorldModel.load(str(folder), "cpu")


def test_a_damaged_vocabulary_is_refused(write_checkpoint):
    folder = write_checkpoint()
    (folder / "bpe.json").write_text('{"version": "1.0", "trunc', encoding="utf-8")
    with pytest.raises(ValueError, match=r"bpe\.json"):
        WorldModel.load(str(folder), "cpu")


def test_damaged_starting_frames_are_refused(write_checkpoint):
    folder = write_checkpoint()
    (folder / "starts.npz").write_bytes((folder / "starts.npz").read_bytes()[:-100])
    env = DreamEnv(str(folder), device="cpu")
    with pytest.raises(ValueError, match=r"starts\.npz"):
        env.reset(seed=0)


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ({"frames": np.zeros((5, 64, 64, 3), np.float32)}, "frames are float32"),
        (
            {"frames": np.zeros((5, 32, 32, 3), np.uint8)},
            r"frames are uint8 .*; expected uint8 \[any, any, 64, 64, 3\]",
        ),
        ({"successes": np.zeros((4, 2), bool)}, r"successes are bool \[4, 2\]; expected bool \[5, 2\]"),
        ({"actions": np.full((5, 1, 2), np.nan, np.float32)}, "actions have nan at step 0"),
    ],
)
def test_starting_frames_of_another_kind_are_refused(write_checkpoint, part, says):
    folder = write_checkpoint()
    with np.load(folder / "starts.npz") as file:
        np.savez(folder / "starts.npz", **(dict(file) | part))
    with pytest.raises(ValueError, match=rf"starts\.npz: {says}"):
        DreamEnv(str(folder), device="cpu").reset(seed=0)


@pytest.mark.parametrize("wrong", ["shape", "missing", "extra"])
def test_weights_that_do_not_fit_are_refused(write_checkpoint, make_world, wrong):
    folder = write_checkpoint()
    weights = make_world().state_dict()
    name = "dynamics.cells"
    if wrong == "shape":
        weights[name] = weights[name][:-1].clone()
    elif wrong == "missing":
        del weights[name]
    else:
        weights[name := "dynamics.afterthought"] = torch.zeros(3)
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(ValueError, match=f"(?s)do not fit its config.json.*{name}"):
        WorldModel.load(str(folder), "cpu")


def test_a_state_of_an_earlier_release_is_the_same_state(write_checkpoint, frames, actions):
    """It had no points, and its encoder's layers had other numbers."""
    plain = tiny_world()
    recurrent = RecurrentConfig(width=32, embedding=16, channels=(4, 8, 8), points=0)
    world = WorldModel(replace(plain.config, recurrent=recurrent), plain.text).eval()
    folder, layers = write_checkpoint(world), "recurrent.encoder.convolutions."
    described = json.loads((folder / "config.json").read_text(encoding="utf-8"))["recurrent"]
    edit(folder, recurrent={name: value for name, value in described.items() if name != "points"})
    weights = load_tensors(folder / "model.safetensors")
    for number in (2, 1):
        for kind in ("weight", "bias"):
            weights[f"{layers}{2 * number}.{kind}"] = weights.pop(f"{layers}{number}.{kind}")
    save_file(weights, folder / "model.safetensors")
    loaded = WorldModel.load(str(folder), "cpu")
    assert loaded.config == world.config
    assert torch.equal(loaded.observe(frames[:, :3], actions[:, :2]), world.observe(frames[:, :3], actions[:, :2]))


def test_half_a_world_cannot_dream(world, tmp_path):
    save_checkpoint(tmp_path / "half", world.config, world.tokenizer.state_dict(), "tokenizer")
    with pytest.raises(ValueError, match="holds a tokenizer only; train its dynamics"):
        WorldModel.load(str(tmp_path / "half"), "cpu")


def test_an_unknown_name_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="unknown world 'atlantis'"):
        find_world("atlantis")
    (tmp_path / "atlantis").mkdir()
    with pytest.raises(FileNotFoundError, match=r"atlantis is no checkpoint: it has no config.json"):
        WorldModel.load("atlantis", "cpu")


def test_a_path_without_a_bundled_name_is_taken_as_it_is(write_checkpoint):
    folder = write_checkpoint()
    assert find_world(str(folder)) == folder


# -- going on with training ----------------------------------------------------------------------------------


def test_a_restored_optimiser_continues_exactly(world, tmp_path):
    """Through the file, into a fresh AdamW: the same weights as without the stop."""

    def steps(model, optimizer, first, last):
        for step in range(first, last):
            inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            model(inputs).square().mean().backward()
            optimizer.step()

    def make():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 6), nn.SiLU(), nn.Linear(6, 2))
        model.register_parameter("unused", nn.Parameter(torch.zeros(3)))
        return model, torch.optim.AdamW(model.parameters(), 1e-2, betas=(0.9, 0.95), weight_decay=0.01)

    model, optimizer = make()
    steps(model, optimizer, 0, 5)
    state = training_state(optimizer, 5)
    save_checkpoint(tmp_path / "w", world.config, model.state_dict(), "world", training=state)
    steps(model, optimizer, 5, 12)

    resumed, fresh = make()
    first = resume(tmp_path / "w", resumed, fresh)
    assert first == 5
    steps(resumed, fresh, first, 12)
    for name, expected in model.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], expected)
