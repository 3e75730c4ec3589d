"""The one command, `worldgym`: the only module that composes the library, its planners and the real worlds."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import gymnasium as gym
import numpy as np
import tyro

from . import __version__
from .agents.settings import Learning, Transfer
from .data import load_episodes
from .envs_real import gym_record, hopper_record, reacher_record
from .envs_real.recording import HOPPER, REACHER, TABLETOP, RecordConfig
from .envs_real.tabletop import record as tabletop_record
from .interrupt import in_one_line
from .planners.planning import Planning, make_policy, plan_and_act
from .results import check_results
from .train.draft import train_draft
from .train.dynamics import train_dynamics
from .train.settings import DraftTraining, DynamicsTraining, TokenizerTraining
from .train.tokenizer import train_tokenizer

World = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="WORLD")]
TabletopUnlessSaid = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[WORLD]")]


@dataclass(frozen=True)
class Train:
    """Train a world: its tokenizer, its dynamics, for planners a draft. A killed run goes on from its checkpoint.

    For example:
        worldgym train tokenizer
        worldgym train dynamics
        worldgym train draft
        tensorboard --logdir runs
    """

    stage: (
        Annotated[TokenizerTraining, tyro.conf.subcommand("tokenizer")]
        | Annotated[DynamicsTraining, tyro.conf.subcommand("dynamics")]
        | Annotated[DraftTraining, tyro.conf.subcommand("draft")]
    )


@dataclass(frozen=True)
class Evaluate:
    """Dream held-out episodes open loop and compare them with what really happened, step by step.

    For example:
        worldgym evaluate tabletop --episodes 32
        worldgym evaluate runs/arm/world --dataset mine/arm-v0
    """

    world: World
    """A bundled world, a checkpoint folder, or user/name on the hub."""
    suite: Literal["steps", "pan"] = "steps"
    """"pan" is PAN's own evaluation (arXiv 2511.09057), of sentences on the Tabletop, judged by MuJoCo."""
    episodes: int = 256
    """Held-out episodes: of a Tabletop made on the spot by the twin, of other worlds from the --dataset."""
    dataset: str | None = None
    """Minari id of the recording whose test split is dreamed; a Tabletop needs none, any other world does."""
    steps: int = 16
    """Steps dreamed from one real frame."""
    sentences: int = 12
    """Starts for each of the eight "push the <colour> block <direction>"."""
    samples: int = 1
    """Above 1, also the best of so many dreams of temperature 1 (of FVD: all), as iVideoGPT does with 100."""
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
                    raise ValueError(f"--{name.replace('_', '-')} is known to --suite {suite} alone")
        if self.episodes < 4 or self.steps < 1 or self.sentences < 1 or self.samples < 1 or self.plan_episodes < 0:
            raise ValueError(
                "evaluating takes at least 4 --episodes, 1 of --steps, 1 of --sentences and 1 of --samples"
            )


@dataclass(frozen=True)
class Demo:
    """The whole way in a minute: dream, plan in the dream, succeed in MuJoCo.

    For example:
        worldgym demo
    """

    world: TabletopUnlessSaid = "tabletop"
    """A Tabletop: a bundled world, a checkpoint folder, or user/name on the hub."""
    out: Path = Path("runs/demo")
    """Where the pictures and the page go."""
    episodes: int = 3
    """Episodes for each of the two tasks and each way to act."""
    seed: int = 0
    """Of the episodes."""


@dataclass(frozen=True)
class Bench:
    """How fast a world dreams, beside other ways to imagine and beside simulators.

    For example:
        worldgym bench --quick
    """

    world: TabletopUnlessSaid = "tabletop"
    """A bundled world, a checkpoint folder, or user/name on the hub."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the matrix products."""
    quick: bool = False
    """A short run: two batch sizes and few rounds."""
    device: str = "auto"
    """"auto" takes a GPU where there is one."""
    json: Path | None = None
    """Write the figures here, with command, commit and hardware; the plot goes beside them."""


