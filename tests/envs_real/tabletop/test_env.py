"""The real twin: MuJoCo behind the Gymnasium API; snapshots, skills, rewards, factors of variation."""

import json

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3

import worldgym  # noqa: F401  registers the ids
from worldgym.envs_real.tabletop import FACTORS, TabletopEnv, Variation, locate, sample_variation
from worldgym.envs_real.tabletop.skills import phrases, skill_action
from worldgym.envs_real.tabletop.tasks import DIRECTIONS, evaluate_task, find_task, tasks

ID = "worldgym/TabletopMuJoCo-v0"
COLORS = ("red", "blue")
AGAINST = {"left": "right side", "right": "left side", "up": "bottom side", "down": "top side"}
"""A place that a push in the given direction moves away from, so that success cannot cut it short."""
RESTLESS = {"action_noise": 0.3, "action_delay": 2}
CROWDED = {"colors": ("green", "purple", "yellow"), "shapes": ("hexagon", "box"), "distractors": 2}


@pytest.fixture
def table():
    """Makes tables, and closes their renderers afterwards."""
    made = []

    def make(instruction: str | None = "reach the centre", **arguments) -> TabletopEnv:
        made.append(TabletopEnv(instruction, **arguments))
        return made[-1]

    yield make
    for env in made:
        env.close()


def play(env, actions):
    """Steps through the actions: frames [t, ...], positions [t, ...] and rewards [t]."""
    steps = [env.step(action) for action in actions]
    return (
        np.stack([step[0] for step in steps]),
        np.stack([step[4]["positions"] for step in steps]),
        np.array([step[1] for step in steps]),
    )


def wander(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (count, 2)).astype(np.float32)


# -- the Gymnasium contract ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["vector", "text", "discrete"])
def test_gymnasium_accepts_it(table, mode):
    check_env(table(action_mode=mode), skip_render_check=True)


@pytest.mark.parametrize("mode", ["vector", "text", "discrete"])
def test_gymnasium_accepts_what_make_returns(mode):
    env = gym.make(ID, action_mode=mode, render_mode="rgb_array")
    check_env(env.unwrapped)
    env.close()


@pytest.mark.parametrize("mode", ["vector", "discrete"])
def test_stable_baselines_accepts_it(mode):
    env = gym.make(ID, action_mode=mode)
    check_env_for_sb3(env)
    env.close()


def test_the_seed_decides_the_rollout(table):
    env = table(variation={"action_noise": 0.2})
    rollouts = []
    for seed in (4, 4, 5):
        first, _ = env.reset(seed=seed)
        frames, positions, rewards = play(env, wander(5))
        rollouts.append((np.concatenate([first[None], frames]), positions, rewards))
    one, same, other = rollouts
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_time_runs_out_after_forty_steps():
    env = gym.make(ID, instruction="separate the blocks")
    env.reset(seed=0)
    ends = [env.step(np.zeros(2, np.float32))[2:4] for _ in range(40)]
    env.close()
    assert ends == [(False, False)] * 39 + [(False, True)]


# -- snapshots -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variation", [{}, RESTLESS, CROWDED], ids=["nominal", "restless", "crowded"])
@pytest.mark.parametrize("fresh", [False, True], ids=["same table", "fresh table"])
def test_a_snapshot_continues_exactly(table, variation, fresh):
    env = table("reach the left side", variation=variation)
    env.reset(seed=1)
    play(env, wander(4))
    blob = env.snapshot()
    expected = play(env, wander(4, seed=1))
    again, info = env.reset()  # the next episode, too, follows from the snapshot

    target = table("reach the centre", variation=variation) if fresh else env
    target.reset(seed=2, options={"instruction": "reach the top side"})
    play(target, wander(3, seed=2))
    target.restore(blob)
    assert target.instruction == "reach the left side"
    found = play(target, wander(4, seed=1))
    assert all(np.array_equal(a, b) for a, b in zip(expected, found, strict=True))
    frame, found_info = target.reset()
    assert np.array_equal(frame, again)
    assert np.array_equal(found_info["positions"], info["positions"])


