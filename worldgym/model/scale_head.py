"""SAMPO's next-scale prediction (A2) as a light head: from the predicted state to token maps, coarse to fine.

Everything is aligned in space: the predicted state is unfolded to the latent grid and added to the fused map of
the frame before ("copy unless moved"). From it comes a first guess of the next latent, as a change of the last
one. Each scale is drawn in one parallel pass, bidirectional inside the scale; it is shown what the guess has that
the coarser scales have not yet, and the codes nearest to that begin with the best odds. Of what all tokens together
leave out of the guess, a share stays as it is (hybrid tokens, as HART, arXiv 2410.10812): a thing that is pushed would
else lose a little of itself to quantisation at every step, until it is gone.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..config import PICTURED, DynamicsConfig, TokenizerConfig
from .processes import mean_of_processes
from .tokenizer import MultiScaleQuantizer, Quantized, resize_area


class ScaleHead(nn.Module):
    """Logits of each scale's tokens, given the aligned map and the coarser scales."""

    def __init__(self, tokenizer: TokenizerConfig, config: DynamicsConfig):
        super().__init__()
        if tokenizer.scales[-1] != tokenizer.grid:
            raise ValueError(f"scales {tokenizer.scales} end below the latent grid, {tokenizer.grid}, which is guessed")
        width, self.patch, self.scales = config.head_width, config.patch, tokenizer.scales
        self.residual = config.residual
        self.unfold = nn.Linear(config.width, width * config.patch**2)
        self.from_fused = nn.Conv2d(tokenizer.width, width, 1)
        if config.memory > 1:
            self.from_motion = zero_init(nn.Conv2d(tokenizer.width, width, 1))
        if config.from_state:
            self.from_state = zero_init(nn.Conv2d(PICTURED, width, 3, padding=1))
        self.local = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.guess = nn.Sequential(
            nn.SiLU(), nn.Conv2d(width, width, 3, padding=1, groups=width), nn.Conv2d(width, 128, 1),
            nn.SiLU(), nn.Conv2d(128, tokenizer.latent_channels, 1),
        )  # fmt: skip
        self.from_latent = nn.Conv2d(tokenizer.latent_channels, width, 1)
        self.trust = nn.Parameter(torch.zeros(len(tokenizer.scales)))
        self.condition = nn.Linear(config.width, width)
        self.scale_embedding = nn.Embedding(len(tokenizer.scales), width)
        self.positions = nn.ParameterList(
            nn.Parameter(torch.randn(scale * scale, width) * 0.02) for scale in tokenizer.scales
        )
        self.modulation = nn.Linear(width, 6 * width)  # one for all blocks: it holds a fifth of the head as it is
        nn.init.normal_(self.modulation.weight, std=0.01)
        nn.init.zeros_(self.modulation.bias)
        self.trunk = nn.ModuleList(Block(width, heads=2) for _ in range(config.trunk_layers))
        self.blocks = nn.ModuleList(Block(width, heads=2) for _ in range(config.head_layers))
        self.norm = nn.LayerNorm(width)
        self.logits = nn.Linear(width, tokenizer.codes)

    def align(
        self,
        state: Float[Tensor, "b k d"],
        fused: Float[Tensor, "b f g g"],
        action: Float[Tensor, "b d"],
        motion: Float[Tensor, "b f g g"] | None = None,
        foreseen: Float[Tensor, "b p g g"] | None = None,
    ) -> Float[Tensor, "b w g g"]:
        """The predicted state, unfolded to the latent grid, on top of what the last frame had there.

        Args:
            motion: how that frame differs from the one before, in a world with `memory`.
            foreseen: what the recurrent state pictures after the action, in a world whose frames are drawn from it.
        """
        batch, cells, _ = state.shape
        side = int(cells**0.5)
        unfolded = self.unfold(state).view(batch, side, side, -1).permute(0, 3, 1, 2)
        aligned = F.pixel_shuffle(unfolded, self.patch) + self.from_fused(fused)
        if motion is not None:
            aligned = aligned + self.from_motion(motion)
        if foreseen is not None:
            aligned = aligned + self.from_state(foreseen)
        x = (aligned + self.local(aligned)).flatten(2).transpose(1, 2) + self.positions[-1]
        modulation = self.modulation(F.silu(self.condition(action)))[:, None].chunk(6, -1)
        for block in self.trunk:
            x = block(x, modulation)
        return x.transpose(1, 2).unflatten(2, fused.shape[2:])

    def forward(
        self,
        aligned: Float[Tensor, "b w g g"],
        action: Float[Tensor, "b d"],
        missing: Float[Tensor, "b z g g"],
        index: int,
        quantizer: MultiScaleQuantizer,
    ) -> Float[Tensor, "b s c"]:
        """Logits of scale number `index`.

        Args:
            missing: the guess less what the coarser scales add up to.
        """
        condition = self.condition(action) + self.scale_embedding.weight[index]
        modulation = self.modulation(F.silu(condition))[:, None]
        return self._score(aligned, missing, index, modulation, self._codes(quantizer))

    def _codes(self, quantizer: MultiScaleQuantizer) -> tuple[Tensor, Tensor]:
        """(weight of the learned logits and of the odds, squared length of each code)."""
        return torch.cat([self.logits.weight, quantizer.codebook], 1), quantizer.codebook.square().sum(1)

    def _score(
        self,
        aligned: Float[Tensor, "b w g g"],
        missing: Float[Tensor, "b z g g"],
        index: int,
        modulation: Float[Tensor, "b 1 m"],
        codes: tuple[Tensor, Tensor],
    ) -> Float[Tensor, "b s c"]:
        missing = resize_area(missing, self.scales[index])
        maps = resize_area(aligned, self.scales[index]) + self.from_latent(missing)
        x = maps.flatten(2).transpose(1, 2) + self.positions[index]
        parts = modulation.chunk(6, -1)
        for block in self.blocks:
            x = block(x, parts)
        # Odds fall with a code's squared distance to what is missing; as one product with the learned logits.
        trust, (weight, squares) = self.trust[index].exp(), codes
        known = torch.cat([self.norm(x), 2 * trust * missing.flatten(2).transpose(1, 2)], -1)
        return F.linear(known, weight, self.logits.bias - trust * squares)

    def loss(
        self,
        aligned: Float[Tensor, "b w g g"],
        action: Float[Tensor, "b d"],
        latent: Float[Tensor, "b z g g"],
        target: Float[Tensor, "b z g g"],
        last: Float[Tensor, "b z g g"],
        quantized: Quantized,
        scored: Int[Tensor, " s"],
        quantizer: MultiScaleQuantizer,
    ) -> tuple[Tensor, list[Tensor], Tensor]:
        """Cross-entropy of the next frame's tokens, each scale's own mean, and the error of the guess.

        A scale's weight grows with its side, not with its area: coarse tokens decide where things are.

        Args:
            latent: of the frame before, as the model has it.
            target: of the next frame, before quantisation.
            last: of the frame before, in truth and before quantisation.
            quantized: tokens of the next frame, and what the coarser scales (token noise included) add up to.
            scored: rows whose tokens count; the guess counts in all.
        """
        guess = latent + self.guess(aligned)
        totals = [torch.zeros_like(target[scored]), *(total[scored] for total in quantized.totals[:-1])]
        parts = quantized.ids[scored].split(quantizer.splits, dim=1)
        share = mean_of_processes(target.new_tensor(len(scored)))
        losses = [
            F.cross_entropy(
                self(aligned[scored], action[scored], guess[scored] - total, index, quantizer).flatten(0, 1).float(),
                part.flatten(),
                reduction="sum",
            )
            / (share * part.shape[1])
            for index, (total, part) in enumerate(zip(totals, parts, strict=True))
        ]
        total = torch.stack([scale * loss for scale, loss in zip(self.scales, losses, strict=True)]).sum()
        # Relative to copying the last frame: 1 is as good as that.
        error = F.mse_loss(guess.float(), target) / mean_of_processes(F.mse_loss(last, target)).clamp(min=1e-6)
        return total / sum(self.scales), losses, error

    def draw(
        self,
        aligned: Float[Tensor, "b w g g"],
        action: Float[Tensor, "b d"],
        latent: Float[Tensor, "b z g g"],
        quantizer: MultiScaleQuantizer,
        uniforms: Float[Tensor, "b n"] | None,
        temperature: float,
        measure: bool = True,
    ) -> tuple[Int[Tensor, "b n"], Float[Tensor, "b z g g"], Float[Tensor, " b"] | None]:
        """Tokens of the next frame, scale by scale: (ids, the frame's latent, mean entropy in nats).

        Args:
            latent: of the frame before.
            uniforms: one number in [0, 1) for each token: all the randomness there is.
            temperature: 0 takes the likeliest token, and needs no uniforms.
            measure: whether the entropy is wanted; it costs about as much as drawing.
        """
        guess, total = latent + self.guess(aligned), torch.zeros_like(latent)
        # One modulation a scale, of all scales at once; and what is the same for all scales, once.
        modulations = self.modulation(F.silu(self.condition(action)[:, None] + self.scale_embedding.weight))
        codes = self._codes(quantizer)
        drawn, entropies, start = [], [], 0
        for index, count in enumerate(quantizer.splits):
            logits = self._score(aligned, guess - total, index, modulations[:, index : index + 1], codes).float()
            if measure:
                entropies.append(entropy(logits))
            if temperature == 0:
                ids = logits.max(-1).indices  # argmax, two and a half times faster on a CPU
            else:
                assert uniforms is not None
                ids = inverse_cdf(logits / temperature, uniforms[:, start : start + count])
            total = total + quantizer.contribution(ids, index)
            drawn.append(ids)
            start += count
        total = total + self.residual * (guess - total)
        return torch.cat(drawn, 1), total, torch.cat(entropies, 1).mean(1) if measure else None


