"""What training takes on 8, 64 and 960 GPUs: memory, traffic and pace, by arithmetic from pieces counted here.

    worldgym record --dataset worldgym/tabletop-v0 --episodes 100
    python benchmarks/cluster.py --json benchmarks/results/cluster.json

Nothing here ran on a GPU. Counted: the floating-point operations of one segment's loss and gradients in two larger
worlds (PyTorch's FlopCounterMode), what their backward pass keeps, and PAN's parameters, on the meta device. Assumed,
and yours to change by an option: what a GPU and its links can do, and the share of it that training uses.

    step       operations of a GPU's share of the batch / (peak * utilisation)
    traffic    DDP: each GPU sends and receives its gradients once, 2 x 4 bytes a parameter. HSDP (machines of eight
               GPUs): within the machine the weights are gathered twice and the gradients scattered once, in bfloat16, 6
               bytes a parameter; between machines each GPU reduces its eighth of the gradients, 2 x 4 / 8 bytes
    memory     16 bytes a trained parameter (float32 weights, gradients, two moments) over the GPUs that share a copy, 2
               to 4 bytes a frozen one, and what the backward pass keeps

Traffic is hidden behind the arithmetic as far as it is shorter; the table has both, and the pace counts the longer.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import tyro
from pan_memory import VLM, Memory
from pan_memory import main as pan_memory
from section import Results, Section, made_by, markdown
from torch.utils.flop_counter import FlopCounterMode

from worldgym.bench import num_parameters
from worldgym.config import ConversationConfig, DynamicsConfig, SwinConfig
from worldgym.listing import find_world
from worldgym.results import current_commit, write_results
from worldgym.train.dynamics import DynamicsStage
from worldgym.train.settings import DynamicsTraining

WORLDS = {
    "world, 37 M": DynamicsConfig(
        layers=8, width=512, heads=8, kv_heads=2, mlp_width=1408, head_width=384, trunk_layers=4, head_layers=3
    ),
    "world, 170 M": DynamicsConfig(
        layers=12, width=896, heads=14, kv_heads=2, mlp_width=2432, head_width=768, trunk_layers=6, head_layers=4
    ),
}
"""Dynamics over the Tabletop's tokenizer, 64 pixels a side."""
MACHINE = 8
"""GPUs."""


@dataclass(frozen=True)
class Cluster:
    """Count what training takes."""

    dataset: str = "worldgym/tabletop-v0"
    """Minari id of a recording of the Tabletop, of which one segment is used."""
    gpus: tuple[int, ...] = (8, 64, 960)
    peak: float = 989.0
    """TFLOP/s of a GPU in bfloat16, dense (an H100's data sheet)."""
    utilisation: float = 0.35
    """Share of it that training uses; 0.3 to 0.45 is what large trainings report."""
    within: float = 450.0
    """GB/s of a GPU to the others of its machine, each way (NVLink 4)."""
    between: float = 50.0
    """GB/s of a GPU to other machines, each way (one 400 Gb/s link each)."""
    segments: int = 64
    """Segments of a world's batch on each GPU."""
    json: Path | None = None
    """Write the figures here."""


class Load(NamedTuple):
    """What one training asks of each GPU in a step."""

    operations: float
    trained: int
    """Parameters with gradients."""
    state: float
    """Bytes of weights, gradients and moments, all copies' parts together."""
    frozen: float
    """Bytes that every GPU holds whole."""
    kept: float
    """Bytes that the backward pass keeps."""
    items: float
    """Frames, of a world; latent frames, of PAN."""
    tokens: float
    sharded: bool
    """HSDP over a machine's GPUs, else DDP."""


def main(config: Cluster) -> dict[str, Any]:
    commit = current_commit()
    loads = {name: world_load(config, dynamics) for name, dynamics in WORLDS.items()} | pan_loads()
    rows = [asked(config, name, load, gpus) for name, load in loads.items() for gpus in config.gpus]
    for row in rows:
        print(row)
    metrics = {
        "assumed": {name: getattr(config, name) for name in ("peak", "utilisation", "within", "between", "segments")},
        "counted": {name: load._asdict() for name, load in loads.items()},
        "rows": rows,
    }
    if config.json:
        write_results(config.json, 0, metrics, commit)
    return metrics


def asked(config: Cluster, name: str, load: Load, gpus: int) -> dict[str, Any]:
    """A row: of so many GPUs, each with its share of a batch that grows with them."""
    compute = load.operations / (config.peak * 1e12 * config.utilisation)
    if load.sharded:
        inside, outside = 6 * load.trained, 2 * 4 * load.trained / MACHINE if gpus > MACHINE else 0.0
        held = load.state / min(gpus, MACHINE)
    else:
        # A ring through all machines is as fast as its slowest link.
        inside, outside = (2 * 4 * load.trained, 0.0) if gpus <= MACHINE else (0.0, 2 * 4 * load.trained)
        held = load.state
    traffic = inside / (config.within * 1e9) + outside / (config.between * 1e9)
    step = max(compute, traffic)
    return {
        "training": name,
        "gpus": gpus,
        "memory_gb": (held + load.frozen + load.kept) / 1e9,
        "arithmetic_s": compute,
        "traffic_gb": (inside + outside) / 1e9,
        "traffic_s": traffic,
        "items_a_second": gpus * load.items / step,
        "tokens_a_second": gpus * load.tokens / step,
    }


