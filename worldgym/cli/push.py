"""`worldgym push`: a world on the Hugging Face hub."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class Push:
    """Share a world on the Hugging Face hub, with a model card; `hf auth login` first.

    For example:
        worldgym push worlds/mine user/mine --results figures.json
    """

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """Checkpoint folder; `worldgym export` makes one of half the size."""
    repo: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="USER/NAME")]
    """Repository on the hub; made if it does not exist."""
    licence: str = "mit"
    """An identifier that the hub knows."""
    results: tuple[Path, ...] = ()
    """Files of figures for the card, from --json of `evaluate` and `plan`."""
    data: str = ""
    """A sentence for the card: what the world was trained on."""
    private: bool = False
    """Make a new repository private."""


def push(config: Push) -> None:
    from .. import hub

    print(hub.push(config.folder, config.repo, config.licence, config.results, config.data, config.private))
