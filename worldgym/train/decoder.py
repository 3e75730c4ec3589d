"""Train the diffusion decoder of a world on recorded episodes, as that world's tokenizer reads them.

It learns from maps of what really happened, not from the dreamed ones that it is to show: where a dream strays, the
truth is something else than the dream says, and what would be learned is to doubt the dream. So does PAN's first stage.
"""

from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from ..config import SwinConfig
from ..data import Episodes, load_episodes, long_enough, rows_within, sample_segments, segments_at
from ..decoders.diffusion import DiffusionDecoder, Refiner
from ..decoders.render import read_maps
from ..decoders.swin import window_loss
from ..decoders.wan import Condition
from ..errors import UserError
from ..files import replacing
from ..metrics import psnr
from ..model.dynamics import Prefix
from ..model.pixels import to_float, to_uint8
from ..world import WorldModel
from .checkpoints import load_state, save_state, state_done
from .launch import launch
from .log import Log
from .loop import named, run, train
from .settings import DecoderTraining


def train_decoder(config: DecoderTraining) -> Path:
    """Train until `config.steps`; returns the decoder's folder."""
    if not state_done(config, config.out / "decoder"):
        launch(_train, config)
    return config.out / "decoder"


def _train(config: DecoderTraining) -> None:
    with run(config, whole=False) as accelerator:
        stage = DecoderStage(config, accelerator.device)
        weights = accelerator.get_state_dict(train(stage, config, accelerator))
        if accelerator.is_main_process:
            prefix = "refiner.wan."
            trained = {name.removeprefix(prefix): w.cpu() for name, w in weights.items() if name.startswith(prefix)}
            stage.decoder.refiner.wan = stage.decoder.refiner.wan.holding(trained)
            with replacing(config.out / "decoder") as folder:
                stage.decoder.save(folder)
            decoder = DiffusionDecoder.load(config.out / "decoder", stage.world.tokenizer, stage.world.device)
            fast, shown = compare(stage.world, decoder, stage.data)
            print(f"PSNR of 16 held-out dreams: fast decoder {fast:.2f} dB, diffusion {shown:.2f} dB")
        accelerator.wait_for_everyone()


class WindowLoss(nn.Module):
    """The loss of windows, as one module: what Accelerate wraps."""

    def __init__(self, refiner: Refiner, config: SwinConfig):
        super().__init__()
        self.refiner, self.config = refiner, config

    def forward(
        self, latents: Tensor, text: Tensor, aligned: Tensor, noise: Tensor, chances: Tensor
    ) -> dict[str, Tensor]:
        condition = Condition(text, aligned=aligned)
        error = window_loss(self.refiner, self.config, latents, condition, condition, noise, chances)
        return {"loss": (error / self.refiner.spread**2).mean()}


