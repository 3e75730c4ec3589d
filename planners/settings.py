"""The settings of `worldgym plan`. Light: the command line reads it without torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from worldgym.errors import UserError

from . import PLANNERS


@dataclass(frozen=True)
class Planning:
    """Plan in the dream or on true physics; act on the world's twin.

    For example:
        worldgym plan tabletop --instruction "reach the centre"
        worldgym plan tabletop --on mujoco --episodes 10
        worldgym plan reacher --planner icem --video plan.mp4
        worldgym plan reacher --goal recorded
    """

    world: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="WORLD")]
    """A bundled world, a checkpoint folder, or user/name on the hub."""
    planner: Annotated[
        str,
        tyro.conf.arg(
            metavar=f"{{{','.join(PLANNERS)}}}",
            help="How to search. " + "; ".join(f'"{name}": {kind.about}' for name, kind in PLANNERS.items()) + ".",
        ),
    ] = "cem"
    on: Literal["dream", "mujoco"] = "dream"
    """Where action sequences are tried: in the dream, or on the twin's true physics, the planner's upper bound."""
    drawn: bool = False
    """Try them in dreams that draw every frame, though the world has a recurrent state: far slower."""
    guide: Path | None = None
    """Agent that proposes action sequences and says what follows them: agent.safetensors of
    `worldgym learn --agent actor-critic`, of the same instruction."""
    instruction: tuple[str, ...] = ()
    """Instructions to draw episodes from; * stands for anything. By default the only one there is, or "reach *". One
    may ask for several things in a row: "push the red block to the centre, then reach the top left corner"."""
    goal: str | None = None
    """Plan for a picture in place of an instruction: a file, of the world's resolution; or "recorded", starts and goals
    25 steps apart in episodes that the twin's recorder plays under seeds that no recording has, next to random
    actions from the same starts."""
    pairs: Path | None = None
    """Write here which recorded starts and goals they were, with a digest."""
    episodes: int = 50
    """Played on the twin."""
    seed: int = 0
    """Episode i begins from seed + i, whatever plans."""
    horizon: int = 12
    """Steps looked ahead."""
    samples: int = 32
    """Action sequences tried in each iteration."""
    iterations: int = 2
    """Rounds of trying and narrowing down, for each plan."""
    action_repeat: Annotated[int, tyro.conf.arg(aliases=["--hold"])] = 3
    """Steps for which each action of a plan is held; a divisor of the horizon. Its old name is --hold."""
    replan_every: int = 4
    """Actions taken of each plan."""
    say: tuple[str, ...] = ("*",)
    """Tree search: sentences that may be said; * stands for anything. One is said, then all is planned again."""
    depth: int = 2
    """Tree search: sentences looked ahead."""
    breadth: int = 4
    """Tree search: futures extended, of each level by "beam", in all by "best-first"."""
    device: str = "auto"
    """"auto" takes a GPU where there is one."""
    json: Path | None = None
    """Write the figures here, with command, commit and hardware."""
    video: Path | None = None
    """Write what the twin showed in the first episodes, as .gif or .mp4."""

    def __post_init__(self):
        if self.planner not in PLANNERS:
            raise UserError(f"unknown planner {self.planner!r}; there are {', '.join(PLANNERS)}")
        if self.on not in (on := PLANNERS[self.planner].on) and on:
            raise UserError(f"--planner {self.planner} plans on {' or '.join(on)} only, not on {self.on}")
        if self.drawn and self.on != "dream":
            raise UserError(f"--drawn is of dreams; leave it out with --on {self.on}")
        if self.guide and (self.on != "dream" or self.drawn or not PLANNERS[self.planner].guided):
            able = " or ".join(name for name, kind in PLANNERS.items() if kind.guided)
            raise UserError(f"--guide is of --planner {able} in the recurrent state of a dream")
        if self.goal and (self.instruction or self.drawn or PLANNERS[self.planner].over == "sentences"):
            raise UserError("--goal is in place of --instruction, and of planners over actions in the recurrent state")
        if self.goal and self.planner == "gradient":
            raise UserError("--planner gradient climbs learned rewards, and a --goal has none")
        if self.goal not in (None, "recorded") and self.on != "dream":
            raise UserError("true physics does not judge a picture; --on mujoco takes --goal recorded")
        if self.goal and self.guide:
            raise UserError("--guide is of instructions, and a --goal has none")
        if self.pairs and self.goal != "recorded":
            raise UserError("--pairs are of --goal recorded")
        if self.episodes < 1:
            raise UserError(f"episodes is {self.episodes}; it must be positive")
        if self.action_repeat < 1 or self.horizon < 1 or self.horizon % self.action_repeat:
            raise UserError(f"horizon {self.horizon} must be a multiple of action_repeat {self.action_repeat}")

    @property
    def elites(self) -> int:
        """Of `samples`, the share that CEM and iCEM fit: a sixth."""
        return max(2, self.samples // 6)
