"""The dream behind the Gymnasium API."""

import hashlib
import os
import subprocess
import sys
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3

from worldgym.checkpoint import fingerprint
from worldgym.data import load_episodes
from worldgym.env import DreamEnv, restore
from worldgym.envs_real.tabletop import TabletopEnv
from worldgym.errors import UserError
from worldgym.spaces import ACTION_MODES
from worldgym.starts import InitialStates, bundled_starts, recorded_starts
from worldgym.train.dynamics import pick_starts
from worldgym.world import WorldModel

STILL = np.zeros(2, np.float32)
FRAME = np.zeros((64, 64, 3), np.uint8)


@pytest.fixture
def dream(checkpoint):
    """Makes dreams of the tiny world."""
    return lambda **arguments: DreamEnv(str(checkpoint), device="cpu", **arguments)


def play(env, actions):
    """Steps through the actions: frames [t, ...] and rewards [t]."""
    steps = [env.step(action) for action in actions]
    return np.stack([step[0] for step in steps]), np.array([step[1] for step in steps])


def wander(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (count, 2)).astype(np.float32)


# -- the Gymnasium contract ----------------------------------------------------------------------------------


@pytest.mark.parametrize("obs_type", ["pixels", "latent", "both"])
@pytest.mark.parametrize("mode", ACTION_MODES)
def test_checkers_accept_it(checkpoint, mode, obs_type):
    """Gymnasium's, and Stable-Baselines3's of the actions that it knows."""
    arguments = {"world": str(checkpoint), "action_mode": mode, "obs_type": obs_type, "render_mode": "rgb_array"}
    env = gym.make("worldgym/Dream-v0", device="cpu", **arguments)
    check_env(env.unwrapped)
    if mode in ("vector", "discrete"):
        check_env_for_sb3(env)
    env.close()


IDS = {id for id in gym.registry if id.startswith("worldgym/")} - {"worldgym/Pan-v0", "worldgym/Remote-v0"}


@pytest.mark.parametrize("id", sorted(IDS))
def test_checkers_accept_every_id(checkpoint, id):
    """With the kind of action that both checkers know; worlds and twins with sentences take all four kinds. PAN's
    tests are in tests/pan, those of dreams over a network in tests/serve."""
    arguments = {"world": str(checkpoint)} if id == "worldgym/Dream-v0" else {}
    try:
        gym.make(id, action_mode="discrete", **arguments).close()
        modes = ACTION_MODES
    except ImportError as error:  # of a real world that is an extra
        pytest.skip(str(error))
    except ValueError as error:  # without sentences, vectors are all there is
        assert "sentences" in str(error)
        modes = ("vector",)
    for mode in modes:
        env = gym.make(id, action_mode=mode, **arguments)
        check_env(env.unwrapped)
        if mode in ("vector", "discrete"):
            check_env_for_sb3(env)
        env.close()


def test_a_step_returns_plain_python_values(dream):
    env = dream()
    observation, info = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert info == {"success": False, "uncertainty": 0.0, "too_uncertain": False, "num_frames": 0}
    observation, reward, terminated, truncated, info = env.step(STILL)
    assert env.observation_space.contains(observation)
    assert (type(reward), type(terminated), type(truncated)) == (float, bool, bool)
    assert {key: type(value) for key, value in info.items()} == {
        "success": bool, "uncertainty": float, "too_uncertain": bool, "num_frames": int
    }  # fmt: skip
    assert np.array_equal(env.render(), observation)


def test_time_runs_out_after_forty_steps(checkpoint):
    env = gym.make("worldgym/Dream-v0", world=str(checkpoint))
    env.reset(seed=0)
    assert [env.step(STILL)[2:4] for _ in range(40)] == [(False, False)] * 39 + [(False, True)]


def test_a_dream_that_says_so_ends(write_checkpoint):
    env = DreamEnv(str(write_checkpoint(ends=True)), device="cpu")
    env.reset(seed=0)
    assert env.step(STILL)[2] is True


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_seed_decides_the_dream(dream, temperature):
    env = dream(temperature=temperature)
    dreams = []
    for seed in (3, 3, 4):
        first, _ = env.reset(seed=seed)
        frames, rewards = play(env, wander(3))
        dreams.append((np.concatenate([first[None], frames]), rewards))
    one, same, other = dreams
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_with_temperature_seeds_part_from_the_same_start(dream):
    env, parts = dream(temperature=1.0), []
    for seed in (0, 1):
        first, _ = env.reset(seed=seed, options={"frames": FRAME[None]})
        parts.append((first, play(env, wander(2))[0]))
    assert np.array_equal(parts[0][0], parts[1][0])
    assert not np.array_equal(parts[0][1], parts[1][1])


