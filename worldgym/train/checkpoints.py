"""Checkpoints of a run that has not ended: one run at a time writes them, and only the same run continues from them.

A stage that makes a world keeps its state next to the world's weights, as safetensors. A model that may be in shards,
PAN's or a diffusion decoder, leaves its state to Accelerate.
"""

import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ..checkpoint import load_config, resume, save_checkpoint, training_state
from ..config import WorldConfig
from ..errors import UserError
from ..files import alone, recover, replacing
from ..results import provenance
from .settings import MAY_DIFFER, Training


def training_into(out: Path) -> AbstractContextManager[None]:
    """Within it, another process that wants to train into the same folder is refused. A killed one frees it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    return alone(out.with_name(f".{out.name}.lock"), f"training into {out}")


@contextmanager
def only_run(accelerator: Accelerator, out: Path) -> Iterator[None]:
    """The same for processes that train together: the main one asks, and all are refused."""
    with ExitStack() as held:
        refused: UserError | None = None
        if accelerator.is_main_process:
            try:
                held.enter_context(training_into(out))
            except UserError as error:
                refused = error
        if in_any(accelerator, refused is not None):
            raise refused or UserError(f"another process is training into {out}")
        yield


def in_any(accelerator: Accelerator, happened: bool) -> bool:
    """Whether it happened in any of the processes; all of them have to ask."""
    return bool(accelerator.reduce(torch.tensor(float(happened), device=accelerator.device)) > 0)


def check_settings(folder: Path, found: dict[str, Any], config: Any) -> None:
    """A run continues with the settings that it began with; a UserError names those that differ."""
    was, asked = _flat(found), _flat(json.loads(json.dumps(asdict(config), default=str)))
    differ = [
        f"{name} was {was[name]} and is {asked[name]}"
        for name in sorted(was.keys() & asked.keys())
        if was[name] != asked[name] and name not in MAY_DIFFER
    ]
    if differ:
        raise UserError(f"{folder} holds a training of other settings: {'; '.join(differ)}; choose another --out")


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings within settings by dotted names."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


# -- a world's own folder ------------------------------------------------------------------------------------------


def save_world(
    config: Training,
    world: WorldConfig,
    weights: dict[str, Tensor],
    kind: str,
    optimizer: torch.optim.Optimizer,
    told: dict[str, Any],
    files: dict[str, bytes],
    commit: str,
) -> None:
    """Replace the checkpoint in `config.out`.

    Args:
        kind: "tokenizer" or "world", what the folder can be used as.
        told: its step and how good it is, for `run.json`.
        files: further ones, name -> content.
        commit: of when the training began.
    """
    account = provenance(config.seed, {**told, "training": asdict(config)}, commit)  # type: ignore[call-overload]
    state = training_state(optimizer, told["step"])
    save_checkpoint(config.out, world, weights, kind, files | {"run.json": account.encode()}, state)


def check_world(config: Training, kind: str) -> bool:
    """Whether `config.out` holds a checkpoint; a UserError if it is of another kind or of other settings."""
    recover(config.out)
    if not config.out.exists():
        return False
    if (found := load_config(config.out)[1]) != kind:
        raise UserError(f"{config.out} holds a {found}; the training of a {kind} takes another --out")
    if (account := config.out / "run.json").exists():
        check_settings(
            config.out, json.loads(account.read_text(encoding="utf-8"))["metrics"].get("training", {}), config
        )
    return True


def world_done(config: Training, kind: str) -> bool:
    """Whether the training that `config.out` holds has had all its steps; says so. Reads no recording."""
    if not check_world(config, kind) or not (account := config.out / "run.json").exists():
        return False
    return _done(config, json.loads(account.read_text(encoding="utf-8"))["metrics"].get("step", 0))


def load_world(config: Training, kind: str, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Continue from the checkpoint in `config.out`, if there is one; returns the step."""
    return resume(config.out, model, optimizer) if check_world(config, kind) else 0


# -- Accelerate's ----------------------------------------------------------------------------------------------------


def save_state(accelerator: Accelerator, config: Training, step: int) -> None:
    """Replace the folder `state` of the run. All processes take part: each may hold a shard."""
    folder = config.out / "state"
    whole = replacing(folder) if accelerator.is_main_process else nullcontext(folder.with_name("state.tmp"))
    with whole as temporary:
        accelerator.wait_for_everyone()
        accelerator.save_state(str(temporary))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            told = {"step": step, "training": asdict(config)}  # type: ignore[call-overload]
            (temporary / "run.json").write_text(json.dumps(told, indent=1, default=str), encoding="utf-8")


def state_done(config: Training, made: Path) -> bool:
    """Whether the run has had all its steps, and `made`, what it writes in the end, is there; says so."""
    account = config.out / "state" / "run.json"
    if not account.exists() or not made.exists():
        return False
    found = json.loads(account.read_text(encoding="utf-8"))
    check_settings(config.out, found.get("training", {}), config)
    return _done(config, found["step"])


def _done(config: Training, step: int) -> bool:
    if step < config.steps:
        return False
    if os.environ.get("RANK", "0") == "0":
        print(f"{config.out} has had all its {step} steps: nothing is left to do")
    return True


def load_state(accelerator: Accelerator, config: Training) -> int:
    """Continue from the folder `state` of the run, if there is one; returns the step."""
    folder = config.out / "state"
    if accelerator.is_main_process:
        recover(folder)
    accelerator.wait_for_everyone()
    if not folder.exists():
        return 0
    found = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    check_settings(config.out, found.get("training", {}), config)
    accelerator.load_state(str(folder))
    return found["step"]
