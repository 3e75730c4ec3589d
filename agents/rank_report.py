"""What `worldgym rank` found, as one self-contained HTML page."""

from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from worldgym.evaluate.report import page, picture, png, table
from worldgym.evaluate.video import enlarged, gif, side_by_side, stacked

from .ranking import Ranking

SHOWN = 6
"""Policies whose first episode is a video."""
Draw = Callable[[np.ndarray], np.ndarray]


def write_report(folder: Path, title: str, about: str, ranking: Ranking, draw: Draw | None = None) -> Path:
    """Write index.html, which contains a plot and a video, and the plot next to it; returns the page's path.

    Args:
        about: one sentence on what was compared.
        draw: pictures, uint8 [t, h, w, 3], of a dream's observations [t, ...]; pixels need none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    metrics = ranking.metrics
    policies = plot_policies(metrics)
    (folder / "policies.png").write_bytes(policies)
    names = list(ranking.shown)[:: max(1, len(ranking.shown) // SHOWN)][:SHOWN]
    columns = []
    for real, dreamed in (ranking.shown[name] for name in names):
        columns.append(stacked([real.frames, draw(dreamed.frames) if draw else dreamed.frames], gap=2))
    film = gif(enlarged(side_by_side(columns, gap=2)))
    agree = [
        f"Pearson {_figure(metrics, 'return_pearson')} of mean returns",
        f"Spearman {_figure(metrics, 'return_spearman')} of mean returns",
        f"Pearson {_figure(metrics, 'success_pearson')} of success rates",
        f"the dream's success rate is off by {100 * metrics['success_bias']:+.0f} points on average",
    ]
    if "uncertainty_against_return_gap" in metrics:
        agree.append(
            "token entropy of an episode against how wrong its return is, rank correlation "
            f"{metrics['uncertainty_against_return_gap']:.2f}"
        )
    parts = [
        f"<h1>{escape(title)}</h1><p>{escape(about)}</p>",
        f"<h2>Does the dream rank policies as MuJoCo does?</h2><p>{len(metrics['policies'])} policies, "
        f"{metrics['episodes']} episodes each in both worlds, from the same first frames. Over policies:</p>",
        "<ul>" + "".join(f"<li>{one}</li>" for one in agree) + "</ul>",
        picture(policies, "png", "policies in both worlds"),
        table(*policy_table(metrics["policies"])),
        "<p class=small>Intervals are 95%. Diverged: an object is further off than half a block, or lost; the step is "
        "the median, a dash if more than half of the episodes never diverge.</p>",
        f"<h2>Side by side</h2>{picture(film, 'gif', 'episodes in both worlds')}",
        f"<p class=small>MuJoCo above, dream below; {escape(', '.join(names))}.</p>",
    ]
    path = folder / "index.html"
    path.write_text(page(title, parts), encoding="utf-8")
    return path


def policy_table(policies: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Head and rows; of figures as they are, or read from a results file, where infinity is null."""
    head = ["policy", "return, dream", "return, MuJoCo", "success, dream", "success, MuJoCo"]
    diverged = "diverged" in policies[0]
    return head + ["diverged", "at step"] * diverged, [_row(one) for one in policies]


def _row(one: dict[str, Any]) -> list[str]:
    dream, real = one["dream"], one["mujoco"]
    cells = [one["policy"]]
    for key, form in (("mean_return", ".1f"), ("success_rate", ".0%")):
        cells += [_interval(side, key, form) for side in (dream, real)]
    if "diverged" in one:
        step = one["divergence_step"]
        cells += [f"{one['diverged']:.0%}", "-" if step is None or np.isinf(step) else f"{step:.0f}"]
    return cells


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


def _interval(worth: dict[str, Any], key: str, form: str) -> str:
    low, high = worth["return_interval" if key == "mean_return" else "success_interval"]
    return f"{worth[key]:{form}} ({low:{form}} to {high:{form}})"


def _figure(metrics: dict[str, Any], name: str) -> str:
    low, high = metrics[f"{name}_interval"]
    return f"{metrics[name]:.2f} (95% interval {low:.2f} to {high:.2f})"
