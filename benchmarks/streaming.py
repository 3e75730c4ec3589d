"""Does training on a data set that fits neither memory nor disk run as fast as on one that does?

    pip install "worldgym[shards]"
    python benchmarks/streaming.py --folder /a/disk/with/room

Writes a data set in shards of recorded frames to which sensor noise is added, until it fills 20 GB on the disk, and
trains on it in a process whose memory is limited. A second process trains on the recording itself, memory-mapped and
without a limit. The two take turns, a few updates each, so that what else the machine does slows both.

The limit is RLIMIT_DATA, which the kernel enforces on all memory that the process allocates, its libraries' included.
It does not count pages of the shards that the kernel keeps: those are evicted every second, and counted before.
"""

import gc
import multiprocessing
import os
import resource
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import Any

import numpy as np
import tyro
from section import RESULTS, Results, Section, made_by, markdown

WINDOWS = (8, 16, 32, 64, 128)
SAMPLED = 500
"""Batches, evenly over an epoch, whose means say how well it is shuffled."""


@dataclass(frozen=True)
class Streaming:
    """Write 20 GB, and train on them in 2 GB."""

    folder: Path
    """Where the shards go, in a subfolder that exists already or is made; it is not deleted."""
    dataset: str = "worldgym/reacher-v0"
    """The recording: what is trained on without shards, and what the shards are made of."""
    world: str = "reacher"
    """Whose recurrent state is trained."""
    gigabytes: float = 20.0
    """On the disk."""
    limit: float = 2.0
    """GiB of memory."""
    noise: int = 8
    """Added to each value of a frame, from -noise to noise. Without it the frames compress to a sixteenth."""
    stages: tuple[str, ...] = ("tokenizer", "state")
    rounds: int = 5
    updates: int = 6
    """In each round."""
    seed: int = 0
    json: Path = RESULTS / "streaming.json"

    @property
    def url(self) -> str:
        return f"file://{self.folder.absolute()}/noisy"


# -- the data set ----------------------------------------------------------------------------------------------------


def write(config: Streaming) -> float:
    """Write the shards if they are not there; returns the seconds that it took."""
    from worldgym.data import about, load_episodes, open_dataset
    from worldgym.shards import write_shards

    if (config.folder / "noisy" / "index.json").exists():
        return float("nan")
    began, data = time.perf_counter(), load_episodes(config.dataset)
    write_shards(config.url, config.dataset, about(open_dataset(config.dataset)), altered(config, data))
    return time.perf_counter() - began


def altered(config: Streaming, data: Any) -> Iterator[dict[str, np.ndarray]]:
    """Recorded episodes, again and again, each time with other noise, until the disk has enough of them."""
    from worldgym.data import _ROWS

    random, begin, folder = np.random.default_rng(config.seed), 0, config.folder / "noisy"
    bank = random.integers(-config.noise, config.noise + 1, 2**26, np.int16)
    for number in range(10**9):
        written = sum(file.stat().st_size for file in folder.glob("*")) if number % 500 == 0 else 0
        if written >= 1e9 * config.gigabytes:
            return
        one = number % (len(data.starts) - 1)
        rows = slice(data.starts[one], data.starts[one + 1])
        frames = data.frames[rows]
        begin = int(random.integers(len(bank) - frames.size))
        noisy = np.clip(frames + bank[begin : begin + frames.size].reshape(frames.shape), 0, 255).astype(np.uint8)
        yield {"frames": noisy, **{name: getattr(data, name)[rows] for name in _ROWS}}


# -- training, in a process of its own -----------------------------------------------------------------------------


