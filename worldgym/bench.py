"""How fast a world dreams and is planned in, next to simulators and whatever baselines the caller brings.

All contenders are timed by turns in one run, a round each: a load on the machine then slows all of them alike, and
ratios are worth more than figures.
"""

import copy
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from .dreams import DreamOptions, Dreams
from .errors import UserError
from .world import WorldModel

Contender = Callable[[], Any]
Baseline = Callable[[WorldModel, int], dict[str, Contender]]
"""Makes contenders of a world and a number of dreams: each is one step of all of them. None leaves that number out."""
HORIZON = 10
OWN = ("pixels", "latent", "pixels_compiled", "latent_compiled", "evaluate")
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


def bench(
    world: WorldModel,
    name: str,
    sizes: BenchSizes,
    decide: dict[str, Contender],
    tried: int,
    baselines: Sequence[Baseline] = (),
) -> dict[str, Any]:
    """All figures, as they go into the results file.

    Args:
        name: bundled name or folder of `world`, for what is measured in fresh processes.
        decide: each makes one decision of the same planner: on the "dream", and on what else it can plan on.
        tried: steps that a decision looks at: samples x rounds x horizon.
        baselines: other ways to imagine a step, in the order of the table.
    """
    dreams = Dreams(1, DreamOptions(name, device=str(world.device)))
    dreams.reset(seeds=[0])
    frame = dreams.render().cpu().numpy()[:, None]
    ceiling = matmul_ceiling(world)
    decisions = by_turns(decide, sizes.rounds, world)
    metrics: dict[str, Any] = {
        "dtype": str(world.dtype),
        "load_average": os.getloadavg(),
        "parameters": {"world": num_parameters(world), "dynamics": num_parameters(world.dynamics)},
        "matmul_gflops": ceiling,
        "batches": {
            str(batch): bench_batch(world, frame, batch, sizes.rounds, ceiling, baselines) for batch in sizes.batches
        },
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


def bench_batch(
    world: WorldModel, frame: np.ndarray, batch: int, rounds: int, ceiling: float, baselines: Sequence[Baseline]
) -> dict[str, Any]:
    """Steps a second of `batch` dreams: ours with pixels, without, and evaluating; and the baselines'.

    Of few dreams also ours compiled (`WorldModel.compile_for`).
    """
    dreaming = Dreaming(world, frame, batch)
    contenders: dict[str, Contender] = {
        "pixels": dreaming.pixels,
        "latent": dreaming.latent,
        "evaluate": dreaming.evaluate,
    }
    for baseline in baselines:
        contenders |= baseline(world, batch)
    if batch <= FEW and can_compile(world):
        try:
            compiled = Dreaming(copy.deepcopy(world).compile_for(batch), frame, batch)
            contenders |= {"pixels_compiled": compiled.pixels, "latent_compiled": compiled.latent}
        except UserError as error:  # of an old processor
            print(f"compiled dreams are not measured: {error}")
    spent = by_turns(contenders, rounds, world, settle=batch <= SETTLED)
    spent["evaluate"] = [seconds / HORIZON for seconds in spent["evaluate"]]
    figures = {
        name: _figures(seconds) | {"steps_per_second": batch / _middle(seconds)} for name, seconds in spent.items()
    }
    work = {name: flops(contenders[name]) for name in OWN if name in contenders and not name.endswith("compiled")}
    work["evaluate"] //= HORIZON
    for name, count in work.items():
        figures[name]["mflop_per_dream"] = count / batch / 1e6
        figures[name]["share_of_ceiling"] = count / _middle(spent[name]) / 1e9 / ceiling
    others = {name: _middle(seconds) for name, seconds in spent.items() if name not in OWN}

    def over(ours: str) -> dict[str, float]:
        return {name: seconds / _middle(spent[ours]) for name, seconds in others.items()}

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
    """Dreams in the middle of their window: each turn continues from a fork of the same state."""

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

    def evaluate(self) -> np.ndarray:
        """`HORIZON` steps of as many candidates."""
        return self.world.evaluate(self.root, self._actions(1, self.batch, HORIZON)).cpu().numpy()


# -- what does not depend on the batch ---------------------------------------------------------------------------------


def bench_age(world: WorldModel, frame: np.ndarray, old: int) -> dict[str, Any]:
    """A step of old dreams over a step of young ones, in turns over two whole windows, new contexts included."""
    batch, window = 8, world.config.dynamics.window
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


def bench_fork(world: WorldModel, frame: np.ndarray, rounds: int) -> dict[str, Any]:
    """Forking one dream, against evaluating as many candidates."""
    copies = 256
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
        settle: begin each turn with a call that is not timed: a call of a few milliseconds otherwise depends on the
            contender before it, whose weights are in the processor's cache and whose threads still spin.
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


def num_parameters(module: nn.Module) -> int:
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
    for name in ("pixels", "latent", "evaluate"):
        shares = [found["figures"][name]["share_of_ceiling"] for found in batches.values()]
        lines.append(f"{name:28s}" + "".join(f"{share:13.0%}" for share in shares))
    over = {"": "baseline_seconds_over_ours", ", compiled": "baseline_seconds_over_ours_compiled"}
    for ours, key in over.items() if baselines else ():
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
