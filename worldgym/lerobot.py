"""LeRobot data sets (layout v3.0, github.com/huggingface/lerobot): dreamed episodes as one, and training on one.

    write_lerobot(Path("dreams"), "tabletop", episodes)
    lerobot_to_minari(Path("pusht"), "pusht/expert-v0", size=64)   # then: load_episodes("pusht/expert-v0")

Written and read here, because the library itself holds torch below the version that WorldGym is developed with. A row
is `frame_t, action_t, next.reward_t`: an episode of t steps has t rows, and its last frame, which no action follows,
is not in the data set.
"""

import io
import json
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import imageio.v3 as imageio
import numpy as np
from minari.data_collector import EpisodeBuffer
from PIL import Image

from .checkpoint import load_config
from .datasets import DreamedEpisode, episode_buffer, free_folder, store
from .env import DreamEnv
from .listing import find_world

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as error:
    raise ImportError('LeRobot data sets are parquet files: pip install "worldgym[lerobot]"') from error

VERSION = "v3.0"
DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
CAMERA = "observation.image"
COUNTERS = {"timestamp": "float32", "frame_index": "int64", "episode_index": "int64", "index": "int64",
            "task_index": "int64"}  # fmt: skip
OUTCOMES = {"next.rewards": "float32", "next.successes": "bool", "next.terminations": "bool"}
"""What the world says of the next frame under each of its instructions; LeRobot has nothing like it."""


# -- writing -----------------------------------------------------------------------------------------------------------


def write_lerobot(folder: Path, world: str, episodes: Sequence[DreamedEpisode], instruction: str | None = None) -> None:
    """Write dreamed episodes with exact pixels (PNG).

    Args:
        folder: must not exist yet.
        world: the bundled name or checkpoint folder of the world that dreamed.
        instruction: the task, whose rewards are "next.reward"; the world's first by default.
    """
    config, _ = load_config(find_world(world))
    if folder.exists():
        raise FileExistsError(f"{folder} exists; delete it or choose another")
    if not episodes:
        raise ValueError("there are no episodes to write")
    task = config.instructions[0] if instruction is None else instruction
    if task not in config.instructions:
        raise ValueError(f"unknown instruction {task!r}; the world judges {'; '.join(config.instructions)}")
    features: dict[str, dict[str, Any]] = {
        CAMERA: _feature("image", episodes[0].frames.shape[1:], ["height", "width", "channels"]),
        "action": _feature("float32", (config.action_size,), [f"action_{k}" for k in range(config.action_size)]),
        "next.reward": _feature("float32", (1,)),
        "next.success": _feature("bool", (1,)),
        "next.done": _feature("bool", (1,)),
    }
    features |= {
        name: _feature(kind, (len(config.instructions),), config.instructions) for name, kind in OUTCOMES.items()
    }
    features |= {name: _feature(kind, (1,)) for name, kind in COUNTERS.items()}

    fps, column = DreamEnv.metadata["render_fps"], config.instructions.index(task)
    schema = pa.schema([(name, _arrow(feature)) for name, feature in features.items()])
    begins = np.cumsum([0, *(len(episode.actions) for episode in episodes)])
    columns: dict[str, list[np.ndarray]] = {name: [] for name in features}
    path = folder / DATA.format(chunk_index=0, file_index=0)
    path.parent.mkdir(parents=True)
    with pq.ParquetWriter(path, schema) as writer:
        for number, episode in enumerate(episodes):
            rows = _rows(episode, column, number, int(begins[number]), fps)
            for name, values in rows.items():
                columns[name].append(values)
            pictures = [{"bytes": _png(frame), "path": None} for frame in rows[CAMERA]]
            arrays = {name: pictures if name == CAMERA else values.tolist() for name, values in rows.items()}
            writer.write_table(pa.table(arrays, schema=schema))

    _write_table(
        folder / EPISODES,
        {
            "episode_index": list(range(len(episodes))),
            "tasks": [[task]] * len(episodes),
            "length": np.diff(begins).tolist(),
            "dataset_from_index": begins[:-1].tolist(),
            "dataset_to_index": begins[1:].tolist(),
            **{f"{what}/{index}": [0] * len(episodes)
               for what in ("data", "meta/episodes") for index in ("chunk_index", "file_index")},
        },
    )  # fmt: skip
    _write_table(folder / "meta/tasks.parquet", {"task_index": [0], "task": [task]}, index="task")
    stats = {name: _stats(np.concatenate(parts), name == CAMERA) for name, parts in columns.items()}
    info = {
        "codebase_version": VERSION,
        "robot_type": None,
        "total_episodes": len(episodes),
        "total_frames": int(begins[-1]),
        "total_tasks": 1,
        "chunks_size": 1000,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": fps,
        "splits": {"train": f"0:{len(episodes)}"},
        "data_path": DATA,
        "video_path": None,
        "features": features,
        "worldgym": {"phrases": list(config.phrases), "frames_per_action": config.frames_per_action, "world": world},
    }
    (folder / "meta/stats.json").write_text(json.dumps(stats))
    (folder / "meta/info.json").write_text(json.dumps(info, indent=1))  # last: without it there is no data set


