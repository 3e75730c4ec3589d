"""A checkpoint is a folder: `model.safetensors`, `config.json`, and the training state next to them for resuming.

Written to a temporary name and renamed, loaded strictly, never a pickle.
"""

import hashlib
import json
import math
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_bytes
from safetensors.torch import load_file
from safetensors.torch import save as save_bytes
from torch import Tensor, nn

from .actions import read_codec
from .config import DynamicsConfig, RecurrentConfig, TokenizerConfig, WorldConfig
from .files import check_room, recover, replacing

FORMAT_VERSION = 1
ALWAYS = ("bpe.json", "starts.npz")
"""Files that every world has, besides its weights and its config."""
READOUTS = "readouts.safetensors"
"""Beside a world whose recurrent state was trained: what training alone reads off it."""
GOALS = "goals.safetensors"
"""The same in an exported world: the heads by which goals are judged."""


def save_checkpoint(
    folder: Path,
    config: WorldConfig,
    weights: dict[str, Tensor],
    stage: str,
    extras: dict[str, bytes] | None = None,
    training: dict[str, Tensor] | None = None,
) -> None:
    """Replace `folder` by a new checkpoint in one rename.

    Args:
        stage: "tokenizer" or "world": how far the training got; only a "world" can dream.
        extras: further small files, name -> content (the BPE, starting states).
        training: tensors needed to resume.
    """
    tensors = [*weights.values(), *(training or {}).values()]
    size = sum(tensor.nbytes for tensor in tensors) + sum(len(content) for content in (extras or {}).values())
    with replacing(folder) as temporary:
        check_room(temporary, size)
        write_tensors(temporary / "model.safetensors", weights)
        if training is not None:
            write_tensors(temporary / "training.safetensors", training)
        for name, content in (extras or {}).items():
            (temporary / name).parent.mkdir(exist_ok=True)
            (temporary / name).write_bytes(content)
        described = {"format": "worldgym", "version": FORMAT_VERSION, "stage": stage, **asdict(config)}
        (temporary / "config.json").write_text(json.dumps(described, indent=1), encoding="utf-8")


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """As safetensors, for whoever may read other files here: safetensors' own `save_file` makes them for their owner
    alone."""
    path.write_bytes(save_bytes({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata))


def load_config(folder: Path) -> tuple[WorldConfig, str]:
    """The world's configuration and its stage; a ValueError says what is wrong with the folder."""
    recover(folder)
    path = folder / "config.json"
    if not path.exists():
        raise FileNotFoundError(f"{folder} is no checkpoint: it has no config.json")
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if not isinstance(described, dict) or described.pop("format", None) != "worldgym":
        raise ValueError(f"{path} does not describe a WorldGym checkpoint; it belongs to another program")
    if (version := described.pop("version", None)) != FORMAT_VERSION:
        raise ValueError(f"{folder} has checkpoint format {version}; this release reads {FORMAT_VERSION}")
    try:
        stage = described.pop("stage")
        return _world_config(described), stage
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} does not fit this release: {error}") from None


def _world_config(described: dict[str, Any]) -> WorldConfig:
    def frozen(cls, values):
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})

    described["tokenizer"] = frozen(TokenizerConfig, described["tokenizer"])
    described["dynamics"] = frozen(DynamicsConfig, described["dynamics"])
    described.pop("draft", None)  # worlds used to have one, which planners looked ahead by
    if described.get("recurrent") is not None:
        described["recurrent"] = frozen(RecurrentConfig, {"points": 0} | described["recurrent"])  # it used to have none
    config = frozen(WorldConfig, described)
    read_codec(config.actions, config.action_size)  # which refuses what it cannot read
    return config


def load_tensors(path: Path) -> dict[str, Tensor]:
    """A safetensors file; truncated or foreign content is a ValueError."""
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing from the checkpoint")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or not a safetensors file: {error}") from None


def file_metadata(path: Path) -> dict[str, str]:
    """What a safetensors file says beside its tensors."""
    with safe_open(path, "pt") as content:
        return content.metadata() or {}


def read_tensors(content: bytes, device: torch.device) -> dict[str, Tensor]:
    """A safetensors file's content; truncated or foreign bytes are a ValueError."""
    try:
        return {name: tensor.to(device) for name, tensor in load_bytes(content).items()}
    except SafetensorError as error:
        raise ValueError(f"these {len(content)} bytes are truncated or not of safetensors: {error}") from None


def load_world(folder: Path, config: WorldConfig) -> dict[str, Tensor]:
    """Weights of a world, as this release has them."""
    weights = load_tensors(folder / "model.safetensors")
    weights = {name: tensor for name, tensor in weights.items() if not name.startswith("draft.")}
    layers = "recurrent.encoder.convolutions."
    if config.recurrent is not None and f"{layers}1.weight" not in weights:  # what lies between them used to count, too
        for name in [name for name in weights if name.startswith(layers)]:
            number, _, kind = name.removeprefix(layers).partition(".")
            weights[f"{layers}{int(number) // 2}.{kind}"] = weights.pop(name)
    if config.dynamics.memory > 1:  # worlds with memory used to judge by the newest frame alone
        blind = torch.zeros(64, config.tokenizer.width, 1, 1)
        weights.setdefault("dynamics.outcome_heads.from_motion.weight", blind)
    if config.phrases:
        return weights
    # Worlds without sentences used to have a policy for them, which nothing had trained.
    return {name: tensor for name, tensor in weights.items() if not name.startswith("dynamics.sentence_policy.")}


