"""What does `torch.compile` give a training on this machine, what does it cost, and does it train the same?

    python benchmarks/compiled.py

Each stage is trained twice from the same weights on the same batches, plain and with its model compiled as
`ACCELERATE_DYNAMO_BACKEND=inductor` compiles it, a few updates by turns. The first turn, which compiles, is not timed.
The recording is made on the spot.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import torch
import tyro
from accelerate import Accelerator
from section import RESULTS, Results, Section, made_by, markdown

from worldgym.envs_real.settings import RecordConfig
from worldgym.envs_real.tabletop.record import record
from worldgym.listing import find_world
from worldgym.results import check_results, current_commit, write_results
from worldgym.train.dynamics import DynamicsStage
from worldgym.train.loop import Stage, run
from worldgym.train.recurrent_state import RecurrentStage
from worldgym.train.settings import DynamicsTraining, RecurrentTraining, TokenizerTraining, Training
from worldgym.train.tokenizer import TokenizerStage

DATASET = "test/tabletop-v0"


@dataclass(frozen=True)
class Compiled:
    """Train each stage plain and compiled by turns."""

    stages: tuple[Literal["tokenizer", "dynamics", "state"], ...] = ("tokenizer", "dynamics", "state")
    backend: str = "inductor"
    rows: int = 8
    """Of a batch."""
    steps: int = 8
    """Updates of each in a turn."""
    turns: int = 4
    """That are timed."""
    threads: int = 1
    json: Path = RESULTS / "compiled.json"


Make = Callable[[Any, torch.device], Stage]
STAGES: dict[str, tuple[Callable[[Path, int], Training], Make]] = {
    "tokenizer": (lambda out, rows: TokenizerTraining(DATASET, out, batch=rows, device="cpu"), TokenizerStage),
    "dynamics": (
        lambda out, rows: DynamicsTraining(DATASET, find_world("tabletop"), out, batch=rows, device="cpu"),
        DynamicsStage,
    ),
    "state": (lambda out, rows: RecurrentTraining(DATASET, "tabletop", out, batch=rows, device="cpu"), RecurrentStage),
}
"""Its settings, for a folder and rows of a batch, and what makes it."""
PRECISION: dict[str, Literal["no", "bf16"]] = {"tokenizer": "bf16", "dynamics": "bf16", "state": "no"}
"""As the stages train."""


@contextmanager
def recorded(episodes: int = 40) -> Iterator[Path]:
    """A folder for runs, and a small recording of the Tabletop under `DATASET`."""
    with TemporaryDirectory() as folder:
        os.environ["MINARI_DATASETS_PATH"] = folder
        record(RecordConfig(DATASET, episodes=episodes, steps=48, workers=1))
        yield Path(folder)


class Trainee:
    """A stage in the making: one update of the training loop at a time."""

    def __init__(self, stage: Stage, accelerator: Accelerator):
        self.stage, self.accelerator, self.step = stage, accelerator, 0
        self.model, self.optimizer = accelerator.prepare(stage.model, stage.optimizer)

    def update(self) -> float:
        """Returns the loss."""
        accelerator = self.accelerator
        found = self.model(*self.stage.draw(self.step, accelerator.process_index, accelerator.num_processes))
        accelerator.backward(found["loss"])
        accelerator.clip_grad_norm_(self.model.parameters(), self.stage.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return float(found["loss"].detach())


def compare(config: Compiled, name: str, folder: Path) -> dict[str, Any]:
    """One stage by turns."""
    graphs = torch._dynamo.utils.counters["stats"]
    graphs.clear()
    settings, make = STAGES[name]
    training = settings(folder / name, config.rows)
    with run(training, PRECISION[name]) as accelerator:
        trainees = {}
        for way in ("plain", "compiled"):
            stage = make(training, accelerator.device)
            if way == "compiled":
                stage.model.compile(backend=config.backend)
            trainees[way] = Trainee(stage, accelerator)
        losses: dict[str, list[float]] = {way: [] for way in trainees}
        seconds: dict[str, list[float]] = {way: [] for way in trainees}
        early = 0
        for turn in range(config.turns + 1):
            for way, trainee in trainees.items():
                began = time.perf_counter()
                losses[way] += [trainee.update() for _ in range(config.steps)]
                seconds[way].append(time.perf_counter() - began)
            early = early if turn else graphs["unique_graphs"]
    plain, compiled = (np.array(losses[way]) for way in trainees)
    rates = {way: config.steps / np.array(took[1:]) for way, took in seconds.items()}
    found = {
        "updates_a_second": {way: float(np.median(rate)) for way, rate in rates.items()},
        "ratio": float(np.median(rates["compiled"] / rates["plain"])),
        "ratios": (rates["compiled"] / rates["plain"]).tolist(),
        "seconds_to_compile": seconds["compiled"][0] - seconds["plain"][0],
        "graphs": {"first_turn": early, "later": graphs["unique_graphs"] - early},
        "first_loss_differs_by": float(abs(compiled[0] - plain[0]) / plain[0]),
        "losses_differ_by": float(np.max(np.abs(compiled - plain) / plain)),
    }
    print(name, found, flush=True)
    return found


def main(config: Compiled) -> None:
    commit = current_commit()
    check_results(config.json)
    torch.set_num_threads(config.threads)
    with recorded() as folder:
        stages = {name: compare(config, name, folder) for name in config.stages}
    asked = {"backend": config.backend, "rows": config.rows, "updates": config.steps * config.turns}
    write_results(config.json, 0, asked | {"stages": stages}, commit)


# -- the section of docs/results.md -----------------------------------------------------------------------------------


def section(results: Results) -> list[str]:
    m = results["metrics"]
    rows = [
        [
            name, *(f"{found['updates_a_second'][way]:.2f}" for way in ("plain", "compiled")),
            f"{found['ratio']:.2f} ({min(found['ratios']):.2f} to {max(found['ratios']):.2f})",
            f"{found['seconds_to_compile']:.0f}", f"{found['graphs']['first_turn']} and {found['graphs']['later']}",
            f"{found['first_loss_differs_by']:.1e}, {found['losses_differ_by']:.1e}",
        ]
        for name, found in m["stages"].items()
    ]  # fmt: skip
    head = [
        "stage", "updates a second", "compiled", "ratio (range over turns)", "seconds to compile",
        "graphs, first turn and later", "loss differs by, first and at most",
    ]  # fmt: skip
    return [
        f"`ACCELERATE_DYNAMO_BACKEND={m['backend']}` compiles the model of any stage. Here on a CPU, {m['rows']} rows "
        f"a batch, plain and compiled by turns from the same weights on the same batches, {m['updates']} updates each "
        "after those that compile. A graph that comes later was compiled while the clock ran, for shapes that had not "
        "occurred before: the state's stretches have many, so compiling it is no use in a short training. "
        "Losses differ by rounding, which training then amplifies. No GPU has run this.",
        "",
        *markdown(head, rows),
        "",
        made_by(results),
    ]


SECTION = Section("What does compiling a training give?", ("compiled",), "python benchmarks/compiled.py", section)

if __name__ == "__main__":
    main(tyro.cli(Compiled))
