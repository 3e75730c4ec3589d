"""The SAMPO tokenizer: asymmetric, multi-scale, residual, conditioned on the context (SAMPO A1).

An observed frame (the context) keeps a dense continuous map. Any other frame becomes a few coarse-to-fine
token maps that say how it *differs* from the context: its encoder and its decoder look at the context by
cross-attention. The decoder is cut in two: `fuse` gives the map that dynamics and reward heads read, `decode`
turns that map into pixels, only when pixels are asked for.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..config import TokenizerConfig
from .processes import rows_of_processes


class TokenizerLoss(NamedTuple):
    total: Tensor
    reconstruction: Tensor
    commitment: Tensor
    images: Tensor


class Tokenizer(nn.Module):
    """Frames <-> tokens, given a context. All images are float in [-1, 1]."""

    def __init__(self, config: TokenizerConfig):
        super().__init__()
        self.config = config
        width, latent = config.width, config.latent_channels
        self.context_encoder = _encoder(config)
        self.future_encoder = _encoder(config)
        self.encoder_attention = CrossAttention(width, config.grid, config.heads)
        self.to_latent = nn.Sequential(ResidualBlock(width), _norm(width), nn.SiLU(), nn.Conv2d(width, latent, 1))
        self.quantizer = MultiScaleQuantizer(config)
        self.from_latent = nn.Conv2d(latent, width, 3, padding=1)
        self.fuse_blocks = nn.ModuleList([ResidualBlock(width), ResidualBlock(width)])
        self.decoder_attention = CrossAttention(width, config.grid, config.heads)
        self.pixel_decoder = _decoder(config)

    def encode_context(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d g g"]:
        """The dense map of an observed frame."""
        return self.context_encoder(images)

    def encode(self, images: Float[Tensor, "b c h w"], context: Float[Tensor, "b d g g"]) -> Int[Tensor, "b n"]:
        """Token ids of frames relative to their contexts, coarse scales first, each row by row."""
        return self.quantizer.quantize(self.latent(images, context)).ids

    def fuse(self, latent: Float[Tensor, "b z g g"], context: Float[Tensor, "b d g g"]) -> Float[Tensor, "b d g g"]:
        """The fused map: what the frame shows, put together from its tokens' latent and the context."""
        x = self.fuse_blocks[0](self.from_latent(latent))
        return self.fuse_blocks[1](self.decoder_attention(x, context))

    def decode(self, fused: Float[Tensor, "b d g g"]) -> Float[Tensor, "b c h w"]:
        """Pixels of a fused map."""
        return self.pixel_decoder(fused)

    def reconstruct(self, images: Float[Tensor, "b c h w"], contexts: Float[Tensor, "b c h w"]) -> Tensor:
        """Through the tokens and back."""
        context = self.encode_context(contexts)
        return self.decode(self.fuse(self.quantizer.embed(self.encode(images, context)), context))

    def loss(self, images: Float[Tensor, "b c h w"], contexts: Float[Tensor, "b c h w"]) -> TokenizerLoss:
        """Reconstruction, weighted towards what moved, and commitment (SAMPO A1; no GAN, no LPIPS weights)."""
        context = self.encode_context(contexts)
        quantized = self.quantizer.quantize(self.latent(images, context))
        output = self.decode(self.fuse(quantized.latent, context)).float()
        # Five times the weight where the frame differs from its context: small moving things matter most.
        moved = ((images - contexts).abs().amax(1, keepdim=True) > 0.1).float()
        weight = 1.0 + 4.0 * F.max_pool2d(moved, 3, stride=1, padding=1)
        error = output - images
        reconstruction = (weight * (error.abs() + 2.0 * error.square())).mean()
        return TokenizerLoss(reconstruction + 0.25 * quantized.commitment, reconstruction, quantized.commitment, output)

    def latent(self, images: Float[Tensor, "b c h w"], context: Float[Tensor, "b d g g"]) -> Float[Tensor, "b z g g"]:
        """The map that the tokens quantise: how a frame differs from its context."""
        return self.to_latent(self.encoder_attention(self.future_encoder(images), context))


class Quantized(NamedTuple):
    ids: Tensor
    """[b, n] long."""
    latent: Tensor
    """[b, z, g, g], with straight-through gradients."""
    commitment: Tensor
    """Scalar."""
    totals: list[Tensor]
    """What the scales up to each add up to, [b, z, g, g] each."""
    taken: Tensor
    """[b, n] long, the codes in `latent` and `totals`: `ids`, but where one slipped."""


