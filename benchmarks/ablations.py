"""What is each part of the design worth? Worlds that differ in one part, taught alike.

    bash benchmarks/ablations.sh

Tokenizer and dynamics begin from nothing; data, batches and their order, optimiser, optimiser steps and (within 3%) the
number of parameters are the same for all, slips too; nobody is fed with its own dreams. Each row of the table is ours
with another part in the place of one:

    raster        iVideoGPT's scheme (arXiv 2405.15223): 16 tokens a frame, each one pass of the whole backbone
    scales        SAMPO's (arXiv 2509.15536): the scales, each one pass of the whole backbone, all kept in its cache
    single        one scale, all 64 tokens in one pass of the scale head
    symmetric     encoder and decoder don't look at the context, which is tokenised as all other frames
    queries       the next state comes out at query tokens that leave the cache (PAN, arXiv 2511.09057)
    queries_kept  the same, but they stay
    tokens_alone  nothing of what tokens leave out is kept
    timeless      all steps stand at the same time in the backbone's positions: that a step is past is all it can tell

What is compared is what these parts give for as much training; a published model is more than one of them.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import tyro
from baselines import SymmetricTokenizer, ThroughBackbone, Timeless, TokenWorld
from drift import show
from fit import fit
from safetensors.torch import load_file, save_file
from section import Results, Section, made_by, markdown, over_seeds
from torch import Tensor, nn

from worldgym.bench import by_turns, num_parameters
from worldgym.config import DynamicsConfig, TokenizerConfig, WorldConfig
from worldgym.data import Episodes, Segment, load_episodes
from worldgym.envs_real.tabletop import locate
from worldgym.envs_real.tabletop.cases import BLOCK_WIDTH, held_out_episodes
from worldgym.evaluate import Dreamed, dream, evaluate_dreams, evaluate_objects
from worldgym.metrics import bootstrap, psnr
from worldgym.model.dynamics import Dynamics
from worldgym.model.pixels import to_float
from worldgym.model.text import PhraseTokenizer
from worldgym.model.tokenizer import Tokenizer
from worldgym.results import current_commit, write_results
from worldgym.train.dynamics import Batches
from worldgym.train.tokenizer import sample_pairs
from worldgym.world import WorldModel

WINDOW = 8
"""Steps the backbones remember; every past scale of every frame has to be trained on."""


@dataclass(frozen=True)
class Ablations:
    """Train and measure what has not been yet, then write the table of all."""

    runs: tuple[str, ...] = ()
    """Only these, each NAME_SEED, and no table: several processes can share the work."""
    dataset: str = "worldgym/tabletop-v0"
    tokenizer_steps: int = 700
    """Optimiser steps of 48 frames."""
    steps: int = 400
    """Optimiser steps of the dynamics."""
    batch: int = 8
    """Segments a step."""
    learning_rate: float = 1e-3
    """Peak, of everything."""
    token_noise: float = 0.1
    """Mean share of tokens that are replaced by wrong ones in the past that is taught from."""
    episodes: int = 128
    """Held-out episodes of MuJoCo."""
    at: tuple[int, ...] = (1, 4, 8, 16)
    """Steps that the table shows."""
    rounds: int = 5
    """Turns in which speed is measured."""
    out: Path = Path("runs/ablations")
    json: Path = Path("benchmarks/results/tabletop_ablations.json")
    picture: Path = Path("docs/images/ablations.png")


class Variant(NamedTuple):
    name: str
    tokenizer: str = "ours"
    """Of TOKENIZERS."""
    through: str | None = None
    """What goes through the backbone token by token ("raster") or scale by scale ("scales"); None for ours."""
    changed: dict[str, Any] = {}
    """Of our dynamics' configuration."""
    timeless: bool = False
    """Whether the backbone's positions have no time."""
    seeds: int = 1


TOKENIZERS = {
    "ours": TokenizerConfig(),
    "raster": TokenizerConfig(scales=(4,)),
    "single": TokenizerConfig(scales=(8,)),
    "symmetric": TokenizerConfig(),
    "half": TokenizerConfig(resolution=32, scales=(1, 2, 4)),
}
OURS = Variant("ours", seeds=3)
VARIANTS = (
    OURS,
    Variant("raster", "raster", "raster", seeds=3),
    Variant("queries", changed={"predict": "queries"}),
    Variant("queries_kept", changed={"predict": "queries_kept"}),
    Variant("single", "single"),
    Variant("symmetric", "symmetric"),
    Variant("scales", through="scales"),
    Variant("tokens_alone", changed={"residual": 0.0}),
    Variant("timeless", timeless=True),
)
"""In the order of the table; ours first, which the others are measured against."""


