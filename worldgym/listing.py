"""Where worlds are found: bundled, in a folder, or on the hub; and which of them there are. Loads no weights."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from .checkpoint import count_parameters, load_config


def find_world(name: str) -> Path:
    """The folder behind a world's name: a bundled world, a path, or user/name on the hub."""
    bundled = _bundled()
    if (bundled / name / "config.json").exists():
        return bundled / name
    if Path(name).is_dir():
        return Path(name)
    from .hub import is_hub_name, pull  # brings the hub's client, which most never need

    if is_hub_name(name) and not Path(name).parent.is_dir():  # else it is a path with a mistake in it
        return pull(name)
    known = sorted(folder.parent.name for folder in bundled.glob("*/config.json"))
    raise ValueError(f"unknown world {name!r}: neither a folder nor bundled (bundled: {', '.join(known) or 'none'})")


def world_name(folder: Path) -> str:
    """The shortest name by which `find_world` finds a folder."""
    return folder.name if folder.parent == _bundled() else str(folder)


def _bundled() -> Path:
    return Path(str(files("worldgym"))) / "worlds"


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
    bundled = sorted(path.parent for path in _bundled().glob("*/config.json"))
    local = sorted(
        path.parent
        for path in runs.rglob("config.json")
        if (path.parent / "model.safetensors").exists() and path.parent.suffix not in (".tmp", ".old")
    )
    return [_look(folder.name, folder) for folder in bundled] + [_look(str(folder), folder) for folder in local]


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
