"""The temporal part: a Qwen2.5-VL language model over continuous tokens (PAN C1), and its cache.

The same class serves every size; nano trains one from scratch. It gets embeddings, a mask and space-time
positions, and knows nothing of pictures, actions or rewards.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AttentionInterface, Qwen2_5_VLTextConfig, Qwen2_5_VLTextModel

from .config import DynamicsConfig


class KVCache:
    """Keys and values of the past, in slots, with each dream as far along as it is.

    One forward pass appends to it: `begin` says where, the model's layers call `update`, and of the new tokens
    only the first `keep` are written: queries are seen by this pass and by no later one.
    """

    def __init__(self, keys: Tensor, values: Tensor):
        self.keys = keys
        """[layers, b, kv_heads, slots, head_dim]."""
        self.values = values
        self.used = 0
        self.age = 0
        """Steps written so far; a state that is younger has been left behind."""
        self._slots: Tensor | slice = slice(0, 0)
        self._keep = 0

    @classmethod
    def empty(cls, config: DynamicsConfig, batch: int, slots: int, like: Tensor) -> "KVCache":
        shape = (config.layers, batch, config.kv_heads, slots, config.width // config.heads)
        return cls(like.new_zeros(shape), like.new_zeros(shape))

    def begin(self, starts: list[int], keep: int) -> None:
        """Prepare to append `keep` tokens at slot `starts[i]` of dream i."""
        self.used, self._keep = max(starts), keep
        if min(starts) == self.used:
            self._slots = slice(self.used, self.used + keep)
        else:
            self._slots = torch.tensor(starts, device=self.keys.device)[:, None] + torch.arange(
                keep, device=self.keys.device
            )

    def update(self, keys: Tensor, values: Tensor, layer: int, *args, **kwargs) -> tuple[Tensor, Tensor]:
        """What `transformers` calls in each layer: past and new keys and values, [b, kv_heads, used + n, d]."""
        seen = [
            torch.cat([past[layer, :, :, : self.used], new.to(past.dtype)], 2)
            for past, new in ((self.keys, keys), (self.values, values))
        ]
        for past, new in ((self.keys, keys), (self.values, values)):
            new = new[:, :, : self._keep].to(past.dtype)
            if isinstance(self._slots, slice):
                past[layer, :, :, self._slots] = new
            else:
                index = self._slots[:, None, :, None].expand_as(new)
                past[layer].scatter_(2, index, new)
        return seen[0], seen[1]

    def select(self, dreams: Tensor) -> "KVCache":
        """A copy with these dreams, in this order."""
        return KVCache(self.keys[:, dreams], self.values[:, dreams])

    def put(self, dreams: Tensor, other: "KVCache") -> None:
        """Overwrite these dreams by those of another cache of the same capacity."""
        self.keys[:, dreams], self.values[:, dreams] = other.keys, other.values


def attention(
    module: nn.Module,
    query: Float[Tensor, "b h n d"],
    key: Float[Tensor, "b g m d"],
    value: Float[Tensor, "b g m d"],
    attention_mask: Tensor,
    scaling: float,
    **unused,
) -> tuple[Float[Tensor, "b n h d"], None]:
    """Masked attention with shared keys and values, as `transformers` calls it.

    On a CPU it is written out, heads that share keys as one product: training over sentences is eight times
    faster so than by the fused kernel, over segments a quarter faster.
    """
    if query.is_cuda:
        out = F.scaled_dot_product_attention(query, key, value, attention_mask, scale=scaling, enable_gqa=True)
        return out.transpose(1, 2), None
    batch, heads, rows, size = query.shape
    groups = key.shape[1]
    scores = query.reshape(batch, groups, -1, size) @ key.transpose(-1, -2) * scaling
    scores = scores.view(batch, heads, rows, -1).masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    out = scores.softmax(-1).view(batch, groups, heads // groups * rows, -1) @ value
    return out.view(batch, heads, rows, size).transpose(1, 2), None


AttentionInterface.register("worldgym", attention)


class Backbone(nn.Module):
    """`Qwen2_5_VLTextModel` at any size."""

    def __init__(self, config: DynamicsConfig):
        super().__init__()
        half = config.width // config.heads // 2
        space = 3 * half // 8
        self.model = Qwen2_5_VLTextModel(
            Qwen2_5_VLTextConfig(
                vocab_size=config.vocabulary,
                hidden_size=config.width,
                intermediate_size=config.mlp_width,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                num_key_value_heads=config.kv_heads,
                rope_parameters={
                    "rope_type": "default",
                    "rope_theta": 10000.0,
                    "mrope_section": [half - 2 * space, space, space],
                },
                attn_implementation="worldgym",  # type: ignore[call-arg]  # its base class takes it
                bos_token_id=None,
                eos_token_id=None,
            )
        )

    def forward(
        self,
        tokens: Float[Tensor, "b n d"],
        mask: Tensor,
        positions: Float[Tensor, "3 #b n"],
        cache: KVCache | None = None,
    ) -> Float[Tensor, "b n d"]:
        """Hidden states of the tokens.

        Args:
            mask: bool [b or 1, 1, n, past + n], True where a row may look at a column.
            positions: time, row and column of each token.
            cache: the past; this pass is written into it as `cache.begin` said.
        """
        return self.model(
            inputs_embeds=tokens,
            attention_mask={"full_attention": mask},
            position_ids=positions,
            past_key_values=cache,
            use_cache=False,
        ).last_hidden_state

    def read(self, ids: Int[Tensor, "p l"], lengths: Int[Tensor, " p"]) -> Float[Tensor, "p d"]:
        """Sentences through the language model's own text path: the mean hidden state of each one's tokens.

        The mean, because a small model trained from scratch has not yet learned to gather a sentence in its last
        token: there, "the top left corner" and "the bottom left corner" begin as nearly the same vector.
        """
        length = ids.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril()
        positions = torch.arange(length, device=ids.device, dtype=torch.float).expand(3, len(ids), -1)
        hidden = self(self.model.embed_tokens(ids), causal[None, None], positions)
        words = (torch.arange(length, device=ids.device) < lengths[:, None])[..., None]
        return (hidden * words).sum(1) / lengths[:, None]
