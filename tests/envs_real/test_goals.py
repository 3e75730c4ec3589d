"""Goals that are pictures: where episodes begin, when a goal is reached, and which pairs are drawn."""

import json

import numpy as np
import pytest

from worldgym.checkpoint import load_config
from worldgym.envs_real.goals import APART, BUDGET, GoalTwin, Rule, digest, draw_pairs, rules_of, write_manifest
from worldgym.envs_real.hopper import HopperEnv
from worldgym.envs_real.reacher import ReacherEnv
from worldgym.envs_real.reacher_goals import RULES as REACHER
from worldgym.envs_real.reacher_goals import tip
from worldgym.envs_real.reacher_record import play_episode
from worldgym.envs_real.settings import RecordConfig
from worldgym.envs_real.tabletop import TabletopEnv
from worldgym.envs_real.tabletop.goals import RULES as TABLETOP
from worldgym.envs_real.twins import twin_of
from worldgym.errors import UserError
from worldgym.listing import find_world

REACHER_WORLD, _ = load_config(find_world("reacher"))
POSE = np.array([0.5, -1.0, 0.05, 0.1])
TABLE = np.array([0.0, -0.6, -0.5, 0.0, 0.3, 0.5, 0.2, 0.0])


# -- poses ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "pose"), [(ReacherEnv, POSE), (TabletopEnv, TABLE)])
def test_a_twin_begins_at_rest_where_a_pose_has_everything(kind, pose):
    env = kind()
    env.reset(seed=0)
    for _ in range(3):
        env.step(np.ones(2, np.float32))
    shown = env.reset(seed=5, options={"pose": pose})[0]
    assert np.array_equal(env.pose, pose) and not env.data.qvel.any()
    assert np.array_equal(shown, env.reset(seed=6, options={"pose": pose})[0])
    env.close()


@pytest.mark.parametrize("pose", [POSE[:3], POSE.astype(int), np.full(4, np.nan)])
def test_what_is_no_pose_is_refused(pose):
    env = ReacherEnv()
    with pytest.raises(ValueError, match="the pose is"):
        env.reset(options={"pose": pose})
    env.close()


def test_a_recorded_pose_shows_the_recorded_frame():
    episode, env = play_episode(RecordConfig(steps=6, env=REACHER_WORLD.twin), 1), ReacherEnv()
    for pose, frame in zip(episode["poses"], episode["frames"], strict=True):
        assert np.array_equal(env.reset(options={"pose": pose})[0], frame)
    env.close()


# -- rules ----------------------------------------------------------------------------------------------------------


def moved(*by: float) -> np.ndarray:
    return POSE + np.array(by)


def reached(rule: Rule, pose: np.ndarray, goal: np.ndarray) -> bool:
    return bool(rule.off(pose, goal) < 1.0)


def test_the_shoulder_may_turn_round_and_the_elbow_may_not():
    rule, turn = REACHER["moderate"], 2 * np.pi
    assert reached(rule, moved(turn + 0.04, 0.04, 0, 0), POSE)
    assert not reached(rule, moved(0.06, 0, 0, 0), POSE)
    assert not reached(rule, moved(0, turn, 0, 0), POSE)


def test_the_tip_counts_alone_under_the_strict_rule():
    """A bent arm reaches each place in two ways."""
    bent = POSE[:2].copy()
    across = np.arctan2(0.11 * np.sin(bent[1]), 0.1 + 0.11 * np.cos(bent[1]))
    mirrored = np.array([bent[0] + 2 * across, -bent[1], *POSE[2:]])
    np.testing.assert_allclose(tip(mirrored), tip(POSE), atol=1e-9)
    assert reached(REACHER["strict"], mirrored, POSE) and not reached(REACHER["moderate"], mirrored, POSE)
    env = ReacherEnv()
    env.reset(options={"pose": POSE})
    np.testing.assert_allclose(tip(POSE), env.positions[0], atol=1e-6)
    env.close()