class DecoderStage:
    """What the loop asks of this stage: windows of recorded segments' fused maps, and the pictures behind the maps."""

    name, clip, parts = "decoder", 1.0, 1

    def __init__(self, config: DecoderTraining, device: torch.device):
        self.config, self.logs, self.warm_up = config, config.out / "tensorboard", max(1, round(config.steps / 20))
        torch.manual_seed(config.seed)
        self.world = world = WorldModel.load(config.world, str(device))
        self.data = load_episodes(config.dataset)
        self.length = world.config.dynamics.window
        fitting = long_enough(self.data, self.data.split("train"), self.length)
        self.choose = self.data.choice(fitting, config.batch // config.windows)
        self.decoder = DiffusionDecoder(world.tokenizer, config.decoder)
        self.refiner, self.frames = self.decoder.refiner, config.batch * 2 * config.decoder.swin.frames
        self.model = WindowLoss(self.refiner, config.decoder.swin).train()
        weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(weights, config.learning_rate, betas=(0.9, 0.95), weight_decay=0.01)

    @torch.no_grad()
    def draw(self, step: int, rank: int, processes: int) -> tuple[Tensor, ...]:
        """Latents, condition, noise and chances of the windows."""
        config, world = self.config, self.world
        segments, rows, starts, chance = self._rows(step)
        span, mine = 2 * config.decoder.swin.frames, np.arange(rank, segments, processes)
        if segments % processes:
            raise UserError(f"windows of {segments} segments can't be shared by {processes} processes")

        segment = segments_at(self.data, rows[mine], self.length)
        pictures = torch.from_numpy(segment.frames)
        frames = to_float(pictures.to(world.device).flatten(0, 1)).unflatten(0, pictures.shape[:2])
        fused = torch.stack([read_maps(world, episode) for episode in segment.frames])
        row = torch.arange(len(mine)).repeat_interleave(config.windows)[:, None]
        start = torch.from_numpy(starts[mine]).flatten()[:, None]
        latents = self.refiner.to_latents(frames[row, start + torch.arange(span + 1)])
        # Map number i shows frame number i + 1.
        condition = self.refiner.condition(world.tokenizer, fused[row, start + torch.arange(span)])
        shape = (segments, config.windows, *latents.shape[1:])
        normal = torch.randn(shape, generator=chance)[mine].flatten(0, 1).to(latents)
        noise = torch.cat(self.refiner.noise(normal, condition), 2)
        chances = torch.rand((segments, config.windows, 3), generator=chance)[mine].flatten(0, 1).to(latents)
        assert condition.aligned is not None
        return latents, condition.text, condition.aligned, noise, chances

    def _rows(self, step: int) -> tuple[int, np.ndarray, np.ndarray, torch.Generator]:
        """Of a whole batch: its segments' number and rows, where windows begin in them, and what noise comes from."""
        config = self.config
        rng = np.random.default_rng([config.seed, 1, step])
        segments = config.batch // config.windows
        room = self.length - 2 * config.decoder.swin.frames + 1
        starts = rng.integers(room, size=(segments, config.windows))
        chance = torch.Generator().manual_seed(int(rng.integers(2**62)))
        chosen = self.choose(config.seed, step, rng)
        return segments, rows_within(self.data, chosen, self.length, rng), starts, chance

    def source(self, step: int) -> str:
        return named(self.config.dataset, self.data.episodes_of(self._rows(step)[1]))

    def evaluate(self, step: int, log: Log, writer: SummaryWriter) -> None:
        """Only at the end, once the weights are gathered."""

    def save(self, accelerator: Accelerator, step: int) -> None:
        save_state(accelerator, self.config, step)

    def load(self, accelerator: Accelerator) -> int:
        return load_state(accelerator, self.config)


@torch.no_grad()
def dream(world: WorldModel, images: Tensor, actions: Tensor) -> Tensor:
    """Fused maps of the frames after the given ones, [b, t, d, g, g], in the likeliest dream of the actions."""
    tokenizer, foreseen = world.tokenizer, None
    context = tokenizer.encode_context(images)
    latent = world.latent(images, context)
    if world.recurrent is not None and world.config.dynamics.from_state:
        began = world.recurrent.observe(to_uint8(images)[:, None], actions[:, :0])
        foreseen = world.recurrent.pictured(world.recurrent.imagine(began, actions))
    with torch.autocast(images.device.type, torch.bfloat16):
        maps = world.dynamics.imagine(
            tokenizer, Prefix(context), latent, tokenizer.fuse(latent, context)[:, None], actions, foreseen
        )[1]
    return maps.float()


def compare(world: WorldModel, decoder: DiffusionDecoder, data: Episodes) -> tuple[float, float]:
    """PSNR in dB of the fast decoder's and of the diffusion decoder's pictures of 16 held-out dreams."""
    rng, length = np.random.default_rng(0), world.config.dynamics.window
    segment = sample_segments(data, data.split("validation"), 16, length, rng)
    frames = torch.from_numpy(segment.frames[:, 0]).to(world.device)
    fused = dream(world, to_float(frames), torch.from_numpy(segment.actions).to(world.device))
    with torch.no_grad():
        fast = to_uint8(world.tokenizer.decode(fused.flatten(0, 1))).unflatten(0, fused.shape[:2])
    decoder.eval()
    shown = decoder.rerender(world.tokenizer, frames, fused, torch.arange(16, device=world.device))
    real = segment.frames[:, 1:]
    return float(psnr(fast.cpu().numpy(), real).mean()), float(psnr(shown.cpu().numpy(), real).mean())
