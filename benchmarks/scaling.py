"""What do more parameters, more pixels and a longer memory give? Worlds that differ in one of them, taught alike.

    bash benchmarks/scaling.sh

As in ablations.py, whose tokenizers, training and measuring these are: all begin from nothing and have the same data,
batches, optimiser and optimiser steps, but twice as many of the latter. In the place of one thing of ours:

    small, large   dynamics of 0.44 and 2.4 times as many parameters: widths of all its parts, and in the large one more
                   layer. The tokenizer is that of ours, so all see and show the same pictures
    half           frames of 32 pixels a side (the mean of each four of the recording's) through the same networks, so a
                   latent grid of 4 x 4, 21 tokens a frame and 4 state tokens
    window_4, _16  steps that the backbone remembers and is trained on, instead of 8. A step of the optimiser has as
                   many frames as ours: 16 segments of 4 steps, 4 segments of 16

And what the ablations' training is too short for: whether the backbone's positions need time ("without_time").
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from ablations import Ablations, Variant, costs_table, judged, study, taught, variants_table
from drift import plt
from safetensors.numpy import load_file
from section import Results, Section, made_by, markdown, with_interval

from worldgym.metrics import bootstrap
from worldgym.results import current_commit, write_results


@dataclass(frozen=True)
class Scaling(Ablations):
    """Train and measure what has not been yet, then write the table of all."""

    steps: int = 800
    json: Path = Path("benchmarks/results/tabletop_scaling.json")
    picture: Path = Path("docs/images/scaling.png")
    curves: Path = Path("docs/images/scaling_curves.png")


VARIANTS = (
    Variant("base"),
    Variant("small", changed={"width": 128, "heads": 2, "mlp_width": 192, "head_width": 96}),
    Variant("large", changed={"width": 384, "heads": 6, "mlp_width": 512, "head_width": 256, "layers": 3}),
    Variant("half", "half"),
    Variant("window_4", changed={"window": 4}),
    Variant("window_16", changed={"window": 16}),
    Variant("without_time", timeless=True),
)
"""In the order of the table. Heads have 64 numbers in all of them."""


def compare(config: Scaling) -> dict[str, dict[str, Any]]:
    """How far each is above the base at 32 pixels a side, episode by episode; of several seeds the mean."""
    gains = {}
    for variant in VARIANTS:
        paths = [config.out / f"{variant.name}_{seed}_dream.safetensors" for seed in range(variant.seeds)]
        gains[variant.name] = np.mean([load_file(path)["gain_32"] for path in paths], 0)
    more = {name: gain - gains["base"] for name, gain in gains.items() if name != "base"}
    return {
        name: {"gain": gain.mean(0).tolist(), "gain_interval": [bootstrap(np.mean, one) for one in gain.T]}
        for name, gain in more.items()
    }


def plot(metrics: dict[str, Any], path: Path) -> None:
    """Gain at 32 pixels a side, which all can be compared by, against each size; of several seeds the mean."""
    found = metrics["variants"]
    sizes = {name: found[name]["parameters"]["dynamics"] / 1e6 for name in ("small", "base", "large")}
    places: dict[str, dict[str, float]] = {
        "parameters of the dynamics, millions": sizes,
        "pixels a side": {"half": 32, "base": 64},
        "steps remembered": {"window_4": 4, "base": 8, "window_16": 16},
    }
    figure, axes = plt.subplots(1, len(places), figsize=(12, 3.6), layout="constrained", sharey=True)
    for axis, (title, where) in zip(axes, places.items(), strict=True):
        for index, step in enumerate(metrics["at"]):
            gains = [np.mean([seed["psnr_gain_32"][index] for seed in found[name]["seeds"]]) for name in where]
            axis.plot(list(where.values()), gains, "o-", label=f"after {step} step" + "s" * (step > 1))
        axis.axhline(0, color="0.8", lw=1, zorder=0)
        axis.set(xscale="log", xlabel=title)
        axis.set_xticks(list(where.values()), [f"{value:.3g}" for value in where.values()])
        axis.minorticks_off()
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("dB over repeating the first frame")
    axes[-1].legend(frameon=False, fontsize=9)
    figure.savefig(path, dpi=100)
    plt.close(figure)


# -- the section of docs/results.md -----------------------------------------------------------------------------------

SCALED = {
    "base": "ours (base)",
    "small": "fewer parameters",
    "large": "more parameters",
    "half": "32 pixels a side",
    "window_4": "4 steps remembered",
    "window_16": "16 steps remembered",
    "without_time": "positions without time",
}


def section(results: Results) -> list[str]:
    m = results["metrics"]
    first = m["at"][0]
    columns = [
        *((f"PSNR gain, {step}", "psnr_gain", step, 1) for step in m["at"]),
        *((f"... at 32 pixels, {step}", "psnr_gain_32", step, 1) for step in (first, 8)),
        *((f"pusher's error, {step}", "controlled_error", step, 2) for step in (first, 4)),
        ("moved blocks' error, 8", "moved_error", 8, 2),
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


SECTION = Section(
    "What do parameters, pixels and memory give?", ("tabletop_scaling",), "benchmarks/scaling.sh", section
)


if __name__ == "__main__":
    config = tyro.cli(Scaling)
    commit = current_commit()
    if metrics := study(config, VARIANTS):
        write_results(config.json, 0, metrics | {"over_base": compare(config)}, commit)
        plot(metrics, config.curves)
