"""Does a vector environment keep its promises, in all three autoreset modes? Gymnasium has no checker for these.

Every check is a function, named by what must be true; those of one mode alone are in `autoreset`.
"""

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from typing import Any

import numpy as np
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space, iterate

from .autoreset import MODE_CHECKS
from .case import HORIZON, NUM_ENVS, SEEDS, TWO_EPISODES, Case, check_same
from .player import Player, batch, first_difference
from .report import (
    DoesNotApply,
    Keeper,
    Report,
    bad_actions,
    check_in_space,
    close,
    describe,
    global_randomness,
    name_of,
    refusal,
    run_checks,
)  # fmt: skip


def check_vector_env(make: Callable[..., VectorEnv], not_applicable: Mapping[str, str] | None = None) -> Report:
    """Check a vector environment in every autoreset mode that it has.

    Args:
        make: called as `make(num_envs=int, autoreset_mode=AutoresetMode, max_episode_steps=int)`, many times; returns
            a new vector environment that gives numpy arrays. For an id with a vector entry point that is
            `functools.partial(gym.make_vec, id)`. A mode that it can't make it refuses with a ValueError, TypeError
            or NotImplementedError, and the report says so; it has to make one at least.
        not_applicable: checks to leave out, and why: `{"an env alone is as in a batch": "one generator for all"}`.

    Returns:
        What passed and what did not apply.

    Raises:
        ConformanceError: with every failure: what was got, and what was expected.
    """
    report = Report()
    cases: list[Case] = []
    names: set[str] = set()
    for mode in AutoresetMode:
        try:
            env = make(num_envs=NUM_ENVS, autoreset_mode=mode, max_episode_steps=HORIZON)
        except (ValueError, TypeError, NotImplementedError) as error:
            report.not_applicable[mode.name] = f"make refuses it: {type(error).__name__}: {error}"
        else:
            cases.append(Case(make, mode, cases))
            names.add(str(env))
            env.close()
    if not cases:
        raise ValueError(
            f"make refuses every autoreset mode; it is called as make(num_envs={NUM_ENVS}, autoreset_mode=..., "
            f"max_episode_steps={HORIZON}): {report.not_applicable}"
        )
    named = [
        (f"{name_of(check)} [{case.mode.name}]", check, case)
        for case in cases
        for check in (*VECTOR_CHECKS, *MODE_CHECKS[case.mode])
    ]
    return run_checks(" and ".join(sorted(names)), named, not_applicable or {}, report)


def _check_infos(infos: dict[str, Any], where: str = "infos") -> None:
    """Arrays or, nested, dictionaries of them; each key comes with its mask."""
    assert isinstance(infos, dict), f"{where} is {type(infos)}; expected a dict"
    for key, value in infos.items():
        if key.startswith("_"):
            assert key[1:] in infos, f"{where} has the mask {key!r} and no {key[1:]!r}"
            continue
        mask = infos.get(f"_{key}")
        is_mask = isinstance(mask, np.ndarray) and mask.dtype == bool and mask.shape == (NUM_ENVS,)
        assert is_mask, f"{where}['_{key}'] is {mask!r}; expected a mask of {NUM_ENVS} bools for {key!r}"
        if isinstance(value, dict):
            _check_infos(value, f"{where}[{key!r}]")
        else:
            rows = isinstance(value, np.ndarray) and value.shape[:1] == (NUM_ENVS,)
            assert rows, f"{where}[{key!r}] is {describe(value)}; expected an array of {NUM_ENVS} rows"


def _bad_batches(env: VectorEnv) -> Iterator[tuple[str, Any]]:
    space = env.single_action_space
    good = [space.sample() for _ in range(NUM_ENVS + 1)]
    yield "an action too few", batch(space, good[:-2])
    yield "an action too many", batch(space, good)
    for what, bad in bad_actions(space):
        if what == "None":
            yield what, None
        elif isinstance(bad, np.ndarray):
            yield what, np.stack([good[0], good[1], bad] if bad.shape == space.shape else [bad] * NUM_ENVS)
        else:
            yield what, [*good[: NUM_ENVS - 1], bad]


def spaces_agree_single_and_batched(case: Case) -> None:
    with case.env() as env:
        assert env.num_envs == NUM_ENVS, f"num_envs is {env.num_envs}; asked for {NUM_ENVS}"
        for kind in ("observation_space", "action_space"):
            batched, single = getattr(env, kind), getattr(env, f"single_{kind}")
            expected = batch_space(single, NUM_ENVS)
            assert batched == expected, f"{kind} is {batched}; {NUM_ENVS} of single_{kind} are {expected}"


def the_metadata_say_the_mode(case: Case) -> None:
    """And are the environment's own: making another one leaves them alone."""
    with case.env() as env:
        for other in case.others:
            found = env.metadata.get("autoreset_mode")
            assert found is case.mode, f"metadata['autoreset_mode'] is {found!r}; expected the member {case.mode!r}"
            with other.env():
                pass


