"""What is a pretrained backbone worth? PAN's stage two on the Tabletop, over frozen language models that differ.

    python benchmarks/pan_backbone.py            # toys, made and pretrained here
    python benchmarks/pan_backbone.py --size 112 --backbones Qwen/Qwen2.5-VL-3B-Instruct \
        random:Qwen/Qwen2.5-VL-3B-Instruct

PAN claims that a pretrained model grounds the prediction of what is seen next (PAN 3.1). The queries of a frozen
backbone, and a linear readout of what comes out at them, learn what the table looks like after each of three
sentences; they are taught by the picture (the world's fast decoder shows the predicted map). A backbone is a hub name
or folder of a Qwen2.5-VL; "random:" before it takes the same architecture with fresh weights.

No pretrained weights are here by default, so the toys are pretrained first, vision tower and language model, on saying
where everything is in pictures of the table ("red 3 5; green 0 2; ..."): grounding, at the size of a toy.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLModel

from worldgym.envs_real.tabletop import locate
from worldgym.envs_real.tabletop_cases import BLOCK_WIDTH, ENOUGH, HELD_OUT, carry_out, case_env, pushes
from worldgym.metrics import bootstrap, psnr, wilson
from worldgym.pan.backbone import MEAN, SPREAD, ConversationConfig, PanBackbone, patchify
from worldgym.pixels import to_float, to_uint8
from worldgym.results import current_commit, write_results
from worldgym.train.tokenizer import schedule
from worldgym.world import WorldModel

MARKS = ("<pad>", *(f"<|{m}|>" for m in ("im_start", "im_end", "vision_start", "vision_end", "image_pad", "video_pad")))
CELLS = 8
"""A caption says in which of 8 x 8 cells of the table each object is."""


@dataclass(frozen=True)
class Backbones:
    backbones: tuple[str, ...] = ()
    """Hub names or folders, "random:" before one for fresh weights; toys by default."""
    world: str = "tabletop"
    """Whose decoder shows the predictions."""
    pretraining: int = 1500
    """Steps that the toys are pretrained for."""
    steps: int = 500
    """Steps of stage two."""
    batch: int = 16
    conversations: int = 1500
    held_out: int = 128
    rounds: int = 3
    learning_rate: float = 3e-3
    seeds: int = 3
    size: int = 64
    """Pixels a side that the vision tower is shown; a multiple of its merged patches."""
    json: Path = Path("benchmarks/results/pan_backbone.json")


class Conversations(NamedTuple):
    frames: np.ndarray
    """uint8 [n, rounds + 1, h, w, 3]."""
    places: np.ndarray
    """[n, rounds + 1, k, 2]."""
    said: list[list[str]]
    blocks: np.ndarray
    """int64 [n, rounds], rows of the pushed blocks."""
    directions: np.ndarray
    """[n, rounds, 2]."""
    names: tuple[str, ...]
    """Of the objects."""


def converse(count: int, rounds: int, seed: int) -> Conversations:
    """Random pushes in MuJoCo, and the table after each."""
    env = case_env()
    known = pushes(env.colors)
    frames, places, said = [], [], []
    for index in tqdm(range(count), desc="conversations"):
        random = np.random.default_rng([HELD_OUT, seed, index])
        frame, info = env.reset(seed=int(random.integers(2**31)))
        said.append([known[which] for which in random.integers(len(known), size=rounds)])
        frames.append([frame])
        places.append([info["positions"]])
        for push in said[-1]:
            for _ in carry_out(env, push.sentence):
                pass
            frames[-1].append(env.render())
            places[-1].append(env.positions)
    env.close()
    return Conversations(
        np.array(frames), np.array(places), [[push.sentence for push in row] for row in said],
        np.array([[push.block for push in row] for row in said]),
        np.array([[push.direction for push in row] for row in said]), ("pusher", *env.colors),
    )  # fmt: skip


# -- toys -------------------------------------------------------------------------------------------------------------


def captions(data: Conversations) -> list[str]:
    """Where everything is in each frame, [n * (rounds + 1)]; places are in [-1, 1]."""
    places = data.places.reshape(-1, *data.places.shape[2:])
    cells = np.clip(((places + 1) / 2 * CELLS).astype(int), 0, CELLS - 1)
    return ["; ".join(f"{name} {x} {y}" for name, (x, y) in zip(data.names, row, strict=True)) for row in cells]


def make_toy(folder: Path, width: int, layers: int, corpus: list[str]) -> Path:
    """A Qwen2.5-VL of the real classes with fresh weights, and a BPE for the corpus."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, special_tokens=list(MARKS))
    bpe.train_from_iterator(corpus, trainer)
    words = PreTrainedTokenizerFast(tokenizer_object=bpe, additional_special_tokens=list(MARKS[1:]), pad_token=MARKS[0])
    words.save_pretrained(folder)
    ids = dict(zip(MARKS, words.convert_tokens_to_ids(list(MARKS)), strict=True))
    part = width // 4 // 2  # half of a head, in three sections: time, height, width
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(words), "hidden_size": width, "intermediate_size": 2 * width,
            "num_hidden_layers": layers, "num_attention_heads": 4, "num_key_value_heads": 2,
            "bos_token_id": None, "eos_token_id": None,
            "rope_parameters": {
                "rope_type": "default", "rope_theta": 10000.0,
                "mrope_section": [part - 2 * (part // 3), part // 3, part // 3],
            },
        },
        vision_config={
            "depth": 2, "hidden_size": 64, "intermediate_size": 128, "num_heads": 4, "out_hidden_size": width,
            "patch_size": 8, "fullatt_block_indexes": [1],
        },
        image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"], vision_end_token_id=ids["<|vision_end|>"],
    )  # fmt: skip
    Qwen2_5_VLModel(config).save_pretrained(folder)
    return folder


