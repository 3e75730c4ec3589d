"""Print docs/results.md, made of benchmarks/results alone; `--write` writes it. What was not run says how to run it."""

import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from table import (
    LEARN_HEAD,
    ROOT,
    SAC_STEPS,
    blocks,
    dream_table,
    learn_row,
    load,
    markdown,
    over_seeds,
    percent,
    plan_table,
    planning_share,
    points_lost,
    row,
    sac_returns,
    share_of_the_way,
)

from worldgym import pan_report
from worldgym.agents import transfer_report
from worldgym.metrics import bootstrap

PAGE = ROOT / "docs" / "results.md"
HEAD = """# Results

Written by `benchmarks/results_page.py --write` from the files in `benchmarks/results`, each of which also has the
command, commit, seed and machine that made it. Intervals are 95%. Position errors are medians in block widths; an
object that the dream lost counts as infinitely far off, and "lost" says that this is so for half of them.
"""


class Section(NamedTuple):
    title: str
    files: tuple[str, ...]
    """In benchmarks/results, without their ending."""
    command: str
    """Makes them."""
    body: Callable[[], list[str]]


def page() -> str:
    """The page as markdown."""
    parts = [HEAD]
    for section in SECTIONS:
        missing = [name for name in section.files if not (ROOT / "benchmarks" / "results" / f"{name}.json").exists()]
        body = [f"Not measured yet: `{section.command}`."] if missing else section.body()
        parts.append("\n".join([f"## {section.title}", "", *body, ""]))
    return "\n".join(parts)


def dream() -> list[str]:
    metrics = load("tabletop_dream")["metrics"]
    return [*dream_table(load("tabletop_dream")), "", *more_of_the_dream(metrics)]


def more_of_the_dream(m: dict[str, Any]) -> list[str]:
    """What `worldgym evaluate` knows beyond the README's table."""
    if "objects_kept" not in m:  # written by a release that did not measure it
        return ["SSIM, objects kept and calibration: measured when `worldgym evaluate` runs again."]
    steps = [step for step in (1, 2, 4, 8, 12, 16) if step <= len(m["psnr"])]
    success = m["success_calibration"]

    def cells(name: str, show: Callable[[float | None], str], where: dict[str, Any] = m) -> list[str]:
        return [with_interval(where, name, step - 1, show) for step in steps]

    return [
        "| steps dreamed | " + " | ".join(str(step) for step in steps) + " |",
        "|---|" + "---|" * len(steps),
        row("PSNR, dB", cells("psnr", one_digit)),
        row("SSIM", cells("ssim", three_digits)),
        row("... of repeating the first frame", cells("ssim_repeat_context", three_digits)),
        row("moved blocks' position error", [moved_error(m, m, step - 1) for step in steps]),
        row("objects still found", cells("objects_kept", share)),
        row("reward, correlation", cells("reward_correlation", three_digits)),
        row(
            "uncertainty against error, rank correlation among dreams",
            cells("rank_correlation", two_digits, m["uncertainty"]),
        ),
        "",
        "Uncertainty in tenths of the frames, from the surest on, and the RMS error of each, in grey levels: "
        + ", ".join(
            f"{stated:.2f} nats {wrong:.1f}"
            for stated, wrong in zip(
                m["uncertainty"]["reliability"]["stated"], m["uncertainty"]["reliability"]["error"], strict=True
            )
        )
        + ".",
        f"Success as stated by the dream, in {success['of']} frames, {success['happened_in']} of them solved in "
        f"MuJoCo: expected calibration error {success['expected_error']:.3f}, Brier score {success['brier']:.4f} "
        f"(always stating the true rate: {success['brier_of_base_rate']:.4f}).",
        f"LPIPS {perception(m['lpips'])}; FVD {perception(m['fvd'])}; best of many samples, iVideoGPT's protocol: "
        f"{best_of(m['best_of'])}.",
    ]


def zero_shot() -> list[str]:
    results = load("tabletop_zero_shot")
    m = results["metrics"]
    steps = [step for step in (8, 16) if step <= m["steps"]]
    names = ("PSNR gain, dB", "pusher's error", "moved blocks' error", "objects found")
    lines = [
        f"{m['episodes']} episodes a table, the same behaviours and seeds, dreamed open loop from one real frame with "
        "the true actions. Each cell: after " + " / ".join(str(step) for step in steps) + " steps. PSNR gain is over "
        "repeating the first frame. Last column: the moved blocks' error of the finder itself, in the true frames.",
        "",
        "| table | " + " | ".join(names) + " | finder's own error |",
        "|---|" + "---|" * (len(names) + 1),
    ]
    for name, t in m["tables"].items():
        shown = (
            [f"{t['psnr_gain'][s - 1]:+.1f}" for s in steps],
            [error(t["pusher_error_blocks"][s - 1]) for s in steps],
            [moved_error(t, t, s - 1) for s in steps],
            [share(t["objects_kept"][s - 1]) for s in steps],
            [moved_error(t, t["finder_on_true_frames"], s - 1) for s in steps],
        )
        lines.append(row(name, [" / ".join(cells) for cells in shown]))
    return [*lines, "", "![True and dreamed frames of every table](images/zero_shot.png)", "", made_by(results)]


