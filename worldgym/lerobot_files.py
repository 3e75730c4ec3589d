"""LeRobot data sets (layout v3.0, github.com/huggingface/lerobot) as they lie, read an episode at a time.

    lerobot:runs/pusht
    lerobot:hf://datasets/user/name?camera=observation.images.top&size=96&reward=end

Numbers are read at once, pictures when they are asked for: of a video, only the part that shows the episode.
"""

import io
import json
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, get_args
from urllib.parse import parse_qsl

import numpy as np
from PIL import Image

from .episodes import EpisodeFormat, as_floats, as_frames, check_resolution
from .errors import UserError
from .streams import LEROBOT, Stream, filesystem_of, split_of

try:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
except ImportError as error:
    raise ImportError('LeRobot data sets are parquet files: pip install "worldgym[lerobot]"') from error

VERSION = "v3.0"
OUTCOMES = {"next.rewards": "float32", "next.successes": "bool", "next.terminations": "bool"}
"""What the world says of the next frame under each of its instructions; LeRobot has nothing like it."""
Reward = Literal["recorded", "end"]


class LeRobotFiles:
    """The episodes of a LeRobot data set that have at least two rows.

    Actions are scaled by their greatest magnitude, dimension by dimension, into [-1, 1]; vectors of another action
    space, as `minari_to_lerobot` writes them, stay as they are. Of pictures that are not square, the square in the
    middle is kept.

    Args:
        url: of what has meta/, data/ and, where the camera is a video, videos/; a folder, or any that fsspec knows.
        size: frames become size x size pixels; exact where they are that already.
        camera: the image or video to see; may be left out where there is one alone.
        reward: "recorded": the columns that `write_lerobot` wrote, or "next.reward" and "next.success" of a data set
            with one task. "end": demonstrations: the last frame of each is worth 1 and a success, the others 0.

    Raises:
        FileNotFoundError: there is none.
        UserError: another layout, no or several cameras, several tasks, no rewards, or numbers that are not finite.
    """

    def __init__(self, url: str, size: int, camera: str | None = None, reward: Reward = "recorded"):
        check_resolution(size)
        self.url, (self.filesystem, self.root) = url, filesystem_of(url)
        self.info = self._info()
        features = self.info["features"]
        self.camera, self.size = _camera(url, features, camera), size
        self.changes: set[str] = set()
        """What was done to the data, a sentence each; of pictures, to those that were read so far."""
        rows, known = self._episodes(), self.info.get("worldgym", {})
        self.rows = [row for row in rows if row["length"] > 1]
        if len(self.rows) < len(rows):
            self.changes.add("episodes of one row, in which no step leads from a frame to another, are left out")
        recorded, self.files = _reward_columns(url, features, reward), self._paths("data")
        instructions = features["next.rewards"]["names"] if "next.rewards" in recorded else _single_task(url, rows)
        tables = self._tables(self.files, ["action", *recorded])
        self._begins = np.cumsum([0, *map(len, tables)])
        table = pa.concat_tables(tables, promote_options="permissive")
        self._told, actions = [_vectors(url, table, name) for name in recorded], _vectors(url, table, "action")
        for row in rows:
            self._check(row, actions)
        described = known.get("actions")  # of another action space, as which they are in [-1, 1] already
        scale = np.maximum(np.abs(actions).max(0), 1e-6) if described is None else np.ones(actions.shape[1])
        self._actions = (actions / scale).astype(np.float32)
        self.layout = EpisodeFormat(
            size, actions.shape[1], tuple(instructions), tuple(known.get("phrases", ())),
            known.get("frames_per_action", 1), described,
        )  # fmt: skip

    def _check(self, row: dict[str, Any], actions: np.ndarray) -> None:
        where, end = self.where(row), row["dataset_to_index"]
        if end > len(actions) or end - row["dataset_from_index"] != row["length"]:
            raise UserError(
                f"{where}: rows to {end} are its {row['length']}, by meta/episodes; there are {len(actions)}"
            )
        as_floats(where, "actions", actions[row["dataset_from_index"] : end], (None, actions.shape[1]))

    def __len__(self) -> int:
        return len(self.rows)

    def where(self, row: dict[str, Any]) -> str:
        """Names an episode in errors."""
        return f"data set {self.url}, episode {row['episode_index']}"

    def told(self, number: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Actions [t, a] of an episode; rewards, successes and terminations [t + 1, m]. Nothing is known of the first
        frame."""
        row = self.rows[number]
        here = slice(row["dataset_from_index"], row["dataset_to_index"])
        told = [values[here] for values in self._told]
        if not told:  # a demonstration
            end = (np.arange(row["length"]) == row["length"] - 2)[:, None]  # the step that leads to the last frame
            told = [end.astype(np.float32), end, end]
        elif len(told) == 2:
            told.append(told[1])
        shifted = (np.concatenate([np.zeros_like(values[:1]), values[:-1]]) for values in told)
        return self._actions[here][:-1], dict(zip(("rewards", "successes", "terminations"), shifted, strict=True))

    def frames(self, number: int, most: int | None = None) -> np.ndarray:
        """What the camera saw of an episode, uint8 [t + 1, size, size, 3]; with `most`, the first of it only."""
        row = self.rows[number]
        frames = list(islice(self._pictures(row), most))
        if len(frames) != (row["length"] if most is None else most):
            raise UserError(f"{self.where(row)}: it has {row['length']} rows and {len(frames)} frames")
        return np.stack(frames)

    # -- files ---------------------------------------------------------------------------------------------------------

    def _info(self) -> dict[str, Any]:
        try:
            info = json.loads(self.filesystem.cat_file(f"{self.root}/meta/info.json"))
        except FileNotFoundError:
            raise FileNotFoundError(f"{self.url} is no LeRobot data set: it has no meta/info.json") from None
        if info["codebase_version"] != VERSION:
            raise UserError(
                f"{self.url} has layout {info['codebase_version']}; this release reads {VERSION}. LeRobot converts it: "
                "python -m lerobot.datasets.v30.convert_dataset_v21_to_v30"
            )
        return info

    def _episodes(self) -> list[dict[str, Any]]:
        """Of each, where its rows and its part of the video are. LeRobot also has many figures of each there."""
        key = f"videos/{self.camera}"
        columns = ["episode_index", "tasks", "length", "dataset_from_index", "dataset_to_index"]
        if self.info["features"][self.camera]["dtype"] == "video":
            columns += [f"{key}/chunk_index", f"{key}/file_index", f"{key}/from_timestamp"]
        tables = self._tables(self._paths("meta/episodes"), columns)
        return pa.concat_tables(tables, promote_options="permissive").to_pylist()

    def _paths(self, under: str) -> list[str]:
        found = sorted(self.filesystem.glob(f"{self.root}/{under}/*/*.parquet"))
        if not found:
            raise UserError(f"{self.url} has no {under}/chunk-000/file-000.parquet, nor any other file there")
        return found

    def _tables(self, paths: list[str], columns: list[str]) -> list[Any]:
        def read(path: str) -> Any:
            with self.filesystem.open(path) as file:
                parquet = pq.ParquetFile(file)
                if missing := set(columns) - set(parquet.schema_arrow.names):
                    raise UserError(f"{self.url}: {path} has no {', '.join(sorted(missing))}")
                return parquet.read(columns)

        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(read, paths))

    # -- pictures ------------------------------------------------------------------------------------------------------

    def _pictures(self, row: dict[str, Any]) -> Iterator[np.ndarray]:
        stored = self.info["features"][self.camera]["dtype"] == "image"
        for picture in self._stored(row) if stored else self._filmed(row):
            yield self._fit(self.where(row), picture)

    def _stored(self, row: dict[str, Any]) -> Iterator[np.ndarray]:
        """From the groups of rows that have the episode, in as many files as it takes."""
        first, end = row["dataset_from_index"], row["dataset_to_index"]
        for path, begin, stop in zip(self.files, self._begins.tolist(), self._begins[1:].tolist(), strict=False):
            if stop <= first or begin >= end:
                continue
            with self.filesystem.open(path) as file:
                parquet = pq.ParquetFile(file)
                for group in range(parquet.num_row_groups):
                    count = parquet.metadata.row_group(group).num_rows
                    if first < begin + count and begin < end:
                        part = parquet.read_row_group(group, [self.camera])[self.camera]
                        here = part.slice(max(first - begin, 0), min(end, begin + count) - max(first, begin))
                        for picture in here.to_pylist():
                            image = Image.open(io.BytesIO(picture["bytes"]))
                            yield np.asarray(image.convert("RGB") if image.mode == "P" else image)
                    begin += count

    def _filmed(self, row: dict[str, Any]) -> Iterator[np.ndarray]:
        """From the key frame before the episode on."""
        try:
            import av
        except ImportError as error:
            raise ImportError('LeRobot\'s videos are decoded by PyAV: pip install "worldgym[lerobot]"') from error

        key, fps = f"videos/{self.camera}", self.info["fps"]
        path = self.info["video_path"].format(
            video_key=self.camera, chunk_index=row[f"{key}/chunk_index"], file_index=row[f"{key}/file_index"]
        )
        begin = row[f"{key}/from_timestamp"]
        try:
            with self.filesystem.open(f"{self.root}/{path}") as file, av.open(file) as video:
                shown = video.streams.video[0]
                shown.codec_context.thread_count = 1  # episodes are decoded side by side
                video.seek(int((begin - 0.5 / fps) / shown.time_base), stream=shown)
                wanted = 0
                for frame in video.decode(shown):
                    number = round((frame.time - begin) * fps)
                    if number >= row["length"]:
                        return
                    if number >= 0:
                        if number != wanted:
                            raise UserError(f"{self.where(row)}: {path} shows frame {number} of it after {wanted - 1}")
                        yield frame.to_ndarray(format="rgb24")
                        wanted += 1
        except FileNotFoundError:
            raise UserError(f"{self.where(row)}: {path} is missing") from None
        except av.FFmpegError as error:
            raise UserError(f"{self.where(row)}: {path} cannot be decoded: {error}") from None

    def _fit(self, where: str, picture: np.ndarray) -> np.ndarray:
        """A picture as uint8 [size, size, 3]; what had to be done to it but for resizing is added to `changes`."""
        (square,), done = as_frames(where, picture[None], 255.0)
        self.changes |= set(done)
        if len(square) == self.size:
            return square
        return np.asarray(Image.fromarray(square).resize((self.size, self.size), Image.Resampling.BOX))


def _camera(url: str, features: dict[str, Any], camera: str | None) -> str:
    cameras = [name for name, feature in features.items() if feature["dtype"] in ("image", "video")]
    if camera is None and len(cameras) == 1:
        return cameras[0]
    if camera is None or camera not in cameras:
        raise UserError(f"camera is {camera!r}; {url} has {', '.join(cameras) or 'none'}")
    return camera


def _reward_columns(url: str, features: dict[str, Any], reward: Reward) -> list[str]:
    """Which of the columns say what each next frame is worth; none of demonstrations."""
    if "action" not in features:
        raise UserError(f"{url} has no action, but {', '.join(features)}")
    if reward == "end":
        return []
    found = next(
        (names for names in (list(OUTCOMES), ["next.reward", "next.success"]) if set(names) <= set(features)), None
    )
    if found is None:
        raise UserError(
            f"{url} has no next.reward and next.success, but {', '.join(features)}; if its episodes are "
            "demonstrations that end in success, reward='end', or ?reward=end after its URL"
        )
    return found


def _single_task(url: str, rows: list[dict[str, Any]]) -> list[str]:
    tasks = sorted({task for row in rows for task in row["tasks"]})
    if len(tasks) != 1:
        raise UserError(
            f"{url} has {len(tasks)} tasks ({'; '.join(tasks[:3])}; ...) and says of each frame what it is worth "
            "for one of them only; a world judges every frame by all its instructions: split it by task"
        )
    return tasks


def _vectors(url: str, table: Any, name: str) -> np.ndarray:
    """A column of numbers or of vectors, [t, n]; LeRobot has vectors of one number as numbers."""
    column = table[name]
    if column.null_count:
        raise UserError(f"{url} has rows without {name}")
    if not hasattr(column.type, "value_type"):
        return column.to_numpy()[:, None]
    if len(sizes := pc.unique(pc.list_value_length(column)).to_pylist()) > 1:
        raise UserError(f"{url} has {name} of {sorted(sizes)} numbers; expected as many in every row")
    return pc.list_flatten(column).to_numpy().reshape(len(column), -1)


# -- as a stream -------------------------------------------------------------------------------------------------------


DECODED = 512 * 2**20
"""Bytes of decoded episodes that a reader keeps in memory, and that training shuffles."""


def read_name(name: str) -> LeRobotFiles:
    """Open `lerobot:URL?camera=NAME&size=64&reward=end`; what follows the question mark may be left out.

    Raises:
        UserError: it asks for something else.
    """
    url, _, query = name.removeprefix(LEROBOT).partition("?")
    asked = dict(parse_qsl(query, keep_blank_values=True))
    size, camera, reward = asked.pop("size", "64"), asked.pop("camera", None), asked.pop("reward", "recorded")
    if asked or not size.isdecimal() or reward not in get_args(Reward):
        raise UserError(
            f"{name} asks for {query}; expected {LEROBOT}{url}?camera=NAME&size=64&reward=end, where size is a whole "
            f"number of pixels and reward is {' or '.join(get_args(Reward))}, and each may be left out"
        )
    return LeRobotFiles(url, int(size), camera, reward)  # type: ignore[arg-type]  # checked above


class LeRobotStream(Stream):
    """A LeRobot data set whose pieces are its episodes, decoded. It warns of what is done to pictures.

    Args:
        name: as `read_name` takes it.
    """

    def __init__(self, name: str):
        self.files = files = read_name(name)
        lengths, row = [one["length"] for one in files.rows], np.dtype((np.uint8, (files.size, files.size, 3)))
        if not lengths:
            raise UserError(f"{name} has no episodes of two rows or more")
        splits = [split_of(number) for number in range(len(files))]
        window = int(DECODED / (row.itemsize * np.mean(lengths)))
        super().__init__([[length] for length in lengths], splits, {"frames": row}, window)
        self.numbers = self._numbers()
        """By name, all parts of all episodes but the frames."""
        files.frames(0, most=1)  # which says at once what cannot be read
        if files.changes:
            warnings.warn(f"{name} is read with changes: {'; '.join(sorted(files.changes))}", stacklevel=4)

    @property
    def reward_variance(self) -> np.ndarray:
        return self.numbers["rewards"].var(0)

    def load(self, number: int) -> "_Decoded":
        return _Decoded(self.files.frames(number))

    def _numbers(self) -> dict[str, Any]:
        layout, found = self.files.layout, []
        for number, row in enumerate(self.files.rows):
            actions, told = self.files.told(number)
            unseen = np.broadcast_to(np.uint8(0), (row["length"], *self.parts["frames"].shape))
            unsaid = {
                "sentences": np.full((row["length"], 1), -1, np.int16),
                "sentence_actions": np.zeros((row["length"], 1, layout.action_size), np.float32),
            }
            part = layout.check(self.files.where(row), unseen, actions, told | unsaid)
            part["actions"] = np.concatenate([part["actions"], part["actions"][-1:]])
            found.append(part)
        return {name: np.concatenate([part[name] for part in found]) for name in found[0] if name != "frames"}


@dataclass(frozen=True)
class _Decoded:
    pictures: np.ndarray

    def read(self, name: str, rows: np.ndarray) -> np.ndarray:
        return self.pictures[rows]
