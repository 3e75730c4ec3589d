"""What `worldgym evaluate` found, as pictures and as one HTML page; and what other reports are put together from."""

import base64
import math
from collections.abc import Sequence
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from ..results import hardware

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

GREY = "0.6"

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; font-size: .85rem; display: block; overflow-x: auto }
th, td { padding: .15rem .6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left }
img { max-width: 100% } .small { color: #666; font-size: .85rem } td small { color: #888; display: block }
"""


def plot_horizon(metrics: dict[str, Any]) -> bytes:
    """The figures by step of horizon, as a PNG; of a world without object metrics, those that there are."""
    objects = "controlled_error" in metrics
    figure, axes = plt.subplots(2, 3 if objects else 2, figsize=(13 if objects else 9, 7), layout="constrained")
    quality, structure, rewards, doubts = axes[0, 0], axes[0, 1], axes[1, 0], axes[1, 1]
    _line(quality, metrics, "psnr", "dream")
    _line(quality, metrics, "psnr_repeat_context", "repeat the context frame", color=GREY)
    quality.set(title="PSNR against the real frames", ylabel="dB")
    _line(structure, metrics, "ssim", "dream")
    _line(structure, metrics, "ssim_repeat_context", "repeat the context frame", color=GREY)
    structure.set(title="SSIM against the real frames")
    _line(rewards, metrics, "reward_correlation", "reward, dream and reality")
    rewards.set(title="Reward, correlation")
    _line(doubts, metrics["uncertainty"], "rank_correlation", "token entropy and true error")
    doubts.set(title="Uncertainty, rank correlation within a step")
    if objects:
        places, kept = axes[0, 2], axes[1, 2]
        _line(places, metrics, "controlled_error", "controlled object")
        _line(places, metrics, "moved_error", "moved objects")
        _line(places, metrics, "moved_error_if_still", "moved objects, if they stayed", color=GREY)
        places.set(title="Median position error", ylabel="object widths", ylim=(0, None))
        _line(kept, metrics, "objects_kept", "all objects")
        _line(kept, metrics, "others_kept", "other objects", color="C1")
        kept.set(title="Objects still found", ylabel="share")
    for axis in axes.flat:
        _finish(axis, "steps dreamed")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    return png(figure)


def plot_calibration(metrics: dict[str, Any]) -> bytes:
    """Uncertainty against true error, and stated probabilities against what happened, as a PNG."""
    figure, (doubts, success, ended) = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
    for name, label in (("reliability", "all steps"), ("reliability_of_last_step", "last step")):
        groups = metrics["uncertainty"][name]
        doubts.plot(groups["stated"], groups["error"], "o-", ms=4, label=label)
    doubts.set(title="Uncertainty: tenths of the frames", ylabel="true error, grey levels (RMS)")
    _finish(doubts, "token entropy, nats")
    for axis, name in ((success, "success"), (ended, "terminated")):
        stated = metrics[f"{name}_calibration"]
        low, high = np.transpose(stated["interval"])
        axis.set(title=f"{name.capitalize()}: stated and true")
        if len(stated["stated"]) < 2:
            _nothing(axis, f"stated alike throughout;\nhappened in {stated['happened_in']} of {stated['of']}")
            continue
        axis.plot([0, 1], [0, 1], color=GREY, lw=1)
        axis.vlines(stated["stated"], low, high, color="C0", alpha=0.4)
        axis.plot(stated["stated"], stated["happened"], "o", ms=4, label=f"{stated['happened_in']} of {stated['of']}")
        axis.set(ylabel="share in which it happened")
        _finish(axis, "stated probability")
    return png(figure)


def write_report(
    folder: Path, title: str, about: str, metrics: dict[str, Any], gif: bytes, not_known: list[str], commit: str
) -> Path:
    """Write horizon.png, calibration.png and index.html, which has all pictures inside; returns the page's path.

    Args:
        about: one sentence, what was dreamed and compared with what.
        gif: dreams next to reality.
        not_known: sentences on what could not be measured for this world.
    """
    folder.mkdir(parents=True, exist_ok=True)
    groups = plot_calibration(metrics)
    (folder / "calibration.png").write_bytes(groups)
    by_step = []
    if len(metrics["psnr"]) > 1:  # a chart of one point shows nothing
        horizon = plot_horizon(metrics)
        (folder / "horizon.png").write_bytes(horizon)
        by_step = [picture(horizon, "png", "figures by step")]
    machine = hardware()
    parts = [
        f"<h1>{escape(title)}</h1><p>{escape(about)} Intervals are 95%, bootstrapped over episodes.</p>",
        _list(verdict(metrics)),
        picture(gif, "gif", "dreams next to reality"),
        "<p class=small>Above what happened, below the dream of it.</p>",
        "<h2>All in all</h2>" + table(["", "figure", "95% interval"], _summary(metrics)),
        *(["<h2>Not known for this world</h2>", _list(not_known)] if not_known else []),
        "<h2>Step by step</h2>",
        *by_step,
        _by_step(metrics),
        "<h2>Does the world know what it does not know?</h2>" + picture(groups, "png", "calibration"),
        "<p class=small>Left: frames sorted by the entropy of their tokens, in ten groups; a useful uncertainty rises. "
        "Middle and right: what the heads state of a dreamed frame against what was so in reality; honest heads are on "
        "the line. Bars: 95%, were the frames of an episode independent.</p>",
        f"<p class=small>Commit {escape(commit)}; {machine['threads']} of {machine['cores']} cores of "
        f"{escape(machine['cpu'])}, GPU {escape(str(machine['gpu'] or 'none'))}, torch {machine['torch']}.</p>",
    ]
    path = folder / "index.html"
    path.write_text(page(title, parts), encoding="utf-8")
    return path


def verdict(metrics: dict[str, Any]) -> list[str]:
    """What the figures come to, in plain words: is it of use, and what to do if it is not."""
    seen, repeated = metrics["reconstruction_psnr"], float(np.mean(metrics["psnr_repeat_context"]))
    gain, steps = metrics["psnr_gain"], len(metrics["psnr_gain"])
    low, high = metrics["psnr_gain_interval"][-1]
    said = []
    if seen < repeated:
        said.append(
            f"The tokenizer draws frames worse ({seen:.1f} dB) than repeating the first one would ({repeated:.1f} dB): "
            "no dream can be better than that. Train the tokenizer longer, then the dynamics."
        )
    if low > 0:
        said.append(f"After {steps} steps its pictures are better than repeating the first one, by {gain[-1]:.1f} dB.")
    elif high < 0:
        said.append(
            f"After {steps} steps its pictures are worse than repeating the first one, by {-gain[-1]:.1f} dB: it does "
            "not show what happens yet."
        )
    else:
        said.append(f"After {steps} steps its pictures are about as good as repeating the first one.")
    correlation = metrics["reward_correlation_all_steps"]
    if math.isnan(correlation):
        said.append("Whether its rewards are right is undefined: they, or the recorded ones, are all the same here.")
    else:
        follow = "follow" if correlation > 0.8 else "partly follow" if correlation > 0.4 else "do not follow"
        said.append(f"Its rewards {follow} the true ones: correlation {correlation:.2f} over all steps.")
    return said


def as_text(metrics: dict[str, Any], about: str, not_known: list[str]) -> str:
    """The verdict and the figures for a terminal, lines of them; arguments as for `write_report`."""
    objects, steps = "objects_kept" in metrics, len(metrics["psnr"])
    places = "  controlled  moved objects  objects kept     errors in object widths, medians" if objects else ""
    lines = [
        *verdict(metrics),
        "",
        about,
        f"tokenizer reconstruction        {metrics['reconstruction_psnr']:.2f} dB",
        f"step   PSNR  (gain)    SSIM   reward r{places}",
    ]
    for step in sorted({1, 2, 4, 8, 12, steps}):
        if step <= steps:
            i = step - 1
            line = (
                f"{step:4d}  {metrics['psnr'][i]:5.2f} ({metrics['psnr_gain'][i]:+5.2f})  {metrics['ssim'][i]:.3f}  "
                f"{_number(metrics['reward_correlation'][i]):>9s}"
            )
            if objects:
                line += (
                    f"  {metrics['controlled_error'][i]:10.2f}  {metrics['moved_error'][i]:13.2f}  "
                    f"{metrics['objects_kept'][i]:12.1%}"
                )
            lines.append(line)
    lines.append(f"reward correlation, all steps   {_number(metrics['reward_correlation_all_steps'])}")
    for name, value in metrics["uncertainty_rank_correlation"].items():
        lines.append(f"{name:20s} against error, rank correlation {_number(value)}")
    stated = metrics["success_calibration"]
    lines.append(
        f"success, calibration error      {stated['expected_error']:.3f}, Brier {stated['brier']:.4f} "
        f"(of always stating the true rate {stated['brier_of_base_rate']:.4f})"
    )
    if ends := metrics.get("ends"):
        alarms = ends["false_alarms"]
        lines.append(
            f"ends of episodes                foreseen {ends['foreseen']['rate']:.0%} of {ends['ended']}, missed "
            f"{ends['missed']['rate']:.0%}"
            + (f"; false alarms in {alarms['rate']:.0%} of {ends['went_on']} others" if alarms else "")
        )
    if "sentences" in metrics:
        said = metrics["sentences"]
        lines.append(
            f"sentences obeyed                {said['obeyed']} of {said['cases_where_it_really_moved']} "
            f"({said['rate']:.0%}, 95% interval {said['interval'][0]:.0%} to {said['interval'][1]:.0%})"
        )
    for name in ("lpips", "fvd"):
        value = metrics[name]
        lines.append(f"{name.upper():32s} {value if isinstance(value, str) else format(np.mean(value), '.3f')}")
    if isinstance(metrics["best_of"], dict):
        best = metrics["best_of"]
        figures = ", ".join(
            f"{name.upper()} {best[name] if isinstance(best[name], str) else format(best[name], '.3f')}"
            for name in ("psnr", "ssim", "lpips", "fvd")
        )
        lines.append(f"best of {best['samples']} samples (FVD: all)  {figures}")
    return "\n".join([*lines, *(f"not known: {sentence}" for sentence in not_known)])


def page(title: str, parts: Sequence[str]) -> str:
    """HTML of a self-contained page, from the HTML of its parts."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head><body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]], escaped: bool = False) -> str:
    """HTML of a table; with `escaped`, the cells of `rows` are HTML already."""
    clean = (lambda cell: cell) if escaped else escape
    lines = ["<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{clean(cell)}</td>" for cell in row) + "</tr>" for row in rows]
    return "<table>" + "\n".join(lines) + "</table>"


