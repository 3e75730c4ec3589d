"""PAN's evaluation: what its judges call true, still, lost or new; and the command."""

import json
from dataclasses import replace

import numpy as np
import pytest

from worldgym.cli.evaluate import Evaluate, evaluate
from worldgym.envs_real.tabletop.rounds import judges, sentence_rounds
from worldgym.evaluate.pan_suite import Rounds, Row, dream_rounds, evaluate_rows, nearest, play, smoothness

FIGURES = ("agent", "environment", "smoothness", "consistency", "step_wise")


@pytest.fixture(scope="module")
def rounds() -> Rounds:
    return sentence_rounds(3, seed=5)


def judged(row: Row, rounds: Rounds) -> dict:
    return evaluate_rows({"row": row}, rounds, judges())["rows"]["row"]


def true_row(rounds: Rounds) -> Row:
    return Row(rounds.frames, rounds.positions[:, rounds.length])


def first_only(rounds: Rounds) -> Rounds:
    """One round of them."""
    last = rounds.length + 1
    return rounds._replace(
        sentences=[said[:1] for said in rounds.sentences],
        frames=rounds.frames[:, :last],
        positions=rounds.positions[:, :last],
    )


# -- rows -----------------------------------------------------------------------------------------------------------


def test_the_truth_passes_all_judges(rounds):
    figures = judged(true_row(rounds), rounds)
    assert [figures[name]["value"] for name in ("agent", "environment", "consistency", "step_wise")] == [1.0] * 4
    assert figures["smoothness"]["value"] > 0.5
    assert figures["consistency"]["by_round"] == [1.0] * 10


def test_a_still_picture_is_consistent_and_nothing_else(rounds):
    still = np.broadcast_to(rounds.frames[:, :1], rounds.frames.shape)
    figures = judged(Row(still, rounds.positions[:, rounds.length]), rounds)
    assert figures["agent"]["value"] == figures["smoothness"]["value"] == 0.0
    assert figures["consistency"]["value"] == 1.0
    assert figures["step_wise"]["value"] < 1.0


def test_the_environment_is_judged_by_what_the_actions_taken_lead_to(rounds):
    row = true_row(rounds)
    elsewhere = row.truth + np.float32(0.5)
    figures = judged(row._replace(truth=elsewhere), rounds)
    assert figures["environment"]["value"] == 0.0
    assert figures["agent"]["value"] == figures["step_wise"]["value"] == 1.0


def painted(rounds: Rounds, colour: tuple[int, int, int], top: int, left: int) -> Row:
    """The truth, but for a square of 8 pixels in one frame of the third round of the first table."""
    frames = rounds.frames.copy()
    frames[0, 2 * rounds.length + 5, top : top + 8, left : left + 8] = colour
    return true_row(rounds)._replace(frames=frames)


def far_corner(rounds: Rounds) -> tuple[int, int]:
    """A corner of the table that is empty then."""
    x, y = rounds.positions[0, 2 * rounds.length + 5].T
    corners = [(top, left) for top in (4, 52) for left in (4, 52)]
    return max(corners, key=lambda c: np.hypot((c[1] - 28) / 30 - x, (28 - c[0]) / 30 - y).min())


@pytest.mark.parametrize(("colour", "broken"), [((217, 31, 31), "nothing appeared"), ((120, 120, 200), "background")])
def test_what_appears_breaks_its_round_alone(rounds, colour, broken):
    figures = judged(painted(rounds, colour, *far_corner(rounds)), rounds)["consistency"]
    assert figures["by_round"] == pytest.approx([1, 1, 2 / 3, *[1] * 7])
    assert figures["parts"][broken] == pytest.approx(29 / 30)
    assert figures["value"] == pytest.approx(29 / 30)


def test_what_vanishes_breaks_its_rounds_and_is_found_nowhere(rounds):
    frames = rounds.frames.copy()
    table = np.median(frames[0, 0], (0, 1)).astype(np.uint8)
    red = (frames[..., 0] > 150) & (frames[..., 1] < 80)
    red[:, : rounds.length] = False
    frames[red] = table
    figures = judged(true_row(rounds)._replace(frames=frames), rounds)
    assert figures["consistency"]["by_round"] == [0.0] * 10
    assert figures["consistency"]["parts"]["all there"] == 0.0
    assert figures["agent"]["value"] == 0.0  # the first pushes are all of the red block
    assert figures["environment"]["value"] == 1.0


