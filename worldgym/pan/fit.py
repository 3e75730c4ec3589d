"""One training loop on Hugging Face Accelerate: a CPU, one GPU, DDP, FSDP2 and HSDP, as `accelerate launch` says.

Batch number i, its noise and its chances follow from (seed, i) and are those of all processes together, of which each
takes its rows: two processes compute the loss of one.
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from ..interrupt import between_steps
from ..train.tokenizer import schedule


@dataclass(frozen=True)
class Fit:
    """How to optimise. The defaults are PAN's."""

    steps: int = 10_000
    batch: int = 8
    """Rows a step, over all processes together."""
    learning_rate: float = 1e-5
    """Peak; warm-up, then cosine to a twentieth."""
    warm_up: float = 0.05
    """Share of the steps."""
    clip: float = 0.05
    """Norm that gradients are clipped to."""
    precision: Literal["no", "bf16"] = "bf16"
    seed: int = 0
    checkpoint_every: int = 500
    """Steps between checkpoints, from which a killed run goes on."""
    cpu: bool = False
    """Train on the CPU although there is a GPU."""


Draw = Callable[[int, int, int], tuple]
"""(step, rank, processes) -> the arguments of the model, this process's rows."""


def make_accelerator(config: Fit) -> Accelerator:
    """As `accelerate launch` configured it."""
    return Accelerator(mixed_precision=config.precision, cpu=config.cpu)


def fit(
    accelerator: Accelerator,
    model: nn.Module,
    draw: Draw,
    config: Fit,
    out: Path,
    described: dict[str, Any],
    watch: Callable[[int, float], None] | None = None,
) -> dict[str, Tensor]:
    """Train until `config.steps`, from the last checkpoint if there is one; returns all weights, whole.

    A Ctrl-C that any process is sent has all of them save after the step that they are in, and end.

    Args:
        model: its `forward` gives the loss of each row, [rows].
        out: folder of the run; checkpoints go to `out/state`.
        described: what a run must share with the checkpoint it goes on from.
        watch: called with every step's mean loss, on the main process.
    """
    if config.batch % accelerator.num_processes:
        raise ValueError(f"a batch of {config.batch} can't be shared by {accelerator.num_processes} processes")
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, config.learning_rate, betas=(0.9, 0.95), weight_decay=0.01)
    model, optimizer = accelerator.prepare(model, optimizer)
    identity = json.loads(json.dumps({**described, "fit": {**asdict(config), "checkpoint_every": 0, "cpu": False}}))
    first = _resume(accelerator, out / "state", identity)
    warm_up = max(1, round(config.warm_up * config.steps))
    writer = SummaryWriter(out / "tensorboard", purge_step=first) if accelerator.is_main_process else None
    model.train()
    progress = tqdm(
        total=config.steps, initial=first, desc=out.name, unit="step", disable=not accelerator.is_main_process
    )
    with between_steps() as interrupted:
        for step in range(first, config.steps):
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * schedule(step, config.steps, warm_up)
            batch = draw(step, accelerator.process_index, accelerator.num_processes)
            loss = model(*batch).mean()
            accelerator.backward(loss)
            norm = accelerator.clip_grad_norm_(model.parameters(), config.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            told = torch.stack([loss.detach().float(), loss.new_tensor(float(interrupted())).float()])
            mean, stop = accelerator.reduce(told, "mean").tolist()  # what one process is told, all have to heed
            progress.update()
            if watch is not None and accelerator.is_main_process:
                watch(step, mean)
            if writer is not None:
                writer.add_scalar("loss", mean, step)
                writer.add_scalar("gradient_norm", float(norm), step)
                progress.set_postfix(loss=f"{mean:.4f}")
            if stop or (step + 1) % config.checkpoint_every == 0 or step + 1 == config.steps:
                _checkpoint(accelerator, out / "state", step + 1, identity)
            if stop:
                raise KeyboardInterrupt(f"saved at step {step + 1}; the same command goes on from there")
    progress.close()
    if writer is not None:
        writer.close()
    return accelerator.get_state_dict(model)


def _checkpoint(accelerator: Accelerator, folder: Path, step: int, identity: dict[str, Any]) -> None:
    """Replace `folder` in one rename. Sharded optimiser states are Accelerate's own files, and so are these."""
    temporary, old = folder.with_name("state.tmp"), folder.with_name("state.old")
    if accelerator.is_main_process:
        shutil.rmtree(temporary, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(temporary))
    if accelerator.is_main_process:
        (temporary / "run.json").write_text(json.dumps({"step": step, **identity}, indent=1), encoding="utf-8")
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            os.rename(folder, old)
        os.rename(temporary, folder)
        shutil.rmtree(old, ignore_errors=True)
    accelerator.wait_for_everyone()


def _resume(accelerator: Accelerator, folder: Path, identity: dict[str, Any]) -> int:
    """The step to go on with."""
    old = folder.with_name("state.old")
    if accelerator.is_main_process and old.exists() and not folder.exists():  # killed between the two renames
        os.rename(old, folder)
    accelerator.wait_for_everyone()
    if not folder.exists():
        return 0
    found = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    step = found.pop("step")
    if found != identity:
        differ = sorted(name for name in {*found, *identity} if found.get(name) != identity.get(name))
        raise ValueError(f"{folder} is of another run: {', '.join(differ)} differ; choose another --out")
    accelerator.load_state(str(folder))
    accelerator.print(f"resuming {folder.parent} at step {step}")
    return step
