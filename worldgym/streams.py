"""Data sets that are read piece by piece while training goes on, because memory does not hold them.

A piece holds episodes: a shard, or an episode of a LeRobot data set. Those that were asked for last are in memory, and
the next ones are fetched before they are needed.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Any, Protocol, runtime_checkable

import numpy as np

from .errors import UserError

LEROBOT = "lerobot:"
"""Begins the name of a LeRobot data set."""
DRAWN = 4
"""Frames of an episode for which an epoch draws it once. Stretches overlap, so that a piece that was fetched serves
several batches."""
WINDOW = 256 * 2**20
"""Bytes of shards that a reader keeps in memory, and that training shuffles."""
AHEAD = 2
"""Further pieces that training fetches before it needs them, besides those of the next batch."""
SPLITS = ("train", "validation", "test")


def split_of(episode: int) -> str:
    """Of every 20 episodes, 18 train, one validates and one tests."""
    return {18: "validation", 19: "test"}.get(episode % 20, "train")


def is_streamed(dataset: str) -> bool:
    """Whether it names shards or a LeRobot data set, not a Minari data set."""
    return "://" in dataset or dataset.startswith(LEROBOT)


def filesystem_of(url: str) -> tuple[Any, str]:
    """The fsspec filesystem of a URL or a folder, and the path within it."""
    from fsspec.core import url_to_fs

    try:
        return url_to_fs(url)
    except (ValueError, ImportError) as error:  # fsspec does not know the protocol, or lacks the package for it
        raise UserError(f"{url} cannot be opened: {error}") from None


@runtime_checkable
class Piece(Protocol):
    """What memory holds of a piece."""

    def read(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Rows of a part by their numbers within the piece, int [n]."""
        ...


class Stream:
    """The pieces of a data set.

    Args:
        lengths: of each piece the frames of its episodes.
        splits: of each piece.
        parts: by name, the type of a row, such as np.dtype((np.uint8, (64, 64, 3))).
        window: pieces that training shuffles at a time.
    """

    def __init__(
        self, lengths: Sequence[Sequence[int]], splits: Sequence[str], parts: dict[str, np.dtype], window: int
    ):
        counts = [len(one) for one in lengths]
        self.parts, self.window = parts, max(2, window)
        self.lengths = np.concatenate([np.asarray(one) for one in lengths])
        self.piece_of = np.repeat(np.arange(len(counts)), counts)
        """Of each episode; episodes are in the order of the pieces."""
        self.starts = np.concatenate([[0], np.cumsum(self.lengths)])
        self.firsts = self.starts[np.concatenate([[0], np.cumsum(counts)])]
        """The first row of each piece."""
        self._splits = np.asarray(splits)
        self._held: OrderedDict[int, Future[Piece]] = OrderedDict()
        self._makers: dict[str, Callable[[np.ndarray], np.ndarray]] = {}
        self._made: dict[tuple[int, str], np.ndarray] = {}
        self._room = self.window + AHEAD + 1
        """Pieces that are held; as many as a batch and the next one need."""
        self._lock, self._pool = Lock(), ThreadPoolExecutor(4, "stream")

    def load(self, number: int) -> Piece:
        """Read a piece, in a thread of its own."""
        raise NotImplementedError

    @property
    def reward_variance(self) -> np.ndarray:
        """Float [m], under each instruction."""
        raise NotImplementedError

    def rows(self, name: str) -> "Rows":
        return Rows(self, name)

    def derived(self, name: str, row: np.dtype, make: Callable[[np.ndarray], np.ndarray]) -> "Rows":
        """A further part, made of all frames of a piece when it is first asked for, and forgotten with the piece."""
        self.parts[name], self._makers[name] = row, make
        return Rows(self, name)

    def episodes(self, split: str) -> np.ndarray:
        """Of a split, by number."""
        return np.flatnonzero((self._splits == split)[self.piece_of])

    def fetch(self, numbers: Sequence[int]) -> "list[Future[Piece]]":
        """Begin to fetch pieces; those that were not asked for the longest are forgotten."""
        with self._lock:
            for number in numbers:
                if number not in self._held:
                    self._held[number] = self._pool.submit(self.load, number)
                self._held.move_to_end(number)
            found = [self._held[number] for number in numbers]
            self._room = max(self._room, len(numbers))
            while len(self._held) > self._room:
                forgotten, _ = self._held.popitem(last=False)
                for name in self._makers:
                    self._made.pop((forgotten, name), None)
        return found

    def read(self, number: int, name: str, rows: np.ndarray) -> np.ndarray:
        """Rows of a part by their numbers within a piece."""
        held = self._held.get(number)  # as nearly always: whoever reads many rows has fetched their pieces
        piece = (held or self.fetch([number])[0]).result()
        if name not in self._makers:
            return piece.read(name, rows)
        if (number, name) not in self._made:
            frames = piece.read("frames", np.arange(self.firsts[number + 1] - self.firsts[number]))
            self._made[number, name] = self._makers[name](frames)
        return self._made[number, name][rows]


class Rows:
    """A part of all episodes, by row, as a numpy array has it: `rows[i]`, `rows[3:7]`, `rows[indices]`."""

    def __init__(self, stream: Stream, name: str):
        self.stream, self.name, self.row = stream, name, stream.parts[name]
        self.shape = (int(stream.starts[-1]), *self.row.shape)
        self.dtype = self.row.base

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        wanted = np.arange(*key.indices(len(self))) if isinstance(key, slice) else np.asarray(key)
        flat = wanted.ravel()
        if flat.dtype.kind not in "iu" and flat.size:
            raise IndexError(f"rows are asked for by {flat.dtype}; expected whole numbers")
        if flat.size and not (-len(self) <= flat.min() and flat.max() < len(self)):
            raise IndexError(f"rows {flat.min()} to {flat.max()} of {len(self)}")
        flat = np.where(flat < 0, flat + len(self), flat)
        found = np.empty((len(flat), *self.shape[1:]), self.dtype)
        pieces = list(groups(np.searchsorted(self.stream.firsts, flat, side="right") - 1))
        self.stream.fetch([number for number, _ in pieces[: self.stream.window]])
        for number, here in pieces:
            found[here] = self.stream.read(number, self.name, flat[here] - self.stream.firsts[number])
        return found.reshape(*wanted.shape, *self.shape[1:])


def groups(numbers: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Each number that occurs, and where."""
    order = np.argsort(numbers, kind="stable")
    values, begins = np.unique(numbers[order], return_index=True)
    yield from zip(values.tolist(), np.split(order, begins)[1:], strict=True)
