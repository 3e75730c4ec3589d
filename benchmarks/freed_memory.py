"""How much does a training on a CPU gain by keeping the memory that it frees, and how often does it fault?

    python benchmarks/freed_memory.py

A process that keeps it and one that gives it back, as glibc does by default, by turns: the same updates of each stage
from the same weights on the same batches. The recording is made on the spot.
"""

import json
import os
import resource
import subprocess
import sys
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
from worldgym.train import loop

WAYS = ("given back", "kept")


@dataclass(frozen=True)
class FreedMemory:
    """Train each stage by turns."""

    stages: tuple[Literal["tokenizer", "dynamics", "state"], ...] = ("tokenizer", "dynamics", "state")
    rows: int = 16
    """Of a batch."""
    steps: int = 4
    """Updates of a turn, after two that are not timed."""
    turns: int = 3
    json: Path = RESULTS / "freed_memory.json"


def updates(name: str, rows: int, steps: int, kept: bool, folder: Path) -> dict[str, Any]:
    """One turn, in a process of its own."""
    torch.set_num_threads(1)
    if not kept:
        loop.keep_freed_memory = lambda: False
    settings, make = STAGES[name]
    training = settings(folder / name, rows)
    with loop.run(training, PRECISION[name]) as accelerator:
        trainee = Trainee(make(training, accelerator.device), accelerator)
        for _ in range(2):
            trainee.update()
        faults, began = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
        losses = [trainee.update() for _ in range(steps)]
    seconds = time.perf_counter() - began
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    return {"rate": steps / seconds, "faults": faults / steps, "loss": losses[-1]}


def main(config: FreedMemory) -> None:
    commit = current_commit()
    check_results(config.json)
    found: dict[str, dict[str, list[dict[str, Any]]]] = {name: {way: [] for way in WAYS} for name in config.stages}
    with recorded() as folder:
        for name in config.stages:
            for _ in range(config.turns):
                for way in WAYS:
                    asked = (name, str(config.rows), str(config.steps), way, str(folder))
                    command = (sys.executable, __file__, "--turn", *asked)
                    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ)
                    found[name][way].append(json.loads(done.stdout.splitlines()[-1]))
                    print(name, way, found[name][way][-1], flush=True)
    pages = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    setting = pages.read_text(encoding="utf-8") if pages.exists() else "[none]"
    told = {
        "rows": config.rows,
        "huge_pages": setting.partition("[")[2].partition("]")[0],
        "stages": {name: summary(ways) for name, ways in found.items()},
    }
    write_results(config.json, 0, told, commit)


def summary(ways: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    rates = {way: np.array([turn["rate"] for turn in turns]) for way, turns in ways.items()}
    ratios = rates["kept"] / rates["given back"]
    return {
        "updates_a_second": {way: float(np.median(rate)) for way, rate in rates.items()},
        "ratio": float(np.median(ratios)),
        "ratios": ratios.tolist(),
        "faults_an_update": {way: float(np.median([turn["faults"] for turn in turns])) for way, turns in ways.items()},
        "same_loss": len({turn["loss"] for turns in ways.values() for turn in turns}) == 1,
    }


# -- the section of docs/results.md -----------------------------------------------------------------------------------


def section(results: Results) -> list[str]:
    m = results["metrics"]
    rows = [
        [
            name, *(f"{found['updates_a_second'][way]:.2f}" for way in WAYS),
            f"{found['ratio']:.2f} ({min(found['ratios']):.2f} to {max(found['ratios']):.2f})",
            *(f"{found['faults_an_update'][way]:,.0f}" for way in WAYS), "yes" if found["same_loss"] else "no",
        ]
        for name, found in m["stages"].items()
    ]  # fmt: skip
    head = [
        "stage", "updates a second, memory given back", "kept", "ratio (range over turns)",
        "page faults an update, given back", "kept", "same loss",
    ]  # fmt: skip
    return [
        "A training on a CPU keeps the memory of tensors that it frees, where glibc would give it back to the kernel "
        f"and fault on each page that it gets again. {m['rows']} rows a batch, both ways by turns, each turn a process "
        f'of its own, one thread. The kernel\'s huge pages were set to "{m["huge_pages"]}".',
        "",
        *markdown(head, rows),
        "",
        made_by(results),
    ]


SECTION = Section(
    "What does keeping freed memory give?", ("freed_memory",), "python benchmarks/freed_memory.py", section
)

if __name__ == "__main__":
    if sys.argv[1:2] == ["--turn"]:
        name, rows, steps, way, folder = sys.argv[2:]
        os.environ["MINARI_DATASETS_PATH"] = folder
        print(json.dumps(updates(name, int(rows), int(steps), way == "kept", Path(folder))))
    else:
        main(tyro.cli(FreedMemory))
