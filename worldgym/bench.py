"""How fast a world dreams, beside what else could be run in its place, in one run and by turns.

Everything that is compared is timed by turns, a round each: what else the machine does then falls on all alike, and
ratios are worth more than figures. Baselines have random weights, as many of them as the world's own dynamics, its
number of threads and its dtype.
"""

import copy
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from .dreams import DreamOptions, Dreams
from .model.backbone import Backbone
from .model.cache import KVCache
from .world import WorldModel

Contender = Callable[[], Any]
HORIZON = 10
OWN = ("pixels", "latent", "pixels_compiled", "latent_compiled", "evaluate", "evaluate_thorough")
"""What is ours in the tables; all else is a baseline."""
FEW = 16
"""Dreams up to which compiled steps, and the costliest baseline, are measured."""
SETTLED = 64
"""Dreams up to which each turn begins with a call that does not count; beyond, a call takes long enough."""


@dataclass(frozen=True)
class BenchSizes:
    """How much is measured."""

    batches: tuple[int, ...] = (1, 4, 16, 64, 256)
    rounds: int = 9
    old: int = 500
    """Step at which a dream is old."""

    @classmethod
    def quick(cls) -> "BenchSizes":
        return cls((1, 16), 3, 100)


def bench(world: WorldModel, name: str, sizes: BenchSizes, decide: dict[str, Contender], tried: int) -> dict[str, Any]:
    """All figures, as they go into the results file.

    Args:
        name: bundled name or folder of `world`, for what is measured in fresh processes.
        decide: each makes one decision of the same planner: on the "dream", and on what else it can plan on.
        tried: steps that a decision looks at: samples x rounds x horizon.
    """
    dreams = Dreams(1, DreamOptions(name, device=str(world.device)))
    dreams.reset(seeds=[0])
    frame = dreams.render().cpu().numpy()[:, None]
    ceiling = matmul_ceiling(world)
    decisions = by_turns(decide, sizes.rounds, world)
    metrics: dict[str, Any] = {
        "dtype": str(world.dtype),
        "load_average": os.getloadavg(),
        "parameters": {"world": _size(world), "dynamics": _size(world.dynamics)},
        "matmul_gflops": ceiling,
        "batches": {str(batch): bench_batch(world, frame, batch, sizes.rounds, ceiling) for batch in sizes.batches},
        "age": bench_age(world, frame, sizes.old),
        "fork": bench_fork(world, frame, sizes.rounds),
        "decision": _figures(decisions["dream"]),
        "planning": {
            on: _figures(seconds) | {"samples_x_horizon_per_second": tried / _middle(seconds)}
            for on, seconds in decisions.items()
        },
        "simulators": bench_simulators(world.config.twin, 20 * sizes.rounds),
        "start_up_seconds": start_up(name),
        "memory_mb": {
            "peak_of_the_process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "cache_of_a_dream": 2 * world.start(frame).cache.keys.nbytes / 1e6,
        },
        "load_average_at_the_end": os.getloadavg(),
    }
    return metrics


# -- the world and its baselines at one batch size -----------------------------------------------------------------


def bench_batch(world: WorldModel, frame: np.ndarray, batch: int, rounds: int, ceiling: float) -> dict[str, Any]:
    """Steps a second of `batch` dreams: ours with pixels, without, and evaluating; and the baselines'.

    Of few dreams also ours compiled (`WorldModel.compile_for`). Baselines are plain PyTorch, as our plain step is.
    """
    dreaming = Dreaming(world, frame, batch)
    raster = Raster(world, batch)
    scales = AllScales(world, batch)
    contenders: dict[str, Contender] = {
        "pixels": dreaming.pixels,
        "latent": dreaming.latent,
        "evaluate": dreaming.evaluate,
        "evaluate_thorough": partial(dreaming.evaluate, drafted=False),
        "raster_16_as_shipped": raster.as_shipped,
        "raster_16_kept_cache": raster.kept_cache,
        "all_scales_kept": scales.step,
    }
    if batch <= FEW:
        contenders["raster_85_kept_cache"] = Raster(world, batch, tokens=85).kept_cache
    if batch <= FEW and can_compile(world):
        compiled = Dreaming(copy.deepcopy(world).compile_for(batch), frame, batch)
        contenders |= {"pixels_compiled": compiled.pixels, "latent_compiled": compiled.latent}
    spent = by_turns(contenders, rounds, world, settle=batch <= SETTLED)
    for name in ("evaluate", "evaluate_thorough"):
        spent[name] = [seconds / HORIZON for seconds in spent[name]]
    figures = {
        name: _figures(seconds) | {"steps_per_second": batch / _middle(seconds)} for name, seconds in spent.items()
    }
    work = {name: flops(contenders[name]) for name in OWN if name in contenders and not name.endswith("compiled")}
    for name in ("evaluate", "evaluate_thorough"):
        work[name] //= HORIZON
    for name, count in work.items():
        figures[name]["mflop_per_dream"] = count / batch / 1e6
        figures[name]["share_of_ceiling"] = count / _middle(spent[name]) / 1e9 / ceiling
    baselines = {name: _middle(seconds) for name, seconds in spent.items() if name not in OWN}

    def over(ours: str) -> dict[str, float]:
        return {name: seconds / _middle(spent[ours]) for name, seconds in baselines.items()}

    return {
        "figures": figures,
        "baseline_seconds_over_ours": over("latent"),
        "baseline_seconds_over_ours_compiled": over("latent_compiled") if "latent_compiled" in spent else {},
        "pixels_over_evaluate": _middle(spent["pixels"]) / _middle(spent["evaluate"]),
    }


