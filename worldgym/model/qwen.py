"""The language model of Qwen2.5-VL, layer by layer (arXiv 2502.13923; its attention, arXiv 2409.12191).

Parameters and outputs are those of `transformers`' `Qwen2_5_VLTextModel`: its weights load here, and a test says that
both compute the same. It is written out because that library takes longer to import than a world to load, and its
dispatch longer than a small layer to run (docs/decisions.md).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..config import DynamicsConfig

EPSILON = 1e-5
THETA = 10_000.0


Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""How the tokens of a layer meet those that they see: (its number, queries [b, h, n, d], keys and values [b, g, n, d])
-> [b, n, h, d]."""


class RotaryPositions(nn.Module):
    """Angles of time, row and column, each for its share of the frequencies (M-RoPE)."""

    def __init__(self, size: int):
        super().__init__()
        half = size // 2
        space = 3 * half // 8
        axes = torch.arange(3).repeat_interleave(torch.tensor([half - 2 * space, space, space]))
        self.axes = nn.Buffer(axes, persistent=False)
        self.frequencies = nn.Buffer(THETA ** (-torch.arange(half) / half), persistent=False)

    def forward(self, positions: Float[Tensor, "3 b n"]) -> tuple[Tensor, Tensor]:
        """(cosines, sines), [b, 1, n, d / 2] each."""
        angles = (positions[self.axes].movedim(0, -1).float() * self.frequencies)[:, None]
        return angles.cos(), angles.sin()


def rotate(x: Float[Tensor, "b h n d"], rotation: tuple[Tensor, Tensor]) -> Float[Tensor, "b h n d"]:
    """Each pair of the first and the second half turns by its angle."""
    (one, other), (cos, sin) = x.chunk(2, -1), (part.to(x.dtype) for part in rotation)
    return torch.cat([one * cos - other * sin, other * cos + one * sin], -1)


class RMSNorm(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        # In float32 also under autocast, then back to the precision that came in.
        return F.rms_norm(x.float(), self.weight.shape, self.weight, EPSILON).to(x.dtype)


class Attention(nn.Module):
    """Grouped-query attention; the caller gives the mask."""

    def __init__(self, config: DynamicsConfig, layer: int):
        super().__init__()
        self.layer, self.size = layer, config.width // config.heads
        self.q_proj = nn.Linear(config.width, config.width)
        self.k_proj = nn.Linear(config.width, config.kv_heads * self.size)
        self.v_proj = nn.Linear(config.width, config.kv_heads * self.size)
        self.o_proj = nn.Linear(config.width, config.width, bias=False)

    def forward(self, x: Float[Tensor, "b n d"], rotation: tuple[Tensor, Tensor], attend: Attend) -> Tensor:
        query, key, value = (
            project(x).unflatten(-1, (-1, self.size)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        seen = attend(self.layer, rotate(query, rotation), rotate(key, rotation), value)
        return self.o_proj(seen.flatten(2))


class GatedMLP(nn.Module):
    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, config: DynamicsConfig, layer: int):
        super().__init__()
        self.self_attn = Attention(config, layer)
        self.mlp = GatedMLP(config.width, config.mlp_width)
        self.input_layernorm = RMSNorm(config.width)
        self.post_attention_layernorm = RMSNorm(config.width)

    def forward(self, x: Float[Tensor, "b n d"], rotation: tuple[Tensor, Tensor], attend: Attend) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rotation, attend)
        return x + self.mlp(self.post_attention_layernorm(x))


class QwenText(nn.Module):
    """The whole: embedded tokens in, hidden states out."""

    def __init__(self, config: DynamicsConfig):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocabulary, config.width)
        self.layers = nn.ModuleList(Layer(config, index) for index in range(config.layers))
        self.norm = RMSNorm(config.width)
        self.rotary = RotaryPositions(config.width // config.heads)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(
        self, tokens: Float[Tensor, "b n d"], positions: Float[Tensor, "3 #b n"], attend: Attend
    ) -> Float[Tensor, "b n d"]:
        """Hidden states.

        Args:
            positions: time, row and column of each token.
        """
        x, rotation = tokens, self.rotary(positions)
        for layer in self.layers:
            x = layer(x, rotation, attend)
        return self.norm(x)
