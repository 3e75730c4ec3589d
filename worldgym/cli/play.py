"""`worldgym play`: a dream in a browser."""

from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from .arguments import TabletopByDefault

if TYPE_CHECKING:
    from ..play.pan import PanSession


@dataclass(frozen=True)
class Play:
    """Play with a dream in a browser: act by keys or sentences, pause, rewind, fork, compare with MuJoCo, record.

    For example:
        worldgym play
        worldgym play hopper --frames-per-second 5
        worldgym play runs/pan/joint --starts clips --instruction "the drawer is open"
    """

    world: TabletopByDefault = "tabletop"
    """A bundled world, a checkpoint folder, or user/name on the hub; or the folder of a trained PAN."""
    instruction: str | None = None
    """What rewards are for; the world's first by default. Of PAN: what the picture should show."""
    starts: Path | None = None
    """Folder of clips that PAN begins from; other worlds have starts of their own."""
    seed: int = 0
    """Of the first episode."""
    twin: bool = True
    """Step the true environment along with the dream, if the world has a twin that can be rewound."""
    port: int = 8321
    """Where the page is: http://127.0.0.1:PORT."""
    frames_per_second: int = 10
    """Steps of time that pass in a second while something is being done."""
    recordings: Path = Path("runs/play")
    """Where GIFs and MP4s go; Minari datasets go where Minari keeps them."""
    device: str = "auto"
    """"auto" takes a GPU where there is one."""

    def __post_init__(self):
        if not 0 < self.port < 2**16:
            raise UserError(f"port is {self.port}; it must be between 1 and 65535")
        if self.frames_per_second < 1:
            raise UserError(f"frames per second are {self.frames_per_second}; they must be positive")


def play(config: Play) -> None:
    from ..envs_real.twins import twin_kind, twin_of
    from ..play.page import run
    from ..play.session import Session
    from ..starts import bundled_starts
    from ..world import WorldModel

    def make_session() -> Session:
        if (Path(config.world) / "pan.json").exists():
            return _with_pan(config)
        if config.starts is not None:
            raise UserError(f"--starts is for PAN, and {config.world} is none: it has no pan.json")
        world = WorldModel.load(config.world, config.device)
        starts = bundled_starts(config.world, world.config)
        twin: Any = None
        controller = None
        try:
            if config.twin and world.config.twin:
                twin = twin_of(world.config)
                if (kind := twin_kind(world.config.twin)).controller is not None:
                    controller = resolve_name(kind.controller)(twin.unwrapped)
            return Session(world, starts, twin, controller, config.seed, config.instruction)
        except UserError as error:
            raise UserError(f"{error}. Or play without the twin: --no-twin") from error

    run(make_session, config.recordings, config.port, config.frames_per_second)


def _with_pan(config: Play) -> "PanSession":
    from ..pan.dreams import PanOptions
    from ..play.pan import PanSession

    if config.instruction is None or config.starts is None:
        raise UserError(
            f"{config.world} is a PAN: pass --starts, a folder of clips to begin from, and --instruction, what the "
            "picture should show"
        )
    options = PanOptions(config.world, config.instruction, starts=str(config.starts), device=config.device)
    return PanSession(options, config.seed)
