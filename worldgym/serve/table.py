"""One batch of dreams that many sessions share, a row each. Knows no network.

    table = Table(options, capacity=64)
    row = table.seat()
    table.answer([(row, {"op": "reset", "seed": 3})])
    table.answer([(row, {"op": "step", "action": action}), ...])      one batched step for all who ask
    table.leave(row)

What cannot be done is answered to the session that asked, and changes nothing.
"""

import hmac
import secrets
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from ..dreams import DreamBatch, DreamOptions, Dreams
from ..env import row as row_of
from ..env import to_numpy
from ..spaces import read_seed
from .wire import told

Request = tuple[int, dict[str, Any]]
"""(row, message)."""
TAKES: dict[str, tuple[str, ...]] = {
    "hello": (),
    "reset": ("seed", "frames", "actions", "instruction"),
    "step": ("action",),
    "render": (),
    "snapshot": (),
    "restore": ("snapshot",),
}
"""What each operation takes; only `step` and `restore` need theirs."""
MOST_FRAMES = 64
"""That a reset may bring: all are looked at, while the others wait."""
LONGEST_SENTENCE = 1000
"""Characters. The world reads the first 48 tokens, but all of them would be cut into tokens."""


class Table:
    """Dreams with a row for each session.

    Args:
        capacity: sessions at most.
        max_episode_steps: actions after which an episode is truncated; None for no limit.
    """

    def __init__(self, options: DreamOptions, capacity: int, max_episode_steps: int | None = None):
        self.dreams = Dreams(capacity, options, max_episode_steps)
        self.dreams.reset(seeds=range(capacity))
        self._fresh = self.dreams.instructions[0], bool(self.dreams.chosen[0])
        self._free = list(range(capacity))[::-1]
        self._begun = np.zeros(capacity, bool)
        """Whether the session of each row has reset it."""
        self._key = secrets.token_bytes(32)
        """Of the server's own snapshots. Others are not taken: a forged one could stop the batch that it joins."""

    @property
    def seats(self) -> int:
        """Sessions that may still come."""
        return len(self._free)

    def seat(self) -> int:
        """A row for a new session, which has to reset it. Needs a free seat."""
        return self._free.pop()

    def leave(self, row: int) -> None:
        """The session of this row has ended; the next one finds nothing of it."""
        dreams = self.dreams
        dreams.randoms[row], dreams.instructions[row], dreams.chosen[row] = None, *self._fresh
        self._begun[row] = False
        self._free.append(row)

    def answer(self, requests: Sequence[Request]) -> list[dict[str, Any]]:
        """What came of each request, of which a row may have one: an answer, or an error."""
        answers: dict[int, dict[str, Any]] = {}
        moves: dict[int, np.ndarray | str] = {}
        begins: dict[int, dict[str, Any]] = {}
        for row, message in requests:
            try:
                operation = self._operation(message)
                if operation == "step":
                    moves[row] = self._action(row, message)
                elif operation == "reset" and set(message) <= {"seed"}:
                    begins[row] = {"seed": read_seed(message.get("seed"))}
                else:
                    answers[row] = getattr(self, f"_{operation}")(row, **message)
            except Exception as error:
                answers[row] = told(_users(error))
        if begins:
            answers |= self._begin(begins)
        if moves:
            answers |= self._step(moves)
        return [answers[row] for row, _ in requests]

    # -- the operations ---------------------------------------------------------------------------------------------

    def _hello(self, row: int) -> dict[str, Any]:
        dreams, config = self.dreams, self.dreams.world.config
        space = dreams.observation_space
        boxes = space.spaces if isinstance(space, gym.spaces.Dict) else {"": space}
        return {
            "world": config.name,
            "action_mode": dreams.options.action_mode,
            "codec": config.actions,
            "action_size": config.action_size,
            "phrases": dreams.phrases,
            "instructions": list(config.instructions),
            "observation": {
                key: [float(box.low.min()), float(box.high.max()), list(box.shape), box.dtype.str]
                for key, box in boxes.items()
                if isinstance(box, gym.spaces.Box)
            },
            "max_episode_steps": dreams.max_episode_steps,
        }

    def _reset(self, row: int, seed: Any = None, frames: Any = None, actions: Any = None, instruction: Any = None):
        dreams, count = self.dreams, len(self.dreams)
        seeds = [read_seed(seed) if place == row else None for place in range(count)]
        if instruction is not None and not isinstance(instruction, str):
            raise TypeError(f"instruction is {type(instruction).__name__}; expected a string")
        shown = None if frames is None else np.asarray(frames)
        if shown is not None and shown.ndim and len(shown) > MOST_FRAMES:
            raise ValueError(f"got {len(shown)} frames; a dream that is served begins from {MOST_FRAMES} at most")
        past = None if actions is None else dreams.read_past(actions)
        dreams.reset(
            self._only([row]),
            seeds,
            frames=None if shown is None else np.broadcast_to(shown, (count, *shown.shape)),
            actions=None if past is None else np.broadcast_to(past, (count, *past.shape)),
            instructions=None if instruction is None else [instruction] * count,
        )
        self._begun[row] = True
        return {"observation": self._seen([row])[0], "info": dreams.first_info}

    def _begin(self, begins: dict[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
        """All who reset without more ado, in one batch. Should one fail, as in a world without starts, each alone."""
        rows = sorted(begins)
        try:
            self.dreams.reset(self._only(rows), [begins.get(row, {}).get("seed") for row in range(len(self.dreams))])
        except ValueError as error:
            if len(rows) == 1:
                return {rows[0]: told(error)}
            return {row: answer for row in rows for answer in self._begin({row: begins[row]}).values()}
        self._begun[rows] = True
        seen = zip(rows, self._seen(rows), strict=True)
        return {row: {"observation": observation, "info": self.dreams.first_info} for row, observation in seen}

    def _render(self, row: int) -> dict[str, Any]:
        self._check_begun(row)
        return {"frame": self._part([row]).render()[0].cpu().numpy()}

    def _snapshot(self, row: int) -> dict[str, Any]:
        self._check_begun(row)
        blob = self.dreams.select([row]).snapshot()
        return {"snapshot": self._signed(blob) + blob}

    def _restore(self, row: int, snapshot: Any) -> dict[str, Any]:
        if not isinstance(snapshot, bytes):
            raise TypeError(f"the snapshot is {type(snapshot).__name__}; expected bytes")
        sign, blob = snapshot[:32], snapshot[32:]
        if not hmac.compare_digest(sign, self._signed(blob)):
            raise ValueError(f"these {len(snapshot)} bytes are no snapshot of this server since it was started")
        single = self.dreams.select([row])
        single.restore(blob)
        self.dreams.put([row], single)
        self._begun[row] = True
        return {}

    def _step(self, moves: dict[int, np.ndarray | str]) -> dict[int, dict[str, Any]]:
        """All who move, in one batch."""
        dreams, rows = self.dreams, sorted(moves)
        still = np.zeros(dreams.world.config.action_size, np.float32)
        step = dreams.step([moves.get(row, still) for row in range(len(dreams))], self._only(rows))
        seen = self._seen(rows)
        return {
            row: {
                "observation": observation,
                "reward": float(step.reward[row]),
                "terminated": bool(step.terminated[row]),
                "truncated": bool(step.truncated[row]),
                "info": {name: values[row : row + 1].tolist()[0] for name, values in step.info.items()},
            }
            for row, observation in zip(rows, seen, strict=True)
        }

    # -- inside -----------------------------------------------------------------------------------------------------

    def _operation(self, message: dict[str, Any]) -> str:
        """Which it is, taken out of the message, whose other fields are then its own."""
        operation = message.pop("op", None)
        if not isinstance(operation, str) or operation not in TAKES:
            raise ValueError(f"op is {operation!r:.40}; known are {', '.join(TAKES)}")
        takes = TAKES[operation]
        if unknown := set(message) - set(takes):
            known = ", ".join(takes) or "nothing"
            raise ValueError(f"{operation} takes {known}; got {', '.join(map(repr, sorted(unknown)))[:80]}")
        if operation in ("step", "restore") and not message:
            raise ValueError(f"{operation} needs {takes[0]!r}")
        return operation

    def _action(self, row: int, message: dict[str, Any]) -> np.ndarray | str:
        self._check_begun(row)
        if self.dreams.over[row]:
            raise gym.error.ResetNeeded("the episode has ended; reset before the next step")
        action = self.dreams.read(message["action"])
        if isinstance(action, str) and len(action) > LONGEST_SENTENCE:
            raise ValueError(f"the sentence has {len(action)} characters; {LONGEST_SENTENCE} are read")
        return action

    def _check_begun(self, row: int) -> None:
        if not self._begun[row]:
            raise gym.error.ResetNeeded("call reset() before stepping, rendering or taking a snapshot")

    def _only(self, rows: Sequence[int]) -> np.ndarray:
        which = np.zeros(len(self.dreams), bool)
        which[list(rows)] = True
        return which

    def _part(self, rows: Sequence[int]) -> DreamBatch:
        """These dreams alone, for a look at them: no others are drawn."""
        return self.dreams if len(rows) == len(self.dreams) else self.dreams.select(rows)

    def _seen(self, rows: Sequence[int]) -> list[Any]:
        observation = to_numpy(self._part(rows).observe())
        return [row_of(observation, place) for place in range(len(rows))]

    def _signed(self, blob: bytes) -> bytes:
        return hmac.digest(self._key, blob, "sha256")


def _users(error: Exception) -> Exception:
    """A mistake in a request, as its session is told of it. What NumPy or PyTorch say of odd arrays is one, too."""
    if isinstance(error, (ValueError, TypeError, gym.error.ResetNeeded)):
        return error
    return ValueError(f"the request cannot be carried out: {type(error).__name__}: {error}")