def drift() -> list[str]:
    results = load("tabletop_drift")
    m = results["metrics"]
    where = [m["looked_at"].index(step) for step in m["at"]]
    lines = [
        f"{m['dreams']} dreams of {m['at'][-1]} steps from one real frame each, against MuJoCo with the same actions. "
        f"The world was trained on windows of {m['trained_window']} steps; a variant says when the newest imagined "
        'frame becomes the context. "never" runs its window on, at time positions that training never showed.',
        "",
        "| | steps | " + " | ".join(str(step) for step in m["at"]) + " |",
        "|---|---|" + "---|" * len(where),
    ]
    for name, found in m["baselines"].items():
        lines.append(row(f"{name} | PSNR", [one_digit(found["psnr"][i]) for i in where]))
    for name, found in m["variants"].items():
        lines += of_long_dreams(f"re-anchored {name}", found, where)
    pictures = ["![Curves](images/drift.png)", "", "![Frames](images/drift_frames.png)"]
    return [*lines, "", *pictures, "", made_by(results)]


def of_long_dreams(label: str, found: dict[str, Any], where: Sequence[int]) -> list[str]:
    return [
        row(f"{label} | PSNR", [one_digit(found["psnr"][i]) for i in where]),
        row(" | SSIM", [three_digits(found["ssim"][i]) for i in where]),
        row(" | objects found", [with_interval(found, "objects_kept", i, share) for i in where]),
        row(" | pusher's error", [error(found["pusher_error_blocks"][i]) for i in where]),
    ]


def past() -> list[str]:
    results = load("tabletop_past")
    m = results["metrics"]
    indices = range(len(m["at"]))
    lines = [
        f"The bundled world, which remembers up to 16 steps, without parts of what it remembers, in {m['episodes']} "
        "held-out episodes, open loop from one frame. Nothing is trained anew: this is what it makes use of, not what "
        "it could not have done without. PSNR gain is over repeating the first frame.",
        "",
        "| | steps | " + " | ".join(str(step) for step in m["at"]) + " |",
        "|---|---|" + "---|" * len(indices),
    ]
    for name, found in m["ways"].items():
        lines += [
            row(f"{name} | PSNR gain", [with_interval(found, "psnr_gain", i, one_digit) for i in indices]),
            row(" | moved blocks' error", [moved_error(found, found, i) for i in indices]),
        ]
        if name != "as it is":
            more = [with_interval(found, "psnr_more", i, "{:+.2f}".format) for i in indices]
            lines.append(row(" | PSNR, episode by episode against it as it is", more))
    return [*lines, "", made_by(results)]


PASTS = {
    "tabletop": "the bundled world, which they go on from",
    "slips": "gone on with slips",
    "no_slips": "gone on without",
}


def corruption() -> list[str]:
    results = load("tabletop_corruption")
    m = results["metrics"]
    where = range(len(m["at"]))
    lines = [
        f"The bundled world, trained on for {m['steps']} steps of {m['batch']} segments of 16 steps: with slips "
        "(one token in ten of the past that it is taught from is wrong), as it was before, and without. The world "
        f"itself dreams half of the segments in both. {m['dreams']} dreams each, re-anchored every 16 steps.",
        "",
        "| | steps | " + " | ".join(str(step) for step in m["at"]) + " |",
        "|---|---|" + "---|" * len(where),
    ]
    for name, found in m["worlds"].items():
        lines += of_long_dreams(PASTS[name], found, where)
    less = m["worlds"]["no_slips"]
    quality = [with_interval(less, "psnr_more", i, "{:+.2f}".format) for i in where]
    lines += [
        row("without less with, dream by dream | PSNR", quality),
        row(" | objects found, points", [with_interval(less, "objects_kept_more", i, points) for i in where]),
    ]
    return [*lines, "", "![The same dreams in each world](images/corruption.png)", "", made_by(results)]


def points(share: float | None) -> str:
    """Of percent."""
    return f"{100 * (share or 0.0):+.0f}"


def pan_suite() -> list[str]:
    results = load("pan_suite")
    m = results["metrics"]
    lines = [
        pan_report.about(m) + " MuJoCo is the judge; what is counted, and what the paper counts, is in "
        "[the decisions](decisions.md#the-evaluation-of-pan).",
        "",
        *markdown(["", *pan_report.ROWS.values()], pan_report.figure_table(m)),
        "",
        f"Consistency of the dream, round by round: {pan_report.round_by_round(m)}.",
        "",
    ]
    if isinstance(m["planning"], str):
        return [*lines, f"Structured planning {m['planning']}.", "", made_by(results)]
    planning = m["planning"]
    return [
        *lines,
        f"Structured planning: {planning['episodes_of_each_task']} episodes of each of "
        f"{len(next(iter(planning['ways'].values()))['by_task'])} tasks, at most {planning['sentences']} sentences for "
        "each instruction, carried out in MuJoCo.",
        "",
        *markdown(["sentences chosen by", "success", "seconds a decision"], pan_report.planning_table(m)),
        "",
        made_by(results),
    ]


