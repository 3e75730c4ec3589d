"""`worldgym serve`: dreams over a network."""

import gymnasium as gym

from ..errors import UserError
from .serve_settings import Serve


def serve(config: Serve) -> None:
    from ..dreams import DreamOptions
    from ..serve.server import Limits, run
    from ..serve.table import Table

    token = None
    if config.token_file is not None:
        token = config.token_file.read_text(encoding="utf-8").strip()
        if not token:
            raise UserError(f"{config.token_file} is empty; `openssl rand -hex 16 > {config.token_file}` makes a token")
    limits = Limits(config.host, config.port, token, config.idle_seconds, config.errors)
    options = DreamOptions(
        config.world,
        instruction=config.instruction,
        action_mode=config.action_mode,
        obs_type=config.obs_type,
        temperature=config.temperature,
        imagined=config.imagined,
        device=config.device,
    )
    run(Table(options, config.capacity, config.max_episode_steps or _steps(config.world)), limits)


def _steps(world: str) -> int:
    """Of an episode, as the id of this world has it."""
    spec = next(
        (one for one in gym.registry.values() if one.kwargs.get("world") == world), gym.spec("worldgym/Dream-v0")
    )
    assert spec.max_episode_steps is not None
    return spec.max_episode_steps
