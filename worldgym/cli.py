"""The one command, `worldgym`: the only module that composes the library, its planners and the real worlds."""

import sys
import time
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

import gymnasium as gym
import numpy as np
import tyro
from tqdm import tqdm

from . import __version__
from .agents.settings import Learning, Transfer
from .config import WorldConfig
from .data import Episodes, Segment, load_episodes
from .envs_real import gym_record, tabletop_record
from .envs_real.recording import TABLETOP, RecordConfig
from .train.dynamics import DynamicsTraining, train_dynamics
from .train.tokenizer import TokenizerTraining, train_tokenizer

World = Annotated[str, tyro.conf.Positional]
PUSH_TO_A_PLACE = ("push the * to the centre", "push the * side", "push the * corner")


@dataclass(frozen=True)
class Train:
    """Train a stage of a world; a killed run goes on from its last checkpoint."""

    stage: (
        Annotated[TokenizerTraining, tyro.conf.subcommand("tokenizer")]
        | Annotated[DynamicsTraining, tyro.conf.subcommand("dynamics")]
    )


@dataclass(frozen=True)
class Evaluate:
    """Dream held-out episodes open loop and compare them with what really happened, step by step."""

    world: World
    """A bundled world or a checkpoint folder."""
    episodes: int = 256
    """Held-out episodes: of a Tabletop made on the spot by the twin, of other worlds from the --dataset."""
    dataset: str | None = None
    """Minari id of the recording whose test split is dreamed. Worlds of environments other than the Tabletop need
    it; objects and sentences are then left out."""
    steps: int = 16
    """Steps dreamed from one real frame."""
    sentences: int = 12
    """Starts for each of the eight "push the <colour> block <direction>"."""
    samples: int = 1
    """Above 1, also the best of so many dreams of temperature 1 for PSNR, SSIM and LPIPS, and all of them for FVD:
    iVideoGPT's protocol, with 100."""
    lpips: Path | None = None
    """A TorchScript file to measure LPIPS with, see worldgym/perceptual.py; without it LPIPS is not measured."""
    fvd: Path | None = None
    """The field's i3d_torchscript.pt to measure FVD with; without it FVD is not measured."""
    seed: int = 0
    json: Path | None = None
    """Write the figures here, with command, commit and hardware."""
    report: Path | None = None
    """Folder for index.html and its pictures; runs/evaluate/WORLD by default."""


@dataclass(frozen=True)
class PlanCommand:
    """Plan in the dream or on true physics; act in MuJoCo."""

    world: World
    """A bundled world or a checkpoint folder."""
    planner: Literal["cem", "icem", "mppi", "shooting", "beam", "best-first", "random"] = "cem"
    """How to search for a plan; "beam" and "best-first" are tree searches over sentences; "random" has no plan and acts
    uniformly at random: the floor."""
    on: Literal["dream", "mujoco"] = "dream"
    """Where action sequences are tried; "mujoco" is the planner's upper bound."""
    instruction: tuple[str, ...] = ("reach *",)
    """Instructions to draw episodes from; * stands for anything."""
    episodes: int = 50
    seed: int = 0
    """Episode i begins from seed + i, whatever plans."""
    horizon: int = 12
    """Steps looked ahead."""
    samples: int = 32
    """Action sequences tried in each iteration."""
    iterations: int = 2
    replan_every: int = 4
    """Actions taken of each plan."""
    say: tuple[str, ...] = ("*",)
    """Tree search: sentences that may be said; * stands for anything. One is said, then all is planned anew."""
    depth: int = 2
    """Tree search: sentences looked ahead."""
    breadth: int = 4
    """Tree search: futures extended, of each level by "beam", in all by "best-first"."""
    device: str = "auto"
    json: Path | None = None
    """Write the figures here, with command, commit and hardware."""
    video: Path | None = None
    """Write what MuJoCo showed in the first episodes, as .gif or .mp4."""