@pytest.mark.parametrize("variation", [{}, CROWDED], ids=["nominal", "crowded"])
@pytest.mark.parametrize("fresh", [False, True], ids=["same table", "fresh table"])
def test_a_restored_table_looks_as_it_did(table, variation, fresh):
    env = table(variation=variation)
    env.reset(seed=1)
    for action in ((1, 0), (0, 1), (-1, 0), (0, -1)):  # whichever wall is near, some of these move
        frame, *_ = env.step(np.array(action, np.float32))
        blob = env.snapshot()
        target = table(variation=variation) if fresh else env
        target.restore(blob)
        assert np.array_equal(target.render(), frame)


def without(blob: bytes, field: str) -> bytes:
    header, _, body = blob.partition(b"\n")
    meta = json.loads(header)
    del meta[field]
    return json.dumps(meta).encode() + b"\n" + body


@pytest.mark.parametrize(
    "spoil",
    [
        lambda blob: b"",
        lambda blob: b"nonsense",
        lambda blob: b"[1, 2]\n" + bytes(100),
        lambda blob: blob[: len(blob) // 20],
        lambda blob: blob[:-8],
        lambda blob: blob + bytes(8),
        lambda blob: blob.replace(b'"version": 2', b'"version": 99', 1),
        lambda blob: blob.replace(b"reach the centre", b"fly to the moon!", 1),
        lambda blob: without(blob, "variation"),
        lambda blob: without(blob, "random"),
        lambda blob: without(blob, "late"),
    ],
    ids=[
        "empty", "nonsense", "foreign", "cut header", "cut body", "too long", "version", "instruction",
        "no variation", "no random", "no late",
    ],
)  # fmt: skip
def test_a_spoilt_snapshot_is_refused_and_harmless(table, spoil):
    env = table()
    env.reset(seed=0)
    blob = env.snapshot()
    play(env, wander(3))
    before = env.snapshot()
    with pytest.raises(ValueError, match=r"snapshot|instruction"):
        env.restore(spoil(blob))
    assert env.snapshot() == before
    env.step(np.zeros(2, np.float32))


@pytest.mark.parametrize("other", [{"mass": 2.0}, {"colors": ("red",)}, RESTLESS])
def test_a_snapshot_of_another_table_is_refused(table, other):
    env, foreign = table(), table(variation=other)
    env.reset(seed=0), foreign.reset(seed=0)
    before = env.snapshot()
    with pytest.raises(ValueError, match="another variation"):
        env.restore(foreign.snapshot())
    assert env.snapshot() == before


@pytest.mark.parametrize("variation", [{}, RESTLESS], ids=["nominal", "restless"])
def test_evaluate_is_stepping_without_having_stepped(table, variation):
    env = table("push the red block to the centre", variation=variation)
    env.reset(seed=3)
    env.step(np.array([0.5, 0.5], np.float32))
    sequences = np.stack([wander(6, seed) for seed in range(3)])
    before = env.snapshot()
    returns = env.evaluate(sequences)
    assert env.snapshot() == before
    for sequence, expected in zip(sequences, returns, strict=True):
        env.restore(before)
        assert play(env, sequence)[2].sum() == pytest.approx(expected, abs=1e-5)


def test_a_sequence_stops_earning_at_success(table):
    env = table()
    env.reset(seed=0)
    path = []
    probe = env.snapshot()
    for _ in range(40):
        path.append(skill_action(env.task, env.positions, env.colors))
        if env.step(path[-1])[2]:
            break
    env.restore(probe)
    away = np.array([*path, *[np.ones(2, np.float32)] * 5])
    assert env.evaluate(away[None])[0] == env.evaluate(np.array(path)[None])[0]


# -- words ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("color", COLORS)
def test_a_directional_push_moves_its_block_that_way(table, color, direction):
    env = table(f"push the {color} block to the {AGAINST[direction]}", action_mode="text")
    for seed in range(5):
        _, before = env.reset(seed=seed)
        *_, after = env.step(f"push the {color} block {direction}")
        moved = (after["positions"] - before["positions"])[1 + COLORS.index(color)]
        assert moved @ np.array(DIRECTIONS[direction]) > 0.1, f"seed {seed}"


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_pusher_moves_as_told(table, direction):
    env = table("separate the blocks", action_mode="text")
    for seed in range(3):
        _, before = env.reset(seed=seed)
        *_, after = env.step(f"move {direction}")
        assert (after["positions"] - before["positions"])[0] @ np.array(DIRECTIONS[direction]) > 0.1


@pytest.mark.parametrize(
    "instruction",
    [
        "reach the centre", "reach the red block", "push the red block to the centre",
        "push the blue block to the top left corner", "push the red block to the blue block",
        "gather the blocks", "separate the blocks",
    ],
)  # fmt: skip
def test_its_skill_solves_an_instruction(table, instruction):
    """Reward below zero and no end until success; then reward 0, success and termination together."""
    env = table(instruction)
    for seed in (1, 2, 5):
        _, info = env.reset(seed=seed)
        assert info["success"] is False
        for _ in range(40):
            action = skill_action(env.task, env.positions, env.colors)
            _, reward, terminated, truncated, info = env.step(action)
            assert type(reward) is float and truncated is False
            if terminated:
                break
            assert reward < 0 and terminated is False and info["success"] is False
        assert reward == 0.0 and terminated is True and info["success"] is True, f"seed {seed}"


def test_a_sentence_sums_the_rewards_of_its_frames(table):
    env, plain = table("separate the blocks", action_mode="text"), table("separate the blocks")
    env.reset(seed=0), plain.reset(seed=0)
    _, total, terminated, _, info = env.step("move left")
    rewards = play(plain, [np.array(DIRECTIONS["left"], np.float32)] * 16)[2]
    assert not terminated and info["num_frames"] == 16 and info["action_ok"] is True
    assert total == pytest.approx(rewards.sum())
    assert np.array_equal(info["positions"], plain.positions)


def test_a_sentence_is_finished_where_nobody_asked_for_its_success(table):
    """Also in a fork and after a restore; and cut short once somebody asks."""
    env = table(None, action_mode="text")
    env.reset(seed=0)
    env.data.qpos[env._joints[0]] = 0.8  # the pusher is out of the way
    env.data.qpos[env._joints[1]] = 0.0  # and the red block at the centre
    blob, fork = env.snapshot(), env.fork()
    for one in (env, fork):
        assert one.step("stay still")[4]["num_frames"] == 16
    env.restore(blob)
    *_, terminated, _, info = env.step("stay still")
    assert terminated and info["success"] and info["num_frames"] == 16
    asked = table(env.instruction, action_mode="text")
    asked.restore(blob)
    assert asked.step("stay still")[4]["num_frames"] == 16  # a snapshot says who asked, too
    env.reset(seed=0, options={"instruction": env.instruction})
    env.data.qpos[env._joints[0]], env.data.qpos[env._joints[1]] = 0.8, 0.0
    assert env.step("stay still")[4]["num_frames"] == 1


def test_other_words_and_several_things_are_carried_out(table):
    one, other = table(action_mode="text"), table(action_mode="text", instruction="Bring the red cube to the middle!")
    one.reset(seed=0), other.reset(seed=0)
    assert other.instruction == "push the red block to the centre"
    one.step("move left"), one.step("push the red block up")
    info = other.step("go leftwards, then shove the crimson cube upwards")[4]
    assert info["num_frames"] == 32 and info["action_ok"] is True and info["action_reason"] == ""
    assert np.array_equal(one.positions, other.positions)


def test_a_sentence_ends_with_the_episode(table):
    env = table("reach the centre", action_mode="text")
    env.reset(seed=0)
    _, _, terminated, _, info = env.step("reach the centre")
    assert terminated and info["success"] is True and info["num_frames"] < 16


@pytest.mark.parametrize("sentence", ["fly to the moon", "", "do not move left"])
def test_an_unknown_sentence_leaves_everything_still(table, sentence):
    env = table(action_mode="text")
    first, before = env.reset(seed=0)
    frame, _, _, _, info = env.step(sentence)
    assert info["action_ok"] is False and info["action_reason"] and info["num_frames"] == 16
    np.testing.assert_allclose(info["positions"], before["positions"], atol=1e-4)
    assert np.array_equal(frame, first)


def test_an_index_is_its_sentence(table):
    text, discrete = table(action_mode="text"), table(action_mode="discrete")
    text.reset(seed=0), discrete.reset(seed=0)
    index = text.phrases.index("push the blue block up")
    assert discrete.action_space.n == len(discrete.phrases) == len(phrases(COLORS))
    one, other = text.step("push the blue block up"), discrete.step(np.int64(index))
    assert np.array_equal(one[0], other[0]) and one[1] == other[1]


# -- errors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"instruction": "fly to the moon"}, "unknown instruction 'fly to the moon'.*for instance: reach"),
        ({"instruction": "reach the green block"}, "unknown instruction"),
        ({"variation": {"colors": ("red", "mauve")}}, "colors.*distinct names from red, blue"),
        ({"variation": {"colors": ("red", "red")}}, "distinct"),
        ({"variation": {"colors": ()}}, "distinct"),
        ({"variation": {"camera_tilt": 75.0}}, "camera_tilt 75.0"),
        ({"variation": {"mass": 0.0}}, "mass 0.0 must be positive"),
        ({"action_mode": "voice"}, "action_mode.*voice"),
        ({"render_mode": "human"}, "render_mode.*human"),
    ],
)
def test_a_table_that_cannot_be_is_refused(table, arguments, says):
    # TypeError: the type checks of these tests refuse a wrong Literal before the environment does.
    with pytest.raises((ValueError, TypeError), match=f"(?s){says}"):
        table(**arguments)


