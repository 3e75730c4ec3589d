"""Every stage trains on shards and on LeRobot data sets, and a resumed training sees what it would have seen."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from worldgym import lerobot_files
from worldgym import shards as shards_module
from worldgym import streams as streams_module
from worldgym.cli.shard import Shard, shard
from worldgym.config import DecoderConfig, DynamicsConfig, RecurrentConfig, Schedule, SwinConfig, TokenizerConfig
from worldgym.data import load_episodes
from worldgym.lerobot import lerobot_to_minari, minari_to_lerobot
from worldgym.shards import Shards
from worldgym.streams import DRAWN
from worldgym.train import recurrent_state as recurrent_state_module
from worldgym.train.decoder import DecoderStage
from worldgym.train.dynamics import DynamicsStage
from worldgym.train.recurrent_state import RecurrentStage, Source
from worldgym.train.settings import DecoderTraining, DynamicsTraining, RecurrentTraining, TokenizerTraining
from worldgym.train.tokenizer import TokenizerStage, train_tokenizer

from ..conftest import tiny_world, write_world
from .killing import killed_at

TOKENIZER = TokenizerConfig(channels=(8, 16, 16), latent_channels=4, codes=32, heads=2)
DYNAMICS = DynamicsConfig(layers=2, width=64, heads=2, kv_heads=1, mlp_width=64, head_width=32, head_layers=1, window=4)
RECURRENT = RecurrentConfig(width=48, embedding=32, head_width=32, channels=(4, 8, 8), observed=3)
DECODER = DecoderConfig(
    layers=1, heads=2, head_width=12, mlp_width=32,
    swin=SwinConfig(frames=1, schedule=Schedule(2, 1.0), guidance=1.0, drop=0.0),
)  # fmt: skip
CPU = torch.device("cpu")


def sharded(dataset: str, folder: Path, size: int) -> str:
    """URL of a recording in shards of so many bytes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards_module, "SHARD", size)
        shard(Shard(dataset, f"file://{folder}"))
    return f"file://{folder}"


@pytest.fixture(scope="module")
def url(dataset, tmp_path_factory) -> str:
    """The recording, an episode or two in a shard."""
    return sharded(dataset, tmp_path_factory.mktemp("shards"), 1000)


@pytest.fixture(scope="module")
def robot(dataset, tmp_path_factory) -> str:
    """The recording as a LeRobot data set."""
    folder = tmp_path_factory.mktemp("robot") / "set"
    minari_to_lerobot(dataset, folder)
    return f"lerobot:{folder}"


@pytest.fixture(scope="module")
def copy(robot, tmp_path_factory) -> str:
    """What `lerobot_to_minari` makes of it, each episode in a shard of its own."""
    folder = tmp_path_factory.mktemp("copy")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(folder / "minari"))
        lerobot_to_minari(Path(robot.removeprefix("lerobot:")), "test/copy-v0", size=64)
        return sharded("test/copy-v0", folder / "shards", 1)


@pytest.fixture(autouse=True)
def window(monkeypatch):
    """Of a few pieces."""
    monkeypatch.setattr(streams_module, "WINDOW", 5000)
    monkeypatch.setattr(lerobot_files, "DECODED", 5 * 12 * 64 * 64 * 3)


@pytest.fixture(scope="module")
def world(tmp_path_factory, dataset) -> Path:
    made = tiny_world()
    made.config = replace(made.config, instructions=load_episodes(dataset).instructions)
    return write_world(tmp_path_factory.mktemp("worlds") / "source", made)


def stages(url: str, world: Path, out: Path):
    """By name, what makes each stage anew."""
    made = {
        "tokenizer": (TokenizerStage, TokenizerTraining(url, out, batch=8, tokenizer=TOKENIZER)),
        "dynamics": (DynamicsStage, DynamicsTraining(url, world, out, batch=8, dynamics=DYNAMICS)),
        "state": (RecurrentStage, RecurrentTraining(url, str(world), out, batch=8, ahead=4, recurrent=RECURRENT)),
        "decoder": (DecoderStage, DecoderTraining(str(world), url, out, batch=8, windows=2, decoder=DECODER)),
    }
    return {name: lambda kind=kind, config=config: kind(config, CPU) for name, (kind, config) in made.items()}


def tensors(batch) -> list[torch.Tensor]:
    """All that a batch holds."""
    if isinstance(batch, torch.Tensor):
        return [batch]
    return [one for part in batch for one in tensors(part)] if isinstance(batch, tuple) else []


@pytest.mark.parametrize(
    ("name", "kind"),
    [("tokenizer", "url"), ("dynamics", "url"), ("state", "url"), ("decoder", "url"),
     ("tokenizer", "robot"), ("state", "robot")],
)  # fmt: skip
def test_a_batch_in_the_middle_of_an_epoch_is_what_it_was(name, kind, world, tmp_path, request):
    make = stages(request.getfixturevalue(kind), world, tmp_path / "out")[name]
    walked, resumed = make(), make()
    batches = [tensors(walked.draw(step, 0, 1)) for step in range(7)]
    for step in (6, 4):
        found = tensors(resumed.draw(step, 0, 1))
        assert len(found) == len(batches[step]) > 1
        assert all(torch.equal(one, other) for one, other in zip(found, batches[step], strict=True))
    assert not all(torch.equal(one, other) for one, other in zip(*batches[5:], strict=True))