def picture(content: bytes, kind: str, alt: str) -> str:
    """HTML that holds a picture; `kind` is "png" or "gif"."""
    return f'<img alt="{escape(alt)}" src="data:image/{kind};base64,{base64.b64encode(content).decode()}">'


def png(figure: Figure) -> bytes:
    """A Matplotlib figure as a PNG; it is closed."""
    buffer = BytesIO()
    figure.savefig(buffer, dpi=120, format="png")
    plt.close(figure)
    return buffer.getvalue()


def _summary(metrics: dict[str, Any]) -> list[list[str]]:
    """Rows of one figure each."""
    doubts = metrics["uncertainty"]
    rows = [
        ["episodes", str(metrics["episodes"]), ""],
        ["tokenizer reconstruction, PSNR in dB", f"{metrics['reconstruction_psnr']:.2f}", ""],
        [
            "reward correlation, all steps",
            _number(metrics["reward_correlation_all_steps"]),
            _range(metrics["reward_correlation_all_steps_interval"]),
        ],
        [
            "token entropy against true error, rank correlation over all steps",
            _number(metrics["uncertainty_rank_correlation"]["token_entropy"]),
            _range(doubts["rank_correlation_all_steps_interval"]),
        ],
    ]
    for name in ("success", "terminated"):
        stated = metrics[f"{name}_calibration"]
        rows += [
            [f"{name}: expected calibration error", _number(stated["expected_error"]), ""],
            [
                f"{name}: Brier score (of always stating the true rate)",
                f"{stated['brier']:.4f} ({stated['brier_of_base_rate']:.4f})",
                "",
            ],
        ]
    if ends := metrics.get("ends"):
        asked = (("foreseen", "ended"), ("missed", "ended"), ("false_alarms", "went_on"))
        rows += [
            [
                f"ends of episodes: {name.replace('_', ' ')}, of {ends[of]}",
                f"{one['rate']:.0%}",
                _range(one["interval"]),
            ]
            for name, of in asked
            if (one := ends[name]) is not None
        ]
    said = metrics.get("sentences")
    if said:
        rows.append(
            [
                "sentences obeyed, of those that move something in reality",
                f"{said['obeyed']} of {said['cases_where_it_really_moved']} ({said['rate']:.0%})",
                _range(said["interval"]),
            ]
        )
    rows.append(["FVD of the likeliest dreams", _number(metrics["fvd"]), ""])
    if isinstance(metrics["lpips"], str):
        rows.append(["LPIPS", metrics["lpips"], ""])
    best = metrics["best_of"]
    if isinstance(best, str):
        return [*rows, ["best of many samples (iVideoGPT's protocol)", best, ""]]
    for name in ("psnr", "ssim", "lpips"):
        label = f"{name.upper()}, best of {best['samples']} samples"
        rows.append([label, _number(best[name]), _range(best.get(f"{name}_interval"))])
    return [*rows, [f"FVD, all {best['samples']} samples of {best['videos']} videos", _number(best["fvd"]), ""]]


