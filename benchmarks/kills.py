"""Kills commands at random moments and checks that they lose nothing: resumed, they make what they would have made.

`benchmarks/fuzz.py --calls 0 --kills 100` runs it. Each command first runs undisturbed, which shows what it makes and
how long it takes. Then it is started in a folder of its own and killed (SIGKILL, its workers too) at a random moment,
up to three times. Finally it runs to its end, and what it made is compared by content with the undisturbed run.
"""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from safetensors.torch import load_file
from section import Results, Section, made_by, markdown

from worldgym.data import load_episodes

DATASET = "test/kills-v0"
PATIENCE = 3
"""How many times in a row a command is killed before it may run to its end."""
COMPLETE = "exists; delete it"
"""A recording that was killed when it was complete says so when it is started again."""
SMALL = ["--steps", "24", "--batch", "2", "--evaluate-every", "4", "--device", "cpu"]
"""Short trainings that save every fourth step."""


@dataclass(frozen=True)
class Command:
    """A command to kill. It works in a folder that already holds what it needs."""

    name: str
    arguments: Callable[[Path], list[str]]
    content: Callable[[Path], str]
    """Returns a digest of what it made there."""


def recorded(folder: Path) -> str:
    """A digest of every frame, action and outcome of the recording."""
    os.environ["MINARI_DATASETS_PATH"] = str(folder / "datasets")
    data, digest = load_episodes(DATASET), hashlib.sha256()
    for part in (data.frames, data.actions, data.rewards, data.successes, data.terminations, data.starts):
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def weights(name: str) -> Callable[[Path], str]:
    """A digest of the tensors of a checkpoint, by name."""

    def content(folder: Path) -> str:
        digest = hashlib.sha256()
        for key, tensor in sorted(load_file(folder / name / "model.safetensors").items()):
            digest.update(key.encode() + tensor.numpy().tobytes())
        return digest.hexdigest()

    return content


COMMANDS = (
    Command(
        "record",
        lambda folder: ["record", "--dataset", DATASET, "--episodes", "20", "--steps", "16", "--workers", "2"],
        recorded,
    ),
    Command(
        "train tokenizer",
        lambda folder: ["train", "tokenizer", "--dataset", DATASET, "--out", str(folder / "tokenizer"), *SMALL],
        weights("tokenizer"),
    ),
    Command(
        "train dynamics",
        lambda folder: [
            "train", "dynamics", "--dataset", DATASET, "--tokenizer", str(folder / "tokenizer"),
            "--out", str(folder / "world"), *SMALL, "--width", "64", "--mlp-width", "64", "--window", "4",
        ],
        weights("world"),
    ),
    Command("export", lambda folder: ["export", str(folder / "world"), str(folder / "small")], weights("small")),
)  # fmt: skip
"""Each works on what the commands before it made."""


@dataclass(frozen=True)
class KillsConfig:
    """How many kills, and the seed of their moments."""

    kills: int = 100
    seed: int = 0


def kill_commands(config: KillsConfig) -> dict[str, Any]:
    """Kill commands in turn; prints and counts what was lost."""
    random, kills, endings = np.random.default_rng(config.seed), Counter(), Counter()
    findings: list[dict[str, Any]] = []
    with TemporaryDirectory() as temporary:
        whole = Path(temporary) / "whole"
        expected, seconds = {}, {}
        for command in COMMANDS:
            began = time.perf_counter()
            error = run(command, whole)
            if error is not None:
                raise RuntimeError(f"{command.name} fails by itself: {error}")
            expected[command.name], seconds[command.name] = command.content(whole), time.perf_counter() - began
        turn = 0
        while kills.total() < config.kills:
            command = COMMANDS[turn % len(COMMANDS)]
            folder = Path(temporary) / f"{turn}"
            prepare(folder, whole, command)
            killed = 0
            while kills.total() < config.kills and killed < PATIENCE:
                ended = kill_at(command, folder, float(random.uniform(0.1, 1.0)) * seconds[command.name])
                if ended is not None:
                    if not killed:  # a whole run, on a machine that is less busy by now
                        seconds[command.name] = min(seconds[command.name], ended)
                    break
                killed += 1
                kills[command.name] += 1
            lost = finish(command, folder, expected[command.name])
            endings[command.name] += 1
            if lost is not None:
                findings.append({"command": command.name, "turn": turn, "kills": killed, "said": lost[-400:]})
            print(f"{command.name}, killed {killed} times: {lost or 'nothing lost'}", flush=True)
            turn += 1
    return {"kills": kills.total(), "by_command": dict(kills), "endings": dict(endings), "findings": findings}


def finish(command: Command, folder: Path, expected: str) -> str | None:
    """Run a killed command to its end; says what was lost, or None if it made what it should."""
    error = run(command, folder)
    if error is not None and COMPLETE not in error:
        return error
    try:
        return None if command.content(folder) == expected else "another content"
    except (OSError, ValueError) as unreadable:
        return f"{type(unreadable).__name__}: {unreadable}"


def prepare(folder: Path, whole: Path, command: Command) -> None:
    """Link to what the commands before this one made; this command must not write to it."""
    folder.mkdir()
    made = {"datasets": "record", "tokenizer": "train tokenizer", "world": "train dynamics"}
    names = [each.name for each in COMMANDS]
    for name, maker in made.items():
        if names.index(maker) < names.index(command.name):
            (folder / name).symlink_to(whole / name)


def start(command: Command, folder: Path) -> subprocess.Popen:
    folder.mkdir(exist_ok=True)
    around = {**os.environ, "MINARI_DATASETS_PATH": str(folder / "datasets"), "OMP_NUM_THREADS": "1"}
    executable = str(Path(sys.executable).with_name("worldgym"))
    return subprocess.Popen(
        [executable, *command.arguments(folder)], cwd=folder, env=around, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def run(command: Command, folder: Path) -> str | None:
    """Run it to its end; returns what it printed if it failed, else None."""
    process = start(command, folder)
    said = process.communicate()[1]
    return None if process.returncode == 0 else said


def kill_at(command: Command, folder: Path, moment: float) -> float | None:
    """Kill it and its workers after `moment` seconds; if it has ended by then, returns how long it took."""
    began, process = time.perf_counter(), start(command, folder)
    try:
        process.communicate(timeout=moment)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return None
    return time.perf_counter() - began


def section(results: Results) -> list[str]:
    found = results["metrics"]["kills"]
    rows = [[name, str(found["by_command"][name]), str(ended)] for name, ended in found["endings"].items()]
    return [
        "Commands are killed (SIGKILL, worker processes too) at random moments, up to three times in a row, and then "
        "run to their end. Trainings save every fourth step, so kills also hit a save. What a command made is compared "
        "by content with an undisturbed run: every frame, action and outcome of a recording, every weight of a "
        "checkpoint.",
        "",
        f"**{found['kills']} kills, {len(found['findings'])} findings.**",
        "",
        *markdown(["command", "kills", "compared"], rows),
        "",
        made_by(results),
    ]


SECTION = Section(
    "Is anything lost when a command is killed?",
    ("kills",),
    "python benchmarks/fuzz.py --calls 0 --kills 100 --json benchmarks/results/kills.json",
    section,
)
