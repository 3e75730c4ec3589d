"""The same dreams, shown by the fast decoder and by diffusion: how sharp, how true, and for how long?

    bash benchmarks/decoders.sh

Causal Swin-DPM lets a chunk begin while the one before is still noise; how many of the steps apart they are is the
variant: a quarter, a half (PAN's), or all of them, which is no window at all, chunk after chunk from clean pictures. A
chunk is one frame here. The variants are trained alike, the bundled decoder three times as long; all show the same
fused maps.

Two tables: of the world's dreams of held-out episodes against what really happened, where what the dream gets wrong
counts too; and of maps that are read off the true frames, where only the decoder can drift.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from drift import misplaced, show
from section import Results, Section, error, estimate, made_by, markdown, one_digit, share, three_digits, two_digits
from torch import Tensor
from tqdm import tqdm

from worldgym.bench import num_parameters
from worldgym.decoders import load_decoder
from worldgym.decoders.diffusion import DiffusionDecoder
from worldgym.decoders.render import read_maps
from worldgym.envs_real.tabletop.cases import held_out_episodes
from worldgym.metrics import bootstrap, psnr, sharpness, ssim
from worldgym.model.pixels import to_uint8
from worldgym.results import current_commit, write_results
from worldgym.world import WorldModel

FAST = "fast decoder"


@dataclass(frozen=True)
class Decoders:
    """Show the same dreams by several decoders."""

    world: Annotated[str, tyro.conf.Positional] = "tabletop"
    decoders: tuple[str, ...] = ("diffusion",)
    """Folders of diffusion decoders, or "diffusion" for the one that is bundled with the world."""
    dreams: int = 48
    steps: int = 48
    bins: tuple[int, ...] = (1, 9, 17, 33)
    """Steps at which a column of the tables begins."""
    seed: int = 0
    json: Path = Path("benchmarks/results/tabletop_decoders.json")
    picture: Path = Path("docs/images/decoders.png")


def main(config: Decoders) -> None:
    commit = current_commit()
    world = WorldModel.load(config.world)
    real, positions = held_out_episodes(config.dreams, config.steps, config.seed)
    dreamed = dream(world, real.frames[:, :1], real.actions)
    true_maps = torch.stack([read_maps(world, episode) for episode in real.frames])
    bins = [*config.bins, config.steps + 1]
    metrics: dict[str, Any] = {"dreams": config.dreams, "bins": bins, "dreamed": {}, "true_maps": {}, "decoders": {}}
    ways: dict[str, Callable[[Tensor], np.ndarray]] = {FAST: lambda maps: fast(world, maps)}
    for folder in config.decoders:
        decoder = load_decoder(config.world, folder, world)
        name = named(folder, decoder)
        if name in ways:
            raise ValueError(f"two of the decoders are {name!r}; a row of the tables takes one")
        ways[name] = lambda maps, decoder=decoder: shown(world, decoder, real.frames[:, 0], maps, config.seed)
        metrics["decoders"][name] = {
            "parameters": num_parameters(decoder),
            "steps": decoder.config.swin.schedule.steps,
        }
    pictures = {"MuJoCo": real.frames[:, 1:]}
    for name, way in ways.items():
        for table, maps in (("dreamed", dreamed), ("true_maps", true_maps)):
            began = time.perf_counter()
            frames = way(maps)
            took = time.perf_counter() - began
            reference = pictures.get(FAST) if table == "dreamed" else None
            if table == "dreamed":
                pictures[name] = frames
            found = figures(frames, real.frames[:, 1:], positions[:, 1:], bins, reference)
            metrics[table][name] = found | {"milliseconds_a_frame": 1000 * took / frames[..., 0, 0, 0].size}
            print(f"{name:32s} {table:10s} " + "  ".join(f"{key} {value}" for key, value in brief(found).items()))
            write_results(config.json, config.seed, metrics, commit)
    at = tuple(step for step in (1, 4, 8, 16, 32, 48) if step <= config.steps)
    show(pictures, [step - 1 for step in at], at, config.picture)


def named(folder: str, decoder: DiffusionDecoder) -> str:
    offset = decoder.config.swin.offset
    if folder == "diffusion":
        return "diffusion, as bundled"
    if offset == 1:
        return "diffusion, chunk after chunk"
    return f"diffusion, {offset:g} of the steps apart"


@torch.no_grad()
def dream(world: WorldModel, first: np.ndarray, actions: np.ndarray) -> Tensor:
    """Fused maps of the likeliest dreams, [b, t, d, g, g]."""
    state, maps = world.start(first), []
    for when in tqdm(range(actions.shape[1]), desc="dreaming", unit="step"):
        state, _ = world.step(state, actions[:, when])
        maps.append(state.fused)
    return torch.stack(maps, 1)


@torch.no_grad()
def fast(world: WorldModel, maps: Tensor) -> np.ndarray:
    return np.stack([to_uint8(world.tokenizer.decode(one)).cpu().numpy() for one in maps])


def shown(world: WorldModel, decoder: DiffusionDecoder, first: np.ndarray, maps: Tensor, seed: int) -> np.ndarray:
    frames = torch.from_numpy(np.ascontiguousarray(first)).to(world.device)
    seeds = torch.arange(len(maps), device=world.device) + 1000 * seed
    return decoder.rerender(world.tokenizer, frames, maps, seeds).cpu().numpy()


def figures(
    frames: np.ndarray, truth: np.ndarray, places: np.ndarray, bins: list[int], reference: np.ndarray | None
) -> dict[str, list]:
    """One entry for each stretch of steps.

    Args:
        frames, truth: uint8 [b, t, h, w, 3].
        places: [b, t, k, 2], where the objects truly are.
        reference: the fast decoder's frames, for the gain over them.
    """
    kept, error = misplaced(frames, places)
    quality, structure, sharp, edges = psnr(frames, truth), ssim(frames, truth), sharpness(frames), sharpness(truth)
    restless, moves = (np.abs(np.diff(part.astype(np.int16), axis=1)).mean((2, 3, 4)) for part in (frames, truth))
    restless, moves = (np.concatenate([part[:, :1], part], 1) for part in (restless, moves))
    parts = [slice(begin - 1, end - 1) for begin, end in pairwise(bins)]

    def each(values: np.ndarray) -> tuple[list[float], list[list[float]]]:
        means = [values[:, part].mean(1) for part in parts]
        return [float(mean.mean()) for mean in means], [bootstrap(np.mean, mean) for mean in means]

    def ratio(one: np.ndarray, other: np.ndarray) -> tuple[list[float], list[list[float]]]:
        pairs = [(one[:, part].mean(1), other[:, part].mean(1)) for part in parts]
        compare = lambda a, b: float(a.mean() / b.mean())  # noqa: E731
        return [compare(*pair) for pair in pairs], [bootstrap(compare, *pair) for pair in pairs]

    result: dict[str, list] = {}
    result["psnr"], result["psnr_interval"] = each(quality)
    result["ssim"], result["ssim_interval"] = each(structure)
    result["sharpness"], result["sharpness_interval"] = ratio(sharp, edges)
    result["restlessness"], result["restlessness_interval"] = ratio(restless, moves)
    result["objects_kept"], result["objects_kept_interval"] = each(kept.mean(2))
    result["object_error_blocks"] = [float(np.median(error[:, part])) for part in parts]
    result["object_error_blocks_interval"] = [bootstrap(np.median, error[:, part]) for part in parts]
    if reference is not None:
        result["psnr_gain"], result["psnr_gain_interval"] = each(quality - psnr(reference, truth))
        result["ssim_gain"], result["ssim_gain_interval"] = each(structure - ssim(reference, truth))
    return result


def brief(found: dict[str, list]) -> dict[str, str]:
    names = ("psnr", "ssim", "sharpness", "objects_kept", "object_error_blocks")
    return {name: "/".join(f"{value:.3g}" for value in found[name]) for name in names}


# -- the section of docs/results.md -----------------------------------------------------------------------------------


def section(results: Results) -> list[str]:
    m = results["metrics"]
    bins = [f"{begin} to {end - 1}" for begin, end in pairwise(m["bins"])]
    cells = " / ".join(bins)
    lines = [
        f"{m['dreams']} dreams of {m['bins'][-1] - 1} steps from one real frame each, shown by each decoder. Each "
        f"cell: mean over steps {cells}. Sharpness is the variance of the Laplacian and restlessness the change from "
        "frame to frame, both over that of the true frames: 1 is as they are. Object error: median over all objects, "
        "in block widths. *True maps*: shown from maps that are read off the true frames, where only the decoder can "
        "err.",
        "",
    ]
    figures = (
        ("PSNR", "psnr", one_digit), ("SSIM", "ssim", three_digits), ("sharpness", "sharpness", two_digits),
        ("restlessness", "restlessness", two_digits), ("object error", "object_error_blocks", error),
        ("objects found", "objects_kept", share),
    )  # fmt: skip
    for table, title in (("dreamed", "dreams"), ("true_maps", "true maps")):
        rows = [
            [name, *(" / ".join(map(cell, found[key])) for _, key, cell in figures),
             f"{found['milliseconds_a_frame']:.0f}"]
            for name, found in m[table].items()
        ]  # fmt: skip
        lines += [*markdown([title, *(figure for figure, *_ in figures), "ms a frame"], rows), ""]
    gains = [
        f"{name}: SSIM "
        + ", ".join(
            estimate(gain, interval, "+.4f")
            for gain, interval in zip(found["ssim_gain"], found["ssim_gain_interval"], strict=True)
        )
        for name, found in m["dreamed"].items()
        if "ssim_gain" in found
    ]
    return [
        *lines, "Of dreams, over the fast decoder, episode by episode: " + "; ".join(gains) + ".", "",
        "![The same dreams by every decoder](images/decoders.png)", "", made_by(results),
    ]  # fmt: skip


SECTION = Section("What does the diffusion decoder show?", ("tabletop_decoders",), "benchmarks/decoders.sh", section)


if __name__ == "__main__":
    main(tyro.cli(Decoders))
