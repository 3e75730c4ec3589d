"""Judging dreams: what is counted, what is said to be unknown, and any recorded world."""

import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from worldgym.cli.evaluate import Evaluate, evaluate
from worldgym.data import Segment
from worldgym.datasets import DreamedEpisode, write_minari
from worldgym.evaluate import (
    NO_WEIGHTS,
    Dreamed,
    dream,
    evaluate_dreams,
    evaluate_ends,
    evaluate_objects,
    evaluate_perception,
    held_out_segments,
    last_segments,
    unseen,
)
from worldgym.evaluate.perceptual import Lpips, VideoFeatures
from worldgym.evaluate.report import verdict
from worldgym.metrics import ssim


class Distance(torch.nn.Module):
    """Mean absolute difference, in the shape that LPIPS gives."""

    def forward(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return (one - other).abs().mean([1, 2, 3], keepdim=True)


class Features(torch.nn.Module):
    """Mean colour, as bytes or scaled, with the flags of the field's I3D."""

    def forward(
        self, video: torch.Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False
    ) -> torch.Tensor:
        assert rescale and resize and return_features
        return video.mean([2, 3, 4])


def torchscript(module: torch.nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(module).save(str(path))
    return path


def segment(steps: int = 10, count: int = 4) -> Segment:
    random = np.random.default_rng(0)
    none = np.zeros((count, steps, 2), bool)
    return Segment(
        frames=random.integers(0, 256, (count, steps + 1, 64, 64, 3), np.uint8),
        actions=random.uniform(-1, 1, (count, steps, 2)).astype(np.float32),
        sentences=np.zeros((count, steps, 0), np.int16),
        sentence_actions=np.zeros((count, steps, 0, 2), np.float32),
        rewards=random.normal(size=(count, steps, 2)).astype(np.float32),
        successes=none,
        terminations=none,
    )


@pytest.mark.parametrize("ends", [True, False])
def test_ends_are_foreseen_too_early_or_missed(make_world, recording, ends):
    """Of the two episodes of the test split one ends at its last step, one does not. In one world all is over at once,
    in the other nothing ever is."""
    world, count, length = make_world(), 40, 9
    for member in world.dynamics.outcome_heads.members:
        member.outer[-1].bias[2] = 20.0 if ends else -20.0
    data = recording(count, length)
    data.terminations[length * 20 - 1] = True
    found = evaluate_ends(world, last_segments(data, 8), 0)
    assert (found["ended"], found["went_on"], found["steps"]) == (1, 1, 8)
    rates = {name: found[name]["rate"] for name in ("foreseen", "too_early", "missed", "false_alarms")}
    assert rates == {"foreseen": 0, "too_early": float(ends), "missed": float(not ends), "false_alarms": float(ends)}
    soon = evaluate_ends(world, last_segments(data, 2), 0)
    assert soon["foreseen"]["rate"] == float(ends)
    data.terminations[:] = False
    assert evaluate_ends(world, last_segments(data, 8), 0) is None


def test_a_perfect_dream_has_perfect_figures(make_world):
    real = segment(3)
    asked = np.array([0, 1, 0, 1])
    true = np.take_along_axis(real.rewards, asked[:, None, None], -1)[..., 0].astype(float)
    never, doubt = np.zeros((4, 3)), np.ones((4, 3))
    metrics = evaluate_dreams(make_world(), real, Dreamed(real.frames[:, 1:], true, never, never, doubt, asked))
    assert metrics["psnr"] == pytest.approx([60] * 3)
    assert metrics["ssim"] == pytest.approx([1] * 3)
    assert metrics["reward_correlation"] == pytest.approx([1] * 3)
    assert metrics["success_calibration"]["brier"] == 0
    assert np.isnan(metrics["uncertainty_rank_correlation"]["token_entropy"])  # a constant doubt says nothing
    assert metrics["ssim_repeat_context"][0] < 0.5


def test_a_world_with_a_memory_dreams_on_from_as_many_frames(make_world):
    world, real = make_world(memory=3), segment(6)
    dreamed, truth = dream(world, real, 0), unseen(world, real)
    state = world.start(real.frames[:, :3], real.actions[:, :2])
    for when in range(4):
        state, _ = world.step(state, real.actions[:, 2 + when])
        assert np.array_equal(dreamed.frames[:, when], world.render(state).numpy())
    assert dreamed.frames.shape[1] == 4
    assert np.array_equal(truth.frames, real.frames[:, 2:])
    assert len(evaluate_dreams(world, truth, dreamed)["psnr"]) == 4


def test_objects_that_vanish_are_lost_and_as_wrong_as_can_be():
    """Frames here *are* the found positions: pusher, block that moves, block that stays; the last dream loses one."""
    places = np.zeros((4, 3, 3, 2))
    places[:, 1:, 1] = [[1.0, 0.0]]
    seen = places[:, 1:].copy()
    seen[:, :, 0] += [0.3, 0.4]
    seen[3, 1, 1] = np.nan
    metrics = evaluate_objects(seen, places, lambda frames: frames, unit=0.5)
    assert metrics["controlled_error"] == pytest.approx([1, 1])
    assert metrics["moved"] == [4, 4]
    assert metrics["moved_error_if_still"] == pytest.approx([2, 2])
    assert metrics["objects_kept"] == pytest.approx([1, 11 / 12])
    assert metrics["others_kept"] == pytest.approx([1, 7 / 8])
    assert metrics["moved_error"] == pytest.approx([0, 0])
    lost = evaluate_objects(np.full_like(seen, np.nan), places, lambda frames: frames, unit=0.5)
    assert lost["moved_error"] == [np.inf, np.inf]
    assert lost["objects_kept"] == [0, 0]


def test_without_weights_perception_is_not_measured(make_world):
    world, real = make_world(), segment(2)
    metrics = evaluate_perception(world, real, dream(world, real, 0), None, None, 2, 0)
    assert metrics["lpips"] == metrics["fvd"] == NO_WEIGHTS
    assert metrics["best_of"]["lpips"] == metrics["best_of"]["fvd"] == NO_WEIGHTS


def test_the_best_sample_counts_for_pictures_and_all_of_them_for_videos(make_world, tmp_path):
    world, real = make_world(), segment(10)
    lpips = torchscript(Distance(), tmp_path / "lpips.pt")
    fvd = torchscript(Features(), tmp_path / "i3d.pt")
    metrics = evaluate_perception(world, real, dream(world, real, 0), lpips, fvd, 2, 0)
    samples = [dream(world, real, 1 + sample, temperature=1.0).frames for sample in range(2)]
    assert (samples[0] != samples[1]).any()
    truth = real.frames[:, 1:]
    by_video = np.stack([ssim(frames, truth).mean(1) for frames in samples])
    assert metrics["best_of"]["ssim"] == pytest.approx(by_video.max(0).mean(), abs=1e-5)
    far = np.stack([np.abs(frames.astype(float) - truth).mean((1, 2, 3, 4)) / 127.5 for frames in samples])
    assert metrics["best_of"]["lpips"] == pytest.approx(far.min(0).mean(), abs=1e-4)
    assert metrics["best_of"]["psnr"] >= metrics["best_of"]["psnr_interval"][0]
    assert metrics["best_of"]["fvd"] > 0
    assert len(metrics["lpips"]) == 10


def test_fvd_of_real_videos_against_themselves_is_zero_and_of_brighter_ones_is_not(tmp_path):
    features = VideoFeatures(torchscript(Features(), tmp_path / "i3d.pt"), torch.device("cpu"))
    videos = np.random.default_rng(0).integers(0, 100, (5, 10, 8, 8, 3), np.uint8)
    np.testing.assert_allclose(features(videos), videos.mean((1, 2, 3)), rtol=1e-4)
    with pytest.raises(ValueError, match="at least 10 frames"):
        features(videos[:, :9])


def test_weights_that_are_missing_or_foreign_are_one_clear_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="pip install lpips"):
        Lpips(tmp_path / "nowhere.pt", torch.device("cpu"))
    (tmp_path / "junk.pt").write_bytes(b"junk")
    with pytest.raises(ValueError, match="not a TorchScript network"):
        VideoFeatures(tmp_path / "junk.pt", torch.device("cpu"))


def write_recording(world: Path, instructions: int = 2) -> str:
    random = np.random.default_rng(0)
    episodes = [
        DreamedEpisode(
            frames=random.integers(0, 256, (5, 64, 64, 3), np.uint8),
            actions=random.uniform(-1, 1, (4, 2)).astype(np.float32),
            rewards=random.normal(size=(5, instructions)).astype(np.float32),
            successes=np.zeros((5, instructions), bool),
            terminations=np.zeros((5, instructions), bool),
            uncertainty=np.zeros(5, np.float32),
            seed=seed,
        )
        for seed in range(80)
    ]
    write_minari("mine/strange-v0", str(world), episodes)
    return "mine/strange-v0"


@pytest.fixture
def strange(monkeypatch, tmp_path, make_world, write_checkpoint):
    """A world whose twin is no Tabletop, and the id of 80 recorded episodes of it, of which 4 are for testing."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    world = make_world()
    world.config = replace(world.config, twin="Strange-v0")
    folder = write_checkpoint(world)
    return folder, write_recording(folder)


def test_any_recorded_world_is_judged_on_its_test_split(strange, tmp_path, capsys):
    folder, dataset = strange
    report, file = tmp_path / "report", tmp_path / "figures.json"
    metrics = evaluate(Evaluate(str(folder), episodes=9, dataset=dataset, steps=3, report=report, json=file))
    assert metrics["episodes"] == 4
    assert len(metrics["psnr"]) == len(metrics["ssim"]) == 3
    assert "objects_kept" not in metrics
    assert "sentences" not in metrics
    printed, page = capsys.readouterr().out, (report / "index.html").read_text(encoding="utf-8")
    for said in ("Where objects are", "Whether success is recognised", "Whether the end of an episode"):
        assert said in printed
        assert said in page
    assert page.count("data:image/png;base64,") == 2
    assert page.count("data:image/gif;base64,") == 1
    assert 'src="http' not in page
    assert NO_WEIGHTS in page
    assert json.loads(file.read_text(encoding="utf-8"))["metrics"]["not_known"] == metrics["not_known"]


def figures(gain: float, seen: float, correlation: float) -> dict:
    """What the verdict is read off: two steps whose pictures are so much better than the first frame's 20 dB."""
    return {
        "reconstruction_psnr": seen,
        "psnr_repeat_context": [20.0, 20.0],
        "psnr_gain": [0.0, gain],
        "psnr_gain_interval": [(-1.0, 1.0), (gain - 1, gain + 1)],
        "reward_correlation_all_steps": correlation,
    }


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (figures(4.0, 30.0, 0.95), ["better than repeating the first one, by 4.0 dB", "follow the true ones"]),
        (figures(0.5, 30.0, 0.5), ["about as good as repeating the first one", "partly follow"]),
        (figures(-18.0, 12.0, np.nan), ["Train the tokenizer longer", "worse than repeating", "is undefined"]),
        (figures(2.0, 30.0, 0.1), ["better than", "do not follow"]),
    ],
)
def test_the_verdict_is_in_plain_words(found, says):
    sentences = verdict(found)
    assert len(sentences) == len(says)
    assert all(part in sentence for part, sentence in zip(says, sentences, strict=True))


