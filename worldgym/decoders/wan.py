"""The video diffusion transformer: `diffusers`' Wan, with a cross-attention on the predicted state (PAN 3.3.2).

Every block of Wan attends to the action's words. Here it also attends to the state, by a copy of the same
cross-attention whose output passes through a linear layer that begins at zero. So it starts as the Wan that was
loaded, to the last bit. Three more things that Wan's own `forward` cannot do: a noise level for each frame, chunks that
never attend to a later chunk and have their own action and state, and keys and values from before.
"""

import copy
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from diffusers import WanTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanTransformerBlock
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..checkpoint import load_tensors, load_weights, write_tensors
from .flow import TIMESTEPS

STATE_FILE = "state_attention.safetensors"

Keys = list[tuple[Tensor, Tensor]]
"""For each layer, keys and values of earlier chunks, [b, heads, n, d] each."""


class Condition(NamedTuple):
    """What the frames of some chunks are to show; the first axes are [b, chunks]."""

    text: Float[Tensor, "b n l t"]
    """The action's words, as the text encoder has them."""
    state: Float[Tensor, "b n k s"] | None = None
    """The predicted state's tokens; None asks for no state."""
    aligned: Float[Tensor, "b c f h w"] | None = None
    """Further input channels, frame by frame and cell by cell (as in Wan's image-to-video models)."""


class StateAttention(nn.Module):
    """Cross-attention of a block on the state, copied from the one on the words; adds nothing at first."""

    def __init__(self, attention: nn.Module, width: int):
        super().__init__()
        self.attention = copy.deepcopy(attention)
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        return self.out(look(self.attention, x, state))