def load_weights(model: nn.Module, weights: dict[str, Tensor], source: Path) -> None:
    """Strictly: every parameter must be there with its shape, and nothing else."""
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise ValueError(f"the weights in {source} do not fit its config.json: {error}") from None


def adopt(model: nn.Module, weights: dict[str, Tensor]) -> list[str]:
    """Begin from another model's weights where name and shape agree; returns the names of the other tensors."""
    own = model.state_dict()
    fitting = {name: tensor for name, tensor in weights.items() if name in own and own[name].shape == tensor.shape}
    model.load_state_dict(fitting, strict=False)
    return sorted(own.keys() - fitting.keys())


def decoder_files(folder: Path) -> list[Path]:
    """The files of a decoder, which are JSON and safetensors, in its folder; a FileNotFoundError if it holds none."""
    if not (folder / "decoder.json").exists():
        raise FileNotFoundError(f"{folder} holds no decoder: it has no decoder.json")
    return sorted(path for path in folder.iterdir() if path.suffix in (".json", ".safetensors"))


def export_world(source: Path, target: Path, decoder: Path | None = None) -> None:
    """Write what dreaming needs of a trained world, with weights in half precision.

    Args:
        decoder: folder of a diffusion decoder that was trained for it, to travel with it; the one in `source`, if
            there is one, by default.
    """
    config, stage = load_config(source)
    if stage != "world":
        raise ValueError(f"{source} holds a {stage} only; there is nothing to dream with yet")
    if target.exists() and not (target / "config.json").exists():
        raise FileExistsError(f"{target} exists and is no checkpoint that an export could replace; name another folder")
    extras = {name: (source / name).read_bytes() for name in ALWAYS}
    if decoder is None and (source / "decoder").exists():
        decoder = source / "decoder"
    if decoder is not None:
        for path in decoder_files(decoder):
            whole = path.suffix == ".json"
            content = path.read_bytes() if whole else save_bytes(_halved(load_tensors(path)), {"format": "pt"})
            extras[f"decoder/{path.name}"] = content
    if judge := goal_weights(source):
        extras[GOALS] = save_bytes(_halved(judge), {"format": "pt"})
    save_checkpoint(target, config, _halved(load_world(source, config)), stage, extras)


def companions(folder: Path) -> dict[str, bytes]:
    """What a world has beside its weights and its config, whatever part of it is trained on: name and content."""
    files = {name: (folder / name).read_bytes() for name in ALWAYS}
    if (folder / "decoder").exists():
        files |= {f"decoder/{path.name}": path.read_bytes() for path in decoder_files(folder / "decoder")}
    return files


def goal_weights(folder: Path) -> dict[str, Tensor]:
    """Weights of `model.goal_heads.GoalHeads`; none in a world whose training has left none."""
    if (folder / GOALS).exists():
        return load_tensors(folder / GOALS)
    if not (folder / READOUTS).exists():
        return {}
    readouts = load_tensors(folder / READOUTS)
    return {name: tensor for name, tensor in readouts.items() if name.startswith(("components.", "seen."))}


def _halved(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.half() if tensor.dtype == torch.float32 else tensor for name, tensor in weights.items()}


def training_state(optimizer: torch.optim.Optimizer, step: int) -> dict[str, Tensor]:
    """What a resumed run needs besides the weights, as tensors. Batches follow from (seed, step)."""
    tensors = {"step": torch.tensor(step)}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"{index}.{key}": torch.as_tensor(value) for key, value in state.items()}
    return tensors


def restore_training(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> int:
    """Put the optimiser back to where `training_state` found it; returns the step."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name != "step":
            index, key = name.split(".")
            state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return int(tensors["step"])


def resume(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Go on with what a run left in `folder`, weights and optimiser; returns the step."""
    load_weights(model, load_tensors(folder / "model.safetensors"), folder)
    return restore_training(optimizer, load_tensors(folder / "training.safetensors"))


def count_parameters(weights: Path) -> int:
    """Numbers in a safetensors file, from its header alone."""
    try:
        with safe_open(weights, "pt") as file:
            return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{weights} is truncated or not a safetensors file: {error}") from None


def fingerprint(model: nn.Module) -> str:
    """Tells models apart by their weights: a digest of a few numbers of each tensor, the same on every device.

    A step of training changes every tensor, so a few are as good as all and take milliseconds at any size.
    """
    return _fingerprint(model, sum(tensor._version for tensor in model.state_dict().values()))


@lru_cache(maxsize=8)
def _fingerprint(model: nn.Module, changes: int) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        flat = tensor.flatten()
        few = flat[:: max(1, len(flat) // 32)].double().cpu().numpy()
        digest.update(f"{name} {tuple(tensor.shape)}".encode() + few.tobytes())
    return digest.hexdigest()[:16]
