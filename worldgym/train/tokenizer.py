"""Stage one: the tokenizer learns to draw frames, given an earlier frame of the same episode."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from ..checkpoint import adopt, load_config, load_tensors
from ..config import DynamicsConfig, TokenizerConfig, WorldConfig
from ..data import Episodes, load_episodes
from ..files import recover
from ..listing import find_world
from ..metrics import psnr
from ..model.pixels import to_float, to_uint8
from ..model.tokenizer import Tokenizer
from ..results import current_commit
from .checkpoints import check_world, load_world, save_world, world_done
from .log import Log
from .loop import named, run, train
from .settings import TokenizerTraining


def train_tokenizer(config: TokenizerTraining) -> Path:
    """Train until `config.steps`; returns the checkpoint folder."""
    if _done(config):
        return config.out
    with run(config) as accelerator:
        train(TokenizerStage(config, accelerator.device), config, accelerator)
    return config.out


def _done(config: TokenizerTraining) -> bool:
    recover(config.out)
    if not config.out.exists():
        return False
    side, asked = load_config(config.out)[0].tokenizer.resolution, config.tokenizer
    if asked.resolution in (side, TokenizerConfig.resolution):  # else it is refused by its own name
        asked = asked.fitted((side, side, 3))
    return world_done(replace(config, tokenizer=asked), "tokenizer")


class TokenizerLoss(nn.Module):
    """The tokenizer's loss as one module: what Accelerate wraps."""

    def __init__(self, tokenizer: Tokenizer):
        super().__init__()
        self.tokenizer = tokenizer

    def forward(self, images: Tensor, contexts: Tensor) -> dict[str, Tensor]:
        loss = self.tokenizer.loss(images, contexts)
        return {"loss": loss.total, "reconstruction": loss.reconstruction, "commitment": loss.commitment}


class TokenizerStage:
    """What the loop asks of this stage."""

    name, clip, warm_up, parts = "tokenizer", 1.0, 200, 1

    def __init__(self, config: TokenizerTraining, device: torch.device):
        self.data = data = load_episodes(config.dataset)
        config = replace(config, tokenizer=config.tokenizer.fitted(data.frames.shape[1:]))
        self.config, self.device, self.frames = config, device, config.batch
        self.logs = config.out.parent / "tensorboard" / "tokenizer"
        torch.manual_seed(config.seed)
        self.tokenizer = Tokenizer(config.tokenizer).to(device)
        self.tokenizer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from torch's stubs
        self.model = TokenizerLoss(self.tokenizer)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), config.learning_rate, betas=(0.9, 0.99), weight_decay=1e-4
        )
        if not check_world(config, "tokenizer") and config.begin_from is not None:
            print(begin_from(config.begin_from, self.tokenizer, "tokenizer."))
        self.world = WorldConfig(
            name=config.out.parent.name,
            action_size=data.actions.shape[1],
            instructions=data.instructions,
            phrases=data.phrase_list,
            frames_per_action=data.frames_per_action,
            twin=data.environment,
            actions=data.action_space,
            twin_options=data.twin_options,
            tokenizer=config.tokenizer,
            dynamics=DynamicsConfig(),
        )
        self.choose = data.choice(data.split("train"), config.batch)
        self.held_out = sample_pairs(data, data.split("validation"), 256, config.max_gap, np.random.default_rng(0))
        self.commit = current_commit()
        self.decibels: float | None = None
        """Of the newest evaluation."""

    def draw(self, step: int, rank: int, processes: int) -> tuple[Tensor, Tensor]:
        torch.manual_seed(hash((self.config.seed, step)))  # rebirth of codes, too, follows from (seed, step)
        frames, contexts = (rows[rank::processes] for rows in self._rows(step))
        return _images(self.data.frames[frames], self.device), _images(self.data.frames[contexts], self.device)

    def _rows(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng([self.config.seed, step])
        return pair_rows(self.data, self.choose(self.config.seed, step, rng), self.config.max_gap, rng)

    def source(self, step: int) -> str:
        return named(self.config.dataset, self.data.episodes_of(self._rows(step)[0]))

    @torch.no_grad()
    def evaluate(self, step: int, log: Log, writer: SummaryWriter) -> None:
        """Held-out frames, drawn from their tokens."""
        frames, contexts = self.held_out
        self.tokenizer.eval()
        images = [
            self.tokenizer.reconstruct(_images(f, self.device), _images(c, self.device))
            for f, c in zip(np.split(frames, 4), np.split(contexts, 4), strict=True)
        ]
        self.tokenizer.train()
        output = to_uint8(torch.cat(images)).cpu().numpy()
        self.decibels, alive = float(psnr(output, frames).mean()), self.tokenizer.quantizer.alive()
        writer.add_scalar("validation/psnr", self.decibels, step)
        writer.add_scalar("validation/psnr_repeat_context", psnr(contexts, frames).mean(), step)
        writer.add_scalar("codebook/alive", alive, step)
        rows = [np.concatenate(row[:12], axis=1) for row in (contexts, frames, output)]
        writer.add_image("validation/context_real_tokens", np.concatenate(rows), step, dataformats="HWC")
        log.say(f"step {step + 1}: held-out frames {self.decibels:.2f} dB, {alive} codes in use")

    def save(self, accelerator: Accelerator, step: int) -> None:
        told: dict[str, Any] = {"step": step, "validation_psnr": self.decibels}
        if accelerator.is_main_process:
            weights = self.tokenizer.state_dict()
            save_world(self.config, self.world, weights, "tokenizer", self.optimizer, told, {}, self.commit)

    def load(self, accelerator: Accelerator) -> int:
        return load_world(self.config, "tokenizer", self.tokenizer, self.optimizer)


def pair_rows(
    data: Episodes, chosen: np.ndarray, max_gap: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of frames and of their contexts, one of each chosen episode; a context is 0 to `max_gap` steps older."""
    length = data.starts[chosen + 1] - data.starts[chosen]
    context = rng.integers(length)
    frame = np.minimum(context + rng.integers(max_gap + 1, size=len(chosen)), length - 1)
    return data.starts[chosen] + frame, data.starts[chosen] + context


def sample_pairs(data: Episodes, episodes: np.ndarray, batch: int, max_gap: int, rng: np.random.Generator):
    """Frames and contexts, uint8 [batch, h, w, 3] each."""
    frames, contexts = pair_rows(data, rng.choice(episodes, batch), max_gap, rng)
    return data.frames[frames], data.frames[contexts]


def begin_from(world: str, model: nn.Module, part: str) -> str:
    """Take over the weights of a world's part; returns a line that says which start from scratch."""
    weights = load_tensors(find_world(world) / "model.safetensors")
    anew = adopt(model, {name.removeprefix(part): value for name, value in weights.items() if name.startswith(part)})
    total = len(model.state_dict())
    return (
        f"beginning from {total - len(anew)} of {total} tensors of {world}; from scratch: {', '.join(anew) or 'none'}"
    )


def _images(frames: np.ndarray, device: torch.device) -> Tensor:
    return to_float(torch.from_numpy(frames).to(device)).contiguous(memory_format=torch.channels_last)
