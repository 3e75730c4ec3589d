"""What `worldgym rank` and `worldgym transfer` ask of the Tabletop: policies of every quality, and tables unlike the
training's.

The policies see pictures alone and find positions by colour, so that the same ones act in dreams and in MuJoCo.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from worldgym.evaluate.rollout import Policy

from .scene import FACTORS, Variation
from .skills import phrases, skill_action
from .tasks import tasks
from .vision import locate

SCRIPTED: dict[str, dict[str, float]] = {
    "script": {},
    "script, 20% mistakes": {"mistakes": 0.2},
    "script, 40% mistakes": {"mistakes": 0.4},
    "script, 60% mistakes": {"mistakes": 0.6},
    "script, 80% mistakes": {"mistakes": 0.8},
    "random": {"mistakes": 1.0},
    "script, half speed": {"speed": 0.5},
    "script, quarter speed": {"speed": 0.25},
    "still": {"speed": 0.0},
    "script, backwards": {"speed": -1.0},
}
"""Name of a policy -> arguments of its `SeenSkill`."""


class SeenSkill:
    """Carries out a sentence by what it sees; one episode. An object that is not seen is where it was seen last.

    Args:
        sentence: any that the controller knows.
        mistakes: share of the actions, 0 to 1, that are drawn at random instead.
        speed: of the other actions, from -1 to 1; below 0 they go the wrong way.
        seed: of the mistakes, which are the same in a dream and in MuJoCo.
    """

    def __init__(
        self,
        sentence: str,
        mistakes: float = 0.0,
        speed: float = 1.0,
        seed: int = 0,
        colors: tuple[str, ...] = Variation().colors,
    ):
        known = phrases(colors)
        if sentence not in known:
            raise ValueError(f"unknown sentence {sentence!r}; the controller knows, for instance, {list(known)[:3]}")
        self.task, self.colors = known[sentence], colors
        self.mistakes, self.speed = mistakes, speed
        self.random = np.random.default_rng(seed)
        self.positions = np.zeros((1 + len(colors), 2), np.float32)

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """The next action, float32 [2], at a frame, uint8 [h, w, 3]."""
        found = locate(frame, self.colors)
        self.positions = np.where(np.isnan(found), self.positions, found)
        errs, drawn = self.random.random() < self.mistakes, self.random.uniform(-1, 1, 2)
        action = drawn if errs else self.speed * skill_action(self.task, self.positions, self.colors)
        return action.astype(np.float32)


def other_goal(sentence: str, seed: int) -> str:
    """Another instruction of the same table: a policy that knows how, but not what."""
    others = [known for known in tasks(Variation().colors) if known != sentence]
    return others[np.random.default_rng(seed).integers(len(others))]


def policies() -> dict[str, Callable[[str, int], Policy]]:
    """Scripted ones by name, each made of an instruction and a seed."""

    def scripted(mistakes: float = 0.0, speed: float = 1.0) -> Callable[[str, int], Policy]:
        return lambda instruction, seed: SeenSkill(instruction, mistakes, speed, seed)

    astray = {"script, another goal": lambda instruction, seed: SeenSkill(other_goal(instruction, seed), seed=seed)}
    return {name: scripted(**arguments) for name, arguments in SCRIPTED.items()} | astray


class Table(NamedTuple):
    """One value of one factor of variation, with everything else as it was."""

    factor: str
    value: Any
    trained: bool
    """Whether the value is among those that a world may be trained on."""
    variation: Variation
    instructions: list[str]
    """What can be asked for on this table."""


def varied_tables(factors: tuple[str, ...]) -> list[Table]:
    """The nominal table, and each value of these factors that differs from it.

    Raises:
        ValueError: a factor that the Tabletop doesn't have.
    """
    if unknown := set(factors) - set(FACTORS):
        raise ValueError(f"unknown factors {sorted(unknown)}; the Tabletop has {', '.join(FACTORS)}")
    nominal = Variation()
    tables = [Table("nominal", "", True, nominal, list(tasks(nominal.colors)))]
    for factor in factors:
        for trained, values in zip((True, False), FACTORS[factor], strict=True):
            for value in values:
                if value != getattr(nominal, factor):
                    table = Variation(**{factor: value})
                    tables.append(Table(factor, value, trained, table, list(tasks(table.colors))))
    return tables
