"""`worldgym list`: the worlds that there are."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class List:
    """List the worlds: the bundled ones and those that training left here.

    For example:
        worldgym list
    """

    runs: Path = Path("runs")
    """Folder to look through."""


def list_worlds(config: List) -> None:
    from .. import listing

    print(listing.format_worlds(listing.list_worlds(config.runs)))
