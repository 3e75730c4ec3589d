"""`worldgym export`: a trained world as small as dreaming needs it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class Export:
    """Strip a trained world down to what dreaming needs, with weights in half precision.

    For example:
        worldgym export runs/tabletop/world worlds/mine
    """

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="WORLD")]
    """Checkpoint folder that training wrote, a bundled world, or user/name on the hub."""
    target: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="TARGET")]
    """Folder to write."""
    decoder: Path | None = None
    """Folder of a diffusion decoder that was trained for this world, to travel with it; the world's own by default."""


def export(config: Export) -> None:
    from ..checkpoint import export_world
    from ..listing import find_world

    export_world(find_world(config.source), config.target, config.decoder)
    size = (config.target / "model.safetensors").stat().st_size
    print(f"exported {config.target}: {size / 1e6:.2f} MB")
