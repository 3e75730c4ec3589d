"""A tiny world for tests: the real classes at toy size, random weights, a second of CPU."""

import importlib
import io
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from worldgym.checkpoint import adopt, save_checkpoint
from worldgym.config import DynamicsConfig, RecurrentConfig, TokenizerConfig, WorldConfig
from worldgym.data import Episodes
from worldgym.model.recurrent_state import RecurrentState
from worldgym.model.text import PhraseTokenizer
from worldgym.world import WorldModel

RECURRENT = RecurrentConfig(width=32, embedding=24, head_width=16, channels=(4, 8, 8), observed=3)
PHRASES = ("push the red block left", "move up", "stay still", "reach the centre")


def tiny_config(predict: str = "in_place", window: int = 4, memory: int = 1, prompt: int = 0) -> WorldConfig:
    return WorldConfig(
        name="tiny",
        action_size=2,
        instructions=("reach the centre", "push the red block to the centre"),
        phrases=PHRASES,
        frames_per_action=3,
        tokenizer=TokenizerConfig(resolution=64, channels=(8, 16, 16), latent_channels=4, codes=32, heads=2),
        dynamics=DynamicsConfig(
            layers=2, width=64, heads=2, kv_heads=1, mlp_width=64, predict=predict, head_width=32, head_layers=1,
            window=window, memory=memory, prompt=prompt, vocabulary=280, outcome_heads=2,
        ),
    )  # fmt: skip


def tiny_world(predict: str = "in_place", window: int = 4, memory: int = 1, prompt: int = 0) -> WorldModel:
    torch.manual_seed(0)
    config = tiny_config(predict, window, memory, prompt)
    text = PhraseTokenizer.train((*config.phrases, *config.instructions), config.dynamics.vocabulary)
    world = WorldModel(config, text)
    if memory > 1:  # untrained, motion says nothing
        for part in (world.dynamics, world.dynamics.scale_head, world.dynamics.outcome_heads):
            torch.nn.init.normal_(part.from_motion.weight, std=0.5)
    if prompt:
        torch.nn.init.normal_(world.dynamics.from_prompt.weight, std=0.5)
    return world.eval().requires_grad_(False)


def filtered_world(ends: float = -5.0) -> WorldModel:
    """The tiny world with a recurrent state, of random weights, by which nothing ends (or everything)."""
    return _with_state(tiny_world(), ends)


def drawing_world(window: int = 4, memory: int = 1, prompt: int = 0, rereads: bool = False) -> WorldModel:
    """The same, whose frames are drawn from that state."""
    world = _with_state(tiny_world(window=window, memory=memory, prompt=prompt), from_state=True, rereads=rereads)
    torch.nn.init.normal_(world.dynamics.scale_head.from_state.weight, std=0.5)  # untrained, it says nothing
    return world


def _with_state(plain: WorldModel, ends: float = -5.0, **dynamics: bool) -> WorldModel:
    config = replace(plain.config, recurrent=RECURRENT, dynamics=replace(plain.config.dynamics, **dynamics))
    world = WorldModel(config, plain.text)
    adopt(world, plain.state_dict())
    assert world.recurrent is not None
    foresee_ends(world.recurrent, ends)
    return world.eval().requires_grad_(False)


def foresee_ends(recurrent: RecurrentState, logit: float) -> None:
    """Let it say so of every state."""
    with torch.no_grad():
        recurrent.heads.question[-1].bias.view(3, -1)[2, -1] = logit
        recurrent.heads.question[-1].weight.view(3, -1, recurrent.heads.question[-1].in_features)[2] = 0.0


def on_the_tabletop() -> WorldModel:
    """The tiny world, of which the Tabletop is the twin."""
    world = tiny_world()
    world.config = replace(world.config, twin="worldgym/TabletopMuJoCo-v0")
    return world


