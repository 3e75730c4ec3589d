"""What all recorders share: episodes played by worker processes, kept one by one, written as a Minari dataset.

Episode i depends on (seed, i) alone, so a recording that was killed resumes where it stood and ends up the
same. Finished episodes wait as files under a temporary name; the Minari dataset appears when all are there.
"""

import json
import multiprocessing
import os
import shutil
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from multiprocessing.connection import Connection, wait
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

from .settings import RecordConfig

Play = Callable[[RecordConfig, int], dict[str, np.ndarray]]
"""Makes episode i. Arrays are indexed by frame, except `actions` with one row less; `frames`, `rewards`, `successes`,
`terminations`, and what else there is."""


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
        wanted = json.loads(json.dumps({key: value for key, value in asdict(config).items() if key != "workers"}))
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
    task = partial(_record_one, config, play, layout, folder)
    with tqdm(total=config.episodes, initial=done, unit="episode", desc="recording") as progress:
        try:
            for _ in in_workers(task, missing, min(config.workers, len(missing))):
                progress.update()
        except BaseException as error:
            finished = len(list(folder.glob("episode_*.npz")))
            kept = f"{finished} of {config.episodes} episodes are kept; the same command records the rest"
            match error:
                case KeyboardInterrupt():
                    raise KeyboardInterrupt(kept) from None
                case WorkerError():
                    raise type(error)(f"{error}; {kept}") from error.__cause__
            raise


def _record_one(config: RecordConfig, play: Play, layout: EpisodeFormat, folder: Path, index: int) -> None:
    """Play an episode, check it, and put it into its file."""
    episode = play(config, index)
    layout.check(f"data set {config.dataset}", episode["frames"], episode["actions"], episode)
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


# -- worker processes ------------------------------------------------------------------------------------------------


class WorkerError(RuntimeError):
    """An error in a worker process; its cause has the worker's traceback."""


class WorkerUserError(WorkerError, UserError):
    """A `WorkerError` that is no bug of the package."""


def in_workers(task: Callable[[int], None], indices: Sequence[int], workers: int) -> Iterator[int]:
    """Call `task` with each of the indices in that many processes, and yield them as they are done.

    The first failure ends it: an exception, which need not be one that can be pickled, or a process that dies. Then,
    and if it is left early, all processes are ended.

    Raises:
        WorkerError: naming the index and what happened; a `WorkerUserError` if `task` raised a `UserError` or an
            `OSError`, or its process died, as it does of a crash in a driver.
    """
    left = iter(indices)
    with ExitStack() as processes:
        at: dict[Connection, tuple[Any, int]] = {}  # each pipe's process, and what it is at
        for _ in range(workers):
            process, pipe = processes.enter_context(_worker(task))
            pipe.send(index := next(left))
            at[pipe] = process, index
        while at:
            ready = wait(list(at))
            for pipe in [one for one in at if one in ready]:
                process, index = at.pop(pipe)
                try:
                    failure = pipe.recv()
                except EOFError:
                    process.join()
                    raise WorkerUserError(_died(index, process.exitcode)) from None
                if failure is not None:
                    kind, message, trace = failure
                    raise kind(f"episode {index}: {message}") from RuntimeError(f"in the worker:\n{trace}")
                yield index
                if (following := next(left, None)) is not None:
                    pipe.send(following)
                    at[pipe] = process, following


@contextmanager
def _worker(task: Callable[[int], None]) -> Iterator[tuple[Any, Connection]]:
    context = multiprocessing.get_context("spawn")  # a forked EGL hangs
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(task, there))
    process.start()
    there.close()  # so that the pipe ends when the process does
    try:
        yield process, here
    except BaseException:
        process.terminate()
        raise
    finally:
        here.close()
        process.join(5)
        process.kill()  # what has not ended by itself
        process.join()


def _work(task: Callable[[int], None], pipe: Connection) -> None:
    """A worker: it ends when its pipe does, so also when the process that records was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that records, which ends its workers
    while True:
        try:
            index = pipe.recv()
        except EOFError:
            return
        failure = None
        try:
            task(index)
        except (Exception, SystemExit) as error:
            kind = WorkerUserError if isinstance(error, (UserError, OSError)) else WorkerError
            told = traceback.TracebackException.from_exception(error)
            message = str(error) if kind is WorkerUserError else "".join(told.format_exception_only()).strip()
            failure = kind, message, "".join(told.format())
        try:
            pipe.send(failure)
        except BrokenPipeError:
            return


def _died(index: int, exit_code: int) -> str:
    how = f"with exit status {exit_code}"
    if exit_code < 0:
        how = f"by {signal.Signals(-exit_code).name}"
    return (
        f"a worker process died {how} while it played episode {index}: the environment or a driver ended it, or the "
        "system did because memory ran out, which fewer --workers avoid"
    )


def _episode_file(folder: Path, index: int) -> Path:
    return folder / f"episode_{index:06d}.npz"


def _same_configuration(path: Path, wanted: dict[str, Any]) -> None:
    """Refuse to mix two recordings in one folder; the number of workers may differ."""
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