class Layer(nn.Module):
    """A block of Wan and its look at the state. The unit that is sharded and checkpointed."""

    def __init__(self, block: WanTransformerBlock, width: int, sees_state: bool):
        super().__init__()
        self.block, self.state = block, StateAttention(block.attn2, width) if sees_state else None

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        text: Float[Tensor, "b m l d"],
        state: Float[Tensor, "b m k d"] | None,
        modulation: Float[Tensor, "b f 6 d"],
        rotation: tuple[Tensor, Tensor],
        chunks: list[int],
        past: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The next hidden states, and this layer's keys and values of these tokens.

        Args:
            chunks: how many tokens belong to each chunk; a chunk sees itself and what is before it.
        """
        block, frames = self.block, modulation.shape[1]
        shift1, scale1, gate1, shift2, scale2, gate2 = (block.scale_shift_table + modulation.float()).unbind(2)

        def by_frame(tokens: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
            """One modulation a frame: one a token would take gigabytes at full size."""
            return (tokens.unflatten(1, (frames, -1)) * scale[:, :, None] + shift[:, :, None]).flatten(1, 2)

        seen, kept = self._attend(
            by_frame(block.norm1(x.float()), 1 + scale1, shift1).type_as(x), rotation, chunks, past
        )
        x = (x.float() + by_frame(seen.float(), gate1, torch.zeros_like(gate1))).type_as(x)

        told = []
        for index, part in enumerate(block.norm2(x.float()).type_as(x).split(chunks, 1)):
            heard = look(block.attn2, part, text[:, index])
            told.append(heard if state is None or self.state is None else heard + self.state(part, state[:, index]))
        x = x + torch.cat(told, 1)

        thought = block.ffn(by_frame(block.norm3(x.float()), 1 + scale2, shift2).type_as(x))
        return (x.float() + by_frame(thought.float(), gate2, torch.zeros_like(gate2))).type_as(x), kept

    def _attend(
        self, x: Tensor, rotation: tuple[Tensor, Tensor], chunks: list[int], past: tuple[Tensor, Tensor] | None
    ):
        """Self-attention that is causal over chunks: each chunk's queries meet keys up to the chunk's own end.

        One product a chunk and no mask: at full size a mask alone would take a gigabyte.
        """
        attention = self.block.attn1
        query, key, value = heads(attention, x, x)
        query, key = rotate(query, rotation), rotate(key, rotation)
        query, key, value = (part.transpose(1, 2) for part in (query, key, value))
        kept = key, value
        if past is not None:
            key, value = torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)
        seen, end = [], key.shape[2] - x.shape[1]
        for part in query.split(chunks, 2):
            end += part.shape[2]
            seen.append(F.scaled_dot_product_attention(part, key[:, :, :end], value[:, :, :end]))
        return attention.to_out[0](torch.cat(seen, 2).transpose(1, 2).flatten(2).type_as(x)), kept


class ConditionedWan(nn.Module):
    """Wan that is shown a state. Make one from a Wan, or `load` one by folder or hub name.

    Args:
        state_width: of the state's tokens; None makes a decoder that is never shown a state, as in the first stage.
    """

    def __init__(self, wan: WanTransformer3DModel, state_width: int | None):
        super().__init__()
        config = wan.config
        if config.patch_size[0] != 1 or config.image_dim is not None or config.added_kv_proj_dim is not None:
            raise ValueError(
                f"this Wan has patch size {config.patch_size} and image conditioning {config.image_dim}; the decoder "
                "takes a text-to-video model whose patches are one latent frame deep"
            )
        width = config.num_attention_heads * config.attention_head_dim
        self.layers = nn.ModuleList(Layer(block, width, state_width is not None) for block in wan.blocks)
        self.wan = wan
        wan.blocks = nn.ModuleList()
        self.from_state = None if state_width is None else nn.Linear(state_width, width)
        self.gradient_checkpointing = False

    @classmethod
    def load(cls, name: str, state_width: int | None, dtype: torch.dtype = torch.float32) -> "ConditionedWan":
        """From a hub name or folder in diffusers' format: the transformer's own or a pipeline's.

        With a folder of the second stage, the state attention is that of the file; otherwise it starts at nothing.
        """
        folder = Path(name)
        subfolder = "" if (folder / "config.json").exists() else "transformer"
        wan = WanTransformer3DModel.from_pretrained(name, subfolder=subfolder, torch_dtype=dtype)
        model = cls(wan, state_width)
        if state_width is not None:
            added = _StateOnly(model).to(dtype)
            if (folder / STATE_FILE).exists():
                load_weights(added, load_tensors(folder / STATE_FILE), folder / STATE_FILE)
        return model

    def holding(self, weights: dict[str, Tensor]) -> "ConditionedWan":
        """The same decoder with other weights: those of a whole model that was trained in shards."""
        with torch.device("meta"):
            wan = WanTransformer3DModel.from_config(self.wan.config)
            fresh = ConditionedWan(wan, None if self.from_state is None else self.from_state.in_features)
        fresh.load_state_dict(weights, assign=True)
        return fresh

    def save(self, folder: Path) -> None:
        """Write a folder that diffusers' `WanTransformer3DModel.from_pretrained` reads, too; the weights of the
        state's attention are in a file of their own."""
        self.wan.blocks = nn.ModuleList(layer.block for layer in self.layers)
        try:
            self.wan.save_pretrained(folder)
        finally:
            self.wan.blocks = nn.ModuleList()
        if self.from_state is not None:
            state = _StateOnly(self).state_dict()
            write_tensors(folder / STATE_FILE, state)

    @property
    def channels(self) -> int:
        """Of a latent frame."""
        return self.wan.config.out_channels

    def forward(
        self,
        latents: Float[Tensor, "b c f h w"],
        levels: Float[Tensor, "b f"],
        condition: Condition,
        chunks: tuple[int, ...],
        past: Keys | None = None,
    ) -> tuple[Float[Tensor, "b o f h w"], Keys]:
        """Velocity of each frame at its own noise level, and the keys and values of these frames.

        Args:
            chunks: latent frames in each chunk; what is condition number i is seen by chunk i alone.
            past: keys and values of the frames before these in the window, of which they are a continuation.
        """
        wan, (batch, _, frames, height, width) = self.wan, latents.shape
        if condition.aligned is not None:
            latents = torch.cat([latents, condition.aligned.to(latents)], 1)
        if latents.shape[1] != wan.config.in_channels:
            raise ValueError(f"latents have {latents.shape[1]} channels; this decoder takes {wan.config.in_channels}")
        x = wan.patch_embedding(latents.to(wan.patch_embedding.weight.dtype)).flatten(2).transpose(1, 2).contiguous()
        cells = x.shape[1] // frames
        before = 0 if past is None else past[0][0].shape[2]
        # The rotation depends on the shape alone: that of the whole window, of which these frames are the end.
        window = torch.empty(1, 1, before // cells + frames, height, width, device="meta")
        rotation = tuple(part[:, before:].to(x.device) for part in wan.rope(window))

        words = condition.text.shape[1:3]
        time, modulation, text, _ = wan.condition_embedder(
            (levels * TIMESTEPS).flatten(), condition.text.flatten(1, 2).to(x), None, timestep_seq_len=frames
        )
        text, modulation = text.unflatten(1, words), modulation.unflatten(2, (6, -1))
        if condition.state is not None and self.from_state is None:
            raise ValueError("this decoder was made without a state to look at; load it with a state_width")
        state = self.from_state(condition.state.to(x)) if self.from_state and condition.state is not None else None
        sizes, keys = [cells * count for count in chunks], []
        for index, layer in enumerate(self.layers):
            given = (x, text, state, modulation, rotation, sizes, None if past is None else past[index])
            if self.gradient_checkpointing and torch.is_grad_enabled():
                x, kept = checkpoint(layer, *given, use_reentrant=False)
            else:
                x, kept = layer(*given)
            keys.append(kept)

        shift, scale = (wan.scale_shift_table + time.float()[:, :, None]).unbind(2)
        x = wan.norm_out(x.float()).unflatten(1, (frames, cells)) * (1 + scale[:, :, None]) + shift[:, :, None]
        x = wan.proj_out(x.to(wan.proj_out.weight.dtype)).type_as(latents)
        _, rows, columns = wan.config.patch_size
        x = x.view(batch, frames, height // rows, width // columns, rows, columns, -1)
        return x.permute(0, 6, 1, 2, 4, 3, 5).reshape(batch, -1, frames, height, width), keys


def heads(attention: nn.Module, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of one of Wan's attentions, [b, n, heads, d] each.

    Wan normalises over all heads together; here that is done in the precision of the norm's weights, whatever the rest
    runs in.
    """
    query, key, value = attention.to_q(x), attention.to_k(context), attention.to_v(context)
    query, key = (
        norm(part.to(norm.weight.dtype)).type_as(value)
        for norm, part in ((attention.norm_q, query), (attention.norm_k, key))
    )
    query, key, value = (part.unflatten(2, (attention.heads, -1)) for part in (query, key, value))
    return query, key, value


def look(attention: nn.Module, x: Tensor, context: Tensor) -> Tensor:
    """Cross-attention: every token of x meets all of the context."""
    query, key, value = (part.transpose(1, 2) for part in heads(attention, x, context))
    return attention.to_out[0](F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


def rotate(x: Float[Tensor, "b n h d"], rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary positions, in Wan's pairing: neighbours turn together."""
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = rotation[0][..., 0::2], rotation[1][..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2).type_as(x)


class _StateOnly(nn.Module):
    """What PAN adds to Wan, under names of its own."""

    def __init__(self, model: ConditionedWan):
        super().__init__()
        self.from_state = model.from_state
        self.layers = nn.ModuleList(layer.state for layer in model.layers)