def test_dreaming_leaves_torch_its_own_chances(dream):
    env = dream(temperature=1.0)
    before = torch.get_rng_state()
    env.reset(seed=0)
    env.step(STILL)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_dream_outlasts_its_window(dream):
    env = dream(temperature=1.0)
    env.reset(seed=0)
    frames, rewards = play(env, wander(4 * env.world.config.dynamics.window))
    assert np.isfinite(rewards).all()
    assert len({frame.tobytes() for frame in frames}) == len(frames)


# -- starting ------------------------------------------------------------------------------------------------


def test_it_starts_from_unsolved_bundled_frames(dream, checkpoint):
    env = dream()
    with np.load(checkpoint / "starts.npz") as file:
        frames = file["frames"]
    pictures = [env.reset(options={"frames": frame[None]})[0].tobytes() for frame in frames]
    assert len(set(pictures)) == len(pictures)
    drawn = {env.reset(seed=seed)[0].tobytes() for seed in range(40)}
    assert drawn == set(pictures[1:])  # the first is solved


def test_it_starts_from_what_was_really_seen(dream, frames, actions):
    """Past the end of its window, too, the environment dreams what the world model dreams."""
    env = dream()
    found, _ = env.reset(seed=0, options={"frames": frames[0], "actions": actions[0, :3]})
    state = env.world.start(frames[:1], actions[:1, :3])
    assert np.array_equal(found, env.world.render(state)[0].numpy())
    for action in actions[0, 3:9]:
        state, outcome = env.world.step(state, action[None])
        found, reward, *_ = env.step(action)
        assert np.array_equal(found, env.world.render(state)[0].numpy())
        assert reward == float(outcome.reward)


def test_it_starts_from_arrays_that_it_may_not_write_to(dream, frames, actions):
    """As slices of a memory-mapped dataset are."""
    env = dream()
    expected, _ = env.reset(seed=0, options={"frames": frames[0], "actions": actions[0, :3]})
    frames.flags.writeable = actions.flags.writeable = False
    found, _ = env.reset(seed=0, options={"frames": frames[0], "actions": actions[0, :3]})
    assert np.array_equal(found, expected)
    env.step(actions[0, 3])


def test_the_past_matters(dream, frames, actions):
    env = dream()
    env.reset(seed=0, options={"frames": frames[0, :2], "actions": actions[0, :1]})
    one = env.step(STILL)[1]
    env.reset(seed=0, options={"frames": frames[0, :2], "actions": -actions[0, :1]})
    assert env.step(STILL)[1] != one


def test_the_instruction_decides_the_reward(dream):
    rewards = []
    for instruction in ("reach the centre", "push the red block to the centre"):
        env = dream(instruction=instruction)
        assert env.instruction == instruction
        env.reset(seed=0, options={"frames": FRAME[None]})
        rewards.append(env.step(STILL)[1])
        env.reset(seed=0, options={"frames": FRAME[None], "instruction": "reach the centre"})
        assert env.step(STILL)[1] == rewards[0]
        env.reset(seed=0, options={"frames": FRAME[None]})  # the instruction stays
        assert env.step(STILL)[1] == rewards[0]
    assert rewards[0] != rewards[1]


def test_without_bundled_frames_it_asks_for_some(write_checkpoint):
    folder = write_checkpoint()
    (folder / "starts.npz").unlink()
    env = DreamEnv(str(folder), device="cpu")
    with pytest.raises(ValueError, match=r"starts\.npz"):
        env.reset(seed=0)
    env.reset(options={"frames": FRAME[None]})
    env.step(STILL)


# -- words ---------------------------------------------------------------------------------------------------


