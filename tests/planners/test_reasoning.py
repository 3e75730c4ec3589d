"""Several sentences towards a goal: who chooses them, and what counts as a success."""

import gymnasium as gym
import numpy as np
import pytest

import worldgym  # noqa: F401  registers the ids
from worldgym.envs_real.tabletop.reasoning import TASKS, evaluate_planning, instructions, talk, talks
from worldgym.planners.reasoning import Guess, elementary, ways


@pytest.fixture
def twin():
    env = gym.make("worldgym/TabletopMuJoCo-v0", action_mode="text")
    yield env.unwrapped
    env.close()


def expert(instruction, random):
    """Says the instruction itself, which the controller knows how to carry out."""
    return lambda frame: instruction


def idle(instruction, random):
    return lambda frame: "stay still"


def test_a_guess_says_anything_that_is_proposed_and_nothing_else():
    guess = Guess("gather", lambda instruction, node: [f"{instruction} {n}" for n in "abc"], np.random.default_rng(0))
    assert {guess(np.zeros((2, 2, 3), np.uint8)) for _ in range(40)} == {"gather a", "gather b", "gather c"}


def test_elementary_sentences_are_no_instructions(make_world):
    world = make_world()
    assert elementary(world).phrases == ("push the red block left", "move up", "stay still")


def test_the_same_chances_guess_the_same(make_world, twin):
    world = make_world()
    guess = ways(world, twin, elementary(world))["nothing"]
    said = [talk(twin, ("gather the blocks",), guess, seed=3, limit=4).said for _ in range(2)]
    assert said[0] == said[1]


def test_who_knows_how_succeeds_and_who_stays_still_does_not(twin):
    figures = evaluate_planning(twin, {"expert": expert, "idle": idle}, episodes=2, seed=0)["ways"]
    assert figures["expert"]["value"] == 1.0 and set(figures["expert"]["by_task"]) == set(TASKS)
    assert figures["idle"]["value"] == 0.0 and figures["idle"]["interval"] == [0.0, 0.0]
    assert figures["expert"]["cases"] == figures["idle"]["cases"] == 8


def test_episodes_are_the_same_whoever_chooses(twin):
    one, other = (talks(twin, "corner", "", way, episodes=2, seed=1) for way in (expert, idle))
    assert [held.instructions for held in one] == [held.instructions for held in other]
    np.testing.assert_array_equal([held.frames[0] for held in one], [held.frames[0] for held in other])


def test_an_instruction_that_fails_ends_the_episode(twin):
    asked = instructions("one after the other", np.random.default_rng(0))
    held = talk(twin, asked, idle, seed=0, limit=3)
    assert not held.success and len(held.said) == 3 and len(held.frames) == 4


def test_an_unknown_task_is_refused():
    with pytest.raises(ValueError, match="unknown task 'juggle'"):
        instructions("juggle", np.random.default_rng(0))