@dataclass(frozen=True)
class Demo:
    """The whole way in three minutes: dream, plan in the dream, succeed in MuJoCo."""

    world: World = "tabletop"
    out: Path = Path("runs/demo")
    """Where the pictures go."""
    episodes: int = 3
    """Episodes for each of the two tasks."""
    seed: int = 0


@dataclass(frozen=True)
class Bench:
    """How fast a world dreams, beside other ways to imagine and beside simulators."""

    world: World = "tabletop"
    """A bundled world or a checkpoint folder."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the matrix products."""
    quick: bool = False
    """A short run: two batch sizes and few rounds."""
    device: str = "auto"
    json: Path | None = None
    """Write the figures here, with command, commit and hardware; the plot goes beside them."""


@dataclass(frozen=True)
class Export:
    """Strip a trained world down to what dreaming needs, with weights in half precision."""

    source: Annotated[Path, tyro.conf.Positional]
    """Checkpoint folder that training wrote."""
    target: Annotated[Path, tyro.conf.Positional]
    """Folder to write."""


@dataclass(frozen=True)
class PlayCommand:
    """Play with a dream in a browser: act by keys or sentences, pause, rewind, fork, compare with MuJoCo, record."""

    world: World = "tabletop"
    """A bundled world, a checkpoint folder, or user/name on the hub."""
    instruction: str | None = None
    """What rewards are for; the world's first by default."""
    seed: int = 0
    """Of the first episode."""
    twin: bool = True
    """Step the true environment along, where the world has one that can be wound back."""
    port: int = 8321
    frames_per_second: int = 10
    """Steps of time that pass in a second while something is being done."""
    recordings: Path = Path("runs/play")
    """Where GIFs and MP4s go."""
    device: str = "auto"


@dataclass(frozen=True)
class ListCommand:
    """List the worlds: the bundled ones and those that training left here."""

    runs: Path = Path("runs")
    """Folder to look through."""


@dataclass(frozen=True)
class Push:
    """Share a world on the Hugging Face hub, with a model card; `hf auth login` first."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Checkpoint folder; `worldgym export` makes one of half the size."""
    repo: Annotated[str, tyro.conf.Positional]
    """user/name."""
    licence: str = "mit"
    results: tuple[Path, ...] = ()
    """Files of figures for the card, from --json of `evaluate` and `plan`."""
    data: str = ""
    """A sentence for the card: what the world was trained on."""
    private: bool = False


