"""Does Causal Swin-DPM drift less than chunk after chunk? A video model that must carry the picture along itself.

    python benchmarks/swin_drift.py

The decoder of a dream is told all that every frame shows, so nothing of it can drift. Here the same classes make a
video model of the Tabletop that has to carry details along itself, four frames at a time, twelve times in a row from
one real frame. What is encoded is the world's fused map (of a frame that is its own context), each component at unit
variance. The first principal components, by which one just sees where what is, are told of every frame, as PAN's
decoder is told the predicted state; the others are diffused, and nothing but the frame before tells them.

The variants differ in how many of the steps the chunks of a window are apart, and in how noisy the frame before is.
They learn from the same frames in the same order; what is a window of two chunks to one is two of one chunk to those
that have no window. A run that was cut goes on with the variants that are not trained yet.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import torch
import tyro
from diffusers import WanTransformer3DModel
from drift import misplaced, show
from fit import fit
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from section import Results, Section, estimate, made_by, over_seeds, row, two_digits
from torch import Tensor, nn

from worldgym.data import load_episodes
from worldgym.decoders.flow import Schedule, mix, velocity
from worldgym.decoders.swin import Asked, CausalSwin, SwinConfig, window_loss, with_condition_frame
from worldgym.decoders.wan import Condition, ConditionedWan, Keys
from worldgym.envs_real.tabletop.cases import held_out_episodes
from worldgym.metrics import bootstrap, psnr, sharpness, ssim
from worldgym.model.pixels import to_float, to_uint8
from worldgym.model.tokenizer import Tokenizer
from worldgym.results import current_commit, write_results
from worldgym.world import WorldModel

matplotlib.use("Agg")
from matplotlib import pyplot as plt

PAN = SwinConfig(frames=4, schedule=Schedule(8, 1.0), guidance=1.0, drop=0.0)
"""But for sizes. What is said to this model is all that it knows, so guidance has nothing to leave out."""
VARIANTS = {
    "half of the steps apart (PAN)": PAN,
    "chunk after chunk": replace(PAN, offset=1.0),
    "chunk after chunk, clean frame": replace(PAN, offset=1.0, condition_level=0.0),
    "a quarter of the steps apart": replace(PAN, offset=0.25),
}
STATE = 8
"""Components that are told."""
ENDS = 3
"""Chunks at the beginning and at the end that a decline is measured between."""


@dataclass(frozen=True)
class SwinDrift:
    world: str = "tabletop"
    """Whose tokenizer and fast decoder make the latents and show them."""
    dataset: str = "worldgym/tabletop-v0"
    episodes: int = 250
    """That are learned from."""
    components: int = 24
    steps: int = 300
    batch: int = 8
    """Windows of two chunks."""
    learning_rate: float = 2e-3
    seeds: int = 3
    """Of the first two variants; the others are trained once."""
    held_out: int = 32
    chunks: int = 12
    out: Path = Path("runs/tabletop/swin_drift")
    json: Path = Path("benchmarks/results/swin_drift.json")
    curves: Path = Path("docs/images/swin_drift.png")
    picture: Path = Path("docs/images/swin_drift_frames.png")


# -- latents ----------------------------------------------------------------------------------------------------------


class Latents:
    """Frames as principal components of their fused maps, and back."""

    def __init__(self, tokenizer: Tokenizer, frames: np.ndarray, components: int):
        self.tokenizer = tokenizer
        cells = self._fuse(frames).movedim(1, -1).flatten(0, -2)
        self.mean = cells.mean(0)
        variances, axes = torch.linalg.eigh(torch.cov(cells.T))
        self.axes, self.scales = axes[:, -components:], variances[-components:].sqrt()

    def of(self, frames: np.ndarray) -> Float[Tensor, "n c g g"]:
        cells = self._fuse(frames).movedim(1, -1) - self.mean
        return (cells @ self.axes / self.scales).movedim(-1, 1)

    def show(self, latents: Float[Tensor, "n c g g"]) -> np.ndarray:
        fused = (latents.movedim(1, -1) * self.scales) @ self.axes.T + self.mean
        return to_uint8(self.tokenizer.decode(fused.movedim(-1, 1))).numpy()

    def _fuse(self, frames: np.ndarray) -> Float[Tensor, "n d g g"]:
        maps = []
        for part in torch.from_numpy(np.array(frames)).split(128):
            context = self.tokenizer.encode_context(to_float(part))
            maps.append(self.tokenizer.fuse(self.tokenizer.latent(to_float(part), context), context))
        return torch.cat(maps)


# -- model ------------------------------------------------------------------------------------------------------------


class VideoModel(nn.Module):
    """A toy Wan that says how frames differ from the condition frame.

    It is preconditioned as in EDM (arXiv 2206.00364): were the differences Gaussian and of unit variance, as latents
    are, the velocity without the network's output would be the best guess there is, and what that output has to add
    would be of unit variance at every noise level.
    """

    def __init__(self, channels: int, layers: int = 3, heads: int = 4):
        super().__init__()
        wan = WanTransformer3DModel(
            patch_size=(1, 1, 1), num_attention_heads=heads, attention_head_dim=32, in_channels=2 * (channels + STATE),
            out_channels=channels, text_dim=1, freq_dim=64, ffn_dim=128 * heads, num_layers=layers, rope_max_seq_len=64,
        )  # fmt: skip
        nn.init.zeros_(wan.proj_out.weight)
        nn.init.zeros_(wan.proj_out.bias)
        self.wan = ConditionedWan(wan, None)

    def forward(
        self,
        latents: Float[Tensor, "b c f h w"],
        levels: Float[Tensor, "b f"],
        condition: Condition,
        chunks: tuple[int, ...],
        past: Keys | None = None,
    ) -> tuple[Float[Tensor, "b c f h w"], Keys]:
        before, level = latents[:, :, :1], levels[:, None, :, None, None]
        scale = ((1 - level).square() + level.square()).sqrt()
        apart = (latents - (1 - level) * before) / scale
        # The frame before is told at every cell: to find its own cell in it by attention is what took longest to learn.
        out, keys = self.wan(torch.cat([apart, before.expand_as(apart)], 1), levels, condition, chunks, past)
        return ((2 * level - 1) * apart - out.float()) / scale - before, keys


def told(states: Float[Tensor, "b t1 k h w"]) -> Condition:
    """The condition of whole chunks, from the states of their frames and of the one before: each and what it was."""
    aligned = torch.cat([states[:, 1:], states[:, :-1]], 2).transpose(1, 2)
    return Condition(states.new_zeros(len(states), aligned.shape[2] // PAN.frames, 1, 1), aligned=aligned)


# -- training ---------------------------------------------------------------------------------------------------------


def chunk_loss(
    model: nn.Module,
    config: SwinConfig,
    latents: Float[Tensor, "b c f h w"],
    states: Float[Tensor, "b t1 k h w"],
    noise: Float[Tensor, "b c f h w"],
    shares: Float[Tensor, "b 2"],
) -> Float[Tensor, " b"]:
    """`window_loss` without a window: the two chunks of a window are two that begin from a given frame."""
    frames, losses = config.frames, []
    for when in range(2):
        part = slice(when * frames, (when + 1) * frames + 1)
        clean, dirt = latents[:, :, part], noise[:, :, part]
        levels = config.schedule.level(shares[:, when, None].repeat(1, frames + 1))
        levels[:, 0] = config.condition_level
        condition = with_condition_frame(told(states[:, part]))
        flow, _ = model(mix(clean, dirt, levels), levels, condition, (frames + 1,))
        losses.append((flow - velocity(clean, dirt))[:, :, 1:].square().mean((1, 2, 3, 4)))
    return (losses[0] + losses[1]) / 2


def train(
    name: str, latents: Float[Tensor, "e t c g g"], config: SwinDrift, seed: int
) -> tuple[VideoModel, list[float]]:
    """A model of a variant, and its mean loss in each tenth of the training."""
    torch.manual_seed(seed)
    swin, model = VARIANTS[name], VideoModel(latents.shape[2] - STATE)
    path = config.out / f"{name}, seed {seed}.safetensors"
    if path.exists():
        found = load_file(path)
        tenths = found.pop("losses").tolist()
        model.load_state_dict(found)
        return model.eval().requires_grad_(False), tenths
    length = 2 * swin.frames

    def loss(step: int) -> Tensor:
        random = np.random.default_rng([seed, step])
        rows = torch.from_numpy(random.integers(len(latents), size=config.batch))[:, None]
        starts = torch.from_numpy(random.integers(latents.shape[1] - length, size=config.batch))[:, None]
        when = starts + torch.arange(length + 1)
        details, states = latents[rows, when].float().split([latents.shape[2] - STATE, STATE], 2)
        clean = details.transpose(1, 2)
        chance = torch.Generator().manual_seed(int(random.integers(2**62)))
        noise, chances = torch.randn(clean.shape, generator=chance), torch.rand(config.batch, 3, generator=chance)
        if swin.offset == 1:
            return chunk_loss(model, swin, clean, states, noise, chances[:, :2]).mean()
        condition = told(states)
        return window_loss(model, swin, clean, condition, condition, noise, chances).mean()

    learned, title = list(model.parameters()), f"{name}, seed {seed}"
    losses = fit(learned, loss, config.steps, config.learning_rate, title, 50, (0.9, 0.95))
    tenths = [float(np.mean(part)) for part in np.array_split(losses, 10)]
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(weights | {"losses": torch.tensor(tenths)}, temporary := path.with_suffix(".tmp"))
    temporary.rename(path)
    return model.eval().requires_grad_(False), tenths


# -- judging ----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def stream(model: VideoModel, swin: SwinConfig, latents: Latents, known: Tensor, seed: int) -> np.ndarray:
    """Frames after the first, uint8 [b, t, h, w, 3]. All variants begin from the same noise.

    Args:
        known: latents of the true frames, [b, t + 1, c, g, g], of which the first is gone on from; of the others only
            the states are looked at.
    """
    details, states = known.split([known.shape[2] - STATE, STATE], 2)
    sampler, chance = CausalSwin(model, swin), torch.Generator().manual_seed(seed)
    video, shown = sampler.start(details[:, 0]), []
    for begin in range(0, known.shape[1] - 1, swin.frames):
        now = states[:, begin : begin + swin.frames + 1]
        noise = torch.randn(details[:, : swin.frames + 1].shape, generator=chance).transpose(1, 2)
        with torch.autocast("cpu", torch.bfloat16):
            condition = told(now)
            video, chunk = sampler.next(video, Asked(condition, condition), noise[:, :, 1:], noise[:, :, :1])
        whole = torch.cat([chunk.transpose(1, 2), now[:, 1:]], 2)
        shown.append(np.stack([latents.show(one) for one in whole]))
    return np.concatenate(shown, 1)


class Judged(NamedTuple):
    """A video against the truth, [episodes, chunks] each."""

    psnr: np.ndarray
    ssim: np.ndarray
    sharpness: np.ndarray
    """Over that of the truth."""
    objects_found: np.ndarray
    pusher_error: np.ndarray
    """Median over the chunk, block widths; infinite where it is lost."""
    block_error: np.ndarray
    border: np.ndarray
    """Change from the frame before the chunk to its first."""
    inside: np.ndarray
    """Mean change from frame to frame in it."""


class Seen(NamedTuple):
    """Held-out episodes."""

    frames: np.ndarray
    """uint8 [b, t + 1, h, w, 3]."""
    places: np.ndarray
    """[b, t + 1, k, 2], the pusher first."""


def judge(frames: np.ndarray, seen: Seen) -> Judged:
    """Frames after the first, [b, t, h, w, 3]."""
    truth, size = seen.frames[:, 1:], PAN.frames

    def chunks(values: np.ndarray, how: Callable = np.mean) -> np.ndarray:
        parts = values.reshape(len(values), -1, size, *values.shape[2:])
        return how(parts, axis=tuple(axis for axis in range(2, parts.ndim)))

    kept, off = misplaced(frames, seen.places[:, 1:])
    whole = np.concatenate([seen.frames[:, :1], frames], 1).astype(np.int16)
    change = np.abs(np.diff(whole, axis=1)).mean((2, 3, 4)).reshape(len(frames), -1, size)
    return Judged(
        chunks(psnr(frames, truth)), chunks(ssim(frames, truth)), chunks(sharpness(frames)) / chunks(sharpness(truth)),
        chunks(kept), chunks(off[..., 0], np.median), chunks(off[..., 1:], np.median), change[..., 0],
        change[..., 1:].mean(-1),
    )  # fmt: skip


def figures(judged: Judged, truth: Judged) -> dict[str, Any]:
    """Chunk by chunk, and how the first chunks differ from the last."""
    found: dict[str, Any] = {}
    for name, values in judged._asdict().items():
        if name in ("border", "inside"):
            continue
        statistic = np.median if name.endswith("error") else np.mean
        found[name] = statistic(values, 0).tolist()
        found[f"{name}_interval"] = [bootstrap(statistic, one, draws=200) for one in values.T]
        first, last = values[:, :ENDS], values[:, -ENDS:]
        between = lambda a, b, statistic=statistic: float(statistic(b) - statistic(a))  # noqa: E731
        for end, part in (("first", first), ("last", last)):
            found[f"{name}_{end}"], found[f"{name}_{end}_interval"] = float(statistic(part)), bootstrap(statistic, part)
        found[f"{name}_change"] = between(first, last)
        found[f"{name}_change_interval"] = bootstrap(between, first, last)
    # Not the border to the real frame, which is another matter.
    for name, begin in (("border", 1), ("inside", 0)):
        one, other = getattr(judged, name)[:, begin:], getattr(truth, name)[:, begin:]
        ratio = lambda a, b: float(a.mean() / b.mean())  # noqa: E731
        found[name], found[f"{name}_interval"] = ratio(one, other), bootstrap(ratio, one, other)
    return found


def against(judged: list[Judged], reference: list[Judged]) -> dict[str, Any]:
    """How much better than the reference a variant is, episode by episode, mean over seeds: at last, and in decline."""
    found: dict[str, Any] = {}
    for name in ("psnr", "ssim"):
        pairs = zip(judged, reference, strict=False)  # a variant may have been trained with fewer seeds
        gain = np.mean([getattr(one, name) - getattr(two, name) for one, two in pairs], 0)
        last, decline = gain[:, -ENDS:].mean(1), gain[:, -ENDS:].mean(1) - gain[:, :ENDS].mean(1)
        for label, values in (("last", last), ("decline", decline)):
            found[f"{name}_{label}"] = float(values.mean())
            found[f"{name}_{label}_interval"] = bootstrap(np.mean, values)
    return found


def main(config: SwinDrift) -> None:
    commit = current_commit()
    world, data = WorldModel.load(config.world, "cpu").requires_grad_(False), load_episodes(config.dataset)
    real, places = held_out_episodes(config.held_out, config.chunks * PAN.frames, 0)
    seen = Seen(real.frames, places)
    length = int(np.diff(data.starts).min())
    rows = (data.starts[data.split("train")[: config.episodes], None] + np.arange(length)).flatten()
    with torch.no_grad():
        latents = Latents(world.tokenizer, data.frames[rows[::97]], config.components)
        known = latents.of(data.frames[rows]).half().unflatten(0, (-1, length))
        true = torch.stack([latents.of(episode) for episode in seen.frames])

    truth = judge(seen.frames[:, 1:], seen)
    still = np.broadcast_to(seen.frames[:, :1], seen.frames[:, 1:].shape)
    ceiling = np.stack([latents.show(one) for one in true[:, 1:]])
    blank = torch.cat([torch.zeros_like(true[:, 1:, :-STATE]), true[:, 1:, -STATE:]], 2)
    floor = np.stack([latents.show(one) for one in blank])
    metrics: dict[str, Any] = {
        "episodes": config.held_out, "chunks": config.chunks, "components": config.components, "told": STATE,
        "frames": PAN.frames, "steps": PAN.schedule.steps,
        "ends": ENDS, "learned_from": config.episodes, "training_steps": config.steps, "variants": {},
        "baselines": {
            "first frame repeated": figures(judge(still, seen), truth),
            "what is told alone": figures(judge(floor, seen), truth),
            "true details": figures(judge(ceiling, seen), truth),
        },
    }  # fmt: skip
    pictures, judged = {"MuJoCo": seen.frames[:, 1:], "true details": ceiling, "what is told": floor}, {}

    def look(label: str, model: VideoModel, swin: SwinConfig, seed: int, losses: list[float]) -> None:
        frames = stream(model, swin, latents, true, seed)
        pictures.setdefault(label.replace(" apart", "\napart"), frames)
        judged.setdefault(label, []).append(judge(frames, seen))
        found = figures(judged[label][-1], truth) | {"losses": losses}
        metrics["variants"].setdefault(label, []).append(found)
        print(f"{label}, seed {seed}: {brief(found)}", flush=True)

    pan, reference = list(VARIANTS)[:2]
    metrics["reference"] = reference
    at = tuple(step for step in (1, 4, 5, 12, 24, 36, 48) if step <= config.chunks * PAN.frames)
    again = [(name, seed) for seed in range(1, config.seeds) for name in (pan, reference)]
    for name, seed in [*((name, 0) for name in VARIANTS), *again]:
        model, losses = train(name, known, config, seed)
        look(name, model, VARIANTS[name], seed, losses)
        if (name, seed) == (pan, 0):
            look(f"{pan}, sampled chunk after chunk", model, replace(PAN, offset=1.0), seed, losses)
        if reference in judged:
            metrics["gains"] = {n: against(one, judged[reference]) for n, one in judged.items() if n != reference}
            write_results(config.json, 0, metrics, commit)
            plot(metrics, config.curves)
            show(pictures, [step - 1 for step in at], at, config.picture)


def brief(found: dict[str, Any]) -> str:
    """First, middle and last chunk."""
    names = ("psnr", "ssim", "sharpness", "objects_found", "pusher_error", "block_error")
    parts = [
        f"{name} " + " ".join(f"{found[name][i]:.3g}" for i in (0, 1, len(found[name]) // 2, -1)) for name in names
    ]
    return "; ".join([*parts, f"border {found['border']:.2f} inside {found['inside']:.2f}"])


PANELS = (
    ("psnr", "PSNR against MuJoCo, dB"),
    ("ssim", "SSIM"),
    ("sharpness", "sharpness over that of the truth"),
    ("objects_found", "objects found, share"),
    ("block_error", "blocks' median error, block widths"),
)


def plot(metrics: dict[str, Any], path: Path) -> None:
    figure, axes = plt.subplots(1, len(PANELS), figsize=(20, 3.8), layout="constrained")
    chunks = np.arange(1, metrics["chunks"] + 1)
    for axis, (name, title) in zip(axes, PANELS, strict=True):
        for label, seeds in metrics["variants"].items():
            values = np.array([one[name] for one in seeds])
            values = np.where(np.isfinite(values), values, np.nan)
            line = axis.plot(chunks, values.mean(0), lw=1.4, label=label)[0]
            axis.fill_between(chunks, values.min(0), values.max(0), color=line.get_color(), alpha=0.15, lw=0)
        for shade, (label, found) in zip(("0.8", "0.6", "0.4"), metrics["baselines"].items(), strict=True):
            axis.plot(chunks, found[name], lw=1, color=shade, label=label)
        axis.set(title=title, xlabel="chunk of four frames")
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
    plt.close(figure)


# -- the section of docs/results.md -----------------------------------------------------------------------------------


def section(results: Results) -> list[str]:
    m = results["metrics"]
    ends, variants, baselines = m["ends"], m["variants"], m["baselines"]
    most = max(len(found) for found in variants.values())
    averaged = "of one seed" if most == 1 else f"mean over at most {most} seeds and, of the last, their range"
    lines = [
        f"A video model that has to carry details along: of {m['components']} components of a frame's latent it is "
        f"told {m['told']}, where what is, and diffuses the others from the frame before, {m['chunks']} chunks of "
        f"{m['frames']} frames from a real frame, {m['steps']} steps of denoising; {m['episodes']} held-out episodes. "
        f"Variants are trained alike, {m['training_steps']} steps on the same frames each. Each cell: first {ends} "
        f"chunks / last {ends}, {averaged}. Sharpness and change are over those of "
        "the true frames; change: from frame to frame, at the borders of chunks / inside them. Errors: medians in "
        "block widths.",
        "",
        "| | PSNR | SSIM | sharpness | objects found | pusher's error | blocks' error | change |",
        "|---|---|---|---|---|---|---|---|",
    ]
    shown = (("psnr", 1), ("ssim", 3), ("sharpness", 2), ("objects_found", 2), ("pusher_error", 2), ("block_error", 2))
    for name, seeds in [*variants.items(), *((name, [found]) for name, found in baselines.items())]:
        cells = [
            over_seeds([one[f"{key}_first"] for one in seeds], digits).split(" (")[0]
            + " / "
            + over_seeds([one[f"{key}_last"] for one in seeds], digits)
            for key, digits in shown
        ]
        change = [sum(one[key] for one in seeds) / len(seeds) for key in ("border", "inside")]
        lines.append(row(name, [*cells, " / ".join(two_digits(value) for value in change)]))

    def gains(found: dict[str, Any], when: str) -> str:
        quality = estimate(found[f"psnr_{when}"], found[f"psnr_{when}_interval"], "+.2f", " dB")
        return f"{quality}, SSIM {estimate(found[f'ssim_{when}'], found[f'ssim_{when}_interval'], '+.3f')}"

    return [
        *lines, "",
        f"Over {m['reference']}, episode by episode, in the last {ends} chunks, and how much of its decline from the "
        f"first {ends} is spared:", "",
        *(f"- {n}: {gains(one, 'last')}; of the decline {gains(one, 'decline')}." for n, one in m["gains"].items()),
        "",
        "![Chunk by chunk](images/swin_drift.png)", "",
        "![The same episodes by every variant](images/swin_drift_frames.png)", "", made_by(results),
    ]  # fmt: skip


SECTION = Section("Does Causal Swin-DPM drift less?", ("swin_drift",), "python benchmarks/swin_drift.py", section)


if __name__ == "__main__":
    main(tyro.cli(SwinDrift))
