"""What PAN at full size takes in memory, counted from the real classes without a single weight.

    python benchmarks/pan_memory.py --json benchmarks/results/pan_memory.json

Parameters are counted on torch's meta device. What a decoder layer keeps for its backward pass is measured on a
narrow layer of the same proportions in bfloat16 autocast, and scaled by width and tokens. Not counted: the allocator's
slack, collectives' buffers, CUDA itself (a few GB together).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from diffusers import WanTransformer3DModel
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLModel, UMT5Config, UMT5EncoderModel

from worldgym.bench import num_parameters
from worldgym.decoders.swin import SwinConfig
from worldgym.decoders.wan import Condition, ConditionedWan
from worldgym.results import current_commit, write_results

GB = 1e9
VLM = Qwen2_5_VLConfig(
    text_config={
        "vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
        "num_attention_heads": 28, "num_key_value_heads": 4,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
    },
    vision_config={"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "out_hidden_size": 3584},
)  # fmt: skip
"""Qwen2.5-VL-7B."""
UMT5 = UMT5Config(vocab_size=256384, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64)
"""Wan's text encoder."""


@dataclass(frozen=True)
class Memory:
    """Count what PAN at full size takes."""

    height: int = 480
    width: int = 832
    gpus: tuple[int, ...] = (8, 16, 32)
    """GPUs that share one copy of the model."""
    json: Path | None = None
    """Write the figures here."""


def main(config: Memory) -> dict[str, Any]:
    commit, swin = current_commit(), SwinConfig()
    with torch.device("meta"):
        backbone, reader = Qwen2_5_VLModel._from_config(VLM), UMT5EncoderModel._from_config(UMT5)
        wan = WanTransformer3DModel()  # diffusers' defaults are the 14B
        plain = num_parameters(wan)
        layers, width = len(wan.blocks), wan.config.num_attention_heads * wan.config.attention_head_dim
        decoder = ConditionedWan(wan, VLM.text_config.hidden_size)
    cells = (config.height // 16) * (config.width // 16)
    tokens = (1 + 2 * swin.frames) * cells
    inputs = tokens * width * layers * 2
    layer = layer_bytes_per_channel() * tokens * width
    sizes = {
        "decoder, stage one": plain,
        "decoder, stage two": num_parameters(decoder),
        "backbone": num_parameters(backbone),
        "text encoder": num_parameters(reader),
    }
    frozen = sizes["text encoder"] * 2
    training = {}
    for shards in config.gpus:
        # float32 weights, gradients and two moments; the frozen backbone only weights.
        one = plain * 16 / shards
        two = (sizes["decoder, stage two"] * 16 + sizes["backbone"] * 4) / shards
        training[str(shards)] = {
            "stage one": (one + inputs + layer + frozen) / GB, "stage two": (two + inputs + layer + frozen) / GB,
        }  # fmt: skip
    keys = 2 * layers * (1 + swin.frames) * cells * width * 2 * swin.overlap * 2
    trail = swin.overlap * swin.frames * cells * 4 * 16 * 4
    metrics = {
        "parameters_billions": {name: size / 1e9 for name, size in sizes.items()},
        "tokens_in_a_window": tokens,
        "layer_inputs_gb": inputs / GB,
        "one_layers_activations_gb": layer / GB,
        "training_gb_per_gpu_by_shards": training,
        "inference_weights_gb": (sum(sizes.values()) - plain) * 2 / GB,
        "kept_keys_gb": keys / GB,
        "kept_latents_gb": trail / GB,
    }
    for name, value in metrics.items():
        print(name, value)
    if config.json:
        write_results(config.json, 0, metrics, commit)
    return metrics


def layer_bytes_per_channel() -> float:
    """What a decoder layer keeps for its backward pass, in bytes for each token and channel of its width."""
    torch.manual_seed(0)
    wan = WanTransformer3DModel(
        num_attention_heads=4, ffn_dim=1382, num_layers=1, text_dim=32, in_channels=4, out_channels=4
    )
    layer = ConditionedWan(wan, 64).layers[0]
    tokens, kept = 21 * 24, {}

    def keep(part: torch.Tensor) -> torch.Tensor:
        if not isinstance(part, torch.nn.Parameter):
            kept[part.untyped_storage().data_ptr()] = part.untyped_storage().nbytes()
        return part

    state = Condition(torch.randn(1, 2, 8, 512), torch.randn(1, 2, 8, 512))
    rotation = (torch.randn(1, tokens, 1, 128), torch.randn(1, tokens, 1, 128))
    x = torch.randn(1, tokens, 512, requires_grad=True)
    modulation = torch.randn(1, 21, 6, 512)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda part: part), torch.autocast("cpu", torch.bfloat16):
        layer(x.bfloat16(), state.text, state.state, modulation, rotation, [11 * 24, 10 * 24], None)
    return sum(kept.values()) / tokens / 512


if __name__ == "__main__":
    main(tyro.cli(Memory))
