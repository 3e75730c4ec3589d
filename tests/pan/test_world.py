"""PAN from end to end on the real classes at toy size, written to disk and loaded as the large ones would be."""

import json
from dataclasses import replace
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from worldgym.decoders.flow import Schedule
from worldgym.decoders.swin import SwinConfig
from worldgym.pan.backbone import ConversationConfig
from worldgym.pan.clips import find_clips, read_frames
from worldgym.pan.latents import WanLatents
from worldgym.pan.train import train_pan_adapt, train_pan_joint
from worldgym.pan.world import PanWorld
from worldgym.train.settings import PanAdaptTraining, PanJointTraining

SIZE = 32
SWIN = SwinConfig(frames=1, schedule=Schedule(4, 5.0), guidance=4.0)
QUICK = {"steps": 2, "batch": 2, "learning_rate": 1e-2, "clip": 1.0, "device": "cpu"}
TALK = ConversationConfig(queries=3, rounds=3, frames=2, height=28, width=28)


def write_wan(folder: Path, words: PreTrainedTokenizerFast) -> None:
    words.save_pretrained(folder / "tokenizer")
    UMT5EncoderModel(
        UMT5Config(vocab_size=len(words), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    ).save_pretrained(folder / "text_encoder")
    AutoencoderKLWan(
        base_dim=4, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, latents_mean=[0.1] * 4, latents_std=[0.5] * 4
    ).save_pretrained(folder / "vae")
    WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=1, attention_head_dim=12, in_channels=4, out_channels=4,
        text_dim=16, freq_dim=16, ffn_dim=16, num_layers=1, rope_max_seq_len=32,
    ).save_pretrained(folder / "transformer")  # fmt: skip


def write_clips(folder: Path) -> None:
    """Three clips of three actions, a frame and three chunks of four."""
    folder.mkdir()
    lines = []
    for index in range(3):
        frames = np.random.default_rng(index).integers(0, 256, (13, 48, 48, 3), np.uint8)
        iio.imwrite(folder / f"{index}.gif", frames, loop=0)
        lines.append(json.dumps({"video": f"{index}.gif", "actions": ["go left", "push", f"stay {index}"]}))
    (folder / "clips.jsonl").write_text("\n".join(lines), encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, vlm) -> Path:
    """Tiny models on disk, and both stages trained on tiny clips."""
    folder = tmp_path_factory.mktemp("pan")
    torch.manual_seed(0)
    (folder / "vlm").symlink_to(vlm)
    write_wan(folder / "wan", PreTrainedTokenizerFast.from_pretrained(vlm))
    write_clips(folder / "clips")
    shared = {"clips": folder / "clips", "wan": str(folder / "wan"), "height": SIZE, "width": SIZE, "swin": SWIN}
    train_pan_adapt(PanAdaptTraining(out=folder / "adapt", **QUICK, **shared))
    more = {"vlm": str(folder / "vlm"), "decoder": folder / "adapt" / "decoder", "conversation": TALK}
    train_pan_joint(PanJointTraining(out=folder / "joint", **QUICK, **more, **shared))
    return folder


def load(folder: Path, dtype: torch.dtype = torch.float32) -> PanWorld:
    return PanWorld.load(str(folder / "vlm"), str(folder / "wan"), folder / "joint", TALK, SWIN, dtype)


