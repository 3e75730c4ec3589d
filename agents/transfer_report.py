"""What `worldgym transfer` found, as one self-contained HTML page."""

from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from worldgym.evaluate.pan_report import WAYS
from worldgym.evaluate.report import page, picture, png, table
from worldgym.evaluate.video import enlarged, gif, side_by_side, stacked

from .transfer import Ranking

COLOURS = {"nominal": "0.4", "trained": "C0", "held out": "C1"}
SHOWN = 6
"""Policies whose first episode is a video."""


def write_report(
    folder: Path,
    title: str,
    about: str,
    ranking: Ranking | None,
    grid: list[dict[str, Any]],
    combined: dict[str, Any] | None = None,
) -> Path:
    """Write index.html, which contains plots and videos, and the plots next to it; returns the page's path.

    Args:
        about: one sentence on what was compared.
        ranking: what `rank_policies` returned; None if that was left out.
        grid: what `zero_shot` returned.
        combined: success on unseen combinations of instructions, by what chose the sentences; None if left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tables = plot_grid(grid)
    (folder / "zero_shot.png").write_bytes(tables)
    parts = [f"<h1>{escape(title)}</h1><p>{escape(about)}</p>"]
    if ranking:
        parts += _ranked(folder, ranking)
    parts += [
        "<h2>On which other tables does what was learned or planned in the dream succeed?</h2>",
        picture(tables, "png", "success on varied tables"),
        table(GRID_HEAD, [grid_row(one) for one in grid]),
    ]
    if combined:
        parts += [
            "<h2>Instructions unseen as a combination</h2>",
            "<p>Two in a row, each of them known, carried out in MuJoCo by sentences.</p>",
            table(COMBINATION_HEAD, combination_rows(combined)),
        ]
    path = folder / "index.html"
    path.write_text(page(title, parts), encoding="utf-8")
    return path


def _ranked(folder: Path, ranking: Ranking) -> list[str]:
    """The page's part on policies in both worlds; its plot is also written next to the page."""
    metrics = ranking.metrics
    policies = plot_policies(metrics)
    (folder / "policies.png").write_bytes(policies)
    names = list(ranking.shown)[:: max(1, len(ranking.shown) // SHOWN)][:SHOWN]
    columns = [stacked([episode.frames for episode in ranking.shown[name]], gap=2) for name in names]
    film = gif(enlarged(side_by_side(columns, gap=2)))
    agree = [
        f"Pearson {_figure(metrics, 'return_pearson')} of mean returns",
        f"Spearman {_figure(metrics, 'return_spearman')} of mean returns",
        f"Pearson {_figure(metrics, 'success_pearson')} of success rates",
        f"the dream's success rate is off by {100 * metrics['success_bias']:+.0f} points on average",
        "token entropy of an episode against how wrong its return is, rank correlation "
        f"{metrics['uncertainty_against_return_gap']:.2f}",
    ]
    return [
        f"<h2>Does the dream rank policies as MuJoCo does?</h2><p>{len(metrics['policies'])} policies, "
        f"{metrics['episodes']} episodes each in both worlds, from the same first frames. Over policies:</p>",
        "<ul>" + "".join(f"<li>{one}</li>" for one in agree) + "</ul>",
        picture(policies, "png", "policies in both worlds"),
        table(POLICY_HEAD, [policy_row(one) for one in metrics["policies"]]),
        "<p class=small>Intervals are 95%. Diverged: an object is further off than half a block, or lost; the step is "
        "the median, a dash if more than half of the episodes never diverge.</p>",
        f"<h2>Side by side</h2>{picture(film, 'gif', 'episodes in both worlds')}",
        f"<p class=small>MuJoCo above, dream below; {escape(', '.join(names))}.</p>",
    ]


def plot_policies(metrics: dict[str, Any]) -> bytes:
    """Each policy a point, dream across and MuJoCo up, as a PNG."""
    colours = plt.colormaps["tab20"]
    figure, axes = plt.subplots(1, 2, figsize=(12, 5.5), layout="constrained")
    for axis, (what, key) in zip(axes, (("return", "mean_return"), ("success", "success_rate")), strict=True):
        for number, one in enumerate(metrics["policies"], 1):
            (x, low_x, high_x), (y, low_y, high_y) = (
                (one[side][key], *one[side][f"{what}_interval"]) for side in ("dream", "mujoco")
            )
            axis.plot([low_x, high_x], [y, y], color="0.8", lw=1, zorder=1)
            axis.plot([x, x], [low_y, high_y], color="0.8", lw=1, zorder=1)
            axis.plot(x, y, "o", ms=5, color=colours(number % 20), label=f"{number} {one['policy']}", zorder=2)
            axis.annotate(str(number), (x, y), xytext=(4, 4), textcoords="offset points", fontsize=8)
        both = [*axis.get_xlim(), *axis.get_ylim()]
        axis.plot([min(both), max(both)], [min(both), max(both)], color="0.7", lw=1, ls="--", zorder=0)
        axis.set(title=f"{key.replace('_', ' ')}: Pearson {metrics[f'{what}_pearson']:.2f}")
        axis.set(xlabel="in the dream", ylabel="in MuJoCo")
        axis.spines[["top", "right"]].set_visible(False)
    axes[1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return png(figure)


def plot_grid(grid: list[dict[str, Any]]) -> bytes:
    """A bar for each table and policy, as a PNG."""
    policies = list(dict.fromkeys(one["policy"] for one in grid))
    tables = [one for one in grid if one["policy"] == policies[0]]
    size = 12, max(2.5, 0.28 * len(tables) + 1)
    figure, axes = plt.subplots(1, len(policies), figsize=size, sharey=True, squeeze=False, layout="constrained")
    for axis, policy in zip(axes[0], policies, strict=True):
        rows = [one for one in grid if one["policy"] == policy]
        for row, one in enumerate(rows):
            axis.barh(row, one["success_rate"], color=COLOURS[_kind(one)], alpha=0.75)
            axis.plot(one["success_interval"], [row, row], color="0.2", lw=1)
        axis.axvline(rows[0]["success_rate"], color=COLOURS["nominal"], lw=1, ls="--")
        axis.set(xlim=(0, 1), title=policy, xlabel="success in MuJoCo")
        axis.spines[["top", "right"]].set_visible(False)
    first = axes[0, 0]
    first.set_yticks(range(len(tables)), [f"{one['factor']} {one['value']}" for one in tables], fontsize=8)
    first.invert_yaxis()
    handles = [plt.Rectangle((0, 0), 1, 1, color=colour, alpha=0.75) for colour in COLOURS.values()]
    figure.legend(handles, COLOURS, frameon=False, fontsize=8, loc="outside lower center", ncols=3)
    return png(figure)


POLICY_HEAD = ["policy", "return, dream", "return, MuJoCo", "success, dream", "success, MuJoCo", "diverged", "at step"]
GRID_HEAD = ["policy", "table", "", "success", "95% interval", "episodes", "cost in points"]


COMBINATION_HEAD = ["sentences chosen by", "success", "95% interval", "episodes"]


def policy_row(one: dict[str, Any]) -> list[str]:
    """Cells below POLICY_HEAD; of figures as they are, or read from a results file, where infinity is null."""
    dream, real, step = one["dream"], one["mujoco"], one["divergence_step"]
    return [
        one["policy"], _interval(dream, "mean_return", ".1f"), _interval(real, "mean_return", ".1f"),
        _interval(dream, "success_rate", ".0%"), _interval(real, "success_rate", ".0%"),
        f"{one['diverged']:.0%}", "-" if step is None or np.isinf(step) else f"{step:.0f}",
    ]  # fmt: skip


def grid_row(one: dict[str, Any]) -> list[str]:
    """Cells below GRID_HEAD."""
    low, high = one["success_interval"]
    return [
        one["policy"], f"{one['factor']} {one['value']}", _kind(one), f"{one['success_rate']:.0%}",
        f"{low:.0%} to {high:.0%}", str(len(one["successes"])), f"{one['cost']:.0f}",
    ]  # fmt: skip


def combination_rows(combined: dict[str, Any]) -> list[list[str]]:
    """Lines below COMBINATION_HEAD."""
    return [
        [WAYS[name], f"{found['value']:.0%}", "{:.0%} to {:.0%}".format(*found["interval"]), str(found["cases"])]
        for name, found in combined["ways"].items()
    ]


def _kind(one: dict[str, Any]) -> str:
    return "nominal" if one["factor"] == "nominal" else "trained" if one["trained"] else "held out"


def _interval(worth: dict[str, Any], key: str, form: str) -> str:
    low, high = worth["return_interval" if key == "mean_return" else "success_interval"]
    return f"{worth[key]:{form}} ({low:{form}} to {high:{form}})"


def _figure(metrics: dict[str, Any], name: str) -> str:
    low, high = metrics[f"{name}_interval"]
    return f"{metrics[name]:.2f} (95% interval {low:.2f} to {high:.2f})"