@pytest.mark.parametrize(
    ("mode", "action", "error", "says"),
    [
        ("vector", np.zeros(3, np.float32), ValueError, r"shape \(3,\); this world takes \(2,\)"),
        ("vector", np.zeros((1, 2), np.float32), ValueError, r"shape \(1, 2\)"),
        ("vector", np.float32(0.5), ValueError, r"shape \(\)"),
        ("vector", np.array([np.nan, 0], np.float32), ValueError, "not finite"),
        ("vector", np.array([0, np.inf], np.float32), ValueError, "not finite"),
        ("vector", "move left", TypeError, "dtype"),
        ("vector", None, TypeError, "dtype"),
        ("vector", np.array([True, False]), TypeError, "dtype bool"),
        ("vector", np.array([1j, 0]), TypeError, "dtype complex"),
        ("text", 3, TypeError, "takes a sentence; got int 3"),
        ("text", np.zeros(2, np.float32), TypeError, "takes a sentence"),
        ("discrete", 10**6, ValueError, "index below"),
        ("discrete", -1, ValueError, "index below"),
        ("discrete", 0.5, ValueError, "index below"),
        ("discrete", "move left", ValueError, "index below"),
    ],
)
def test_bad_actions_are_refused_and_harmless(table, mode, action, error, says):
    env = table(action_mode=mode)
    env.reset(seed=0)
    before = env.snapshot()
    with pytest.raises(error, match=says):
        env.step(action)
    assert env.snapshot() == before
    env.step(env.action_space.sample())


