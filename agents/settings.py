"""The settings of `worldgym learn`, `rank` and `transfer`. Light, so that `worldgym --help` is fast."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from worldgym.errors import UserError

from . import AGENTS


@dataclass(frozen=True)
class Learning:
    """Train an agent in a dream or on true physics; judge it on true physics.

    For example:
        worldgym learn tabletop --agent sac
        worldgym learn tabletop --in mujoco --out runs/real
        tensorboard --logdir runs/learn
    """

    world: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="WORLD")]
    """A bundled world, a checkpoint folder, or user/name on the hub."""
    agent: Annotated[
        str,
        tyro.conf.arg(
            metavar=f"{{{','.join(AGENTS)}}}",
            help="Who learns. " + "; ".join(f'"{name}": {kind.about}' for name, kind in AGENTS.items()) + ".",
        ),
    ] = "sac"
    where: Annotated[Literal["dream", "mujoco"], tyro.conf.arg(name="in")] = "dream"
    """Where it acts while it learns: in the dream, or on the twin."""
    instruction: str | None = None
    """What it learns, and is judged by. By default the only one there is, or "reach the centre"."""
    starts: str | None = None
    """Id of a Minari dataset that dreams begin from; by default the frames that come with the world."""
    horizon: int | None = None
    """Steps after which a dream restarts, for worlds in which long dreams drift. By default a dream lasts as long as an
    episode of the twin, or 40 steps where the twin has no limit."""
    sees: Literal["latent", "state", "pixels"] | None = None
    """"latent": the world's fused map, made of real frames by its tokenizer. "state": its recurrent state, which
    filtered all that was seen; dreams then draw no frame and take a hundredth of the time. "pixels" take ten times as
    long. By default the latent, and the state of an agent that sees nothing else."""
    steps: int = 8_000
    """Of all environments together. An existing run continues up to this number."""
    discount: float = 0.9
    """Of rewards a step later: 0.9 looks ten steps ahead."""
    updates: float | None = None
    """Gradient steps of sac and mbpo for each step of an environment; 0.5 of sac and 2 of mbpo by default."""
    real_ratio: float = 0.2
    """Of mbpo's batches, the share that is real."""
    refit: int | None = None
    """Real steps of mbpo between two refits of the world on the agent's own experience; none by default."""
    episodes: int = 50
    """Judged on the twin at the end."""
    seed: int = 0
    """Of the agent and its episodes."""
    save_every: int = 2_000
    """Steps from one checkpoint to the next."""
    out: Path = Path("runs/learn")
    """Where agent, replay buffer, TensorBoard's log, figures (run.json) and video go."""
    json: Path | None = None
    """Write the figures here, with command, commit and hardware."""

    def __post_init__(self):
        if self.agent not in AGENTS:
            raise UserError(f"unknown agent {self.agent!r}; there are {', '.join(AGENTS)}")
        kind = AGENTS[self.agent]
        if self.sees is None:
            object.__setattr__(self, "sees", kind.sees[0])
        for name, asked, can in (("in", self.where, kind.where), ("sees", self.sees, kind.sees)):
            if asked not in can:
                raise UserError(f"{self.agent} learns with --{name} {' or '.join(can)} only, not with {asked}")
        for name in ("updates", "real_ratio", "refit"):
            if name not in kind.takes and getattr(self, name) != getattr(Learning, name):
                others = " and ".join(other for other, one in AGENTS.items() if name in one.takes)
                raise UserError(f"{self.agent} has no --{name.replace('_', '-')}; that is of {others}")
        if self.horizon is not None and self.horizon < 1:
            raise UserError(f"horizon is {self.horizon}; it must be positive")
        if self.steps < 1 or self.episodes < 1 or self.save_every < 1:
            raise UserError("learning takes at least one of --steps, of --episodes and of --save-every")
        if not 0.0 <= self.discount < 1.0 or (self.updates is not None and self.updates <= 0.0):
            raise UserError(f"discount is {self.discount}, from 0 to below 1, and updates {self.updates}, above 0")
        if self.refit is not None and self.refit < 1:
            raise UserError(f"refit is {self.refit}; it is a number of real steps")
        if self.where == "mujoco" and (self.starts, self.horizon) != (None, None):
            raise UserError("--starts and --horizon are of dreams; on the twin episodes are as it has them")