def test_a_sentence_covers_its_frames_and_sums_their_rewards(dream):
    text, core = dream(action_mode="text"), dream()
    text.reset(seed=0), core.reset(seed=0)
    state, total = core.dreams.state, 0.0
    for _ in range(3):
        state, outcome = core.world.step(state, ["move up"])
        total += float(outcome.reward)
    frame, reward, _, _, info = text.step("move up")
    assert info["num_frames"] == text.world.config.frames_per_action == 3
    assert reward == pytest.approx(total)
    assert np.array_equal(frame, core.world.render(state)[0].numpy())


def test_a_sentence_ends_with_the_dream(write_checkpoint):
    """If somebody asked for what ends it; else the sentence is finished first, and then the dream has ended."""
    goal = "reach the centre"
    options = {"world": str(write_checkpoint(ends=True)), "action_mode": "text", "device": "cpu"}
    for env, start, frames in (
        (DreamEnv(**options, instruction=goal), {}, 1),
        (DreamEnv(**options, reward=goal), {}, 1),
        (DreamEnv(**options), {"instruction": goal}, 1),
        (DreamEnv(**options), {}, 3),
    ):
        env.reset(seed=0, options=start)
        later = env.fork()
        _, _, terminated, _, info = env.step("move up")
        assert terminated and info["num_frames"] == frames
        assert later.step("move up")[4]["num_frames"] == frames
        env.instruction = goal
        env.reset(seed=0)
        assert env.step("move up")[4]["num_frames"] == 1


@pytest.mark.parametrize(("sentence", "known"), [("move up", True), ("fly to the moon", False), ("", False)])
def test_it_says_whether_it_knows_a_sentence(dream, sentence, known):
    """And stands still during an unknown one, for as long."""
    env, vectors = dream(action_mode="text"), dream()
    env.reset(seed=0), vectors.reset(seed=0)
    frame, reward, _, _, info = env.step(sentence)
    assert info["action_ok"] is known and (info["action_reason"] == "") is known
    assert np.isfinite(reward) and info["num_frames"] == 3
    still = [vectors.step(STILL) for _ in range(3)]
    stood = np.array_equal(frame, still[-1][0]) and reward == pytest.approx(sum(one[1] for one in still))
    assert stood is not known


def test_other_words_are_the_same_action(dream):
    env, other = dream(action_mode="text"), dream(action_mode="text")
    env.reset(seed=0), other.reset(seed=0)
    one, two = env.step("move up"), other.step("Would you go upwards, please?")
    assert np.array_equal(one[0], two[0]) and one[1:] == two[1:]


def test_several_things_in_one_sentence_take_their_turns(dream):
    """And a batch may mix them with one."""
    env, other = dream(action_mode="text"), dream(action_mode="text")
    env.reset(seed=0), other.reset(seed=0)
    one = env.step("go up, then stay where you are")
    first, second = other.step("move up"), other.step("stay still")
    assert np.array_equal(one[0], second[0]) and one[4]["num_frames"] == 6
    assert one[1] == pytest.approx(first[1] + second[1])


def test_an_index_is_its_sentence(dream):
    text, discrete = dream(action_mode="text"), dream(action_mode="discrete")
    text.reset(seed=0), discrete.reset(seed=0)
    assert discrete.action_space.n == len(discrete.phrases)
    one, other = text.step(discrete.phrases[2]), discrete.step(np.int64(2))
    assert np.array_equal(one[0], other[0]) and one[1] == other[1]


def test_where_both_are_taken_a_vector_or_a_sentence_will_do(dream):
    """As the pair that the space samples, or bare."""
    both = dream(action_mode="both")
    for plain, actions in (
        (dream(), [(0, STILL), STILL]),
        (dream(action_mode="text"), [(1, "move up"), "move up"]),
    ):
        plain.reset(seed=0)
        expected = plain.step(actions[1])
        for action in actions:
            both.reset(seed=0)
            found = both.step(action)
            assert np.array_equal(found[0], expected[0]) and found[1:4] == expected[1:4]
            assert found[4] == {**expected[4], "action_ok": True, "action_reason": ""}
    assert {both.action_space.sample()[0] for _ in range(20)} == {0, 1}


# -- observations --------------------------------------------------------------------------------------------