@dataclass(frozen=True)
class Render:
    """Show a recorded episode, of a dream or of the true environment, again by the diffusion decoder.

    Its pictures are read into the world's own maps and drawn anew; the video has the recorded ones on the left.

    For example:
        worldgym render --dataset worldgym/tabletop-v0 \
            --episode 3 --out three.mp4
    """

    world: TabletopUnlessSaid = "tabletop"
    """A bundled world, a checkpoint folder, or user/name on the hub."""
    dataset: str = "worldgym/tabletop-v0"
    """Minari id of the episodes: `worldgym record` writes real ones, `worldgym play` dreamed ones."""
    episode: int = 0
    decoder: str = "diffusion"
    """"diffusion" for the one in the world's folder, or the folder of another."""
    out: Path = Path("runs/render.mp4")
    """The video; its suffix says of what kind."""
    seed: int = 0
    """Of the noise that pictures begin as."""
    device: str = "auto"
    """"auto" takes a GPU where there is one."""


@dataclass(frozen=True)
class Export:
    """Strip a trained world down to what dreaming needs, with weights in half precision.

    For example:
        worldgym export runs/tabletop/world worlds/mine
    """

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="WORLD")]
    """Checkpoint folder that training wrote, a bundled world, or user/name on the hub."""
    target: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="TARGET")]
    """Folder to write."""
    decoder: Path | None = None
    """Folder of a diffusion decoder that was trained for this world, to travel with it; the world's own by default."""


@dataclass(frozen=True)
class PlayCommand:
    """Play with a dream in a browser: act by keys or sentences, pause, rewind, fork, compare with MuJoCo, record.

    For example:
        worldgym play
        worldgym play hopper --frames-per-second 5
    """

    world: TabletopUnlessSaid = "tabletop"
    """A bundled world, a checkpoint folder, or user/name on the hub."""
    instruction: str | None = None
    """What rewards are for; the world's first by default."""
    seed: int = 0
    """Of the first episode."""
    twin: bool = True
    """Step the true environment along, where the world has one that can be wound back."""
    port: int = 8321
    """Where the page is: http://127.0.0.1:PORT."""
    frames_per_second: int = 10
    """Steps of time that pass in a second while something is being done."""
    recordings: Path = Path("runs/play")
    """Where GIFs and MP4s go; Minari datasets go where Minari keeps them."""
    device: str = "auto"
    """"auto" takes a GPU where there is one."""


@dataclass(frozen=True)
class ListCommand:
    """List the worlds: the bundled ones and those that training left here.

    For example:
        worldgym list
    """

    runs: Path = Path("runs")
    """Folder to look through."""


@dataclass(frozen=True)
class Push:
    """Share a world on the Hugging Face hub, with a model card; `hf auth login` first.

    For example:
        worldgym push worlds/mine user/mine --results figures.json
    """

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """Checkpoint folder; `worldgym export` makes one of half the size."""
    repo: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="USER/NAME")]
    """Repository on the hub; made if it does not exist."""
    licence: str = "mit"
    """An identifier that the hub knows."""
    results: tuple[Path, ...] = ()
    """Files of figures for the card, from --json of `evaluate` and `plan`."""
    data: str = ""
    """A sentence for the card: what the world was trained on."""
    private: bool = False
    """Make a new repository private."""


def main() -> None:
    """Entry point."""
    with in_one_line():
        _run()


