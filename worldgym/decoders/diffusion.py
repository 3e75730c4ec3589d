"""The diffusion decoder of a small world: dreams shown by Causal Swin-DPM instead of in one pass.

The same Wan classes at toy size, in pixels: a latent frame is a picture cut into patches, and a chunk is one frame, so
that an environment can show every step. A patch comes in as its noisy pixels, the fused features of its cell and the
fast decoder's picture of it; what the network adds to that picture is its guess of the truth. Its last layer begins at
zero, so it begins as the fast decoder and learns only what that one blurs.

Noise is spread around the fast decoder's picture, not around nothing (a coupling that depends on the data, arXiv
2310.03725): that picture is a few grey levels off, and all the steps from pure noise to there would add nothing.
"""

import hashlib
import json
import math
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import WanTransformer3DModel
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from ..config import DecoderConfig, Schedule, SwinConfig, TokenizerConfig
from ..model.pixels import to_float, to_uint8
from ..model.rng import uniforms
from ..model.tokenizer import Tokenizer
from .swin import Asked, CausalSwin, Stream
from .wan import Condition, ConditionedWan, Keys

FORMAT_VERSION = 2
LEAST_LEVEL = 0.1
"""Below this noise level a guess of the truth is not asked to be more exact than at it."""


def codebook_digest(tokenizer: Tokenizer) -> str:
    """Tells tokenizers apart, before and after an export, which halves their precision."""
    codes = tokenizer.quantizer.codebook.detach().half().cpu().numpy()
    return hashlib.sha256(codes.tobytes()).hexdigest()[:16]


class Refiner(nn.Module):
    """Velocity by way of the clean frame: the fast decoder's picture plus what the transformer adds to it."""

    def __init__(self, tokenizer: TokenizerConfig, config: DecoderConfig):
        super().__init__()
        cell = tokenizer.resolution // tokenizer.grid
        if not 1 <= config.patch <= cell or cell % config.patch:
            raise ValueError(
                f"patch is {config.patch}; a cell of the fused map has {cell} pixels a side, a patch a part"
            )
        self.patch, self.finer, self.spread = config.patch, cell // config.patch, config.spread
        pixels = 3 * self.patch**2
        wan = WanTransformer3DModel(
            patch_size=(1, 1, 1),
            num_attention_heads=config.heads,
            attention_head_dim=config.head_width,
            in_channels=3 * pixels + tokenizer.width,
            out_channels=pixels + 1,
            text_dim=1,
            freq_dim=64,
            ffn_dim=config.mlp_width,
            num_layers=config.layers,
            rope_max_seq_len=64,
        )
        nn.init.zeros_(wan.proj_out.weight)
        nn.init.zeros_(wan.proj_out.bias)
        self.wan = ConditionedWan(wan, None)

    def forward(
        self,
        latents: Float[Tensor, "b c f g g"],
        levels: Float[Tensor, "b f"],
        condition: Condition,
        chunks: tuple[int, ...],
        past: Keys | None = None,
    ) -> tuple[Float[Tensor, "b c f g g"], Keys]:
        fast, level = self.fast(condition), levels[:, None, :, None, None]
        apart = (latents - fast) / self.spread
        # The frame before is far from this picture where something moves; it comes whole, too.
        out, keys = self.wan(torch.cat([latents, apart.tanh()], 1), levels, condition, chunks, past)
        correction, gate = out.float().split([latents.shape[1], 1], 1)
        # How much of a patch is what is seen through the noise: a patch may have more pixels than the network is wide.
        clean = fast + self.spread * (correction + gate * apart)
        return (latents - clean) / level.clamp(min=LEAST_LEVEL), keys

    def fast(self, condition: Condition) -> Float[Tensor, "b c f g g"]:
        """The fast decoder's pictures, as they are in a condition."""
        assert condition.aligned is not None
        return condition.aligned[:, : 3 * self.patch**2]

    def noise(
        self, normal: Float[Tensor, "b c f1 g g"], condition: Condition
    ) -> tuple[Float[Tensor, "b c 1 g g"], Float[Tensor, "b c f g g"]]:
        """Of the frame before, and of the frames with this condition, around the fast decoder's pictures of them.

        Args:
            normal: standard normal numbers, for one frame more than the condition is of.
        """
        return normal[:, :, :1], self.fast(condition) + self.spread * normal[:, :, 1:]

    def to_latents(self, images: Float[Tensor, "b f c h w"]) -> Float[Tensor, "b k f g g"]:
        """Pictures as patches of pixels."""
        return F.pixel_unshuffle(images, self.patch).transpose(1, 2)

    def to_images(self, latents: Float[Tensor, "b k f g g"]) -> Float[Tensor, "b f c h w"]:
        return F.pixel_shuffle(latents.transpose(1, 2), self.patch)

    def condition(self, tokenizer: Tokenizer, fused: Float[Tensor, "b f d g g"]) -> Condition:
        """What frames with these fused maps are to show. Nothing is said: the maps know what the action did."""
        picture = tokenizer.decode(fused.flatten(0, 1)).float().clamp(-1, 1).unflatten(0, fused.shape[:2])
        features = fused.float().repeat_interleave(self.finer, -2).repeat_interleave(self.finer, -1)
        aligned = torch.cat([self.to_latents(picture), features.transpose(1, 2)], 1)
        return Condition(fused.new_zeros(len(fused), 2, 1, 1), aligned=aligned)