# -- making them -----------------------------------------------------------------------------------------------------


def new_tokenizer(name: str) -> Tokenizer:
    torch.manual_seed(0)
    model = (SymmetricTokenizer if name == "symmetric" else Tokenizer)(TOKENIZERS[name])
    return model.to(memory_format=torch.channels_last)


def new_world(variant: Variant, data: Episodes, seed: int) -> WorldModel | TokenWorld:
    """With random weights; without a sentence policy, which no variant needs."""
    tokenizer = new_tokenizer(variant.tokenizer)
    dynamics = replace(DynamicsConfig(window=WINDOW), **variant.changed)
    config = WorldConfig(
        f"tabletop_{variant.name}", data.actions.shape[1], data.instructions, (), data.frames_per_action,
        tokenizer=tokenizer.config, dynamics=dynamics,
    )  # fmt: skip
    text = PhraseTokenizer.train(data.phrase_list + data.instructions, dynamics.vocabulary)
    if variant.through:
        raster = variant.through == "raster"
        config = replace(config, dynamics=as_large(config, raster, num_parameters(new_world(OURS, data, 0).dynamics)))
        torch.manual_seed(seed)
        return TokenWorld(config, text, tokenizer, raster)
    torch.manual_seed(seed)
    world = WorldModel(config, text)
    world.tokenizer = tokenizer
    if variant.timeless:
        world.dynamics.layout = Timeless(**vars(world.dynamics.layout))
    return world


def as_large(config: WorldConfig, raster: bool, wanted: int) -> DynamicsConfig:
    """Five layers of backbone, their hidden size so that the dynamics have so many parameters."""
    sizes = [
        replace(config.dynamics, layers=5, mlp_width=hidden)
        for hidden in (64, 65)  # what one more of it costs
    ]
    few, more = (num_parameters(ThroughBackbone(config.tokenizer, size, config.action_size, raster)) for size in sizes)
    return replace(sizes[0], mlp_width=64 + round((wanted - few) / (more - few)))


def trained_tokenizer(config: Ablations, data: Episodes, name: str) -> Tokenizer:
    """The same for all seeds of the dynamics; what was trained before is read."""
    model, path = new_tokenizer(name), config.out / f"{name}_tokenizer.safetensors"
    if not path.exists():
        episodes, pictures = data.split("train"), replace(data, frames=at_resolution(model.config, data.frames))

        def loss(step: int) -> Tensor:
            torch.manual_seed(hash((0, step)))
            pairs = sample_pairs(pictures, episodes, 48, 16, np.random.default_rng([0, step]))
            images = (to_float(torch.from_numpy(each)).contiguous(memory_format=torch.channels_last) for each in pairs)
            return model.loss(*images).total

        learned, steps = list(model.train().parameters()), config.tokenizer_steps
        fit(learned, loss, steps, config.learning_rate, f"{name}, tokenizer", betas=(0.9, 0.99), decay=1e-4)
        save(model, path)
    model.load_state_dict(load_file(path))
    return model.eval().requires_grad_(False)


def trained_world(config: Ablations, data: Episodes, variant: Variant, seed: int) -> WorldModel | TokenWorld:
    """After its training; what was trained before is read."""
    world, path = new_world(variant, data, seed), config.out / f"{variant.name}_{seed}.safetensors"
    world.tokenizer = trained_tokenizer(config, data, variant.tokenizer)
    if not path.exists():
        drawn, learned = batches(config, data, world), list(world.dynamics.train().parameters())

        def loss(step: int) -> Tensor:
            torch.manual_seed(hash((seed, step)))
            return dynamics_loss(config, world, drawn, seed, step)

        # Dynamics warm up in a tenth of their few steps.
        warm_up, title = config.steps // 10, f"{variant.name}, seed {seed}"
        fit(learned, loss, config.steps, config.learning_rate, title, warm_up, (0.9, 0.95))
        save(world.dynamics, path)
    world.dynamics.load_state_dict(load_file(path))
    return world.eval().requires_grad_(False)


def batches(config: Ablations, data: Episodes, world: WorldModel | TokenWorld) -> Batches:
    """As many frames in each, however long a window is."""
    window = world.config.dynamics.window
    size = config.batch * WINDOW // window
    data = replace(data, frames=at_resolution(world.config.tokenizer, data.frames))
    return Batches(data, world.text, size, DynamicsConfig(window=window), 0.0, torch.device("cpu"))


