"""What can be asked of the Tabletop, and how well it is done: instructions, dense rewards, success.

Everything here is a pure function of object positions, so rewards of *every* instruction can be computed for
any recorded frame. Positions are on the table plane, x to the right and y away from the viewer, both in
[-1, 1]; the pusher is row 0 and the blocks follow in the order of their colours.
"""

from dataclasses import dataclass

import numpy as np

from worldgym.reader import reader_of

PUSHER_RADIUS = 0.12
BLOCK_HALF = 0.17
CONTACT = PUSHER_RADIUS + BLOCK_HALF
PLACE_RADIUS = 0.2
"""An object counts as being at a place when its centre is this close to it."""

PLACES = {
    "centre": (0.0, 0.0),
    "left side": (-0.6, 0.0),
    "right side": (0.6, 0.0),
    "top side": (0.0, 0.6),
    "bottom side": (0.0, -0.6),
    "top left corner": (-0.6, 0.6),
    "top right corner": (0.6, 0.6),
    "bottom left corner": (-0.6, -0.6),
    "bottom right corner": (0.6, -0.6),
}
DIRECTIONS = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, 1.0), "down": (0.0, -1.0)}


@dataclass(frozen=True)
class Task:
    """One instruction, parsed: what moves (`subject`: "pusher", a colour, or "blocks"), and where to."""

    verb: str
    subject: str
    target: str = ""


def tasks(colors: tuple[str, ...]) -> dict[str, Task]:
    """Every instruction of a table with blocks of these colours, as phrase -> task."""
    known = {f"reach the {color} block": Task("reach", "pusher", color) for color in colors}
    known |= {f"reach the {place}": Task("reach", "pusher", place) for place in PLACES}
    known |= {
        f"push the {color} block to the {place}": Task("push", color, place) for color in colors for place in PLACES
    }
    known |= {
        f"push the {color} block to the {other} block": Task("push", color, other)
        for color in colors
        for other in colors
        if color != other
    }
    if len(colors) > 1:
        known |= {
            "gather the blocks": Task("gather", "blocks"),
            "separate the blocks": Task("separate", "blocks"),
        }
    return known


def find_task(instruction: str, colors: tuple[str, ...]) -> Task:
    """The task behind an instruction, in whatever words; an unknown one is a ValueError that lists some known ones."""
    return tasks(colors)[find_instruction(instruction, colors)]


def find_instruction(instruction: str, colors: tuple[str, ...]) -> str:
    """The instruction that is meant, in whatever words; a ValueError, with some known ones, if none is."""
    known = tuple(tasks(colors))
    reading = reader_of(known).read(instruction)
    if reading.phrase is None:
        raise ValueError(
            f"unknown instruction {instruction!r}: {reading.reason or 'it asks for several things'}; this table has "
            f"blocks {', '.join(colors)} and knows {len(known)} instructions, for instance: "
            f"{'; '.join(known[:: max(1, len(known) // 5)])}"
        )
    return reading.phrase


def target_position(task: Task, positions: np.ndarray, colors: tuple[str, ...]) -> np.ndarray:
    """Where the task wants its subject, [..., 2]."""
    if task.target in PLACES:
        return np.broadcast_to(np.asarray(PLACES[task.target]), positions[..., 0, :].shape)
    return positions[..., 1 + colors.index(task.target), :]


def evaluate_task(task: Task, positions: np.ndarray, colors: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Dense reward and success of a task.

    Args:
        positions: [..., 1 + blocks, 2], pusher first.

    Returns:
        reward [...] float32, at most 0: minus the distance still to go, for a push with half the pusher's
        distance to the point behind the block added; exactly 0 on success.
        success [...] bool.
    """
    pusher, blocks = positions[..., 0, :], positions[..., 1:, :]
    match task.verb:
        case "reach":
            gap = _norm(target_position(task, positions, colors) - pusher)
            radius = PLACE_RADIUS if task.target in PLACES else CONTACT + 0.06
            cost, success = gap, gap < radius
        case "push":
            block = blocks[..., colors.index(task.subject), :]
            goal = target_position(task, positions, colors)
            gap = _norm(goal - block)
            touching = 0.0 if task.target in PLACES else 2 * BLOCK_HALF
            cost = np.maximum(gap - touching, 0.0) + 0.5 * _norm(behind(block, goal) - pusher)
            success = gap < touching + (PLACE_RADIUS if task.target in PLACES else 0.1)
        case "gather" | "separate":
            centre = blocks.mean(axis=-2, keepdims=True)
            spread = _norm(blocks - centre).mean(axis=-1)  # half the distance between two blocks
            close, far = BLOCK_HALF + 0.07, 0.65
            cost = np.maximum(spread - close, 0.0) if task.verb == "gather" else np.maximum(far - spread, 0.0)
            success = cost == 0.0
            cost = cost + 0.25 * (_norm(blocks - pusher[..., None, :]).min(axis=-1) - CONTACT).clip(0.0)
        case _:
            raise AssertionError(task)
    return np.where(success, 0.0, -cost).astype(np.float32), np.asarray(success)


def behind(block: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """Where the pusher must be to push the block straight to its goal, [..., 2]."""
    away = block - goal
    return block + away / np.maximum(_norm(away), 1e-6)[..., None] * (CONTACT + 0.02)


def _norm(vector: np.ndarray) -> np.ndarray | np.floating:
    return np.linalg.norm(vector, axis=-1)
