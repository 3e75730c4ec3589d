"""Which format holds episodes best: how large are they, and how fast are random windows of them?

    pip install "worldgym[shards,lerobot]" pylance webdataset
    python benchmarks/shards.py

Writes the same recorded episodes in every format, reads windows of 17 frames at random places and checks them. All
files are in the page cache, so rates are of decoding and of the libraries, not of the disk. They are by the seconds of
the processor, all threads together, because other programs may share the cores.
"""

import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import tyro
from section import RESULTS, Results, Section, made_by, markdown

CHUNK, SHARD = 16, 64
"""Frames that are compressed together, and episodes in a file, in formats that leave it open."""

Episodes = list[np.ndarray]
Reader = Callable[[int, int, int], np.ndarray]
"""(episode, first frame, frames) -> uint8 [frames, h, w, 3]."""


@dataclass(frozen=True)
class Shards:
    """Compare formats."""

    datasets: tuple[str, ...] = ("worldgym/reacher-v0", "worldgym/tabletop-v0")
    episodes: int = 512
    windows: int = 1500
    frames: int = 17
    """In a window."""
    seed: int = 0
    json: Path = RESULTS / "shards.json"


# -- formats: each writes episodes into a folder and returns what reads a window ---------------------------------------


def raw_npy(folder: Path, episodes: Episodes) -> Reader:
    starts = np.cumsum([0, *map(len, episodes)])
    np.save(folder / "frames.npy", np.concatenate(episodes))
    frames = np.load(folder / "frames.npy", mmap_mode="r")
    return lambda one, first, count: np.array(frames[starts[one] + first : starts[one] + first + count])