def test_latent_observations_decode_nothing(dream, monkeypatch):
    env, pictures = dream(obs_type="latent"), dream(obs_type="both")
    decode, calls = env.world.tokenizer.decode, []
    monkeypatch.setattr(env.world.tokenizer, "decode", lambda fused: calls.append(len(fused)) or decode(fused))
    first, _ = env.reset(seed=0)
    second = env.step(STILL)[0]
    assert not calls and env.observation_space.contains(second)
    frame = env.render()
    assert env.render() is not frame and calls == [1]  # once for each frame that is looked at
    both, _ = pictures.reset(seed=0)
    assert np.array_equal(both["latent"], first) and pictures.observation_space.contains(both)
    assert np.array_equal(pictures.step(STILL)[0]["pixels"], frame)


# -- rewards and ends ----------------------------------------------------------------------------------------


def test_a_goal_image_is_a_reward(dream, frames):
    """0 where it is reached, less elsewhere; and decodes nothing."""
    probe = dream()
    probe.reset(seed=0)
    probe.step(STILL)
    state = probe.dreams.state
    env = dream(reward=frames[0, 0])
    env.reset(seed=0)
    reward = env.step(STILL)[1]
    wanted = probe.world.see(torch.as_tensor(frames[0, :1]), state)
    assert reward == pytest.approx(-float((state.fused - wanted).norm() / wanted.norm()), abs=1e-5)
    assert reward < -0.01
    _, outcome = probe.world.step(state.fork(1), STILL[None])
    assert float(env.dreams._reward(replace(state, fused=wanted), outcome)[0]) == pytest.approx(0.0, abs=1e-5)


def test_a_goal_is_seen_anew_when_the_context_changes(dream, frames):
    """So that long dreams and new episodes are judged as they would be from the start."""
    env = dream(reward=frames[0, 0])
    env.reset(seed=0)
    play(env, wander(6))  # past the window
    blob, rewards = env.snapshot(), play(env, wander(3))[1]
    fresh = dream(reward=frames[0, 0])
    fresh.restore(blob)
    assert np.allclose(play(fresh, wander(3))[1], rewards)


def test_a_goal_in_words_is_a_reward(dream):
    """Learned, and whatever the instruction says of the end; it is the instruction where there is none."""
    goal = "push the red block to the centre"
    env, plain, other = dream(reward=goal), dream(instruction=goal), dream(reward=goal, instruction="reach the centre")
    assert env.instruction == goal and other.instruction == "reach the centre"
    for one in (env, plain, other):
        one.reset(seed=0, options={"frames": FRAME[None]})
    for action in wander(3):
        expected = plain.step(action)[1]
        assert env.step(action)[1] == pytest.approx(expected, abs=1e-5)
        assert other.step(action)[1] == pytest.approx(expected, abs=1e-5)


def test_a_function_of_frames_is_a_reward(dream):
    seen = []

    def brightness(frames):
        seen.append(frames)
        return frames.mean((1, 2, 3))

    env = dream(reward=brightness, action_mode="text")
    env.reset(seed=0)
    frame, reward, terminated, _, info = env.step("move up")
    assert [frames.shape for frames in seen] == [(1, 64, 64, 3)] * 3 and np.array_equal(seen[-1][0], frame)
    assert reward == pytest.approx(sum(frames.mean() for frames in seen), rel=1e-5)
    assert not terminated and not info["success"]


@pytest.mark.parametrize("returns", [lambda frames: 1.0, lambda frames: frames, lambda frames: [np.nan]])
def test_a_bad_reward_function_says_so_and_is_harmless(dream, returns):
    env = dream(reward=returns)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"for 1 frames; it must return \(1,\) finite"):
        env.step(STILL)
    env.reset(seed=0)
    assert env.render().shape == (64, 64, 3)


def test_an_instruction_ends_a_dream_whatever_rewards_it(write_checkpoint):
    """And without one, under another reward, it never terminates."""
    options = {"world": str(write_checkpoint(ends=True)), "device": "cpu", "reward": FRAME}
    for env, ends in ((DreamEnv(instruction="reach the centre", **options), True), (DreamEnv(**options), False)):
        env.reset(seed=0)
        assert env.step(STILL)[2] is ends