@pytest.fixture(autouse=True)
def fresh_accelerator():
    """Accelerate keeps the first precision of a process for good; each test begins without one."""
    yield
    if state := sys.modules.get("accelerate.state"):
        state.AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def make_world():
    """`tiny_world(predict, window, memory, prompt)` for tests that need another one."""
    return tiny_world


@pytest.fixture(
    params=[
        ("in_place", 1, 0), ("queries", 1, 0), ("queries_kept", 1, 0), ("in_place", 3, 0), ("in_place", 2, 2), None,
    ],
    ids=["in_place", "queries", "queries_kept", "memory", "prompt", "drawn from the state"],
)  # fmt: skip
def world(request) -> WorldModel:
    if request.param is None:
        return drawing_world()
    predict, memory, prompt = request.param
    return tiny_world(predict, memory=memory, prompt=prompt)


@pytest.fixture
def frames() -> np.ndarray:
    """Four pictures in a row for each of three dreams, [3, 4, 64, 64, 3]."""
    return np.random.default_rng(0).integers(0, 256, (3, 4, 64, 64, 3), np.uint8)


@pytest.fixture
def actions() -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, (3, 12, 2)).astype(np.float32)


@pytest.fixture
def recording() -> Callable[[int, int], Episodes]:
    """Of so many episodes of so many frames of noise, for the tiny world; none has ended."""

    def make(count: int, length: int) -> Episodes:
        random, rows, instructions = np.random.default_rng(0), count * length, tiny_config().instructions
        return Episodes(
            frames=random.integers(0, 256, (rows, 64, 64, 3), np.uint8),
            actions=random.uniform(-1, 1, (rows, 2)).astype(np.float32),
            sentences=np.zeros((rows, 0), np.int16),
            sentence_actions=np.zeros((rows, 0, 2), np.float32),
            rewards=np.zeros((rows, len(instructions)), np.float32),
            successes=np.zeros((rows, len(instructions)), bool),
            terminations=np.zeros((rows, len(instructions)), bool),
            starts=np.arange(count + 1) * length,
            instructions=instructions,
            phrase_list=(),
            frames_per_action=1,
            environment="",
        )

    return make


def write_world(folder: Path, world: WorldModel, ends: bool = False) -> Path:
    """A checkpoint as training leaves one, with five starting frames, the first of which is solved.

    Its dreams end at the first step or, with `ends=False`, never: what random weights say is neither.
    """
    with torch.no_grad():
        for member in world.dynamics.outcome_heads.members:
            member.outer[-1].bias[2] = 20.0 if ends else -20.0
    starts, solved = io.BytesIO(), np.zeros((5, len(world.config.instructions)), bool)
    solved[0] = True
    size = world.config.tokenizer.resolution
    frames = np.random.default_rng(2).integers(0, 256, (5, size, size, 3), np.uint8)
    np.savez_compressed(starts, frames=frames, successes=solved)
    extras = {"bpe.json": world.text.to_json().encode(), "starts.npz": starts.getvalue()}
    save_checkpoint(folder, world.config, world.state_dict(), "world", extras)
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """The tiny world on disk, to be left as it is."""
    return write_world(tmp_path_factory.mktemp("worlds") / "tiny", tiny_world())


@pytest.fixture
def write_checkpoint(tmp_path):
    """`write_world`, into this test's own folder."""

    def write(world: WorldModel | None = None, ends: bool = False) -> Path:
        return write_world(tmp_path / "world", tiny_world() if world is None else world, ends)

    return write


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    """Id of a recording of 20 short episodes, of which 18 train, one validates and one tests."""
    from worldgym.envs_real.settings import RecordConfig
    from worldgym.envs_real.tabletop.record import record  # brings MuJoCo

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(tmp_path_factory.mktemp("datasets")))
        record(RecordConfig("test/tabletop-v0", episodes=20, steps=12, workers=1))
        yield "test/tabletop-v0"