def train(config: Streaming, stage: str, dataset: str, limit: float | None, commands: Connection) -> None:
    """Makes the stage, then as many updates as it is told each time; says how long they took."""
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (int(limit * 2**30), int(limit * 2**30)))
    import torch

    from worldgym.train.memory import keep_freed_memory
    from worldgym.train.recurrent_state import RecurrentStage
    from worldgym.train.settings import RecurrentTraining, TokenizerTraining
    from worldgym.train.tokenizer import TokenizerStage

    keep_freed_memory()  # as every training does
    torch.set_num_threads(1)
    cpu, out = torch.device("cpu"), Path(TemporaryDirectory().name) / "run"
    began = time.perf_counter()
    made: Any = (
        TokenizerStage(TokenizerTraining(dataset, out, device="cpu"), cpu)
        if stage == "tokenizer"
        else RecurrentStage(RecurrentTraining(dataset, config.world, out, device="cpu"), cpu)
    )
    commands.send({"prepared": time.perf_counter() - began})
    step = 4000 if stage == "state" else 0  # where it imagines as far as in most of its training
    while updates := commands.recv():
        wall, processor, drawing = time.perf_counter(), time.process_time(), 0.0
        for _ in range(updates):
            now = time.perf_counter()
            batch = made.draw(step, 0, 1)
            drawing += time.perf_counter() - now
            made.model(*batch)["loss"].backward()
            made.optimizer.step()
            made.optimizer.zero_grad(set_to_none=True)
            step += 1
        gc.collect()
        told = {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor, "drawing": drawing}
        commands.send(told | {"resident": peak_memory()})


def peak_memory() -> float:
    """GiB that this process has had resident at most, pages of its libraries and of mapped files included."""
    (line,) = (one for one in Path("/proc/self/status").read_text(encoding="utf-8").splitlines() if "VmHWM" in one)
    return int(line.split()[1]) / 2**20


class PageCache:
    """What the kernel keeps of some files: counted every second and evicted."""

    def __init__(self, folder: Path):
        self.files = [str(file) for file in sorted(folder.iterdir())]
        self.most, self._stop = 0, Event()
        self._watch()
        self.most, self._thread = 0, Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(1.0):
            self._watch()

    def _watch(self) -> None:
        command = ["fincore", "--bytes", "--noheadings", "--raw", "--output", "RES", *self.files]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        self.most = max(self.most, sum(map(int, said.split())))
        for file in self.files:
            handle = os.open(file, os.O_RDONLY)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


def compare(config: Streaming, stage: str) -> dict[str, Any]:
    """Both processes, in turns."""
    fresh, told, ends = multiprocessing.get_context("spawn"), {}, {}
    cases = {"memory-mapped": (config.dataset, None), "streamed": (config.url, config.limit)}
    cache = PageCache(config.folder / "noisy")
    for name, (dataset, limit) in cases.items():
        ends[name], theirs = fresh.Pipe()
        fresh.Process(target=train, args=(config, stage, dataset, limit, theirs), daemon=True).start()
        theirs.close()
        told[name] = {**ends[name].recv(), "rounds": []}
    for turn in range(config.rounds + 1):
        for name, end in ends.items():
            end.send(config.updates)
            found = end.recv()
            if turn:  # the first warms up
                told[name]["rounds"].append(found)
            print(stage, name, {part: round(value, 2) for part, value in found.items()}, flush=True)
    for end in ends.values():
        end.send(0)
    cache.stop()
    for one in told.values():
        rounds = one.pop("rounds")
        for part in ("wall", "processor"):
            one[f"updates_a_{part}_second"] = config.updates / float(np.median([each[part] for each in rounds]))
        one["drawing_share"] = sum(each["drawing"] for each in rounds) / sum(each["wall"] for each in rounds)
        one["resident_gib"] = max(each["resident"] for each in rounds)
    told["streamed"]["page_cache_gib"] = cache.most / 2**30
    return told


# -- how well it is shuffled -----------------------------------------------------------------------------------------


