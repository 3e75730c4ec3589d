"""What is a pretrained backbone worth? PAN's stage two on the Tabletop, over frozen language models that differ.

    python benchmarks/pan_backbone.py            # toys, made and pretrained here
    python benchmarks/pan_backbone.py --size 112 --backbones Qwen/Qwen2.5-VL-3B-Instruct \
        random:Qwen/Qwen2.5-VL-3B-Instruct

PAN claims that a pretrained model grounds the prediction of what is seen next (PAN 3.1). The queries of a frozen
backbone, and a linear readout of what comes out at them, learn where everything on the table is after a sentence, from
a picture of it before. A backbone is a hub name or folder of a Qwen2.5-VL; "random:" before it takes the same
architecture with fresh weights.

No pretrained weights are here by default, so toys are pretrained first, vision tower and language model. Pictures teach
where everything is. Stories are text alone, a caption ("pusher 3 5; red 0 2; ...") and a sentence, and teach where
everything is afterwards. What stage two asks, a picture and a sentence, neither shows: it has to be put together, from
what was seen and what was read.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from fit import fit
from section import Results, Section, made_by, markdown, over_seeds
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLModel

from worldgym.bench import num_parameters
from worldgym.envs_real.tabletop.cases import BLOCK_WIDTH, ENOUGH, HELD_OUT, carry_out, case_env, pushes
from worldgym.metrics import bootstrap, wilson
from worldgym.pan.backbone import MEAN, SPREAD, ConversationConfig, PanBackbone, patchify
from worldgym.results import current_commit, write_results

MARKS = ("<pad>", *(f"<|{m}|>" for m in ("im_start", "im_end", "vision_start", "vision_end", "image_pad", "video_pad")))
CELLS = 8
"""A caption says in which of 8 x 8 cells of the table each object is."""
QUESTION = "where is everything"
PICTURES, STORIES = "pictures", "stories"
TOYS = {
    "toy, random": (128, 4, ()),
    "toy, taught by pictures": (128, 4, (PICTURES,)),
    "toy, taught by pictures and stories": (128, 4, (PICTURES, STORIES)),
    "smaller toy, taught by pictures and stories": (64, 2, (PICTURES, STORIES)),
}
"""Width and layers of the language model, and what teaches it."""


@dataclass(frozen=True)
class Backbones:
    backbones: tuple[str, ...] = ()
    """Hub names or folders, "random:" before one for fresh weights; toys by default."""
    pretraining: int = 250
    """Steps of the pretraining of toys, by each thing that teaches them."""
    steps: int = 200
    """Steps of stage two."""
    batch: int = 16
    """Conversations a step of stage two; twice as many pictures or stories a step of the pretraining."""
    conversations: int = 1200
    held_out: int = 256
    rounds: int = 2
    learning_rate: float = 3e-3
    seeds: int = 2
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
        _, info = env.reset(seed=int(random.integers(2**31)))
        said.append([known[which] for which in random.integers(len(known), size=rounds)])
        frames.append([env.render()])
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


def captions(data: Conversations) -> list[list[str]]:
    """Where everything is in each frame, in words, [n][rounds + 1]; places are in [-1, 1]."""
    cells = np.clip(((data.places + 1) / 2 * CELLS).astype(int), 0, CELLS - 1)
    return [
        ["; ".join(f"{name} {x} {y}" for name, (x, y) in zip(data.names, places, strict=True)) for places in row]
        for row in cells
    ]


def make_toy(folder: Path, width: int, layers: int, corpus: list[str]) -> None:
    """A Qwen2.5-VL of the real classes with fresh weights, and a BPE for the corpus.

    Its weights begin as large as the width asks for; at the 0.02 that suits 3584 it learns nothing in minutes.
    """
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
            "bos_token_id": None, "eos_token_id": None, "initializer_range": width**-0.5,
            "rope_parameters": {
                "rope_type": "default", "rope_theta": 10000.0,
                "mrope_section": [part - 2 * (part // 3), part // 3, part // 3],
            },
        },
        vision_config={
            "depth": 2, "hidden_size": 64, "intermediate_size": 128, "num_heads": 4, "out_hidden_size": width,
            "patch_size": 8, "fullatt_block_indexes": [1], "initializer_range": 64**-0.5,
        },
        image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"], vision_end_token_id=ids["<|vision_end|>"],
    )  # fmt: skip
    torch.manual_seed(0)
    Qwen2_5_VLModel(config).save_pretrained(folder)


def pretrain(folder: Path, taught: Sequence[str], data: Conversations, config: Backbones) -> dict[str, float]:
    """Teach a toy where everything is, whole, by queries and a readout that are thrown away afterwards; returns its
    error at last, in block widths, by what it was taught."""
    torch.manual_seed(0)
    backbone = PanBackbone.load(str(folder), conversation(config)).train()
    vlm, model = backbone.vlm.requires_grad_(True), Predictor(backbone, data.places)
    told, errors = captions(data), {what: [0.0] for what in taught}

    def loss(step: int) -> Tensor:
        what, random = taught[step % len(taught)], np.random.default_rng([0, step])
        rows = random.integers(len(told), size=2 * config.batch)
        rounds = random.integers(config.rounds, size=2 * config.batch)
        if what == PICTURES:
            seen, said = look(vlm, data.frames[rows, rounds], config), [[QUESTION]] * len(rows)
        else:
            seen = torch.zeros(len(rows), 0, backbone.width)
            pairs = zip(rows, rounds, strict=True)
            said = [[f"{told[row][when]}: {data.said[row][when]}"] for row, when in pairs]
        places = model(seen[:, None], said)[:, 0].float()
        truth = torch.from_numpy(data.places[rows, rounds + (what == STORIES)]) / BLOCK_WIDTH
        errors[what].append(float((places.detach() - truth).norm(dim=-1).median()))
        return F.smooth_l1_loss(places, truth)

    learned, steps = list(model.parameters()), config.pretraining * len(taught)
    fit(learned, loss, steps, 1e-3, f"pretraining {folder.name}", 50, (0.9, 0.95))
    vlm.save_pretrained(folder)
    return {what: float(np.mean(those[-50:])) for what, those in errors.items()}


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
    return ConversationConfig(queries=8, rounds=config.rounds, frames=2, height=config.size, width=config.size)


class Predictor(nn.Module):
    """A frozen backbone, its queries, and a linear readout: where everything is after each round, in block widths."""

    def __init__(self, backbone: PanBackbone, places: np.ndarray):
        super().__init__()
        self.backbone = backbone
        self.norm = nn.LayerNorm(backbone.width)
        self.readout = nn.Linear(backbone.config.queries * backbone.width, places[0, 0].size)
        nn.init.zeros_(self.readout.weight)
        with torch.no_grad():
            self.readout.bias.copy_(torch.from_numpy(places.mean((0, 1)).flatten() / BLOCK_WIDTH))

    def forward(self, seen: Tensor, said: list[list[str]]) -> Tensor:
        """[b, r, k, 2], from what the vision tower makes of the frame before each round, [b, r, m, d]."""
        rounds = seen.shape[1]
        state = self.backbone(list(seen.unbind(1)), said, [None] * rounds)
        return self.readout(self.norm(state.float()).flatten(2)).unflatten(2, (-1, 2))


def load(name: str, config: Backbones, seed: int) -> PanBackbone:
    torch.manual_seed(seed)
    backbone = PanBackbone.load(name.removeprefix("random:"), conversation(config))
    if name.startswith("random:"):
        fresh = Qwen2_5_VLModel(backbone.vlm.config)
        backbone.vlm.load_state_dict(fresh.state_dict())
    return backbone.eval()


def see(backbone: PanBackbone, data: Conversations) -> Tensor:
    """What the frozen vision tower makes of the frame before each round, [n, r, m, d]: once for all steps."""
    frames = torch.from_numpy(data.frames[:, :-1])
    return torch.cat([backbone.see(part[:, None]) for part in frames.flatten(0, 1).split(64)]).unflatten(
        0, frames.shape[:2]
    )


def train(backbone: PanBackbone, data: Conversations, config: Backbones, seed: int) -> Predictor:
    model, seen = Predictor(backbone, data.places[:, 1:]), see(backbone, data)
    truth = torch.from_numpy(data.places[:, 1:]).float() / BLOCK_WIDTH
    learned = [backbone.queries, *model.norm.parameters(), *model.readout.parameters()]

    def loss(step: int) -> Tensor:
        rows = np.random.default_rng([seed, step]).integers(len(data.said), size=config.batch)
        return F.smooth_l1_loss(model(seen[rows], [data.said[row] for row in rows]).float(), truth[rows])

    fit(learned, loss, config.steps, config.learning_rate, f"stage two, seed {seed}", 40, (0.9, 0.95))
    return model.eval().requires_grad_(False)


@torch.no_grad()
def predict(model: Predictor, data: Conversations) -> np.ndarray:
    """Places after each round, [n, r, k, 2]: on true frames, as PAN is taught."""
    seen = see(model.backbone, data)
    parts = [
        model(seen[begin : begin + 64], data.said[begin : begin + 64]) * BLOCK_WIDTH
        for begin in range(0, len(seen), 64)
    ]
    return torch.cat(parts).numpy()


def judge(places: np.ndarray, data: Conversations) -> dict[str, Any]:
    """Predicted places [n, r, k, 2] against the true ones, round by round.

    Of the pushed block, where it does go the commanded way: error, and whether it is predicted to go so. Of the others,
    error where they stay: what is said of them is seen, and not foreseen.
    """
    names = ("error", "error_interval", "obeyed", "obeyed_interval", "others_error", "cases")
    result: dict[str, Any] = {name: [] for name in names}
    each, objects = np.arange(len(places)), np.arange(places.shape[2])
    for when in range(places.shape[1]):
        block, along = data.blocks[:, when], data.directions[:, when]
        before, after = data.places[:, when], data.places[:, when + 1]
        off = np.linalg.norm(places[:, when] - after, axis=-1) / BLOCK_WIDTH
        went = [np.sum((p - before)[each, block] * along, -1) for p in (after, places[:, when])]
        counted = went[0] > ENOUGH
        done = int((went[1][counted] > ENOUGH).sum())
        stayed = (objects > 0) & (objects != block[:, None]) & (np.linalg.norm(after - before, axis=-1) < ENOUGH / 10)
        result["cases"].append(int(counted.sum()))
        result["error"].append(float(np.median(off[each, block][counted])))
        result["error_interval"].append(bootstrap(np.median, off[each, block][counted]))
        result["obeyed"].append(done / max(1, int(counted.sum())))
        result["obeyed_interval"].append(wilson(done, int(counted.sum())))
        result["others_error"].append(float(np.median(off[stayed])))
    return result


def main(config: Backbones) -> None:
    commit = current_commit()
    for name in config.backbones:
        load(name, config, 0)  # mistakes show before anything is recorded
    data, held_out = converse(config.conversations, config.rounds, 1), converse(config.held_out, config.rounds, 2)
    middle = np.broadcast_to(data.places[:, 1:].mean((0, 1)), held_out.places[:, 1:].shape)
    metrics: dict[str, Any] = {
        "rounds": config.rounds, "held_out": config.held_out, "pretraining": {}, "backbones": {},
        "if_still": judge(held_out.places[:, :-1], held_out), "mean_place": judge(middle, held_out),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        backbones = {name: name for name in config.backbones}
        if not backbones:
            corpus = [
                QUESTION,
                *(one for row in captions(data) for one in row),
                *{one for row in data.said for one in row},
            ]
            for label, (width, layers, taught) in TOYS.items():
                folder = Path(temporary) / label
                make_toy(folder, width, layers, corpus)
                if taught:
                    metrics["pretraining"][label] = pretrain(folder, taught, data, config)
                    print(label, metrics["pretraining"][label])
                backbones[label] = str(folder) if taught else f"random:{folder}"
        for label, name in backbones.items():
            for seed in range(config.seeds):
                backbone = load(name, config, seed)
                found = judge(predict(train(backbone, data, config, seed), held_out), held_out)
                entry = metrics["backbones"].setdefault(label, {"seeds": []})
                entry["parameters"] = num_parameters(backbone.vlm)
                entry["seeds"].append(found)
                write_results(config.json, 0, metrics, commit)
                print(f"{label}, seed {seed}: { ({k: v for k, v in found.items() if 'interval' not in k}) }")


# -- the section of docs/results.md -----------------------------------------------------------------------------------


def section(results: Results) -> list[str]:
    m = results["metrics"]
    rounds = range(m["rounds"])
    text = (
        "PAN's stage two over frozen backbones: the queries and a linear readout learn where everything is after a "
        f"sentence, from a picture of it before. {m['held_out']} held-out conversations of {m['rounds']} rounds. "
        "Error: of the pushed block, where it moves in MuJoCo, median, in block widths; obeyed: it is predicted to go "
        "the commanded way; others' error: of the block that stays, which is seen and not foreseen. Each cell: round "
        + " / ".join(str(index + 1) for index in rounds)
        + ", mean over seeds and their range."
    )

    def cells(seeds: list[dict[str, Any]]) -> list[str]:
        return [
            " / ".join(over_seeds([one[name][index] for one in seeds], 2) for index in rounds)
            for name in ("error", "obeyed", "others_error")
        ]

    rows = [
        *([name, f"{one['parameters'] / 1e6:.2f} M", *cells(one["seeds"])] for name, one in m["backbones"].items()),
        ["nothing moves, all places known", "", *cells([m["if_still"]])],
        ["everything at its mean place", "", *cells([m["mean_place"]])],
    ]
    lines = [text, "", *markdown(["backbone", "parameters", "error", "obeyed", "others' error"], rows)]
    taught = [
        f"the {name}: " + ", ".join(f"{what} {error:.2f}" for what, error in found.items())
        for name, found in m["pretraining"].items()
    ]
    if taught:
        lines += ["", "Median error of all places at the end of the pretraining: " + "; ".join(taught) + "."]
    return [*lines, "", made_by(results)]


SECTION = Section(
    "What is a pretrained backbone worth?", ("pan_backbone",), "python benchmarks/pan_backbone.py", section
)


if __name__ == "__main__":
    main(tyro.cli(Backbones))