@pytest.fixture(scope="session")
def vlm(tmp_path_factory) -> Path:
    """A Qwen2.5-VL of the real classes at toy size, as `save_pretrained` leaves it; to be left as it is."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    folder = tmp_path_factory.mktemp("vlm")
    marks = ["im_start", "im_end", "vision_start", "vision_end", "image_pad", "video_pad"]
    special = ["<pad>", *(f"<|{mark}|>" for mark in marks)]
    alphabet = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    bpe = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    words = PreTrainedTokenizerFast(tokenizer_object=bpe, additional_special_tokens=special, pad_token="<pad>")
    words.save_pretrained(folder)
    ids = dict(zip(special, words.convert_tokens_to_ids(special), strict=True))
    torch.manual_seed(0)
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(words), "hidden_size": 48, "intermediate_size": 32, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "bos_token_id": None, "eos_token_id": None,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 2, 2]},
        },
        vision_config={
            "depth": 2, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 48,
            "fullatt_block_indexes": [1],
        },
        image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"], vision_end_token_id=ids["<|vision_end|>"],
    )  # fmt: skip
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder)
    return folder


def write_wan(folder: Path, words: Any) -> None:
    """A Wan pipeline of the real classes at toy size."""
    from diffusers import AutoencoderKLWan, WanTransformer3DModel
    from transformers import UMT5Config, UMT5EncoderModel

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
    import imageio.v3 as iio

    folder.mkdir()
    lines = []
    for index in range(3):
        frames = np.random.default_rng(index).integers(0, 256, (13, 48, 48, 3), np.uint8)
        iio.imwrite(folder / f"{index}.gif", frames, loop=0)
        lines.append(json.dumps({"video": f"{index}.gif", "actions": ["go left", "push", f"stay {index}"]}))
    (folder / "clips.jsonl").write_text("\n".join(lines), encoding="utf-8")


def pan_trainings(folder: Path) -> tuple[Any, Any]:
    """The settings of both stages in `pan_folder`."""
    from worldgym.config import ConversationConfig, Schedule, SwinConfig
    from worldgym.train.settings import PanAdaptTraining, PanJointTraining

    swin = SwinConfig(frames=1, schedule=Schedule(2, 5.0), guidance=4.0)
    quick = {"steps": 2, "batch": 2, "learning_rate": 1e-2, "clip": 1.0, "device": "cpu"}
    shared = {"clips": folder / "clips", "wan": str(folder / "wan"), "height": 32, "width": 32, "swin": swin, **quick}
    talk = ConversationConfig(queries=3, rounds=3, frames=2, height=28, width=28)
    more = {"vlm": str(folder / "vlm"), "decoder": folder / "adapt" / "decoder", "conversation": talk}
    return PanAdaptTraining(out=folder / "adapt", **shared), PanJointTraining(out=folder / "joint", **more, **shared)


@pytest.fixture(scope="session")
def pan_folder(tmp_path_factory, vlm) -> Path:
    """PAN at toy size: `vlm`, `wan` and `clips`, and what both stages trained on them, `adapt` and `joint`; to be left
    as they are."""
    from transformers import PreTrainedTokenizerFast

    from worldgym.pan.train import train_pan_adapt, train_pan_joint

    folder = tmp_path_factory.mktemp("pan")
    torch.manual_seed(0)
    (folder / "vlm").symlink_to(vlm)
    write_wan(folder / "wan", PreTrainedTokenizerFast.from_pretrained(vlm))
    write_clips(folder / "clips")
    adapt, joint = pan_trainings(folder)
    train_pan_adapt(adapt)
    train_pan_joint(joint)
    return folder


@pytest.fixture
def load_benchmark(monkeypatch) -> Callable[[str], ModuleType]:
    """Import a script of benchmarks/, with the others in reach, as it has them when it is run."""
    monkeypatch.setattr(sys, "path", [str(Path(__file__).resolve().parent.parent / "benchmarks"), *sys.path])
    return importlib.import_module