def test_large_actions_are_clipped(table):
    env = table()
    ends = []
    for action in ([1.0, -1.0], [7.0, -1e30]):
        env.reset(seed=0)
        ends.append(env.step(np.array(action))[4]["positions"])
    assert np.array_equal(*ends)


def test_an_unknown_instruction_at_reset_is_refused_and_harmless(table):
    env = table()
    env.reset(seed=0)
    with pytest.raises(ValueError, match="unknown instruction 'fly'"):
        env.reset(options={"instruction": "fly"})
    assert env.instruction == "reach the centre"
    env.step(np.zeros(2, np.float32))


# -- instructions --------------------------------------------------------------------------------------------

# pusher, red, blue
SPREAD_OUT = ((0.0, 0.0), (0.3, 0.0), (-0.3, 0.4))
SIDE_BY_SIDE = ((0.0, 0.5), (-0.2, 0.0), (0.2, 0.0))
FAR_APART = ((0.0, 0.0), (-0.7, 0.0), (0.7, 0.0))


@pytest.mark.parametrize(
    ("positions", "instruction", "reward", "success"),
    [
        (SPREAD_OUT, "reach the centre", 0.0, True),
        (SPREAD_OUT, "reach the left side", -0.6, False),
        (SPREAD_OUT, "reach the top right corner", -0.848528, False),
        (SPREAD_OUT, "reach the red block", 0.0, True),  # 0.3 away; closer than 0.35 is touching
        (SPREAD_OUT, "reach the blue block", -0.5, False),
        # 0.3 to go, and the pusher is 0.01 from where it must stand, 0.31 behind the block
        (SPREAD_OUT, "push the red block to the right side", -(0.3 + 0.5 * 0.01), False),
        (SPREAD_OUT, "push the red block to the centre", -(0.3 + 0.5 * 0.61), False),
        # the centres are 0.72111 apart and touch at 0.34; the place behind the red one is (0.55794, -0.17196)
        (SPREAD_OUT, "push the red block to the blue block", -(0.38111 + 0.5 * 0.58384), False),
        # half their distance is 0.36056, wanted 0.24 or 0.65; the pusher is 0.01 short of the red one
        (SPREAD_OUT, "gather the blocks", -(0.12056 + 0.25 * 0.01), False),
        (SPREAD_OUT, "separate the blocks", -(0.28944 + 0.25 * 0.01), False),
        # 0.2 away is just not there; the pusher is 0.71421 from its place, (-0.51, 0)
        (SIDE_BY_SIDE, "push the red block to the centre", -(0.2 + 0.5 * 0.71421), False),
        (SIDE_BY_SIDE, "push the red block to the blue block", 0.0, True),
        (SIDE_BY_SIDE, "push the blue block to the red block", 0.0, True),
        (SIDE_BY_SIDE, "gather the blocks", 0.0, True),
        (FAR_APART, "separate the blocks", 0.0, True),
        (FAR_APART, "push the red block to the left side", 0.0, True),
        (FAR_APART, "push the blue block to the left side", -(1.3 + 0.5 * 1.01), False),
        (FAR_APART, "gather the blocks", -(0.46 + 0.25 * 0.41), False),
    ],
)
def test_rewards_by_hand(positions, instruction, reward, success):
    found, solved = evaluate_task(find_task(instruction, COLORS), np.array(positions), COLORS)
    assert found == pytest.approx(reward, abs=1e-4)
    assert solved == success


