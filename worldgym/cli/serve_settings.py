"""Settings of `worldgym serve`; light, for the help."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import UserError
from .arguments import TabletopByDefault


@dataclass(frozen=True)
class Serve:
    """Serve dreams of one world to many clients: gym.make("worldgym/Remote-v0", address="HOST:PORT").

    For example:
        worldgym serve tabletop --capacity 64
        worldgym serve hopper --host 0.0.0.0 --token-file token.txt
    """

    world: TabletopByDefault = "tabletop"
    """A bundled world, a checkpoint folder, or user/name on the hub."""
    capacity: int = 64
    """Sessions at a time."""
    max_episode_steps: int | None = None
    """Actions after which an episode is truncated; by default as gym.make has it for this world, or 40."""
    host: str = "127.0.0.1"
    """Where to listen. An address that other machines reach needs --token-file, and a proxy that speaks TLS if what
    lies between is not yours."""
    port: int = 8765
    """0 takes a free one."""
    token_file: Path | None = None
    """File with what clients have to know: gym.make(..., token=...)."""
    idle_seconds: float = 600.0
    """Without a request, after which a session ends."""
    errors: int = 100
    """Mistakes in a row, after which a session ends."""
    instruction: str | None = None
    """What rewards are for, unless a reset says otherwise; the world's first by default."""
    action_mode: Literal["vector", "text", "discrete", "both"] = "vector"
    """What actions are: the world's own, sentences, indices of phrases, or own ones and sentences."""
    obs_type: Literal["pixels", "latent", "both", "state"] = "pixels"
    """What sessions observe."""
    temperature: float = 0.0
    """0 dreams the likeliest future, 1 the learned spread."""
    imagined: bool = False
    """Move the recurrent state alone and draw no frame: many times faster."""
    device: str = "auto"
    """"auto" takes a GPU where there is one."""

    def __post_init__(self):
        if self.capacity < 1:
            raise UserError(f"capacity is {self.capacity}; there must be room for a session")
        if self.max_episode_steps is not None and self.max_episode_steps < 1:
            raise UserError(f"max episode steps are {self.max_episode_steps}; they must be positive")
