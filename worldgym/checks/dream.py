"""Does a dream keep its promises? `check_dream_env` asks Gymnasium's own checker, and then what only dreams promise.

Every check is a function, named by what must be true.
"""

import warnings
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils.env_checker import check_env, data_equivalence

from .report import (
    DoesNotApply,
    Keeper,
    Report,
    bad_actions,
    check_in_space,
    global_randomness,
    name_of,
    refusal,
    run_checks,
)  # fmt: skip

STEPS = 4


def check_dream_env(env: gym.Env, not_applicable: Mapping[str, str] | None = None) -> Report:
    """Check a dream, or its real twin: Gymnasium's own `check_env`, whose warnings count, and what dreams promise.

    Args:
        env: as `gym.make` returns it; left reset and open.
        not_applicable: checks to leave out, and why.

    Raises:
        ConformanceError: with every failure: what was got, and what was expected.
    """
    named = [(name_of(check), check, env.unwrapped) for check in _DREAM_CHECKS]
    return run_checks(str(env.unwrapped), named, not_applicable or {}, Report())


def _play(env: gym.Env | Keeper, seed: int | None = 1, steps: int = STEPS, **options: Any) -> list[Any]:
    """Copies of what a reset and some steps return; the actions are the same each time."""
    return [deepcopy(env.reset(seed=seed, options=options or None)), *_go_on(env, steps)]


def _go_on(env: gym.Env | Keeper, steps: int = STEPS) -> list[Any]:
    return [deepcopy(env.step(action)) for action in _actions(env, steps)]


def _actions(env: gym.Env | Keeper, count: int) -> list[Any]:
    space = deepcopy(env.action_space)
    space.seed(0)
    return [space.sample() for _ in range(count)]


def _check_same(found: Any, expected: Any, otherwise: str) -> None:
    assert data_equivalence(found, expected, exact=True), otherwise


