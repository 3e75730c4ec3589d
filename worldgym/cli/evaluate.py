"""`worldgym evaluate`: how true a world's dreams are."""

from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Literal

import numpy as np

from ..errors import UserError
from .arguments import World


@dataclass(frozen=True)
class Evaluate:
    """Dream held-out episodes open loop and compare them with what really happened, step by step.

    For example:
        worldgym evaluate tabletop --episodes 32
        worldgym evaluate runs/arm/world --dataset mine/arm-v0
        torchrun --nproc-per-node 2 -m worldgym evaluate tabletop
    """

    world: World
    """A bundled world, a checkpoint folder, or user/name on the hub."""
    suite: Literal["steps", "pan"] = "steps"
    """"pan" is PAN's own evaluation (arXiv 2511.09057), of sentences on the Tabletop, judged by MuJoCo."""
    episodes: int = 256
    """Held-out episodes: of a Tabletop made on the spot by the twin, of other worlds from the --dataset."""
    dataset: str | None = None
    """The recording whose test split is dreamed (Minari id, URL of shards or lerobot:URL); a Tabletop needs none, any
    other world does."""
    steps: int = 16
    """Steps dreamed from one real frame."""
    sentences: int = 12
    """Starts for each of the eight "push the <colour> block <direction>"."""
    samples: int = 1
    """Above 1, also judge the best of this many dreams of temperature 1 (for FVD: all), as iVideoGPT does with 100."""
    lpips: Path | None = None
    """A TorchScript file to measure LPIPS with, see worldgym/perceptual.py; without it LPIPS is not measured."""
    fvd: Path | None = None
    """The field's i3d_torchscript.pt to measure FVD with; without it FVD is not measured."""
    plan_episodes: int = 0
    """--suite pan: episodes of each of four tasks, planned with and without the dream, many seconds a decision."""
    seed: int = 0
    """Of the episodes."""
    json: Path | None = None
    """Write the figures here, with command, commit and hardware."""
    report: Path | None = None
    """Folder for index.html and its pictures; runs/evaluate/WORLD by default, with _pan for --suite pan."""

    def __post_init__(self):
        suites = {"steps": ("dataset", "steps", "sentences", "samples", "lpips", "fvd"), "pan": ("plan_episodes",)}
        for suite, names in suites.items():
            for name in names:
                if suite != self.suite and getattr(self, name) != getattr(Evaluate, name):
                    raise UserError(f"--{name.replace('_', '-')} is of --suite {suite} only")
        if self.episodes < 4 or self.steps < 1 or self.sentences < 1 or self.samples < 1 or self.plan_episodes < 0:
            raise UserError("evaluating takes at least 4 --episodes, 1 of --steps, 1 of --sentences and 1 of --samples")


def evaluate(config: Evaluate) -> dict[str, Any]:
    """Processes that torchrun or `accelerate launch` started share the episodes; the first one writes the figures."""
    from ..model.processes import joined, several

    with joined() as rank:
        if config.suite == "steps":
            return _evaluate(config, rank)
        if several() > 1:
            raise UserError("--suite pan runs in one process")
        return _evaluate_pan(config)