def pretrain(folder: Path, target: Path, data: Conversations, config: Backbones) -> dict[str, float]:
    """Teach a toy to say where everything is; returns how well it does at last, on what it learns from."""
    torch.manual_seed(0)
    shape = conversation(config)
    backbone = PanBackbone.load(str(folder), shape).train()
    vlm, text = backbone.vlm.requires_grad_(True), backbone.text
    optimizer = torch.optim.AdamW(vlm.parameters(), 1e-3, betas=(0.9, 0.95), weight_decay=0.01)
    frames, told = data.frames.reshape(-1, *data.frames.shape[2:]), captions(data)
    mark = text.convert_tokens_to_ids("<|vision_end|>")
    stop, pad = text.convert_tokens_to_ids("<|im_end|>"), text.convert_tokens_to_ids("<pad>")
    digits = {text.encode(f" {cell}", add_special_tokens=False)[0] for cell in range(CELLS)}
    right = 0.0
    progress = tqdm(range(config.pretraining), desc=f"pretraining {folder.name}")
    for step in progress:
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * schedule(step, config.pretraining)
        rows = np.random.default_rng([0, step]).integers(len(frames), size=2 * config.batch)
        with torch.autocast("cpu", torch.bfloat16):
            seen = look(vlm, frames[rows], config)
            ids = [text.encode(told[row], add_special_tokens=False) for row in rows]
            longest = max(len(one) for one in ids)
            words = torch.tensor([[mark, *one, stop, *[pad] * (longest - len(one))] for one in ids])
            tokens = torch.cat([seen, vlm.get_input_embeddings()(words[:, :-1]).to(seen)], 1)
            hidden = vlm.language_model(inputs_embeds=tokens, use_cache=False).last_hidden_state[:, seen.shape[1] :]
            logits = (hidden @ vlm.get_input_embeddings().weight.T.to(hidden)).float()
        asked = words[:, 1:]
        loss = F.cross_entropy(logits.flatten(0, 1), asked.flatten(), ignore_index=pad)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(vlm.parameters(), 1.0)
        optimizer.step()
        counted = torch.isin(asked, torch.tensor(sorted(digits)))  # all else in a caption is always the same
        right = 0.98 * right + 0.02 * float((logits.argmax(-1) == asked)[counted].float().mean())
        if step % 20 == 0:
            progress.set_postfix(loss=f"{loss.item():.3f}", right=f"{right:.2f}")
    vlm.save_pretrained(target)
    text.save_pretrained(target)
    return {"loss": loss.item(), "cells_right": right}


