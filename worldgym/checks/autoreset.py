"""What a vector environment promises in one autoreset mode: when it resets, and what it reports at an end."""

from collections.abc import Callable

import numpy as np
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode

from .case import HORIZON, LONG_HORIZON, NUM_ENVS, TWO_EPISODES, Case, check_same
from .player import Player, first_difference
from .report import DoesNotApply, close, refusal


def the_next_step_resets(case: Case) -> None:
    """NEXT_STEP: it ignores the action and brings reward 0, no end and the first observation."""
    runs = []
    for ignored in (98, 99):
        with case.env() as env:
            player = Player(env, ignored=ignored)
            player.reset(1)
            player.stagger()
            runs.append(player.play(TWO_EPISODES))
    done, looked = np.zeros(NUM_ENVS, bool), False
    for count, (_, rewards, terminated, truncated, _) in enumerate(runs[0]):
        for index in np.flatnonzero(done):
            looked = True
            got = f"reward {rewards[index]}, terminated {terminated[index]}, truncated {truncated[index]}"
            nothing = rewards[index] == 0 and not terminated[index] and not truncated[index]
            assert nothing, f"environment {index} ended before step {count}, which gave {got}; expected 0, False, False"
        done = terminated | truncated
    assert looked, f"no episode ended within {TWO_EPISODES} steps; expected it after {HORIZON}"
    check_same(runs[0], runs[1], "the step after the end of an episode depends on its action")


def final_observations_are_told(case: Case) -> None:
    """SAME_STEP: `final_obs` and `final_info`, with their masks, of the environments that ended and no others."""
    with case.player() as player:
        player.stagger()
        looked = False
        for count, (observations, _, terminated, truncated, infos) in enumerate(player.play(TWO_EPISODES), 1):
            done = terminated | truncated
            for key in ("final_obs", "final_info"):
                mask = infos.get(f"_{key}") if key in infos else None
                found = np.zeros(NUM_ENVS, bool) if mask is None else mask
                assert np.array_equal(found, done), (
                    f"{np.flatnonzero(done)} ended at step {count}; infos have {sorted(infos)}, and _{key} is {mask}"
                )
            for index in np.flatnonzero(done):
                looked = True
                final, first = infos["final_obs"][index], player.split(observations)[index]
                space = player.env.single_observation_space
                assert final in space, f"final_obs[{index}] at step {count} is not in {space}: {final!r:.80}"
                assert not data_equivalence(final, first, exact=True), (
                    f"final_obs[{index}] at step {count} is the first of the new episode; expected the last of the old"
                )
        assert looked, f"no episode ended within {TWO_EPISODES} steps; expected it after {HORIZON}"


def reset_mask_resets_those_alone(case: Case) -> None:
    """DISABLED: the others continue as if nothing had happened."""
    mask, others = np.array([True, False, False]), [1, 2]
    with case.player(LONG_HORIZON) as expected:
        expected.play(4)
    with case.player(LONG_HORIZON) as found:
        found.play(2)
        before, age = list(found.before), len(found.lives[0])
        seen = found.split(found.restart(mask)[0])
        for index in others:
            check_same(
                seen[index],
                before[index],
                f"reset with the mask {mask} returned another observation of environment {index} than its last",
            )
        assert not data_equivalence(seen[0], before[0], exact=True), f"reset with the mask {mask} did not reset 0"
        found.play(2)
    for index in others:
        assert close(found.lives[index], expected.lives[index]), (
            f"environment {index} lived {first_difference(found.lives[index], expected.lives[index])}, after a "
            f"reset with the mask {mask} and without"
        )
    check_same(found.lives[0][age].before, seen[0], "the environment that was reset continued from another state")


def a_reset_mask_starts_the_clock_anew(case: Case) -> None:
    """DISABLED: of those it resets, and of no others."""
    with case.player() as player:
        player.play(HORIZON - 1)
        player.restart(np.array([True, False, False]))
        ends = player.step()[3].tolist()
    if any(step.terminated for life in player.lives for step in life):
        raise DoesNotApply("an episode terminated before its time ran out")
    assert ends == [False, True, True], (
        f"environment 0 was reset a step before time runs out, then truncations are {ends}; "
        "expected [False, True, True]"
    )


def bad_reset_masks_are_refused(case: Case) -> None:
    with case.player() as player:
        bad = (np.ones(NUM_ENVS + 1, bool), np.ones(NUM_ENVS, int), [True] * NUM_ENVS, np.zeros(NUM_ENVS, bool))
        for mask in bad:
            with refusal(f"reset_mask {mask!r}"):
                player.env.reset(options={"reset_mask": mask})


def options_are_left_alone(case: Case) -> None:
    with case.player() as player:
        mask = np.array([True, False, True])
        options = {"reset_mask": mask}
        player.env.reset(options=options)
        assert options.get("reset_mask") is mask, f"reset changed its options to {options}"
        assert mask.tolist() == [True, False, True], f"reset changed its reset_mask to {mask}"


def a_finished_environment_refuses_to_step(case: Case) -> None:
    """DISABLED: any exception will do; a silent step would be junk that an agent learns from."""
    with case.player() as player:
        for _ in range(HORIZON):
            if not player.done.any():
                player.step()
        assert player.done.any(), f"no episode ended within {HORIZON} steps"
        try:
            player.env.step(player.actions())
        except Exception:
            return
        raise AssertionError(f"step accepted finished environments {np.flatnonzero(player.done)}; expected an error")


MODE_CHECKS: dict[AutoresetMode, tuple[Callable[[Case], None], ...]] = {
    AutoresetMode.NEXT_STEP: (the_next_step_resets,),
    AutoresetMode.SAME_STEP: (final_observations_are_told,),
    AutoresetMode.DISABLED: (
        reset_mask_resets_those_alone,
        a_reset_mask_starts_the_clock_anew,
        bad_reset_masks_are_refused,
        options_are_left_alone,
        a_finished_environment_refuses_to_step,
    ),
}