def decoders() -> list[str]:
    results = load("tabletop_decoders")
    m = results["metrics"]
    bins = [f"{begin} to {end - 1}" for begin, end in pairwise(m["bins"])]
    cells = " / ".join(bins)
    lines = [
        f"{m['dreams']} dreams of {m['bins'][-1] - 1} steps from one real frame each, shown by each decoder. Each "
        f"cell: mean over steps {cells}. Sharpness is the variance of the Laplacian and restlessness the change from "
        "frame to frame, both over that of the true frames: 1 is as they are. Object error: median over all objects, "
        "in block widths. *True maps*: shown from maps that are read off the true frames, where only the decoder can "
        "err.",
        "",
    ]
    for table, title in (("dreamed", "dreams"), ("true_maps", "true maps")):
        lines += [f"| {title} | PSNR | SSIM | sharpness | restlessness | object error | objects found | ms a frame |"]
        lines += ["|---|---|---|---|---|---|---|---|"]
        for name, found in m[table].items():
            shown: list[str] = []
            for key, show in (
                ("psnr", one_digit), ("ssim", three_digits), ("sharpness", two_digits), ("restlessness", two_digits),
                ("object_error_blocks", error), ("objects_kept", share),
            ):  # fmt: skip
                shown.append(" / ".join(show(value) for value in found[key]))
            lines.append(row(name, [*shown, f"{found['milliseconds_a_frame']:.0f}"]))
        lines.append("")
    gains = [
        f"{name}: SSIM "
        + ", ".join(
            f"{gain:+.4f} ({low:+.4f} to {high:+.4f})"
            for gain, (low, high) in zip(found["ssim_gain"], found["ssim_gain_interval"], strict=True)
        )
        for name, found in m["dreamed"].items()
        if "ssim_gain" in found
    ]
    return [
        *lines, "Of dreams, over the fast decoder, episode by episode: " + "; ".join(gains) + ".", "",
        "![The same dreams by every decoder](images/decoders.png)", "", made_by(results),
    ]  # fmt: skip


def latent_matching() -> list[str]:
    results = load("latent_matching")
    m = results["metrics"]
    steps = (1, 4, 8, 16)
    lines = [
        "The same encoder and dynamics, taught three ways (PAN's argument for generative supervision); "
        f"{m['episodes']} held-out episodes, open loop. Position errors: medians in block widths, of a ridge "
        "regression from latents of true frames. Each cell: the mean over seeds and its range. Rank: directions of "
        "a cell's latent in use, of 32; spread: their standard deviation.",
        "",
        "| taught by | pusher, true frames | "
        + " | ".join(f"{step} steps" for step in steps)
        + " | blocks, true frames | 16 steps | PSNR, 16 | rank | spread |",
        "|---|" + "---|" * (len(steps) + 6),
    ]
    for variant, seeds in m["variants"].items():
        cells = [over_seeds([one["pusher_error_blocks_of_true_frames"] for one in seeds], 2)]
        cells += [over_seeds([one["pusher_error_blocks"][step] for one in seeds], 2) for step in steps]
        cells.append(over_seeds([one["block_error_blocks_of_true_frames"] for one in seeds], 2))
        cells.append(over_seeds([one["block_error_blocks"][16] for one in seeds], 2))
        cells.append(over_seeds([one["psnr"][16] for one in seeds], 1))
        cells.append(over_seeds([one["effective_rank"] for one in seeds], 1))
        cells.append(over_seeds([one["standard_deviation"] for one in seeds], 3))
        lines.append(row(variant, cells))
    still = m["if_still"]
    ways = [f"{still['pusher_error_blocks'][step]:.2f}" for step in steps]
    lines.append(row("nothing moves", ["", *ways, "", "", f"{still['psnr'][16]:.1f}", "", ""]))
    return [*lines, "", made_by(results)]


def swin_drift() -> list[str]:
    results = load("swin_drift")
    m = results["metrics"]
    ends, variants, baselines = m["ends"], m["variants"], m["baselines"]
    most = max(len(found) for found in variants.values())
    averaged = "of one seed" if most == 1 else f"mean over at most {most} seeds and, of the last, their range"
    lines = [
        f"A video model that has to carry details along: of {m['components']} components of a frame's latent it is "
        f"told {m['told']}, where what is, and diffuses the others from the frame before, {m['chunks']} chunks of "
        f"{m['frames']} frames from a real frame, {m['steps']} steps of denoising; {m['episodes']} held-out episodes. "
        f"Variants are trained alike, {m['training_steps']} steps on the same frames each. Each cell: first {ends} "
        f"chunks / last {ends}, {averaged}. Sharpness and change are over those of "
        "the true frames; change: from frame to frame, at the borders of chunks / inside them. Errors: medians in "
        "block widths.",
        "",
        "| | PSNR | SSIM | sharpness | objects found | pusher's error | blocks' error | change |",
        "|---|---|---|---|---|---|---|---|",
    ]
    shown = (("psnr", 1), ("ssim", 3), ("sharpness", 2), ("objects_found", 2), ("pusher_error", 2), ("block_error", 2))
    for name, seeds in [*variants.items(), *((name, [found]) for name, found in baselines.items())]:
        cells = [
            over_seeds([one[f"{key}_first"] for one in seeds], digits).split(" (")[0]
            + " / "
            + over_seeds([one[f"{key}_last"] for one in seeds], digits)
            for key, digits in shown
        ]
        change = [sum(one[key] for one in seeds) / len(seeds) for key in ("border", "inside")]
        lines.append(row(name, [*cells, " / ".join(two_digits(value) for value in change)]))

    def gain(found: dict[str, Any], name: str, form: str, unit: str = "") -> str:
        low, high = found[f"{name}_interval"]
        return f"{found[name]:{form}}{unit} ({low:{form}} to {high:{form}})"

    def gains(found: dict[str, Any], when: str) -> str:
        return f"{gain(found, f'psnr_{when}', '+.2f', ' dB')}, SSIM {gain(found, f'ssim_{when}', '+.3f')}"

    return [
        *lines, "",
        f"Over {m['reference']}, episode by episode, in the last {ends} chunks, and how much of its decline from the "
        f"first {ends} is spared:", "",
        *(f"- {n}: {gains(one, 'last')}; of the decline {gains(one, 'decline')}." for n, one in m["gains"].items()),
        "",
        "![Chunk by chunk](images/swin_drift.png)", "",
        "![The same episodes by every variant](images/swin_drift_frames.png)", "", made_by(results),
    ]  # fmt: skip


