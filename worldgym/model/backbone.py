"""The temporal part: a Qwen2.5-VL language model over continuous tokens (PAN C1).

It gets embeddings, a mask and space-time positions, and knows nothing of pictures, actions or rewards.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..config import DynamicsConfig
from .cache import KVCache
from .qwen import QwenText


def attention(
    query: Float[Tensor, "b h n d"],
    key: Float[Tensor, "b g m d"],
    value: Float[Tensor, "b g m d"],
    mask: Bool[Tensor, "#b 1 #n past"] | None,
) -> Float[Tensor, "b n h d"]:
    """Masked attention with shared keys and values.

    On a CPU it is written out, heads that share keys as one product: training over sentences is eight times
    faster so than by the fused kernel, over segments a quarter faster.
    """
    if query.is_cuda:
        return F.scaled_dot_product_attention(query, key, value, mask, enable_gqa=True).transpose(1, 2)
    batch, heads, rows, size = query.shape
    groups = key.shape[1]
    scores = query.reshape(batch, groups, -1, size) @ key.transpose(-1, -2) * size**-0.5
    scores = scores.view(batch, heads, rows, -1)
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    out = scores.softmax(-1).view(batch, groups, heads // groups * rows, -1) @ value
    return out.view(batch, heads, rows, size).transpose(1, 2)


def forked_attention(
    query: Float[Tensor, "bc h n d"],
    key: Float[Tensor, "bc g m d"],
    value: Float[Tensor, "bc g m d"],
    trunk_key: Float[Tensor, "b g t d"],
    trunk_value: Float[Tensor, "b g t d"],
    copies: int,
    mask: Bool[Tensor, "#bc 1 #n tm"] | None,
) -> Float[Tensor, "bc n h d"]:
    """`attention` to `trunk ++ own` keys, where c = `copies` neighbours share a trunk: one product for all of them."""
    batch, heads, rows, size = query.shape
    groups, trunk = key.shape[1], trunk_key.shape[2]
    each = heads // groups * rows

    def together(x: Tensor) -> Tensor:
        """[bc, g, each, *] -> [b, g, c * each, *]."""
        return x.unflatten(0, (-1, copies)).transpose(1, 2).flatten(2, 3)

    def apart(x: Tensor) -> Tensor:
        return x.unflatten(2, (copies, each)).transpose(1, 2).flatten(0, 1)

    query = query.reshape(batch, groups, each, size) * size**-0.5
    scores = torch.cat([apart(together(query) @ trunk_key.transpose(-1, -2)), query @ key.transpose(-1, -2)], -1).view(
        batch, heads, rows, -1
    )
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = scores.softmax(-1).view(batch, groups, each, -1)
    out = apart(together(weights[..., :trunk]) @ trunk_value) + weights[..., trunk:] @ value
    return out.view(batch, heads, rows, size).transpose(1, 2)


class Backbone(nn.Module):
    """Qwen2.5-VL's language model, at any size, behind a cache."""

    def __init__(self, config: DynamicsConfig):
        super().__init__()
        self.model = QwenText(config)

    def forward(
        self,
        tokens: Float[Tensor, "b n d"],
        own: Bool[Tensor, "n n"] | None,
        positions: Float[Tensor, "3 #b n"],
        cache: KVCache | None = None,
        keep: int = 0,
    ) -> Float[Tensor, "b n d"]:
        """Hidden states of the tokens.

        Args:
            own: which token (row) sees which (column); None if they all see each other.
            positions: time, row and column of each token.
            cache: the past, all of which they see; the first `keep` of them are added to it.
        """
        if cache is None:
            mask = None if own is None else own[None, None]
            return self.model(tokens, positions, lambda _, query, key, value: attention(query, key, value, mask))

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            assert cache.now is not None
            key, value = cache.update(key, value, layer)
            if (trunk := cache.trunk) is None:
                return attention(query, key, value, cache.now.mask)
            return forked_attention(
                query, key, value, trunk.keys[layer], trunk.values[layer], cache.copies, cache.now.mask
            )

        cache.begin(own, tokens.shape[1])
        hidden = self.model(tokens, positions, attend)
        cache.end(keep)
        return hidden

    def read(self, ids: Int[Tensor, "p l"], lengths: Int[Tensor, " p"]) -> Float[Tensor, "p d"]:
        """Sentences through the language model's own text path: the mean hidden state of each one's tokens.

        The mean, because a small model trained from scratch has not yet learned to gather a sentence in its last
        token: there, "the top left corner" and "the bottom left corner" begin as nearly the same vector.
        """
        length = ids.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril()
        positions = torch.arange(length, device=ids.device, dtype=torch.float).expand(3, len(ids), -1)
        hidden = self(self.model.embed_tokens(ids), causal, positions)
        words = (torch.arange(length, device=ids.device) < lengths[:, None])[..., None]
        return (hidden * words).sum(1) / lengths[:, None]
