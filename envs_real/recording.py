"""What all recorders share: episodes played by workers, kept one by one, written as a Minari dataset.

Episode i depends on (seed, i) alone, so a recording that was killed resumes where it stood and ends up the
same. Finished episodes wait as files under a temporary name; the Minari dataset appears when all are there.
"""

import json
import os
import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.envs.registration import EnvSpec
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_storage import MinariStorage
from minari.storage import get_dataset_path
from tqdm import tqdm

from worldgym.episodes import EpisodeFormat
from worldgym.errors import UserError
from worldgym.files import alone, check_room
from worldgym.storage import new_dataset_folder, write_dataset

from .on_ray import on_ray
from .settings import RecordConfig
from .workers import WorkerError, in_workers

Play = Callable[[RecordConfig, int], dict[str, np.ndarray]]
"""Makes episode i. Arrays are indexed by frame, except `actions` with one row less; `frames`, `rewards`, `successes`,
`terminations`, and what else there is."""

WHO = ("workers", "ray")
"""Settings that say who records, not what."""


def record_episodes(
    config: RecordConfig, play: Play, layout: EpisodeFormat, algorithm_name: str, description: str, env: EnvSpec
) -> Path:
    """Write the dataset and return its folder; resumes a killed recording of the same configuration.

    Args:
        play: a function that worker processes can import.
        layout: what all episodes have in common.
        algorithm_name: what acted, for the dataset's metadata.
        env: what makes the environment that was recorded, or its twin in the spaces of a dream.

    Raises:
        UserError: what was asked for cannot be recorded, or the environment failed.
        FileExistsError: there is such a dataset.
    """
    folder = get_dataset_path(config.dataset)
    partial_folder = folder.with_name(folder.name + ".partial")
    if not partial_folder.exists():
        new_dataset_folder(config.dataset)
    partial_folder.mkdir(parents=True, exist_ok=True)
    with alone(partial_folder / "lock", f"recording {config.dataset}"):
        wanted = json.loads(json.dumps({key: value for key, value in asdict(config).items() if key not in WHO}))
        _same_configuration(partial_folder / "config.json", wanted)
        if not _is_written(folder, wanted):
            _play_missing(config, play, layout, partial_folder)
            check_room(partial_folder, sum(path.stat().st_size for path in partial_folder.iterdir()))
            write_dataset(
                config.dataset,
                _buffers(config, partial_folder),
                layout, algorithm_name, description, env,
                within=partial_folder,
                about={"worldgym_record": wanted},
            )  # fmt: skip
    shutil.rmtree(partial_folder)
    return folder


def _play_missing(config: RecordConfig, play: Play, layout: EpisodeFormat, folder: Path) -> None:
    missing = [index for index in range(config.episodes) if not _episode_file(folder, index).exists()]
    done = config.episodes - len(missing)
    finished = _finished(config, play, layout, folder, missing)
    with tqdm(total=config.episodes, initial=done, unit="episode", desc="recording") as progress, closing(finished):
        try:
            for _ in finished:
                progress.update()
        except BaseException as error:
            there = len(list(folder.glob("episode_*.npz")))
            kept = f"{there} of {config.episodes} episodes are kept; the same command records the rest"
            match error:
                case KeyboardInterrupt():
                    raise KeyboardInterrupt(kept) from None
                case WorkerError():
                    raise type(error)(f"{error}; {kept}") from error.__cause__
            raise


def _finished(
    config: RecordConfig, play: Play, layout: EpisodeFormat, folder: Path, missing: list[int]
) -> Generator[int, None, None]:
    """Record the missing episodes, here or on Ray, and yield their indices as they are in their files."""
    workers = min(config.workers, len(missing))
    if config.ray is None:
        yield from in_workers(partial(_record_one, config, play, layout, folder), missing, workers)
        return
    for index, episode in on_ray(partial(_play_one, config, play, layout), missing, workers, config.ray):
        _keep(episode, folder, index)
        yield index


def _record_one(config: RecordConfig, play: Play, layout: EpisodeFormat, folder: Path, index: int) -> None:
    _keep(_play_one(config, play, layout, index), folder, index)


def _play_one(config: RecordConfig, play: Play, layout: EpisodeFormat, index: int) -> dict[str, np.ndarray]:
    episode = play(config, index)
    layout.check(f"data set {config.dataset}", episode["frames"], episode["actions"], episode)
    return episode


def _keep(episode: dict[str, np.ndarray], folder: Path, index: int) -> None:
    """Put an episode into its file, which appears whole."""
    check_room(folder, sum(array.nbytes for array in episode.values()))
    path = _episode_file(folder, index)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")  # a killed recording's worker may still be at this one
    with temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **episode)
    temporary.rename(path)


def _buffers(config: RecordConfig, folder: Path) -> Iterator[EpisodeBuffer]:
    for index in tqdm(range(config.episodes), desc="writing Minari", unit="episode"):
        with np.load(_episode_file(folder, index)) as file:
            yield _buffer(index, dict(file))


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


def _episode_file(folder: Path, index: int) -> Path:
    return folder / f"episode_{index:06d}.npz"


def _same_configuration(path: Path, wanted: dict[str, Any]) -> None:
    """Refuse to mix two recordings in one folder; who records may differ."""
    if not any(path.parent.glob("episode_*.npz")):  # nothing to mix with
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(wanted), encoding="utf-8")
        temporary.rename(path)
    if (found := json.loads(path.read_text(encoding="utf-8"))) != wanted:
        raise UserError(
            f"{path.parent} holds a recording with the settings {found}; these are {wanted}. Delete the folder, or use "
            "the same settings"
        )


def _is_written(folder: Path, wanted: dict[str, Any]) -> bool:
    """Whether the dataset is there already: the recording was killed when it had but its own files left to remove."""
    if not folder.exists():
        return False
    if MinariStorage.read_raw_metadata(folder / "data").get("worldgym_record") != wanted:
        raise FileExistsError(f"{folder} was written by something else meanwhile; delete it or choose another id")
    return True
