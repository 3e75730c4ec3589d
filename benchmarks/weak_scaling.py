"""Does a training do more in more processes? Weak scaling: each process has as many rows, so the batch grows with them.

    python benchmarks/weak_scaling.py

Processes of one thread on this machine, by the launcher that `--processes` uses, gradients averaged over Gloo: what a
training does, except evaluations and checkpoints. More processes than cores show what sharing costs, not what more
machines would give. The numbers of processes take turns.
"""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from compiled import PRECISION, STAGES, Trainee, recorded
from section import RESULTS, Results, Section, made_by, markdown

from worldgym.results import check_results, current_commit, write_results
from worldgym.train.launch import launch
from worldgym.train.loop import run


@dataclass(frozen=True)
class WeakScaling:
    """Train briefly in 1, 2 and 4 processes."""

    stage: Literal["tokenizer", "dynamics", "state"] = "dynamics"
    counts: tuple[int, ...] = (1, 2, 4)
    """Processes."""
    rows: int = 4
    """Of each process."""
    steps: int = 10
    """Updates that are timed, after three that are not."""
    turns: int = 3
    json: Path = RESULTS / "weak_scaling.json"


@dataclass(frozen=True)
class Turn:
    """What the processes are told."""

    asked: WeakScaling
    processes: int
    folder: Path
    device: str = "cpu"


def train(turn: Turn) -> None:
    """In each of the processes: rank 0 writes how long the updates took."""
    torch.set_num_threads(1)
    asked = turn.asked
    settings, make = STAGES[asked.stage]
    training = settings(turn.folder / "run", asked.rows * turn.processes)
    with run(training, PRECISION[asked.stage]) as accelerator:
        trainee = Trainee(make(training, accelerator.device), accelerator)
        for _ in range(3):
            trainee.update()
        accelerator.wait_for_everyone()
        began = time.perf_counter()
        for _ in range(asked.steps):
            trainee.update()
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            (turn.folder / "seconds.json").write_text(json.dumps(time.perf_counter() - began), encoding="utf-8")


def measure(config: WeakScaling) -> dict[str, Any]:
    rates: dict[int, list[float]] = {count: [] for count in config.counts}
    with recorded() as folder:
        for _ in range(config.turns):
            for count in config.counts:
                launch(train, Turn(config, count, folder))
                seconds = json.loads((folder / "seconds.json").read_text(encoding="utf-8"))
                rates[count].append(count * config.rows * config.steps / seconds)
                print(count, f"{rates[count][-1]:.2f} rows a second", flush=True)
    return {
        "stage": config.stage,
        "rows": config.rows,
        "steps": config.steps,
        "cores": len(os.sched_getaffinity(0)),
        "rows_a_second": {count: float(np.median(rate)) for count, rate in rates.items()},
        "by_turn": rates,
    }


def main(config: WeakScaling) -> None:
    commit = current_commit()
    check_results(config.json)
    write_results(config.json, 0, measure(config), commit)


# -- the section of docs/results.md -----------------------------------------------------------------------------------


def section(results: Results) -> list[str]:
    m = results["metrics"]
    one, cores = m["rows_a_second"]["1"], m["cores"]
    rows = [
        [
            count, str(m["rows"] * int(count)), f"{rate:.2f} ({min(turns):.2f} to {max(turns):.2f})",
            f"{rate / one:.2f}", f"{rate / one / int(count):.0%}", f"{rate / one / min(int(count), cores):.0%}",
        ]
        for (count, rate), turns in zip(m["rows_a_second"].items(), m["by_turn"].values(), strict=True)
    ]  # fmt: skip
    head = [
        "processes", "batch", "rows a second (range over turns)", "times one process", "efficiency",
        "of what cores allow",
    ]  # fmt: skip
    return [
        f"Weak scaling of `worldgym train {m['stage']}`: {m['rows']} rows in each process of one thread, so the batch "
        f"grows with the processes, {m['steps']} updates, by turns. The machine has {cores} cores: with more processes "
        "than that the efficiency cannot be above their share, and what is missing from the last column is what "
        "processes cost each other. Gradients go through memory here. This says nothing about networks or GPUs; for "
        "those there is [arithmetic](#what-would-training-take-on-a-cluster) only.",
        "",
        *markdown(head, rows),
        "",
        made_by(results),
    ]


SECTION = Section(
    "Does a training do more in more processes?", ("weak_scaling",), "python benchmarks/weak_scaling.py", section
)

if __name__ == "__main__":
    main(tyro.cli(WeakScaling))