def look(vlm: Qwen2_5_VLModel, frames: np.ndarray, config: Backbones) -> Tensor:
    """What the vision tower makes of single frames, with gradients: [n, m, d]."""
    vision = vlm.config.vision_config
    images = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    images = (images - images.new_tensor(MEAN).view(1, 3, 1, 1)) / images.new_tensor(SPREAD).view(1, 3, 1, 1)
    pair = images[:, None].expand(-1, vision.temporal_patch_size, -1, -1, -1)
    patches = patchify(pair, vision.temporal_patch_size, vision.patch_size, vision.spatial_merge_size)
    side = config.size // vision.patch_size
    grid = torch.tensor([[1, side, side]]).expand(len(frames), -1)
    return torch.stack(list(vlm.get_video_features(patches.flatten(0, 1), grid).pooler_output))


# -- stage two --------------------------------------------------------------------------------------------------------


def conversation(config: Backbones) -> ConversationConfig:
    return ConversationConfig(queries=16, rounds=config.rounds, frames=2, height=config.size, width=config.size)


class Predictor(nn.Module):
    """A frozen backbone, its queries, and a linear readout: how the fused map differs after the sentence."""

    def __init__(self, backbone: PanBackbone, world: WorldModel):
        super().__init__()
        self.backbone, self.world = backbone, world
        self.side = world.config.tokenizer.grid // 4
        self.norm = nn.LayerNorm(backbone.width)
        self.readout = nn.Linear(backbone.width, world.config.tokenizer.width * self.side**2)
        nn.init.zeros_(self.readout.weight)
        nn.init.zeros_(self.readout.bias)

    def forward(self, seen: list[Tensor], said: list[list[str]], fused: Tensor, predicted: list[Tensor | None]):
        """Pictures after each round, [b, r, c, h, w], and the states.

        Args:
            fused: [b, r, f, g, g], of the frame before each round.
        """
        state = self.backbone(seen, said, predicted)
        cells = self.readout(self.norm(state.float())).transpose(-1, -2).unflatten(-1, (4, 4))
        maps = fused + F.pixel_shuffle(cells.flatten(0, 1), self.side).unflatten(0, cells.shape[:2])
        pictures = self.world.tokenizer.decode(maps.flatten(0, 1)).float()
        return pictures.unflatten(0, cells.shape[:2]), state


def fuse(world: WorldModel, frames: np.ndarray) -> Tensor:
    """Fused maps of frames that are their own context, [n, f, g, g]."""
    images = to_float(torch.from_numpy(frames))
    context = world.tokenizer.encode_context(images)
    return world.tokenizer.fuse(world.latent(images, context), context)


def load(name: str, config: Backbones, seed: int) -> PanBackbone:
    torch.manual_seed(seed)
    backbone = PanBackbone.load(name.removeprefix("random:"), conversation(config))
    if name.startswith("random:"):
        fresh = Qwen2_5_VLModel(backbone.vlm.config)
        backbone.vlm.load_state_dict(fresh.state_dict())
    return backbone


def train(name: str, data: Conversations, world: WorldModel, config: Backbones, seed: int) -> Predictor:
    backbone = load(name, config, seed).eval()
    model = Predictor(backbone, world)
    learned = [backbone.queries, *model.norm.parameters(), *model.readout.parameters()]
    optimizer = torch.optim.AdamW(learned, config.learning_rate, betas=(0.9, 0.95), weight_decay=0.01)
    progress = tqdm(range(config.steps), desc=f"{name}, seed {seed}")
    for step in progress:
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * schedule(step, config.steps)
        rows = np.random.default_rng([seed, step]).integers(len(data.said), size=config.batch)
        frames = data.frames[rows]
        truth = to_float(torch.from_numpy(frames[:, 1:]).flatten(0, 1)).unflatten(0, frames[:, 1:].shape[:2])
        before = to_float(torch.from_numpy(frames[:, :-1]).flatten(0, 1)).unflatten(0, truth.shape[:2])
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                fused = fuse(world, frames[:, :-1].reshape(-1, *frames.shape[2:])).unflatten(0, truth.shape[:2])
                seen = [backbone.see(torch.from_numpy(frames[:, when, None])) for when in range(config.rounds)]
            pictures, _ = model(seen, [data.said[row] for row in rows], fused, [None] * config.rounds)
        # As the tokenizer's own loss: what moved counts five times.
        moved = ((truth - before).abs().amax(2, keepdim=True) > 0.1).float()
        loss = ((1 + 4 * moved) * (pictures - truth).square()).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        if step % 20 == 0:
            progress.set_postfix(loss=f"{loss.item():.4f}")
    return model.eval().requires_grad_(False)


