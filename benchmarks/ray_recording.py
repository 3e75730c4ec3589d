"""Is a recording on a Ray cluster the one without it, and what does a killed worker cost?

    pip install "worldgym[ray]"
    python benchmarks/ray_recording.py

Records one data set again and again, with two workers on this machine: by processes; on a local Ray cluster; on one
whose workers are killed (SIGKILL) while they play; on one while the recording itself is killed half-way, after which
processes record the rest. The files are compared byte by byte with those of the first.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import minari
import numpy as np
import psutil
import tyro
from section import RESULTS, Results, Section, made_by, markdown

DATASET = "test/pendulum-v0"
PLAYING = "ray::attempt"
"""What Ray calls a worker process while it is at a task of ours."""


@dataclass(frozen=True)
class RayRecording:
    """Record with and without Ray, kill, compare."""

    episodes: int = 200
    steps: int = 48
    kills: int = 3
    """Of workers, evenly over the recording."""
    seed: int = 0
    json: Path = RESULTS / "ray_recording.json"

    def start(self, folder: Path, *ray: str) -> subprocess.Popen:
        folder.mkdir(exist_ok=True)
        command = [
            str(Path(sys.executable).with_name("worldgym")), "record", "--env", "Pendulum-v1", "--dataset", DATASET,
            "--episodes", str(self.episodes), "--steps", str(self.steps), "--seed", str(self.seed), "--workers", "2",
        ]  # fmt: skip
        around = {**os.environ, "MINARI_DATASETS_PATH": str(folder), "OMP_NUM_THREADS": "1"}
        with (folder / "said").open("w", encoding="utf-8") as said:
            return subprocess.Popen([*command, *ray], cwd=folder, env=around, stdout=said, stderr=said)


def kept(folder: Path) -> int:
    return len(list(folder.glob("test/*.partial/episode_*.npz")))


def wait_for(folder: Path, episodes: int, process: subprocess.Popen) -> None:
    while kept(folder) < episodes:
        if process.poll() is not None:
            raise RuntimeError(f"it ended before {episodes} episodes: {said(folder)}")
        time.sleep(0.01)


def said(folder: Path) -> str:
    return (folder / "said").read_text(encoding="utf-8")[-2000:]


def finish(process: subprocess.Popen, folder: Path) -> None:
    if process.wait() != 0:
        raise RuntimeError(f"it failed: {said(folder)}")


def by_processes(config: RayRecording, folder: Path) -> int:
    finish(config.start(folder), folder)
    return 0


def on_ray(config: RayRecording, folder: Path) -> int:
    finish(config.start(folder, "--ray", "local"), folder)
    return 0


def workers_killed(config: RayRecording, folder: Path) -> int:
    process = config.start(folder, "--ray", "local")
    for kill in range(config.kills):
        wait_for(folder, (kill + 1) * config.episodes // (config.kills + 1), process)
        while not kill_a_worker(process.pid):
            time.sleep(0.001)
    finish(process, folder)
    return config.kills


def kill_a_worker(recording: int) -> bool:
    """Kill one that plays, if any does right now."""
    for child in psutil.Process(recording).children(recursive=True):
        try:
            if " ".join(child.cmdline()).startswith(PLAYING):
                child.kill()
                return True
        except psutil.NoSuchProcess:
            continue
    return False


def recording_killed(config: RayRecording, folder: Path) -> int:
    process = config.start(folder, "--ray", "local")
    wait_for(folder, config.episodes // 2, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    print(f"{kept(folder)} episodes were there")
    finish(config.start(folder), folder)
    return 1


WAYS: dict[str, Callable[[RayRecording, Path], int]] = {
    "processes, without Ray": by_processes,
    "a local Ray cluster": on_ray,
    "a local Ray cluster, workers killed": workers_killed,
    "a local Ray cluster, the recording killed half-way; then processes": recording_killed,
}
"""Each records into a folder and returns how often it killed; the first is what the others are compared with."""


def files(folder: Path) -> dict[str, bytes]:
    made = folder / DATASET
    return {str(path.relative_to(made)): path.read_bytes() for path in sorted(made.rglob("*")) if path.is_file()}


def differing(expected: bytes, found: bytes) -> int:
    both = min(len(expected), len(found))
    one, other = np.frombuffer(expected[:both], np.uint8), np.frombuffer(found[:both], np.uint8)
    return abs(len(expected) - len(found)) + int(np.count_nonzero(one != other))


def measure(config: RayRecording) -> dict[str, Any]:
    ways: dict[str, Any] = {}
    with TemporaryDirectory() as temporary:
        expected: dict[str, bytes] = {}
        for number, (name, record) in enumerate(WAYS.items()):
            folder, began = Path(temporary) / str(number), time.perf_counter()
            kills = record(config, folder)
            seconds, found = time.perf_counter() - began, files(folder)
            expected = expected or found
            os.environ["MINARI_DATASETS_PATH"] = str(folder)
            ways[name] = {
                "kills": kills,
                "seconds": seconds,
                "lost_episodes": config.episodes - minari.load_dataset(DATASET).total_episodes,
                "differing_bytes": sum(
                    differing(expected.get(file, b""), found.get(file, b"")) for file in expected.keys() | found.keys()
                ),
                "bytes": sum(map(len, found.values())),
            }
            print(name, ways[name], flush=True)
    return {"episodes": config.episodes, "steps": config.steps, "ways": ways}


def main(config: RayRecording) -> None:
    from worldgym.results import check_results, current_commit, write_results  # brings torch, which takes its time

    commit = current_commit()
    check_results(config.json)
    write_results(config.json, config.seed, measure(config), commit)


# -- the section of docs/results.md -----------------------------------------------------------------------------------


def section(results: Results) -> list[str]:
    m = results["metrics"]
    rows = [
        [name, str(way["kills"]), str(way["lost_episodes"]), f"{way['differing_bytes']} of {way['bytes']:,}",
         f"{way['seconds']:.0f}"]
        for name, way in m["ways"].items()
    ]  # fmt: skip
    return [
        f"`worldgym record --env Pendulum-v1`, {m['episodes']} episodes of {m['steps']} steps, two workers on one "
        "machine. Workers and recordings are killed by SIGKILL while they play. Seconds are of the whole command, with "
        "the start of Ray. Other programs shared the cores, so the seconds do not tell what Ray costs.",
        "",
        *markdown(["recorded by", "kills", "episodes lost", "bytes that differ", "seconds"], rows),
        "",
        made_by(results),
    ]


SECTION = Section("Does it matter who records?", ("ray_recording",), "python benchmarks/ray_recording.py", section)

if __name__ == "__main__":
    main(tyro.cli(RayRecording))