STEPWISE = (
    ("PSNR, dB", "psnr"),
    ("... above repeating the first frame", "psnr_gain"),
    ("SSIM", "ssim"),
    ("LPIPS", "lpips"),
    ("controlled object's position error, object widths", "controlled_error"),
    ("moved objects' position error", "moved_error"),
    ("objects still found, share", "objects_kept"),
    ("reward, correlation", "reward_correlation"),
)


def _by_step(metrics: dict[str, Any]) -> str:
    figures = {**metrics, "doubt": metrics["uncertainty"]["rank_correlation"]}
    figures["doubt_interval"] = metrics["uncertainty"]["rank_correlation_interval"]
    rows = []
    for label, name in (*STEPWISE, ("uncertainty against error, rank correlation", "doubt")):
        values = figures.get(name)
        if isinstance(values, list):
            intervals = figures.get(f"{name}_interval", [None] * len(values))
            cells = [f"{_number(v)}<small>{_range(i)}</small>" for v, i in zip(values, intervals, strict=True)]
            rows.append([escape(label), *cells])
    head = ["steps dreamed", *(str(step + 1) for step in range(len(metrics["psnr"])))]
    return table(head, rows, escaped=True)


def _number(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.3f}" if math.isfinite(value) else "undefined" if math.isnan(value) else "lost"


