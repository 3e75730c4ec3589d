"""Sharing: what is pushed, what its card says, and that what was pulled dreams. Nothing here touches a network."""

import json
import shutil
import sys

import gymnasium as gym
import numpy as np
import pytest
import torch
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import RepositoryNotFoundError

from worldgym import cli, hub
from worldgym.checkpoint import save_checkpoint
from worldgym.listing import find_world, list_worlds
from worldgym.world import WorldModel


class Hub(HfApi):
    """What the hub is told."""

    def __init__(self):
        self.files, self.private = {}, None

    def create_repo(self, repo, *, private, exist_ok):
        self.private = private
        return f"https://hub.example/{repo}"

    def upload_folder(self, *, repo_id, folder_path, commit_message, delete_patterns):
        from pathlib import Path

        self.files = {path.name: path.read_bytes() for path in Path(folder_path).iterdir()}


@pytest.fixture(autouse=True)
def forget():
    """Each test asks the hub anew."""
    hub.pull.cache_clear()


@pytest.fixture
def cached(checkpoint, tmp_path, monkeypatch):
    """A world in the hub's cache, and no network."""
    repository = tmp_path / "models--user--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40, encoding="utf-8")
    shutil.copytree(checkpoint, repository / "snapshots" / ("0" * 40))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def results(tmp_path):
    path = tmp_path / "figures.json"
    metrics = {"psnr": [30.0, 28.0, 26.0], "sentences": {"rate": 0.625, "interval": [0.5, 0.75]}, "by_episode": [{}]}
    machine = {"cpu": "a processor", "cores": 2, "gpu": None}
    content = {"command": "worldgym evaluate tiny", "commit": "abc", "metrics": metrics, "hardware": machine}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_a_push_holds_what_dreaming_needs_and_a_card(write_checkpoint):
    folder, there = write_checkpoint(), Hub()
    (folder / "training.safetensors").write_bytes(b"for resuming")
    assert hub.push(folder, "user/tiny", "mit", private=True, api=there) == "https://hub.example/user/tiny"
    held = {name for name in hub.FILES if not name.startswith("decoder/")}
    assert set(there.files) == {*held, "README.md", "env.py"}
    assert there.files["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    assert there.private is True


def test_what_was_pushed_dreams_when_it_is_pulled(write_checkpoint, tmp_path, monkeypatch):
    folder, there = write_checkpoint(), Hub()
    hub.push(folder, "user/tiny", "mit", api=there)
    pulled = tmp_path / "pulled"
    pulled.mkdir()
    for name, content in there.files.items():
        (pulled / name).write_bytes(content)
    monkeypatch.setattr(hub, "snapshot_download", lambda name, **_: str(pulled))
    frames = []
    for name in (str(folder), "user/tiny"):
        env = gym.make("worldgym/Dream-v0", world=name)
        env.reset(seed=0)
        frames.append(env.step(np.asarray([1.0, 0.0], np.float32))[0])
    np.testing.assert_array_equal(*frames)


def test_a_world_is_loaded_by_folder_and_by_its_name_on_the_hub(cached, checkpoint):
    """Without a network, and by either spelling."""
    weights = WorldModel.load(str(checkpoint), "cpu").state_dict()
    for name in (str(checkpoint), "user/tiny"):
        found = WorldModel.from_pretrained(name, device="cpu").state_dict()
        assert found.keys() == weights.keys()
        assert all(torch.equal(found[key], tensor) for key, tensor in weights.items())


def test_a_world_pushes_the_folder_it_was_loaded_from(write_checkpoint, monkeypatch):
    folder, there = write_checkpoint(), Hub()
    monkeypatch.setattr(hub, "HfApi", lambda: there)
    world = WorldModel.from_pretrained(str(folder), device="cpu")
    assert world.push_to_hub("user/tiny", "mit", data="noise", private=True) == "https://hub.example/user/tiny"
    assert there.files["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    assert b"Trained on: noise" in there.files["README.md"] and there.private is True


def test_a_world_that_lies_in_no_folder_cannot_be_pushed(make_world):
    with pytest.raises(ValueError, match=r"not loaded from a folder.*save_checkpoint"):
        make_world().push_to_hub("user/tiny", "mit")


def test_the_cache_is_enough_without_a_network(cached):
    env = gym.make("worldgym/Dream-v0", world="user/tiny")
    frame, _ = env.reset(seed=0)
    assert frame.shape == (64, 64, 3)


def test_the_hub_is_asked_once(checkpoint, monkeypatch):
    asked = []
    monkeypatch.setattr(hub, "snapshot_download", lambda name, **_: asked.append(name) or str(checkpoint))
    assert find_world("user/tiny") == find_world("user/tiny") == checkpoint
    assert asked == ["user/tiny"]


def test_a_world_that_is_nowhere_is_a_mistake(cached):
    with pytest.raises(ValueError, match="unknown world 'user/other'"):
        find_world("user/other")


def test_a_repository_that_does_not_exist_is_a_mistake(monkeypatch):
    def missing(name, **_):
        raise RepositoryNotFoundError.__new__(RepositoryNotFoundError)

    monkeypatch.setattr(hub, "snapshot_download", missing)
    with pytest.raises(ValueError, match="no such repository"):
        find_world("user/other")


def test_a_folder_comes_before_the_hub(checkpoint, monkeypatch):
    monkeypatch.chdir(checkpoint.parent.parent)
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, **__: pytest.fail("the hub was asked"))
    near = f"{checkpoint.parent.name}/{checkpoint.name}"
    assert find_world(near).resolve() == checkpoint
    with pytest.raises(ValueError, match="unknown world"):
        find_world(f"{checkpoint.parent.name}/tyni")  # its parent is a folder here: a path with a mistake in it


def test_the_card_tells_what_the_world_is(checkpoint, results):
    card = hub.model_card(checkpoint, "user/tiny", "apache-2.0", [results], "20 episodes of noise")
    assert card.startswith("---\n") and "license: apache-2.0" in card and "library_name: worldgym" in card
    assert 'world="user/tiny"' in card
    assert "- push the red block left" in card and "- reach the centre" in card
    assert "Trained on: 20 episodes of noise" in card
    assert "| psnr, at step 1 | 30 |" in card and "| psnr, at step 3 | 26 |" in card
    assert "| sentences, interval | 0.5 to 0.75 |" in card
    assert "`worldgym evaluate tiny`, commit abc, 2 cores of a processor." in card


def test_the_card_admits_what_nobody_measured(checkpoint):
    card = hub.model_card(checkpoint, "user/tiny", "mit")
    assert "No figures were given" in card and "Nobody has said" in card


def test_what_cannot_be_pushed(checkpoint, tmp_path, make_world):
    with pytest.raises(ValueError, match="must be user/name"):
        hub.push(checkpoint, "tiny", "mit", api=Hub())
    (tmp_path / "notes.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="no results file"):
        hub.push(checkpoint, "user/tiny", "mit", [tmp_path / "notes.json"], api=Hub())
    world = make_world()
    save_checkpoint(tmp_path / "half", world.config, world.tokenizer.state_dict(), "tokenizer")
    with pytest.raises(ValueError, match="holds a tokenizer only"):
        hub.push(tmp_path / "half", "user/tiny", "mit", api=Hub())


# -- the list of worlds ----------------------------------------------------------------------------------------------


def test_the_list_tells_bundled_worlds_and_runs(write_checkpoint, make_world, tmp_path, monkeypatch, capsys):
    world = make_world()
    folder = write_checkpoint(world)
    save_checkpoint(tmp_path / "half", world.config, world.tokenizer.state_dict(), "tokenizer")
    shutil.copytree(folder, tmp_path / "bad")
    (tmp_path / "bad" / "model.safetensors").write_bytes(b"cut")
    shutil.copytree(folder, tmp_path / "world.old")
    listed = {entry.name: entry for entry in list_worlds(tmp_path)}
    assert set(listed) == {"hopper", "reacher", "tabletop", str(folder), str(tmp_path / "half"), str(tmp_path / "bad")}
    mine = listed[str(folder)]
    assert (mine.stage, mine.resolution, mine.action_size, mine.phrases) == ("world", 64, 2, 4)
    assert mine.parameters == sum(tensor.numel() for tensor in world.state_dict().values())
    assert listed[str(tmp_path / "half")].stage == "tokenizer"
    assert listed[str(tmp_path / "bad")].stage == "damaged"
    assert listed["tabletop"].twin == "worldgym/TabletopMuJoCo-v0"

    monkeypatch.setattr(sys, "argv", ["worldgym", "list", "--runs", str(tmp_path)])
    cli.main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7 and lines[0].startswith("world ")