def zero_init(layer: nn.Conv2d) -> nn.Conv2d:
    """A layer that says nothing yet: weights of a world without it remain good to begin from."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def entropy(logits: Float[Tensor, "*b c"]) -> Float[Tensor, "*b"]:
    """Of each distribution, nats; without taking a logarithm of every probability."""
    odds = logits.softmax(-1)
    # The likeliest has probability exp(its logit) / sum: so log(sum) is its logit less its log-probability.
    return logits.amax(-1) - odds.amax(-1).log() - (odds * logits).sum(-1)


def inverse_cdf(logits: Float[Tensor, "b n c"], uniforms: Float[Tensor, "b n"]) -> Int[Tensor, "b n"]:
    """Sample by inverting the cumulative distribution: one uniform number a token, whatever the vocabulary."""
    cumulative = logits.softmax(-1).cumsum(-1)
    return (
        torch.searchsorted(cumulative, uniforms[..., None] * cumulative[..., -1:])
        .squeeze(-1)
        .clamp_(max=logits.shape[-1] - 1)
    )


class Block(nn.Module):
    """Transformer block, bidirectional, with the action in its normalisation (AdaLN, as VAR and SAMPO++)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 3 * width), nn.GELU(), nn.Linear(3 * width, width))

    def forward(self, x: Float[Tensor, "b n w"], modulation: Sequence[Tensor]) -> Float[Tensor, "b n w"]:
        scale1, shift1, gate1, scale2, shift2, gate2 = modulation
        x = x + (1 + gate1) * self._attend(self.norm1(x) * (1 + scale1) + shift1)
        return x + (1 + gate2) * self.mlp(self.norm2(x) * (1 + scale2) + shift2)

    def _attend(self, x: Tensor) -> Tensor:
        batch, count, width = x.shape
        query, key, value = self.qkv(x).view(batch, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        # Written out: over maps this small it trains four times faster on a CPU than the fused kernel in bfloat16.
        weights = (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1)
        return self.out((weights @ value).transpose(1, 2).reshape(batch, count, width))
