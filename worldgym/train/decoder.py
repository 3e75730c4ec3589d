"""Train the diffusion decoder of a world on recorded episodes, as that world's tokenizer reads them.

It learns from maps of what really happened, not from the dreamed ones that it is to show: where a dream strays, the
truth is something else than the dream says, and what would be learned is to doubt the dream. So does PAN's first stage.

worldgym train decoder
torchrun --nproc-per-node 2 -m worldgym.train.decoder --fit.cpu
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
import tyro
from torch import Tensor, nn

from ..data import Episodes, load_episodes, sample_segments
from ..decoders.diffusion import DecoderConfig, DiffusionDecoder, Refiner
from ..decoders.render import read_maps
from ..decoders.swin import SwinConfig, window_loss
from ..decoders.wan import Condition
from ..interrupt import in_one_line
from ..metrics import psnr
from ..model.dynamics import Prefix
from ..model.pixels import to_float, to_uint8
from ..pan.fit import Fit, fit, make_accelerator
from ..world import WorldModel


@dataclass(frozen=True)
class DecoderTraining:
    """Train the diffusion decoder of a world; a killed run goes on from its last checkpoint."""

    world: str = "tabletop"
    """A bundled world or a checkpoint folder; it stays as it is."""
    dataset: str = "worldgym/tabletop-v0"
    """Minari id of recorded episodes."""
    out: Path = Path("runs/tabletop/decoder")
    """Folder of the run; the decoder itself is in its subfolder `decoder`."""
    windows: int = 4
    """Windows cut out of each segment; `fit.batch` counts windows."""
    fit: Fit = field(
        default_factory=lambda: Fit(steps=3000, batch=8, learning_rate=2e-3, clip=1.0, checkpoint_every=250)
    )
    decoder: DecoderConfig = field(default_factory=DecoderConfig)

    def __post_init__(self):
        if self.fit.batch % self.windows:
            raise ValueError(f"a batch of {self.fit.batch} windows is no multiple of {self.windows} windows a segment")


class WindowLoss(nn.Module):
    """The loss of windows, as one module: what Accelerate wraps."""

    def __init__(self, refiner: Refiner, config: SwinConfig):
        super().__init__()
        self.refiner, self.config = refiner, config

    def forward(self, latents: Tensor, text: Tensor, aligned: Tensor, noise: Tensor, chances: Tensor) -> Tensor:
        condition = Condition(text, aligned=aligned)
        error = window_loss(self.refiner, self.config, latents, condition, condition, noise, chances)
        return error / self.refiner.spread**2


class Windows:
    """Training windows: fused maps of recorded segments, and the pictures they were read off."""

    def __init__(self, config: DecoderTraining, world: WorldModel, data: Episodes, refiner: Refiner):
        self.config, self.world, self.data, self.refiner = config, world, data, refiner
        self.episodes = data.split("train")

    @torch.no_grad()
    def draw(self, step: int, rank: int, processes: int) -> tuple[Tensor, ...]:
        """Latents, condition, noise and chances of this process's windows of batch number `step`."""
        config, world = self.config, self.world
        rng = np.random.default_rng([config.fit.seed, 1, step])
        segments, length = config.fit.batch // config.windows, world.config.dynamics.window
        span = 2 * config.decoder.swin.frames
        starts = rng.integers(length - span + 1, size=(segments, config.windows))
        chance = torch.Generator().manual_seed(int(rng.integers(2**62)))
        mine = np.arange(rank, segments, processes)

        segment = sample_segments(self.data, self.episodes, segments, length, rng)
        pictures = torch.from_numpy(segment.frames[mine])
        frames = to_float(pictures.to(world.device).flatten(0, 1)).unflatten(0, pictures.shape[:2])
        fused = torch.stack([read_maps(world, episode) for episode in segment.frames[mine]])
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


@torch.no_grad()
def dream(world: WorldModel, images: Tensor, actions: Tensor) -> Tensor:
    """Fused maps of the frames after the given ones, [b, t, d, g, g], in the likeliest dream of the actions."""
    tokenizer = world.tokenizer
    context = tokenizer.encode_context(images)
    latent = world.latent(images, context)
    with torch.autocast(images.device.type, torch.bfloat16):
        maps = world.dynamics.imagine(
            tokenizer, Prefix(context), latent, tokenizer.fuse(latent, context)[:, None], actions
        )[1]
    return maps.float()


def train_decoder(config: DecoderTraining) -> Path:
    """Train until `config.fit.steps`; returns the decoder's folder."""
    accelerator = make_accelerator(config.fit)
    torch.manual_seed(config.fit.seed)
    world = WorldModel.load(config.world, str(accelerator.device))
    data = load_episodes(config.dataset)
    decoder = DiffusionDecoder(world.tokenizer, config.decoder)
    windows = Windows(config, world, data, decoder.refiner)
    model = WindowLoss(decoder.refiner, config.decoder.swin)
    described = {name: getattr(config, name) for name in ("world", "dataset", "windows")}
    described |= {"decoder": asdict(config.decoder)}
    weights = fit(accelerator, model, windows.draw, config.fit, config.out, described)
    folder = config.out / "decoder"
    if accelerator.is_main_process:
        prefix = "refiner.wan."
        trained = {name.removeprefix(prefix): part.cpu() for name, part in weights.items() if name.startswith(prefix)}
        decoder.refiner.wan = decoder.refiner.wan.holding(trained)
        decoder.save(folder)
        decoder = DiffusionDecoder.load(folder, world.tokenizer, world.device)
        fast, shown = compare(world, decoder, data)
        print(f"PSNR of 16 held-out dreams: fast decoder {fast:.2f} dB, diffusion {shown:.2f} dB")
    accelerator.wait_for_everyone()
    return folder


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


if __name__ == "__main__":
    config = tyro.cli(DecoderTraining)
    with in_one_line():
        print(f"trained {train_decoder(config)}")