def test_the_tabletop_is_as_it_was_when_all_things_are():
    pusher, block, turned = np.zeros((3, 8))
    pusher[0], block[6], turned[4] = 0.1, 0.1, 1.0
    assert [reached(TABLETOP["moderate"], TABLE + off, TABLE) for off in (pusher, block, turned)] == [
        False,
        False,
        True,
    ]
    assert [reached(TABLETOP["strict"], TABLE + off, TABLE) for off in (pusher, block, turned)] == [True, False, True]


# -- the twin that is to reach a pose -------------------------------------------------------------------------------


@pytest.fixture
def twin():
    made = GoalTwin(twin_of(REACHER_WORLD), REACHER)
    yield made
    made.close()


def test_success_has_to_be_held_as_long_as_its_rule_says(twin):
    still = np.zeros(2, np.float32)
    twin.reset(seed=0, options={"start": POSE, "goal": POSE})
    _, reward, over, _, info = twin.step(still)
    assert twin.reached == {"moderate": True, "strict": False} and not over and not info["success"]
    assert reward == pytest.approx(0.0, abs=1e-3)
    _, _, over, _, info = twin.step(still)
    assert twin.reached == {"moderate": True, "strict": True} and over and info["success"]


def test_it_has_fifty_steps_whatever_the_twin_itself_says(twin):
    twin.reset(seed=0, options={"start": POSE, "goal": moved(2.0, 0, 0, 0)})
    ends = [twin.step(np.zeros(2, np.float32))[2:4] for _ in range(BUDGET)]
    assert ends[:-1] == [(False, False)] * (BUDGET - 1) and ends[-1] == (False, True)
    twin.reset(seed=0, options={"start": POSE, "goal": moved(2.0, 0, 0, 0)})
    assert twin.step(np.zeros(2, np.float32))[3] is False


def test_true_physics_earns_what_acting_earns_and_changes_nothing(twin):
    twin.reset(seed=0, options={"start": POSE, "goal": moved(0.5, 0.2, 0, 0)})
    sequence = np.random.default_rng(0).uniform(-1, 1, (6, 2)).astype(np.float32)
    expected = twin.evaluate(np.stack([sequence, -sequence]))
    earned = sum(twin.step(action)[1] for action in sequence)
    assert expected[0] == pytest.approx(earned, rel=1e-5) and expected[0] != expected[1]


# -- pairs ----------------------------------------------------------------------------------------------------------


def test_pairs_are_of_the_same_episode_and_unsolved_and_can_be_drawn_again(tmp_path):
    pairs = draw_pairs(REACHER_WORLD, 3, seed=1)
    for pair in pairs:
        episode = play_episode(RecordConfig(env=REACHER_WORLD.twin, seed=1_000_000_008), pair.episode)
        assert np.array_equal(episode["poses"][pair.step], pair.start)
        assert np.array_equal(episode["poses"][pair.step + APART], pair.goal)
        assert np.array_equal(episode["frames"][pair.step + APART], pair.picture)
        assert not any(reached(rule, pair.start, pair.goal) for rule in REACHER.values())
    assert len({pair.episode for pair in pairs}) == 3
    assert digest(pairs) == digest(draw_pairs(REACHER_WORLD, 3, seed=1)) != digest(pairs[:2])
    write_manifest(tmp_path / "pairs.json", REACHER_WORLD, 1, pairs)
    written = json.loads((tmp_path / "pairs.json").read_text(encoding="utf-8"))
    assert written["sha256"] == digest(pairs) and written["episodes"] == [pair.episode for pair in pairs]


def test_what_is_solved_already_is_left_out(monkeypatch):
    solved = Rule(lambda pose, goal: np.asarray(0.0 if solved_pairs.pop() else 2.0), 1, "told")
    solved_pairs = [False, False, True]
    monkeypatch.setitem(REACHER, "told", solved)
    assert [pair.episode for pair in draw_pairs(REACHER_WORLD, 2, seed=0)] == [1, 2]


def test_a_twin_without_a_rule_is_refused():
    world, _ = load_config(find_world("hopper"))
    with pytest.raises(UserError, match=r"no rule says when worldgym/HopperMuJoCo-v0 .* --goal takes a picture"):
        rules_of(world)
    assert HopperEnv().pose.shape == (6,)
