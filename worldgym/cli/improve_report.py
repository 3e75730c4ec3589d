"""What the rounds of `worldgym improve` achieved, as one self-contained HTML page."""

from html import escape
from pathlib import Path
from typing import Any

import minari
import numpy as np
from matplotlib import pyplot as plt

from ..evaluate.report import page, picture, png, table
from ..evaluate.video import enlarged, gif, side_by_side

SHOWN = 6
"""Episodes of the newest round in the video."""
HEAD = [
    "round", "real steps so far", "planner, return on the twin", "agent, return on the twin", "... in its dream",
    "rewards eight steps ahead, correlation",
]  # fmt: skip


def write_report(out: Path, name: str, rounds: list[dict[str, Any]], newest: str) -> Path:
    """Write index.html into the run's folder; returns its path.

    Args:
        name: of the world.
        rounds: as rounds.json has them.
        newest: Minari id of what the last of them did.
    """
    plain = [one for one in minari.load_dataset(newest).iterate_episodes() if one.infos["plain"][0]]
    film = gif(enlarged(side_by_side([one.observations for one in plain[:SHOWN]], gap=2)))
    who = ["agent" if one.infos["by_agent"][0] else "planner" for one in plain[:SHOWN]]
    title = f"{name}, improved in {len(rounds)} rounds"
    parts = [
        f"<h1>{escape(title)}</h1><p>Each round acts on the twin by what the world imagines, and trains its recurrent "
        "state on what happened. Figures are of episodes that the world had not seen, before it learned from them, "
        "without bursts of random actions; intervals are 95%.</p>",
        picture(plot_rounds(rounds), "png", "returns and truth by real steps"),
        table(HEAD, [_row(one) for one in rounds]),
        f"<h2>What the newest round did</h2>{picture(film, 'gif', 'episodes on the twin')}",
        f"<p class=small>From left to right: {', '.join(who)}.</p>",
    ]
    path = out / "index.html"
    path.write_text(page(title, parts), encoding="utf-8")
    return path


def plot_rounds(rounds: list[dict[str, Any]]) -> bytes:
    """Returns, and how true rewards are foreseen, by the real steps taken before, as a PNG."""
    figure, (returns, truth) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    before = [0, *(one["real_steps"] for one in rounds[:-1])]
    acting = {"planner": rounds} | ({"agent": [one["agent"] for one in rounds]} if "agent" in rounds[0] else {})
    for who, judged in acting.items():
        means = np.array([one["mean_return"] for one in judged])
        low, high = np.array([one["return_interval"] for one in judged]).T
        returns.errorbar(before, means, [means - low, high - means], fmt="o-", ms=4, capsize=2, label=f"{who}, twin")
    if "agent" in acting:
        dreamed = [one["dreamed_return"] for one in acting["agent"]]
        returns.plot(before, dreamed, "--", color="0.5", label="agent, its dream")
    truth.plot(before, [one["reward_correlation_8"] or np.nan for one in rounds], "o-", ms=4)
    figure.legend(loc="outside lower left", ncols=3, frameon=False)
    returns.set(title="mean return", xlabel="real steps of the rounds before")
    truth.set(title="rewards eight steps ahead, correlation", xlabel="real steps of the rounds before")
    for axis in (returns, truth):
        axis.spines[["top", "right"]].set_visible(False)
    return png(figure)


def _row(one: dict[str, Any]) -> list[str]:
    agent, truth = one.get("agent"), one["reward_correlation_8"]
    return [
        str(one["round"]), f"{one['real_steps']:,}", returned(one), "-" if agent is None else returned(agent),
        "-" if agent is None else f"{agent['dreamed_return']:.2f}", "-" if truth is None else f"{truth:.3f}",
    ]  # fmt: skip


def returned(judged: dict[str, Any]) -> str:
    """The mean return of episodes, and its interval."""
    low, high = judged["return_interval"]
    return f"{judged['mean_return']:.2f} ({low:.2f} to {high:.2f})"