def gymnasium_accepts_it(env: gym.Env) -> None:
    """Without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Advice, which a dream cannot take: its space is its environment's.
        warnings.filterwarnings("ignore", ".*we recommend using a symmetric and normalized space")
        check_env(env, skip_render_check=env.spec is None)


def a_step_returns_plain_values(env: gym.Env) -> None:
    for observation, *outcome, _ in _play(env)[1:]:
        check_in_space(observation, env.observation_space, "step")
        found = [type(value) for value in outcome]
        assert found == [float, bool, bool], f"reward, terminated and truncated are {found}; expected float, bool, bool"
        assert np.isfinite(outcome[0]), f"the reward is {outcome[0]}; expected a finite one"


def infos_tell_success_and_frames(env: gym.Env) -> None:
    """`success`, bool, and `num_frames`, int: frames of the world that the action took."""
    (_, first), *steps = _play(env)
    for count, info in enumerate([first, *(step[-1] for step in steps)]):
        found = {key: type(info.get(key)) for key in ("success", "num_frames")}
        assert found == {"success": bool, "num_frames": int}, (
            f"the info of {'step ' + str(count) if count else 'reset'} has {found}; expected a bool and an int"
        )
        frames = info["num_frames"]
        assert (frames > 0) == (count > 0), f"num_frames is {frames} after {count} steps; expected 0 of a reset alone"


def infos_have_one_set_of_keys(env: gym.Env) -> None:
    """And one set of types, at a reset and at every step, because collectors stack them."""
    (_, first), *steps = _play(env)
    expected = {key: type(value) for key, value in first.items()}
    for count, step in enumerate(steps, 1):
        found = {key: type(value) for key, value in step[-1].items()}
        assert found == expected, f"the info of step {count} has {found}; that of reset has {expected}"


def infos_tell_uncertainty(env: gym.Env) -> None:
    """`uncertainty`, a float that is not negative."""
    (_, first), *steps = _play(env)
    for info in [first, *(step[-1] for step in steps)]:
        found = info.get("uncertainty")
        assert isinstance(found, float) and 0 <= found < float("inf"), (
            f"info['uncertainty'] is {found!r}; expected a finite float of 0 or more"
        )


def the_seed_decides_the_dream(env: gym.Env) -> None:
    runs = [_play(env, seed) for seed in (1, 2, 3, 4, 1)]
    _check_same(runs[-1], runs[0], "the same seed and actions bring another dream the second time")
    different = any(not data_equivalence(run, runs[0], exact=True) for run in runs[1:4])
    assert different, "seeds 1, 2, 3 and 4 bring the same dream; expected others"


def a_reset_without_a_seed_goes_on(env: gym.Env) -> None:
    """With the generator that the last seed began."""
    runs = [[_play(env, seed, 1) for seed in (5, None, None, None)] for _ in range(2)]
    _check_same(runs[0], runs[1], "reset(seed=5) and then reset() brings another dream the second time")
    repeats = all(data_equivalence(runs[0][0], later, exact=True) for later in runs[0][1:])
    assert not repeats, "three times reset() after reset(seed=5) dreamed as that did; expected new dreams"


def results_are_copies(env: gym.Env) -> None:
    """A step does not change earlier results, and writing into a result does not change the dream."""
    expected = _play(env)
    kept = Keeper(env)
    _play(kept)
    kept.check()
    found = _play(Keeper(env, spoil=True))
    _check_same(found, expected, "writing into what a step returned changed the later steps")


def actions_are_left_alone(env: gym.Env) -> None:
    env.reset(seed=1)
    for action in _actions(env, STEPS):
        before = deepcopy(action)
        env.step(action)
        _check_same(action, before, f"step changed its action from {before} to {action}")


def global_randomness_is_left_alone(env: gym.Env) -> None:
    """Of numpy and torch."""
    before = global_randomness()
    _play(env)
    changed = [name for name, state in global_randomness().items() if state != before[name]]
    assert not changed, f"dreaming changed the global generator of {', '.join(changed)}; expected one of its own"


def a_snapshot_continues_exactly(env: gym.Env) -> None:
    """At every step, here and in a new environment; so does the next episode, and the render."""
    places = {"the same environment": env}
    if env.spec is not None:
        places["a new environment"] = env.spec.make().unwrapped
    env.reset(seed=1)
    for count in range(STEPS):
        blob = env.snapshot()  # type: ignore[attr-defined]
        assert isinstance(blob, bytes), f"snapshot() is {type(blob)}; expected bytes"
        expected = [*_go_on(env), _play(env, None)]
        for name, place in places.items():
            place.restore(blob)  # type: ignore[attr-defined]
            assert place.snapshot() == blob, f"{name} has another snapshot just after restore, at step {count}"  # type: ignore[attr-defined]
            _check_same(
                [*_go_on(place), _play(place, None)], expected, f"{name} continues differently from step {count}"
            )
        env.restore(blob)  # type: ignore[attr-defined]
        _go_on(env, 1)
    for place in list(places.values())[1:]:
        place.close()


def a_fork_is_independent(env: gym.Env) -> None:
    """It continues as its parent does, and neither changes the other."""
    env.reset(seed=1)
    _go_on(env, 2)
    child = env.fork()  # type: ignore[attr-defined]
    expected = [*_go_on(env), _play(env, None)]
    grandchild = child.fork()
    grandchild.step(grandchild.action_space.sample())
    _play(grandchild, None)
    _check_same(
        [*_go_on(child), _play(child, None)],
        expected,
        "a fork continued differently from its parent after its parent and its own fork had stepped",
    )
    child.close(), grandchild.close()


def spoilt_snapshots_are_refused(env: gym.Env) -> None:
    """With a ValueError, and the dream continues as if nothing had happened."""
    env.reset(seed=1)
    before = env.snapshot()  # type: ignore[attr-defined]
    _go_on(env)
    now = env.snapshot()  # type: ignore[attr-defined]
    for name, spoilt in (("nothing", b""), ("nonsense", b"nonsense"), ("a snapshot cut short", before[:-10])):
        with refusal(f"restoring {name}"):
            env.restore(spoilt)  # type: ignore[attr-defined]
        assert env.snapshot() == now, f"restoring {name} was refused but changed the dream"  # type: ignore[attr-defined]


def bad_actions_are_refused(env: gym.Env) -> None:
    """With a ValueError or TypeError, and the dream continues as if nothing had happened."""
    env.reset(seed=1)
    before = env.snapshot()  # type: ignore[attr-defined]
    for name, action in bad_actions(env.action_space):
        with refusal(f"step with {name}, {action!r},"):
            env.step(action)
        assert env.snapshot() == before, f"step with {name} was refused but changed the dream"  # type: ignore[attr-defined]
    _go_on(env)


def bad_options_are_refused(env: gym.Env) -> None:
    env.reset(seed=1)
    _go_on(env)
    before = env.snapshot()  # type: ignore[attr-defined]
    with refusal("reset with the unknown option 'colour'"):
        env.reset(options={"colour": "red"})
    assert env.snapshot() == before, "reset with an unknown option was refused but changed the dream"  # type: ignore[attr-defined]


def any_sentence_is_an_action(env: gym.Env) -> None:
    """And `info["action_ok"]` says whether it is understood, `info["action_reason"]` why not."""
    if not isinstance(env.action_space, gym.spaces.Text):
        raise DoesNotApply(f"actions are {env.action_space}")
    env.reset(seed=1)
    for sentence in ("", "Fly to the moon, please!", "schiebe den roten Würfel", "x" * 1000):
        info = env.step(sentence)[-1]
        ok, reason = info.get("action_ok"), info.get("action_reason")
        assert type(ok) is bool, f"info['action_ok'] is {ok!r} for {sentence!r:.40}; expected a bool"
        assert type(reason) is str and (reason == "") is ok, (
            f"info['action_reason'] is {reason!r} for {sentence!r:.40}, whose action_ok is {ok}; expected a reason "
            "where that is False, and an empty string elsewhere"
        )
    sample = env.action_space.sample()
    ok = env.step(sample)[-1]["action_ok"]
    assert ok is True, f"info['action_ok'] is {ok} for {sample!r}, which the action space drew; expected True"


def it_starts_from_frames(env: gym.Env) -> None:
    """`reset(options={"frames": uint8 [t, h, w, 3]})`, which it leaves alone; other shapes are refused."""
    seen = env.render() if env.reset(seed=1) and env.render_mode == "rgb_array" else env.reset(seed=1)[0]
    if not (isinstance(seen, np.ndarray) and seen.dtype == np.uint8 and seen.ndim == 3):
        raise DoesNotApply("it shows no pixels: render_mode is None and observations are none")
    frames = seen[None].copy()
    runs = [_play(env, 1, frames=frames) for _ in range(2)]
    _check_same(runs[0], runs[1], "the same seed and frames bring another dream the second time")
    assert np.array_equal(frames, seen[None]), "reset wrote into the frames of its options"
    before = env.snapshot()  # type: ignore[attr-defined]
    for name, bad in (("without time", seen), ("of half the size", frames[:, ::2, ::2]), ("of floats", frames / 255.0)):
        with refusal(f"reset with frames {name}"):
            env.reset(options={"frames": bad})
    assert isinstance(before, bytes)
    _go_on(env)


_DREAM_CHECKS: tuple[Callable[[Any], None], ...] = (
    gymnasium_accepts_it,
    a_step_returns_plain_values,
    infos_tell_success_and_frames,
    infos_have_one_set_of_keys,
    infos_tell_uncertainty,
    the_seed_decides_the_dream,
    a_reset_without_a_seed_goes_on,
    results_are_copies,
    actions_are_left_alone,
    global_randomness_is_left_alone,
    a_snapshot_continues_exactly,
    a_fork_is_independent,
    spoilt_snapshots_are_refused,
    bad_actions_are_refused,
    bad_options_are_refused,
    any_sentence_is_an_action,
    it_starts_from_frames,
)
