"""The training loop, on models of a few weights: a batch has one loss in any number of processes, a run that ended
early continues as it would have, and what would spoil a checkpoint is refused."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from diffusers import WanTransformer3DModel
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from worldgym.config import Schedule, SwinConfig
from worldgym.decoders.swin import window_loss
from worldgym.decoders.wan import Condition, ConditionedWan
from worldgym.train import log as log_module
from worldgym.train.checkpoints import load_state, save_state
from worldgym.train.loop import run, train

SWIN = SwinConfig(frames=1, schedule=Schedule(4, 5.0))


@dataclass(frozen=True)
class Settings:
    out: Path
    steps: int = 4
    batch: int = 4
    learning_rate: float = 1e-2
    evaluate_every: int = 2
    seed: int = 0
    device: str = "cpu"
    processes: int = 1
    model: str = "line"


class Line(nn.Module):
    def __init__(self):
        super().__init__()
        self.line = nn.Linear(3, 1)

    def forward(self, x, y):
        return {"loss": (self.line(x) - y).square().mean()}


def draw_line(step: int) -> tuple[torch.Tensor, ...]:
    chance = torch.Generator().manual_seed(step)
    return torch.randn(4, 3, generator=chance), torch.randn(4, 1, generator=chance)


class Windows(nn.Module):
    """The real loss of a diffusion decoder."""

    def __init__(self):
        super().__init__()
        wan = WanTransformer3DModel(
            patch_size=(1, 2, 2), num_attention_heads=1, attention_head_dim=12, in_channels=4, out_channels=4,
            text_dim=8, freq_dim=16, ffn_dim=16, num_layers=1, rope_max_seq_len=32,
        )  # fmt: skip
        self.decoder = ConditionedWan(wan, 6)

    def forward(self, latents, text, state, noise, chances):
        said, silent = Condition(text, state), Condition(torch.zeros_like(text), torch.zeros_like(state))
        return {"loss": window_loss(self.decoder, SWIN, latents, said, silent, noise, chances).mean()}


def draw_windows(step: int) -> tuple[torch.Tensor, ...]:
    chance = torch.Generator().manual_seed(step)
    shapes = (4, 4, 3, 4, 4), (4, 2, 5, 8), (4, 2, 3, 6), (4, 4, 3, 4, 4), (4, 3)
    parts = [torch.randn(shape, generator=chance) for shape in shapes]
    return (*parts[:4], parts[4].sigmoid())


MODELS: dict[str, tuple[type[nn.Module], Callable[[int], tuple[torch.Tensor, ...]]]] = {
    "line": (Line, draw_line),
    "windows": (Windows, draw_windows),
}


class Toy:
    """A stage of a few weights.

    Args:
        before: called with the number of each step before its batch is drawn.
    """

    name, clip, warm_up, frames = "toy", 1.0, 1, 1

    def __init__(self, config: Settings, before: Callable[[int], None] = lambda step: None, parts: int = 1):
        self.config, self.before, self.parts, self.logs = config, before, parts, config.out / "tensorboard"
        torch.manual_seed(0)
        model, self.batch = MODELS[config.model]
        self.model, self.evaluated = model(), []
        self.optimizer = torch.optim.AdamW(self.model.parameters(), config.learning_rate)

    def draw(self, step, rank, processes):
        self.before(step)
        return tuple(part[rank::processes] for part in self.batch(step))

    def source(self, step):
        return f"number {step}"

    def evaluate(self, step, log, writer):
        self.evaluated.append(step)

    def save(self, accelerator, step):
        save_state(accelerator, self.config, step)

    def load(self, accelerator):
        return load_state(accelerator, self.config)


def fit(config: Settings, before: Callable[[int], None] = lambda step: None, parts: int = 1, precision="no") -> Toy:
    stage = Toy(config, before, parts)
    with run(config, precision, whole=False) as accelerator:
        train(stage, config, accelerator)
    return stage


def weights(stage: Toy) -> list[torch.Tensor]:
    return [weight.detach() for weight in stage.model.parameters()]


def same(one: Toy, other: Toy) -> bool:
    return all(torch.equal(*pair) for pair in zip(weights(one), weights(other), strict=True))


def losses(out: Path) -> list[float]:
    accumulator = EventAccumulator(str(out / "tensorboard"))
    accumulator.Reload()
    return [event.value for event in accumulator.Scalars("loss/loss")]


@pytest.fixture
def every_step(monkeypatch):
    """Each step's losses are written down."""
    monkeypatch.setattr(log_module, "EVERY", 1)


# -- several processes -------------------------------------------------------------------------------------------------


def fit_and_write(config: Settings) -> None:
    log_module.EVERY = 1
    stage = fit(config)
    (config.out / f"weights{os.environ.get('RANK', '')}.json").write_text(
        json.dumps([float(weight.double().abs().sum()) for weight in weights(stage)]), encoding="utf-8"
    )