class DiffusionDecoder(nn.Module):
    """Shows dreams of one world, frame after frame. Make one with `load`."""

    def __init__(self, tokenizer: Tokenizer, config: DecoderConfig):
        super().__init__()
        self.config, self.codebook = config, codebook_digest(tokenizer)
        self.refiner = Refiner(tokenizer.config, config)

    @classmethod
    def load(cls, folder: Path, tokenizer: Tokenizer, device: str | torch.device = "cpu") -> "DiffusionDecoder":
        """The decoder in a folder that training wrote.

        Args:
            tokenizer: of the world whose dreams it is to show.

        Raises:
            FileNotFoundError: no decoder there.
            ValueError: it was trained over another tokenizer, or by another release.
        """
        path = folder / "decoder.json"
        if not path.exists():
            raise FileNotFoundError(f"{folder} holds no diffusion decoder: it has no decoder.json")
        found = json.loads(path.read_text(encoding="utf-8"))
        if found.pop("version") != FORMAT_VERSION:
            raise ValueError(f"{path} is of another format; this release reads {FORMAT_VERSION}")
        if found["codebook"] != (own := codebook_digest(tokenizer)):
            raise ValueError(
                f"{folder} was trained over another tokenizer (codebook {found['codebook']}, this world's is {own}) "
                "and would show wrong pictures; train one for this world"
            )
        swin = SwinConfig(**{**found["config"].pop("swin"), "schedule": Schedule(**found.pop("schedule"))})
        decoder = cls(tokenizer, DecoderConfig(**found["config"], swin=swin))
        decoder.refiner.wan = ConditionedWan.load(str(folder), None)
        return decoder.to(device).eval().requires_grad_(False)

    def save(self, folder: Path) -> None:
        """Write weights in diffusers' format, and next to them how to sample and for which worlds."""
        self.refiner.wan.save(folder)
        config = asdict(self.config)
        schedule = config["swin"].pop("schedule")
        described = {
            "kind": "diffusion",
            "version": FORMAT_VERSION,
            "codebook": self.codebook,
            "config": config,
            "schedule": schedule,
        }
        (folder / "decoder.json").write_text(json.dumps(described, indent=1), encoding="utf-8")

    def start(self, frames: UInt8[Tensor, "b h w c"]) -> Stream:
        """Go on from observed frames."""
        return CausalSwin(self.refiner, self.config.swin).start(
            self.refiner.to_latents(to_float(frames)[:, None])[:, :, 0]
        )

    @torch.no_grad()
    def show(
        self,
        stream: Stream,
        tokenizer: Tokenizer,
        fused: Float[Tensor, "b f d g g"],
        seeds: Int[Tensor, " b"],
        counters: Int[Tensor, " b"],
    ) -> tuple[Stream, UInt8[Tensor, "b f h w c"]]:
        """The next chunk of pictures.

        Args:
            fused: what they show; as many frames as a chunk has.
            seeds, counters: all the randomness there is, so that a dream looks the same alone and in a batch.
        """
        frames = self.config.swin.frames
        if fused.shape[1] != frames:
            raise ValueError(f"got fused maps of {fused.shape[1]} frames; this decoder shows {frames} at a time")
        condition = self.refiner.condition(tokenizer, fused)
        condition = condition._replace(text=condition.text[:, :1])
        shape = (len(fused), stream.condition.shape[1], frames + 1, *stream.condition.shape[3:])
        before, noise = self.refiner.noise(normals(seeds, counters, math.prod(shape[1:])).view(shape), condition)
        stream, chunk = CausalSwin(self.refiner, self.config.swin).next(
            stream, Asked(condition, condition), noise, before
        )
        pictures = self.refiner.to_images(chunk)
        return stream, to_uint8(pictures.flatten(0, 1)).unflatten(0, pictures.shape[:2])

    def rerender(
        self,
        tokenizer: Tokenizer,
        frames: UInt8[Tensor, "b h w c"],
        fused: Float[Tensor, "b t d g g"],
        seeds: Int[Tensor, " b"],
    ) -> UInt8[Tensor, "b t h w c"]:
        """Pictures of whole dreams, from the frames they began with and the fused maps of all their steps."""
        stream, shown = self.start(frames), []
        for index, chunk in enumerate(fused.split(self.config.swin.frames, 1)):
            stream, pictures = self.show(stream, tokenizer, chunk, seeds, torch.full_like(seeds, index))
            shown.append(pictures)
        return torch.cat(shown, 1)


def normals(seeds: Int[Tensor, " b"], counters: Int[Tensor, " b"], count: int) -> Float[Tensor, "b {count}"]:
    """Standard normal numbers for each dream, from its seed and its counter (Box-Muller)."""
    # Far from the counters that tokens are drawn with: pictures must not follow the dream's own chances.
    radius, angle = uniforms(seeds, counters + (1 << 40), 2 * count).chunk(2, 1)
    return (-2 * radius.log()).sqrt() * (2 * math.pi * angle).cos()
