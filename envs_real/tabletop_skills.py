"""Text skills of the Tabletop: a scripted controller that executes a sentence, one velocity at a time.

The controller remembers nothing: its next action depends on the positions alone. A sentence can so be
started, stopped or changed at any frame, and its true outcome is what a dream is compared with.
"""

import numpy as np

from .tabletop_tasks import CONTACT, DIRECTIONS, PLACES, Task, tasks

SPEED = 0.15
"""How far a full-scale action moves the pusher in one step; the table is 2.0 wide."""


def phrases(colors: tuple[str, ...]) -> dict[str, Task]:
    """Every sentence the controller can execute: all instructions, directional pushes and plain motions."""
    known = tasks(colors)
    known |= {
        f"push the {color} block {direction}": Task("push", color, direction)
        for color in colors
        for direction in DIRECTIONS
    }
    known |= {f"move {direction}": Task("move", "pusher", direction) for direction in DIRECTIONS}
    known["stay still"] = Task("stay", "pusher")
    return known


def skill_action(task: Task, positions: np.ndarray, colors: tuple[str, ...]) -> np.ndarray:
    """The controller's next action, [2] float32 in [-1, 1].

    Args:
        positions: [1 + blocks, 2], pusher first.
    """
    pusher, blocks = positions[0], positions[1:]
    match task.verb:
        case "stay":
            return np.zeros(2, np.float32)
        case "move":
            return np.asarray(DIRECTIONS[task.target], np.float32)
        case "reach" if task.target in PLACES:
            return _towards(pusher, np.asarray(PLACES[task.target]))
        case "reach":
            block = blocks[colors.index(task.target)]
            direction = _unit(block - pusher)
            return _towards(pusher, block - direction * (CONTACT + 0.02))
        case "gather":
            return _push(pusher, blocks[0], goal=blocks[1], stop=2 * CONTACT * 0.65)
        case "separate":
            outward = _unit(blocks[0] - blocks[1])
            if np.abs(blocks[0] + 0.3 * outward).max() > 0.85:  # no room left: push the other one
                return _push(pusher, blocks[1], goal=blocks[1] - outward)
            return _push(pusher, blocks[0], goal=blocks[0] + outward)
        case "push":
            block = blocks[colors.index(task.subject)]
            if task.target in DIRECTIONS:
                direction = np.asarray(DIRECTIONS[task.target])
                return _push(pusher, block, goal=block + direction)
            if task.target in PLACES:
                return _push(pusher, block, goal=np.asarray(PLACES[task.target]), stop=0.04)
            return _push(pusher, block, goal=blocks[colors.index(task.target)], stop=0.4)
    raise AssertionError(task)


def _push(pusher: np.ndarray, block: np.ndarray, goal: np.ndarray, stop: float = 0.0) -> np.ndarray:
    """Walk round the block to its far side, then drive it along the line to the goal."""
    to_goal = goal - block
    if np.linalg.norm(to_goal) < stop:
        return np.zeros(2, np.float32)
    direction = _unit(to_goal)
    offset = pusher - block
    along, across = offset @ direction, offset @ np.array([-direction[1], direction[0]])
    if along < -0.5 * CONTACT and abs(across) < 0.07:
        # Behind the block and on the line: push, steering back onto the line, no further than the goal.
        contact = block - direction * CONTACT
        return _towards(pusher, contact + direction * min(np.linalg.norm(to_goal), SPEED))
    bearing, wanted = np.arctan2(offset[1], offset[0]), np.arctan2(-direction[1], -direction[0])
    turn = (wanted - bearing + np.pi) % (2 * np.pi) - np.pi
    radius = CONTACT + 0.1 if abs(turn) > 0.35 else CONTACT + 0.03
    bearing = bearing + np.clip(turn, -0.8, 0.8)
    around = block + radius * np.array([np.cos(bearing), np.sin(bearing)])
    return _towards(pusher, np.clip(around, -0.88, 0.88))


def _towards(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    action = (end - start) / SPEED
    return (action / max(1.0, np.linalg.norm(action))).astype(np.float32)


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.linalg.norm(vector)), 1e-6)