def backbones() -> list[str]:
    results = load("pan_backbone")
    m = results["metrics"]
    rounds = range(m["rounds"])
    lines = [
        "PAN's stage two over frozen backbones: the queries and a linear readout learn where everything is after a "
        f"sentence, from a picture of it before. {m['held_out']} held-out conversations of {m['rounds']} rounds. "
        "Error: of the pushed block, where it moves in MuJoCo, median, in block widths; obeyed: it is predicted to go "
        "the commanded way; others' error: of the block that stays, which is seen and not foreseen. Each cell: round "
        + " / ".join(str(index + 1) for index in rounds)
        + ", mean over seeds and their range.",
        "",
        "| backbone | parameters | error | obeyed | others' error |",
        "|---|---|---|---|---|",
    ]

    def cells(seeds: list[dict[str, Any]]) -> list[str]:
        return [
            " / ".join(over_seeds([one[name][index] for one in seeds], 2) for index in rounds)
            for name in ("error", "obeyed", "others_error")
        ]

    for label, entry in m["backbones"].items():
        lines.append(row(label, [f"{entry['parameters'] / 1e6:.2f} M", *cells(entry["seeds"])]))
    lines.append(row("nothing moves, all places known", ["", *cells([m["if_still"]])]))
    lines.append(row("everything at its mean place", ["", *cells([m["mean_place"]])]))
    taught = [
        f"the {name}: " + ", ".join(f"{what} {error:.2f}" for what, error in found.items())
        for name, found in m["pretraining"].items()
    ]
    if taught:
        lines += ["", "Median error of all places at the end of the pretraining: " + "; ".join(taught) + "."]
    return [*lines, "", made_by(results)]


def motion() -> list[str]:
    results = load("reacher_motion")
    m = results["metrics"]
    steps = m["at"]
    still = " / ".join(f"{m['psnr_still'][step - 1]:.1f}" for step in steps)
    lines = [
        f"The Reacher, whose speed no frame tells. {m['episodes']} held-out stretches, dreamed open loop after the "
        f"same {m['seen']} frames; worlds of equal data and optimiser steps, told of motion in different ways. PSNR "
        f"gain over repeating the last frame, which has {still} dB at the steps "
        + " / ".join(str(step) for step in steps)
        + "; fastest: of the quarter of stretches that begin so.",
        "",
    ]
    head = ["told of motion by", "frames shown", *(str(step) for step in steps), "fastest", "reward off by"]
    rows = []
    for name, found in m["worlds"].items():
        cells = [name, str(found["frames_shown"])]
        for step in steps:
            low, high = found["psnr_gain_interval"][step - 1]
            cells.append(f"{found['psnr_gain'][step - 1]:+.1f} ({low:+.1f} to {high:+.1f})")
        cells.append(" / ".join(f"{found['psnr_gain_of_the_fastest_quarter'][step - 1]:+.1f}" for step in steps))
        cells.append(" / ".join(f"{found['reward_error'][step - 1]:.3f}" for step in steps))
        rows.append(cells)
    return [
        *lines,
        *markdown(head, rows),
        "",
        "![The same stretches in every world](images/motion.png)",
        "",
        made_by(results),
    ]


ABLATED = {
    "ours": "ours",
    "raster": "16 tokens, each through the backbone (iVideoGPT)",
    "scales": "each scale through the backbone (SAMPO)",
    "single": "one scale of 64 tokens",
    "symmetric": "tokens without a look at the context",
    "queries": "queries, which leave the cache (PAN)",
    "queries_kept": "queries, which stay",
    "tokens_alone": "nothing kept of what tokens leave out",
    "timeless": "positions without time",
}
SCALED = {
    "base": "ours (base)",
    "small": "fewer parameters",
    "large": "more parameters",
    "half": "32 pixels a side",
    "window_4": "4 steps remembered",
    "window_16": "16 steps remembered",
    "without_time": "positions without time",
}
SPEEDS = (("seconds_a_training_step", ".2f"), ("frames_a_second_1", ".0f"), ("frames_a_second_16", ".0f"))


def ablations() -> list[str]:
    results = load("tabletop_ablations")
    m = results["metrics"]
    first = m["at"][0]
    columns = [
        *((f"PSNR gain, {step}", "psnr_gain", step, 1) for step in m["at"]),
        (f"pusher's error, {first}", "pusher_error_blocks", first, 2),
        ("moved blocks' error, 8", "moved_block_error_blocks", 8, 2),
        ("reward, 8", "reward_correlation", 8, 2),
    ]
    return [
        f"Ours with another part in the place of one, each learned from nothing: {taught(m)}, the same batches in the "
        "same order, nobody fed with its own dreams. What differs is at the top of `benchmarks/ablations.py`. "
        f"{judged(m)}",
        "",
        *variants_table(m, ABLATED, columns),
        "",
        *costs_table(m, ABLATED),
        "",
        "![The same episodes, dreamed by each](images/ablations.png)",
        "",
        made_by(results),
    ]