@pytest.mark.parametrize("colors", [COLORS, ("red",), ("red", "blue", "yellow")])
def test_many_positions_are_judged_as_each_alone(colors):
    positions = np.random.default_rng(0).uniform(-0.8, 0.8, (4, 5, 1 + len(colors), 2)).astype(np.float32)
    for task in tasks(colors).values():
        rewards, successes = evaluate_task(task, positions, colors)
        assert rewards.shape == successes.shape == (4, 5)
        assert ((rewards == 0) == successes).all() and (rewards <= 0).all()
        for index in np.ndindex(4, 5):
            reward, success = evaluate_task(task, positions[index], colors)
            assert rewards[index] == pytest.approx(float(reward), abs=1e-5) and successes[index] == success


@pytest.mark.parametrize("colors", [COLORS, ("yellow",), ("red", "green", "purple")])
def test_every_instruction_starts_unsolved(table, colors):
    env = table(variation={"colors": colors})
    for instruction in tasks(colors):
        for seed in range(3):
            assert env.reset(seed=seed, options={"instruction": instruction})[1]["success"] is False
            assert env.instruction == instruction


def test_all_rewards_has_a_column_for_each_instruction(table):
    """In the order of `tasks()`; the column of the table's own instruction is what a step pays."""
    env = table()
    env.reset(seed=0)
    play(env, wander(3))
    blob = env.snapshot()
    for index, instruction in enumerate(tasks(COLORS)):
        env.restore(blob.replace(b"reach the centre", instruction.encode(), 1))
        reward, success = env.advance(np.array([0.5, 0.5]))
        rewards, successes = env.all_rewards()
        assert rewards.shape == successes.shape == (len(tasks(COLORS)),)
        assert rewards[index] == np.float32(reward) and successes[index] == success


# -- factors of variation ------------------------------------------------------------------------------------

EVERY_VALUE = [
    pytest.param(factor, value, id=f"{factor}={value}")
    for factor, (trained, held_out) in FACTORS.items()
    for value in (*trained, *held_out)
]
NOMINAL = Variation()


@pytest.fixture(scope="module")
def path() -> list[np.ndarray]:
    """Actions that push one block and then the other on the nominal table."""
    env, actions = TabletopEnv("reach the centre"), []
    env.reset(seed=3)
    for sentence in ("push the red block up", "push the blue block down"):
        for _ in range(14):
            actions.append(skill_action(phrases(COLORS)[sentence], env.positions, COLORS))
            env.advance(actions[-1])
    return actions


@pytest.fixture(scope="module")
def nominal(path):
    """What is seen at first and where everything goes on the nominal table."""
    env = TabletopEnv("reach the centre")
    first, _ = env.reset(seed=3)
    yield first, follow(env, path)
    env.close()