def test_uncertainty_costs_what_was_asked(dream):
    free, dear = dream(action_mode="text"), dream(action_mode="text", uncertainty_penalty=2.0)
    free.reset(seed=0), dear.reset(seed=0)
    state, total = free.dreams.state.fork(1), 0.0
    for _ in range(3):
        state, outcome = free.world.step(state, ["move up"])
        total += float(outcome.uncertainty)
    assert dear.step("move up")[1] == pytest.approx(free.step("move up")[1] - 2.0 * total, abs=1e-4)


def test_a_dream_that_grew_too_uncertain_is_cut_but_never_by_its_first_step(dream):
    env = dream(max_uncertainty=1e-6)
    for _ in range(2):
        env.reset(seed=0)
        *_, truncated, info = env.step(STILL)
        assert truncated is False and info["too_uncertain"] is False
        *_, terminated, truncated, info = env.step(STILL)
        assert truncated is True and terminated is False and info["too_uncertain"] is True


def test_it_starts_from_a_recording(dream, dataset):
    env = dream(starts=dataset)
    first, _ = env.reset(seed=0)
    assert np.array_equal(env.reset(seed=0)[0], first) and not np.array_equal(env.reset(seed=1)[0], first)


def test_it_does_not_start_where_a_recording_ended(dataset, make_world):
    """Neither where the task is done nor where it has failed; without a task, not where nothing goes on."""
    data, random = load_episodes(dataset), np.random.default_rng(0)
    starts = recorded_starts(dataset, make_world().config)
    assert np.array_equal(starts.over, data.successes | data.terminations)
    frames = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1).repeat(3, 3)
    actions, rows, tasks = np.zeros((6, 2), np.float32), np.arange(6), ("reach", "push")
    over = np.array([[0, 0], [1, 0], [0, 1], [1, 1], [1, 1], [0, 1]], bool)
    starts = InitialStates(frames, actions, rows, over, tasks)
    drawn = {task: {int(starts.draw(task, random).frames[0, 0, 0, 0]) for _ in range(60)} for task in (*tasks, None)}
    assert drawn == {"reach": {0, 2, 5}, "push": {0, 1}, None: {0, 1, 2, 5}}
    with pytest.raises(ValueError, match="everything is already done in all 2"):
        InitialStates(frames, actions, rows[3:5], over[3:5], tasks).draw(None, random)


def test_where_motion_is_told_it_starts_from_as_many_frames_as_tell_it(make_world, write_checkpoint, recording):
    """Those that training leaves beside the weights, each from within one episode of the test split."""
    world = make_world(memory=3)
    folder = write_checkpoint(world)
    data = recording(40, 9)
    (folder / "starts.npz").write_bytes(pick_starts(data, 9, 3))
    starts = bundled_starts(str(folder), world.config)
    assert starts.count == 3 and len(starts.newest) == 2
    begun, first = starts.draw(None, np.random.default_rng(0)), data.starts[[19, 39]]
    assert any(np.array_equal(begun.frames, data.frames[row : row + 3]) for row in first)
    assert any(np.array_equal(begun.actions, data.actions[row : row + 2]) for row in first)
    env = gym.make("worldgym/Dream-v0", world=str(folder), instruction=None)
    env.reset(seed=0)
    state = env.unwrapped.dreams.state
    assert (state.fused - state.past[:, -1]).any() and state.past_actions[0, -2:].any(-1).all()


def test_a_recordings_episodes_begin_where_enough_was_seen(dataset, make_world):
    data, starts = load_episodes(dataset), recorded_starts(dataset, make_world(memory=3).config)
    first = data.starts[np.searchsorted(data.starts, starts.newest, side="right") - 1]
    assert (starts.newest - first >= 2).all() and len(starts.newest) == len(data.frames) - 2 * (len(data.starts) - 1)
    assert len(starts.over) == len(starts.newest)


def test_a_recording_of_another_size_is_no_start(dataset, make_world):
    config = replace(make_world().config, action_size=3)
    with pytest.raises(ValueError, match=r"64 pixels a side and actions of 2 numbers; .*begins from 64.*takes 3"):
        recorded_starts(dataset, config)


def test_shards_are_no_starts(make_world):
    with pytest.raises(UserError, match="memory://set is streamed"):
        recorded_starts("memory://set", make_world().config)


