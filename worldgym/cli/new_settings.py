"""What `worldgym new` can be asked for. Light: the command line reads it without torch."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from ..config import DynamicsConfig, RecurrentConfig, TokenizerConfig
from ..envs_real.settings import Fit, RecordConfig
from ..errors import UserError

SHORTEST = 0.1
"""Minutes."""


@dataclass(frozen=True)
class New:
    """Make a world of an environment: record it, train every stage, let plans act and train on that, evaluate; all
    within the minutes given.

    How many episodes and steps fit is measured on this machine as it goes. A killed run continues where it stood. The
    separate commands (record, train, evaluate) do the same with more to choose from.

    For example:
        worldgym new --env InvertedPendulum-v5 --minutes 30
        worldgym new --env CartPole-v1 --fit pad
    """

    env: str
    """Gymnasium id ("package:id" imports the package first); any that shows pictures."""
    minutes: float = 60.0
    """For everything; a GPU is used where there is one."""
    out: Path | None = None
    """Folder of the run, runs/NAME by default; the world is in its subfolder `drawn`."""
    dataset: str | None = None
    """Minari id of the recording, new/NAME-v0 by default; one that is there already is used as it is."""
    frames: int = 50_000
    """Recorded at most; fewer where they would take more than a tenth of the time."""
    steps: int = 48
    """Steps in each; fewer where the environment ends an episode."""
    resolution: int = 64
    """Pixels a side of the frames."""
    fit: Fit = "crop"
    """How a picture becomes square: "crop" keeps the middle, "pad" adds black bars, "stretch" distorts."""
    picture: str | None = None
    """The entry of its observations that is the picture, where those are a Dict and it renders none."""
    limits: tuple[float, float] | None = None
    """Between which numbers to act where the actions have no bounds of their own: LOW HIGH."""
    policy: str | None = None
    """Who acts next to noise in the recording: see `worldgym record --help`."""
    base: str = "tabletop"
    """World whose weights tokenizer and dynamics begin from, where their sizes agree; "none" to begin from scratch."""
    workers: int = 2
    """Processes that record, and that train the dynamics on a CPU."""
    seed: int = 0
    device: str = "auto"
    """"auto" takes a GPU where there is one."""
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    dynamics: DynamicsConfig = field(default_factory=lambda: DynamicsConfig(memory=3))
    recurrent: RecurrentConfig = field(default_factory=RecurrentConfig)

    def __post_init__(self):
        if self.minutes < SHORTEST:
            raise UserError(f"--minutes is {self.minutes:g}; a world takes {SHORTEST:g} at least, and 30 to be of use")
        if self.frames < 1:
            raise UserError(f"--frames is {self.frames}; it must be positive")
        self.recording()

    @property
    def name(self) -> str:
        """Of the world: the environment's, without package and version."""
        plain = re.sub(r"-v\d+$", "", re.split("[/:]", self.env)[-1])
        return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-") or "world"

    def recording(self) -> RecordConfig:
        """What is recorded, except how many episodes; a UserError if nobody could."""
        return RecordConfig(
            self.dataset or f"new/{self.name}-v0", self.env, 1, self.steps, self.seed, self.resolution,
            fit=self.fit, picture=self.picture, limits=self.limits, policy=self.policy,
            workers=self.workers,
        )  # fmt: skip
