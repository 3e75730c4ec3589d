"""Commands that are killed at random moments lose nothing: carried on, they end as if nobody had killed them.

`benchmarks/fuzz.py --calls 0 --kills 100` runs it. Each command is first left alone, which says what has to come out
and how long it takes. Then it is started again and again in a folder of its own and killed (SIGKILL, its workers too)
at a random moment; at last it is left to end, and what is there is compared by content with what should be.
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

from worldgym.data import load_episodes

DATASET = "test/kills-v0"
PATIENCE = 3
"""Times in a row that a command is killed, before it is left to end."""
SMALL = ["--steps", "24", "--batch", "2", "--evaluate-every", "4", "--device", "cpu"]
"""Trainings that save every fourth step."""


@dataclass(frozen=True)
class Command:
    """One that is killed. It works in a folder, which already holds what it needs."""

    name: str
    arguments: Callable[[Path], list[str]]
    content: Callable[[Path], str]
    """A digest of what it made there."""


def recorded(folder: Path) -> str:
    """Of every frame, action and outcome."""
    os.environ["MINARI_DATASETS_PATH"] = str(folder / "datasets")
    data, digest = load_episodes(DATASET), hashlib.sha256()
    for part in (data.frames, data.actions, data.rewards, data.successes, data.terminations, data.starts):
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def weights(name: str) -> Callable[[Path], str]:
    """Of a checkpoint's tensors, by name."""

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
"""Each works on what those before it made."""


@dataclass(frozen=True)
class KillsConfig:
    """How often, and by which random moments."""

    kills: int = 100
    seed: int = 0


def kill_commands(config: KillsConfig) -> dict[str, Any]:
    """Kill so many commands, by turns; what was lost is printed, and counted."""
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
                if not killed_at(command, folder, float(random.uniform(0.1, 1.0)) * seconds[command.name]):
                    break
                killed += 1
                kills[command.name] += 1
            error = run(command, folder)
            try:
                lost = error or (None if command.content(folder) == expected[command.name] else "another content")
            except (OSError, ValueError) as unreadable:
                lost = f"{type(unreadable).__name__}: {unreadable}"
            endings[command.name] += 1
            if lost is not None:
                findings.append({"command": command.name, "turn": turn, "kills": killed, "said": lost[-400:]})
            print(f"{command.name}, killed {killed} times: {lost or 'nothing lost'}", flush=True)
            turn += 1
    return {"kills": kills.total(), "by_command": dict(kills), "endings": dict(endings), "findings": findings}


def prepare(folder: Path, whole: Path, command: Command) -> None:
    """What the commands before this one made, by links: none of them may be written to."""
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
    """To its end; what it said if it failed."""
    process = start(command, folder)
    said = process.communicate()[1]
    return None if process.returncode == 0 else said


def killed_at(command: Command, folder: Path, moment: float) -> bool:
    """Whether it was still running after so many seconds, when it was killed with its workers."""
    process = start(command, folder)
    try:
        process.communicate(timeout=moment)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return True
    return False