@dataclass(frozen=True)
class Rank:
    """Ask a world whether it ranks policies as reality does: many of every quality act in both, from the same first
    frames.

    For example:
        worldgym rank tabletop --instruction "reach *" --agents runs/learn
        worldgym rank hopper --imagined --agents runs/learn --horizon 16 --action-repeat 2 --replan-every 2
    """

    world: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="WORLD")]
    """A bundled world, a checkpoint folder, or user/name on the hub."""
    instruction: tuple[str, ...] = ()
    """Instructions to draw episodes from; * stands for anything. By default the only one there is, or "reach *"."""
    agents: tuple[Path, ...] = ()
    """Folders of `worldgym learn`; each checkpoint in them is a policy more, and so is the newest agent of each with a
    share of its actions drawn at random. They know one instruction: ask for it."""
    imagined: bool = False
    """Dream in the recurrent state alone and show policies that: for worlds whose drawn frames drift, and for policies
    that can act on a state."""
    episodes: int = 20
    """Of each policy, in the dream and on the twin."""
    samples: tuple[int, ...] = (4, 16, 64)
    """Action sequences that CEM tries in each of two rounds; each number is a policy more."""
    horizon: int = 12
    """Steps that it looks ahead."""
    action_repeat: int = 3
    """Steps for which each action of its plan is held."""
    replan_every: int = 4
    """Actions taken of each plan."""
    seed: int = 0
    """Of the episodes."""
    json: Path | None = None
    """Write the figures here, with command, commit and hardware."""
    report: Path | None = None
    """Folder for index.html and its plot; runs/rank/WORLD by default."""

    def __post_init__(self):
        _check_agents(self.agents)
        if self.episodes < 2:
            raise UserError(f"episodes is {self.episodes}; a mean with an interval takes two or more")
        if self.horizon < 1 or self.action_repeat < 1 or self.horizon % self.action_repeat:
            raise UserError(f"horizon {self.horizon} must be a multiple of action_repeat {self.action_repeat}")


@dataclass(frozen=True)
class Transfer:
    """Ask a world on which other tables its plans and agents work.

    For example:
        worldgym transfer tabletop --instruction "reach *" \
            --factors light mass
    """

    world: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="WORLD")]
    """A bundled world, a checkpoint folder, or user/name on the hub."""
    instruction: tuple[str, ...] = ("reach *", "push the * to the centre", "push the * side", "push the * corner")
    """Instructions to draw episodes from; * stands for anything."""
    agents: tuple[Path, ...] = ()
    """Folders of `worldgym learn`, whose agents act on the tables, too. They know one instruction: ask for it."""
    factors: tuple[str, ...] = (
        "colors", "shapes", "block_size", "mass", "friction", "light", "camera_tilt", "table_rgb", "distractors",
        "action_noise", "action_delay",
    )  # fmt: skip
    """Factors of variation in the zero-shot grid."""
    table_episodes: int = 20
    """On each table of the grid, of the planner in the dream and of each agent."""
    table_planner: bool = True
    """Whether the planner acts on the tables, too; agents take a hundredth of its time."""
    combinations: int = 0
    """Episodes of instructions that are known one by one and unseen as a combination, two in a row on the nominal
    table, by tree search over sentences: in the dream, on true physics and without any. Half a minute each."""
    horizon: int = 12
    """Steps that the planner looks ahead."""
    samples: int = 16
    """Action sequences tried in each iteration of the planner."""
    iterations: int = 2
    """Rounds of trying and narrowing down, for each plan."""
    seed: int = 0
    """Of the episodes."""
    json: Path | None = None
    """Write the figures here, with command, commit and hardware."""
    report: Path | None = None
    """Folder for index.html and its pictures; runs/transfer/WORLD by default."""

    def __post_init__(self):
        _check_agents(self.agents)
        if self.combinations < 0 or self.table_episodes < 1:
            raise UserError("transfer takes at least one of --table-episodes; --combinations may be 0, for none")
        if not self.table_planner and not self.agents:
            raise UserError("--no-table-planner leaves nothing to act on the tables; name an agent with --agents")


def _check_agents(folders: tuple[Path, ...]) -> None:
    for folder in folders:
        if not (folder / "learning.json").exists():
            raise UserError(f"{folder} holds no agent; `worldgym learn WORLD --out {folder}` makes one")