def raw_safetensors(folder: Path, episodes: Episodes) -> Reader:
    from safetensors import safe_open
    from safetensors.numpy import save_file

    opened = []
    for begin in range(0, len(episodes), SHARD):
        file = folder / f"{begin:05d}.safetensors"
        save_file({str(begin + k): one for k, one in enumerate(episodes[begin : begin + SHARD])}, file)
        opened.append(safe_open(file, "numpy"))
    return lambda one, first, count: opened[one // SHARD].get_slice(str(one))[first : first + count]


def minari_hdf5(folder: Path, episodes: Episodes, **compression: Any) -> Reader:
    """As Minari's storage writes exact observations: a group for each episode."""
    import h5py

    with h5py.File(folder / "main_data.hdf5", "w") as file:
        for number, one in enumerate(episodes):
            file.create_group(f"episode_{number}").create_dataset("observations", data=one, chunks=True, **compression)
    opened = h5py.File(folder / "main_data.hdf5")
    return lambda one, first, count: opened[f"episode_{one}/observations"][first : first + count]


def gzip_hdf5(folder: Path, episodes: Episodes) -> Reader:
    return minari_hdf5(folder, episodes, compression="gzip")


def parquet(folder: Path, episodes: Episodes) -> Reader:
    """A row holds 16 frames as bytes, a row group an episode, compressed by Zstandard."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    shape, opened = episodes[0].shape[1:], []
    schema = pa.schema([("frames", pa.binary())])
    for begin in range(0, len(episodes), SHARD):
        file = folder / f"{begin:05d}.parquet"
        with pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=False) as writer:
            for one in episodes[begin : begin + SHARD]:
                writer.write_table(pa.table({"frames": chunks(one)}, schema))
        opened.append(pq.ParquetFile(file))

    def read(one: int, first: int, count: int) -> np.ndarray:
        rows = opened[one // SHARD].read_row_group(one % SHARD, use_threads=False)["frames"]
        return cut([rows[k].as_buffer() for k in wanted(first, count)], shape, first, count)

    return read


def lance(folder: Path, episodes: Episodes) -> Reader:
    """A row holds 16 frames as bytes, compressed by Zstandard."""
    import lance
    import pyarrow as pa

    shape = episodes[0].shape[1:]
    about = {"lance-encoding:compression": "zstd"}
    schema = pa.schema([pa.field("frames", pa.binary(), metadata=about)])
    counts = [-(-len(one) // CHUNK) for one in episodes]
    begins = np.cumsum([0, *counts])
    rows = [chunk for one in episodes for chunk in chunks(one)]
    opened = lance.write_dataset(pa.table({"frames": rows}, schema), folder / "set.lance")

    def read(one: int, first: int, count: int) -> np.ndarray:
        found = opened.take([int(begins[one]) + k for k in wanted(first, count)])["frames"]
        return cut([row.as_buffer() for row in found], shape, first, count)

    return read


def web_dataset(folder: Path, episodes: Episodes) -> Reader:
    """A tar file of episodes, each an .npy that zlib compressed. It is read from one end to the other: here the window
    is cut from whichever episode comes next, `CHUNK` frames of it for each window."""
    import zlib

    import webdataset as wds

    def packed(one: np.ndarray) -> bytes:
        stream = io.BytesIO()
        np.save(stream, one)
        return zlib.compress(stream.getvalue(), 1)

    with wds.ShardWriter(f"file:{folder}/%05d.tar", maxcount=SHARD, verbose=0) as writer:
        for number, one in enumerate(episodes):
            writer.write({"__key__": str(number), "npyz": packed(one)})
    files = [f"file:{file}" for file in sorted(folder.glob("*.tar"))]
    held: dict[int, np.ndarray] = {}
    stream = iter(wds.WebDataset(files, shardshuffle=False).repeat())

    def read(one: int, first: int, count: int) -> np.ndarray:
        while one not in held:
            sample = next(stream)
            held.clear()
            held[int(sample["__key__"])] = np.load(io.BytesIO(zlib.decompress(sample["npyz"])))
        return held[one][first : first + count]

    return read


def worldgym_shards(folder: Path, episodes: Episodes) -> Reader:
    from worldgym.data import load_episodes
    from worldgym.shards import DTYPES, split_of, write_shards

    about = {"instructions": ["go"], "phrases": [], "frames_per_action": 1, "action_space": None, "environment": "",
             "twin_options": {}}  # fmt: skip
    no_width = {name: (1,) for name in DTYPES} | {"sentence_actions": (1, 1)}
    write_shards(
        f"file://{folder}", "benchmark", about,
        ({name: np.zeros((len(one), *no_width[name]), kind) for name, kind in DTYPES.items()} | {"frames": one}
         for one in episodes),
    )  # fmt: skip
    data = load_episodes(f"file://{folder}")
    splits = [split_of(one) for one in range(len(episodes))]
    order = [one for split in ("train", "validation", "test") for one in range(len(episodes)) if splits[one] == split]
    place = {one: int(data.starts[number]) for number, one in enumerate(order)}
    return lambda one, first, count: data.frames[place[one] + first : place[one] + first + count]


def chunks(one: np.ndarray) -> list[bytes]:
    return [one[begin : begin + CHUNK].tobytes() for begin in range(0, len(one), CHUNK)]


def wanted(first: int, count: int) -> range:
    return range(first // CHUNK, (first + count - 1) // CHUNK + 1)


def cut(found: list[Any], shape: tuple[int, ...], first: int, count: int) -> np.ndarray:
    """A window out of the chunks that it touches."""
    frames = np.concatenate([np.frombuffer(one, np.uint8).reshape(-1, *shape) for one in found])
    return frames[first % CHUNK : first % CHUNK + count]


FORMATS: dict[str, Callable[[Path, Episodes], Reader]] = {
    ".npy, memory-mapped": raw_npy,
    "safetensors, not compressed": raw_safetensors,
    "HDF5, as Minari writes it": minari_hdf5,
    "HDF5, gzip": gzip_hdf5,
    "Parquet, Zstandard": parquet,
    "Lance, Zstandard": lance,
    "WebDataset, zlib (in order)": web_dataset,
    "WorldGym's shards": worldgym_shards,
}


# -- measuring -------------------------------------------------------------------------------------------------------


def measure(config: Shards) -> dict[str, Any]:
    from worldgym.data import load_episodes

    told: dict[str, Any] = {
        "episodes": config.episodes, "windows": config.windows, "frames": config.frames, "datasets": {},
        "versions": {name: version(name) for name in ("pylance", "webdataset", "pyarrow", "h5py", "zstandard")},
    }  # fmt: skip
    for dataset in config.datasets:
        data = load_episodes(dataset)
        episodes = [np.array(data.frames[a:b]) for a, b in pairwise(data.starts[: config.episodes + 1].tolist())]
        told["datasets"][dataset] = {}
        for name, write in FORMATS.items():
            with TemporaryDirectory() as folder:
                found = compare(config, Path(folder), write, episodes, "in order" in name)
            told["datasets"][dataset][name] = found
            print(dataset, name, {part: round(value, 1) for part, value in found.items()}, flush=True)
    return told


def compare(config: Shards, folder: Path, write: Any, episodes: Episodes, in_order: bool) -> dict[str, float]:
    raw, began = sum(one.nbytes for one in episodes), time.process_time()
    read = write(folder, episodes)
    writing = time.process_time() - began
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    random = np.random.default_rng(config.seed)
    chosen = random.integers(len(episodes), size=config.windows)
    if in_order:
        chosen = np.repeat(np.arange(len(episodes)), -(-len(episodes[0]) // CHUNK))[: config.windows]
    firsts = [int(random.integers(len(episodes[one]) - config.frames + 1)) for one in chosen]
    pairs = list(zip(chosen.tolist(), firsts, strict=True))
    for one, first in pairs[:50]:  # also opens what is opened once
        assert np.array_equal(read(one, first, config.frames), episodes[one][first : first + config.frames])
    began = time.process_time()
    for one, first in pairs:
        read(one, first, config.frames)
    seconds = time.process_time() - began
    window = config.frames * episodes[0][0].nbytes
    return {
        "megabytes": size / 1e6, "ratio": raw / size, "writing_mb_s": raw / writing / 1e6,
        "windows_s": config.windows / seconds, "mb_s": config.windows * window / seconds / 1e6,
    }  # fmt: skip


def main(config: Shards) -> None:
    from worldgym.results import check_results, current_commit, write_results  # brings torch, which takes its time

    commit = current_commit()
    check_results(config.json)
    write_results(config.json, config.seed, measure(config), commit)


# -- the section of docs/results.md -----------------------------------------------------------------------------------


def section(results: Results) -> list[str]:
    m, lines = results["metrics"], []
    for dataset, formats in m["datasets"].items():
        rows = [
            [name, f"{one['megabytes']:.1f}", f"{one['ratio']:.1f}", f"{one['writing_mb_s']:.0f}",
             f"{one['windows_s']:,.0f}", f"{one['mb_s']:,.0f}"]
            for name, one in formats.items()
        ]  # fmt: skip
        lines += [
            f"The first {m['episodes']} episodes of {dataset}:",
            "",
            *markdown(
                ["format", "MB", "times smaller", "MB written a second", "windows a second", "MB read a second"], rows
            ),
            "",
        ]
    versions = ", ".join(f"{name} {number}" for name, number in m["versions"].items())
    return [
        f"We read {m['windows']:,} windows of {m['frames']} frames at random places. All files are in the page cache, "
        "and seconds are of the processor, over all threads, so the rates compare decoding and libraries, not disks. "
        "WebDataset reads from one end to the other only; its windows are cut in that order.",
        "",
        *lines,
        f"{versions}.",
        "",
        made_by(results),
    ]  # fmt: skip


SECTION = Section(
    "In which format are episodes small and quick to read?", ("shards",), "python benchmarks/shards.py", section
)

if __name__ == "__main__":
    main(tyro.cli(Shards))