def scaling() -> list[str]:
    results = load("tabletop_scaling")
    m = results["metrics"]
    first = m["at"][0]
    columns = [
        *((f"PSNR gain, {step}", "psnr_gain", step, 1) for step in m["at"]),
        *((f"... at 32 pixels, {step}", "psnr_gain_32", step, 1) for step in (first, 8)),
        *((f"pusher's error, {step}", "pusher_error_blocks", step, 2) for step in (first, 4)),
        ("moved blocks' error, 8", "moved_block_error_blocks", 8, 2),
        ("reward, 8", "reward_correlation", 8, 2),
    ]
    over_base = [
        [SCALED[name], *(with_interval(found, "gain", index, "{:+.2f}".format) for index in range(len(m["at"])))]
        for name, found in m["over_base"].items()
    ]
    return [
        f"Ours with one size changed, each learned from nothing: {taught(m)}, where a longer window has as many fewer "
        "segments; nobody fed with its own dreams. Parameters are those of the dynamics, the tokenizer stays as it is. "
        "32 pixels a side go through the same networks, so there are 21 tokens a frame for 85 and 4 state tokens for "
        f"16. {judged(m)} All worlds are also compared at 32 pixels a side.",
        "",
        *variants_table(m, SCALED, columns),
        "",
        "Above ours at 32 pixels a side, dB, episode by episode:",
        "",
        *markdown(["", *(f"{step}" for step in m["at"])], over_base),
        "",
        *costs_table(m, SCALED),
        "",
        "![Gain against parameters, pixels and memory](images/scaling_curves.png)",
        "",
        "![The same episodes, dreamed by each](images/scaling.png)",
        "",
        made_by(results),
    ]


def taught(m: dict[str, Any]) -> str:
    return (
        f"{m['tokenizer_steps']} steps of 48 frames for its tokenizer, {m['steps']} steps of {m['batch']} segments of "
        f"{m['window']} steps for its dynamics"
    )


def judged(m: dict[str, Any]) -> str:
    """How the worlds of a study from nothing were measured."""
    still, eighth = next(iter(m["variants"].values()))["seeds"][0], m["at"].index(8)
    repeat = " / ".join(f"{value:.1f}" for value in still["psnr_repeat_context"])
    return (
        f"{m['episodes']} held-out episodes of MuJoCo, dreamed open loop from one frame; a full window begins anew "
        f"from the newest frame. PSNR gain is over repeating the first frame, which has {repeat} dB; blocks that moved "
        f"would be {still['moved_block_error_blocks_if_still'][eighth]:.2f} widths off after 8 steps, had they stayed. "
        "Reward: correlation with MuJoCo's. Of several seeds the mean and the range, else the 95% interval over "
        "episodes; a tokenizer is shared by all seeds."
    )


def variants_table(
    m: dict[str, Any], titles: dict[str, str], columns: Sequence[tuple[str, str, int, int]]
) -> list[str]:
    """Quality of the variants of a study.

    Args:
        titles: what each is called.
        columns: title, figure, steps dreamed and digits of each.
    """
    rows = []
    for name, found in m["variants"].items():
        if seeds := found.get("seeds"):  # training takes minutes for each, sizes and speeds do without
            several = f", {len(seeds)} seeds" if len(seeds) > 1 else ""
            through = f"{seeds[0]['reconstruction_psnr']:.1f}"
            cells = (of_seeds(seeds, figure, m["at"].index(step), digits) for _, figure, step, digits in columns)
            rows.append([titles[name] + several, through, *cells])
    return markdown(["", "through tokens, dB", *(title for title, *_ in columns)], rows)


def of_seeds(seeds: list[dict[str, Any]], name: str, index: int, digits: int) -> str:
    values = over_seeds([one[name][index] for one in seeds], digits)
    intervals = seeds[0].get(f"{name}_interval")
    if len(seeds) > 1 or values == "lost" or intervals is None:
        return values
    low, high = ("lost" if bound is None else f"{bound:.{digits}f}" for bound in intervals[index])
    return f"{values} ({low} to {high})"


def costs_table(m: dict[str, Any], titles: dict[str, str]) -> list[str]:
    head = ["", "parameters", "tokens a frame", "in the cache", "s a training step", "frames/s, 1 dream", "16 dreams"]
    rows = []
    for name, found in m["variants"].items():
        size = found["parameters"]
        rows.append(
            [
                titles[name],
                f"{size['tokenizer'] / 1e6:.2f} + {size['dynamics'] / 1e6:.2f} M",
                f"{found['tokens_a_frame']}",
                f"{found['cached_tokens_a_frame']}",
                *(f"{found[key]:{form}}" for key, form in SPEEDS),
            ]
        )
    return [
        "Speed of one thread, by turns: a training step, and frames with pixels, a window with its beginning.",
        "",
        *markdown(head, rows),
    ]


def reacher() -> list[str]:
    return of_gymnasium("reacher", "near at the end", lambda plan: percent(plan["success_rate"]))


def hopper() -> list[str]:
    return of_gymnasium("hopper", "steps until it falls, of 50", lambda plan: f"{plan['mean_steps']:.0f}")