def dynamics_loss(config: Ablations, world: WorldModel | TokenWorld, drawn: Batches, seed: int, step: int) -> Tensor:
    batch, tokenizer, noise = drawn.draw(seed, step), world.tokenizer, config.token_noise
    if isinstance(world, TokenWorld):
        return world.dynamics.loss(batch, tokenizer, noise).total
    return world.dynamics.loss(batch, tokenizer, world.dynamics.draw_chances(tokenizer, drawn.size, noise)).total


def at_resolution(config: TokenizerConfig, frames: np.ndarray) -> np.ndarray:
    """Frames as a tokenizer takes them: as they are, or at half the resolution."""
    if config.resolution == frames.shape[-2]:
        return frames
    assert 2 * config.resolution == frames.shape[-2]
    return np.concatenate([halved(part) for part in np.array_split(frames, 1 + len(frames) // 1000)])


def halved(frames: np.ndarray) -> np.ndarray:
    """The mean of each square of four pixels."""
    rows = frames[..., ::2, :, :].astype(np.uint16) + frames[..., 1::2, :, :]
    return ((rows[..., ::2, :] + rows[..., 1::2, :] + 2) // 4).astype(np.uint8)


def save(model: nn.Module, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, temporary)
    temporary.rename(path)


# -- measuring them --------------------------------------------------------------------------------------------------


@cache
def held_out(config: Ablations) -> tuple[Segment, np.ndarray]:
    """(episodes, the objects' places)."""
    return held_out_episodes(config.episodes, max(config.at), seed=0)


def shown(config: Ablations) -> int:
    """The episode that the picture shows: that in which blocks go furthest."""
    _, places = held_out(config)
    return int(np.linalg.norm(places[:, -1, 1:] - places[:, 0, 1:], axis=-1).sum(1).argmax())


def measured(config: Ablations, data: Episodes, variant: Variant, seed: int) -> dict[str, Any]:
    """Open-loop dreams of a variant; what was measured before is read."""
    path = config.out / f"{variant.name}_{seed}.json"
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    world = trained_world(config, data, variant, seed)
    real, places = held_out(config)
    real = replace(real, frames=at_resolution(world.config.tokenizer, real.frames))
    dreamed = dream(world, real, seed=0)  # the same questions for all
    at, asked = [step - 1 for step in config.at], dreamed.asked
    truth = Segment(real.frames[:, [0, *config.at]], *(part[:, at] for part in list(vars(real).values())[1:]))
    dreamed = Dreamed(*(part[:, at] for part in list(vars(dreamed).values())[:-1]), asked)
    figures = evaluate_dreams(world, truth, dreamed)
    figures |= evaluate_objects(dreamed.frames, places[:, [0, *config.at]], locate, BLOCK_WIDTH)
    small = gain_of_small_pictures(truth.frames, dreamed.frames)
    figures |= {
        "psnr_gain_32": small.mean(0).tolist(), "psnr_gain_32_interval": [bootstrap(np.mean, one) for one in small.T],
    }  # fmt: skip
    kept = (
        "reconstruction_psnr", "psnr_repeat_context", "psnr", "psnr_gain", "psnr_gain_interval", "psnr_gain_32",
        "psnr_gain_32_interval", "reward_correlation", "reward_correlation_interval", "controlled_error",
        "controlled_error_interval", "moved", "moved_error",
        "moved_error_interval", "moved_error_if_still",
    )  # fmt: skip
    strip = torch.from_numpy(dreamed.frames[shown(config)]).contiguous()
    dreams = {"frames": strip, "gain_32": torch.from_numpy(small).contiguous()}
    save_file(dreams, path.with_name(f"{variant.name}_{seed}_dream.safetensors"))
    write_results(path, seed, {name: figures[name] for name in kept}, current_commit())
    return json.loads(path.read_text(encoding="utf-8"))


def gain_of_small_pictures(truth: np.ndarray, dreamed: np.ndarray) -> np.ndarray:
    """dB over repeating the first frame, [episodes, steps], all seen at 32 pixels a side, whatever a world's are."""
    truth, dreamed = (at_resolution(TOKENIZERS["half"], frames) for frames in (truth, dreamed))
    first = np.broadcast_to(truth[:, :1], dreamed.shape)
    return psnr(dreamed, truth[:, 1:]) - psnr(first, truth[:, 1:])


def costs(config: Ablations, data: Episodes, variants: Sequence[Variant]) -> dict[str, dict[str, Any]]:
    """Of each variant its size, and by turns, with random weights, the time of a training step, and of a window of
    frames with pixels, its beginning included."""
    real, _ = held_out(config)
    worlds = {variant.name: new_world(variant, data, 0).eval().requires_grad_(False) for variant in variants}
    one = worlds[variants[0].name]

    def train(world: WorldModel | TokenWorld, drawn: Batches) -> None:
        world.dynamics.requires_grad_(True).train()
        with torch.autocast("cpu", torch.bfloat16):
            total = dynamics_loss(config, world, drawn, 0, 0)
        total.backward()
        world.dynamics.eval().requires_grad_(False).zero_grad()

    def window(world: WorldModel | TokenWorld, count: int) -> None:
        first = at_resolution(world.config.tokenizer, real.frames[:count, :1])
        state = world.start(first, real.actions[:count, :0], np.arange(count), [data.instructions[0]] * count, 0.0)
        for when in range(world.config.dynamics.window):
            state, _ = world.step(state, real.actions[:count, when])
            world.render(state).numpy()

    found: dict[str, dict[str, Any]] = {}
    for name, world in worlds.items():
        kept = world.dynamics.layout.kept if isinstance(world.dynamics, Dynamics) else world.dynamics.step
        found[name] = {
            "parameters": {"tokenizer": num_parameters(world.tokenizer), "dynamics": num_parameters(world.dynamics)},
            "tokens_a_frame": world.config.tokenizer.tokens,
            "cached_tokens_a_frame": kept,
        }
    taught = {name: partial(train, world, batches(config, data, world)) for name, world in worlds.items()}
    for name, seconds in by_turns(taught, 3, one).items():
        found[name]["seconds_a_training_step"] = float(np.median(seconds))
    for count in (1, 16):
        dreamed = {name: partial(window, world, count) for name, world in worlds.items()}
        for name, seconds in by_turns(dreamed, config.rounds, one, settle=count == 1).items():
            frames = count * worlds[name].config.dynamics.window
            found[name][f"frames_a_second_{count}"] = frames / float(np.median(seconds))
    return found


def study(config: Ablations, variants: Sequence[Variant]) -> dict[str, Any]:
    """Train and measure them, and write their table, which is returned; or do some runs of it alone."""
    torch.set_num_threads(1)  # which is what runs that share a machine have
    commit, data = current_commit(), load_episodes(config.dataset)
    if config.runs:
        known = {variant.name: variant for variant in variants}
        for run in config.runs:
            name, seed = run.rsplit("_", 1)
            print(run, brief(measured(config, data, known[name], int(seed))["metrics"]))
        return {}
    metrics: dict[str, Any] = {
        "at": config.at, "episodes": config.episodes, "tokenizer_steps": config.tokenizer_steps, "steps": config.steps,
        "batch": config.batch, "window": WINDOW, "variants": costs(config, data, variants),
    }  # fmt: skip
    real, _ = held_out(config)
    pictures = {"MuJoCo": real.frames[shown(config)][None, list(config.at)]}
    for variant in variants:
        seeds = [measured(config, data, variant, seed)["metrics"] for seed in range(variant.seeds)]
        metrics["variants"][variant.name]["seeds"] = seeds
        strip = load_file(config.out / f"{variant.name}_0_dream.safetensors")["frames"]
        pictures[variant.name.replace("_", " ")] = strip[None].numpy()
        print(f"{variant.name:14s}", brief(seeds[0]))
        write_results(config.json, 0, metrics, commit)  # after each: a variant takes minutes
        show(pictures, list(range(len(config.at))), config.at, config.picture, episodes=1)
    return metrics


def brief(found: dict[str, Any]) -> str:
    gains = " ".join(f"{gain:+.2f}" for gain in found["psnr_gain"])
    return f"{found['reconstruction_psnr']:.1f} dB through tokens; dreams {gains} dB over the first frame"


# -- the section of docs/results.md -----------------------------------------------------------------------------------

ABLATED = {
    "ours": "ours",
    "raster": "16 tokens, each through the backbone (iVideoGPT)",
    "scales": "each scale through the backbone (SAMPO)",
    "single": "one scale of 64 tokens",
    "symmetric": "tokens without a look at the context",
    "queries": "queries, which leave the cache (PAN)",
    "queries_kept": "queries, which stay",
    "tokens_alone": "nothing kept of what tokens leave out",
    "timeless": "positions without time",
}
SPEEDS = (("seconds_a_training_step", ".2f"), ("frames_a_second_1", ".0f"), ("frames_a_second_16", ".0f"))


def section(results: Results) -> list[str]:
    m = results["metrics"]
    first = m["at"][0]
    columns = [
        *((f"PSNR gain, {step}", "psnr_gain", step, 1) for step in m["at"]),
        (f"pusher's error, {first}", "controlled_error", first, 2),
        ("moved blocks' error, 8", "moved_error", 8, 2),
        ("reward, 8", "reward_correlation", 8, 2),
    ]
    return [
        f"Ours with another part in the place of one, each learned from nothing: {taught(m)}, the same batches in the "
        "same order, nobody fed with its own dreams. What differs is at the top of `benchmarks/ablations.py`. "
        f"{judged(m)}",
        "",
        *variants_table(m, ABLATED, columns),
        "",
        *costs_table(m, ABLATED),
        "",
        "![The same episodes, dreamed by each](images/ablations.png)",
        "",
        made_by(results),
    ]


def taught(m: dict[str, Any]) -> str:
    return (
        f"{m['tokenizer_steps']} steps of 48 frames for its tokenizer, {m['steps']} steps of {m['batch']} segments of "
        f"{m['window']} steps for its dynamics"
    )


def judged(m: dict[str, Any]) -> str:
    """How the worlds of a study from nothing were measured."""
    still, eighth = next(iter(m["variants"].values()))["seeds"][0], m["at"].index(8)
    repeat = " / ".join(f"{value:.1f}" for value in still["psnr_repeat_context"])
    return (
        f"{m['episodes']} held-out episodes of MuJoCo, dreamed open loop from one frame; a full window begins anew "
        f"from the newest frame. PSNR gain is over repeating the first frame, which has {repeat} dB; blocks that moved "
        f"would be {still['moved_error_if_still'][eighth]:.2f} widths off after 8 steps, had they stayed. "
        "Reward: correlation with MuJoCo's. Of several seeds the mean and the range, else the 95% interval over "
        "episodes; a tokenizer is shared by all seeds."
    )


def variants_table(
    m: dict[str, Any], titles: dict[str, str], columns: Sequence[tuple[str, str, int, int]]
) -> list[str]:
    """Quality of the variants of a study.

    Args:
        titles: what each is called.
        columns: title, figure, steps dreamed and digits of each.
    """
    rows = []
    for name, found in m["variants"].items():
        if seeds := found.get("seeds"):  # training takes minutes for each, sizes and speeds do without
            several = f", {len(seeds)} seeds" if len(seeds) > 1 else ""
            through = f"{seeds[0]['reconstruction_psnr']:.1f}"
            cells = (of_seeds(seeds, figure, m["at"].index(step), digits) for _, figure, step, digits in columns)
            rows.append([titles[name] + several, through, *cells])
    return markdown(["", "through tokens, dB", *(title for title, *_ in columns)], rows)


def of_seeds(seeds: list[dict[str, Any]], name: str, index: int, digits: int) -> str:
    values = over_seeds([one[name][index] for one in seeds], digits)
    intervals = seeds[0].get(f"{name}_interval")
    if len(seeds) > 1 or values == "lost" or intervals is None:
        return values
    low, high = ("lost" if bound is None else f"{bound:.{digits}f}" for bound in intervals[index])
    return f"{values} ({low} to {high})"


def costs_table(m: dict[str, Any], titles: dict[str, str]) -> list[str]:
    head = ["", "parameters", "tokens a frame", "in the cache", "s a training step", "frames/s, 1 dream", "16 dreams"]
    rows = []
    for name, found in m["variants"].items():
        size = found["parameters"]
        rows.append(
            [
                titles[name],
                f"{size['tokenizer'] / 1e6:.2f} + {size['dynamics'] / 1e6:.2f} M",
                f"{found['tokens_a_frame']}",
                f"{found['cached_tokens_a_frame']}",
                *(f"{found[key]:{form}}" for key, form in SPEEDS),
            ]
        )
    return [
        "Speed of one thread, by turns: a training step, and frames with pixels, a window with its beginning.",
        "",
        *markdown(head, rows),
    ]


SECTION = Section("What is each part of the design worth?", ("tabletop_ablations",), "benchmarks/ablations.sh", section)


if __name__ == "__main__":
    study(tyro.cli(Ablations), VARIANTS)