TWO = """
import os, sys, time
from dataclasses import dataclass
from pathlib import Path
from worldgym.train.launch import launch
{lines}
if __name__ == "__main__":
    launch({call})
"""


def script(folder: Path, lines: str, call: str) -> subprocess.Popen:
    """What calls a function in two processes."""
    (folder / "two.py").write_text(TWO.format(lines=lines, call=call), encoding="utf-8")
    return subprocess.Popen([sys.executable, "two.py"], cwd=folder, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("model", [pytest.param("line", marks=pytest.mark.slow), "windows"])
def test_two_processes_have_the_loss_of_one(tmp_path, every_step, model):
    one, two = tmp_path / "one", tmp_path / "two"
    two.mkdir()
    here = f"sys.path.insert(0, {str(Path(__file__).parent)!r})\nfrom test_loop import Settings, fit_and_write"
    run = script(two, here, f"fit_and_write, Settings(Path.cwd(), steps=3, processes=2, model={model!r})")
    fit_and_write(Settings(one, steps=3, model=model))
    said = run.communicate()[1]
    assert run.returncode == 0, said
    alone, together = losses(one), losses(two)
    assert alone == pytest.approx(together, rel=1e-4)
    assert len(alone) == 3 and alone[2] != pytest.approx(alone[0], rel=1e-4)
    found = [json.loads((two / f"weights{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1)]
    assert found[0] == found[1]
    expected = json.loads((one / "weights.json").read_text(encoding="utf-8"))
    assert found[0] == pytest.approx(expected, rel=1e-3, abs=1e-3)


STOPPING = """
import os, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_loop import Settings, fit

def stop(step):
    if step == 4:
        os._exit(1)

fit(Settings(Path(sys.argv[1]), steps=6), stop)
"""


def test_a_run_continues_in_another_number_of_processes(tmp_path):
    """One process, then two of torchrun's, then one again, as one alone would have gone."""

    def killed(step: int) -> None:
        if step == 2:
            raise KeyboardInterrupt

    whole = fit(Settings(tmp_path / "whole", steps=6))
    turns = Settings(tmp_path / "turns", steps=6)
    with pytest.raises(KeyboardInterrupt):
        fit(turns, killed)
    (tmp_path / "stopping.py").write_text(STOPPING.format(tests=str(Path(__file__).parent)), encoding="utf-8")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command = [*torchrun, "--local-addr", "localhost", tmp_path / "stopping.py", turns.out]
    two = subprocess.run(command, capture_output=True, text=True)
    assert two.returncode and json.loads((turns.out / "state" / "run.json").read_text(encoding="utf-8"))["step"] == 4, (
        two.stderr
    )
    seen: list[int] = []
    last = fit(turns, seen.append)
    assert seen == [4, 5]
    for one, other in zip(weights(whole), weights(last), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


QUICK = """
@dataclass(frozen=True)
class Settings:
    processes: int = 2
    device: str = "cpu"

def sleep(config):
    Path(os.environ["RANK"] + ".pid").write_text(str(os.getpid()))
    time.sleep(600)

def fail(config):
    if os.environ["RANK"] == "1":
        raise LookupError("nothing there")
    time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")
@pytest.mark.parametrize("killed", ["parent", "1"])
def test_processes_end_together(tmp_path, killed):
    """With their parent, else they would write into the folder of the run that resumes; and with one another."""
    run = script(tmp_path, QUICK, "sleep, Settings()")
    places = [tmp_path / f"{rank}.pid" for rank in range(2)]
    assert soon(lambda: all(place.exists() and place.read_text(encoding="utf-8") for place in places))
    pids = [int(place.read_text(encoding="utf-8")) for place in places]
    os.kill(run.pid if killed == "parent" else pids[int(killed)], signal.SIGKILL)
    said = run.communicate(timeout=300)[1]
    assert soon(lambda: not any(alive(pid) for pid in pids))
    if killed != "parent":
        assert f"RuntimeError: process 1 of 2 ended: Signal 9 (SIGKILL) received by PID {pids[1]}" in said


def test_what_ended_a_process_is_told(tmp_path):
    said = script(tmp_path, QUICK, "fail, Settings()").communicate(timeout=300)[1]
    assert "RuntimeError: process 1 of 2 ended: LookupError: nothing there\nTraceback" in said
    assert 'in fail\n    raise LookupError("nothing there")' in said


def soon(happens: Callable[[], bool]) -> bool:
    """Whether it happens within five minutes, on a machine as busy as may be."""
    end = time.monotonic() + 300
    while not happens() and time.monotonic() < end:
        time.sleep(0.1)
    return happens()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").split(")")[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_batch_that_processes_cannot_share_is_refused(tmp_path):
    with pytest.raises(ValueError, match="batch of 4 can't be shared by 3"):
        fit(Settings(tmp_path / "run"), parts=3)


def test_a_batch_in_parts_is_the_same_batch(tmp_path):
    whole, parts = fit(Settings(tmp_path / "whole")), fit(Settings(tmp_path / "parts"), parts=2)
    for one, other in zip(weights(whole), weights(parts), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


# -- ending early and continuing --------------------------------------------------------------------------------------


def test_a_killed_run_continues_as_it_would_have(tmp_path):
    def kill(step: int) -> None:
        if step == 3:
            raise KeyboardInterrupt

    whole, killed = fit(Settings(tmp_path / "whole")), Settings(tmp_path / "killed")
    with pytest.raises(KeyboardInterrupt):
        fit(killed, kill)
    seen: list[int] = []
    assert same(whole, fit(killed, seen.append))
    assert seen == [2, 3]


def test_ctrl_c_saves_and_says_how_to_continue(tmp_path):
    def interrupt(step: int) -> None:
        if step == 2:
            signal.raise_signal(signal.SIGINT)

    whole, interrupted = fit(Settings(tmp_path / "whole")), Settings(tmp_path / "interrupted")
    with pytest.raises(KeyboardInterrupt, match="saved at step 3; the same command"):
        fit(interrupted, interrupt)
    seen: list[int] = []
    assert same(whole, fit(interrupted, seen.append))
    assert seen == [3]


def test_a_run_that_is_done_is_left_as_it_is(tmp_path):
    config = Settings(tmp_path / "run")
    whole = fit(config)
    assert whole.evaluated == [1, 3]
    again = fit(config, lambda step: pytest.fail("trained again"))
    assert same(whole, again) and not again.evaluated


@pytest.mark.parametrize("changed", [{"learning_rate": 1e-3}, {"batch": 2}, {"steps": 8}, {"seed": 1}])
def test_a_run_does_not_continue_as_another(tmp_path, changed):
    """Neither one that ended early nor one that is done."""
    config = Settings(tmp_path / "run")
    fit(config)
    ((name, value),) = changed.items()
    with pytest.raises(ValueError, match=f"{name} was {getattr(config, name)} and is {value}; choose another --out"):
        fit(replace(config, **changed))
    fit(replace(config, evaluate_every=1))


def test_a_second_run_into_a_folder_is_refused(tmp_path):
    """As long as the first one runs; what a killed one leaves does not lock anybody out."""
    config = Settings(tmp_path / "run")

    def again(step: int) -> None:
        if step == 1:
            with pytest.raises(ValueError, match=r"another process is training into .*run; wait"):
                fit(config)
            fit(replace(config, out=tmp_path / "other"))

    fit(config, again)
    fit(config)


# -- compiled ----------------------------------------------------------------------------------------------------------


def test_a_compiled_run_is_the_one_that_is_not_which_continues_it(tmp_path, monkeypatch, every_step, capsys):
    plain = Settings(tmp_path / "plain")
    expected = fit(plain)
    assert "compiled by" not in capsys.readouterr().out

    def stop(step: int) -> None:
        if step == 2:
            raise KeyboardInterrupt

    compiled = Settings(tmp_path / "compiled")
    torch._dynamo.utils.counters.clear()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setenv("ACCELERATE_DYNAMO_BACKEND", "AOT_EAGER")
        fit(compiled, stop)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert "compiled by aot_eager" in capsys.readouterr().out
    found = fit(compiled)
    assert losses(plain.out) == pytest.approx(losses(compiled.out), rel=1e-4)
    for one, other in zip(weights(expected), weights(found), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


# -- what is not finite -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_the_first_step_that_is_not_finite_ends_a_run(tmp_path, what):
    """Its batch is named, and the checkpoint before it is the one of a run that was killed there."""
    config = Settings(tmp_path / "run", steps=6)
    stage = Toy(config)

    def spoil(step: int) -> tuple[torch.Tensor, ...]:
        x, y = draw_line(step)
        if step == 3:
            x[2] = math.inf if what == "loss" else x[2]
            stage.model.line.weight.register_hook(lambda g: g * math.nan)
        return x, y

    stage.batch = spoil
    with (
        pytest.raises(ValueError, match=r"step 4 is not finite: loss .*Its batch is of number 3"),
        run(config, "no", whole=False) as accelerator,
    ):
        train(stage, config, accelerator)
    before = weights(stage)
    assert all(weight.isfinite().all() for weight in before)
    seen: list[int] = []
    assert same(fit(config, seen.append), fit(Settings(tmp_path / "sound", steps=6)))
    assert seen[0] == 2


def test_bfloat16_trains_float32_weights(tmp_path, every_step):
    stage = fit(Settings(tmp_path / "run", steps=40), precision="bf16")
    assert all(weight.dtype == torch.float32 for weight in weights(stage))
    assert torch.tensor(losses(tmp_path / "run")).isfinite().all()
