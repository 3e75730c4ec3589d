"""PAN's two stages of training, on clips: first the decoder alone, then decoder and queries together (PAN 4)."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from ..config import PanConfig, SwinConfig
from ..decoders.swin import window_loss
from ..decoders.wan import Condition, ConditionedWan
from ..files import replacing
from ..train.checkpoints import load_state, save_state, state_done
from ..train.log import Log
from ..train.loop import run, train
from ..train.settings import PanAdaptTraining, PanJointTraining
from .backbone import PanBackbone
from .clips import find_clips, read_frames
from .folder import write_config
from .latents import WanLatents

PADDING = 30
"""Latent frames that are encoded before a window and dropped, at most: a window's first frame is then one of a video
under way, as it is in a stream. (The paper: 0 to 122 frames.)"""


def train_pan_adapt(config: PanAdaptTraining) -> Path:
    """Stage one; returns the decoder's folder."""
    if state_done(config, config.out / "decoder"):
        return config.out / "decoder"
    with run(config, config.precision, whole=False) as accelerator:
        torch.manual_seed(config.seed)
        decoder = ConditionedWan.load(config.wan, None)
        decoder.gradient_checkpointing = config.gradient_checkpointing
        wan = WanLatents.load(config.wan).to(accelerator.device)
        stage = ClipStage(config, DecoderLoss(decoder, config.swin), wan, None)
        weights = accelerator.get_state_dict(train(stage, config, accelerator))
        if accelerator.is_main_process:
            with replacing(config.out / "decoder") as folder:
                decoder.holding(_of("decoder", weights)).save(folder)
        accelerator.wait_for_everyone()
    return config.out / "decoder"


def train_pan_joint(config: PanJointTraining) -> Path:
    """Stage two; returns the folder that `PanWorld.load` takes as trained."""
    if state_done(config, config.out / "pan.json"):
        return config.out
    with run(config, config.precision, whole=False) as accelerator:
        torch.manual_seed(config.seed)
        backbone = PanBackbone.load(config.vlm, config.conversation)
        decoder = ConditionedWan.load(str(config.decoder), backbone.width)
        decoder.gradient_checkpointing = config.gradient_checkpointing
        wan = WanLatents.load(config.wan).to(accelerator.device)
        # The tower looks outside the sharded module, so it has a copy of its own there.
        eyes = PanBackbone.load(config.vlm, config.conversation, dtype=torch.bfloat16).to(accelerator.device)
        eyes.vlm.language_model.layers = nn.ModuleList()
        stage = ClipStage(config, JointLoss(backbone, decoder, config.swin), wan, eyes)
        weights = accelerator.get_state_dict(train(stage, config, accelerator))
        if accelerator.is_main_process:
            decoder.holding(_of("decoder", weights)).save(config.out / "decoder")
            backbone.save(config.out / "backbone", _of("backbone", weights))
            write_config(config.out, PanConfig(config.vlm, config.wan, config.height, config.width, config.swin))
        accelerator.wait_for_everyone()
    return config.out


class DecoderLoss(nn.Module):
    """Stage one's loss of windows: words, no state."""

    def __init__(self, decoder: ConditionedWan, config: SwinConfig):
        super().__init__()
        self.decoder, self.config = decoder, config

    def forward(
        self, latents: Tensor, text: Tensor, silence: Tensor, noise: Tensor, chances: Tensor
    ) -> dict[str, Tensor]:
        said, nothing = Condition(text), Condition(silence)
        return {"loss": window_loss(self.decoder, self.config, latents, said, nothing, noise, chances).mean()}


class JointLoss(nn.Module):
    """Stage two's: the states of a window's two chunks are what the backbone says after its last two rounds."""

    def __init__(self, backbone: PanBackbone, decoder: ConditionedWan, config: SwinConfig):
        super().__init__()
        self.backbone, self.decoder, self.config = backbone, decoder, config

    def forward(
        self, latents: Tensor, text: Tensor, silence: Tensor, noise: Tensor, chances: Tensor,
        seen: list[Tensor], actions: list[list[str]],
    ) -> dict[str, Tensor]:  # fmt: skip
        state = self.backbone(seen, actions, [None] * len(seen))[:, -2:].float()
        said, nothing = Condition(text, state), Condition(silence, torch.zeros_like(state))
        return {"loss": window_loss(self.decoder, self.config, latents, said, nothing, noise, chances).mean()}