def _rows(episode: DreamedEpisode, column: int, number: int, begin: int, fps: int) -> dict[str, np.ndarray]:
    count = len(episode.actions)
    steps = np.arange(count)
    return {
        CAMERA: episode.frames[:-1],
        "action": episode.actions,
        "next.reward": episode.rewards[1:, column],
        "next.success": episode.successes[1:, column],
        "next.done": steps == count - 1,
        "next.rewards": episode.rewards[1:],
        "next.successes": episode.successes[1:],
        "next.terminations": episode.terminations[1:],
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


def _stats(values: np.ndarray, image: bool) -> dict[str, list]:
    """What LeRobot's policies normalise by; of images for each channel, [3, 1, 1], in [0, 1]."""
    count = len(values)
    values = values.astype(np.float64)
    values = values.reshape(-1, values.shape[-1]) / 255.0 if image else values.reshape(count, -1)
    shape = (-1, 1, 1) if image else (-1,)
    figures = {name: getattr(values, name)(0).reshape(shape).tolist() for name in ("min", "max", "mean", "std")}
    return figures | {"count": [count]}


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
    reward: Literal["recorded", "end"] = "recorded",
) -> Path:
    """Copy a LeRobot data set into a Minari one that `load_episodes` reads, and return that one's folder.

    Actions are scaled by their greatest magnitude, dimension by dimension, into [-1, 1].

    Args:
        folder: with meta/, data/ and, where the camera is a video, videos/.
        dataset_id: Minari's; must not exist yet.
        size: frames become size x size pixels; exact where they are that already.
        camera: the image or video to see; may be left out where there is one alone.
        reward: "recorded": the columns that `write_lerobot` wrote, or "next.reward" and "next.success" of a data set
            with one task. "end": demonstrations: the last frame of each is worth 1 and a success, the others 0.

    Raises:
        ValueError: another layout, no or several cameras, several tasks, no rewards.
    """
    info = _read_info(folder)
    target = free_folder(dataset_id)
    features = info["features"]
    cameras = [name for name, feature in features.items() if feature["dtype"] in ("image", "video")]
    if camera is None and len(cameras) == 1:
        camera = cameras[0]
    if camera is None or camera not in cameras:
        raise ValueError(f"camera is {camera!r}; {folder} has {', '.join(cameras) or 'none'}")
    ours = set(OUTCOMES) <= set(features) and reward == "recorded"
    instructions = list(features["next.rewards"]["names"]) if ours else _single_task(folder)
    if not ours and reward == "recorded" and not {"next.reward", "next.success"} <= set(features):
        raise ValueError(
            f"{folder} has no next.reward and next.success, but {', '.join(features)}; if its episodes are "
            "demonstrations that end in success, reward='end'"
        )

    table = pa.concat_tables([pq.read_table(path) for path in sorted((folder / "data").glob("*/*.parquet"))])
    actions = np.stack(table["action"].to_numpy()).astype(np.float32)
    actions /= np.maximum(np.abs(actions).max(0), 1e-6)
    buffers: list[EpisodeBuffer] = []
    for row in _read_episodes(folder):
        here = slice(row["dataset_from_index"], row["dataset_to_index"])
        if row["length"] < 2:
            continue  # no step leads from a frame to another
        part = table.slice(here.start, row["length"])
        frames: Iterator[Image.Image]
        if features[camera]["dtype"] == "image":
            frames = (Image.open(io.BytesIO(picture["bytes"])) for picture in part[camera].to_pylist())
        else:
            frames = _video(folder, info, camera, row)
        pictures = np.stack([_fit(frame, size) for frame in frames])
        if len(pictures) != row["length"]:
            raise ValueError(f"episode {row['episode_index']} has {row['length']} rows and {len(pictures)} frames")
        buffers.append(episode_buffer(len(buffers), pictures, actions[here][:-1], _outcomes(part, ours, reward)))
    known = info.get("worldgym", {})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "env_spec is None", UserWarning)  # nobody can make the robot again
        store(
            dataset_id, buffers, (size, size, 3), actions.shape[1],
            instructions, known.get("phrases", []), known.get("frames_per_action", 1),
            algorithm_name="lerobot",
            description=f"From the LeRobot data set {folder.name}, rewards of every instruction in infos",
        )  # fmt: skip
    return target