def shuffling(url: str, batch: int, seed: int) -> dict[str, float]:
    """How much the mean of a batch varies, over that of batches drawn at random from all episodes.

    The worst case: what is averaged is the episode's place in the recording, so that the episodes of a shard are alike.
    """
    from worldgym.data import load_episodes
    from worldgym.epochs import EpochOrder

    data = load_episodes(url)
    train = data.split("train")
    shard, draws = data.stream.piece_of[train], data.draws(train)  # type: ignore[attr-defined]
    found = {}
    for window in WINDOWS:
        order, place = EpochOrder(train, shard, draws, window), train / train.max()
        value = dict(zip(train.tolist(), place.tolist(), strict=True))
        steps = np.linspace(0, order.length // batch - 1, SAMPLED).astype(int).tolist()
        means = [np.mean([value[one] for one in order.batch(seed, step, batch).tolist()]) for step in steps]
        found[str(window)] = float(np.var(means) / (place.var() / batch))
        print(f"window of {window}: variance of batch means {found[str(window)]:.2f} times that of random batches")
    return found


def measure(config: Streaming) -> dict[str, Any]:
    from worldgym.data import load_episodes

    seconds, data = write(config), load_episodes(config.url)
    files = data.stream.files  # type: ignore[attr-defined]
    told = {
        "gigabytes": sum(file["bytes"] for file in files) / 1e9, "raw_gigabytes": np.prod(data.frames.shape) / 1e9,
        "shards": len(files), "episodes": len(data.starts) - 1, "window": data.stream.window,  # type: ignore[attr-defined]
        "writing_seconds": seconds, "limit_gib": config.limit, "noise": config.noise,
        "recording": config.dataset, "recording_gigabytes": np.prod(load_episodes(config.dataset).frames.shape) / 1e9,
        "batch": 48, "updates": config.updates, "rounds": config.rounds,
    }  # fmt: skip
    print(told, flush=True)
    shuffled = shuffling(config.url, told["batch"], config.seed)
    return told | {"shuffling": shuffled, "stages": {stage: compare(config, stage) for stage in config.stages}}


def main(config: Streaming) -> None:
    from worldgym.results import check_results, current_commit, write_results  # brings torch, which takes its time

    commit = current_commit()
    check_results(config.json)
    config.folder.mkdir(parents=True, exist_ok=True)
    write_results(config.json, config.seed, measure(config), commit)


# -- the section of docs/results.md -----------------------------------------------------------------------------------


def section(results: Results) -> list[str]:
    m = results["metrics"]
    rows = [
        [stage, name, f"{one['updates_a_wall_second']:.2f}", f"{one['updates_a_processor_second']:.2f}",
         f"{one['drawing_share']:.1%}", f"{one['resident_gib']:.2f}",
         f"{one['page_cache_gib']:.2f}" if "page_cache_gib" in one else "not limited"]
        for stage, two in m["stages"].items() for name, one in two.items()
    ]  # fmt: skip
    ratios = [f"{window} shards {value:.2f}" for window, value in m["shuffling"].items()]
    return [
        f"`streamed` trains on {m['gigabytes']:.1f} GB of shards on the disk, {m['raw_gigabytes']:.0f} GB of frames in "
        f"{m['episodes']:,} episodes and {m['shards']:,} shards: those of {m['recording']} with noise of up to "
        f"{m['noise']} in every value. The kernel limits what its process allocates to {m['limit_gib']:g} GiB "
        "(RLIMIT_DATA); what the kernel keeps of the shards was evicted every second, and is counted besides. "
        f"`memory-mapped` trains on {m['recording']}, {m['recording_gigabytes']:.1f} GB, without a limit. The two take "
        f"turns of {m['updates']} updates on one core that other programs shared, so compare by the seconds of the "
        f"processor; figures are medians of {m['rounds']} turns.",
        "",
        "The recurrent state also projects frames on their principal components: once, where memory holds those of all "
        "frames, and on shards once for each shard that comes into the window.",
        "",
        *markdown(
            ["stage", "data", "updates a second", "updates a second of the processor", "share of drawing batches",
             "peak resident, GiB", "peak of shards in the page cache, GiB"], rows
        ),
        "",
        f"Is it shuffled enough? Training mixes {m['window']} shards at a time here. In the worst case, an attribute "
        f"that changes steadily over the recording, the mean of a batch of {m['batch']} varies more than that of a "
        f"random batch, by this factor in its variance: {', '.join(ratios)}. "
        "Without such a trend the factor is 1.",
        "",
        made_by(results),
    ]  # fmt: skip


SECTION = Section(
    "Does a data set that fits no memory slow training down?",
    ("streaming",),
    "python benchmarks/streaming.py --folder runs/streaming",
    section,
)

if __name__ == "__main__":
    main(tyro.cli(Streaming))
