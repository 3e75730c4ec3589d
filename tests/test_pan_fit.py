"""The training loop on Accelerate: two processes are one, and a killed run goes on as it would have."""

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import WanTransformer3DModel
from torch import nn

from worldgym.decoders.flow import Schedule
from worldgym.decoders.swin import SwinConfig, window_loss
from worldgym.decoders.wan import Condition, ConditionedWan
from worldgym.pan.fit import Fit, fit, make_accelerator

CONFIG = Fit(steps=4, batch=4, learning_rate=1e-2, clip=1.0, precision="no", checkpoint_every=2, cpu=True)

SWIN = SwinConfig(frames=1, schedule=Schedule(4, 5.0))


class TinyLoss(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        wan = WanTransformer3DModel(
            patch_size=(1, 2, 2), num_attention_heads=1, attention_head_dim=12, in_channels=4, out_channels=4,
            text_dim=8, freq_dim=16, ffn_dim=16, num_layers=1, rope_max_seq_len=32,
        )  # fmt: skip
        self.decoder = ConditionedWan(wan, 6)

    def forward(self, latents, text, state, noise, chances):
        said, silent = Condition(text, state), Condition(torch.zeros_like(text), torch.zeros_like(state))
        return window_loss(self.decoder, SWIN, latents, said, silent, noise, chances)


def draw_windows(step: int, rank: int, processes: int):
    chance = torch.Generator().manual_seed(step)
    shapes = (4, 4, 3, 4, 4), (4, 2, 5, 8), (4, 2, 3, 6), (4, 4, 3, 4, 4), (4, 3)
    parts = [torch.randn(shape, generator=chance) for shape in shapes]
    return tuple(part[rank::processes] for part in (*parts[:4], parts[4].sigmoid()))


def train_decoder(out: str) -> None:
    """Three steps of the real decoder; the main process writes down what became of it."""
    accelerator, losses = make_accelerator(CONFIG), []
    config = replace(CONFIG, steps=3)
    weights = fit(accelerator, TinyLoss(), draw_windows, config, Path(out), {}, lambda step, loss: losses.append(loss))
    if accelerator.is_main_process:
        total = {name: float(part.double().abs().sum()) for name, part in weights.items()}
        found = {"losses": losses, "processes": accelerator.num_processes, "weights": total}
        (Path(out) / "found.json").write_text(json.dumps(found), encoding="utf-8")


def test_two_processes_have_the_loss_of_one(tmp_path):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    run = f"import runpy; runpy.run_path({__file__!r})['train_decoder']({str(tmp_path / 'two')!r})"
    meeting = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    children = [
        subprocess.Popen(
            [sys.executable, "-c", run],
            env={**os.environ, **meeting, "RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": "1"},
        )
        for rank in ("0", "1")
    ]
    assert [child.wait() for child in children] == [0, 0]
    train_decoder(str(tmp_path / "one"))
    one, two = (json.loads((tmp_path / name / "found.json").read_text(encoding="utf-8")) for name in ("one", "two"))
    assert (one["processes"], two["processes"]) == (1, 2)
    assert one["losses"] == pytest.approx(two["losses"], rel=1e-4)
    assert one["losses"][2] != pytest.approx(one["losses"][0], rel=1e-4)
    assert one["weights"] == pytest.approx(two["weights"], rel=1e-3, abs=1e-3)


class Line(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.line = nn.Linear(3, 1)

    def forward(self, x, y):
        return (self.line(x) - y).square().mean(1)


def draw(step: int, rank: int, processes: int):
    chance = torch.Generator().manual_seed(step)
    return torch.randn(4, 3, generator=chance)[rank::processes], torch.randn(4, 1, generator=chance)[rank::processes]


def train(config: Fit, out: Path, watch=None) -> dict:
    return fit(make_accelerator(config), Line(), draw, config, out, {"model": "line"}, watch)


def test_a_killed_run_goes_on_as_it_would_have(tmp_path):
    whole = train(CONFIG, tmp_path / "whole")

    def kill(step: int, loss: float) -> None:
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(CONFIG, tmp_path / "killed", kill)
    seen = []
    resumed = train(CONFIG, tmp_path / "killed", lambda step, loss: seen.append(step))
    assert seen == [2, 3]
    assert all(torch.equal(part, resumed[name]) for name, part in whole.items())


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path):
    whole = train(CONFIG, tmp_path / "whole")

    def interrupt(step: int, loss: float) -> None:
        if step == 1:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="saved at step 3; the same command"):
        train(CONFIG, tmp_path / "interrupted", interrupt)
    seen = []
    resumed = train(CONFIG, tmp_path / "interrupted", lambda step, loss: seen.append(step))
    assert seen == [3]
    assert all(torch.equal(part, resumed[name]) for name, part in whole.items())


def test_a_run_that_is_done_is_left_as_it_is(tmp_path):
    whole = train(CONFIG, tmp_path)
    again = train(CONFIG, tmp_path, lambda step, loss: pytest.fail("trained again"))
    assert all(torch.equal(part, again[name]) for name, part in whole.items())


def test_another_runs_folder_is_refused(tmp_path):
    train(CONFIG, tmp_path)
    with pytest.raises(ValueError, match="fit differ"):
        train(replace(CONFIG, learning_rate=1e-3), tmp_path)


def test_bfloat16_trains_float32_weights(tmp_path):
    losses = []
    weights = train(replace(CONFIG, precision="bf16", steps=40), tmp_path, lambda step, loss: losses.append(loss))
    assert all(part.dtype == torch.float32 for part in weights.values())
    assert torch.tensor(losses).isfinite().all()


def test_a_batch_that_processes_cannot_share_is_refused(tmp_path, monkeypatch):
    accelerator = make_accelerator(CONFIG)
    monkeypatch.setattr(type(accelerator), "num_processes", 3)
    with pytest.raises(ValueError, match="can't be shared by 3"):
        fit(accelerator, Line(), draw, CONFIG, tmp_path, {})