def follow(env, path) -> np.ndarray:
    """Positions [t, 1 + blocks, 2] after each action."""
    positions = []
    for action in path:
        env.advance(action)
        positions.append(env.positions)
    return np.stack(positions)


@pytest.mark.parametrize(("factor", "value"), EVERY_VALUE)
def test_every_factor_has_an_effect(table, nominal, path, factor, value):
    """Each value can be built, reset and stepped; what is not nominal is seen, felt or both."""
    env = table(variation={factor: value})
    first, _ = env.reset(seed=3)
    positions = follow(env, path)
    frame, reward, *_ = env.step(np.zeros(2, np.float32))
    assert env.observation_space.contains(frame) and np.isfinite(positions).all() and np.isfinite(reward)
    seen = not np.array_equal(first, nominal[0])
    felt = positions.shape != nominal[1].shape or np.abs(positions - nominal[1]).max() > 1e-3
    looks = {"colors", "shapes", "block_size", "light", "camera_tilt", "table_rgb", "distractors"}
    feels = {"shapes", "block_size", "mass", "friction", "action_noise", "action_delay"}
    if value == getattr(NOMINAL, factor):
        assert not seen and not felt
    else:
        assert seen == (factor in looks)
        assert felt or factor not in feels
        assert not felt or factor not in looks - feels - {"colors"}


def test_heavier_and_rougher_blocks_move_less(table, path):
    moved = []
    for scale in (0.4, 1.0, 2.5):
        for factor in ("mass", "friction"):
            env = table(variation={factor: scale})
            env.reset(seed=3)
            start = env.positions[1]
            moved.append(np.linalg.norm(follow(env, path)[-1, 1] - start))
    assert moved[1] > moved[3] > moved[5], "friction"
    assert moved[0] != moved[2] != moved[4], "mass"


def test_delayed_actions_arrive_late(table):
    prompt, late = table(), table(variation={"action_delay": 2})
    prompt.reset(seed=0), late.reset(seed=0)
    actions = wander(6)
    expected = play(prompt, actions[:4])[1]
    still, found = np.split(play(late, actions)[1], [2])
    assert np.array_equal(still[0], still[1])
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_a_sampled_table_has_values_of_its_split(split):
    rng = np.random.default_rng(0)
    drawn = [sample_variation(rng, split, ("mass", "shapes")) for _ in range(30)]
    column = ["train", "held_out"].index(split)
    assert {table.mass for table in drawn} == set(FACTORS["mass"][column])
    assert {table.shapes for table in drawn} == set(FACTORS["shapes"][column])
    assert {table.friction for table in drawn} == {NOMINAL.friction}


# -- seeing --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("colors", [COLORS, ("green", "purple"), ("red", "blue", "yellow")])
def test_objects_are_found_in_pictures(table, colors):
    env = table(variation={"colors": colors})
    starts = [env.reset(seed=seed) for seed in range(20)]
    found = locate(np.stack([frame for frame, _ in starts]), colors)
    np.testing.assert_allclose(found, np.stack([info["positions"] for _, info in starts]), atol=0.05)


def test_what_is_not_in_the_picture_is_not_found(table):
    frame, info = table(variation={"colors": ("red",)}).reset(seed=0)
    found = locate(frame, COLORS)
    assert np.isnan(found[2]).all()
    np.testing.assert_allclose(found[:2], info["positions"], atol=0.05)


# -- both kinds of action, and going two ways ------------------------------------------------------------------


def test_where_both_are_taken_a_vector_or_a_sentence_will_do(table):
    both = table(action_mode="both")
    check_env(both, skip_render_check=True)
    for plain, action in ((table(), np.ones(2, np.float32)), (table(action_mode="text"), "move up")):
        plain.reset(seed=0), both.reset(seed=0)
        expected, found = plain.step(action), both.step(action)
        assert np.array_equal(found[0], expected[0]) and found[1:4] == expected[1:4]
        assert found[4]["num_frames"] == expected[4]["num_frames"] and found[4]["action_ok"] is True


def test_a_fork_goes_its_own_way(table):
    env = table(variation=RESTLESS)
    env.reset(seed=0)
    before, fork = env.snapshot(), env.fork()
    first = [fork.step(np.ones(2, np.float32))[1] for _ in range(3)]
    assert env.snapshot() == before
    assert [env.step(np.ones(2, np.float32))[1] for _ in range(3)] == first
    fork.close()