def _run() -> None:
    config = tyro.cli(
        Annotated[RecordConfig, tyro.conf.subcommand("record")]
        | Annotated[Train, tyro.conf.subcommand("train")]
        | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
        | Annotated[Planning, tyro.conf.subcommand("plan")]
        | Annotated[Learning, tyro.conf.subcommand("learn")]
        | Annotated[Transfer, tyro.conf.subcommand("transfer")]
        | Annotated[Demo, tyro.conf.subcommand("demo")]
        | Annotated[Bench, tyro.conf.subcommand("bench")]
        | Annotated[Render, tyro.conf.subcommand("render")]
        | Annotated[Export, tyro.conf.subcommand("export")]
        | Annotated[PlayCommand, tyro.conf.subcommand("play")]
        | Annotated[ListCommand, tyro.conf.subcommand("list")]
        | Annotated[Push, tyro.conf.subcommand("push")],
        prog="worldgym",
        description=f"WorldGym {__version__}: learned video world models that are Gymnasium environments.",
        config=(tyro.conf.OmitSubcommandPrefixes, tyro.conf.OmitArgPrefixes),
    )
    if file := getattr(config, "json", None):
        check_results(file)
    match config:
        case RecordConfig():
            bundled = {TABLETOP: tabletop_record, REACHER: reacher_record, HOPPER: hopper_record}
            recorder = bundled.get(config.env, gym_record)
            print(f"recorded {recorder.record(config)}")
        case Train(TokenizerTraining() as stage):
            print(f"trained {train_tokenizer(stage)}")
        case Train(DynamicsTraining() as stage):
            print(f"trained {train_dynamics(stage)}")
        case Train(DraftTraining() as stage):
            print(f"trained {train_draft(stage)}")
        case Evaluate():
            evaluate(config)
        case Planning():
            plan(config)
        case Learning():
            learn(config)
        case Transfer():
            transfer(config)
        case Demo():
            demo(config)
        case Bench():
            bench(config)
        case Render():
            render(config)
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
    if config.suite == "pan":
        return _evaluate_pan(config)
    from .evaluate import (
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
    from .evaluate.report import as_text, write_report
    from .results import current_commit, write_results
    from .world import WorldModel

    commit = current_commit()
    world = WorldModel.load(config.world)
    seen, not_known = world.config.dynamics.observed, []
    frames_seen = "one real frame" if seen == 1 else f"{seen} real frames"
    if config.dataset is None:
        if world.config.twin != TABLETOP:
            raise ValueError(
                f"this world's twin is {world.config.twin!r}, of which no held-out episodes can be made here; name the "
                "recording that it was trained on with --dataset, and its test split is dreamed"
            )
        from .envs_real.tabletop import locate
        from .envs_real.tabletop.cases import BLOCK_WIDTH, ENOUGH, held_out_episodes, sentence_cases

        real, positions = held_out_episodes(config.episodes, config.steps + seen - 1, config.seed)
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
        metrics |= evaluate_objects(dreamed.frames, positions[:, seen - 1 :], locate, BLOCK_WIDTH)
        cases = sentence_cases(config.sentences, config.seed)
        metrics["sentences"] = evaluate_sentences(
            world, cases.frames, cases.sentences, cases.objects, cases.directions, cases.moves, locate, ENOUGH
        )
    metrics |= evaluate_perception(world, real, dreamed, config.lpips, config.fvd, config.samples, config.seed)
    metrics["not_known"] = not_known

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
    from .envs_real.tabletop import TabletopEnv
    from .envs_real.tabletop.reasoning import evaluate_planning
    from .envs_real.tabletop.rounds import judges, sentence_rounds
    from .evaluate.pan_report import as_text, write_report
    from .evaluate.pan_suite import evaluate_rows, play
    from .planners.reasoning import elementary, ways
    from .results import current_commit, write_results
    from .world import WorldModel

    commit = current_commit()
    world = WorldModel.load(config.world)
    _need_tabletop(world.config.twin)
    rounds, judge = sentence_rounds(config.episodes, config.seed), judges()
    rows = play(world, rounds, judge)
    metrics = evaluate_rows(rows, rounds, judge) | {"planning": "left out: --plan-episodes is 0"}
    if config.plan_episodes:
        twin = TabletopEnv(action_mode="text")
        known = ways(world, twin, elementary(world))
        metrics["planning"] = evaluate_planning(twin, known, config.plan_episodes, config.seed)
        twin.close()
    folder = config.report or Path("runs/evaluate") / f"{world.config.name}_pan"
    page = write_report(folder, world.config.name, metrics, rows, commit)
    print(as_text(metrics))
    print(f"report: {page}")
    for path in filter(None, (page.with_name("run.json"), config.json)):
        write_results(path, config.seed, metrics, commit)
    return metrics


def plan(config: Planning) -> dict[str, Any]:
    from .evaluate.video import check_video, enlarged, side_by_side, write_video
    from .results import current_commit, write_results
    from .world import WorldModel

    commit = current_commit()
    if config.video:
        check_video(config.video)
    world = WorldModel.load(config.world, config.device)
    metrics, played = plan_and_act(config, world)
    low, high = metrics["success_interval"]
    print(
        f"{config.planner} on {metrics['on']}: success in MuJoCo {sum(e.success for e in played)} of {len(played)} "
        f"({metrics['success_rate']:.0%}, 95% interval {low:.0%} to {high:.0%}), "
        f"mean return {metrics['mean_return']:.2f} in {metrics['mean_steps']:.0f} steps"
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
    print(f"agent, log, figures and video in {config.out}")
    for path in filter(None, (config.out / "run.json", config.json)):
        write_results(path, config.seed, metrics, commit)
    return metrics


def transfer(config: Transfer) -> dict[str, Any]:
    from .agents.transfer import Cell, draw_starts, rank_policies, zero_shot
    from .agents.transfer_report import combination_rows, grid_row, write_report
    from .envs_real.tabletop import TabletopEnv, locate
    from .envs_real.tabletop.cases import BLOCK_WIDTH, HELD_OUT
    from .envs_real.tabletop.reasoning import COMBINED, evaluate_planning
    from .envs_real.tabletop.transfer import varied_tables
    from .planners.reasoning import elementary, ways
    from .results import current_commit, write_results
    from .world import WorldModel

    commit = current_commit()
    if config.episodes < 0 or config.combinations < 0 or config.table_episodes < 1:
        raise ValueError(
            "transfer takes at least one of --table-episodes; --episodes and --combinations may be 0, for none"
        )
    if not config.table_planner and not config.agents:
        raise ValueError("--no-table-planner leaves nobody to act on the tables; name an agent with --agents")
    tables = varied_tables(config.factors)
    world = WorldModel.load(config.world)
    _need_tabletop(world.config.twin)
    wanted = world.config.matching(config.instruction)
    seed = HELD_OUT % 2**31 + config.seed  # of no recording

    twin, dream = gym.make(world.config.twin), gym.make("worldgym/Dream-v0", world=config.world)
    ranking = None
    if config.episodes:
        starts = draw_starts(wanted, config.episodes, seed)
        ranking = rank_policies(dream, twin, _policies(config, world, twin), starts, locate, BLOCK_WIDTH / 2)
    cells = []
    for table in tables:
        asked = [instruction for instruction in wanted if instruction in table.instructions]
        if not asked:
            raise ValueError(f"nothing in {config.instruction} can be asked for where {table.factor} is {table.value}")
        env = gym.make(world.config.twin, variation=table.variation, instruction=asked[0])
        value = " ".join(map(str, table.value)) if isinstance(table.value, tuple) else str(table.value)
        cells.append(Cell(table.factor, value, table.trained, env, draw_starts(asked, config.table_episodes, seed)))
    carried = dict(_agent(folder, "agent.zip", world) for folder in config.agents)
    if config.table_planner:
        carried["CEM"] = _planner(config, world, twin, config.samples, config.iterations)
    grid = zero_shot(cells, carried)
    combined = None
    if config.combinations:
        speaking = TabletopEnv(action_mode="text")
        known = ways(world, speaking, elementary(world))
        combined = evaluate_planning(speaking, known, config.combinations, seed, [COMBINED])
        speaking.close()
    metrics = {
        "instructions": wanted,
        "ranking": ranking and ranking.metrics,
        "planner": {"name": "cem", "horizon": config.horizon, "samples": config.samples, "rounds": config.iterations},
        "zero_shot": grid,
        "combinations": combined,
    }
    if ranking:
        ranked = ranking.metrics
        print(
            f"{len(ranked['policies'])} policies, {config.episodes} episodes each, mean return in the dream and in "
            f"MuJoCo: Pearson {ranked['return_pearson']:.2f}, Spearman {ranked['return_spearman']:.2f}; "
            f"success: Pearson {ranked['success_pearson']:.2f}"
        )
    for one in grid:
        print("  ".join(f"{cell:{width}s}" for cell, width in zip(grid_row(one), COLUMNS, strict=True)))
    for row in combination_rows(combined) if combined else []:
        print("  ".join(row))
    page = write_report(
        config.report or Path("runs/transfer") / world.config.name,
        f"How far does {world.config.name} carry?",
        f"{', '.join(config.instruction)}: {len(wanted)} instructions on the Tabletop.",
        ranking,
        grid,
        combined,
    )
    print(f"report: {page}")
    for path in filter(None, (page.with_name("run.json"), config.json)):
        write_results(path, config.seed, metrics, commit)
    return metrics


def demo(config: Demo) -> None:
    from .demo import demonstrate
    from .world import WorldModel

    world = WorldModel.load(config.world)
    _need_tabletop(world.config.twin)
    demonstrate(world, config.world, config.out, config.episodes, config.seed)


def bench(config: Bench) -> dict[str, Any]:
    import torch

    from .bench import HORIZON, BenchSizes, plot, table
    from .bench import bench as measure
    from .dreams import DreamOptions, Dreams
    from .planners import CEM, DreamReturns, TwinReturns
    from .planners.mpc import Returns
    from .results import current_commit, write_results
    from .world import WorldModel

    commit = current_commit()
    world = WorldModel.load(config.world, config.device, getattr(torch, config.dtype))
    dreams = Dreams(1, DreamOptions(config.world, device=config.device))
    dreams.reset(seeds=[0])
    returns = DreamReturns(world, world.config.instructions[0])
    returns.ground(dreams.render().cpu().numpy())
    judges: dict[str, Returns] = {"dream": returns}
    if world.config.twin in (TABLETOP, REACHER, HOPPER):
        twin = gym.make(world.config.twin, instruction=world.config.instructions[0])
        twin.reset(seed=0)
        judges["mujoco"] = TwinReturns(twin)
    low, high = np.full((2, world.config.action_size), [[-1.0], [1.0]], np.float32)
    samples, rounds = 64, 4
    decide: dict[str, Callable[[], Any]] = {
        on: CEM(judge, low, high, horizon=HORIZON, samples=samples, iterations=rounds).plan
        for on, judge in judges.items()
    }
    sizes = BenchSizes.quick() if config.quick else BenchSizes()
    metrics = measure(world, config.world, sizes, decide, samples * rounds * HORIZON)
    print(table(metrics))
    if config.json:
        write_results(config.json, 0, metrics, commit)
        plot(metrics, config.json.with_suffix(".png"))
    return metrics


def render(config: Render) -> None:
    from .decoders import load_decoder
    from .decoders.render import rerender
    from .evaluate import check_recording
    from .evaluate.video import check_video, enlarged, side_by_side, write_video
    from .world import WorldModel

    check_video(config.out)
    world, data = WorldModel.load(config.world, config.device), load_episodes(config.dataset)
    check_recording(world.config, config.dataset, data)
    episodes = len(data.starts) - 1
    if not 0 <= config.episode < episodes:
        raise ValueError(f"episode is {config.episode}; {config.dataset} has {episodes}, counted from 0")
    decoder = load_decoder(config.world, config.decoder, world)
    frames = np.array(data.frames[data.starts[config.episode] : data.starts[config.episode + 1]])
    drawn = rerender(world, decoder, frames, config.seed)
    write_video(config.out, enlarged(side_by_side([frames, drawn], gap=2), 4), frames_per_second=10)
    print(f"wrote {config.out}: recorded, and by the diffusion decoder")


def export(config: Export) -> None:
    from .checkpoint import export_world
    from .listing import find_world

    export_world(find_world(config.source), config.target, config.decoder)
    size = (config.target / "model.safetensors").stat().st_size
    print(f"exported {config.target}: {size / 1e6:.2f} MB")


def play(config: PlayCommand) -> None:
    from .envs_real.hopper import HopperEnv
    from .envs_real.reacher import ReacherEnv
    from .envs_real.tabletop import TabletopEnv
    from .envs_real.tabletop.skills import phrases, skill_action
    from .play.page import run
    from .play.session import Controller, Session, Twin
    from .starts import bundled_starts
    from .world import WorldModel

    def make_session() -> Session:
        world = WorldModel.load(config.world, config.device)
        starts = bundled_starts(config.world, world.config)
        twins: dict[str, Callable[[], tuple[Twin, Controller | None]]] = {
            TABLETOP: beside_table, REACHER: lambda: (ReacherEnv(), None), HOPPER: lambda: (HopperEnv(), None),
        }  # fmt: skip
        if not config.twin or world.config.twin not in twins:
            return Session(world, starts, seed=config.seed, instruction=config.instruction)
        twin, controller = twins[world.config.twin]()
        try:
            return Session(world, starts, twin, controller, config.seed, config.instruction)
        except RuntimeError as error:
            raise ValueError(f"{error} Or play without the twin: --no-twin") from None

    def beside_table() -> tuple[TabletopEnv, Controller]:
        table = TabletopEnv()
        known = phrases(table.colors)

        def carry_out(sentence: str) -> np.ndarray:
            """The twin does not know other sentences, and stands still."""
            task = known.get(sentence)
            return np.zeros(2, np.float32) if task is None else skill_action(task, table.positions, table.colors)

        return table, carry_out

    run(make_session, config.recordings, config.port, config.frames_per_second)


# -- parts of `transfer` -----------------------------------------------------------------------------------------


def _planner(config: Transfer, world, twin: gym.Env, samples: int, iterations: int):
    """CEM in the dream, as a maker of policies."""
    budget = Planning(config.world, horizon=config.horizon, samples=samples, iterations=iterations)
    return lambda instruction, seed: make_policy(budget, world, twin, instruction, seed)


COLUMNS = 26, 34, 8, 5, 12, 3, 4
"""Widths of a row of the grid of tables."""


def _agent(folder: Path, name: str, world) -> tuple[str, Any]:
    """An agent of `worldgym learn`, by what it is, and as a maker of policies."""
    from .agents.learning import load_policy, policy_of

    model, made = load_policy(folder, name)
    called = f"{made.agent} of {made.where}, {model.num_timesteps} steps"
    return called, lambda instruction, seed: policy_of(model, world, made.sees)


def _policies(config: Transfer, world, twin: gym.Env) -> dict[str, Any]:
    """Policies of every quality by name: scripted ones that see, planners, and agents on their way."""
    from .envs_real.tabletop.transfer import SCRIPTED, SeenSkill, other_goal

    def scripted(arguments: dict[str, Any]):
        return lambda instruction, seed: SeenSkill(instruction, seed=seed, **arguments)

    policies: dict[str, Any] = {name: scripted(arguments) for name, arguments in SCRIPTED.items()}
    policies["script, another goal"] = lambda instruction, seed: SeenSkill(other_goal(instruction, seed), seed=seed)
    for samples, iterations in sorted({(4, 1), (config.samples, config.iterations)}):
        policies[f"CEM, {samples} x {iterations}"] = _planner(config, world, twin, samples, iterations)
    for folder in config.agents:
        policies |= dict(_agent(folder, path.name, world) for path in sorted(folder.glob("agent_*.zip")))
    return policies


def _need_tabletop(twin: str) -> None:
    """Object positions and held-out cases are known for this twin alone."""
    if twin != TABLETOP:
        raise ValueError(f"this world's twin is {twin!r}; this is known for {TABLETOP!r} only")


if __name__ == "__main__":
    main()