def first_frames() -> torch.Tensor:
    return torch.randint(0, 256, (2, SIZE, SIZE, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_stage_one_trains_the_decoder_and_leaves_a_diffusers_folder(folder):
    before = WanTransformer3DModel.from_pretrained(folder / "wan" / "transformer")
    after = WanTransformer3DModel.from_pretrained(folder / "adapt" / "decoder")
    moved = [not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True)]
    assert sum(moved) > 0.9 * len(moved)


def test_stage_two_trains_queries_and_state_attention(folder):
    world = load(folder)
    assert all(layer.state.out.weight.abs().sum() > 0 for layer in world.decoder.layers)
    assert list(world.backbone.trained()) == []  # a world that is loaded is frozen
    assert world.backbone.queries.shape == (3, 48)


def test_ten_rounds_on_three_rounds_of_memory(folder):
    world = load(folder)
    state = world.start(first_frames())
    for when in range(4):
        state, video = world.step(state, ["go left", f"do number {when}"], torch.Generator().manual_seed(when))
        assert video.shape == (2, 4, SIZE, SIZE, 3) and video.dtype == torch.uint8
    assert len(state.seen) == 3 and len(state.actions) == 2
    assert all(part is not None for part in state.predicted)


def test_a_state_is_a_value_and_actions_matter(folder):
    world = load(folder)
    for layer in world.decoder.layers:  # loud enough that two training steps can be heard
        torch.nn.init.normal_(layer.state.out.weight)
    start = world.start(first_frames())
    chance = lambda: torch.Generator().manual_seed(0)  # noqa: E731
    state, one = world.step(start, ["push", "push"], chance())
    world.step(state, ["go left", "go left"], chance())
    assert torch.equal(world.step(start, ["push", "push"], chance())[1], one)
    assert not torch.equal(world.step(start, ["go left", "stay"], chance())[1], one)


def test_it_runs_in_bfloat16(folder):
    world = load(folder, torch.bfloat16)
    state, video = world.step(world.start(first_frames()), ["push", "push"], torch.Generator().manual_seed(0))
    assert state.latents.isfinite().all() and video.shape == (2, 4, SIZE, SIZE, 3)


def test_a_chunk_decoded_behind_the_one_before_is_that_of_the_whole_video(folder):
    wan = WanLatents.load(str(folder / "wan"), torch.float32)
    video = torch.randint(0, 256, (1, 9, SIZE, SIZE, 3), dtype=torch.uint8)
    latents = wan.encode(video)
    assert latents.shape == (1, 4, 3, SIZE // 8, SIZE // 8)
    nothing = latents[:, :, :0]
    whole = wan.decode(latents, nothing)
    assert whole.shape[1] == 9
    torch.testing.assert_close(wan.decode(latents[:, :, 1:], latents[:, :, :1]), whole[:, 1:])


def test_words_are_padded_with_nothing(folder):
    wan = WanLatents.load(str(folder / "wan"), torch.float32)
    read = wan.read(["ab", "abcdef"])
    assert read.shape == (2, 512, 16)
    assert read[0, :2].abs().sum(1).all() and not read[0, 8:].any()


def test_clips_that_are_not_there_are_refused(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no clips\.jsonl"):
        find_clips(tmp_path, 1)
    (tmp_path / "clips.jsonl").write_text('{"video": "gone.mp4", "actions": ["a"]}\n', encoding="utf-8")
    with pytest.raises(FileNotFoundError, match=r"gone\.mp4"):
        find_clips(tmp_path, 1)
    with pytest.raises(ValueError, match="has 9 actions"):
        find_clips(folder / "clips", 9)
    clip = find_clips(folder / "clips", 3)[0]
    assert read_frames(clip, 4, 5, 16, 24).shape == (5, 16, 24, 3)
    with pytest.raises(ValueError, match="no frames 10 to 15"):
        read_frames(clip, 10, 5, 16, 24)


def test_a_wrong_number_of_actions_is_refused(folder):
    world = load(folder)
    with pytest.raises(ValueError, match="1 actions for 2"):
        world.step(world.start(first_frames()), ["push"])


def test_a_clip_run_of_other_sizes_does_not_go_on(folder):
    other = PanAdaptTraining(
        clips=folder / "clips", wan=str(folder / "wan"), out=folder / "adapt", height=SIZE, width=SIZE,
        swin=replace(SWIN, offset=1.0), **QUICK,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"swin\.offset was 0\.5 and is 1\.0"):
        train_pan_adapt(other)