def _range(interval: Sequence[float] | None) -> str:
    if interval is None or any(math.isnan(end) for end in interval):
        return ""
    return " to ".join(_number(end) for end in interval)


def _list(sentences: list[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences) + "</ul>"


def _line(axis: Axes, figures: dict[str, Any], name: str, label: str, color: str | None = None) -> None:
    values = np.array(figures[name], float)
    if np.isfinite(values).sum() < 2:
        return _nothing(axis, f"{label}: undefined")
    horizon = np.arange(1, len(values) + 1)
    drawn = axis.plot(horizon, np.where(np.isfinite(values), values, np.nan), "o-", ms=3, label=label, color=color)
    if f"{name}_interval" in figures:
        low, high = np.transpose(np.array(figures[f"{name}_interval"], float))
        known = np.isfinite(low) & np.isfinite(high)
        axis.fill_between(horizon, low, high, where=known, alpha=0.2, color=drawn[0].get_color(), lw=0)


def _nothing(axis: Axes, why: str) -> None:
    """Words in place of a chart."""
    axis.text(0.5, 0.5, why, transform=axis.transAxes, ha="center", va="center", color=GREY)
    axis.set(xticks=[], yticks=[])


def _finish(axis: Axes, across: str) -> None:
    axis.set_xlabel(across)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False, fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