# -- errors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"world": "atlantis"}, "unknown world 'atlantis'"),
        ({"instruction": "fly"}, "unknown instruction 'fly'.*for instance: reach the centre"),
        ({"action_mode": "voice"}, "action_mode.*voice"),
        ({"render_mode": "human"}, "render_mode.*human"),
        ({"device": "abacus"}, "device 'abacus'"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"obs_type": "sound"}, "obs_type.*sound"),
        ({"reward": "praise"}, "reward is 'praise'.*a goal in words.*reach the centre"),
        ({"reward": FRAME[:32]}, r"goal image is uint8 \(32, 64, 3\)"),
        ({"uncertainty_penalty": -1.0}, "uncertainty_penalty is -1.0"),
        ({"max_uncertainty": 0.0}, "max_uncertainty is 0.0"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_dream_that_cannot_be_is_refused(checkpoint, arguments, says):
    # TypeError: the type checks of these tests refuse a wrong Literal before the environment does.
    with pytest.raises((ValueError, TypeError), match=f"(?s){says}"):
        DreamEnv(**{"world": str(checkpoint), **arguments}).reset(seed=0)


@pytest.mark.parametrize("use", ["render", "snapshot", "step"])
def test_before_reset_it_asks_for_one(dream, use):
    env = dream()
    with pytest.raises(gym.error.ResetNeeded, match=r"reset\(\)"):
        env.step(STILL) if use == "step" else getattr(env, use)()
    env.reset(seed=0)
    env.step(STILL)


@pytest.mark.parametrize(
    ("mode", "action", "error", "says"),
    [
        ("vector", np.zeros(3, np.float32), ValueError, r"shape \(3,\); this world takes \(2,\)"),
        ("vector", np.zeros((1, 2), np.float32), ValueError, r"shape \(1, 2\)"),
        ("vector", np.array([np.nan, 0], np.float32), ValueError, "not finite"),
        ("vector", np.array([0, np.inf], np.float32), ValueError, "not finite"),
        ("vector", "move up", TypeError, "dtype"),
        ("vector", None, TypeError, "dtype"),
        ("vector", np.array([True, False]), TypeError, "dtype bool"),
        ("text", 3, TypeError, "takes a sentence; got int 3"),
        ("text", ["move up"], TypeError, "takes a sentence; got list"),
        ("discrete", 4, ValueError, "index below 4"),
        ("discrete", -1, ValueError, "index below 4"),
        ("discrete", "move up", ValueError, "index below 4"),
    ],
)
def test_bad_actions_are_refused_and_harmless(dream, mode, action, error, says):
    env = dream(action_mode=mode)
    env.reset(seed=0)
    before = env.snapshot()
    with pytest.raises(error, match=says):
        env.step(action)
    assert env.snapshot() == before
    env.step(env.action_space.sample())


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"frames": np.zeros((1, 32, 32, 3), np.uint8)}, ValueError, r"have shape \(1, 1, 32, 32, 3\)"),
        ({"frames": FRAME}, ValueError, "frames have shape"),
        ({"frames": np.zeros((0, 64, 64, 3), np.uint8)}, ValueError, "frames have shape"),
        ({"frames": FRAME[None].astype(np.float32)}, TypeError, "uint8"),
        ({"frames": np.stack([FRAME, FRAME])}, ValueError, "2 frames"),
        ({"frames": FRAME[None], "actions": np.zeros((1, 2), np.float32)}, ValueError, "1 frames"),
        ({"frames": np.stack([FRAME, FRAME]), "actions": np.full((1, 2), np.nan)}, ValueError, "finite"),
        ({"frames": np.stack([FRAME, FRAME]), "actions": np.zeros((1, 3))}, ValueError, "actions have shape"),
        ({"actions": np.zeros((1, 2), np.float32)}, ValueError, "frames"),
        ({"instruction": "fly"}, ValueError, "unknown instruction 'fly'"),
        ({"colour": "red"}, ValueError, r"unknown reset options \['colour'\]; known are"),
    ],
    ids=[
        "small", "no time", "no frames", "float", "no actions", "an action too many", "nan", "wide actions",
        "actions alone", "instruction", "option",
    ],
)  # fmt: skip
def test_bad_starts_are_refused_and_harmless(dream, options, error, says):
    env = dream()
    env.reset(seed=0)
    with pytest.raises(error, match=says):
        env.reset(seed=0, options=options)
    assert env.instruction == "reach the centre"
    env.step(STILL)
    env.reset(seed=0)


