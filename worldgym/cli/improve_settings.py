"""What `worldgym improve` can be asked for. Light: the command line reads it without torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ..errors import UserError
from ..planners.settings import Planning


@dataclass(frozen=True)
class Improve:
    """Let a planner, and an agent that learns in the dream, act on the twin, and train the recurrent state on what
    happened, in rounds.

    Recordings never show what a planner does: an arm that stays at its target, a leg that hops its own way. Each round
    plays episodes on the twin, half of them with bursts of random actions, writes them as a data set, and trains the
    state on. A killed run continues where it stood.

    For example:
        worldgym improve reacher --dataset worldgym/reacher-v1 --no-looks \\
            --horizon 8 --action-repeat 2 --replan-every 2
        worldgym improve hopper --dataset worldgym/hopper-v1 --no-looks --updates 500 \\
            --discount 0.97 --horizon 16 --action-repeat 2 --replan-every 2
    """

    world: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="WORLD")]
    """A world with a recurrent state and a twin: a bundled name, a checkpoint folder, or user/name on the hub."""
    dataset: str
    """Minari id of the recording that it was trained on; half of the training stays with it."""
    out: Path | None = None
    """Folder of the run, runs/improve/WORLD by default. Round 3 leaves its world in round3 and its data set under the
    Minari id improve/RECORDING-OUT-3-v0, with the last part of the folder's name."""
    rounds: int = 6
    real_steps: int = 3200
    """Taken on the twin in each round at least, in whole episodes, two or more."""
    longest: int = 200
    """Steps of an episode at most."""
    steps: int = 600
    """Optimiser steps of each round."""
    learning_rate: float = 3e-4
    """Peak of each round."""
    updates: int = 0
    """Updates of an actor and a critic that learn in each round's dream, and on from round to round; half of the
    episodes are theirs then, and the agent that did best in them is kept in the folder `best`, with the world that it
    learned in. 0 leaves all to the planner."""
    discount: float = 0.95
    """Of the agent's rewards a step later."""
    looks: bool = True
    """Show half of the stretches in another look, as `worldgym train state` does; not for a state trained without."""
    instruction: tuple[str, ...] = ("*",)
    """Instructions to draw episodes from; * stands for anything."""
    horizon: int = 12
    """Steps looked ahead."""
    samples: int = 64
    """Action sequences tried in each iteration of CEM."""
    iterations: int = 3
    """Rounds of trying and narrowing down, for each plan."""
    action_repeat: int = 3
    """Steps for which each action of a plan is held; a divisor of the horizon."""
    replan_every: int = 4
    """Actions taken of each plan."""
    seed: int = 0
    device: str = "auto"
    """"auto" takes a GPU where there is one."""

    def __post_init__(self):
        if min(self.rounds, self.real_steps, self.steps, self.longest) < 1:
            raise UserError("improving takes at least one of --rounds, --real-steps, --steps and --longest")
        if self.updates < 0 or not 0.0 <= self.discount < 1.0:
            raise UserError(f"updates is {self.updates}, from 0 on, and discount {self.discount}, from 0 to below 1")
        self.planning()
        if not 0 < self.replan_every <= self.horizon:
            raise UserError(f"replan_every is {self.replan_every}; a plan has {self.horizon} steps, its horizon")

    def planning(self) -> Planning:
        """How it plans; a UserError if nobody could."""
        return Planning(
            self.world, instruction=self.instruction, horizon=self.horizon, samples=self.samples,
            iterations=self.iterations, action_repeat=self.action_repeat, replan_every=self.replan_every,
        )  # fmt: skip
