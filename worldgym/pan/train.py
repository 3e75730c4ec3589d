"""PAN's two stages of training, on clips: first the decoder alone, then decoder and queries together (PAN 4).

accelerate launch --config_file docs/accelerate/hsdp.yaml -m worldgym.pan.train adapt --clips CLIPS
accelerate launch --config_file docs/accelerate/hsdp.yaml -m worldgym.pan.train joint --clips CLIPS
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from torch import Tensor, nn

from ..decoders.swin import SwinConfig, window_loss
from ..decoders.wan import Condition, ConditionedWan
from ..interrupt import in_one_line
from .backbone import ConversationConfig, PanBackbone
from .clips import find_clips, read_frames
from .fit import Fit, fit, make_accelerator
from .latents import WanLatents

PADDING = 30
"""Latent frames that are encoded before a window and dropped, at most: a window's first frame is then one of a video
under way, as it is in a stream. (The paper: 0 to 122 frames.)"""


@dataclass(frozen=True)
class Adaptation:
    """Stage one: a text-to-video Wan becomes Causal Swin-DPM."""

    clips: Path
    """Folder with clips.jsonl."""
    wan: str = "Wan-AI/Wan2.1-T2V-14B-Diffusers"
    """Pipeline by hub name or folder."""
    out: Path = Path("runs/pan/adapt")
    """Folder of the run; the decoder is in its subfolder `decoder`."""
    height: int = 480
    width: int = 832
    swin: SwinConfig = field(default_factory=SwinConfig)
    gradient_checkpointing: bool = True
    """Compute the layers' activations again in the backward pass instead of keeping them."""
    fit: Fit = field(default_factory=Fit)


@dataclass(frozen=True)
class Joint(Adaptation):
    """Stage two: the queries of the frozen language model learn what the decoder needs, and the decoder to look."""

    vlm: str = "Qwen/Qwen2.5-VL-7B-Instruct"
    """Backbone by hub name or folder."""
    decoder: Path = Path("runs/pan/adapt/decoder")
    """What stage one wrote."""
    out: Path = Path("runs/pan/joint")
    """Folder of the run; `backbone` and `decoder` in it are what `PanWorld.load` takes."""
    conversation: ConversationConfig = field(default_factory=ConversationConfig)


class DecoderLoss(nn.Module):
    """Stage one's loss of windows: words, no state."""

    def __init__(self, decoder: ConditionedWan, config: SwinConfig):
        super().__init__()
        self.decoder, self.config = decoder, config

    def forward(self, latents: Tensor, text: Tensor, silence: Tensor, noise: Tensor, chances: Tensor) -> Tensor:
        said, nothing = Condition(text), Condition(silence)
        return window_loss(self.decoder, self.config, latents, said, nothing, noise, chances)


class JointLoss(nn.Module):
    """Stage two's: the states of a window's two chunks are what the backbone says after its last two rounds."""

    def __init__(self, backbone: PanBackbone, decoder: ConditionedWan, config: SwinConfig):
        super().__init__()
        self.backbone, self.decoder, self.config = backbone, decoder, config

    def forward(
        self, latents: Tensor, text: Tensor, silence: Tensor, noise: Tensor, chances: Tensor,
        seen: list[Tensor], actions: list[list[str]],
    ) -> Tensor:  # fmt: skip
        state = self.backbone(seen, actions, [None] * len(seen))[:, -2:].float()
        said, nothing = Condition(text, state), Condition(silence, torch.zeros_like(state))
        return window_loss(self.decoder, self.config, latents, said, nothing, noise, chances)


