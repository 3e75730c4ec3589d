"""LeRobot data sets (layout v3.0, github.com/huggingface/lerobot): dreams and recordings as one, and training on one.

    write_lerobot(Path("dreams"), "tabletop", episodes)
    minari_to_lerobot("worldgym/tabletop-v0", Path("recorded"))
    lerobot_to_minari(Path("pusht"), "pusht/expert-v0", size=64)   # then: load_episodes("pusht/expert-v0")

Written and read here, because the library itself holds torch below the version that WorldGym is developed with. A row
is `frame_t, action_t, next.reward_t`: an episode of t steps has t rows, and its last frame, which no action follows,
is not in the data set.
"""

import io
import json
import warnings
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import minari
import numpy as np
from minari.data_collector import EpisodeBuffer
from PIL import Image

from .checkpoint import load_config
from .data import load_episodes
from .datasets import DreamedEpisode, episode_buffer, format_of
from .env import DreamEnv
from .episodes import EpisodeFormat, as_floats
from .errors import UserError
from .files import check_room, whole_folder
from .lerobot_files import OUTCOMES, VERSION, LeRobotFiles, Reward, pa, pq
from .listing import find_world
from .storage import new_dataset_folder, write_dataset

DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
CAMERA = "observation.image"
COUNTERS = {"timestamp": "float32", "frame_index": "int64", "episode_index": "int64", "index": "int64",
            "task_index": "int64"}  # fmt: skip


# -- writing -----------------------------------------------------------------------------------------------------------


def write_lerobot(folder: Path, world: str, episodes: Sequence[DreamedEpisode], instruction: str | None = None) -> None:
    """Write dreamed episodes with exact pixels (PNG), under a temporary name until all is written.

    Args:
        folder: must not exist yet.
        world: the bundled name or checkpoint folder of the world that dreamed.
        instruction: the task, whose rewards are "next.reward"; the world's first by default.

    Raises:
        UserError: there are no episodes, they are not of this world, or it does not know the instruction.
        FileExistsError: the folder exists.
    """
    config, _ = load_config(find_world(world))
    layout = format_of(config)

    def parts() -> Iterator[dict[str, np.ndarray]]:
        for number, one in enumerate(episodes):
            said = {name: getattr(one, name) for name in ("rewards", "successes", "terminations")}
            said = episode_buffer(number, one.frames, one.actions, said).infos or {}
            yield layout.check(f"dreams of {config.name}, episode {number}", one.frames, one.actions, said)

    _write(folder, layout, parts(), instruction, {"world": world})


def minari_to_lerobot(dataset_id: str, folder: Path, instruction: str | None = None) -> None:
    """Copy a recording that `load_episodes` reads into a LeRobot data set, with exact pixels (PNG).

    Its "action" is the vector in [-1, 1], whatever the environment takes.

    The positions of things, which the recorders of bundled worlds write, are "observation.state".

    Args:
        folder: must not exist yet.
        instruction: the task, whose rewards are "next.reward"; the recording's first by default.

    Raises:
        FileNotFoundError: there is no such recording.
        UserError: it is none that a world can learn from, or does not know the instruction.
        FileExistsError: the folder exists.
    """
    data = load_episodes(dataset_id)
    layout = EpisodeFormat(
        data.frames.shape[1], data.actions.shape[1], data.instructions, data.phrase_list, data.frames_per_action,
        data.action_space,
    )  # fmt: skip

    def parts() -> Iterator[dict[str, np.ndarray]]:
        recorded = minari.load_dataset(dataset_id).iterate_episodes()
        for first, end, episode in zip(data.starts.tolist(), data.starts[1:].tolist(), recorded, strict=False):
            one = {name: getattr(data, name)[first:end] for name in ("frames", "rewards", "successes", "terminations")}
            one["actions"] = data.actions[first : end - 1]
            if "positions" in episode.infos:
                where = f"data set {dataset_id}, episode {episode.id}"
                positions = np.asarray(episode.infos["positions"])
                one["state"] = as_floats(where, "positions", positions.reshape(len(positions), -1), (end - first, None))
            yield one

    _write(folder, layout, parts(), instruction, {"environment": data.environment})


