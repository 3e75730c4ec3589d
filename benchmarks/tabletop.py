"""The Tabletop's own sections of docs/results.md, whose figures benchmarks/tabletop.sh makes."""

from collections.abc import Callable
from typing import Any

from section import (
    Results,
    Section,
    blocks,
    estimate,
    interval,
    moved_error,
    one_digit,
    percent,
    row,
    share,
    three_digits,
    two_digits,
    with_interval,
)

STEPS = (1, 2, 4, 8, 12, 16)
TASKS = ("reach", "push")
PLANS = [(task, on) for task in TASKS for on in ("dream", "mujoco", "random")]
COMMAND = "benchmarks/tabletop.sh"


def dream(results: Results) -> list[str]:
    return [*dream_table(results), "", *more_of_the_dream(results["metrics"])]


def dream_table(results: Results) -> list[str]:
    m, machine = results["metrics"], results["hardware"]
    said = m["sentences"]
    lines = [
        f"**Is the dream true?** {m['episodes']} held-out episodes of MuJoCo, dreamed open loop from one real frame; "
        "position errors are medians, in block widths.",
        "",
        "| steps dreamed | " + " | ".join(str(step) for step in STEPS) + " |",
        "|---|" + "---|" * len(STEPS),
        row("PSNR, dB", [f"{m['psnr'][s - 1]:.1f}" for s in STEPS]),
        row("... above repeating the first frame", [f"{m['psnr_gain'][s - 1]:+.1f}" for s in STEPS]),
        row("pusher's position error", [f"{m['controlled_error'][s - 1]:.2f}" for s in STEPS]),
        row("moved blocks' position error", [blocks(m["moved_error"][s - 1]) for s in STEPS]),
        row("... had they stayed", [blocks(m["moved_error_if_still"][s - 1]) for s in STEPS]),
        row("reward, correlation with MuJoCo's", [f"{m['reward_correlation'][s - 1]:.3f}" for s in STEPS]),
        "",
        f"Tokenizer reconstruction {m['reconstruction_psnr']:.1f} dB; reward correlation over all steps "
        f"{m['reward_correlation_all_steps']:.3f}; uncertainty against true error, rank correlation: token entropy "
        f"{m['uncertainty_rank_correlation']['token_entropy']:.2f}.",
        f'A sentence ("push the red block left") moves the named block the commanded way in {said["obeyed"]} of the '
        f"{said['cases_where_it_really_moved']} held-out cases where it does in MuJoCo ({percent(said['rate'])}, "
        f"95% interval {interval(said['interval'])}).",
        "",
        f"`{results['command']}`, commit {results['commit'][:10]}, {machine['cores']} cores of {machine['cpu']}.",
    ]
    return lines


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


def plan_table(*results: Results) -> list[str]:
    """From the files of PLANS, in their order."""
    plans = {plan: one["metrics"] for plan, one in zip(PLANS, results, strict=True)}
    lines = [
        "**Can it be planned in?** Success in MuJoCo of the same CEM with the same budget, 50 seeded episodes each, "
        "95% intervals.",
        "",
        "| planned on | reach | push to a place | seconds a decision |",
        "|---|---|---|---|",
    ]
    for name, label in (("dream", "the dream"), ("mujoco", "true physics"), ("random", "nothing: random actions")):
        cells = []
        for task in TASKS:
            m = plans[task, name]
            cells.append(estimate(m["success_rate"], m["success_interval"], ".0%"))
        seconds = plans["push", name]["seconds_per_decision"]
        cells.append("-" if seconds is None else f"{seconds:.2f}")
        lines.append(row(label, cells))
    budget = plans["push", "dream"]["budget"]
    lines += [
        "",
        f"Horizon {budget['horizon']}, {budget['samples']} samples, {budget['iterations']} iterations, a decision "
        f"every {budget['replan_every']} steps. All of it: `benchmarks/tabletop.sh`.",
    ]
    return lines


DREAM = Section("Is the dream true?", ("tabletop_dream",), COMMAND, dream)
PLANNING = Section(
    "Can it be planned in?", tuple(f"tabletop_plan_{task}_{on}" for task, on in PLANS), COMMAND, plan_table
)
