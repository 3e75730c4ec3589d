"""Text skills of the Tabletop: a scripted controller that executes a sentence, one velocity at a time.

The controller remembers nothing: its next action depends on the positions alone. A sentence can so be
started, stopped or changed at any frame, and its true outcome is what a dream is compared with.
"""

import numpy as np

from .tasks import CONTACT, DIRECTIONS, PLACES, Task, tasks

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
            action = _towards(pusher, block - direction * CONTACT)
            return _past(action, pusher, np.delete(blocks, colors.index(task.target), axis=0))
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
            return _push(pusher, block, goal=blocks[colors.index(task.target)], stop=0.36)
    raise AssertionError(task)


def _push(pusher: np.ndarray, block: np.ndarray, goal: np.ndarray, stop: float = 0.0) -> np.ndarray:
    """Walk round the block to its far side and drive it to the goal, in one smooth field without phases.

    The next place to be is a bearing and a radius as seen from the block. The bearing turns towards exactly
    behind; the radius clears the block's corners at first and shrinks the better the bearing, until it lies
    *inside* the block: that is pushing. A hard switch from walking to pushing would be flipped by a pixel of
    error, and a policy that imitates it would do the average there, which is to stand still.
    """
    to_goal = goal - block
    forward = _unit(to_goal)
    left = np.array([-forward[1], forward[0]])
    offset = pusher - block
    astray = np.arctan2(offset @ left, -offset @ forward)  # radians away from exactly behind
    radius = CONTACT + 0.1 - 0.4 * np.exp(-((astray / 0.5) ** 2))
    bearing = astray - np.clip(astray, -1.0, 1.0)  # further round in one go, the way there would cut the block
    place = block + radius * (np.sin(bearing) * left - np.cos(bearing) * forward)
    # Slow down near the goal, where the direction to it is uncertain too.
    speed = np.clip((np.linalg.norm(to_goal) - stop) / SPEED, 0, 1)
    return (speed * _towards(pusher, np.clip(place, -0.88, 0.88))).astype(np.float32)


def _past(action: np.ndarray, pusher: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The action [2] led past blocks [n, 2] that are in its way: motion into one becomes motion along its edge."""
    for other in others:
        inward = _unit(other - pusher)
        nearness = np.clip((CONTACT + 0.2 - np.linalg.norm(other - pusher)) / 0.15, 0, 1)
        blocked = nearness * max(0.0, float(action @ inward))
        edge = np.array([-inward[1], inward[0]])
        action = action + blocked * (edge * (1 if action @ edge >= 0 else -1) - inward)
    return (action / max(1.0, np.linalg.norm(action))).astype(np.float32)


def _towards(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    action = (end - start) / SPEED
    return (action / max(1.0, np.linalg.norm(action))).astype(np.float32)


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.linalg.norm(vector)), 1e-6)