def of_gymnasium(world: str, last: str, cell: Callable[[dict[str, Any]], str]) -> list[str]:
    """A world whose twin is Gymnasium's: its dreams, and planning in them.

    Args:
        last: head of a column of planning, whose cells `cell` makes of the metrics of a plan.
    """
    results = load(f"{world}_dream")
    m = results["metrics"]
    steps = [step for step in (1, 2, 4, 8, 12, 16) if step <= len(m["psnr"])]
    lines = [
        f"{m['episodes']} held-out stretches, dreamed open loop from what motion can be told by.",
        "",
        f"![MuJoCo above, the dream below](images/{world}.gif)",
        "",
    ]
    rows = [
        [title, *(with_interval(m, name, step - 1, show) for step in steps)]
        for title, name, show in (
            ("PSNR, dB", "psnr", one_digit),
            ("... above repeating the last frame seen", "psnr_gain", one_digit),
            ("SSIM", "ssim", three_digits),
            ("reward, correlation with MuJoCo's", "reward_correlation", three_digits),
        )
    ]
    lines += [*markdown(["steps dreamed", *(str(step) for step in steps)], rows), ""]
    if ends := m.get("ends"):
        foreseen, missed, alarms = (ends[name] for name in ("foreseen", "missed", "false_alarms"))
        lines += [
            f"Ends: {ends['ended']} held-out episodes that end, dreamed from {ends['steps']} steps before. "
            f"{in_percent(foreseen)} are over in the dream within two steps of the true one, {in_percent(missed)} not "
            f"by then. Of {ends['went_on']} that go on, {in_percent(alarms)} are over in the dream.",
            "",
        ]
    lines += [made_by(results), ""]
    rows = []
    plans = {on: load(f"{world}_plan_{on}")["metrics"] for on in ("dream", "mujoco", "random")}
    for on, label in (("dream", "the dream"), ("mujoco", "true physics"), ("random", "nothing: random torques")):
        plan = plans[on]
        low, high = bootstrap(np.mean, np.array([episode["return"] for episode in plan["by_episode"]]))
        seconds, returned = plan["seconds_per_decision"], f"{plan['mean_return']:.2f} ({low:.2f} to {high:.2f})"
        rows.append([label, returned, cell(plan), "-" if seconds is None else f"{seconds:.2f}"])
    head = ["CEM plans on", "return", last, "seconds a decision"]
    return [
        *lines, *markdown(head, rows), "",
        f"The same planner and budget, {plans['dream']['episodes']} seeded episodes in MuJoCo: the dream gets it "
        f"{percent(planning_share(world))} of the way from random torques to true physics.", "",
        made_by(load(f"{world}_plan_dream")),
    ]  # fmt: skip


def in_percent(share: dict[str, Any]) -> str:
    low, high = share["interval"]
    return f"{percent(share['rate'])} ({percent(low)} to {percent(high)})"


def learning_tabletop() -> list[str]:
    return learning("tabletop")


def learning_reacher() -> list[str]:
    return learning_alone("reacher")


def learning_hopper() -> list[str]:
    return [
        *learning_alone("hopper"),
        "",
        "Those frames are of gaits and of what lets go of them: agents of the dream begin amid hops, those of MuJoCo "
        "where an episode does. With more steps they fall behind, and 10,000 were chosen after 30,000 had been seen; "
        "nor does anything count as success in hopping.",
    ]


def learning_alone(world: str) -> list[str]:
    """With how far it gets from random torques, whose return is not 0."""
    returns = sac_returns(world, SAC_STEPS[world])
    low, high = bootstrap(share_of_the_way, *returns.values())
    return [
        *learning(world),
        "",
        f"From the return of random torques, {returns['nothing'].mean():.2f}, agents that learned in the dream alone "
        f"get {percent(share_of_the_way(*returns.values()))} as far after {SAC_STEPS[world]:,} steps as those that "
        f"learned in MuJoCo ({percent(low)} to {percent(high)}, by drawing episodes anew). Their dreams are of twelve "
        "steps, from frames of the recording.",
    ]


def learning(world: str) -> list[str]:
    runs = [load(path.stem) for path in sorted((ROOT / "benchmarks" / "results").glob(f"{world}_learn_*.json"))]
    groups: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for run in sorted(runs, key=lambda run: run["metrics"]["steps"]):
        m = run["metrics"]
        groups.setdefault((m["agent"], m["learned_in"], m["steps"]), []).append(m)
    one = runs[0]["metrics"]
    rows = [
        learn_row(agent.upper(), "the dream" if where == "dream" else "MuJoCo", seeds)
        for (agent, where, _), seeds in sorted(groups.items())
    ]
    return [
        f'Stable-Baselines3 on "{one["instruction"]}", acting on latents, judged in MuJoCo over {one["episodes"]} '
        "seeded episodes without exploration. Each cell: mean over the seeds and range.",
        "",
        *markdown(LEARN_HEAD, rows),
        "",
        made_by(runs[0]),
    ]


def transfer() -> list[str]:
    results = load("tabletop_transfer_reach_the_centre")
    m = results["metrics"]
    ranking = m["ranking"]
    return [
        f'{len(ranking["policies"])} policies of every quality on "{", ".join(m["instructions"])}", '
        f"{ranking['episodes']} episodes each in both worlds from the same first frames: scripts with errors, CEM, "
        "and an agent in its making. Diverged: an object is further off than half a block, or lost.",
        "",
        *markdown(transfer_report.POLICY_HEAD, [transfer_report.policy_row(one) for one in ranking["policies"]]),
        "",
        f"Over policies: returns correlate by {ranking['return_pearson']:.2f} (Pearson) and "
        f"{ranking['return_spearman']:.2f} (rank), successes by {ranking['success_pearson']:.2f}; the dream's success "
        f"rate is off by {100 * ranking['success_bias']:+.0f} points.",
        "",
        "![Policies in both worlds](images/transfer_policies.png)",
        "",
        made_by(results),
    ]


def other_tables() -> list[str]:
    lines = [
        "Who plans in the dream and who learned in it act in MuJoCo on tables that differ from the dream's own in one "
        "factor. Trained: inside the factor's training range, from which the agent's dreams began; the bundled world "
        "itself was trained on the nominal table alone. The cost is in points of success, from the nominal table on.",
        "",
    ]
    for task in ("push_to_the_centre", "reach_the_centre"):
        results = load(f"tabletop_transfer_{task}")
        m = results["metrics"]
        lines += [
            f"{' or '.join(map(repr, m['instructions']))}. Points lost: {points_lost(m['zero_shot'])}.",
            "",
            *markdown(transfer_report.GRID_HEAD, [transfer_report.grid_row(one) for one in m["zero_shot"]]),
            "",
            made_by(results),
            "",
        ]
    return lines[:-1]


