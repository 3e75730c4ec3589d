"""`worldgym evaluate`, `plan` and `learn` with several seeds, one after another or on a Ray cluster."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, make_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ..agents.settings import Learning
from ..errors import UserError
from ..planners.settings import Planning
from .evaluate import Evaluate

Settings = TypeVar("Settings", Evaluate, Planning, Learning)
Run = Callable[[Any], dict[str, Any]]
"""What a command does with its settings; returns its figures."""


@dataclass(frozen=True, kw_only=True)
class Seeds:
    """What the command line of such a command takes next to its settings."""

    seeds: tuple[int, ...] = ()
    """Run once with each of these in place of --seed; the figures are then means over them, with 95% intervals. What a
    run writes is in seed_N of its folder, and a video or a list of pairs has the seed in its
    name."""
    ray: str | None = None
    """Where the runs of --seeds are: "local" starts a Ray cluster on this machine, "auto" finds one that runs here, and
    HOST:PORT or ray://HOST:PORT is one elsewhere. By default they run here, one after another."""
    gpus: float = 0.0
    """Of the cluster, for each run; 0.5 lets two runs share one."""

    def __post_init__(self):
        super().__post_init__()  # type: ignore[misc]  # the settings'
        if min(self.seeds, default=0) < 0 or len(set(self.seeds)) != len(self.seeds):
            raise UserError(f"seeds are {' '.join(map(str, self.seeds))}; each must be 0 or more, and stand there once")
        if (self.ray and not self.seeds) or (self.gpus and not self.ray):
            raise UserError("--ray is of several runs, as --seeds 0 1 2 asks for, and --gpus of runs on --ray")


def with_seeds(kind: type) -> type:
    """The settings of a command as its command line takes them."""
    return make_dataclass(kind.__name__, (), bases=(Seeds, kind), namespace={"__doc__": kind.__doc__}, frozen=True)


def over_seeds(
    run: Run, config: Settings, seeds: Sequence[int], ray: str | None = None, gpus: float = 0.0
) -> dict[str, Any]:
    """Run a command with each of the seeds. A run is the same wherever it is, up to rounding.

    Args:
        run: `evaluate`, `plan` or `learn` of this package.
        ray: as `on_ray` takes it; None runs one seed after another in this process.
        gpus: of the cluster, for each run.

    Returns:
        "seeds"; "over_seeds", of each figure its mean and the 95% interval of that mean; "by_seed", what each run
        returned. `config.json` gets the same.

    Raises:
        WorkerError: a run on Ray failed; it names the seed.
    """
    from ..results import current_commit, write_results

    if "LOCAL_RANK" in os.environ:
        raise UserError(
            "--seeds run one after another or on --ray, not in processes of torchrun or `accelerate launch`"
        )
    commit, found = current_commit(), {}
    for seed, metrics in _runs(run, config, seeds, ray, gpus):
        found[seed] = metrics
        if ray is not None:
            print(f"seed {seed} is done, {len(found)} of {len(seeds)}", flush=True)
    by_seed = {seed: found[seed] for seed in seeds}
    metrics = {"seeds": list(seeds), "over_seeds": summary(list(by_seed.values())), "by_seed": by_seed}
    print(f"over seeds {', '.join(map(str, seeds))}:")
    for name, figure in metrics["over_seeds"].items():
        if isinstance(figure["mean"], float):
            low, high = figure["interval"]
            print(f"  {name} {figure['mean']:.3g} (95% interval {low:.3g} to {high:.3g})")
    if config.json:
        write_results(config.json, seeds[0], metrics, commit)
    return metrics


def _runs(
    run: Run, config: Settings, seeds: Sequence[int], ray: str | None, gpus: float
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(seed, figures), as they are done."""
    if ray is None:
        yield from ((seed, run(with_seed(config, seed))) for seed in seeds)
        return
    from ..envs_real.on_ray import on_ray

    at_once = min(len(seeds), os.cpu_count() or 1) if ray == "local" else len(seeds)
    yield from on_ray(partial(_run_one, run, _absolute(config)), seeds, at_once, ray, "seed", gpus)


def _run_one(run: Run, config: Settings, seed: int) -> dict[str, Any]:
    return run(with_seed(config, seed))


def with_seed(config: Settings, seed: int) -> Settings:
    """The settings of one run, which writes where no other does."""
    alone: dict[str, Any] = {"seed": seed, "json": None}
    asked: Evaluate | Planning | Learning = config
    match asked:
        case Learning():
            alone["out"] = asked.out / f"seed_{seed}"
        case Planning():
            for name, path in (("video", asked.video), ("pairs", asked.pairs)):
                alone[name] = path and path.with_stem(f"{path.stem}_seed_{seed}")
        case Evaluate():
            alone["report"] = _report(asked) / f"seed_{seed}"
    return replace(config, **alone)


def _report(config: Evaluate) -> Path:
    return config.report or Path("runs/evaluate") / Path(config.world).name


def _absolute(config: Settings) -> Settings:
    """The same files and folders, from wherever a worker runs."""
    from ..listing import find_world, world_name

    whole = {field.name: getattr(config, field.name) for field in fields(config)}
    paths: dict[str, Any] = {name: value.resolve() for name, value in whole.items() if isinstance(value, Path)}
    if isinstance(config, Evaluate):
        paths["report"] = _report(config).resolve()
    if Path(config.world).is_dir():
        paths["world"] = world_name(find_world(config.world).resolve())
    return replace(config, **paths)


def summary(runs: list[dict[str, Any]], prefix: str = "") -> dict[str, dict[str, Any]]:
    """By dotted name, each figure that all runs have, a number or a list of numbers: its mean, with interval."""
    from ..metrics import student

    told: dict[str, dict[str, Any]] = {}
    for name, first in runs[0].items():
        values: list[Any] = [run.get(name) for run in runs]
        if all(isinstance(value, dict) for value in values):
            told |= summary(values, f"{prefix}{name}.")
        elif "interval" in name:  # of one run's episodes
            continue
        elif all(isinstance(value, float) for value in values):
            mean, interval = student(values)
            told[prefix + name] = {"mean": mean, "interval": interval}
        elif all(_figures(value) and len(value) == len(first) for value in values):
            means = [student(column) for column in zip(*values, strict=True)]
            told[prefix + name] = {"mean": [one[0] for one in means], "interval": [one[1] for one in means]}
    return told


def _figures(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, float) for item in value)
