"""The diffusion decoder of a world is trained on a recording of a few seconds, at toy size."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from worldgym.config import DecoderConfig, Schedule, SwinConfig
from worldgym.decoders.diffusion import DiffusionDecoder
from worldgym.train import loop as loop_module
from worldgym.train.decoder import DecoderStage, train_decoder
from worldgym.train.loop import schedule
from worldgym.train.settings import DecoderTraining
from worldgym.world import WorldModel

TINY = DecoderConfig(
    layers=1, heads=2, head_width=12, mlp_width=32,
    swin=SwinConfig(frames=1, schedule=Schedule(2, 1.0), guidance=1.0, drop=0.0),
)  # fmt: skip


@pytest.fixture
def config(checkpoint, dataset, tmp_path) -> DecoderTraining:
    return DecoderTraining(
        str(checkpoint), dataset, tmp_path / "decoder", steps=4, batch=4, windows=2, evaluate_every=2, device="cpu",
        decoder=TINY,
    )  # fmt: skip


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "diffusion_pytorch_model.safetensors")


def test_it_is_trained_and_leaves_the_world_as_it_was(config, checkpoint, capsys):
    before = (checkpoint / "model.safetensors").read_bytes()
    out = train_decoder(config)
    assert out == config.out / "decoder" and "PSNR of 16 held-out dreams" in capsys.readouterr().out
    decoder = DiffusionDecoder.load(out, WorldModel.load(str(checkpoint), "cpu").tokenizer)
    assert decoder.config == TINY
    assert decoder.refiner.wan.wan.proj_out.weight.abs().sum() > 0  # its last layer begins at zero
    assert (checkpoint / "model.safetensors").read_bytes() == before


def test_a_killed_training_continues_as_it_would_have(config, tmp_path, monkeypatch):
    def stop(step, steps, warm_up):
        if step == 3:
            raise KeyboardInterrupt
        return schedule(step, steps, warm_up)

    killed = replace(config, out=tmp_path / "killed")
    with monkeypatch.context() as patch:
        patch.setattr(loop_module, "schedule", stop)
        with pytest.raises(KeyboardInterrupt):
            train_decoder(killed)
    whole, resumed = weights(train_decoder(config)), weights(train_decoder(killed))
    with monkeypatch.context() as patch:  # what is done reads no recording
        patch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
        assert train_decoder(config) == config.out / "decoder"
    assert all(torch.equal(part, resumed[name]) for name, part in whole.items())


def test_processes_have_their_windows_of_one_batch(config):
    stage = DecoderStage(config, torch.device("cpu"))
    whole, *parts = stage.draw(1, 0, 1), stage.draw(1, 0, 2), stage.draw(1, 1, 2)
    for index, part in enumerate(whole):
        torch.testing.assert_close(torch.cat([shared[index] for shared in parts]), part)
    with pytest.raises(ValueError, match="windows of 2 segments can't be shared by 4"):
        stage.draw(1, 0, 4)
    assert stage.source(1).startswith("episodes ") and config.dataset in stage.source(1)


def test_windows_that_fill_no_batch_are_refused(config):
    with pytest.raises(ValueError, match="no multiple of 3"):
        replace(config, windows=3)
