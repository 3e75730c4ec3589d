"""Does supervision by pictures matter? The same encoder and dynamics, taught by pictures or by latents alone.

    python benchmarks/latent_matching.py

PAN's argument for generative latent prediction (PAN 2): a model that only has to match its own latents may agree with
itself about nothing. Here everything but the loss is shared, data, steps, sizes and seeds:

    generative            the first and the predicted latents must give back the true frames, through a decoder
    matching              they must equal what the encoder makes of those frames, its gradient stopped (as JEPA)
    matching, regularised the same, and the encoder's outputs must vary and not repeat each other (VICReg, 2105.04906)

Nobody is told where the objects are. Afterwards the encoder and dynamics are frozen and asked two ways: a ridge
regression from the encoder's latents of true frames to the objects' places is applied to latents that were rolled out
open loop, and a decoder is trained on latents of true frames, so that there are pictures of all three.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from fit import fit
from jaxtyping import Float
from section import Results, Section, made_by, markdown, over_seeds
from torch import Tensor, nn

from worldgym.data import Episodes, load_episodes, sample_segments
from worldgym.envs_real.tabletop.cases import BLOCK_WIDTH, held_out_episodes
from worldgym.metrics import bootstrap, psnr
from worldgym.model.pixels import to_float, to_uint8
from worldgym.results import current_commit, write_results

GENERATIVE, MATCHING, REGULARISED = "generative", "matching", "matching, regularised"
WIDTH, CHANNELS = 48, 32
"""Of the maps inside the networks, and of a latent."""


@dataclass(frozen=True)
class LatentMatching:
    dataset: str = "worldgym/tabletop-v0"
    steps: int = 1200
    """Optimiser steps of encoder and dynamics, and half as many of each decoder that looks at them afterwards."""
    batch: int = 10
    """Segments a step."""
    horizon: int = 8
    """Steps that are rolled out in training."""
    learning_rate: float = 1e-3
    seeds: int = 3
    held_out: int = 64
    """Episodes of MuJoCo to measure on, of 16 steps each."""
    probe: int = 512
    """Episodes that the ridge regression sees."""
    json: Path = Path("benchmarks/results/latent_matching.json")


class Latents(nn.Module):
    """h and f of PAN's equation 1: a map of 8 x 8 cells, moved on by the action."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, WIDTH, 4, 2, 1), nn.SiLU(), nn.Conv2d(WIDTH, WIDTH, 4, 2, 1), nn.SiLU(),
            nn.Conv2d(WIDTH, WIDTH, 4, 2, 1), nn.SiLU(), nn.Conv2d(WIDTH, CHANNELS, 3, 1, 1),
        )  # fmt: skip
        self.action = nn.Linear(2, WIDTH)
        self.enter = nn.Conv2d(CHANNELS, WIDTH, 3, 1, 1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.GroupNorm(8, WIDTH), nn.SiLU(), nn.Conv2d(WIDTH, WIDTH, 3, 1, 1)) for _ in range(4)
        )
        self.leave = nn.Conv2d(WIDTH, CHANNELS, 3, 1, 1)

    def encode(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b z g g"]:
        return unit(self.encoder(images))

    def advance(self, latent: Float[Tensor, "b z g g"], action: Float[Tensor, "b a"]) -> Float[Tensor, "b z g g"]:
        x = self.enter(latent) + self.action(action)[:, :, None, None]
        for block in self.blocks:
            x = x + block(x)
        return unit(latent + self.leave(x))

    def roll(self, latent: Tensor, actions: Float[Tensor, "b t a"]) -> Float[Tensor, "b t z g g"]:
        """Open loop."""
        latents = []
        for action in actions.unbind(1):
            latent = self.advance(latent, action)
            latents.append(latent)
        return torch.stack(latents, 1)


def make_decoder() -> nn.Module:
    """g: from a latent to a picture."""
    return nn.Sequential(
        nn.Conv2d(CHANNELS, 4 * WIDTH, 3, 1, 1), nn.PixelShuffle(2), nn.SiLU(),
        nn.Conv2d(WIDTH, 4 * WIDTH, 3, 1, 1), nn.PixelShuffle(2), nn.SiLU(), nn.Conv2d(WIDTH, 12, 3, 1, 1),
        nn.PixelShuffle(2),
    )  # fmt: skip


def unit(latent: Float[Tensor, "b z g g"]) -> Float[Tensor, "b z g g"]:
    """Each cell at a root mean square of 1: what is rolled out cannot grow, and cannot match itself by shrinking."""
    return latent * latent.float().square().mean(1, keepdim=True).add(1e-6).rsqrt().to(latent)


class Batch(NamedTuple):
    frames: Float[Tensor, "b t1 c h w"]
    actions: Float[Tensor, "b t a"]


def batches(data: Episodes, config: LatentMatching, count: int, seed: int) -> Iterator[Batch]:
    rng = np.random.default_rng(seed)
    for _ in range(count):
        segment = sample_segments(data, data.split("train"), config.batch, config.horizon, rng)
        frames = to_float(torch.from_numpy(segment.frames).flatten(0, 1)).unflatten(0, segment.frames.shape[:2])
        yield Batch(frames, torch.from_numpy(segment.actions))


def regularity(latents: Float[Tensor, "n z g g"]) -> Tensor:
    """VICReg's other two terms: each channel varies by at least 0.5 at each cell, and channels are uncorrelated."""
    spread = latents.flatten(1).var(0).add(1e-4).sqrt()
    flat = latents.movedim(1, -1).flatten(0, -2)
    flat = flat - flat.mean(0)
    covariance = flat.T @ flat / len(flat)
    apart = covariance - covariance.diag().diag()
    return F.relu(0.5 - spread).mean() + apart.square().sum() / len(covariance) / 25


def train(data: Episodes, config: LatentMatching, variant: str, seed: int) -> Latents:
    torch.manual_seed(seed)
    model, decoder = Latents(), make_decoder()
    learned = [*model.parameters(), *(decoder.parameters() if variant == GENERATIVE else ())]
    drawn = batches(data, config, config.steps, seed)

    def loss(_: int) -> Tensor:
        batch = next(drawn)
        size = batch.frames.shape[:2]
        if variant == GENERATIVE:
            latent = model.encode(batch.frames[:, 0])
            whole = torch.cat([latent[:, None], model.roll(latent, batch.actions)], 1)
            shown = decoder(whole.flatten(0, 1)).float().unflatten(0, size)
            return F.mse_loss(shown, batch.frames)
        seen = model.encode(batch.frames.flatten(0, 1)).float().unflatten(0, size)
        rolled = model.roll(seen[:, 0], batch.actions).float()
        off = F.mse_loss(rolled, seen[:, 1:].detach())
        # Frames of one segment are alike by right; only different segments must differ.
        return 25 * off + 25 * regularity(seen[:, 0]) if variant == REGULARISED else off

    fit(learned, loss, config.steps, config.learning_rate, f"{variant}, seed {seed}")
    return model.eval().requires_grad_(False)


def train_pictures(data: Episodes, config: LatentMatching, model: Latents, seed: int) -> nn.Module:
    """A decoder of frozen latents, for all variants alike."""
    torch.manual_seed(seed)
    decoder, steps = make_decoder(), config.steps // 2
    drawn = batches(data, config, steps, seed + 1000)

    def loss(_: int) -> Tensor:
        images = next(drawn).frames[:, :2].flatten(0, 1)
        return F.mse_loss(decoder(model.encode(images)).float(), images)

    fit(list(decoder.parameters()), loss, steps, config.learning_rate, f"decoder, seed {seed}", clip=math.inf)
    return decoder.eval().requires_grad_(False)


class Seen(NamedTuple):
    """Episodes with the truth about them."""

    frames: np.ndarray
    actions: Tensor
    places: np.ndarray
    """[b, t + 1, k, 2]."""


def see(count: int, seed: int) -> Seen:
    real, places = held_out_episodes(count, 16, seed)
    return Seen(real.frames, torch.from_numpy(real.actions), places)


def encode_all(model: Latents, frames: np.ndarray) -> Float[Tensor, "b t z g g"]:
    images = to_float(torch.from_numpy(frames).flatten(0, 1))
    return torch.cat([model.encode(part) for part in images.split(256)]).unflatten(0, frames.shape[:2])


def fit_places(latents: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Ridge regression [n, d] -> [n, 2k], its penalty chosen on a fifth that is left out; returns [d + 1, 2k].

    Latents are centred and scaled as a whole, so that small ones are read as well as large ones.
    """
    mean, spread = latents.mean(0, dtype=np.float64), max(float(latents.std(0).mean()), 1e-12)
    centre, x = places.mean(0), (latents - mean) / spread
    cut, places = len(x) * 4 // 5, places - centre
    gram, product = x[:cut].T @ x[:cut], x[:cut].T @ places[:cut]
    scale, best = np.trace(gram) / len(gram), None
    for penalty in (1e-4, 1e-3, 1e-2, 1e-1, 1.0):
        weights = np.linalg.solve(gram + penalty * scale * np.eye(len(gram)), product)
        error = np.square(x[cut:] @ weights - places[cut:]).mean()
        if best is None or error < best[0]:
            best = error, weights
    assert best is not None
    weights = best[1] / spread
    return np.concatenate([weights, (centre - mean @ weights)[None]])


def rank(latents: np.ndarray) -> float:
    """Effective rank of a cell's latents (Roy & Vetterli 2007): how many directions are in use."""
    values = np.linalg.svd(latents - latents.mean(0), compute_uv=False)
    share = values / max(values.sum(), 1e-12)
    return float(np.exp(-(share * np.log(share + 1e-12)).sum()))


@torch.no_grad()
def measure(model: Latents, decoder: nn.Module, probe: Seen, held_out: Seen) -> dict[str, Any]:
    known = encode_all(model, probe.frames)
    weights = fit_places(known.flatten(0, 1).flatten(1).numpy(), probe.places.reshape(-1, probe.places.shape[2] * 2))
    latents = encode_all(model, held_out.frames)
    rolled = torch.cat([latents[:, :1], model.roll(latents[:, 0], held_out.actions)], 1)

    def places(maps: Tensor) -> np.ndarray:
        x = maps.flatten(2).numpy().astype(np.float64)
        return (x @ weights[:-1] + weights[-1]).reshape(held_out.places.shape)

    shown = to_uint8(decoder(rolled.flatten(0, 1))).unflatten(0, rolled.shape[:2]).numpy()
    error = np.linalg.norm(places(rolled) - held_out.places, axis=-1) / BLOCK_WIDTH
    own = np.linalg.norm(places(latents) - held_out.places, axis=-1) / BLOCK_WIDTH
    far = (rolled - latents).flatten(2).square().mean((0, 2)) / latents.flatten(2).var((0, 1)).mean()
    cells = latents[:, ::4].movedim(2, -1).flatten(0, -2).numpy()
    return {
        "controlled_error": np.median(error[..., 0], 0).tolist(),
        "controlled_error_interval": [bootstrap(np.median, one) for one in error[..., 0].T],
        "others_error": np.median(error[..., 1:], (0, 2)).tolist(),
        "others_error_interval": [bootstrap(np.median, one) for one in error[..., 1:].transpose(1, 0, 2)],
        "controlled_error_of_true_frames": float(np.median(own[..., 0])),
        "others_error_of_true_frames": float(np.median(own[..., 1:])),
        "psnr": psnr(shown, held_out.frames).mean(0).tolist(),
        "latent_error_in_variances": far.tolist(),
        "effective_rank": rank(cells),
        "standard_deviation": float(latents.flatten(2).std((0, 1)).mean()),
    }


def main(config: LatentMatching) -> None:
    commit, data = current_commit(), load_episodes(config.dataset)
    probe, held_out = see(config.probe, seed=5000), see(config.held_out, seed=0)
    metrics: dict[str, Any] = {"episodes": config.held_out, "variants": {}}
    still = np.linalg.norm(held_out.places - held_out.places[:, :1], axis=-1) / BLOCK_WIDTH
    metrics["if_still"] = {
        "controlled_error": np.median(still[..., 0], 0).tolist(),
        "psnr": psnr(np.broadcast_to(held_out.frames[:, :1], held_out.frames.shape), held_out.frames).mean(0).tolist(),
    }
    for variant in (GENERATIVE, MATCHING, REGULARISED):
        found = []
        for seed in range(config.seeds):
            model = train(data, config, variant, seed)
            found.append(measure(model, train_pictures(data, config, model, seed), probe, held_out))
            metrics["variants"][variant] = found
            write_results(config.json, 0, metrics, commit)
            print(f"{variant}, seed {seed}: {brief(found[-1])}")


def brief(found: dict[str, Any]) -> str:
    pusher, blocks, quality = (found[name] for name in ("controlled_error", "others_error", "psnr"))
    return (
        f"pusher {pusher[1]:.2f}, {pusher[8]:.2f}, {pusher[16]:.2f} widths off after 1, 8, 16 steps, blocks "
        f"{blocks[16]:.2f}; {quality[8]:.1f} dB, rank {found['effective_rank']:.1f}, "
        f"spread {found['standard_deviation']:.3g}"
    )


# -- the section of docs/results.md -----------------------------------------------------------------------------------


def section(results: Results) -> list[str]:
    m = results["metrics"]
    steps = (1, 4, 8, 16)
    head = ["taught by", "pusher, true frames", *(f"{step} steps" for step in steps), "blocks, true frames",
            "16 steps", "PSNR, 16", "rank", "spread"]  # fmt: skip
    rows = []
    for variant, seeds in m["variants"].items():
        columns = [
            ([one["controlled_error_of_true_frames"] for one in seeds], 2),
            *(([one["controlled_error"][step] for one in seeds], 2) for step in steps),
            ([one["others_error_of_true_frames"] for one in seeds], 2),
            ([one["others_error"][16] for one in seeds], 2),
            ([one["psnr"][16] for one in seeds], 1),
            ([one["effective_rank"] for one in seeds], 1),
            ([one["standard_deviation"] for one in seeds], 3),
        ]
        rows.append([variant, *(over_seeds(values, digits) for values, digits in columns)])
    still = m["if_still"]
    unmoved = [f"{still['controlled_error'][step]:.2f}" for step in steps]
    rows.append(["nothing moves", "", *unmoved, "", "", f"{still['psnr'][16]:.1f}", "", ""])
    return [
        "The same encoder and dynamics, taught three ways (PAN's argument for generative supervision); "
        f"{m['episodes']} held-out episodes, open loop. Position errors: medians in block widths, of a ridge "
        "regression from latents of true frames. Each cell: the mean over seeds and its range. Rank: directions of "
        "a cell's latent in use, of 32; spread: their standard deviation.",
        "",
        *markdown(head, rows),
        "",
        made_by(results),
    ]


SECTION = Section(
    "Does supervision by pictures matter?", ("latent_matching",), "python benchmarks/latent_matching.py", section
)


if __name__ == "__main__":
    main(tyro.cli(LatentMatching))