# -- snapshots -----------------------------------------------------------------------------------------------


def test_a_snapshot_continues_exactly(dream):
    env = dream(temperature=1.0)
    env.reset(seed=0, options={"instruction": "push the red block to the centre"})
    frame = play(env, wander(3))[0][-1]
    blob = env.snapshot()
    expected = play(env, wander(6, seed=1))
    again, _ = env.reset()

    for target in (env, dream()):
        target.reset(seed=5, options={"instruction": "reach the centre"})
        target.restore(blob)
        assert target.instruction == "push the red block to the centre"
        assert np.array_equal(target.render(), frame)
        found = play(target, wander(6, seed=1))
        assert all(np.array_equal(a, b) for a, b in zip(expected, found, strict=True))
        assert np.array_equal(target.reset()[0], again)  # so does the next episode


def test_a_snapshot_can_be_restored_before_any_reset(dream):
    env, fresh = dream(), dream()
    env.reset(seed=0)
    fresh.restore(env.snapshot())
    assert np.array_equal(fresh.render(), env.render())
    assert fresh.step(STILL)[1] == env.step(STILL)[1]


ELSEWHERE = """
import hashlib, sys
import numpy as np
from worldgym.env import DreamEnv
env = DreamEnv(sys.argv[1], device="cpu")
env.restore(open(sys.argv[2], "rb").read())
digest = hashlib.sha256()
for action in np.random.default_rng(1).uniform(-1, 1, (6, 2)).astype(np.float32):
    frame, reward, *_ = env.step(action)
    digest.update(frame.tobytes() + np.float64(reward).tobytes())
print(digest.hexdigest())
"""


def test_a_snapshot_continues_exactly_in_another_process(dream, checkpoint, tmp_path):
    env = dream(temperature=1.0)
    env.reset(seed=0)
    play(env, wander(3))
    (tmp_path / "snapshot").write_bytes(env.snapshot())
    digest = hashlib.sha256()
    for frame, reward in zip(*play(env, wander(6, seed=1)), strict=True):
        digest.update(frame.tobytes() + np.float64(reward).tobytes())
    elsewhere = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(checkpoint), str(tmp_path / "snapshot")],
        cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        capture_output=True, text=True,
    )  # fmt: skip
    assert elsewhere.returncode == 0, elsewhere.stderr
    assert elsewhere.stdout.split()[-1] == digest.hexdigest()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda env: b"",
        lambda env: b"nonsense",
        lambda env: b"[1, 2]\n" + bytes(100),
        lambda env: env.snapshot()[:100],
        lambda env: env.snapshot()[:-10],
        lambda env: env.snapshot() + b"more",
        lambda env: env.snapshot().replace(b'"version": 5', b'"version": 99', 1),
        lambda env: env.snapshot().replace(b'"tiny"', b'"huge"', 1),
        lambda env: env.snapshot().replace(b'"randoms"', b'"radnoms"', 1),
        lambda env: env.snapshot().replace(b"reach the centre", b"fly to the moon!", 1),
        lambda env: env.dreams.state.snapshot(),
        lambda env: _of_the_real_table(),
    ],
    ids=[
        "empty", "nonsense", "foreign", "cut header", "cut body", "too long", "version", "another world",
        "no random", "instruction", "a core state", "the real table",
    ],
)  # fmt: skip
def test_a_spoilt_snapshot_is_refused_and_harmless(dream, spoil):
    env = dream()
    env.reset(seed=0)
    spoilt = spoil(env)
    play(env, wander(2))
    before = env.snapshot()
    with pytest.raises(ValueError, match=r"snapshot|instruction"):
        env.restore(spoilt)
    assert env.snapshot() == before
    env.step(STILL)


def _of_the_real_table() -> bytes:
    env = TabletopEnv()
    env.reset(seed=0)
    blob = env.snapshot()
    env.close()
    return blob


def test_a_snapshot_of_a_world_of_another_size_is_refused_and_harmless(dream, write_checkpoint, make_world):
    """Also where both go by the same name, as after training it anew."""
    env, other = dream(), DreamEnv(str(write_checkpoint(make_world(window=8))), device="cpu")
    env.reset(seed=0), other.reset(seed=0)
    play(other, wander(6))
    with pytest.raises(ValueError, match="snapshot"):
        env.restore(other.snapshot())
    play(env, wander(6))


