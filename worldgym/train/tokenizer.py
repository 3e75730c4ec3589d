"""Stage one: the tokenizer learns to draw frames, given an earlier frame of the same episode."""

import math
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from ..checkpoint import adopt, load_config, load_tensors, recover, resume, save_checkpoint, training_state
from ..config import DynamicsConfig, WorldConfig
from ..data import Episodes, load_episodes
from ..interrupt import between_steps
from ..listing import find_world
from ..metrics import psnr
from ..model.device import pick_device
from ..model.pixels import to_float, to_uint8
from ..model.tokenizer import Tokenizer
from ..results import current_commit, provenance
from .settings import TokenizerTraining


def train_tokenizer(config: TokenizerTraining) -> Path:
    """Train until `config.steps`; returns the checkpoint folder."""
    device = pick_device(config.device)
    data = load_episodes(config.dataset)
    config = replace(config, tokenizer=config.tokenizer.fitted(data.frames.shape[1:]))
    torch.manual_seed(config.seed)
    model = Tokenizer(config.tokenizer).to(device)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from torch's stubs
    optimizer = torch.optim.AdamW(model.parameters(), config.learning_rate, betas=(0.9, 0.99), weight_decay=1e-4)
    first = _resume(config, model, optimizer)
    world = WorldConfig(
        name=config.out.parent.name,
        action_size=data.actions.shape[1],
        instructions=data.instructions,
        phrases=data.phrase_list,
        frames_per_action=data.frames_per_action,
        twin=data.environment,
        tokenizer=config.tokenizer,
        dynamics=DynamicsConfig(),
    )
    train, validation = data.split("train"), data.split("validation")
    held_out = sample_pairs(data, validation, 256, config.max_gap, np.random.default_rng(0))

    commit = current_commit()
    decibels: float | None = None  # of the newest evaluation

    def save(step: int) -> None:
        told = {"step": step, "validation_psnr": decibels, "training": asdict(config)}
        extras = {"run.json": provenance(config.seed, told, commit).encode()}
        state = training_state(optimizer, step)
        save_checkpoint(config.out, world, model.state_dict(), "tokenizer", extras, state)

    writer = SummaryWriter(config.out.parent / "tensorboard" / "tokenizer", purge_step=first)
    started, seen = time.monotonic(), 0
    with (
        tqdm(total=config.steps, initial=first, desc="tokenizer", unit="step") as progress,
        between_steps() as interrupted,
    ):
        for step in range(first, config.steps):
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * schedule(step, config.steps)
            torch.manual_seed(hash((config.seed, step)))  # rebirth of codes, too, follows from (seed, step)
            rng = np.random.default_rng([config.seed, step])
            frames, contexts = sample_pairs(data, train, config.batch, config.max_gap, rng)
            with torch.autocast(device.type, torch.bfloat16):
                loss = model.loss(_images(frames, device), _images(contexts, device))
            optimizer.zero_grad(set_to_none=True)
            loss.total.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            progress.update()
            seen += config.batch

            if step % 50 == 0:
                writer.add_scalar("loss/reconstruction", loss.reconstruction.item(), step)
                writer.add_scalar("loss/commitment", loss.commitment.item(), step)
                writer.add_scalar("speed/frames_per_second", seen / (time.monotonic() - started), step)
            if (step + 1) % config.evaluate_every == 0 or step + 1 == config.steps:
                decibels = _evaluate(model, held_out, device, writer, step)
                writer.add_scalar("codebook/alive", model.quantizer.alive(), step)
                progress.set_postfix(psnr=f"{decibels:.2f}", codes=model.quantizer.alive())
                save(step + 1)
            if interrupted():
                save(step + 1)
                raise KeyboardInterrupt(f"saved at step {step + 1}; the same command goes on from there")
    writer.close()
    return config.out


def sample_pairs(data: Episodes, episodes: np.ndarray, batch: int, max_gap: int, rng: np.random.Generator):
    """Frames and contexts, uint8 [batch, h, w, 3] each; a context is 0 to `max_gap` steps older."""
    chosen = rng.choice(episodes, batch)
    length = data.starts[chosen + 1] - data.starts[chosen]
    context = rng.integers(length)
    frame = np.minimum(context + rng.integers(max_gap + 1, size=batch), length - 1)
    return data.frames[data.starts[chosen] + frame], data.frames[data.starts[chosen] + context]


def schedule(step: int, steps: int, warm_up: int = 200) -> float:
    """Share of the peak learning rate: linear warm-up, then cosine to a twentieth."""
    warm = min(1.0, (step + 1) / warm_up)
    return warm * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def _resume(config: TokenizerTraining, model: Tokenizer, optimizer: torch.optim.Optimizer) -> int:
    recover(config.out)
    if not config.out.exists():
        if config.begin_from is not None:
            print(begin_from(config.begin_from, model, "tokenizer."))
        return 0
    found, _ = load_config(config.out)
    if found.tokenizer != config.tokenizer:
        raise ValueError(f"{config.out} holds another tokenizer, {found.tokenizer}; choose another --out")
    step = resume(config.out, model, optimizer)
    print(f"resuming {config.out} at step {step}")
    return step


def begin_from(world: str, model: nn.Module, part: str) -> str:
    """Take over the weights of a world's part; returns a line that says which begin anew."""
    weights = load_tensors(find_world(world) / "model.safetensors")
    anew = adopt(model, {name.removeprefix(part): value for name, value in weights.items() if name.startswith(part)})
    total = len(model.state_dict())
    return f"beginning from {total - len(anew)} of {total} tensors of {world}; anew: {', '.join(anew) or 'none'}"


@torch.no_grad()
def _evaluate(model: Tokenizer, held_out, device: torch.device, writer: SummaryWriter, step: int) -> float:
    frames, contexts = held_out
    model.eval()
    images = [
        model.reconstruct(_images(f, device), _images(c, device))
        for f, c in zip(np.split(frames, 4), np.split(contexts, 4), strict=True)
    ]
    model.train()
    output = to_uint8(torch.cat(images)).cpu().numpy()
    decibels = float(psnr(output, frames).mean())
    writer.add_scalar("validation/psnr", decibels, step)
    writer.add_scalar("validation/psnr_repeat_context", psnr(contexts, frames).mean(), step)
    rows = [np.concatenate(row[:12], axis=1) for row in (contexts, frames, output)]
    writer.add_image("validation/context_real_tokens", np.concatenate(rows), step, dataformats="HWC")
    return decibels


def _images(frames: np.ndarray, device: torch.device) -> torch.Tensor:
    return to_float(torch.from_numpy(frames).to(device)).contiguous(memory_format=torch.channels_last)