@torch.no_grad()
def measure(model: Predictor, data: Conversations, config: Backbones) -> dict[str, Any]:
    """Rounds in a row on what it shows itself, the enhanced state beside it."""
    backbone, shown = model.backbone, [data.frames[:, 0]]
    seen: list[Tensor] = []
    maps: list[Tensor] = []
    predicted: list[Tensor | None] = [None]
    for when in range(config.rounds):
        seen.append(backbone.see(torch.from_numpy(shown[-1][:, None])))
        maps.append(fuse(model.world, shown[-1]))
        pictures, state = model(seen, [row[: when + 1] for row in data.said], torch.stack(maps, 1), predicted)
        predicted.append(state[:, -1])
        shown.append(to_uint8(pictures[:, -1]).numpy())
    frames = np.stack(shown, 1)
    found, each = np.stack([locate(one) for one in frames]), np.arange(len(frames))
    result: dict[str, Any] = {name: [] for name in ("psnr", "error", "error_interval", "obeyed", "obeyed_interval")}
    for when in range(1, config.rounds + 1):
        block, along = data.blocks[:, when - 1], data.directions[:, when - 1]
        went = [np.sum((p[each, when, block] - p[each, when - 1, block]) * along, -1) for p in (data.places, found)]
        counted = went[0] > ENOUGH
        done = int((went[1][counted] > ENOUGH).sum())
        off = np.linalg.norm(found[each, when, block] - data.places[each, when, block], axis=-1) / BLOCK_WIDTH
        off = np.where(np.isnan(off), np.inf, off)[counted]
        result["psnr"].append(float(psnr(frames[:, when], data.frames[:, when]).mean()))
        result["error"].append(float(np.median(off)))
        result["error_interval"].append(bootstrap(np.median, off))
        result["obeyed"].append(done / max(1, int(counted.sum())))
        result["obeyed_interval"].append(wilson(done, int(counted.sum())))
    return result


def main(config: Backbones) -> None:
    commit, world = current_commit(), WorldModel.load(config.world, "cpu").requires_grad_(False)
    for name in config.backbones:
        load(name, config, 0)  # mistakes show before anything is recorded
    data, held_out = converse(config.conversations, config.rounds, 1), converse(config.held_out, config.rounds, 2)
    metrics: dict[str, Any] = {"rounds": config.rounds, "held_out": config.held_out, "pretraining": {}, "backbones": {}}
    still = held_out.frames[:, :1].repeat(config.rounds, 1)
    metrics["psnr_if_still"] = psnr(still, held_out.frames[:, 1:]).mean(0).tolist()
    with tempfile.TemporaryDirectory() as temporary:
        backbones = {name: name for name in config.backbones}
        if not backbones:
            corpus = [*captions(data), *{said for row in data.said for said in row}]
            for label, width, layers in (("toy", 192, 4), ("smaller toy", 96, 2)):
                fresh = make_toy(Path(temporary) / f"fresh {label}", width, layers, corpus)
                target = Path(temporary) / label
                metrics["pretraining"][label] = pretrain(fresh, target, data, config)
                backbones |= {f"{label}, pretrained": str(target), f"{label}, random": f"random:{target}"}
        for label, name in backbones.items():
            for seed in range(config.seeds):
                model = train(name, data, world, config, seed)
                entry = metrics["backbones"].setdefault(label, {"seeds": []})
                entry["parameters"] = sum(p.numel() for p in model.backbone.vlm.parameters())
                entry["seeds"].append(measure(model, held_out, config))
                write_results(config.json, 0, metrics, commit)
                print(label, seed, {k: v for k, v in entry["seeds"][-1].items() if "interval" not in k})


if __name__ == "__main__":
    main(tyro.cli(Backbones))