def main() -> None:
    """Entry point: a user's mistake is one line, not a traceback."""
    try:
        _run()
    except (ValueError, TypeError, FileNotFoundError, FileExistsError, ImportError) as error:
        print(f"worldgym: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def _run() -> None:
    config = tyro.cli(
        Annotated[RecordConfig, tyro.conf.subcommand("record")]
        | Annotated[Train, tyro.conf.subcommand("train")]
        | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
        | Annotated[PlanCommand, tyro.conf.subcommand("plan")]
        | Annotated[Learning, tyro.conf.subcommand("learn")]
        | Annotated[Transfer, tyro.conf.subcommand("transfer")]
        | Annotated[Demo, tyro.conf.subcommand("demo")]
        | Annotated[Bench, tyro.conf.subcommand("bench")]
        | Annotated[Export, tyro.conf.subcommand("export")]
        | Annotated[PlayCommand, tyro.conf.subcommand("play")]
        | Annotated[ListCommand, tyro.conf.subcommand("list")]
        | Annotated[Push, tyro.conf.subcommand("push")],
        prog="worldgym",
        description=f"WorldGym {__version__}: learned video world models that are Gymnasium environments.",
        config=(tyro.conf.OmitSubcommandPrefixes, tyro.conf.OmitArgPrefixes),
    )
    match config:
        case RecordConfig():
            recorder = tabletop_record if config.env == TABLETOP else gym_record
            print(f"recorded {recorder.record(config)}")
        case Train(TokenizerTraining() as stage):
            print(f"trained {train_tokenizer(stage)}")
        case Train(DynamicsTraining() as stage):
            print(f"trained {train_dynamics(stage)}")
        case Evaluate():
            evaluate(config)
        case PlanCommand():
            plan(config)
        case Learning():
            learn(config)
        case Transfer():
            transfer(config)
        case Demo():
            demo(config)
        case Bench():
            bench(config)
        case Export():
            export(config)
        case PlayCommand():
            play(config)
        case ListCommand():
            from .listing import format_worlds, list_worlds

            print(format_worlds(list_worlds(config.runs)))
        case Push():
            from .hub import push

            print(push(config.folder, config.repo, config.licence, config.results, config.data, config.private))


def evaluate(config: Evaluate) -> dict[str, Any]:
    from .evaluate import (
        dream,
        evaluate_dreams,
        evaluate_objects,
        evaluate_perception,
        evaluate_sentences,
        held_out_segments,
        write_comparison,
    )
    from .report import write_report
    from .results import current_commit, write_results
    from .world import WorldModel

    commit = current_commit()
    if config.episodes < 4 or config.steps < 1 or config.sentences < 1 or config.samples < 1:
        raise ValueError("evaluating takes at least 4 --episodes, 1 of --steps, 1 of --sentences and 1 of --samples")
    world = WorldModel.load(config.world)
    not_known = []
    if config.dataset is None:
        if world.config.twin != TABLETOP:
            raise ValueError(
                f"this world's twin is {world.config.twin!r}, of which no held-out episodes can be made here; name the "
                "recording that it was trained on with --dataset, and its test split is dreamed"
            )
        from .envs_real.tabletop import locate
        from .envs_real.tabletop_cases import BLOCK_WIDTH, held_out_episodes, sentence_cases

        real, positions = held_out_episodes(config.episodes, config.steps, config.seed)
        about = f"{len(real.frames)} held-out episodes of MuJoCo, dreamed open loop from one real frame each."
    else:
        data = load_episodes(config.dataset)
        _same_judgements(world.config, config.dataset, data)
        real = held_out_segments(data, config.episodes, config.steps, config.seed)
        about = (
            f"{len(real.frames)} stretches from as many episodes of the test split of {config.dataset} "
            f"({data.environment}), dreamed open loop from one real frame each."
        )
        not_known = _not_known(real)
    dreamed = dream(world, real, config.seed)
    metrics = evaluate_dreams(world, real, dreamed)
    if config.dataset is None:
        metrics |= evaluate_objects(dreamed.frames, positions, locate, BLOCK_WIDTH)
        cases = sentence_cases(config.sentences, config.seed)
        metrics["sentences"] = evaluate_sentences(
            world, cases.frames, cases.sentences, cases.objects, cases.directions, cases.moves, locate, enough=0.1
        )
    metrics |= evaluate_perception(world, real, dreamed, config.lpips, config.fvd, config.samples, config.seed)
    metrics["not_known"] = not_known

    report = config.report or Path("runs/evaluate") / world.config.name
    comparison = report / "dream.gif"
    write_comparison(comparison, real.frames, np.concatenate([real.frames[:, :1], dreamed.frames], 1))
    page = write_report(
        report, f"How true is {world.config.name}?", about, metrics, comparison.read_bytes(), not_known, commit
    )
    _print_evaluation(metrics, about, not_known)
    print(f"report: {page}")
    if config.json:
        write_results(config.json, config.seed, metrics, commit)
    return metrics


def plan(config: PlanCommand) -> dict[str, Any]:
    from .results import current_commit, write_results
    from .rollout import Episode, play, worth
    from .video import enlarged, side_by_side, write_video
    from .world import WorldModel

    commit = current_commit()
    world = WorldModel.load(config.world, config.device)
    _need_tabletop(world.config.twin)
    wanted = _matching(world.config, config.instruction)
    speaks = config.planner in ("beam", "best-first")
    env = gym.make(world.config.twin, action_mode="text" if speaks else "vector")
    random = np.random.default_rng(config.seed)
    asked = [wanted[random.integers(len(wanted))] for _ in range(config.episodes)]
    played: list[Episode] = []
    seconds: list[float] = []
    with tqdm(asked, desc=f"{config.planner} on {config.on}", unit="episode") as progress:
        for index, instruction in enumerate(progress):
            policy = _Timed(_policy(config, world, env, instruction, config.seed + index))
            played.append(play(env, policy, config.seed + index, {"instruction": instruction}))
            seconds += policy.seconds
            progress.set_postfix(success=f"{np.mean([episode.success for episode in played]):.0%}")
    env.close()
    metrics: dict[str, Any] = {
        "planner": config.planner,
        "on": config.on if config.planner != "random" else "nothing",
        "instructions": wanted,
        "episodes": config.episodes,
        **worth(played),
        "seconds_per_decision": float(np.mean(seconds)) if config.planner != "random" else None,
        "budget": {"say": config.say, "depth": config.depth, "breadth": config.breadth} if speaks else {
            "horizon": config.horizon, "samples": config.samples, "iterations": config.iterations,
            "replan_every": config.replan_every,
        },
        "by_episode": [
            {"instruction": instruction, "success": episode.success, "return": episode.total}
            for instruction, episode in zip(asked, played, strict=True)
        ],
    }  # fmt: skip
    low, high = metrics["success_interval"]
    print(
        f"{config.planner} on {metrics['on']}: success in MuJoCo {sum(e.success for e in played)} of {len(played)} "
        f"({metrics['success_rate']:.0%}, 95% interval {low:.0%} to {high:.0%}), "
        f"mean return {metrics['mean_return']:.2f}"
    )
    if config.video:
        write_video(config.video, enlarged(side_by_side([episode.frames for episode in played[:6]])))
    if config.json:
        write_results(config.json, config.seed, metrics, commit)
    return metrics


def learn(config: Learning) -> dict[str, Any]:
    from .agents.learning import learn as train_and_judge
    from .results import current_commit, write_results

    commit = current_commit()
    metrics = train_and_judge(config)
    low, high = metrics["success_interval"]
    print(
        f"{config.agent}, {metrics['steps']} steps in {config.where}, {metrics['real_steps']} of them real: success in "
        f"MuJoCo {metrics['success_rate']:.0%} of {config.episodes} (95% interval {low:.0%} to {high:.0%}), "
        f"mean return {metrics['mean_return']:.2f}"
    )
    print(f"agent, log and video in {config.out}")
    if config.json:
        write_results(config.json, config.seed, metrics, commit)
    return metrics


def transfer(config: Transfer) -> dict[str, Any]:
    from .agents.transfer import Cell, draw_starts, rank_policies, zero_shot
    from .agents.transfer_report import write_report
    from .envs_real.tabletop import locate
    from .envs_real.tabletop_cases import BLOCK_WIDTH, HELD_OUT
    from .envs_real.tabletop_transfer import varied_tables
    from .results import current_commit, write_results
    from .world import WorldModel

    commit = current_commit()
    if config.episodes < 1 or config.table_episodes < 1:
        raise ValueError("transfer takes at least one of --episodes and of --table-episodes")
    tables = varied_tables(config.factors)
    world = WorldModel.load(config.world)
    _need_tabletop(world.config.twin)
    wanted = _matching(world.config, config.instruction)
    seed = HELD_OUT % 2**31 + config.seed  # of no recording

    twin, dream = gym.make(world.config.twin), gym.make("worldgym/Dream-v0", world=config.world)
    policies = _policies(config, world, twin)
    ranking = rank_policies(dream, twin, policies, draw_starts(wanted, config.episodes, seed), locate, BLOCK_WIDTH / 2)
    cells = []
    for table in tables:
        asked = [instruction for instruction in wanted if instruction in table.instructions]
        if not asked:
            raise ValueError(f"nothing in {config.instruction} can be asked for where {table.factor} is {table.value}")
        env = gym.make(world.config.twin, variation=table.variation, instruction=asked[0])
        value = " ".join(map(str, table.value)) if isinstance(table.value, tuple) else str(table.value)
        cells.append(Cell(table.factor, value, table.trained, env, draw_starts(asked, config.table_episodes, seed)))
    grid = zero_shot(cells, _planner(config, world, twin, config.samples, config.iterations))
    metrics = {
        "instructions": wanted,
        "ranking": ranking.metrics,
        "planner": {"name": "cem", "horizon": config.horizon, "samples": config.samples, "rounds": config.iterations},
        "zero_shot": grid,
    }
    ranked = ranking.metrics
    print(
        f"{len(policies)} policies, {config.episodes} episodes each, mean return in the dream and in MuJoCo: "
        f"Pearson {ranked['return_pearson']:.2f}, Spearman {ranked['return_spearman']:.2f}; "
        f"success: Pearson {ranked['success_pearson']:.2f}"
    )
    for one in grid:
        low, high = one["success_interval"]
        where = "nominal" if one is grid[0] else "trained" if one["trained"] else "held out"
        name = f"{one['factor']} {one['value']}"
        print(f"{name:32s} {where:9s} {one['success_rate']:4.0%} ({low:.0%} to {high:.0%})")
    page = write_report(
        config.report or Path("runs/transfer") / world.config.name,
        f"How far does {world.config.name} carry?",
        f"{', '.join(config.instruction)}: {len(wanted)} instructions on the Tabletop.",
        ranking,
        grid,
    )
    print(f"report: {page}")
    if config.json:
        write_results(config.json, config.seed, metrics, commit)
    return metrics


def demo(config: Demo) -> None:
    from .envs_real.tabletop_cases import held_out_episodes
    from .evaluate import write_comparison
    from .video import enlarged, write_video
    from .world import WorldModel

    began = time.monotonic()
    world = WorldModel.load(config.world)
    _need_tabletop(world.config.twin)
    size = sum(parameter.numel() for parameter in world.parameters())
    print(f"1. The world {world.config.name!r}: {size / 1e6:.1f} million parameters on {world.device}.")

    real, _ = held_out_episodes(4, 16, config.seed)
    state, frames = world.start(real.frames[:, :1]), [real.frames[:, 0]]
    for when in range(16):
        state, _ = world.step(state, real.actions[:, when])
        frames.append(world.render(state).cpu().numpy())
    write_comparison(config.out / "dream.gif", real.frames, np.stack(frames, 1))
    print(f"2. Four dreams of 16 steps from one frame each, MuJoCo above and dream below: {config.out / 'dream.gif'}")

    sentence = "push the red block right"
    env = gym.make("worldgym/Dream-v0", world=config.world, action_mode="text", render_mode="rgb_array")
    before, _ = env.reset(seed=config.seed)
    after, *_ = env.step(sentence)
    write_video(config.out / "sentence.gif", enlarged(np.stack([before, after])), 1)
    print(f'3. A sentence as an action, "{sentence}", before and after: {config.out / "sentence.gif"}')

    print("4. Planning in the dream, acting in MuJoCo:")
    for task, patterns in (("reach", ("reach *",)), ("push", PUSH_TO_A_PLACE)):
        for planner in ("cem", "random"):
            video = config.out / f"{task}.gif" if planner == "cem" else None
            plan(
                PlanCommand(
                    config.world,
                    planner,
                    instruction=patterns,
                    episodes=config.episodes,
                    seed=config.seed,
                    video=video,
                )
            )
    print(f"Done in {time.monotonic() - began:.0f} s. Look at the pictures in {config.out}.")


def bench(config: Bench) -> dict[str, Any]:
    import torch

    from .bench import HORIZON, BenchSizes, plot, table
    from .bench import bench as measure
    from .dreams import DreamOptions, Dreams
    from .planners import CEM, DreamReturns
    from .results import current_commit, write_results
    from .world import WorldModel

    commit = current_commit()
    world = WorldModel.load(config.world, config.device, getattr(torch, config.dtype))
    dreams = Dreams(1, DreamOptions(config.world, device=config.device))
    dreams.reset(seeds=[0])
    returns = DreamReturns(world, world.config.instructions[0])
    returns.ground(dreams.render()[0].cpu().numpy())
    low, high = np.full((2, world.config.action_size), [[-1.0], [1.0]], np.float32)
    planner = CEM(returns, low, high, horizon=HORIZON, samples=64, iterations=4)
    metrics = measure(world, config.world, BenchSizes.quick() if config.quick else BenchSizes(), planner.plan)
    print(table(metrics))
    if config.json:
        write_results(config.json, 0, metrics, commit)
        plot(metrics, config.json.with_suffix(".png"))
    return metrics


def export(config: Export) -> None:
    import torch

    from .checkpoint import load_config, load_tensors, save_checkpoint

    world, stage = load_config(config.source)
    if stage != "world":
        raise ValueError(f"{config.source} holds a {stage} only; there is nothing to dream with yet")
    weights = {
        name: tensor.half() if tensor.dtype == torch.float32 else tensor
        for name, tensor in load_tensors(config.source / "model.safetensors").items()
    }
    extras = {name: (config.source / name).read_bytes() for name in ("bpe.json", "starts.npz")}
    save_checkpoint(config.target, world, weights, stage, extras)
    size = (config.target / "model.safetensors").stat().st_size
    print(f"exported {config.target}: {size / 1e6:.2f} MB")


# -- parts of `evaluate` -----------------------------------------------------------------------------------------


def _same_judgements(world: WorldConfig, dataset: str, data: Episodes) -> None:
    """A ValueError if the recording cannot be of this world."""
    size = world.tokenizer.resolution
    found = data.frames.shape[1:], data.actions.shape[1], data.instructions
    if found != ((size, size, 3), world.action_size, world.instructions):
        raise ValueError(
            f"{dataset} has frames {found[0]}, actions of {found[1]} and {len(found[2])} instructions "
            f"({found[2][0]!r}, ...); the world {world.name!r} has {(size, size, 3)}, {world.action_size} and "
            f"{len(world.instructions)} ({world.instructions[0]!r}, ...): it was trained on something else"
        )


def _not_known(real: Segment) -> list[str]:
    """What a recording alone leaves open."""
    open_questions = [
        "Where objects are: nothing finds the objects of this world in its pictures, so there are no position errors "
        "and no share of objects kept.",
        "Sentences: what a sentence should do is known of the Tabletop's twin alone.",
        "What the recorded behaviour never did: the test split was played as the training split was.",
    ]
    if not real.successes.any():
        open_questions.append(
            "Whether success is recognised: none was recorded in these stretches, so its calibration shows false "
            "alarms alone."
        )
    if not real.terminations.any():
        open_questions.append(
            "Whether the end of an episode is recognised: none ended in these stretches, so its calibration shows "
            "false alarms alone."
        )
    if np.ptp(real.rewards) == 0:
        open_questions.append("Whether rewards are right: they are all the same here, so nothing correlates.")
    return open_questions


def _print_evaluation(metrics: dict[str, Any], about: str, not_known: list[str]) -> None:
    print(about)
    print(f"tokenizer reconstruction        {metrics['reconstruction_psnr']:.2f} dB")
    objects, steps = "objects_kept" in metrics, len(metrics["psnr"])
    places = "  pusher  moved blocks  objects kept     errors in block widths, medians" if objects else ""
    print(f"step   PSNR  (gain)    SSIM  reward r{places}")
    for step in sorted({1, 2, 4, 8, 12, steps}):
        if step <= steps:
            i = step - 1
            line = (
                f"{step:4d}  {metrics['psnr'][i]:5.2f} ({metrics['psnr_gain'][i]:+5.2f})  {metrics['ssim'][i]:.3f}  "
                f"{metrics['reward_correlation'][i]:8.3f}"
            )
            if objects:
                line += (
                    f"  {metrics['pusher_error_blocks'][i]:6.2f}  {metrics['moved_block_error_blocks'][i]:12.2f}  "
                    f"{metrics['objects_kept'][i]:12.1%}"
                )
            print(line)
    print(f"reward correlation, all steps   {metrics['reward_correlation_all_steps']:.3f}")
    for name, value in metrics["uncertainty_rank_correlation"].items():
        print(f"{name:20s} against error, rank correlation {value:.3f}")
    stated = metrics["success_calibration"]
    print(f"success, calibration error      {stated['expected_error']:.3f}, Brier {stated['brier']:.4f}", end=" ")
    print(f"(of always stating the true rate {stated['brier_of_base_rate']:.4f})")
    if "sentences" in metrics:
        said = metrics["sentences"]
        print(
            f"sentences obeyed                {said['obeyed']} of {said['cases_where_it_really_moved']} "
            f"({said['rate']:.0%}, 95% interval {said['interval'][0]:.0%} to {said['interval'][1]:.0%})"
        )
    for name in ("lpips", "fvd"):
        value = metrics[name]
        print(f"{name.upper():32s}", value if isinstance(value, str) else f"{np.mean(value):.3f}")
    if isinstance(metrics["best_of"], dict):
        best = metrics["best_of"]
        figures = ", ".join(
            f"{name.upper()} {best[name] if isinstance(best[name], str) else format(best[name], '.3f')}"
            for name in ("psnr", "ssim", "lpips", "fvd")
        )
        print(f"best of {best['samples']} samples (FVD: all)  {figures}")
    for sentence in not_known:
        print(f"not known: {sentence}")


def play(config: PlayCommand) -> None:
    from .envs_real.tabletop import TabletopEnv
    from .envs_real.tabletop_skills import phrases, skill_action
    from .play.server import run
    from .play.session import Session
    from .starts import bundled_starts
    from .world import WorldModel

    def make_session() -> Session:
        world = WorldModel.load(config.world, config.device)
        starts = bundled_starts(config.world, world.config.instructions)
        if not config.twin or world.config.twin != "worldgym/TabletopMuJoCo-v0":
            return Session(world, starts, seed=config.seed, instruction=config.instruction)
        table = TabletopEnv()
        known = phrases(table.colors)

        def carry_out(sentence: str) -> np.ndarray:
            """The twin does not know other sentences, and stands still."""
            task = known.get(sentence)
            return np.zeros(2, np.float32) if task is None else skill_action(task, table.positions, table.colors)

        try:
            return Session(world, starts, table, carry_out, config.seed, config.instruction)
        except RuntimeError as error:
            raise ValueError(f"{error} Or play without the twin: --no-twin") from None

    run(make_session, config.recordings, config.port, config.frames_per_second)


# -- parts of `transfer` -----------------------------------------------------------------------------------------


def _planner(config: Transfer, world, twin: gym.Env, samples: int, iterations: int):
    """CEM in the dream, as a maker of policies."""
    budget = PlanCommand(config.world, horizon=config.horizon, samples=samples, iterations=iterations)
    return lambda instruction, seed: _policy(budget, world, twin, instruction, seed)


def _policies(config: Transfer, world, twin: gym.Env) -> dict[str, Any]:
    """Policies of every quality by name: scripted ones that see, planners, and agents on their way."""
    from .agents.learning import load_policy, policy_of
    from .envs_real.tabletop_transfer import SCRIPTED, SeenSkill, other_goal

    def scripted(arguments: dict[str, Any]):
        return lambda instruction, seed: SeenSkill(instruction, seed=seed, **arguments)

    policies: dict[str, Any] = {name: scripted(arguments) for name, arguments in SCRIPTED.items()}
    policies["script, another goal"] = lambda instruction, seed: SeenSkill(other_goal(instruction, seed), seed=seed)
    for samples, iterations in sorted({(4, 1), (config.samples, config.iterations)}):
        policies[f"CEM, {samples} x {iterations}"] = _planner(config, world, twin, samples, iterations)
    for folder in config.agents:
        for path in sorted(folder.glob("agent_*.zip")):
            model, made = load_policy(folder, path.name)
            policies[f"{made.agent} of {made.where}, {int(path.stem.split('_')[1])} steps"] = (
                lambda instruction, seed, model=model, sees=made.sees: policy_of(model, world, sees)
            )
    return policies


# -- parts of `plan` ---------------------------------------------------------------------------------------------


def _policy(config: PlanCommand, world, env: gym.Env, instruction: str, seed: int):
    """Observation -> action."""
    from .planners import CEM, ICEM, MPC, MPPI, DreamReturns, RandomShooting, Search, TwinReturns

    if config.planner in ("beam", "best-first"):
        return _speaker(config, world, env, instruction)
    space = env.action_space
    assert isinstance(space, gym.spaces.Box)
    if config.planner == "random":
        random = np.random.default_rng(seed)
        return lambda observation: random.uniform(space.low, space.high).astype(np.float32)
    returns = DreamReturns(world, instruction) if config.on == "dream" else TwinReturns(env)
    budget = {
        "horizon": config.horizon, "samples": config.samples, "iterations": config.iterations, "action_repeat": 3,
        "seed": seed,
    }  # fmt: skip
    elites = max(2, config.samples // 6)
    planner: Search
    match config.planner:
        case "cem":
            planner = CEM(returns, space.low, space.high, elites=elites, **budget)
        case "icem":
            planner = ICEM(returns, space.low, space.high, elites=elites, **budget)
        case "mppi":
            planner = MPPI(returns, space.low, space.high, **budget)
        case "shooting":
            planner = RandomShooting(returns, space.low, space.high, **budget)
    return MPC(returns, planner, config.replan_every)


def _speaker(config: PlanCommand, world, env: gym.Env, instruction: str):
    """Observation -> sentence."""
    from .planners import BeamSearch, BestFirstSearch, DreamFutures, Phrases, Speaker, TwinFutures

    said = [p for p in world.config.phrases if any(fnmatchcase(p, pattern) for pattern in config.say)]
    if not said:
        raise ValueError(f"no sentence of {world.config.name!r} matches {config.say}")
    futures = DreamFutures(world, instruction) if config.on == "dream" else TwinFutures(env)
    if config.planner == "beam":
        return Speaker(BeamSearch(futures, Phrases(said), depth=config.depth, breadth=config.breadth))
    return Speaker(BestFirstSearch(futures, Phrases(said), depth=config.depth, expansions=config.breadth))


class _Timed:
    """A policy, and the seconds of each of its decisions that took planning."""

    def __init__(self, policy):
        self.policy, self.seconds = policy, []

    def __call__(self, observation: np.ndarray):
        began, before = time.perf_counter(), getattr(self.policy, "plan", None)
        action = self.policy(observation)
        if getattr(self.policy, "plan", None) is not before:
            self.seconds.append(time.perf_counter() - began)
        return action


def _matching(world: WorldConfig, patterns: tuple[str, ...]) -> list[str]:
    """The world's instructions that match one of the patterns, of which there is at least one."""
    wanted = [i for i in world.instructions if any(fnmatchcase(i, pattern) for pattern in patterns)]
    if not wanted:
        raise ValueError(f"no instruction of {world.name!r} matches {patterns}")
    return wanted


def _need_tabletop(twin: str) -> None:
    """Object positions and held-out cases are known for this twin alone."""
    if twin != TABLETOP:
        raise ValueError(f"this world's twin is {twin!r}; this is known for {TABLETOP!r} only")


if __name__ == "__main__":
    main()