def results_fit_their_spaces(case: Case) -> None:
    with case.env() as env:
        space = env.observation_space
    (first, infos), *steps = case.expected
    check_in_space(first, space, "reset")
    _check_infos(infos)
    for count, (observations, rewards, terminated, truncated, infos) in enumerate(steps, 1):
        check_in_space(observations, space, f"step {count}")
        _check_infos(infos)
        for name, array, kind in (
            ("rewards", rewards, "f"), ("terminations", terminated, "b"), ("truncations", truncated, "b")
        ):  # fmt: skip
            assert isinstance(array, np.ndarray), f"{name} are {type(array)}; expected a numpy array"
            got = f"{name} have shape {array.shape} and dtype {array.dtype}"
            wanted = {"f": "floats", "b": "bools"}[kind]
            assert array.shape == (NUM_ENVS,) and array.dtype.kind == kind, f"{got}; expected {NUM_ENVS} {wanted}"
        assert np.isfinite(rewards).all(), f"rewards are {rewards.tolist()} at step {count}; expected finite ones"


def the_seed_decides(case: Case) -> None:
    """The same seed brings the same again, in a new environment and in a used one; another seed another."""
    check_same(case.run(), case.expected, "two new environments with seed 1 differ")
    with case.env() as env:
        runs = []
        for seed in (1, 2, 3, 4, 1):
            player = Player(env)
            runs.append([player.reset(seed), *player.play(2)])
        firsts = [list(iterate(env.observation_space, run[0][0])) for run in runs[:4]]
    check_same(runs[4], case.expected[:3], "reset(seed=1) again, after other seeds, is not the same")
    different = any(not data_equivalence(run, runs[0], exact=True) for run in runs[1:4])
    assert different, "seeds 1, 2, 3 and 4 bring the same; expected others"
    twins = all(data_equivalence(seen, first[0], exact=True) for first in firsts for seen in first)
    assert not twins, f"with each of four seeds all {NUM_ENVS} environments begin alike; expected different ones"


def seeds_can_be_a_list(case: Case) -> None:
    """One for each environment; an int is the first of consecutive ones."""
    with case.env() as env:
        player = Player(env)
        asked: tuple[int | list[int], ...] = ([11, 12, 13], [11, 99, 13], 11)
        one, other, consecutive = (player.split(player.reset(seeds)[0]) for seeds in asked)
        for index in (0, 2):
            check_same(
                one[index],
                other[index],
                f"environment {index} begins differently with seeds [11, 12, 13] and [11, 99, 13]; its own is the same",
            )
        check_same(one, consecutive, "seed=11 and seed=[11, 12, 13] begin differently")
        for seeds in ([11, 12], [11, 12, 13, 14]):
            with refusal(f"seed={seeds} for {NUM_ENVS} environments"):
                env.reset(seed=seeds)  # type: ignore[arg-type]


def a_reset_without_a_seed_goes_on(case: Case) -> None:
    """With the generator that the last seed began."""
    with case.env() as env:
        runs = [[deepcopy(env.reset(seed=seed)[0]) for seed in (5, None, None, None)] for _ in range(2)]
    check_same(runs[0], runs[1], "reset(seed=5) and then reset() differs the second time")
    assert not all(data_equivalence(runs[0][0], later, exact=True) for later in runs[0][1:]), (
        "three times reset() after reset(seed=5) began as that did; expected new episodes"
    )


def results_are_copies(case: Case) -> None:
    """A step does not change earlier results, and writing into a result does not change the environment."""
    for spoil in (False, True):
        with case.env() as env:
            kept = Keeper(env, spoil)
            player = Player(kept)
            found = [player.reset(1), *player.play(TWO_EPISODES)]
            if spoil:
                check_same(found, case.expected, "writing into what a step returned changed the later steps")
            else:
                kept.check()


def actions_are_left_alone(case: Case) -> None:
    with case.player() as player:
        actions = player.actions()
        before = deepcopy(actions)
        player.env.step(actions)
        check_same(actions, before, f"step changed its actions from {before} to {actions}")


def time_runs_out_exactly(case: Case) -> None:
    """Episodes are truncated at `max_episode_steps`, neither sooner nor later, the second ones too."""
    with case.player() as player:
        player.play(TWO_EPISODES)
    for index, life in enumerate(player.lives):
        age = 0
        for step in life:
            age += 1
            who = f"environment {index}, {age} steps into an episode of at most {HORIZON}"
            assert not step.truncated or age == HORIZON, f"{who}, is truncated"
            assert step.truncated or step.terminated or age < HORIZON, f"{who}, continues"
            age = 0 if step.truncated or step.terminated else age