def _evaluate(config: Evaluate, rank: int) -> dict[str, Any]:
    from ..data import load_episodes
    from ..envs_real.twins import twin_kind
    from ..evaluate import (
        check_recording,
        dream,
        evaluate_dreams,
        evaluate_ends,
        evaluate_objects,
        evaluate_perception,
        evaluate_sentences,
        held_out_segments,
        last_segments,
        open_questions,
        unseen,
        write_comparison,
    )
    from ..evaluate.report import as_text, write_report
    from ..results import current_commit, write_results
    from ..world import WorldModel

    commit = current_commit()
    world = WorldModel.load(config.world)
    kind = twin_kind(world.config.twin)
    seen, not_known = world.config.dynamics.observed, []
    frames_seen = "one real frame" if seen == 1 else f"{seen} real frames"
    if config.dataset is None:
        if kind.cases is None or kind.locate is None:
            raise UserError(
                f"this world's twin is {world.config.twin!r}, of which no held-out episodes can be made here; name the "
                "recording that it was trained on with --dataset, and its test split is dreamed"
            )
        cases, locate = resolve_name(kind.cases), resolve_name(kind.locate)
        real, positions = cases.held_out_episodes(config.episodes, config.steps + seen - 1, config.seed)
        about = f"{len(real.frames)} held-out episodes of MuJoCo, dreamed open loop from {frames_seen} each."
    else:
        data = load_episodes(config.dataset)
        check_recording(world.config, config.dataset, data)
        real = held_out_segments(data, config.episodes, config.steps + seen - 1, config.seed)
        about = (
            f"{len(real.frames)} stretches from as many episodes of the test split of {config.dataset} "
            f"({data.environment}), dreamed open loop from {frames_seen} each."
        )
        not_known = open_questions(unseen(world, real))
    dreamed, truth = dream(world, real, config.seed), unseen(world, real)
    metrics = evaluate_dreams(world, truth, dreamed)
    if config.dataset is not None:
        metrics["ends"] = evaluate_ends(world, last_segments(data, config.steps + seen - 1), config.seed)
    else:
        metrics |= evaluate_objects(dreamed.frames, positions[:, seen - 1 :], locate, cases.BLOCK_WIDTH)
        said = cases.sentence_cases(config.sentences, config.seed)
        metrics["sentences"] = evaluate_sentences(
            world, said.frames, said.sentences, said.objects, said.directions, said.moves, locate, cases.ENOUGH
        )
    metrics |= evaluate_perception(world, real, dreamed, config.lpips, config.fvd, config.samples, config.seed)
    metrics["not_known"] = not_known
    if rank:
        return metrics

    report = config.report or Path("runs/evaluate") / world.config.name
    comparison = report / "dream.gif"
    write_comparison(comparison, truth.frames, np.concatenate([truth.frames[:, :1], dreamed.frames], 1))
    page = write_report(
        report, f"How true is {world.config.name}?", about, metrics, comparison.read_bytes(), not_known, commit
    )
    print(as_text(metrics, about, not_known))
    print(f"report: {page}")
    for path in filter(None, (page.with_name("run.json"), config.json)):
        write_results(path, config.seed, metrics, commit)
    return metrics


def _evaluate_pan(config: Evaluate) -> dict[str, Any]:
    from ..envs_real.tabletop import TabletopEnv
    from ..envs_real.tabletop.reasoning import evaluate_planning
    from ..envs_real.tabletop.rounds import judges, sentence_rounds
    from ..envs_real.twins import held_out_cases, twin_kind
    from ..evaluate.pan_report import as_text, write_report
    from ..evaluate.pan_suite import evaluate_rows, play
    from ..planners.reasoning import elementary, ways
    from ..results import current_commit, write_results
    from ..world import WorldModel

    commit = current_commit()
    world = WorldModel.load(config.world)
    held_out_cases(world.config)
    rounds, judge = sentence_rounds(config.episodes, config.seed), judges()
    rows = play(world, rounds, judge)
    metrics = evaluate_rows(rows, rounds, judge) | {"planning": "left out: --plan-episodes is 0"}
    if config.plan_episodes:
        twin = TabletopEnv(action_mode="text")
        known = ways(world, twin, elementary(world, twin_kind(world.config.twin).objects))
        metrics["planning"] = evaluate_planning(twin, known, config.plan_episodes, config.seed)
        twin.close()
    folder = config.report or Path("runs/evaluate") / f"{world.config.name}_pan"
    page = write_report(folder, world.config.name, metrics, rows, commit)
    print(as_text(metrics))
    print(f"report: {page}")
    for path in filter(None, (page.with_name("run.json"), config.json)):
        write_results(path, config.seed, metrics, commit)
    return metrics
