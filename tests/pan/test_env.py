"""PAN's door: `worldgym/Pan-v0`, its vector form, its rewards, its ends."""

import pickle
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from worldgym.checks import check_dream_env, check_vector_env
from worldgym.spaces import action_space

SIZE = 32
NO_TOKENS = {"infos tell uncertainty": "PAN draws no tokens whose entropy could be told"}


def brightness(frames: np.ndarray) -> np.ndarray:
    return frames.mean((1, 2, 3)) / 255


@pytest.fixture
def arguments(pan_folder) -> dict[str, Any]:
    return {
        "trained": str(pan_folder / "joint"), "reward": brightness, "starts": str(pan_folder / "clips"),
        "device": "cpu", "dtype": "float32", "render_mode": "rgb_array",
    }  # fmt: skip


@pytest.fixture
def make(arguments):
    """`gym.make` of the toy, with other arguments."""
    return lambda **changes: gym.make("worldgym/Pan-v0", **{**arguments, **changes})


def test_the_checker_of_dreams_accepts_it(make):
    report = check_dream_env(make(), NO_TOKENS)
    assert set(report.not_applicable) == set(NO_TOKENS)


@pytest.mark.slow
def test_the_checker_of_vector_environments_accepts_it(arguments):
    report = check_vector_env(partial(gym.make_vec, "worldgym/Pan-v0", **arguments, at_once=4))
    assert all("the other modes are compared" in why for why in report.not_applicable.values())


def test_an_action_is_a_chunk_and_the_observation_its_last_frame(make):
    env = make()
    frame, info = env.reset(seed=1)
    assert frame.shape == (SIZE, SIZE, 3) and info["num_frames"] == 0
    seen, reward, terminated, truncated, info = env.step("fly to the moon")
    assert (
        info == {"success": False, "num_frames": 4, "action_ok": True, "action_reason": ""}
        and not terminated
        and not truncated
    )
    assert not np.array_equal(seen, frame) and np.array_equal(env.render(), seen)
    assert reward == pytest.approx(brightness(seen[None])[0])
    info = env.step(" ")[-1]
    assert info["action_ok"] is False and info["action_reason"] == "it says nothing"


def test_sentences_are_those_of_the_clips_or_the_given_ones(make):
    assert make().action_space.phrases == ["go left", "push", "stay 0", "stay 1", "stay 2"]
    assert make(phrases=["wait"], starts=None).action_space.phrases == ["wait"]
    discrete = make(action_mode="discrete")
    assert discrete.action_space == gym.spaces.Discrete(5)
    discrete.reset(seed=1), (plain := make()).reset(seed=1)
    assert np.array_equal(discrete.step(1)[0], plain.step("push")[0])


def test_dreams_begin_at_frames_of_the_clips_where_something_is_done(make, pan_folder):
    from worldgym.pan.clips import find_clips, read_frames

    clips = find_clips(pan_folder / "clips", 1)
    firsts = {read_frames(clip, first, 1, SIZE, SIZE).numpy().tobytes() for clip in clips for first in (0, 4, 8)}
    env = make()
    begun = {env.reset(seed=seed)[0].tobytes() for seed in range(12)}
    assert begun <= firsts and len(begun) > 3


def test_a_whole_past_can_be_observed(make):
    env = make()
    frames = np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 3), np.uint8)
    after = []
    for said in ("push", "go left"):
        assert np.array_equal(env.reset(seed=1, options={"frames": frames, "actions": [said]})[0], frames[-1])
        state = env.unwrapped.dreams.state.simulations[0]
        assert state.said == (said,) and len(state.scene.seen) == 2
        after.append(env.step("stay")[0])
    with pytest.raises(ValueError, match="4 more for each action"):
        env.reset(options={"frames": frames, "actions": ["push", "push"]})
    with pytest.raises(TypeError, match="list of sentences"):
        env.reset(options={"frames": frames, "actions": [3]})