class ClipStage:
    """What the loop asks of both stages: windows out of clips, that is two chunks, the frame before them, and the
    conversation up to them."""

    def __init__(self, config: PanAdaptTraining, model: nn.Module, wan: WanLatents, backbone: PanBackbone | None):
        self.config, self.model, self.wan, self.backbone = config, model.train(), wan, backbone
        self.name, self.logs = config.out.name, config.out / "tensorboard"
        self.clip, self.parts = config.clip, config.accumulate
        self.warm_up = max(1, round(config.warm_up * config.steps))
        self.frames = config.batch * 2 * config.swin.frames * wan.stride
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(weights, config.learning_rate, betas=(0.9, 0.95), weight_decay=0.01)
        self.clips = find_clips(config.clips, least=2)

    @torch.no_grad()
    def draw(self, step: int, rank: int, processes: int) -> tuple[Any, ...]:
        """All rows of a batch have the same number of rounds."""
        config, wan = self.config, self.wan
        rng, numbers = self._clips(step)
        chosen = [self.clips[number] for number in numbers]
        most = min(len(clip.actions) for clip in chosen)
        rounds = int(rng.integers(2, most + 1))
        if self.backbone is not None:
            rounds = min(rounds, self.backbone.config.rounds)
        begins = [int(rng.integers(len(clip.actions) - rounds + 1)) for clip in chosen]
        paddings = rng.integers(PADDING + 1, size=config.batch)
        chance = torch.Generator().manual_seed(int(rng.integers(2**62)))
        mine = range(rank, config.batch, processes)

        chunk = config.swin.frames * wan.stride
        latents, videos = [], []
        for row in mine:
            last = begins[row] + rounds - 2  # the round of the window's early chunk
            padding = min(int(paddings[row]), last * config.swin.frames)
            first = last * chunk - padding * wan.stride
            count = 1 + padding * wan.stride + 2 * chunk
            frames = read_frames(chosen[row], first, count, config.height, config.width)
            latents.append(wan.encode(frames[None].to(wan.vae.device))[0, :, padding:])
            if self.backbone is not None:
                told = read_frames(
                    chosen[row], begins[row] * chunk, 1 + (rounds - 1) * chunk, config.height, config.width
                )
                videos.append(told)
        clean = torch.stack(latents)
        words = [chosen[row].actions[begins[row] : begins[row] + rounds] for row in mine]
        text = torch.stack([wan.read(list(said[-2:])) for said in words])
        silence = wan.read([""])[None].expand_as(text)
        shape = (config.batch, *clean.shape[1:])
        noise = torch.randn(shape, generator=chance)[list(mine)].to(clean)
        chances = torch.rand((config.batch, 3), generator=chance)[list(mine)].to(clean)
        batch: tuple[Any, ...] = (clean, text, silence, noise, chances)
        if self.backbone is not None:
            batch += (self._seen(torch.stack(videos), rounds, chunk), [list(said) for said in words])
        return batch

    def _seen(self, videos: Tensor, rounds: int, chunk: int) -> list[Tensor]:
        """The state before each round: the frame that the conversation begins with, then chunk after chunk."""
        assert self.backbone is not None
        device = self.backbone.queries.device
        parts = [videos[:, :1], *(videos[:, 1 + i * chunk : 1 + (i + 1) * chunk] for i in range(rounds - 1))]
        return [self.backbone.see(part.to(device)) for part in parts]

    def _clips(self, step: int) -> tuple[np.random.Generator, np.ndarray]:
        """Numbers of the clips of a whole batch, and what else about it is drawn from."""
        rng = np.random.default_rng([self.config.seed, step])
        return rng, rng.integers(len(self.clips), size=self.config.batch)

    def source(self, step: int) -> str:
        return f"clips {sorted(set(self._clips(step)[1].tolist()))} of {self.config.clips}"

    def evaluate(self, step: int, log: Log, writer: SummaryWriter) -> None:
        """Nothing but the loss: `worldgym evaluate` is for whole worlds."""

    def save(self, accelerator: Accelerator, step: int) -> None:
        save_state(accelerator, self.config, step)

    def load(self, accelerator: Accelerator) -> int:
        return load_state(accelerator, self.config)


def _of(part: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of one part of the model, on the CPU."""
    return {name.removeprefix(part + "."): w.cpu() for name, w in weights.items() if name.startswith(part + ".")}
