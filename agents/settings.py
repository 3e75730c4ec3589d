"""What `worldgym learn` and `worldgym transfer` can be asked for; light, so that `worldgym --help` waits for nobody."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


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
    agent: Literal["ppo", "sac", "mbpo"] = "sac"
    """"mbpo" acts in MuJoCo and learns from dreamed branches as well."""
    where: Annotated[Literal["dream", "mujoco"], tyro.conf.arg(name="in")] = "dream"
    """Where it acts while it learns."""
    instruction: str | None = None
    """What it learns, and is judged by. By default the only one there is, or "reach the centre"."""
    starts: str | None = None
    """Id of a Minari dataset that dreams begin from; by default the frames that come with the world."""
    horizon: int | None = None
    """Steps after which a dream begins anew, for worlds in which a long one goes astray; by default it lasts as long as
    an episode of the twin."""
    drafted: bool = False
    """Dream by the world's draft: several times as many steps in a second, for agents that see latents."""
    sees: Literal["latent", "pixels"] = "latent"
    """"latent": the world's fused map, made of real frames by its tokenizer; "pixels" take ten times as long."""
    steps: int = 8_000
    """Of all environments together. A run that is there already goes on to so many."""
    discount: float = 0.9
    """Of rewards a step later: 0.9 looks ten steps ahead."""
    updates: float | None = None
    """Gradient steps of sac and mbpo for each step of an environment; 0.5 of sac and 2 of mbpo by default."""
    real_ratio: float = 0.2
    """Of mbpo's batches, the share that is real."""
    refit: int | None = None
    """Real steps of mbpo from one refit of the world to the next, on what was lived; by default it stays as it is."""
    episodes: int = 50
    """Judged in MuJoCo at the end."""
    seed: int = 0
    """Of the agent and its episodes."""
    save_every: int = 2_000
    """Steps from one checkpoint to the next."""
    out: Path = Path("runs/learn")
    """Where agent, replay buffer, TensorBoard's log, figures (run.json) and video go."""
    json: Path | None = None
    """Write the figures here, with command, commit and hardware."""


@dataclass(frozen=True)
class Transfer:
    """Ask a world two things: does it rank policies as MuJoCo does, and on which other tables do its plans work?

    For example:
        worldgym transfer tabletop --instruction "reach *" \
            --factors light mass
    """

    world: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="WORLD")]
    """A bundled world, a checkpoint folder, or user/name on the hub."""
    instruction: tuple[str, ...] = ("reach *", "push the * to the centre", "push the * side", "push the * corner")
    """Instructions to draw episodes from; * stands for anything."""
    episodes: int = 20
    """Of each policy, in the dream and in MuJoCo; 0 leaves the ranking of policies out."""
    agents: tuple[Path, ...] = ()
    """Folders of `worldgym learn`; each checkpoint in them is a policy more, and the last one acts on the tables of the
    grid, too. They know one instruction: ask for it."""
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
