"""The language model that is written out here is the library's, weights and outputs."""

import pytest
import torch
from transformers import Qwen2_5_VLTextConfig, Qwen2_5_VLTextModel

from worldgym.config import DynamicsConfig
from worldgym.model.backbone import Backbone
from worldgym.model.cache import KVCache


@pytest.fixture(params=[(1, 32), (2, 64)], ids=["one key head", "two"])
def pair(request):
    """The library's model with random weights, and ours with the same."""
    kv_heads, size = request.param
    torch.manual_seed(0)
    half = size // 2
    space = 3 * half // 8
    theirs = Qwen2_5_VLTextModel(
        Qwen2_5_VLTextConfig(
            vocab_size=60, hidden_size=4 * size, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=kv_heads, bos_token_id=None, eos_token_id=None, attn_implementation="eager",
            rope_parameters={
                "rope_type": "default", "rope_theta": 10000.0, "mrope_section": [half - 2 * space, space, space],
            },
        )
    ).eval()  # fmt: skip
    with torch.no_grad():
        for part in theirs.parameters():
            part.add_(torch.randn_like(part) * 0.1)  # also of norms and biases, which begin alike
    config = DynamicsConfig(layers=2, width=4 * size, heads=4, kv_heads=kv_heads, mlp_width=96, vocabulary=60)
    ours = Backbone(config).eval()
    ours.model.load_state_dict(theirs.state_dict(), strict=True)
    return theirs, ours, config


@torch.no_grad()
def test_hidden_states_are_the_librarys(pair):
    theirs, ours, config = pair
    tokens, positions = torch.randn(3, 7, config.width), torch.randint(0, 20, (3, 3, 7)).float()
    own = torch.rand(7, 7) > 0.5
    own |= torch.eye(7, dtype=torch.bool)
    for mask in (None, own):
        told = torch.zeros(1, 1, 7, 7)
        if mask is not None:
            told = told.masked_fill(~mask, torch.finfo(torch.float32).min)
        expected = theirs(
            inputs_embeds=tokens, attention_mask={"full_attention": told}, position_ids=positions, use_cache=False
        ).last_hidden_state
        torch.testing.assert_close(ours(tokens, mask, positions), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_through_the_cache_too(pair):
    theirs, ours, config = pair
    tokens, positions = torch.randn(2, 7, config.width), torch.arange(7.0).expand(3, 1, 7)
    causal = torch.ones(7, 7).tril().bool()
    told = torch.zeros(1, 1, 7, 7).masked_fill(~causal, torch.finfo(torch.float32).min)
    expected = theirs(
        inputs_embeds=tokens, attention_mask={"full_attention": told}, position_ids=positions.expand(3, 2, 7),
        use_cache=False,
    ).last_hidden_state  # fmt: skip
    cache = KVCache.empty(config, 2, 8, tokens)
    parts = []
    for start, end in ((0, 3), (3, 4), (4, 7)):
        own = causal[start:end, start:end]
        parts.append(ours(tokens[:, start:end], own, positions[..., start:end], cache, keep=end - start))
    torch.testing.assert_close(torch.cat(parts, 1), expected, atol=1e-4, rtol=1e-4)
