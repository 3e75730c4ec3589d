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
    """Dream held-out episodes open loop and compare them with MuJoCo, step by step."""

    world: World
    """A bundled world or a checkpoint folder."""
    episodes: int = 256
    """Held-out episodes, made on the spot by the twin."""
    steps: int = 16
    """Steps dreamed from one real frame."""
    sentences: int = 12
    """Starts for each of the eight "push the <colour> block <direction>"."""
    seed: int = 0
    json: Path | None = None
    """Write the figures here, with command, commit and hardware."""
    report: Path | None = None
    """Folder for the plot and the videos; runs/evaluate/WORLD by default."""


@dataclass(frozen=True)
class PlanCommand:
    """Plan in the dream or on true physics; act in MuJoCo."""

    world: World
    """A bundled world or a checkpoint folder."""
    planner: Literal["cem", "icem", "mppi", "shooting", "random"] = "cem"
    """How to search for a plan; "random" has none and acts uniformly at random: the floor."""
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
class Export:
    """Strip a trained world down to what dreaming needs, with weights in half precision."""

    source: Annotated[Path, tyro.conf.Positional]
    """Checkpoint folder that training wrote."""
    target: Annotated[Path, tyro.conf.Positional]
    """Folder to write."""


def main() -> None:
    """Entry point: a user's mistake is one line, not a traceback."""
    try:
        _run()
    except (ValueError, TypeError, FileNotFoundError, FileExistsError) as error:
        print(f"worldgym: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def _run() -> None:
    config = tyro.cli(
        Annotated[RecordConfig, tyro.conf.subcommand("record")]
        | Annotated[Train, tyro.conf.subcommand("train")]
        | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
        | Annotated[PlanCommand, tyro.conf.subcommand("plan")]
        | Annotated[Demo, tyro.conf.subcommand("demo")]
        | Annotated[Export, tyro.conf.subcommand("export")],
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
        case Demo():
            demo(config)
        case Export():
            export(config)


def evaluate(config: Evaluate) -> dict[str, Any]:
    from .envs_real.tabletop import locate
    from .envs_real.tabletop_cases import BLOCK_WIDTH, held_out_episodes, sentence_cases
    from .evaluate import evaluate_dreams, evaluate_sentences, plot_report, write_comparison
    from .results import current_commit, write_results
    from .world import WorldModel

    commit = current_commit()
    if config.episodes < 4 or config.steps < 1 or config.sentences < 1:
        raise ValueError("evaluating takes at least 4 --episodes, 1 of --steps and 1 of --sentences")
    world = WorldModel.load(config.world)
    _need_tabletop(world.config.twin)
    real, positions = held_out_episodes(config.episodes, config.steps, config.seed)
    metrics, frames = evaluate_dreams(world, real, positions, locate, BLOCK_WIDTH, config.seed)
    cases = sentence_cases(config.sentences, config.seed)
    metrics["sentences"] = evaluate_sentences(
        world, cases.frames, cases.sentences, cases.objects, cases.directions, cases.moves, locate, enough=0.1
    )

    report = config.report or Path("runs/evaluate") / world.config.name
    plot_report(metrics, report / "horizon.png")
    write_comparison(report / "dream.gif", real.frames, np.concatenate([real.frames[:, :1], frames], 1))
    print(f"{metrics['episodes']} held-out episodes, dreamed from one real frame")
    print(f"tokenizer reconstruction        {metrics['reconstruction_psnr']:.2f} dB")
    print("step   PSNR  (gain)   pusher  moved blocks  reward r     errors in block widths, medians")
    for step in sorted({1, 2, 4, 8, 12, config.steps}):
        if step <= config.steps:
            i = step - 1
            print(
                f"{step:4d}  {metrics['psnr'][i]:5.2f} ({metrics['psnr_gain'][i]:+5.2f})  "
                f"{metrics['pusher_error_blocks'][i]:6.2f}  {metrics['moved_block_error_blocks'][i]:12.2f}  "
                f"{metrics['reward_correlation'][i]:8.3f}"
            )
    print(f"reward correlation, all steps   {metrics['reward_correlation_all_steps']:.3f}")
    for name, value in metrics["uncertainty_rank_correlation"].items():
        print(f"{name:20s} against error, rank correlation {value:.3f}")
    said = metrics["sentences"]
    print(
        f"sentences obeyed                {said['obeyed']} of {said['cases_where_it_really_moved']} "
        f"({said['rate']:.0%}, 95% interval {said['interval'][0]:.0%} to {said['interval'][1]:.0%})"
    )
    print(f"plot and videos in {report}")
    if config.json:
        write_results(config.json, config.seed, metrics, commit)
    return metrics


def plan(config: PlanCommand) -> dict[str, Any]:
    from .evaluate import write_video
    from .metrics import wilson
    from .results import current_commit, write_results
    from .world import WorldModel

    commit = current_commit()
    world = WorldModel.load(config.world, config.device)
    _need_tabletop(world.config.twin)
    wanted = [i for i in world.config.instructions if any(fnmatchcase(i, pattern) for pattern in config.instruction)]
    if not wanted:
        raise ValueError(f"no instruction of {world.config.name!r} matches {config.instruction}")
    env = gym.make(world.config.twin)
    random = np.random.default_rng(config.seed)
    asked = [wanted[random.integers(len(wanted))] for _ in range(config.episodes)]
    successes, returns, decisions, videos = [], [], [], []
    with tqdm(asked, desc=f"{config.planner} on {config.on}", unit="episode") as progress:
        for index, instruction in enumerate(progress):
            policy = _policy(config, world, env, instruction, config.seed + index)
            total, success, frames, spent = _episode(env, policy, config.seed + index, instruction)
            successes.append(success)
            returns.append(total)
            decisions.append(spent)
            if index < 6:
                videos.append(frames)
            progress.set_postfix(success=f"{np.mean(successes):.0%}")
    env.close()
    low, high = wilson(sum(successes), len(successes))
    metrics = {
        "planner": config.planner,
        "on": config.on if config.planner != "random" else "nothing",
        "instructions": wanted,
        "episodes": config.episodes,
        "success_rate": float(np.mean(successes)),
        "success_interval": [low, high],
        "mean_return": float(np.mean(returns)),
        "seconds_per_decision": float(np.mean(np.concatenate(decisions))) if config.planner != "random" else None,
        "budget": {
            "horizon": config.horizon, "samples": config.samples, "iterations": config.iterations,
            "replan_every": config.replan_every,
        },
        "by_episode": [
            {"instruction": i, "success": bool(s), "return": float(r)}
            for i, s, r in zip(asked, successes, returns, strict=True)
        ],
    }  # fmt: skip
    print(
        f"{config.planner} on {metrics['on']}: success in MuJoCo {sum(successes)} of {len(successes)} "
        f"({metrics['success_rate']:.0%}, 95% interval {low:.0%} to {high:.0%}), "
        f"mean return {metrics['mean_return']:.2f}"
    )
    if config.video:
        write_video(config.video, _side_by_side(videos))
    if config.json:
        write_results(config.json, config.seed, metrics, commit)
    return metrics


def demo(config: Demo) -> None:
    from .envs_real.tabletop_cases import held_out_episodes
    from .evaluate import write_comparison, write_video
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
    write_video(config.out / "sentence.gif", _enlarge(np.stack([before, after])), 1)
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


# -- parts of `plan` ---------------------------------------------------------------------------------------------


def _policy(config: PlanCommand, world, env: gym.Env, instruction: str, seed: int):
    """Observation -> action."""
    from .planners import CEM, ICEM, MPC, MPPI, DreamReturns, RandomShooting, Search, TwinReturns

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


def _episode(env: gym.Env, policy, seed: int, instruction: str):
    """(return, success, frames seen, seconds of each decision that took planning)."""
    observation, _ = env.reset(seed=seed, options={"instruction": instruction})
    total, success, done, frames, spent = 0.0, False, False, [observation], []
    while not done:
        before, plan_before = time.perf_counter(), getattr(policy, "plan", None)
        action = policy(observation)
        if getattr(policy, "plan", None) is not plan_before:
            spent.append(time.perf_counter() - before)
        observation, reward, terminated, truncated, info = env.step(action)
        frames.append(observation)
        total += float(reward)
        success, done = bool(info["success"]), terminated or truncated
    return total, success, np.stack(frames), spent


def _side_by_side(videos: list[np.ndarray]) -> np.ndarray:
    """Episodes of differing length in one picture; the short ones stand still at their end."""
    longest = max(len(video) for video in videos)
    padded = [np.concatenate([video, np.repeat(video[-1:], longest - len(video), 0)]) for video in videos]
    return _enlarge(np.concatenate(padded, 2))


def _enlarge(video: np.ndarray, scale: int = 2) -> np.ndarray:
    return video.repeat(scale, 1).repeat(scale, 2)


def _need_tabletop(twin: str) -> None:
    """Object positions and held-out cases are known for this twin alone."""
    if twin != "worldgym/TabletopMuJoCo-v0":
        raise ValueError(f"this world's twin is {twin!r}; held-out cases exist for 'worldgym/TabletopMuJoCo-v0' only")


if __name__ == "__main__":
    main()