def an_env_alone_is_as_in_a_batch(case: Case) -> None:
    """To within rounding, with the same seed and actions."""
    for index, (seed, together) in enumerate(zip(SEEDS, case.lives, strict=True)):
        (alone,) = case.live([seed], streams=[index])
        count = min(len(alone), len(together))
        assert close(alone[:count], together[:count]), (
            f"environment {index} of three with seed {seed} lived {first_difference(together, alone)}, in three and "
            "alone"
        )


def modes_agree(case: Case) -> None:
    """An environment lives the same in every mode; the modes differ in when they reset it."""
    first = case.others[0]
    if case is first:
        raise DoesNotApply(
            "the other modes are compared with this one" if case.others[1:] else "there is no other mode"
        )
    for index, (here, there) in enumerate(zip(case.lives, first.lives, strict=True)):
        count = min(len(here), len(there))
        assert close(here[:count], there[:count]), (
            f"environment {index} lived {first_difference(here, there)}, in {case.mode.name} and in {first.mode.name}"
        )


def global_randomness_is_left_alone(case: Case) -> None:
    """Of numpy and torch."""
    before = global_randomness()
    case.run()
    changed = [name for name, state in global_randomness().items() if state != before[name]]
    assert not changed, f"playing changed the global generator of {', '.join(changed)}; expected generators of its own"


def bad_actions_are_refused(case: Case) -> None:
    """With a ValueError or TypeError, and as if they had not happened."""
    with case.env() as env:
        player = Player(env)
        found: list[Any] = [player.reset(1)]
        for _ in range(TWO_EPISODES):
            if case.mode is not AutoresetMode.DISABLED or not player.done.any():  # it may be refused for that
                for what, actions in _bad_batches(env):
                    with refusal(f"step with {what}"):
                        env.step(actions)
            found.append(player.step())
    check_same(found, case.expected, "bad actions were refused, but changed the steps after them")


def a_snapshot_continues_exactly(case: Case) -> None:
    """In the same environment and in a new one, within an episode and at its end."""
    with case.player() as player, case.env() as new:
        env: Any = player.env
        fresh: Any = new
        if not hasattr(env, "snapshot"):
            raise DoesNotApply("it has no snapshot()")
        for steps in (1, HORIZON - 1):
            player.play(steps)
            blob, back = env.snapshot(), player.bookmark()
            assert isinstance(blob, bytes), f"snapshot() is {type(blob)}; expected bytes"
            expected = player.play(HORIZON)
            for where, place in (("the same environment", env), ("a new environment", fresh)):
                back()
                place.restore(blob)
                player.env = place
                check_same(player.play(HORIZON), expected, f"{where} continued differently from a snapshot")
            back()
            player.env = env
            env.restore(blob)


def a_fork_is_independent(case: Case) -> None:
    """It continues as its parent does, and neither changes the other."""
    with case.player() as player:
        env: Any = player.env
        if not hasattr(env, "fork"):
            raise DoesNotApply("it has no fork()")
        player.play(2)
        back = player.bookmark()
        child = env.fork()
        expected = player.play(HORIZON + 2)
        back()
        stray = Player(child.fork(), streams=(7, 8, 9))
        stray.done, stray.before = player.done, player.before
        stray.play(HORIZON + 2)
        back()
        player.env = child
        check_same(
            player.play(HORIZON + 2),
            expected,
            "a fork continued differently from its parent after its parent and its own fork had stepped",
        )


def it_renders_every_environment(case: Case) -> None:
    with case.player() as player:
        if player.env.render_mode is None:
            raise DoesNotApply("render_mode is None")
        frames = player.env.render()
    assert frames is not None and len(frames) == NUM_ENVS, f"render() gives {frames!r:.80}; expected {NUM_ENVS} frames"
    for frame in frames:
        picture = isinstance(frame, np.ndarray) and frame.dtype == np.uint8 and frame.ndim == 3
        assert picture, f"a frame is {type(frame)} of shape {np.shape(frame)}; expected uint8 [h, w, 3]"


def closing_twice_is_harmless(case: Case) -> None:
    with case.env() as env:
        env.reset(seed=1)
        env.close()
        env.close()
        assert env.closed, "closed is False after close()"


VECTOR_CHECKS = (
    spaces_agree_single_and_batched,
    the_metadata_say_the_mode,
    results_fit_their_spaces,
    the_seed_decides,
    seeds_can_be_a_list,
    a_reset_without_a_seed_goes_on,
    results_are_copies,
    actions_are_left_alone,
    time_runs_out_exactly,
    an_env_alone_is_as_in_a_batch,
    modes_agree,
    global_randomness_is_left_alone,
    bad_actions_are_refused,
    a_snapshot_continues_exactly,
    a_fork_is_independent,
    it_renders_every_environment,
    closing_twice_is_harmless,
)
