"""What `worldgym transfer` found, as one self-contained HTML page."""

from html import escape
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt

from worldgym.evaluate.pan_report import WAYS
from worldgym.evaluate.report import page, picture, png, table

COLOURS = {"nominal": "0.4", "trained": "C0", "held out": "C1"}


def write_report(
    folder: Path,
    title: str,
    about: str,
    grid: list[dict[str, Any]],
    combined: dict[str, Any] | None = None,
) -> Path:
    """Write index.html, which contains plots and videos, and the plots next to it; returns the page's path.

    Args:
        about: one sentence on what was compared.
        grid: what `zero_shot` returned.
        combined: success on unseen combinations of instructions, by what chose the sentences; None if left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tables = plot_grid(grid)
    (folder / "zero_shot.png").write_bytes(tables)
    parts = [f"<h1>{escape(title)}</h1><p>{escape(about)}</p>"]
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


GRID_HEAD = ["policy", "table", "", "success", "95% interval", "episodes", "cost in points"]


COMBINATION_HEAD = ["sentences chosen by", "success", "95% interval", "episodes"]


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
