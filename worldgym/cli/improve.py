"""`worldgym improve`: a world learns from what a planner does in it."""

from typing import Any

from .improve_settings import Improve


def improve(config: Improve) -> dict[str, Any]:
    from .improvement import improve_in_rounds

    return improve_in_rounds(config)