@pytest.mark.parametrize("name", ["tokenizer", "dynamics", "state", "decoder"])
def test_its_batches_are_cut_from_training_episodes(name, url, world, tmp_path):
    stage = stages(url, world, tmp_path / "out")[name]()
    train = set(stage.data.split("train").tolist())
    said = stage.source(5)
    numbers = {int(one) for one in said.removeprefix("episodes ").partition(" of ")[0].split(", ")}
    assert numbers <= train and url in said


@pytest.mark.parametrize("name", ["tokenizer", "dynamics", "state", "decoder"])
def test_a_lerobot_data_set_gives_the_batches_of_its_copy_in_shards(name, robot, copy, world, tmp_path, monkeypatch):
    monkeypatch.setattr(streams_module, "WINDOW", 5.5 * np.mean([file["bytes"] for file in Shards(copy).files]))
    made = [stages(url, world, tmp_path / "out")[name]() for url in (robot, copy)]
    assert all(stage.data.stream.window == 5 for stage in made)
    for step in (0, 3):
        ours, theirs = (tensors(stage.draw(step, 0, 1)) for stage in made)
        assert len(ours) > 1 and all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_processes_share_a_batch(url, world, tmp_path):
    stage = stages(url, world, tmp_path / "out")["tokenizer"]()
    frames, contexts = stage.draw(5, 0, 1)
    for rank in range(2):
        mine = stage.draw(5, rank, 2)
        assert torch.equal(mine[0], frames[rank::2]) and torch.equal(mine[1], contexts[rank::2])


def test_an_epoch_shows_every_training_episode(url, world, tmp_path):
    stage = stages(url, world, tmp_path / "out")["tokenizer"]()
    train, starts = stage.data.split("train"), stage.data.starts
    draws = -(-np.diff(starts)[train] // DRAWN)
    rows = np.concatenate([stage._rows(step)[0] for step in range(-(-int(draws.sum()) // 8))])[: draws.sum()]
    found = np.bincount(stage.data.episodes_of(rows), minlength=len(starts) - 1)
    assert np.array_equal(found[train], draws) and found.sum() == draws.sum()


def test_the_recurrent_state_is_shown_the_components_of_its_frames(url, world, tmp_path):
    stage = stages(url, world, tmp_path / "out")["state"]()
    (stretches,), (_, _, rows) = stage.draw(3, 0, 1), stage._rows(3)
    first = stage.model.project(torch.from_numpy(stage.data.frames[rows]))
    assert torch.allclose(stretches.components[:, 0], first, rtol=1e-3, atol=1e-3 * first.std().item())


def test_components_are_the_same_where_memory_does_not_hold_them(url, world, tmp_path, monkeypatch):
    """Those of a window of very small shards may take more memory than the shards themselves."""
    make = stages(url, world, tmp_path / "out")["state"]
    held = make()
    monkeypatch.setattr(recurrent_state_module, "WINDOW", 0)
    each_batch = make()
    assert held.recorded.components is not None and each_batch.recorded.components is None
    (ours,), (theirs,) = held.draw(3, 0, 1), each_batch.draw(3, 0, 1)
    assert torch.allclose(ours.components, theirs.components, rtol=1e-3, atol=1e-3 * ours.components.std().item())
    for one, other in zip(tensors(ours._replace(components=theirs.components)), tensors(theirs), strict=True):
        assert torch.equal(one, other)


def test_an_epoch_projects_a_frame_once_in_a_window(url, world, tmp_path, monkeypatch):
    stage = stages(url, world, tmp_path / "out")["state"]()
    projected, project = [], Source._project
    monkeypatch.setattr(Source, "_project", lambda self, frames: projected.append(len(frames)) or project(self, frames))
    stage.recorded.components.stream._makers["components"] = stage.recorded._project
    train = stage.data.split("train")
    draws = int((-(-stage.data.stream.lengths[train] // DRAWN)).sum())
    for step in range(draws // 8):
        stage.draw(step, 0, 1)
    window = stage.data.stream.window * max(np.diff(stage.data.stream.firsts))
    assert sum(projected) <= stage.data.stream.lengths[train].sum() + 2 * window


@pytest.mark.parametrize("kind", ["url", "robot"])
def test_a_killed_training_continues_as_it_would_have(kind, request, tmp_path, monkeypatch):
    whole = TokenizerTraining(
        request.getfixturevalue(kind),
        tmp_path / "whole",
        steps=6,
        batch=8,
        evaluate_every=3,
        device="cpu",
        tokenizer=TOKENIZER,
    )
    killed = replace(whole, out=tmp_path / "killed")
    killed_at(monkeypatch, train_tokenizer, killed, when=4)
    expected, found = (load_file(train_tokenizer(one) / "model.safetensors") for one in (whole, killed))
    assert all(torch.equal(weight, found[name]) for name, weight in expected.items())