def test_a_single_step_gets_no_chart(strange, tmp_path, capsys):
    folder, dataset = strange
    evaluate(Evaluate(str(folder), episodes=4, dataset=dataset, steps=1, report=tmp_path / "report"))
    assert not (tmp_path / "report" / "horizon.png").exists()
    assert (tmp_path / "report" / "index.html").read_text(encoding="utf-8").count("data:image/png;base64,") == 1
    assert "nan" not in capsys.readouterr().out


def test_a_world_of_another_twin_needs_its_recording(strange):
    with pytest.raises(ValueError, match="--dataset"):
        evaluate(Evaluate(str(strange[0]), episodes=4))


def test_a_recording_of_something_else_is_refused(strange, make_world, write_checkpoint):
    world = make_world()
    world.config = replace(world.config, instructions=("reach the centre", "fly"), twin="Strange-v0")
    with pytest.raises(ValueError, match="trained on something else"):
        evaluate(Evaluate(str(write_checkpoint(world)), episodes=4, dataset=strange[1]))


def test_held_out_stretches_are_of_as_many_test_episodes(strange):
    from worldgym.data import load_episodes

    data = load_episodes(strange[1])
    real = held_out_segments(data, 4, 2, seed=0)
    first_frames = {frame.tobytes() for index in data.split("test") for frame in data.frames[data.starts[index] :][:3]}
    assert real.frames.shape == (4, 3, 64, 64, 3)
    assert {episode[0].tobytes() for episode in real.frames} <= first_frames
    assert len({episode[0].tobytes() for episode in real.frames}) == 4
    with pytest.raises(ValueError, match="fewer --steps"):
        held_out_segments(data, 4, 5, seed=0)
