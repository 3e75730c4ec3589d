"""`worldgym new`: a world of any environment, in one command and a given time."""

from typing import Any

from .new_settings import New


def new(config: New) -> dict[str, Any]:
    from .new_world import make_world

    return make_world(config)