def test_a_sentence_is_dreamed_as_the_world_carries_it_out(rounds, make_world):
    world, one = make_world(), first_only(rounds)
    world.config = replace(world.config, frames_per_action=one.length)
    frames, actions = dream_rounds(world, one)
    assert frames.shape == one.frames.shape and actions.shape == (3, one.length, 2)
    np.testing.assert_array_equal(frames[:, 0], one.frames[:, 0])
    state = world.start(one.frames[:, :1])
    for action in actions.swapaxes(0, 1):
        state, _ = world.step(state, action)
    np.testing.assert_array_equal(frames[:, -1], world.render(state).numpy())
    assert set(play(world, one, judges())) == {"truth", "dream", "repeat"}


def test_a_world_whose_sentences_are_shorter_is_refused(rounds, make_world):
    with pytest.raises(ValueError, match="16 frames; a sentence of 'tiny' covers 3"):
        dream_rounds(make_world(), rounds)


# -- judges ---------------------------------------------------------------------------------------------------------


def test_the_nearest_outcome_is_chosen_by_what_is_found():
    outcomes = np.zeros((4, 3, 2, 2), np.float32)
    outcomes[:, 1] = 1.0
    outcomes[:, 2] = -1.0
    found = np.array([[[0.2, 0], [0, 0]], [[0.9, 1], [1, 1]], [[np.nan] * 2, [0.1, 0]], [[np.nan] * 2] * 2])
    assert nearest(found, outcomes).tolist() == [True, False, True, False]


def disc(path: list[float]) -> np.ndarray:
    """A dark disc of 6 pixels' radius on a plain ground, at these columns."""
    y, x = np.mgrid[:64, :64]
    inside = [np.clip(6.5 - np.hypot(x - column, y - 32), 0, 1) for column in path]
    return np.stack([np.uint8(200 - 150 * one[..., None].repeat(3, -1)) for one in inside])


def test_an_even_motion_is_as_smooth_as_it_is_fast():
    assert smoothness(disc([16 + 2 * t for t in range(17)])) == pytest.approx(2.0, abs=0.7)
    assert smoothness(disc([16 + t for t in range(17)])) == pytest.approx(1.0, abs=0.4)


def test_a_jerky_motion_is_less_smooth_than_an_even_one_of_its_length():
    even = [16 + 2 * t for t in range(17)]
    jerky = [16 + 4 * ((t + 1) // 2) for t in range(17)]
    assert smoothness(disc(jerky)) < 0.7 * smoothness(disc(even))


def test_without_motion_there_is_no_smoothness():
    assert smoothness(disc([30] * 17)) == 0.0


# -- the command ----------------------------------------------------------------------------------------------------


def test_the_command_writes_figures_and_a_page(make_world, write_checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("worldgym.envs_real.tabletop.rounds.ROUNDS", 1)
    world = make_world()
    world.config = replace(world.config, twin="worldgym/TabletopMuJoCo-v0", frames_per_action=16)
    report, file = tmp_path / "report", tmp_path / "suite.json"
    evaluate(Evaluate(str(write_checkpoint(world)), suite="pan", episodes=4, json=file, report=report))
    metrics = json.loads(file.read_text(encoding="utf-8"))["metrics"]
    assert set(FIGURES) < set(metrics["rows"]["dream"])
    assert "--plan-episodes" in metrics["planning"]
    assert metrics["planning"] in (page := (report / "index.html").read_text(encoding="utf-8"))
    assert page.count("data:image/") == 2 and 'src="http' not in page
    assert "consistency of the dream, round by round" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"suite": "pan", "steps": 3}, "--steps"),
        ({"suite": "pan", "dataset": "mine/own-v0"}, "--dataset"),
        ({"plan_episodes": 2}, "--plan-episodes"),
        ({"suite": "pan", "episodes": 2}, "4 --episodes"),
    ],
)
def test_what_a_suite_does_not_know_is_refused(given, says):
    with pytest.raises(ValueError, match=says):
        Evaluate("tabletop", **given)
