"""What all recorders share: episodes played by worker processes, kept in chunks, written as a Minari dataset.

Episode i depends on (seed, i) alone, so a recording that was killed resumes where it stood and ends up the
same. Finished chunks wait as files under a temporary name; the Minari dataset appears when all are there.
"""

import json
import multiprocessing
import shutil
import signal
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import minari
import numpy as np
from minari.data_collector import EpisodeBuffer
from minari.storage import get_dataset_path
from tqdm import tqdm

from .settings import RecordConfig

CHUNK = 100


def record_episodes(
    config: RecordConfig,
    play: Callable[[RecordConfig, int], dict[str, np.ndarray]],
    about: dict[str, Any],
    metadata: dict[str, Any],
) -> Path:
    """Write the dataset and return its folder; resumes a killed recording of the same configuration.

    Args:
        play: makes episode i, a function that worker processes can import. Arrays are indexed by frame, except
            `actions` with one row less; `frames`, `rewards`, `successes`, `terminations`, and what else there is.
        about: what Minari is told of the dataset.
        metadata: what `worldgym/data.py` is told.
    """
    if config.episodes < 1 or config.steps < 1:
        raise ValueError(f"asked for {config.episodes} episodes of {config.steps} steps; there must be at least one")
    folder = get_dataset_path(config.dataset)
    partial_folder = folder.with_name(folder.name + ".partial")
    if folder.exists() and not partial_folder.exists():
        raise FileExistsError(
            f"{folder} exists; delete it (minari delete {config.dataset}) or choose another --dataset"
        )
    partial_folder.mkdir(parents=True, exist_ok=True)
    _same_configuration(partial_folder / "config.json", config)

    missing = [
        range(start, min(start + CHUNK, config.episodes))
        for start in range(0, config.episodes, CHUNK)
        if not _chunk_file(partial_folder, start).exists()
    ]
    done = config.episodes - sum(len(chunk) for chunk in missing)
    with (
        tqdm(total=config.episodes, initial=done, unit="episode", desc="recording") as progress,
        multiprocessing.get_context("spawn").Pool(config.workers, _leave_interrupts) as pool,  # a forked EGL hangs
    ):
        try:
            for chunk in missing:
                episodes = []
                for episode in pool.imap(partial(play, config), chunk):
                    episodes.append(episode)
                    progress.update()
                _write(_chunk_file(partial_folder, chunk.start), episodes)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"each {CHUNK} episodes are kept; the same command records the rest") from None

    if folder.exists():  # a conversion that was killed: its source is still complete
        shutil.rmtree(folder)
    _to_minari(config, partial_folder, about, metadata)
    shutil.rmtree(partial_folder)
    return folder


def _to_minari(config: RecordConfig, partial_folder: Path, about: dict[str, Any], metadata: dict[str, Any]) -> None:
    dataset = None
    for start in tqdm(range(0, config.episodes, CHUNK), desc="writing Minari", unit="chunk"):
        episodes = _read(_chunk_file(partial_folder, start))
        buffers = [_buffer(index, episode) for index, episode in enumerate(episodes, start)]
        if dataset is None:
            dataset = minari.create_dataset_from_buffers(
                config.dataset,
                buffers,
                author="WorldGym contributors",
                author_email="",
                code_permalink="",
                jpeg_encoding=False,  # JPEG would teach the tokenizer JPEG
                data_format="hdf5",
                eval_env=about["env"],
                **about,
            )
        else:
            dataset.update_dataset_from_buffer(buffers)
    assert dataset is not None
    dataset.storage.update_metadata({**metadata, "worldgym_record": asdict(config)})


def _buffer(index: int, episode: dict[str, np.ndarray]) -> EpisodeBuffer:
    """The episode as Minari has it, whose own rewards and ends are those of the instruction if there is just one;
    of several, episodes outlive all."""
    steps = len(episode["actions"])
    rewards, terminations = np.zeros(steps, np.float32), np.zeros(steps, bool)
    if episode["rewards"].shape[1] == 1:
        rewards = episode["rewards"][1:, 0]
        terminations[-1] = episode["terminations"][
            -1, 0
        ]  # which may have been so for a while: once is what Minari means
    truncations = np.zeros(steps, bool)
    truncations[-1] = not terminations[-1]
    return EpisodeBuffer(
        id=index,
        seed=index,
        observations=episode["frames"],
        actions=episode["actions"],
        rewards=rewards,
        terminations=terminations,
        truncations=truncations,
        infos={name: array for name, array in episode.items() if name not in ("frames", "actions")},
    )


def _leave_interrupts() -> None:
    """Ctrl-C is for the process that records, which ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _chunk_file(folder: Path, start: int) -> Path:
    return folder / f"episodes_{start:06d}.npz"


def _write(path: Path, episodes: list[dict[str, np.ndarray]]) -> None:
    """Episodes may differ in length, so each has arrays of its own."""
    arrays = {f"{index}/{name}": array for index, episode in enumerate(episodes) for name, array in episode.items()}
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    temporary.rename(path)


def _read(path: Path) -> list[dict[str, np.ndarray]]:
    episodes: dict[str, dict[str, np.ndarray]] = {}
    with np.load(path) as file:
        for key, array in file.items():
            index, name = key.split("/")
            episodes.setdefault(index, {})[name] = array
    return list(episodes.values())


def _same_configuration(path: Path, config: RecordConfig) -> None:
    """Refuse to mix two recordings in one folder; the number of workers may differ."""
    wanted = {key: value for key, value in asdict(config).items() if key != "workers"}
    if path.exists() and (found := json.loads(path.read_text())) != wanted:
        raise ValueError(
            f"{path.parent} holds a recording begun with {found}; now asked for {wanted}. Delete it or ask for the same"
        )
    path.write_text(json.dumps(wanted))