def test_an_episode_ends_where_the_reward_is_reached(make):
    env = make(success_reward=0.0)
    env.reset(seed=1)
    assert env.step("push")[2:4] == (True, False) and env.step("push")[-1]["success"] is True
    never = make(success_reward=2.0, max_episode_steps=2)
    never.reset(seed=1)
    assert never.step("push")[2:4] == (False, False) and never.step("push")[2:4] == (False, True)


def test_a_goal_image_is_reached_at_zero(make):
    frame = make().reset(seed=1)[0]
    goal = make(reward=frame).unwrapped
    goal.reset(seed=1)
    judge = goal.dreams._reward(None)
    assert float(judge(goal.dreams.state)[0]) == pytest.approx(0.0, abs=1e-5)
    rewards = [goal.step("push")[1] for _ in range(2)]
    assert all(reward < -0.01 for reward in rewards)
    with pytest.raises(ValueError, match="goal image is uint8"):
        make(reward=frame[:8])


def test_a_goal_in_words_is_what_the_language_model_says(make):
    env = make(reward="the cup is full").unwrapped
    env.reset(seed=1)
    assert env.instruction == "the cup is full"
    _, reward, *_ = env.step("push")
    assert 0.0 < reward < 1.0
    env.instruction = "the cup is empty"
    other = float(env.dreams._reward("the cup is empty")(env.dreams.state)[0])
    assert other != pytest.approx(reward, abs=1e-7)
    env.reset(seed=1)
    assert env.step("push")[1] == pytest.approx(other)
    vector = gym.make_vec("worldgym/Pan-v0", 2, **{**env_arguments(env), "reward": "the cup is full"})
    vector.reset(seed=1, options={"instruction": ["the cup is full", "the cup is empty"]})
    vector.set_attr("instruction", ["the cup is empty", "the cup is full"])
    assert vector.get_attr("instruction") == ("the cup is empty", "the cup is full")
    assert vector.step(["push", "push"])[1][0] == pytest.approx(other, abs=1e-5)


def env_arguments(env) -> dict[str, Any]:
    from dataclasses import fields

    return {field.name: getattr(env.dreams.options, field.name) for field in fields(env.dreams.options)}


def test_a_function_of_frames_has_no_instruction(make):
    env = make().unwrapped
    env.reset(seed=1)
    with pytest.raises(ValueError, match="nobody to judge"):
        env.instruction = "the cup is full"
    with pytest.raises(ValueError, match="nobody to judge"):
        env.reset(options={"instruction": "the cup is full"})


@pytest.mark.parametrize(
    "changes, error, says",
    [
        ({"trained": None}, ValueError, "train pan joint"),
        ({"trained": "gone"}, ValueError, "no folder gone"),
        ({"reward": " "}, ValueError, "goal is empty"),
        ({"at_once": 0}, ValueError, "at least 1"),
        ({"starts": None}, ValueError, "no sentences to draw"),
        ({"phrases": "push"}, TypeError, "list of sentences"),
    ],
    ids=str,
)
def test_arguments_that_cannot_be_are_refused(make, changes, error, says):
    with pytest.raises(error, match=says):
        make(**changes)


def test_vectors_are_no_actions_of_it():
    with pytest.raises(ValueError, match="sentences alone"):
        action_space("vector", None, ["push"])


def test_without_starts_a_reset_needs_frames(make):
    env = make(starts=None, phrases=["wait"])
    with pytest.raises(ValueError, match="no starts"):
        env.reset(seed=1)
    frames = np.zeros((1, SIZE, SIZE, 3), np.uint8)
    assert np.array_equal(env.reset(seed=1, options={"frames": frames})[0], frames[0])


def test_all_environments_share_one_copy_of_the_weights(make, arguments):
    batch = gym.make_vec("worldgym/Pan-v0", 2, **arguments)
    assert make().unwrapped.world is make().unwrapped.world is batch.dreams.world


def test_it_can_be_pickled(make):
    env = make(reward="the cup is full")
    env.reset(seed=1), env.step("push")
    again = pickle.loads(pickle.dumps(env.unwrapped))
    assert again.world is env.unwrapped.world
    assert np.array_equal(again.step("stay")[0], env.step("stay")[0])