def _read_info(folder: Path) -> dict[str, Any]:
    path = folder / "meta/info.json"
    if not path.exists():
        raise FileNotFoundError(f"{folder} is no LeRobot data set: it has no meta/info.json")
    info = json.loads(path.read_text())
    if info["codebase_version"] != VERSION:
        raise ValueError(
            f"{folder} has layout {info['codebase_version']}; this release reads {VERSION}. LeRobot converts it: "
            "python -m lerobot.datasets.v30.convert_dataset_v21_to_v30"
        )
    return info


def _read_episodes(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted((folder / "meta/episodes").glob("*/*.parquet")):
        yield from pq.read_table(path).to_pylist()


def _single_task(folder: Path) -> list[str]:
    tasks = sorted({task for row in _read_episodes(folder) for task in row["tasks"]})
    if len(tasks) != 1:
        raise ValueError(
            f"{folder} has {len(tasks)} tasks ({'; '.join(tasks[:3])}; ...) and says of each frame what it is worth "
            "for one of them only; a world judges every frame by all its instructions: split it by task"
        )
    return tasks


def _video(folder: Path, info: dict[str, Any], camera: str, row: dict[str, Any]) -> Iterator[Image.Image]:
    key = f"videos/{camera}"
    path = folder / info["video_path"].format(
        video_key=camera, chunk_index=row[f"{key}/chunk_index"], file_index=row[f"{key}/file_index"]
    )
    first = round(row[f"{key}/from_timestamp"] * info["fps"])
    for count, frame in enumerate(imageio.imiter(path, plugin="FFMPEG")):
        if count >= first + row["length"]:
            return
        if count >= first:
            yield Image.fromarray(frame)


def _fit(frame: Image.Image, size: int) -> np.ndarray:
    frame = frame.convert("RGB")
    return np.asarray(frame if frame.size == (size, size) else frame.resize((size, size), Image.Resampling.BOX))


def _outcomes(part: Any, ours: bool, reward: str) -> dict[str, np.ndarray]:
    """Rewards, successes and terminations [t, m] of the t frames of an episode; nothing is known of the first."""
    count = len(part)
    if ours:
        told = [np.stack(part[name].to_numpy(zero_copy_only=False)) for name in OUTCOMES]
    elif reward == "recorded":
        success = part["next.success"].to_numpy(zero_copy_only=False)[:, None]
        told = [part["next.reward"].to_numpy()[:, None], success, success]
    else:
        end = (np.arange(count) == count - 2)[:, None]  # the step that leads to the last frame
        told = [end, end, end]
    rewards, successes, terminations = (np.concatenate([np.zeros_like(v[:1]), v[:-1]]) for v in told)
    return {
        "rewards": rewards.astype(np.float32),
        "successes": successes.astype(bool),
        "terminations": terminations.astype(bool),
    }
