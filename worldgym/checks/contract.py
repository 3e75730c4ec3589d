"""Does a world keep the contract of verbs? `check_world` asks any: a `WorldModel`, a `PanWorld`, your own.

Every check is a function, named by what must be true.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .report import Report, close, global_randomness, name_of, refusal, run_checks

SEEDS = (3, 5, 7)


@dataclass(frozen=True)
class Trial:
    """A world, and what is tried in it."""

    world: Any
    frames: np.ndarray
    actions: Sequence[Any]
    evaluate: Callable[[Any, Any], Any]
    reward: Callable[[Any, Any], Any]

    def start(self, rows: Sequence[int] = (0, 1, 2)) -> Any:
        return self.world.start(self.frames[list(rows)], seeds=[SEEDS[row] for row in rows])

    def under_way(self) -> Any:
        """Three dreams after a step: anew each time, because stepping from a state may spend it."""
        return self.step(self.start(), (0, 1, 2))[0]

    def batch(self, which: Any) -> Any:
        """Actions by their numbers, in as many axes as there are."""
        if isinstance(self.actions[0], str):
            return self.actions[which] if np.ndim(which) == 0 else [self.batch(part) for part in which]
        return np.stack(self.actions)[np.asarray(which)]

    def step(self, state: Any, which: Sequence[int]) -> tuple[Any, Any]:
        return self.world.step(state, self.batch(which))

    def live(self, state: Any, lines: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """What the dreams show, once and after each step; `lines` has a row of actions for each step."""
        shown = [self.look(state)]
        for which in lines:
            state, _ = self.step(state, which)
            shown.append(self.look(state))
        return shown

    def look(self, state: Any) -> np.ndarray:
        return self.world.render(state).cpu().numpy()

    def rows(self, *rows: int) -> torch.Tensor:
        return torch.tensor(rows, device=self.world.device)


def check_world(
    world: Any,
    frames: np.ndarray,
    actions: Sequence[Any],
    reward: Callable[[Any, Any], Any],
    evaluate: Callable[[Any, Any], Any] | None = None,
    not_applicable: Mapping[str, str] | None = None,
) -> Report:
    """Check the verbs of a world: start, step, render, fork, select, put, snapshot, restore and evaluate.

    Args:
        world: has the verbs and a `device`; its states have the others and a length.
        frames: uint8 [3, t, h, w, 3], real ones of which three dreams can begin; they should differ.
        actions: at least 4 different ones: vectors, float32 [a], or sentences.
        reward: (state, outcome of the step that led to it) -> [b], what `evaluate` sums.
        evaluate: (state, action sequences) -> [b, n]; the world's own by default.
        not_applicable: checks to leave out, and why.

    Raises:
        ConformanceError: with every failure: what was got, and what was expected.
    """
    trial = Trial(world, frames, actions, evaluate or world.evaluate, reward)
    return run_checks(
        type(world).__name__, [(name_of(check), check, trial) for check in _CHECKS], not_applicable or {}, Report()
    )


def _check_same(found: Sequence[np.ndarray], expected: Sequence[np.ndarray], otherwise: str) -> None:
    for count, (here, there) in enumerate(zip(found, expected, strict=True)):
        assert np.array_equal(here, there), f"{otherwise}, from step {count}"


def _check_close(found: Sequence[np.ndarray], expected: Sequence[np.ndarray], otherwise: str) -> None:
    """To within rounding."""
    for count, (here, there) in enumerate(zip(found, expected, strict=True)):
        assert close(here, there), f"{otherwise}, from step {count}"


def a_picture_of_each_dream_is_rendered(trial: Trial) -> None:
    state = trial.start()
    for when in range(3):
        assert len(state) == 3, f"{len(state)} dreams after {when} steps; expected 3"
        shown, size = trial.look(state), (3, *trial.frames.shape[2:])
        assert shown.dtype == np.uint8, f"render gives {shown.dtype} after {when} steps; expected uint8"
        assert shown.shape == size, f"render gives shape {shown.shape} after {when} steps; expected {size}"
        state, _ = trial.step(state, (0, 1, 2))


def the_same_seeds_and_actions_bring_the_same(trial: Trial) -> None:
    runs = [trial.live(trial.start(), [(0, 1, 2), (3, 2, 1)]) for _ in range(2)]
    _check_same(runs[1], runs[0], "the second time, the same start dreamed otherwise")


def actions_matter(trial: Trial) -> None:
    shown = [trial.look(trial.step(trial.under_way(), (number,) * 3)[0]) for number in range(len(trial.actions))]
    assert any(not np.array_equal(other, shown[0]) for other in shown[1:]), "all actions lead to the same picture"


def a_dream_is_the_same_alone_and_in_a_batch(trial: Trial) -> None:
    """To within rounding."""
    lines = [(0, 1, 2), (3, 2, 1)]
    together = trial.live(trial.start(), lines)
    for row in range(3):
        alone = trial.live(trial.start([row]), [(line[row],) for line in lines])
        expected = [shown[row : row + 1] for shown in together]
        _check_close(alone, expected, f"dream {row} of three goes otherwise alone")


def a_fork_continues_as_its_parent(trial: Trial) -> None:
    """To within rounding, alone or as several copies next to each other."""
    lines = [(3, 2, 1), (0, 0, 3)]
    expected = trial.live(trial.under_way(), lines)
    for copies in (1, 2):
        found = trial.live(trial.under_way().fork(copies), [np.repeat(line, copies).tolist() for line in lines])
        count = len(found[0])
        assert count == 3 * copies, f"fork({copies}) of 3 dreams has {count}; expected {3 * copies}"
        wanted = [shown.repeat(copies, 0) for shown in expected]
        _check_close(found, wanted, f"fork({copies}) went otherwise than its parent")


def a_fork_changes_nothing_in_its_parent(trial: Trial) -> None:
    """To within rounding."""
    state, expected = trial.under_way(), trial.live(trial.under_way(), [(3, 2, 1)])
    trial.live(state.fork(2), [(0, 1, 2, 3, 0, 1)] * 2)
    _check_close(trial.live(state, [(3, 2, 1)]), expected, "a parent went otherwise after its fork had been stepped")


def dreams_can_be_selected_and_put_back(trial: Trial) -> None:
    """To within rounding."""
    state, expected = trial.under_way(), trial.live(trial.under_way(), [(3, 2, 1)])
    turned = trial.live(state.select(trial.rows(2, 0)), [(1, 3)])
    _check_close(turned, [shown[[2, 0]] for shown in expected], "selected dreams went otherwise")
    begun = trial.live(trial.start([1]), [(2,)])
    mixed = state.put(trial.rows(1), trial.start([1]))
    wanted = [np.stack([shown[0], new[0], shown[2]]) for shown, new in zip(expected, begun, strict=True)]
    _check_close(trial.live(mixed, [(3, 2, 1)]), wanted, "dreams went otherwise after one of them had been replaced")


def a_snapshot_continues_exactly(trial: Trial) -> None:
    state = trial.under_way()
    blob = state.snapshot()
    assert isinstance(blob, bytes), f"snapshot() is {type(blob)}; expected bytes"
    expected = trial.live(state, [(3, 2, 1), (0, 0, 3)])
    again = type(state).restore(blob, trial.world.device)
    assert again.snapshot() == blob, "a state has another snapshot just after restore"
    _check_same(trial.live(again, [(3, 2, 1), (0, 0, 3)]), expected, "a restored state went otherwise")


def spoilt_snapshots_are_refused(trial: Trial) -> None:
    """With a ValueError."""
    state = trial.under_way()
    for name, spoilt in (("nothing", b""), ("nonsense", b"nonsense"), ("one cut short", state.snapshot()[:-10])):
        with refusal(f"restoring {name}"):
            type(state).restore(spoilt, trial.world.device)


def evaluating_leaves_the_state_as_it_is(trial: Trial) -> None:
    state = trial.under_way()
    before, expected = state.snapshot(), trial.live(trial.under_way(), [(3, 2, 1)])
    trial.evaluate(state, trial.batch([[[0, 1], [2, 3]]] * 3))
    assert state.snapshot() == before, "evaluate changed the state"
    _check_same(trial.live(state, [(3, 2, 1)]), expected, "the dreams went otherwise after evaluate")


def evaluating_is_stepping_and_summing(trial: Trial) -> None:
    """To within rounding, for every dream and sequence."""
    plans = [[[0, 1], [2, 3]], [[1, 1], [3, 0]], [[2, 0], [0, 3]]]
    found = trial.evaluate(trial.under_way(), trial.batch(plans)).float().cpu().numpy()
    expected = np.zeros((3, 2), np.float32)
    for number in range(2):
        now = trial.under_way()
        for when in range(2):
            now, outcome = trial.step(now, [plans[row][number][when] for row in range(3)])
            expected[:, number] += trial.reward(now, outcome).float().cpu().numpy()
    assert found.shape == (3, 2), f"returns have shape {found.shape}; 2 sequences from 3 dreams have (3, 2)"
    assert close(found, expected), f"returns are {found.tolist()}; stepping and summing gives {expected.tolist()}"


def a_wrong_number_of_actions_is_refused(trial: Trial) -> None:
    state = trial.under_way()
    for which in ((0, 1), (0, 1, 2, 3)):
        with refusal(f"stepping 3 dreams by {len(which)} actions"):
            trial.step(state.fork(1), which)


def global_randomness_is_left_alone(trial: Trial) -> None:
    """Of numpy and torch."""
    before = global_randomness()
    trial.live(trial.start(), [(0, 1, 2), (3, 2, 1)])
    changed = [name for name, state in global_randomness().items() if state != before[name]]
    assert not changed, f"dreaming changed the global generator of {', '.join(changed)}; expected one of its own"


_CHECKS: tuple[Callable[[Trial], None], ...] = (
    a_picture_of_each_dream_is_rendered,
    the_same_seeds_and_actions_bring_the_same,
    actions_matter,
    a_dream_is_the_same_alone_and_in_a_batch,
    a_fork_continues_as_its_parent,
    a_fork_changes_nothing_in_its_parent,
    dreams_can_be_selected_and_put_back,
    a_snapshot_continues_exactly,
    spoilt_snapshots_are_refused,
    evaluating_leaves_the_state_as_it_is,
    evaluating_is_stepping_and_summing,
    a_wrong_number_of_actions_is_refused,
    global_randomness_is_left_alone,
)
