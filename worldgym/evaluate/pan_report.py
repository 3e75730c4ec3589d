"""What PAN's evaluation found, for a terminal, as a plot and as one HTML page."""

from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator

from ..results import hardware
from .pan_suite import Row
from .report import page, picture, png, table
from .video import enlarged, gif, side_by_side, stacked

ROWS = {"truth": "MuJoCo itself", "dream": "the dream", "repeat": "its first frame, repeated"}
FIGURES = {
    "agent": "agent: the sentence is carried out",
    "environment": "environment: the other objects are where physics has them",
    "environment_where_pushed": "... where physics moves it",
    "smoothness": "smoothness, px a frame",
    "consistency": "consistency over all rounds",
    "step_wise": "step-wise: its own outcome chosen",
}
WAYS = {
    "mujoco": "search on true physics",
    "dream": "search in the dream",
    "nothing": "the same proposer, no search",
}


def figure_table(metrics: dict[str, Any]) -> list[list[str]]:
    """A line for each figure, after its name a cell for each of `ROWS`."""
    rows = [metrics["rows"][name] for name in ROWS]
    return [[label, *(_cell(row[name], name != "smoothness") for row in rows)] for name, label in FIGURES.items()]


def planning_table(metrics: dict[str, Any]) -> list[list[str]]:
    """A line for each way to choose sentences: success in MuJoCo, and seconds a decision."""
    ways = metrics["planning"]["ways"]
    return [
        [label, _cell(ways[name], True), f"{ways[name]['seconds_per_decision']:.2f}"] for name, label in WAYS.items()
    ]


def about(metrics: dict[str, Any]) -> str:
    first, last = metrics["seeds"]
    return (
        f"{metrics['episodes']} held-out tables (seeds {first} to {last}), {metrics['rounds']} sentences of "
        f"{metrics['frames_per_round']} frames said on each, dreamed from one real frame. Step-wise: one of "
        f"{metrics['candidates']} outcomes. Intervals are 95%, bootstrapped over episodes."
    )


def as_text(metrics: dict[str, Any]) -> str:
    """The figures for a terminal, lines of them."""
    lines = [about(metrics), f"{'':54s}" + "".join(f"{label:>29s}" for label in ROWS.values())]
    lines += [f"{label:54s}" + "".join(f"{cell:>29s}" for cell in cells) for label, *cells in figure_table(metrics)]
    lines.append(f"consistency of the dream, round by round: {round_by_round(metrics)}")
    if isinstance(metrics["planning"], str):
        return "\n".join([*lines, f"planning: {metrics['planning']}"])
    lines += [f"planning: {way:44s} {success:>29s}, {spent} s" for way, success, spent in planning_table(metrics)]
    return "\n".join(lines)


def round_by_round(metrics: dict[str, Any]) -> str:
    """Share of the dreams that are consistent in each round."""
    return ", ".join(f"{share:.0%}" for share in metrics["rows"]["dream"]["consistency"]["by_round"])


def plot_rounds(metrics: dict[str, Any]) -> bytes:
    """Consistency and smoothness round by round, as a PNG."""
    figure, (held, smooth) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    rounds = np.arange(1, metrics["rounds"] + 1)
    for (name, label), color in zip(ROWS.items(), ("0.3", "C0", "0.7"), strict=True):
        row = metrics["rows"][name]
        held.plot(rounds, row["consistency"]["by_round"], "o-", ms=3, label=label, color=color)
        held.fill_between(rounds, *np.transpose(row["consistency"]["by_round_interval"]), alpha=0.2, color=color, lw=0)
        smooth.plot(rounds, row["smoothness"]["by_round"], "o-", ms=3, label=label, color=color)
    held.set(title="Simulation consistency", ylabel="share of dreams", ylim=(-0.03, 1.03))
    smooth.set(title="Transition smoothness", ylabel="px a frame", ylim=(0, None))
    for axis in (held, smooth):
        axis.set_xlabel("sentence")
        axis.legend(frameon=False, fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    return png(figure)


def write_report(folder: Path, world: str, metrics: dict[str, Any], rows: dict[str, Row], commit: str) -> Path:
    """Write rounds.png, dream.gif and index.html, which has both inside; returns the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    plot, film, machine = plot_rounds(metrics), comparison(rows), hardware()
    (folder / "rounds.png").write_bytes(plot)
    (folder / "dream.gif").write_bytes(film)
    planning = metrics["planning"]
    planned = (
        f"<p>{escape(planning)}</p>"
        if isinstance(planning, str)
        else table(["sentences chosen by", "success in MuJoCo", "seconds a decision"], planning_table(metrics))
    )
    title = f"PAN's evaluation of {world}"
    parts = [
        f"<h1>{escape(title)}</h1><p>{escape(about(metrics))}</p>",
        picture(film, "gif", "dreams next to reality"),
        "<p class=small>Above what happened, below the dream of it: the same sentences, no picture after the first."
        "</p><h2>Simulation</h2>" + table(["", *ROWS.values()], figure_table(metrics)),
        "<p class=small>What is measured is said at the top of worldgym/pan_suite.py.</p>",
        "<h2>Sentence by sentence</h2>" + picture(plot, "png", "figures by round"),
        f"<h2>Structured planning</h2>{planned}",
        f"<p class=small>Commit {escape(commit)}; {machine['threads']} of {machine['cores']} cores of "
        f"{escape(machine['cpu'])}, GPU {escape(str(machine['gpu'] or 'none'))}, torch {machine['torch']}.</p>",
    ]
    path = folder / "index.html"
    path.write_text(page(title, parts), encoding="utf-8")
    return path


def comparison(rows: dict[str, Row]) -> bytes:
    """A GIF of the first four episodes, every other frame: the truth above the dream."""
    truth, dream = (rows[name].frames[:4, ::2] for name in ("truth", "dream"))
    pairs = [stacked(list(pair)) for pair in zip(truth, dream, strict=True)]
    return gif(enlarged(side_by_side(pairs, gap=2)), 10)


def _cell(figure: dict[str, Any], share: bool) -> str:
    if figure["value"] is None:
        return "no case"
    numbers = figure["value"], *figure["interval"]
    if not share:
        return "{:.2f} ({:.2f} to {:.2f})".format(*numbers)
    return "{:.0%} of {} ({:.0%} to {:.0%})".format(numbers[0], figure["cases"], *numbers[1:])