def test_a_snapshot_of_other_weights_is_refused_and_harmless(dream, write_checkpoint, make_world):
    """Of the same name and size: what follows would not be what would have followed."""
    trained = make_world()
    with torch.no_grad():
        for weights in trained.parameters():
            weights += 1e-4
    env, other = dream(), DreamEnv(str(write_checkpoint(trained)), device="cpu")
    env.reset(seed=0), other.reset(seed=0)
    before = env.snapshot()
    with pytest.raises(ValueError, match="trained since"):
        env.restore(other.snapshot())
    assert env.snapshot() == before


def test_fingerprints_follow_the_weights(make_world):
    world = make_world()
    first = fingerprint(world)
    assert fingerprint(make_world()) == first
    with torch.no_grad():
        next(world.parameters()).add_(1.0)
    assert fingerprint(world) != first


def test_a_time_limit_goes_on_from_a_snapshot(checkpoint):
    """Forwards and backwards, also before any reset; and the number of steps is the whole episode's."""
    env, other = (
        gym.make("worldgym/Dream-v0", world=str(checkpoint), device="cpu", max_episode_steps=4) for _ in range(2)
    )
    env.reset(seed=0)
    env.step(STILL)
    blob = env.unwrapped.snapshot()
    env.step(STILL), env.step(STILL)
    for one in (env, other):
        restore(one, blob)
        assert [one.step(STILL)[3] for _ in range(3)] == [False, False, True]
    with pytest.raises(TypeError, match="is not a dream"):
        restore(TabletopEnv(), blob)


def test_a_fork_goes_its_own_way(dream):
    env = dream(temperature=1.0)
    env.reset(seed=0)
    play(env, wander(2))
    fork, batch, before = env.fork(), env.fork(2), env.snapshot()
    assert fork.snapshot() == before
    frames = play(fork, wander(3))[0]
    batch.step(np.ones((2, 2), np.float32))
    assert env.snapshot() == before
    assert np.array_equal(play(env, wander(3))[0], frames)
    assert np.array_equal(env.reset()[0], fork.reset()[0])


def test_the_instruction_may_be_changed_at_any_time(dream):
    env, other = dream(), dream(instruction="push the red block to the centre")
    for one in (env, other):
        one.reset(seed=0, options={"frames": FRAME[None]})
        one.step(STILL)
    env.instruction = "push the red block to the centre"
    assert env.step(STILL)[1] == pytest.approx(other.step(STILL)[1])


# -- sharing -------------------------------------------------------------------------------------------------


def test_environments_share_their_weights_and_nothing_else(dream):
    one, other = dream(), dream(action_mode="text")
    assert one.world is other.world
    one.reset(seed=0)
    expected = play(one, wander(3))
    one.reset(seed=0), other.reset(seed=1)
    frames, rewards = [], []
    for action in wander(3):
        frame, reward, *_ = one.step(action)
        other.step("move up")
        frames.append(frame), rewards.append(reward)
    assert np.array_equal(np.stack(frames), expected[0]) and np.array_equal(rewards, expected[1])


def test_closing_one_leaves_the_others_running(checkpoint):
    one, other = (gym.make("worldgym/Dream-v0", world=str(checkpoint)) for _ in range(2))
    one.reset(seed=0), other.reset(seed=0)
    expected = other.step(STILL)[0]
    one.close(), one.close()
    other.reset(seed=0)
    assert np.array_equal(other.step(STILL)[0], expected)


def test_worlds_of_two_folders_do_not_mix(dream, write_checkpoint, make_world):
    tiny = make_world()
    retrained = WorldModel(replace(tiny.config, name="other"), tiny.text).eval().requires_grad_(False)
    other = DreamEnv(str(write_checkpoint(retrained)), device="cpu")
    env = dream()
    env.reset(seed=0, options={"frames": FRAME[None]}), other.reset(seed=0, options={"frames": FRAME[None]})
    assert env.world.config.name == "tiny" and other.world.config.name == "other"
    assert not np.array_equal(env.step(STILL)[0], other.step(STILL)[0])