class TokenNoise(NamedTuple):
    """Random numbers by which some tokens of each of b frames are replaced by wrong ones."""

    rate: Float[Tensor, "b 1"]
    """Share of the frame's tokens."""
    uniform: Float[Tensor, "b n"]
    """In [0, 1), one for each token: below the rate it is replaced, below half of that by any code."""
    neighbour: Int[Tensor, "b n"]
    """Else by which of the code's neighbours."""
    code: Int[Tensor, "b n"]


NEIGHBOURS = 16
"""Codes nearest to a code, itself included, that it may be replaced by."""


class MultiScaleQuantizer(nn.Module):
    """Residual vector quantisation over scales with one codebook (VAR's f_hat scheme, SAMPO A1).

    Each scale quantises what the coarser ones left over, resized to it by area; its codes are resized to the
    latent grid (bicubic) and smoothed by that scale's 3x3 convolution phi. The codebook follows its inputs by
    an exponential moving average, and codes that are not used are reborn as inputs.
    """

    codebook: Tensor
    usage: Tensor

    def __init__(self, config: TokenizerConfig, decay: float = 0.99):
        super().__init__()
        self.scales, self.grid, self.decay = config.scales, config.grid, decay
        self.splits = [scale * scale for scale in config.scales]
        self.phi = nn.ModuleList(
            nn.Conv2d(config.latent_channels, config.latent_channels, 3, padding=1) for _ in config.scales
        )
        self.register_buffer("codebook", torch.randn(config.codes, config.latent_channels) * 0.5)
        self.register_buffer("usage", torch.ones(config.codes))

    def draw_noise(self, frames: int, mean: float, generator: torch.Generator | None = None) -> TokenNoise | None:
        """Noise that replaces a share of each frame's tokens, uniform in [0, 2 x mean]; None for a mean of 0."""
        if not mean:
            return None
        rate, parts = torch.rand(frames, 1, generator=generator) * 2 * mean, []
        for split in self.splits:
            near = torch.randint(NEIGHBOURS, (frames, split), generator=generator)
            code = torch.randint(len(self.codebook), (frames, split), generator=generator)
            parts.append((torch.rand(frames, split, generator=generator), near, code))
        uniform, near, code = (torch.cat(part, 1) for part in zip(*parts, strict=True))
        return TokenNoise(*(part.to(self.codebook.device) for part in (rate, uniform, near, code)))

    def quantize(self, latent: Float[Tensor, "b z g g"], noise: TokenNoise | None = None) -> Quantized:
        """Token ids of a latent, coarse to fine.

        Args:
            noise: where to continue from a wrong code instead of the nearest. `ids` still names the nearest, so a finer
                scale's is the one that makes up for the coarser ones' mistakes: what a model must learn that draws its
                own tokens (as Infinity's self-correction, arXiv 2412.04431).
        """
        with torch.autocast(latent.device.type, enabled=False):
            latent = latent.float()
            target, total, commitment = latent.detach(), torch.zeros_like(latent), latent.new_zeros(())
            all_ids, all_taken, inputs, totals = [], [], [], []
            near = None if noise is None else self.distances(self.codebook).topk(NEIGHBOURS, largest=False).indices
            for index, scale in enumerate(self.scales):
                residual = resize_area(target - total.detach(), scale).permute(0, 2, 3, 1).flatten(0, 2)
                ids = self.nearest(residual).view(-1, scale * scale)
                taken = ids if noise is None or near is None else self._slip(ids, noise, index, near)
                total = total + self.contribution(taken, index)
                commitment = commitment + F.mse_loss(total.detach(), latent)
                all_ids.append(ids)
                all_taken.append(taken)
                inputs.append(residual.view(len(latent), -1, residual.shape[1]))
                totals.append(total)
            if self.training:
                seen, named = ([rows_of_processes(part).flatten(0, 1) for part in all] for all in (inputs, all_ids))
                self._follow(torch.cat(seen), torch.cat(named))
            # Straight through to the encoder; phi learns through `total` itself.
            straight = total + latent - target
            commitment = commitment / len(self.scales)
            return Quantized(torch.cat(all_ids, 1), straight, commitment, totals, torch.cat(all_taken, 1))

    def _slip(self, ids: Tensor, noise: TokenNoise, index: int, neighbours: Int[Tensor, "c k"]) -> Tensor:
        """Ids of scale number `index`, some replaced: one half by one of the code's neighbours, the other by any."""
        uniform, near, code = (part.split(self.splits, 1)[index] for part in noise[1:])
        wrong = torch.where(uniform < noise.rate / 2, code, neighbours[ids, near])
        return torch.where(uniform < noise.rate, wrong, ids)

    def nearest(self, vectors: Float[Tensor, "m z"]) -> Int[Tensor, " m"]:
        """Index of the nearest code to each vector."""
        return self.distances(vectors).argmin(1)

    def distances(self, vectors: Float[Tensor, "*m z"]) -> Float[Tensor, "*m c"]:
        """Squared distance of each vector to each code, less the vector's own square."""
        flat = torch.addmm(self.codebook.square().sum(1), vectors.flatten(0, -2), self.codebook.T, alpha=-2)
        return flat.view(*vectors.shape[:-1], -1)

    def embed(self, ids: Int[Tensor, "b n"]) -> Float[Tensor, "b z g g"]:
        """The latent that the tokens of all scales stand for."""
        parts = ids.split(self.splits, dim=1)
        return torch.stack([self.contribution(part, index) for index, part in enumerate(parts)]).sum(0)

    def contribution(self, ids: Int[Tensor, "b m"], index: int) -> Float[Tensor, "b z g g"]:
        """What the token map of scale number `index` adds to the latent."""
        scale = self.scales[index]
        codes = F.embedding(ids, self.codebook).view(-1, scale, scale, self.codebook.shape[1]).permute(0, 3, 1, 2)
        if scale == 1:
            codes = codes.expand(-1, -1, self.grid, self.grid)
        elif scale < self.grid:
            codes = F.interpolate(codes, size=(self.grid, self.grid), mode="bicubic")
        return 0.5 * codes + 0.5 * self.phi[index](codes)

    @torch.no_grad()
    def _follow(self, vectors: Tensor, ids: Tensor) -> None:
        counts = torch.bincount(ids, minlength=len(self.codebook)).float()
        sums = (self.codebook * self.usage[:, None]).mul_(self.decay)
        sums.index_add_(0, ids, vectors, alpha=1 - self.decay)
        self.usage.mul_(self.decay).add_(counts, alpha=1 - self.decay)
        self.codebook.copy_(sums / self.usage[:, None].clamp(min=1e-3))
        dead = self.usage < 0.02
        if dead.any():
            reborn = torch.randint(len(vectors), (int(dead.sum()),), device=vectors.device)
            self.usage[dead], self.codebook[dead] = 1.0, vectors[reborn]

    def alive(self) -> int:
        """Codes in use: those that get more than a fiftieth of an even share."""
        return int((self.usage > self.usage.mean() / 50).sum())