class ClipWindows:
    """Training windows out of clips: two chunks, the frame before them, and the conversation up to them."""

    def __init__(self, config: Adaptation, wan: WanLatents, backbone: PanBackbone | None):
        self.config, self.wan, self.backbone = config, wan, backbone
        self.clips = find_clips(config.clips, least=2)

    @torch.no_grad()
    def draw(self, step: int, rank: int, processes: int) -> tuple[Any, ...]:
        """This process's rows of batch number `step`. All rows tell of equally many rounds."""
        config, wan = self.config, self.wan
        rng = np.random.default_rng([config.fit.seed, step])
        chosen = [self.clips[row] for row in rng.integers(len(self.clips), size=config.fit.batch)]
        most = min(len(clip.actions) for clip in chosen)
        rounds = int(rng.integers(2, most + 1))
        if self.backbone is not None:
            rounds = min(rounds, self.backbone.config.rounds)
        begins = [int(rng.integers(len(clip.actions) - rounds + 1)) for clip in chosen]
        paddings = rng.integers(PADDING + 1, size=config.fit.batch)
        chance = torch.Generator().manual_seed(int(rng.integers(2**62)))
        mine = range(rank, config.fit.batch, processes)

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
        shape = (config.fit.batch, *clean.shape[1:])
        noise = torch.randn(shape, generator=chance)[list(mine)].to(clean)
        chances = torch.rand((config.fit.batch, 3), generator=chance)[list(mine)].to(clean)
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


def train_adaptation(config: Adaptation) -> Path:
    """Stage one; returns the decoder's folder."""
    accelerator = make_accelerator(config.fit)
    torch.manual_seed(config.fit.seed)
    decoder = ConditionedWan.load(config.wan, None)
    decoder.gradient_checkpointing = config.gradient_checkpointing
    wan = WanLatents.load(config.wan).to(accelerator.device)
    windows = ClipWindows(config, wan, None)
    weights = fit(
        accelerator, DecoderLoss(decoder, config.swin), windows.draw, config.fit, config.out, _describe(config)
    )
    if accelerator.is_main_process:
        decoder.holding(_of("decoder", weights)).save(config.out / "decoder")
    accelerator.wait_for_everyone()
    return config.out / "decoder"


def train_joint(config: Joint) -> Path:
    """Stage two; returns the folder that `PanWorld.load` takes as trained."""
    accelerator = make_accelerator(config.fit)
    torch.manual_seed(config.fit.seed)
    backbone = PanBackbone.load(config.vlm, config.conversation)
    decoder = ConditionedWan.load(str(config.decoder), backbone.width)
    decoder.gradient_checkpointing = config.gradient_checkpointing
    wan = WanLatents.load(config.wan).to(accelerator.device)
    # The tower looks outside the sharded module, so it has a copy of its own there.
    eyes = PanBackbone.load(config.vlm, config.conversation, dtype=torch.bfloat16).to(accelerator.device)
    eyes.vlm.language_model.layers = nn.ModuleList()
    windows = ClipWindows(config, wan, eyes)
    model = JointLoss(backbone, decoder, config.swin)
    weights = fit(accelerator, model, windows.draw, config.fit, config.out, _describe(config))
    if accelerator.is_main_process:
        decoder.holding(_of("decoder", weights)).save(config.out / "decoder")
        backbone.save(config.out / "backbone", _of("backbone", weights))
    accelerator.wait_for_everyone()
    return config.out


def _of(part: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of one part of the model, on the CPU."""
    return {name.removeprefix(part + "."): w.cpu() for name, w in weights.items() if name.startswith(part + ".")}


def _describe(config: Adaptation) -> dict[str, Any]:
    """What a checkpoint and the run that goes on from it must share."""
    return {
        name: str(part) if isinstance(part, Path) else part for name, part in asdict(config).items() if name != "fit"
    }


def main() -> None:
    config = tyro.cli(
        Annotated[Adaptation, tyro.conf.subcommand("adapt")] | Annotated[Joint, tyro.conf.subcommand("joint")],  # type: ignore[arg-type]
        description=__doc__,
    )
    with in_one_line():
        print(f"trained {train_joint(config) if isinstance(config, Joint) else train_adaptation(config)}")


if __name__ == "__main__":
    main()
