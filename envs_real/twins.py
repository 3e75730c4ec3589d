"""What is known of each true environment, a row a twin; and `twin_of`, which makes the twin of any world.

A twin is a Gymnasium environment in the spaces of its dream, which takes `options={"instruction": ...}` at reset, says
`info["success"]`, and can be tried out: `snapshot()`, `restore(blob)` and `evaluate(action_sequences)`.
"""

from dataclasses import dataclass
from pkgutil import resolve_name
from types import ModuleType
from typing import Any

import gymnasium as gym
import numpy as np

from worldgym.config import WorldConfig
from worldgym.errors import UserError
from worldgym.spaces import ActionMode

from .settings import HOPPER, REACHER, TABLETOP


@dataclass(frozen=True)
class TwinKind:
    """One row. Functions and modules are named by path, so that the table imports none of them."""

    record: str
    """(RecordConfig) -> folder of the data set that it wrote."""
    controller: str | None = None
    """(twin) -> how it carries out a sentence, a `worldgym.play.session.Controller`; None if it knows no sentences."""
    locate: str | None = None
    """Finds the objects in pictures, a `worldgym.evaluate.Locate`; None if nothing does."""
    cases: str | None = None
    """Module of held-out episodes and sentences, which has the names of envs_real/tabletop/cases.py; None without."""
    policies: str | None = None
    """() -> scripted policies that look at pictures, by name, each (instruction, seed) -> a policy; None without."""
    play: str | None = None
    """(RecordConfig, i) -> episode i as its recorder plays it, with "poses"."""
    goals: str | None = None
    """When it has reached a pose: a dict of `goals.Rule` by name; None where that is not known."""
    objects: tuple[str, ...] = ()
    """What its instructions can be about, as they name it."""


TWINS: dict[str, TwinKind] = {
    TABLETOP: TwinKind(
        "worldgym.envs_real.tabletop.record:record",
        controller="worldgym.envs_real.tabletop.env:controller",
        locate="worldgym.envs_real.tabletop.vision:locate",
        cases="worldgym.envs_real.tabletop.cases",
        policies="worldgym.envs_real.tabletop.transfer:policies",
        play="worldgym.envs_real.tabletop.record:play_episode",
        goals="worldgym.envs_real.tabletop.goals:RULES",
        objects=("red block", "blue block"),
    ),
    REACHER: TwinKind(
        "worldgym.envs_real.reacher_record:record",
        play="worldgym.envs_real.reacher_record:play_episode",
        goals="worldgym.envs_real.reacher_goals:RULES",
    ),
    HOPPER: TwinKind("worldgym.envs_real.hopper_record:record"),
}
"""The bundled ones, by Gymnasium id."""
ANY = TwinKind("worldgym.envs_real.gym_record:record")
"""What is known of any other Gymnasium environment."""


def twin_kind(id: str) -> TwinKind:
    """What is known of an environment."""
    return TWINS.get(id, ANY)


def held_out_cases(world: WorldConfig) -> ModuleType:
    """The cases of a world's twin; a UserError where there are none."""
    if (cases := twin_kind(world.twin).cases) is None:
        known = ", ".join(repr(id) for id, kind in TWINS.items() if kind.cases)
        raise UserError(
            f"the twin of {world.name!r} is {world.twin!r}, of which no held-out cases are known; they are of {known}"
        )
    return resolve_name(cases)


def twin_of(world: WorldConfig, instruction: str | None = None, action_mode: ActionMode = "vector") -> gym.Env:
    """The true environment of a world. To make one is the check that there is one: do it before anything long.

    Args:
        instruction: what it rewards from the first reset on; its own default without.
        action_mode: "text" takes sentences, which only a twin that has a controller can carry out.

    Raises:
        UserError: the world names no twin, it cannot be made, or it shows or takes something else than the dream.
    """
    if not world.twin:
        raise UserError(f"the world {world.name!r} names no twin: there is no true environment to act on")
    size = world.tokenizer.resolution
    env: gym.Env
    if world.twin in TWINS:
        arguments: dict[str, Any] = {} if instruction is None else {"instruction": instruction}
        env = Branching(gym.make(world.twin, action_mode=action_mode, resolution=size, **arguments))
    elif action_mode != "vector":
        raise UserError(f"{world.twin} takes vectors, not sentences: nothing is known that would carry them out")
    else:
        env = _any_twin(world, instruction)
    frames, actions = env.observation_space, env.action_space
    seen, taken = (size, size, 3), world.codec.space
    if frames.shape != seen or (action_mode == "vector" and actions != taken):
        env.close()
        raise UserError(
            f"the twin {world.twin} shows {frames.shape} and takes {actions}; the world {world.name!r} was "
            f"trained on {seen} and {taken}: the environment has changed since"
        )
    return env


class Branching(gym.Wrapper):
    """An environment that can be tried out by itself, whose verbs Gymnasium's wrappers hide."""

    def snapshot(self) -> bytes:
        return self.env.get_wrapper_attr("snapshot")()

    def restore(self, blob: bytes) -> None:
        self.env.get_wrapper_attr("restore")(blob)

    def evaluate(self, action_sequences: np.ndarray) -> np.ndarray:
        return self.env.get_wrapper_attr("evaluate")(action_sequences)


def _any_twin(world: WorldConfig, instruction: str | None) -> gym.Env:
    from .gym_record import Twin, make_twin  # brings Minari
    from .replayed import Replayed

    asked = world.instructions[0] if instruction is None else instruction
    # What was recorded by an earlier release takes vectors, whatever the environment takes.
    native = world.actions is not None

    def make() -> Twin:
        return make_twin(world.twin, world.tokenizer.resolution, native, **world.twin_options)

    twin = make()
    own = all(hasattr(twin.unwrapped, verb) for verb in ("snapshot", "restore", "evaluate"))
    return Branching(twin) if own and _is_its_vector(twin.codec.space) else Replayed(twin, make, asked)


def _is_its_vector(space: gym.Space) -> bool:
    """Whether an environment itself takes what a dream's networks see."""
    if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1:
        return False
    return bool((space.low == -1).all() and (space.high == 1).all())
