"""A section of docs/results.md, and how figures are written in it and in the README's tables."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"

BY_A_DRAFT = "Measured when planners looked ahead by a draft, which the recurrent state has replaced since."
"""Of results that were not made again yet."""
Results = dict[str, Any]
"""What a results file holds."""


class Section(NamedTuple):
    """Each benchmark has its own, `results_page.py` their order."""

    title: str
    files: tuple[str, ...]
    """In benchmarks/results, without their ending."""
    command: str
    """Makes them."""
    body: Callable[..., list[str]]
    """Lines of markdown, from the results in `files`."""

    def markdown(self) -> str:
        """A section whose files were not made yet says how to make them."""
        if all((RESULTS / f"{name}.json").exists() for name in self.files):
            lines = self.body(*map(load, self.files))
        else:
            lines = [f"Not measured yet: `{self.command}`."]
        return "\n".join([f"## {self.title}", "", *lines, ""])


def load(name: str) -> Results:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def made_by(results: Results) -> str:
    machine = results["hardware"]
    command = results["command"]
    shown = command if command.startswith("worldgym") else f"python {command}"
    cores = f"{machine['threads']} of {machine['cores']} cores of {machine['cpu']}"
    return f"`{shown}`, commit {results['commit'][:10]}, {cores}."


# -- tables -----------------------------------------------------------------------------------------------------------


def row(label: str, cells: list[str]) -> str:
    return f"| {label} | " + " | ".join(cells) + " |"


def markdown(head: list[str], rows: list[list[str]]) -> list[str]:
    return [row(head[0], head[1:]), "|---|" + "---|" * (len(head) - 1), *(row(cells[0], cells[1:]) for cells in rows)]


def steps_head(steps: Sequence[int]) -> list[str]:
    """Of a table with a column for each step, whose rows have two labels, `row(f"{variant} | {figure}", cells)`."""
    return ["| | steps | " + " | ".join(map(str, steps)) + " |", "|---|---|" + "---|" * len(steps)]


# -- cells ------------------------------------------------------------------------------------------------------------


def percent(rate: float) -> str:
    return f"{rate:.0%}"


def interval(bounds: list[float]) -> str:
    return f"{bounds[0]:.0%} to {bounds[1]:.0%}"


def estimate(value: float, interval: Sequence[float], form: str, unit: str = "") -> str:
    low, high = interval
    return f"{value:{form}}{unit} ({low:{form}} to {high:{form}})"


def blocks(error: float | None) -> str:
    return "-" if error is None else f"{error:.2f}"  # after one step nothing has moved yet


def error(value: float | None) -> str:
    """A position error: results files have null where half of the objects are lost."""
    return "lost" if value is None else blocks(value)


def moved_error(objects: dict[str, Any], figures: dict[str, Any], index: int) -> str:
    """Of moved blocks: results files have null also where none has moved, which is no loss."""
    if objects["moved"][index] == 0:
        return "-"
    return with_interval(figures, "moved_error", index, error)


def with_interval(where: dict[str, Any], name: str, index: int, show: Callable[[float | None], str]) -> str:
    value = show(where[name][index])
    bounds = where.get(f"{name}_interval")
    if bounds is None or bounds[index] == [None, None]:
        return value
    return f"{value} ({show(bounds[index][0])} to {show(bounds[index][1])})"


def over_seeds(values: list[float | None], digits: int) -> str:
    """The mean and the range over seeds; "lost" where one is infinite."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return "lost"
    mean = f"{sum(known) / len(known):.{digits}f}"
    return mean if len(known) == 1 else f"{mean} ({min(known):.{digits}f} to {max(known):.{digits}f})"


def share(value: float | None) -> str:
    return percent(value or 0.0)


def one_digit(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def two_digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def three_digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