def drafted() -> list[str]:
    results = load("tabletop_drafted")
    m = results["metrics"]
    looked = [step - 1 for step in m["at"]]
    ways = m["ways"]
    lines = [
        f"{m['episodes']} held-out episodes of MuJoCo, open loop from one real frame, both ways.",
        "",
        "| steps dreamed | " + " | ".join(str(step) for step in m["at"]) + " |",
        "|---|" + "---|" * len(looked),
    ]
    for title, key, display in (
        ("dB over repeating the first frame", "psnr_gain", lambda value: f"{value:+.1f}"),
        ("SSIM", "ssim", three_digits),
        ("sharpness, of the truth's", "sharpness", two_digits),
        ("moved blocks' position error", "moved_block_error_blocks", error),
        ("objects still found", "objects_kept", share),
    ):
        for name, found in ways.items():
            cells = ["-" if key.startswith("moved") and not found["moved_blocks"][when] else display(found[key][when])
                     for when in looked]  # fmt: skip
            lines.append(row(f"{title}, {name}", cells))
    for name, found in ways.items():
        lines.append(
            row(f"reward, correlation, {name}", [three_digits(value) for value in found["reward_correlation"]])
        )
    gains = [
        f"{m['drafted_better_by'][when]:+.2f} ({low:+.2f} to {high:+.2f})"
        for when in looked
        for low, high in [m["drafted_better_by_interval"][when]]
    ]
    lines.append(row("drafted over token by token, dB, episode by episode", gains))
    slow, fast = (ways[name]["seconds_a_step_of_64"] for name in ("token by token", "drafted"))
    return [
        *lines,
        "",
        f"A step of 64 dreams takes {1000 * slow:.0f} ms token by token and {1000 * fast:.0f} drafted, by turns.",
        "",
        "![MuJoCo, token by token and drafted](images/drafted.png)",
        "",
        made_by(results),
    ]


def interop() -> list[str]:
    results = load("tabletop_stable_worldmodel")
    m = results["metrics"]
    budget, rows = m["budget"], []
    for name, found in m["plans_on"].items():
        low, high = found["success_interval"]
        from_, to = found["return_interval"]
        success = f"{percent(found['success_rate'])} ({percent(low)} to {percent(high)})"
        rows.append([name, success, f"{found['mean_return']:.2f} ({from_:.2f} to {to:.2f})"])
    return [
        f"stable-worldmodel's `{m['solver']}` under its `WorldModelPolicy`, through `worldgym.planners.interop`, acts "
        f'in MuJoCo on "{m["instruction"]}": {m["episodes"]} seeded episodes, {budget["samples"]} candidates, '
        f"{budget['rounds']} rounds, {budget['horizon']} blocks of {budget['block']} actions.",
        "",
        *markdown(["it plans on", "success", "return"], rows),
        "",
        made_by(results),
    ]