def resize_area(maps: Float[Tensor, "b z g g"], size: int) -> Float[Tensor, "b z s s"]:
    """Resize by area, the one filter used in training and inference alike."""
    if maps.shape[-1] == size:
        return maps
    return F.adaptive_avg_pool2d(maps, size)


class CrossAttention(nn.Module):
    """Every cell of a map looks at every cell of the context; added to the map (SAMPO A1)."""

    def __init__(self, width: int, grid: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm_query, self.norm_context = _norm(width), _norm(width)
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.query_position = nn.Parameter(torch.randn(grid * grid, width) * 0.02)
        self.context_position = nn.Parameter(torch.randn(grid * grid, width) * 0.02)

    def forward(self, x: Float[Tensor, "b d g g"], context: Float[Tensor, "b d g g"]) -> Float[Tensor, "b d g g"]:
        batch, width, grid, _ = x.shape
        query = self.query(_tokens(self.norm_query(x)) + self.query_position)
        key, value = self.key_value(_tokens(self.norm_context(context)) + self.context_position).chunk(2, -1)
        heads = [part.view(batch, -1, self.heads, width // self.heads).transpose(1, 2) for part in (query, key, value)]
        attended = F.scaled_dot_product_attention(*heads).transpose(1, 2).reshape(batch, -1, width)
        return x + self.out(attended).transpose(1, 2).reshape(batch, width, grid, grid)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions round a skip."""

    def __init__(self, width: int):
        super().__init__()
        self.body = nn.Sequential(
            _norm(width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1),
            _norm(width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def _encoder(config: TokenizerConfig) -> nn.Sequential:
    layers: list[nn.Module] = []
    previous = 3
    for width in config.channels:
        layers.append(nn.Conv2d(previous, width, 4, stride=2, padding=1))
        layers.append(ResidualBlock(width) if width != config.channels[0] else nn.SiLU())
        previous = width
    return nn.Sequential(*layers)


def _decoder(config: TokenizerConfig) -> nn.Sequential:
    layers: list[nn.Module] = [ResidualBlock(config.width)]
    previous = config.width
    for width in reversed(config.channels[:-1]):
        layers += [nn.Conv2d(previous, 4 * width, 3, padding=1), nn.PixelShuffle(2), ResidualBlock(width)]
        previous = width
    return nn.Sequential(*layers, _norm(previous), nn.SiLU(), nn.Conv2d(previous, 12, 3, padding=1), nn.PixelShuffle(2))


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(8, width)


def _tokens(maps: Tensor) -> Tensor:
    return maps.flatten(2).transpose(1, 2)
