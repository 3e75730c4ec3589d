"""One training loop for every stage, on Hugging Face Accelerate: a CPU, a GPU, DDP, FSDP2 and HSDP.

    for step in range(first, steps):
        loss = model(batch)          batch number i follows from (seed, i); each process has its rows of it
        descend along the gradient's mean over the processes, clipped
        now and then: evaluate, save

The same batch has the same loss in one process and in several, up to rounding. A run that was killed or interrupted
continues, in as many processes as it likes, as it would have.
"""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, DistributedType, DynamoBackend, TorchDynamoPlugin
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from ..errors import UserError
from ..model.device import pick_device
from .checkpoints import only_run
from .interrupt import between_steps
from .log import Log
from .memory import keep_freed_memory
from .settings import Training


@runtime_checkable
class Stage(Protocol):
    """What is trained, on what. The loop does the rest."""

    name: str
    """Of the progress bar."""
    logs: Path
    """TensorBoard's folder."""
    frames: int
    """That all rows of a batch show."""
    clip: float
    """Norm that gradients are clipped to."""
    warm_up: int
    """Steps."""
    parts: int
    """In which a process computes its rows one after another."""

    @property
    def model(self) -> nn.Module:
        """Called with a batch it gives "loss", the mean over the rows, and by name whatever else is to be logged."""

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Of the model's weights that are trained; the loop sets its learning rate."""

    def draw(self, step: int, rank: int, processes: int) -> tuple[Any, ...]:
        """Arguments of the model: rows `rank`, `rank + processes`, ... of batch number `step`."""

    def source(self, step: int) -> str:
        """Where batch number `step` comes from, in words."""

    def evaluate(self, step: int, log: Log, writer: SummaryWriter) -> None:
        """Say how good the model is. Only the main process is asked."""

    def save(self, accelerator: Accelerator, step: int) -> None:
        """Replace the checkpoint. All processes are asked."""

    def load(self, accelerator: Accelerator) -> int:
        """Continue from the checkpoint if there is one; returns the step."""


@contextmanager
def run(config: Training, precision: Literal["no", "bf16"] = "bf16", whole: bool = True) -> Iterator[Accelerator]:
    """Accelerate, as its launcher configured it, for the one training that may write into `config.out`.

    Args:
        whole: every process holds the whole model.
    """
    keep_freed_memory()
    device = pick_device(config.device)
    if device.index is not None:
        torch.cuda.set_device(device)
    # One flat sum of all gradients, in place. In a dimension of size 1 the stride has no meaning.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    ddp = DistributedDataParallelKwargs(gradient_as_bucket_view=True, bucket_cap_mb=1000)
    if AcceleratorState._shared_state.get("_mixed_precision", precision) != precision:  # a stage before in this process
        AcceleratorState._reset_state()
    accelerator = Accelerator(
        mixed_precision=precision, cpu=device.type == "cpu", kwargs_handlers=[ddp], dynamo_backend="no"
    )
    if whole and accelerator.distributed_type == DistributedType.FSDP:
        raise UserError("this stage's model is never in shards; launch it with docs/accelerate/ddp.yaml")
    with only_run(accelerator, config.out):
        yield accelerator


def train(stage: Stage, config: Training, accelerator: Accelerator) -> nn.Module:
    """Train until `config.steps`, from the last checkpoint if there is one; returns the model as Accelerate wraps it.

    When any process is sent a Ctrl-C, all of them finish their step, save, and end.

    Raises:
        UserError: a loss or a gradient is not finite. The last checkpoint stays as it is.
    """
    rank, shares = accelerator.process_index, accelerator.num_processes * stage.parts
    if config.batch % shares:
        raise UserError(f"a batch of {config.batch} can't be shared by {shares} processes or parts")
    compiler = TorchDynamoPlugin()  # `accelerate launch --dynamo_backend`, or ACCELERATE_DYNAMO_BACKEND
    if compiler.backend != DynamoBackend.NO:
        # In place. Accelerate would wrap the model, and its weights would have other names in checkpoints.
        stage.model.compile(**compiler.to_kwargs())
    model, optimizer = accelerator.prepare(stage.model, stage.optimizer)
    first = stage.load(accelerator)
    accelerator.print(_described(stage, config, accelerator, first, compiler.backend))
    with (
        Log(stage.logs, stage.name, first, config.steps, stage.frames, accelerator.is_main_process) as log,
        between_steps() as interrupted,
    ):
        for step in range(first, config.steps):
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * schedule(step, config.steps, stage.warm_up)
            losses: dict[str, Tensor] = {}
            for part in range(stage.parts):
                with nullcontext() if part + 1 == stage.parts else accelerator.no_sync(model):
                    found = model(*stage.draw(step, rank + part * accelerator.num_processes, shares))
                    accelerator.backward(found["loss"] / stage.parts)
                losses = {name: losses.get(name, 0) + value.detach() / stage.parts for name, value in found.items()}
            norm = accelerator.clip_grad_norm_(model.parameters(), stage.clip)
            stop, told = _agree(accelerator, interrupted(), losses)
            told["gradient_norm"] = float(norm)
            if not math.isfinite(told["loss"] + told["gradient_norm"]):
                raise UserError(
                    f"step {step + 1} is not finite: {', '.join(f'{name} {value:g}' for name, value in told.items())}. "
                    f"Its batch is of {stage.source(step)}: look at them, or choose a lower --learning-rate. The last "
                    "checkpoint is unchanged"
                )
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            log.step(step, told)
            due = (step + 1) % config.evaluate_every == 0 or step + 1 == config.steps
            if due and log.writer is not None:
                stage.evaluate(step, log, log.writer)
            if due or stop:
                stage.save(accelerator, step + 1)
                accelerator.wait_for_everyone()
            if stop:
                raise KeyboardInterrupt(f"saved at step {step + 1}; the same command continues from there")
    return model


def _agree(accelerator: Accelerator, interrupted: bool, losses: dict[str, Tensor]) -> tuple[bool, dict[str, float]]:
    """Whether any process was interrupted, in which case all stop, and the means of the losses over all processes."""
    told = torch.stack([value.float() for value in losses.values()])
    stop, *means = accelerator.reduce(torch.cat([told.new_tensor([interrupted]), told]), "mean").tolist()
    return stop > 0, dict(zip(losses, means, strict=True))


def _described(stage: Stage, config: Training, accelerator: Accelerator, first: int, compiler: DynamoBackend) -> str:
    """What is about to happen, in a line."""
    millions = sum(parameter.numel() for parameter in stage.model.parameters() if parameter.requires_grad) / 1e6
    processes = accelerator.num_processes
    shared = "one process" if processes == 1 else f"{processes} processes"
    rows = f"{config.batch // (processes * stage.parts)} rows at a time in {shared}"
    begin = f"resuming {config.out} at step {first}" if first else f"training {config.out}"
    where = f"{accelerator.mixed_precision} on {accelerator.device.type}"
    compiled = "" if compiler == DynamoBackend.NO else f", compiled by {compiler.value.lower()}"
    return f"{begin}: {millions:.2f} M weights, a batch of {config.batch}, {rows}, {where}{compiled}"


def schedule(step: int, steps: int, warm_up: int = 200) -> float:
    """Share of the peak learning rate: linear warm-up, then cosine to a twentieth."""
    warm = min(1.0, (step + 1) / warm_up)
    return warm * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def named(dataset: str, episodes: np.ndarray) -> str:
    """Some episodes of a data set, in words."""
    numbers = ", ".join(map(str, np.unique(episodes).tolist()))
    return f"episodes {numbers} of {dataset}"