def _write(
    folder: Path,
    layout: EpisodeFormat,
    episodes: Iterator[dict[str, np.ndarray]],
    instruction: str | None,
    about: dict[str, str],
) -> None:
    """Args:
    episodes: `frames`, `rewards`, `successes`, `terminations`, and `state` [t + 1, k] if there is one, with a row for
        each frame, and `actions` with one less.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} exists; delete it or choose another")
    task = layout.instructions[0] if instruction is None else instruction
    if task not in layout.instructions:
        raise UserError(f"unknown instruction {task!r}; the data know {'; '.join(layout.instructions)}")
    if (first := next(episodes, None)) is None:
        raise UserError("there are no episodes to write")
    features = _features(layout, first["state"].shape[1] if "state" in first else 0)
    fps, column = DreamEnv.metadata["render_fps"], layout.instructions.index(task)
    schema = pa.schema([(name, _arrow(feature)) for name, feature in features.items()])
    lengths: list[int] = []
    figures: dict[str, list[dict[str, np.ndarray]]] = {name: [] for name in features}
    with whole_folder(folder) as temporary:
        path = temporary / DATA.format(chunk_index=0, file_index=0)
        path.parent.mkdir(parents=True)
        with pq.ParquetWriter(path, schema) as writer:
            for number, episode in enumerate(chain([first], episodes)):
                rows = _rows(episode, column, number, sum(lengths), fps)
                lengths.append(len(episode["actions"]))
                for name, values in rows.items():
                    figures[name].append(_sums(values, name == CAMERA))
                pictures = [{"bytes": _png(frame), "path": None} for frame in rows[CAMERA]]
                arrays = [
                    pa.array(pictures, schema.field(name).type) if name == CAMERA else _column(rows[name])
                    for name in features
                ]
                check_room(temporary, sum(array.nbytes for array in arrays))
                writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
        _write_episodes(temporary / EPISODES, task, lengths)
        _write_table(temporary / "meta/tasks.parquet", {"task_index": [0], "task": [task]}, index="task")
        stats = {name: _stats(parts, name == CAMERA) for name, parts in figures.items()}
        info = {
            "codebase_version": VERSION,
            "robot_type": None,
            "total_episodes": len(lengths),
            "total_frames": sum(lengths),
            "total_tasks": 1,
            "chunks_size": 1000,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "fps": fps,
            "splits": {"train": f"0:{len(lengths)}"},
            "data_path": DATA,
            "video_path": None,
            "features": features,
            "worldgym": {
                "phrases": list(layout.phrases),
                "frames_per_action": layout.frames_per_action,
                **({} if layout.actions is None else {"actions": layout.actions}),
                **about,
            },
        }
        (temporary / "meta/stats.json").write_text(json.dumps(stats), encoding="utf-8")
        (temporary / "meta/info.json").write_text(json.dumps(info, indent=1), encoding="utf-8")


def _features(layout: EpisodeFormat, state: int) -> dict[str, dict[str, Any]]:
    """What each column is; a `state` of 0 numbers is no column."""
    side, size = layout.resolution, layout.action_size
    features = {CAMERA: _feature("image", (side, side, 3), ["height", "width", "channels"])}
    if state:
        features["observation.state"] = _feature("float32", (state,), [f"position_{k}" for k in range(state)])
    features |= {
        "action": _feature("float32", (size,), [f"action_{k}" for k in range(size)]),
        "next.reward": _feature("float32", (1,)),
        "next.success": _feature("bool", (1,)),
        "next.done": _feature("bool", (1,)),
    }
    count = len(layout.instructions)
    features |= {name: _feature(kind, (count,), layout.instructions) for name, kind in OUTCOMES.items()}
    return features | {name: _feature(kind, (1,)) for name, kind in COUNTERS.items()}


def _write_episodes(path: Path, task: str, lengths: list[int]) -> None:
    begins = np.cumsum([0, *lengths])
    columns = {
        "episode_index": list(range(len(lengths))),
        "tasks": [[task]] * len(lengths),
        "length": lengths,
        "dataset_from_index": begins[:-1].tolist(),
        "dataset_to_index": begins[1:].tolist(),
    }
    for what in ("data", "meta/episodes"):
        columns |= {f"{what}/{index}": [0] * len(lengths) for index in ("chunk_index", "file_index")}
    _write_table(path, columns)


def _rows(episode: dict[str, np.ndarray], column: int, number: int, begin: int, fps: int) -> dict[str, np.ndarray]:
    count = len(episode["actions"])
    steps = np.arange(count)
    return {
        CAMERA: episode["frames"][:-1],
        **({"observation.state": episode["state"][:-1]} if "state" in episode else {}),
        "action": episode["actions"],
        "next.reward": episode["rewards"][1:, column],
        "next.success": episode["successes"][1:, column],
        "next.done": steps == count - 1,
        "next.rewards": episode["rewards"][1:],
        "next.successes": episode["successes"][1:],
        "next.terminations": episode["terminations"][1:],
        "timestamp": (steps / fps).astype(np.float32),
        "frame_index": steps,
        "episode_index": np.full(count, number),
        "index": begin + steps,
        "task_index": np.zeros(count, np.int64),
    }


def _feature(kind: str, shape: Sequence[int], names: Sequence[str] | None = None) -> dict[str, Any]:
    return {"dtype": kind, "shape": list(shape), "names": None if names is None else list(names)}


def _arrow(feature: dict[str, Any]) -> Any:
    if feature["dtype"] == "image":
        return pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    value = {"float32": pa.float32(), "int64": pa.int64(), "bool": pa.bool_()}[feature["dtype"]]
    (size,) = feature["shape"]
    return value if size == 1 else pa.list_(value, size)


def _png(frame: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(frame).save(stream, "PNG")
    return stream.getvalue()


def _column(values: np.ndarray) -> Any:
    """Numbers or vectors as an array of Arrow's; LeRobot has vectors of one number as numbers."""
    if values.ndim == 1 or values.shape[1] == 1:
        return pa.array(values.reshape(-1))
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def _sums(values: np.ndarray, image: bool) -> dict[str, np.ndarray]:
    """What the figures of a column follow from, of one episode; of images for each channel, in [0, 1]."""
    count = len(values)
    values = values.reshape(-1, values.shape[-1]) / 255.0 if image else values.reshape(count, -1).astype(np.float64)
    squares = (values**2).mean(0)
    return {
        "count": np.array(count),
        "min": values.min(0),
        "max": values.max(0),
        "mean": values.mean(0),
        "squares": squares,
    }