def adapters() -> list[str]:
    results = load("adapters")
    m = results["metrics"]
    worlds, steps = m["worlds"].values(), " / ".join(str(step) for step in m["at"])
    last = m["at"][-1] - 1
    rows = []
    for found in worlds:
        gains = " / ".join(f"{found['psnr_gain'][step - 1]:+.1f}" for step in m["at"])
        low, high = found["psnr_gain_interval"][last]
        speeds, training = found["frames_a_second"], found["trained"]
        reward = found["reward_correlation_all_steps"]
        from_, to = found["reward_correlation_all_steps_interval"]
        rows.append(
            [
                f"`{found['environment'].rpartition(':')[2]}`",
                f"{speeds['as_it_comes']:.0f}",
                f"{speeds['recorded']:.0f}",
                f"{training['tokenizer']['steps']} + {training['world']['steps']}",
                one_digit(found["reconstruction_psnr"]),
                f"{gains} ({low:+.1f} to {high:+.1f})",
                f"{reward:.2f} ({from_:.2f} to {to:.2f})",
            ]
        )
    packages = sorted({f"{name} {number}" for found in worlds for name, number in found["versions"].items()})
    head = ["environment", "frames/s as it comes", "as recorded", "trained for", "tokenizer, dB", "gain, dB", "reward"]
    sizes = {(found["episodes"], found["frames"] // found["episodes"] - 1, found["stretches"]) for found in worlds}
    recorded = "; ".join(f"{one} episodes of {length} steps, {held} held out" for one, length, held in sorted(sizes))
    return [
        f"Other people's environments by their ids ({', '.join(packages)}). The trainings are so short that they show "
        f"an open way, and not how good a world can be. Each: {recorded}. Frames a second: of steps with their frames, "
        "as the package draws them and as `worldgym record` does, in one process. Trained for: steps of tokenizer and "
        "dynamics, from the weights of the Tabletop or of the package's first world. Gain: PSNR over repeating the "
        f"last frame seen, after {steps} steps of open loop, interval of the last; below 0 at first, since what has "
        "hardly moved is repeated better than so young a tokenizer draws it. Reward: correlation over all steps.",
        "",
        *markdown(head, rows),
        "",
        "![Held-out episodes, MuJoCo above the dream](images/adapters.png)",
        "",
        made_by(results),
    ]


SECTIONS = (
    Section("Is the dream true?", ("tabletop_dream",), "benchmarks/tabletop.sh", dream),
    Section("Are drafted dreams as true?", ("tabletop_drafted",), "python benchmarks/drafted.py", drafted),
    Section(
        "Can it be planned in?",
        tuple(f"tabletop_plan_{task}_{on}" for task in ("reach", "push") for on in ("dream", "mujoco", "random")),
        "benchmarks/tabletop.sh",
        plan_table,
    ),
    Section(
        "Can an agent learn in it?",
        ("tabletop_learn_sac_dream_seed0_8000", "tabletop_learn_sac_mujoco_seed0_8000"),
        "benchmarks/agents.sh",
        learning_tabletop,
    ),
    Section("Does it rank policies?", ("tabletop_transfer_reach_the_centre",), "benchmarks/transfer.sh", transfer),
    Section(
        "Do agents and plans work on other tables?",
        ("tabletop_transfer_reach_the_centre",),
        "benchmarks/transfer.sh",
        other_tables,
    ),
    Section(
        "Do other people's solvers plan in it?",
        ("tabletop_stable_worldmodel",),
        "python benchmarks/swm_solvers.py tabletop",
        interop,
    ),
    Section(
        "The Reacher, which one frame does not tell",
        ("reacher_dream", "reacher_plan_dream", "reacher_plan_mujoco", "reacher_plan_random"),
        "benchmarks/reacher.sh",
        reacher,
    ),
    Section(
        "Can an agent learn in the Reacher's dream?",
        ("reacher_learn_sac_dream_seed0_30000", "reacher_learn_sac_mujoco_seed0_30000", "reacher_plan_random"),
        "benchmarks/reacher.sh",
        learning_reacher,
    ),
    Section(
        "The Hopper, which falls",
        ("hopper_dream", "hopper_plan_dream", "hopper_plan_mujoco", "hopper_plan_random"),
        "benchmarks/hopper.sh",
        hopper,
    ),
    Section(
        "Can an agent learn in the Hopper's dream?",
        ("hopper_learn_sac_dream_seed0_10000", "hopper_learn_sac_mujoco_seed0_10000", "hopper_plan_random"),
        "benchmarks/hopper.sh",
        learning_hopper,
    ),
    Section("Do other people's environments come in by their ids?", ("adapters",), "benchmarks/adapters.sh", adapters),
    Section("What is each part of the design worth?", ("tabletop_ablations",), "benchmarks/ablations.sh", ablations),
    Section("What do parameters, pixels and memory give?", ("tabletop_scaling",), "benchmarks/scaling.sh", scaling),
    Section("What is a motion prompt worth?", ("reacher_motion",), "benchmarks/motion.sh", motion),
    Section(
        "Does it hold on tables it never saw?",
        ("tabletop_zero_shot",),
        "python benchmarks/zero_shot.py tabletop",
        zero_shot,
    ),
    Section("Does a long dream stay a picture?", ("tabletop_drift",), "python benchmarks/drift.py tabletop", drift),
    Section("Does a dream look back?", ("tabletop_past",), "python benchmarks/past.py tabletop", past),
    Section(
        "Is a past with wrong tokens worth training on?",
        ("tabletop_corruption",),
        "benchmarks/corruption.sh",
        corruption,
    ),
    Section("What does the evaluation of PAN say?", ("pan_suite",), "benchmarks/pan_suite.sh", pan_suite),
    Section("What does the diffusion decoder show?", ("tabletop_decoders",), "benchmarks/decoders.sh", decoders),
    Section("Does Causal Swin-DPM drift less?", ("swin_drift",), "python benchmarks/swin_drift.py", swin_drift),
    Section(
        "Does supervision by pictures matter?",
        ("latent_matching",),
        "python benchmarks/latent_matching.py",
        latent_matching,
    ),
    Section("What is a pretrained backbone worth?", ("pan_backbone",), "python benchmarks/pan_backbone.py", backbones),
)
"""In the order of the page."""


def made_by(results: dict[str, Any]) -> str:
    machine = results["hardware"]
    command = results["command"]
    shown = command if command.startswith("worldgym") else f"python {command}"
    cores = f"{machine['threads']} of {machine['cores']} cores of {machine['cpu']}"
    return f"`{shown}`, commit {results['commit'][:10]}, {cores}."


def with_interval(where: dict[str, Any], name: str, index: int, show: Callable[[float | None], str]) -> str:
    value = show(where[name][index])
    bounds = where.get(f"{name}_interval")
    if bounds is None or bounds[index] == [None, None]:
        return value
    return f"{value} ({show(bounds[index][0])} to {show(bounds[index][1])})"


def error(value: float | None) -> str:
    """A position error: results files have null where half of the objects are lost."""
    return "lost" if value is None else blocks(value)


def moved_error(objects: dict[str, Any], figures: dict[str, Any], index: int) -> str:
    """Of moved blocks: results files have null also where none has moved, which is no loss."""
    if objects["moved_blocks"][index] == 0:
        return "-"
    return with_interval(figures, "moved_block_error_blocks", index, error)


def share(value: float | None) -> str:
    return percent(value or 0.0)


def one_digit(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def two_digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def three_digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def perception(value: str | float | list[float]) -> str:
    if isinstance(value, str):
        return value
    return f"{value[-1]:.3f} at the last step" if isinstance(value, list) else f"{value:.1f}"


def best_of(found: str | dict[str, Any]) -> str:
    if isinstance(found, str):
        return found
    names = ("psnr", "ssim", "lpips", "fvd")
    figures = (found[name] if isinstance(found[name], str) else f"{found[name]:.3f}" for name in names)
    named = ", ".join(f"{name.upper()} {figure}" for name, figure in zip(names, figures, strict=True))
    return f"{named}, of {found['samples']} samples of each of {found['videos']} videos"


def main() -> None:
    if "--write" in sys.argv:
        PAGE.write_text(page(), encoding="utf-8")
    else:
        print(page())


if __name__ == "__main__":
    main()
