"""PAN from end to end on the real classes at toy size, written to disk and loaded as the large ones would be."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import WanTransformer3DModel

from worldgym.pan import train as train_module
from worldgym.pan.clips import find_clips, read_frames
from worldgym.pan.folder import read_config
from worldgym.pan.latents import WanLatents
from worldgym.pan.rewards import make_reward
from worldgym.pan.state import PanState
from worldgym.pan.train import train_pan_adapt, train_pan_joint
from worldgym.pan.world import PanWorld
from worldgym.train.settings import PanAdaptTraining

from ..conftest import pan_trainings

SIZE = 32
QUICK = {"steps": 2, "batch": 2, "learning_rate": 1e-2, "clip": 1.0, "device": "cpu"}


def load(folder: Path, dtype: torch.dtype = torch.float32) -> PanWorld:
    """The trained toy, its state attention so loud that two training steps can be heard."""
    world = PanWorld.load(folder / "joint", dtype=dtype)
    torch.manual_seed(0)
    for layer in world.decoder.layers:
        torch.nn.init.normal_(layer.state.out.weight)
    return world


@pytest.fixture(scope="module")
def world(pan_folder) -> PanWorld:
    return load(pan_folder)


def first_frames(count: int = 2, time: int = 1) -> torch.Tensor:
    chance = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, time, SIZE, SIZE, 3), generator=chance, dtype=torch.uint8)


def difference(one: torch.Tensor, other: torch.Tensor) -> int:
    """The largest, of 255."""
    return int((one.int() - other.int()).abs().max())


def test_stage_one_trains_the_decoder_and_leaves_a_diffusers_folder(pan_folder):
    before = WanTransformer3DModel.from_pretrained(pan_folder / "wan" / "transformer")
    after = WanTransformer3DModel.from_pretrained(pan_folder / "adapt" / "decoder")
    moved = [not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True)]
    assert sum(moved) > 0.9 * len(moved)


def test_stage_two_trains_queries_and_state_attention(pan_folder):
    world = PanWorld.load(pan_folder / "joint", dtype=torch.float32)
    assert all(layer.state.out.weight.abs().sum() > 0 for layer in world.decoder.layers)
    assert list(world.backbone.trained()) == []  # a world that is loaded is frozen
    assert world.backbone.queries.shape == (3, 48)


def test_stages_that_are_done_load_nothing(pan_folder, monkeypatch):
    monkeypatch.setattr(train_module, "run", lambda *_, **__: pytest.fail("trained again"))
    adapt, joint = pan_trainings(pan_folder)
    assert train_pan_adapt(adapt) == pan_folder / "adapt" / "decoder"
    assert train_pan_joint(joint) == pan_folder / "joint"
    with pytest.raises(ValueError, match="steps was 2 and is 3"):
        train_pan_joint(replace(joint, steps=3))


def test_ten_rounds_on_three_rounds_of_memory(world):
    state = world.start(first_frames())
    for when in range(10):
        state, video = world.step(state, ["go left", f"do number {when}"])
        assert video.shape == (2, 4, SIZE, SIZE, 3) and video.dtype == torch.uint8
        assert torch.equal(world.render(state), video[:, -1])
    newest = state.simulations[1]
    assert len(newest.scene.seen) == len(newest.scene.predicted) == 3 and newest.said == ("do number 8", "do number 9")


def test_a_state_is_a_value_and_actions_matter(world):
    start = world.start(first_frames())
    state, one = world.step(start, ["push", "push"])
    world.step(state, ["go left", "go left"])
    assert torch.equal(world.step(start, ["push", "push"])[1], one)
    assert not torch.equal(world.step(start, ["go left", "stay"])[1], one)


def test_chances_are_those_of_the_seed(world):
    frames = first_frames(1).repeat(3, 1, 1, 1, 1)
    state = world.start(frames, seeds=[4, 5, 4])
    for _ in range(2):
        state, video = world.step(state, ["push"] * 3)
        assert torch.equal(video[0], video[2]) and not torch.equal(video[0], video[1])
    forked = state.fork(2, torch.tensor([4, 9] * 3))
    _, video = world.step(forked, ["push"] * 6)
    assert torch.equal(video[0], video[4]) and not torch.equal(video[0], video[1])


def test_a_simulation_is_the_same_alone_and_among_others_of_any_age(world, monkeypatch):
    state = world.start(first_frames(3), seeds=[1, 2, 3])
    young = state.select(torch.tensor([2]))
    older, _ = world.step(state, ["push", "go left", "stay"])
    mixed = older.put(torch.tensor([1]), young)
    said = ["a far longer thing to do", "push", "stay"]
    alone = world.step(mixed, said)[1]
    groups: list[int] = []
    inside = PanWorld._next

    def counted(self, scene, *given):
        groups.append(len(scene.frame))
        return inside(self, scene, *given)

    monkeypatch.setattr(PanWorld, "_next", counted)
    monkeypatch.setattr(world, "at_once", 4)
    together = world.step(mixed, said)[1]
    assert sorted(groups) == [1, 2]
    assert difference(together, alone) <= 1
    assert not torch.equal(alone[1], alone[2])


def test_a_past_that_was_observed_is_remembered(world):
    frames = first_frames(2, 9)
    state = world.start(frames, [["push", "go left"], ["stay", "push"]])
    newest = state.simulations[0].scene
    assert len(newest.seen) == 3 and len(newest.predicted) == 0 and newest.latents.shape[1] == 1
    after = world.step(state, ["push", "push"])[1]
    assert after.shape == (2, 4, SIZE, SIZE, 3)
    other = world.step(world.start(frames, [["stay", "stay"], ["stay", "push"]]), ["push", "push"])[1]
    assert not torch.equal(other[0], after[0]) and torch.equal(other[1], after[1])
    blank = world.step(world.start(frames[:, -1:]), ["push", "push"])[1]
    assert not torch.equal(blank, after)
    with pytest.raises(ValueError, match="4 more for each action"):
        world.start(frames, [["push"], ["stay"]])


def test_what_is_evaluated_is_what_steps_bring(world):
    state, _ = world.step(world.start(first_frames()), ["push", "stay"])
    brightness = make_reward(lambda frames: frames.mean((1, 2, 3)) / 255, world)
    plans = [[["push", "push"], ["stay", "go left"]], [["stay", "stay"], ["push", "go left"]]]
    before = state.snapshot()
    returns = world.evaluate(state, plans, brightness)
    assert returns.shape == (2, 2) and state.snapshot() == before
    for row in range(2):
        for number in range(2):
            now, total = state.select(torch.tensor([row])), 0.0
            for sentence in plans[row][number]:
                now, _ = world.step(now, [sentence])
                total += float(brightness(now)[0])
            assert float(returns[row, number]) == pytest.approx(total, abs=1e-5)
    with pytest.raises(ValueError, match="one length each"):
        world.evaluate(state, [[["push"], ["push", "push"]]] * 2, brightness)


def test_a_snapshot_continues_exactly(world):
    state, _ = world.step(world.start(first_frames(2), seeds=[7, 2**62]), ["push", "stay"])
    state = state.put(torch.tensor([0]), world.start(first_frames(1)))
    blob = state.snapshot()
    again = PanState.restore(blob)
    assert again.snapshot() == blob
    assert torch.equal(world.step(again, ["push", "push"])[1], world.step(state, ["push", "push"])[1])
    for spoilt in (b"", b"nonsense", blob[:-10]):
        with pytest.raises(ValueError, match="not a snapshot"):
            PanState.restore(spoilt)


def test_it_runs_in_bfloat16(pan_folder):
    world = load(pan_folder, torch.bfloat16)
    state, video = world.step(world.start(first_frames()), ["push", "push"])
    state = PanState.restore(state.snapshot())
    assert state.simulations[0].scene.latents.isfinite().all() and video.shape == (2, 4, SIZE, SIZE, 3)
    assert world.step(state, ["push", "push"])[1].shape == video.shape


def test_the_folder_says_what_it_was_trained_with(pan_folder, tmp_path):
    config = read_config(pan_folder / "joint")
    assert (config.height, config.width, config.swin.frames, config.swin.schedule.steps) == (SIZE, SIZE, 1, 2)
    assert config.vlm == str(pan_folder / "vlm") and config.video == str(pan_folder / "wan")
    with pytest.raises(FileNotFoundError, match="train pan joint"):
        PanWorld.load(tmp_path)
    with pytest.raises(ValueError, match="no folder"):
        PanWorld.load(tmp_path / "gone")
    (tmp_path / "pan.json").write_text('{"format": "worldgym-pan", "version": 1}', encoding="utf-8")
    with pytest.raises(ValueError, match="damaged"):
        PanWorld.load(tmp_path)


def test_a_chunk_decoded_behind_the_one_before_is_that_of_the_whole_video(pan_folder):
    wan = WanLatents.load(str(pan_folder / "wan"), torch.float32)
    video = torch.randint(0, 256, (1, 9, SIZE, SIZE, 3), dtype=torch.uint8)
    latents = wan.encode(video)
    assert latents.shape == (1, 4, 3, SIZE // 8, SIZE // 8)
    nothing = latents[:, :, :0]
    whole = wan.decode(latents, nothing)
    assert whole.shape[1] == 9
    torch.testing.assert_close(wan.decode(latents[:, :, 1:], latents[:, :, :1]), whole[:, 1:])


def test_words_are_padded_with_nothing(pan_folder):
    wan = WanLatents.load(str(pan_folder / "wan"), torch.float32)
    read = wan.read(["ab", "abcdef"])
    assert read.shape == (2, 512, 16)
    assert read[0, :2].abs().sum(1).all() and not read[0, 8:].any()


def test_clips_that_are_not_there_are_refused(pan_folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no clips\.jsonl"):
        find_clips(tmp_path, 1)
    (tmp_path / "clips.jsonl").write_text('{"video": "gone.mp4", "actions": ["a"]}\n', encoding="utf-8")
    with pytest.raises(FileNotFoundError, match=r"gone\.mp4"):
        find_clips(tmp_path, 1)
    with pytest.raises(ValueError, match="has 9 actions"):
        find_clips(pan_folder / "clips", 9)
    clip = find_clips(pan_folder / "clips", 3)[0]
    assert read_frames(clip, 4, 5, 16, 24).shape == (5, 16, 24, 3)
    with pytest.raises(ValueError, match="no frames 10 to 15"):
        read_frames(clip, 10, 5, 16, 24)


def test_a_wrong_number_of_actions_is_refused(world):
    state = world.start(first_frames())
    with pytest.raises(ValueError, match="1 actions for 2"):
        world.step(state, ["push"])


@pytest.mark.parametrize(
    "frames, error",
    [(first_frames()[:, 0], ValueError), (first_frames()[:, :, ::2], ValueError), (first_frames() / 255, TypeError)],
    ids=["no time", "half the height", "floats"],
)
def test_frames_of_another_kind_are_refused(world, frames, error):
    with pytest.raises(error, match="frames have"):
        world.start(frames)


def test_a_clip_run_of_other_sizes_does_not_go_on(pan_folder):
    other = PanAdaptTraining(
        clips=pan_folder / "clips", wan=str(pan_folder / "wan"), out=pan_folder / "adapt", height=SIZE, width=SIZE,
        swin=replace(read_config(pan_folder / "joint").swin, offset=1.0), **QUICK,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"swin\.offset was 0\.5 and is 1\.0"):
        train_pan_adapt(other)
