"""Which worlds there are: the bundled ones, and those that training left under a folder of runs. Loads no weights."""

import math
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open

from .checkpoint import load_config


class Listed(NamedTuple):
    """A line of `worldgym list`."""

    name: str
    """What `gym.make(..., world=name)` takes."""
    stage: str
    """"world", or "tokenizer" if it cannot dream yet; "damaged" with the reason in `twin`."""
    twin: str
    resolution: int
    """Pixels a side."""
    parameters: int
    """Numbers in its weights, the codebook among them."""
    action_size: int
    instructions: int
    phrases: int


def list_worlds(runs: Path) -> list[Listed]:
    """The bundled worlds, then every checkpoint below `runs`, by path."""
    bundled = sorted(path.parent for path in (Path(str(files("worldgym"))) / "worlds").glob("*/config.json"))
    local = sorted(
        path.parent
        for path in runs.rglob("config.json")
        if (path.parent / "model.safetensors").exists() and path.parent.suffix not in (".tmp", ".old")
    )
    return [_look(folder.name, folder) for folder in bundled] + [_look(str(folder), folder) for folder in local]


def count_parameters(weights: Path) -> int:
    """Numbers in a safetensors file, from its header alone."""
    try:
        with safe_open(weights, "pt") as file:
            return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{weights} is truncated or not a safetensors file: {error}") from None


def format_worlds(listed: Sequence[Listed]) -> str:
    """As a table for the terminal."""
    head = ("world", "stage", "twin", "pixels", "parameters", "action", "instructions", "sentences")
    rows = [
        (
            world.name, world.stage, world.twin or "-", str(world.resolution), f"{world.parameters / 1e6:.1f} M",
            str(world.action_size), str(world.instructions), str(world.phrases or "-"),
        )
        for world in listed
    ]  # fmt: skip
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (head, *rows)]
    return "\n".join(line.rstrip() for line in lines)


def _look(name: str, folder: Path) -> Listed:
    try:
        config, stage = load_config(folder)
        parameters = count_parameters(folder / "model.safetensors")
    except ValueError as error:  # one bad folder must not hide the others
        return Listed(name, "damaged", str(error), 0, 0, 0, 0, 0)
    return Listed(
        name, stage, config.twin, config.tokenizer.resolution, parameters, config.action_size,
        len(config.instructions), len(config.phrases),
    )  # fmt: skip
