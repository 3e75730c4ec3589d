"""Where do a dream's plans and agents still work: on which other tables, at what cost?"""

from typing import Any, NamedTuple

import gymnasium as gym
from tqdm import tqdm

from worldgym.evaluate.rollout import play

from .ranking import MakePolicy, Start, worth


class Cell(NamedTuple):
    """A table of the zero-shot grid."""

    factor: str
    value: str
    trained: bool
    """Inside the training's range; the first cell of a grid is the nominal one."""
    twin: gym.Env
    starts: list[Start]


def zero_shot(cells: list[Cell], policies: dict[str, MakePolicy]) -> list[dict[str, Any]]:
    """Success of each policy on each table; `cost` is what a table takes off its nominal success rate, in points."""
    rows: list[dict[str, Any]] = []
    total = len(policies) * sum(len(cell.starts) for cell in cells)
    with tqdm(total=total, desc="zero shot", unit="episode") as progress:
        for name, make in policies.items():
            nominal = None
            for cell in cells:
                played = []
                for instruction, seed in cell.starts:
                    played.append(play(cell.twin, make(instruction, seed), seed, {"instruction": instruction}))
                    progress.update()
                found = worth(played)
                nominal = found["success_rate"] if nominal is None else nominal
                table = {"policy": name, "factor": cell.factor, "value": cell.value, "trained": cell.trained}
                rows.append(table | found | {"cost": 100 * (nominal - found["success_rate"])})
    for cell in cells:
        cell.twin.close()
    return rows