def can_compile(world: WorldModel) -> bool:
    """Whether OpenVINO is here for this world; it says so if not."""
    if world.device.type != "cpu" or world.dtype != torch.float32:
        return False
    if find_spec("openvino") is None:
        print('compiled dreams are not measured: pip install "worldgym[fast]"')
        return False
    return True


class Dreaming:
    """Dreams in the middle of their window: each turn goes on from a fork of the same state."""

    def __init__(self, world: WorldModel, frame: np.ndarray, batch: int):
        self.world, self.batch = world, batch
        self.state = world.start(frame.repeat(batch, 0))
        self.random = np.random.default_rng(0)
        for _ in range(world.config.dynamics.window // 2):
            self.state, _ = world.step(self.state, self._actions(batch))
        self.root = world.start(frame)

    def _actions(self, *shape: int) -> np.ndarray:
        return self.random.uniform(-1, 1, (*shape, self.world.config.action_size)).astype(np.float32)

    def latent(self) -> Any:
        return self.world.step(self.state.fork(1), self._actions(self.batch))[0]

    def pixels(self) -> np.ndarray:
        return self.world.render(self.latent()).cpu().numpy()

    def evaluate(self, drafted: bool | None = None) -> np.ndarray:
        """`HORIZON` steps of as many candidates."""
        return self.world.evaluate(self.root, self._actions(1, self.batch, HORIZON), drafted).cpu().numpy()


class Raster:
    """iVideoGPT's scheme (arXiv 2405.15223): a Llama over 256 context tokens, then a slot token that carries the
    action and 16 tokens for each frame, one at a time, with 100 candidates a token and a reward head on the last.

    No pixels are made. Eight frames have gone by: half of the window of ours.
    """

    def __init__(self, world: WorldModel, batch: int, tokens: int = 16, past: int = 8):
        from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

        self.world, self.tokens, self.cache_class = world, tokens, DynamicCache
        codes, width, layers = world.config.tokenizer.codes, world.config.dynamics.width, 3
        vocabulary = 2 * codes + 2
        rest = _size(world.dynamics) - vocabulary * width - layers * 4 * width * width
        self.model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=vocabulary, hidden_size=width, intermediate_size=rest // (3 * layers * width),
                num_hidden_layers=layers, num_attention_heads=4, tie_word_embeddings=True, pad_token_id=0,
                bos_token_id=None, eos_token_id=None, max_position_embeddings=4096,
            )
        ).eval().requires_grad_(False).to(world.device, world.dtype)  # fmt: skip
        self.action = nn.Linear(world.config.action_size, width).to(world.device, world.dtype)
        self.reward = nn.Linear(width, 1).to(world.device, world.dtype)
        self.ids = torch.randint(vocabulary, (batch, 256 + past * (tokens + 1)), device=world.device)
        self.now = torch.rand(batch, world.config.action_size, device=world.device, dtype=world.dtype)
        self.slot = torch.full((batch, 1), vocabulary - 1, device=world.device)
        self.cache = DynamicCache(config=self.model.config)
        with torch.no_grad():
            self.model.model(input_ids=self.ids, past_key_values=self.cache)

    @torch.no_grad()
    def as_shipped(self) -> Tensor:
        """The history is embedded and read anew for each frame, by `generate`."""
        embedded = torch.cat([self.model.get_input_embeddings()(self.ids), self._told()], 1)
        out = self.model.generate(
            inputs_embeds=embedded, attention_mask=torch.ones(embedded.shape[:2], device=embedded.device),
            max_new_tokens=self.tokens, do_sample=True, top_k=100, output_hidden_states=True,
            return_dict_in_generate=True,
        )  # fmt: skip
        return self.reward(out.hidden_states[-1][-1][:, -1])

    @torch.no_grad()
    def kept_cache(self) -> Tensor:
        """The history's keys and values are kept; each token costs one pass over itself."""
        new, drawn = self._told(), []
        try:
            for _ in range(self.tokens):
                hidden = self.model.model(inputs_embeds=new, past_key_values=self.cache).last_hidden_state[:, -1]
                best = self.model.lm_head(hidden).topk(min(100, self.model.config.vocab_size))
                drawn.append(best.indices.gather(1, best.values.float().softmax(-1).multinomial(1)))
                new = self.model.get_input_embeddings()(drawn[-1])
            return self.reward(hidden)
        finally:
            self.cache.crop(self.ids.shape[1] - self.cache.get_seq_length())

    def _told(self) -> Tensor:
        return self.model.get_input_embeddings()(self.slot) + self.action(self.now)[:, None]


