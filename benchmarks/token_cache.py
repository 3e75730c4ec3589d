"""Would a cache of tokens instead of frames make the dynamics train faster?

    python benchmarks/token_cache.py

Measures what such a cache could save at most: the share of an update that cuts the batch, encodes its contexts and
encodes its frames. What the dynamics learn from is computed from there on anew in every update, since it depends on
the context that a frame is seen from and on the noise that replaces tokens. Seconds are of the processor.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tyro
from section import RESULTS, Results, Section, made_by, markdown, percent

SAVED = ("draw", "encode_context", "future_encoder")
"""What a cache could do without."""
NEEDED = ("encoder_attention", "quantize", "fuse")
"""What depends on the context or the noise."""


@dataclass(frozen=True)
class TokenCache:
    """Time the parts of an update."""

    worlds: tuple[str, ...] = ("reacher", "tabletop")
    datasets: tuple[str, ...] = ("worldgym/reacher-v0", "worldgym/tabletop-v0")
    """The recording of each."""
    updates: int = 12
    seed: int = 0
    json: Path = RESULTS / "token_cache.json"


def measure(config: TokenCache) -> dict[str, Any]:
    worlds = zip(config.worlds, config.datasets, strict=True)
    return {"updates": config.updates, "worlds": {world: parts(config, world, data) for world, data in worlds}}


def parts(config: TokenCache, world: str, dataset: str) -> dict[str, Any]:
    import torch

    from worldgym.checkpoint import load_config
    from worldgym.listing import find_world
    from worldgym.train.dynamics import DynamicsStage
    from worldgym.train.settings import DynamicsTraining

    torch.set_num_threads(1)
    folder, spent = find_world(world), dict.fromkeys((*SAVED, *NEEDED, "update"), 0.0)
    dynamics = load_config(folder)[0].dynamics

    def timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any) -> Any:
            began = time.process_time()
            found = call(*arguments)
            spent[name] += time.process_time() - began
            return found

        return called

    with TemporaryDirectory() as out:
        training = DynamicsTraining(dataset, folder, Path(out) / "world", device="cpu", dynamics=dynamics, starts=4)
        stage = DynamicsStage(training, torch.device("cpu"))
    tokenizer, draw = stage.world.tokenizer, timed("draw", stage.draw)
    tokenizer.encode_context = timed("encode_context", tokenizer.encode_context)  # type: ignore[method-assign]
    tokenizer.fuse = timed("fuse", tokenizer.fuse)  # type: ignore[method-assign]
    tokenizer.quantizer.quantize = timed("quantize", tokenizer.quantizer.quantize)  # type: ignore[method-assign]
    for name in ("future_encoder", "encoder_attention"):
        module = getattr(tokenizer, name)
        module.forward = timed(name, module.forward)

    def update(step: int) -> None:
        batch = draw(step, 0, 1)
        with torch.autocast("cpu", torch.bfloat16):
            loss = stage.model(*batch)["loss"]
        loss.backward()
        stage.optimizer.step()
        stage.optimizer.zero_grad(set_to_none=True)

    update(0)  # warms up
    spent.update(dict.fromkeys(spent, 0.0))
    for step in range(1, config.updates + 1):
        timed("update", update)(step)
    made, frames = tokenizer.config, dynamics.window + 1
    tokens = sum(scale * scale for scale in made.scales)
    latent, features = made.latent_channels * made.grid**2, made.width * made.grid**2
    found = {
        "seconds": {name: seconds / config.updates for name, seconds in spent.items()},
        "bytes_a_frame": {
            "frame, uint8": 3 * made.resolution**2,
            "frame in shards": in_shards(dataset),
            "token ids behind one context, uint16": 2 * tokens,
            f"token ids behind the {frames} contexts that a window may have": 2 * tokens * frames,
            f"latents behind these {frames} contexts, float32, from which tokens with noise follow": 4
            * latent
            * frames,
            "features of both encoders, bfloat16, from which latents follow": 2 * 2 * features,
        },
    }
    print(world, found, flush=True)
    return found


def in_shards(dataset: str, episodes: int = 200) -> float:
    """Bytes of a frame of the first episodes, compressed as shards are."""
    import zstandard

    from worldgym.data import load_episodes
    from worldgym.shards import CHUNK

    data, compress, size = load_episodes(dataset), zstandard.ZstdCompressor(level=1).compress, 0
    for one in range(episodes):
        first, end = data.starts[one], data.starts[one + 1]
        size += sum(
            len(compress(data.frames[row : min(row + CHUNK, end)].tobytes())) for row in range(first, end, CHUNK)
        )
    return size / float(data.starts[episodes])


def main(config: TokenCache) -> None:
    from worldgym.results import check_results, current_commit, write_results  # brings torch, which takes its time

    commit = current_commit()
    check_results(config.json)
    write_results(config.json, config.seed, measure(config), commit)


# -- the section of docs/results.md -----------------------------------------------------------------------------------


def section(results: Results) -> list[str]:
    m = results["metrics"]
    worlds = m["worlds"]
    shares = [
        [world, *(percent(found["seconds"][name] / found["seconds"]["update"]) for name in (*SAVED, *NEEDED)),
         percent(sum(found["seconds"][name] for name in SAVED) / found["seconds"]["update"])]
        for world, found in worlds.items()
    ]  # fmt: skip
    sizes = [
        [name, *(f"{found['bytes_a_frame'][name]:,.0f}" for found in worlds.values())]
        for name in next(iter(worlds.values()))["bytes_a_frame"]
    ]
    return [
        "We did not build it. A frame has no tokens of its own: they say how it differs from the context, the first "
        "frame of the window, and a frame stands in windows with many contexts. The loss also needs the latent, since "
        "noise replaces tokens scale by scale. So a cache could save the first three parts of an update only:",
        "",
        *markdown(
            ["world", "cutting the batch", "encoding contexts", "encoding frames", "attention to the context",
             "quantising with noise", "fused maps", "a cache saves at most"], shares
        ),
        "",
        "Bytes of a frame in such caches, beside those of frames:",
        "",
        *markdown(["what is kept", *worlds], sizes),
        "",
        f"Seconds of the processor, over {m['updates']} updates, without self-forcing, which makes them longer still.",
        "",
        made_by(results),
    ]  # fmt: skip


SECTION = Section(
    "Would a cache of tokens make the dynamics train faster?",
    ("token_cache",),
    "python benchmarks/token_cache.py",
    section,
)

if __name__ == "__main__":
    main(tyro.cli(TokenCache))