def _stats(parts: list[dict[str, np.ndarray]], image: bool) -> dict[str, list]:
    """What LeRobot's policies normalise by; of images [3, 1, 1]."""
    each = {name: np.stack([part[name] for part in parts]) for name in parts[0]}
    weights = each["count"] / each["count"].sum()
    mean, squares = weights @ each["mean"], weights @ each["squares"]
    std = np.sqrt(np.maximum(squares - mean**2, 0.0))
    figures = {"min": each["min"].min(0), "max": each["max"].max(0), "mean": mean, "std": std}
    shape = (-1, 1, 1) if image else (-1,)
    return {name: figure.reshape(shape).tolist() for name, figure in figures.items()} | {
        "count": [int(each["count"].sum())]
    }


def _write_table(path: Path, columns: dict[str, list], index: str | None = None) -> None:
    """With `index`, a column that pandas takes for the index of its rows: LeRobot looks tasks up by it."""
    table = pa.table(columns)
    if index is not None:
        described = [
            {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": dtype, "metadata": None}
            for name, kind, dtype in (("task_index", "int64", "int64"), (index, "unicode", "object"))
        ]
        pandas = {"index_columns": [index], "column_indexes": [], "columns": described, "pandas_version": "2.0.0"}
        table = table.replace_schema_metadata({"pandas": json.dumps(pandas)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


# -- reading -----------------------------------------------------------------------------------------------------------


def lerobot_to_minari(
    folder: Path,
    dataset_id: str,
    size: int,
    camera: str | None = None,
    reward: Reward = "recorded",
) -> Path:
    """Copy a LeRobot data set into a Minari one that `load_episodes` reads, and return that one's folder.

    Training needs no copy: `load_episodes("lerobot:FOLDER?size=64")` streams the same episodes.

    Args:
        folder: with meta/, data/ and, where the camera is a video, videos/.
        dataset_id: Minari's; must not exist yet.
        size: as `LeRobotFiles` takes it and the next two, of which it also says what becomes of actions and pictures. A
            warning says how pictures were changed.
        camera: the image or video to see.
        reward: where rewards are from.

    Raises:
        UserError: as of `LeRobotFiles`.
    """
    new_dataset_folder(dataset_id)
    found = LeRobotFiles(str(folder), size, camera, reward)

    def buffers() -> Iterator[EpisodeBuffer]:
        for number in range(len(found)):
            yield episode_buffer(number, found.frames(number), *found.told(number))

    about = f"From the LeRobot data set {folder.name}, rewards of every instruction in infos"
    target = write_dataset(dataset_id, buffers(), found.layout, "lerobot", about)
    if found.changes:
        warnings.warn(f"{folder} is copied with changes: {'; '.join(sorted(found.changes))}", stacklevel=2)
    return target