class AllScales:
    """SAMPO's own layout (arXiv 2509.15536): every scale is a pass of the whole backbone, and all tokens of every past
    frame stay in its cache. No pixels are made, and no reward: it has none."""

    def __init__(self, world: WorldModel, batch: int):
        config, self.splits = world.config.dynamics, world.tokenizer.quantizer.splits
        self.world, self.tokens = world, sum(self.splits)
        layer = _size(world.dynamics.backbone.model.layers[0])
        layers = max(1, round(_size(world.dynamics) / layer))
        config = replace(config, layers=layers)
        self.backbone = Backbone(config).eval().requires_grad_(False).to(world.device)
        for module in self.backbone.modules():
            if isinstance(module, nn.Linear):
                module.to(world.dtype)
        self.logits = nn.Linear(config.width, world.config.tokenizer.codes).to(world.device, world.dtype)
        self.embed = nn.Embedding(world.config.tokenizer.codes, config.width).to(world.device)
        past = config.window // 2
        like = torch.empty(0, device=world.device, dtype=world.dtype)
        self.cache = KVCache.empty(config, batch, (past + 1) * self.tokens + 64, like)
        self.cache.keys.normal_(), self.cache.values.normal_()
        self.cache.filled += past * self.tokens
        self.action = torch.randn(batch, 1, config.width, device=world.device)

    @torch.no_grad()
    def step(self) -> None:
        begun, new = self.cache.filled.clone(), self.action
        with torch.autocast(self.world.device.type, self.world.dtype, enabled=self.world.dtype != torch.float32):
            for index, count in enumerate(self.splits):
                positions = torch.zeros(3, 1, new.shape[1], device=new.device)
                hidden = self.backbone(new, None, positions, self.cache, keep=new.shape[1])
                ids = self.logits(hidden).max(-1).indices
                for following in self.splits[index + 1 : index + 2]:
                    new = self.embed(ids.repeat_interleave(following // count, 1))
        self.cache.filled = begun


# -- what does not depend on the batch ---------------------------------------------------------------------------------


def bench_age(world: WorldModel, frame: np.ndarray, old: int, batch: int = 8) -> dict[str, Any]:
    """A step of old dreams over a step of young ones, in turns over two whole windows, new contexts included."""
    window = world.config.dynamics.window
    random = np.random.default_rng(0)

    def advance(state, count: int = 1):
        for _ in range(count):
            state, _ = world.step(state, random.uniform(-1, 1, (batch, world.config.action_size)).astype(np.float32))
        return state

    frames = frame.repeat(batch, 0)
    # Both stand equally in their windows: what is asked is whether age costs, not where a window begins.
    states = {
        "young": advance(world.start(frames), window + 1),
        "old": advance(world.start(frames), old // window * window + 1),
    }
    spent: dict[str, list[float]] = {name: [] for name in states}
    for _ in range(2 * window):
        for name in states:
            began = time.perf_counter()
            states[name] = advance(states[name])
            spent[name].append(time.perf_counter() - began)
    ratios = [b / a for a, b in zip(spent["young"], spent["old"], strict=True)]
    return {
        "young_step": window + 1, "old_step": old // window * window + 1, "batch": batch,
        "old_over_young": sum(spent["old"]) / sum(spent["young"]), "median_of_pairs": _middle(ratios),
        "costliest_step_over_median": max(spent["old"]) / _middle(spent["old"]),
    }  # fmt: skip


def bench_fork(world: WorldModel, frame: np.ndarray, rounds: int, copies: int = 256) -> dict[str, Any]:
    """Forking one dream, against evaluating as many candidates."""
    dreaming = Dreaming(world, frame, 1)
    tries = np.zeros((1, copies, HORIZON, world.config.action_size), np.float32)
    spent = by_turns(
        {"fork": lambda: dreaming.state.fork(copies), "evaluate": lambda: world.evaluate(dreaming.root, tries)},
        min(rounds, 3), world,
    )  # fmt: skip
    fork, evaluate = _middle(spent["fork"]), _middle(spent["evaluate"])
    return {"copies": copies, "fork_seconds": fork, "evaluate_seconds": evaluate, "share": fork / evaluate}


def bench_simulators(twin: str, steps: int) -> dict[str, Any]:
    """Frames a second of the twin, and of Gymnasium's Pusher as it comes, each rendered at every step."""
    found: dict[str, Any] = {}
    pusher: dict[str, Any] = {"render_mode": "rgb_array", "width": 64, "height": 64}
    for id, kwargs in ((twin, {}), ("Pusher-v5", pusher)):
        if not id:
            continue
        env = gym.make(id, **kwargs)
        env.reset(seed=0)
        env.action_space.seed(0)
        if kwargs:
            env.render()
        began = time.perf_counter()
        for _ in range(steps):
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            if kwargs:
                env.render()
            if terminated or truncated:
                env.reset()
        found[id] = {"steps_per_second": steps / (time.perf_counter() - began)}
        env.close()
    return found


def start_up(name: str) -> dict[str, Any]:
    """Wall and processor seconds of fresh processes: importing the library, and making the bundled environment."""
    code = {
        "import_worldgym": "import worldgym",
        "gym_make": f"import gymnasium, worldgym; gymnasium.make('worldgym/Dream-v0', world={name!r})",
    }
    found = {}
    for what, line in code.items():
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run([sys.executable, "-c", line], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found[what] = time.perf_counter() - began
        found[f"{what}_processor"] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return found


def matmul_ceiling(world: WorldModel) -> float:
    """GFLOP/s of the best square matrix product in the world's dtype."""
    best = 0.0
    for size in (512, 1024, 2048):
        x = torch.randn(size, size, device=world.device, dtype=world.dtype)
        seconds = min(by_turns({"product": partial(torch.mm, x, x)}, 8, world)["product"])
        best = max(best, 2 * size**3 / seconds / 1e9)
    return best


# -- measuring --------------------------------------------------------------------------------------------------------


def by_turns(
    contenders: dict[str, Contender], rounds: int, world: WorldModel, settle: bool = False
) -> dict[str, list[float]]:
    """Seconds of each, `rounds` times, after one round that does not count.

    Args:
        settle: begin each turn with a call that does not count, either: what a few milliseconds take is else told by
            the contender before, whose weights are in the processor's cache and whose threads still spin.
    """
    spent: dict[str, list[float]] = {name: [] for name in contenders}

    def whole(run: Contender) -> None:
        run()
        if world.device.type == "cuda":
            torch.cuda.synchronize(world.device)

    for number in range(rounds + 1):
        for name, run in contenders.items():
            if settle:
                whole(run)
            began = time.perf_counter()
            whole(run)
            if number:
                spent[name].append(time.perf_counter() - began)
    return spent


def flops(run: Contender) -> int:
    """Of matrix products, convolutions and attention; a multiplication and an addition are two."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def _figures(seconds: list[float]) -> dict[str, Any]:
    return {"p50": _middle(seconds), "p95": float(np.percentile(seconds, 95)), "rounds": len(seconds)}


def _middle(seconds: list[float]) -> float:
    return float(np.median(seconds))


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# -- telling ----------------------------------------------------------------------------------------------------------


def table(metrics: dict[str, Any]) -> str:
    """One table with all of it."""
    batches = metrics["batches"]
    lines = [
        f"dtype {metrics['dtype']}, matrix products at most {metrics['matmul_gflops']:.0f} GFLOP/s, load average "
        f"{metrics['load_average'][0]:.1f} at the start, {metrics['load_average_at_the_end'][0]:.1f} at the end",
        "",
        f"{'imagined steps a second':28s}" + "".join(f"{'batch ' + batch:>13s}" for batch in batches),
    ]
    known = list(next(iter(batches.values()))["figures"])
    baselines = [name for name in known if name not in OWN]
    names = [name for name in OWN if name in known] + baselines
    for name in names:
        cells = [found["figures"].get(name) for found in batches.values()]
        lines.append(
            f"{name:28s}" + "".join("            -" if c is None else f"{c['steps_per_second']:13.1f}" for c in cells)
        )
    lines += ["", "milliseconds p50 / p95"]
    for name in names:
        cells = [found["figures"].get(name) for found in batches.values()]
        parts = ["-" if c is None else f"{c['p50'] * 1e3:.1f}/{c['p95'] * 1e3:.1f}" for c in cells]
        lines.append(f"{name:28s}" + "".join(f"{part:>13s}" for part in parts))
    lines += ["", "share of the matrix-product ceiling"]
    for name in ("pixels", "latent", "evaluate", "evaluate_thorough"):
        shares = [found["figures"][name]["share_of_ceiling"] for found in batches.values()]
        lines.append(f"{name:28s}" + "".join(f"{share:13.0%}" for share in shares))
    for ours, key in (("", "baseline_seconds_over_ours"), (", compiled", "baseline_seconds_over_ours_compiled")):
        lines += ["", f"seconds of a baseline over ours (latent{ours})"]
        for name in baselines:
            ratios = [found[key].get(name) for found in batches.values()]
            lines.append(f"{name:28s}" + "".join("            -" if r is None else f"{r:12.1f}x" for r in ratios))
    ratios = [found["pixels_over_evaluate"] for found in batches.values()]
    lines.append(f"{'pixels over evaluate':28s}" + "".join(f"{ratio:12.1f}x" for ratio in ratios))
    age, fork, start = metrics["age"], metrics["fork"], metrics["start_up_seconds"]
    lines += [
        "",
        f"step {age['old_step']} over step {age['young_step']}: {age['old_over_young']:.2f} "
        f"(pairs {age['median_of_pairs']:.2f}; costliest step {age['costliest_step_over_median']:.1f} medians)",
        f"fork into {fork['copies']}: {fork['fork_seconds'] * 1e3:.1f} ms, {fork['share']:.2%} of evaluating "
        f"{HORIZON} steps",
        f"CEM, 64 candidates, {HORIZON} steps, 4 rounds: {metrics['decision']['p50']:.2f} s a decision; "
        "samples x horizon per second: "
        + ", ".join(f"{on} {found['samples_x_horizon_per_second']:.0f}" for on, found in metrics["planning"].items()),
        *(
            f"{id}, rendered: {found['steps_per_second']:.0f} steps a second"
            for id, found in metrics["simulators"].items()
        ),
        f"import worldgym {start['import_worldgym']:.2f} s ({start['import_worldgym_processor']:.2f} of processor), "
        f"gym.make in a fresh process {start['gym_make']:.2f} s ({start['gym_make_processor']:.2f})",
        f"memory: {metrics['memory_mb']['peak_of_the_process']:.0f} MB at most, "
        f"cache {metrics['memory_mb']['cache_of_a_dream']:.2f} MB a dream",
    ]
    return "\n".join(lines)


def plot(metrics: dict[str, Any], path: Path) -> None:
    """Steps a second against the batch."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8.5, 4.5), layout="constrained")
    names = list(next(iter(metrics["batches"].values()))["figures"])
    for name in names:
        points = [
            (int(batch), found["figures"][name]["steps_per_second"])
            for batch, found in metrics["batches"].items()
            if name in found["figures"]
        ]
        own = name in OWN
        axes.plot(*zip(*points, strict=True), "o-" if own else "s--", label=name.replace("_", " "))
    axes.set(xscale="log", yscale="log", xlabel="dreams in a batch", ylabel="imagined steps a second")
    axes.set_xticks([int(batch) for batch in metrics["batches"]], list(metrics["batches"]))
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