def world_load(config: Cluster, dynamics: DynamicsConfig) -> Load:
    """Of a world's dynamics, from one segment on this machine."""
    training = DynamicsTraining(
        dataset=config.dataset, tokenizer=find_world("tabletop"), out=Path("unused"), batch=1, processes=1,
        self_forcing=0.0, device="cpu", dynamics=dynamics,
    )  # fmt: skip
    stage, kept = DynamicsStage(training, torch.device("cpu")), {}

    def keep(part: torch.Tensor) -> torch.Tensor:
        if not isinstance(part, torch.nn.Parameter):
            kept[part.untyped_storage().data_ptr()] = part.untyped_storage().nbytes()
        return part

    inputs = stage.draw(0, 0, 1)
    with (
        FlopCounterMode(display=False) as counter,
        torch.autocast("cpu", torch.bfloat16),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda part: part),
    ):
        loss = stage.model(*inputs)["loss"]
        loss.backward()
    trained = num_parameters(stage.world.dynamics)
    frames = dynamics.window * config.segments
    tokenizer = stage.world.config.tokenizer
    # What the backbone reads of a frame, an action among it, and what the scale head draws of it.
    tokens = (tokenizer.grid // dynamics.patch) ** 2 + 1 + tokenizer.tokens
    return Load(
        operations=float(counter.get_total_flops() * config.segments),
        trained=trained,
        state=16.0 * trained,
        frozen=4.0 * num_parameters(stage.world.tokenizer),
        kept=float(sum(kept.values()) * config.segments),
        items=frames,
        tokens=frames * tokens,
        sharded=False,
    )


def pan_loads() -> dict[str, Load]:
    """Of PAN's two stages, one window of 21 latent frames on each GPU, every layer computed twice (checkpointing)."""
    counted, swin, asked = pan_memory(Memory()), SwinConfig(), ConversationConfig()
    sizes = {name: int(1e9 * value) for name, value in counted["parameters_billions"].items()}
    tokens, latent = counted["tokens_in_a_window"], 1 + 2 * swin.frames
    layers, width = 40, 5120
    # Queries of the early chunk see the early keys, those of the late chunk all.
    early = (1 + swin.frames) / latent
    seen = early**2 + (1 - early)
    attention = 4 * tokens**2 * width * layers * seen
    passes = 4  # forward, forward again, and twice that backward
    one = passes * (2 * sizes["decoder, stage one"] * tokens + attention)
    kept = 1e9 * (counted["layer_inputs_gb"] + counted["one_layers_activations_gb"])
    frozen = 2.0 * sizes["text encoder"]
    cells = asked.height // 28 * (asked.width // 28) * asked.frames // 2
    conversation = asked.rounds * (cells + 2 * asked.queries)
    # Weights of the language model have no gradients, what flows through them has.
    read = 3 * 2 * sizes["backbone"] * conversation
    read += 3 * 4 * conversation**2 * VLM.text_config.hidden_size * VLM.text_config.num_hidden_layers / 2
    crossing = sizes["decoder, stage two"] - sizes["decoder, stage one"]
    two = one + read + passes * 2 * crossing * tokens
    both = dict(frozen=frozen, kept=kept, items=float(latent), tokens=float(tokens), sharded=True)
    first, second = sizes["decoder, stage one"], sizes["decoder, stage two"]
    return {
        "PAN, stage one": Load(float(one), first, 16.0 * first, **both),
        "PAN, stage two": Load(float(two), second, 16.0 * second + 4.0 * sizes["backbone"], **both),
    }


def _body(results: Results) -> list[str]:
    metrics = results["metrics"]
    assumed = metrics["assumed"]
    rows = [
        [
            row["training"], str(row["gpus"]), f"{row['memory_gb']:.0f}", f"{row['arithmetic_s']:.3g}",
            f"{row['traffic_gb']:.3g}", f"{row['traffic_s']:.2g}", f"{row['items_a_second']:,.0f}",
            f"{row['tokens_a_second']:,.0f}",
        ]
        for row in metrics["rows"]
    ]  # fmt: skip
    head = ["", "GPUs", "GB a GPU", "arithmetic, s", "traffic, GB", "traffic, s", "frames a second", "tokens a second"]
    return [
        f"By arithmetic, not by running it: GPUs of {assumed['peak']:g} TFLOP/s of which training uses "
        f"{assumed['utilisation']:.0%}, {assumed['within']:g} GB/s within a machine of eight and "
        f"{assumed['between']:g} GB/s a GPU between machines. A world has {assumed['segments']} segments on each GPU "
        "and is copied to all (DDP). PAN has one window on each and is sharded over a machine (HSDP); its frames are "
        "latent ones. Arithmetic and traffic are those of a GPU in one step. `benchmarks/cluster.py` has the formulas.",
        "",
        *markdown(head, rows),
        "",
        made_by(results),
    ]


SECTION = Section(
    "What would training take on a cluster?", ("cluster",),
    "python benchmarks/cluster.py --json benchmarks/results/cluster.json", _body,
)  # fmt: skip


if __name__ == "__main__":
    main(tyro.cli(Cluster))
