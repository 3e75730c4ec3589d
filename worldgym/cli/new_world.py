"""The stages of `worldgym new`, each with as many steps as fit into its share of the time that is left.

What was decided is in plan.json of the run's folder, so a killed run continues by it and ends up the same.
"""

import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box
from minari import delete_dataset, load_dataset
from minari.storage import get_dataset_path

from ..checkpoint import load_config
from ..config import DynamicsConfig
from ..data import Episodes, load_episodes
from ..envs_real.settings import RecordConfig
from ..envs_real.twins import twin_kind
from ..files import alone, replacing
from ..listing import find_world
from ..model.device import pick_device
from ..results import current_commit, write_results
from ..train.checkpoints import check_settings
from ..train.dynamics import DynamicsStage, train_dynamics
from ..train.frames import FramesStage, train_frames
from ..train.loop import Stage
from ..train.recurrent_state import RecurrentStage, train_recurrent_state
from ..train.settings import DynamicsTraining, FramesTraining, RecurrentTraining, TokenizerTraining
from ..train.tokenizer import TokenizerStage, train_tokenizer
from .evaluate import Evaluate, evaluate
from .improve_settings import Improve
from .improvement import improve_in_rounds
from .new_settings import New

RECORDING = 0.1
"""Share of the time that is recorded in at most."""
EVALUATION = 0.06
"""Share of the time that is left for judging the world."""
FRAMES = 0.08
"""Share of the time in which it learns, at the end, to draw its frames from its state."""
SHARES = {"tokenizer": 0.1, "dynamics": 0.12, "state": 0.3}
"""Of what is left when a stage begins. Planners and agents use the state, so it gets more, and rounds of acting and
training on get most: noise seldom shows what matters."""
FEWEST_EPISODES = 100
"""Of every 20 one is for testing, and judging takes four."""
FEWEST, MOST = 20, 20_000
"""Steps of a stage."""
TIMED = 4
"""Steps that are timed, from all over a stage: it gets slower as it dreams further."""
ROUNDS = 6
"""Of acting by plans and training on; more where they take less time than expected, up to twice as many."""
TRAINED_ON = 0.6
"""Share of a round that trains."""
PLANNED: dict[str, Any] = {"horizon": 16, "samples": 64, "iterations": 3, "action_repeat": 1, "replan_every": 2}
"""How rounds plan, and `worldgym plan` is told to."""
TRIED = 4, 24
"""Episodes of two trials; what the second takes more is the pace, without the time that starting takes."""


def make_world(config: New) -> dict[str, Any]:
    """Record, train, evaluate; returns what plan.json holds."""
    out = config.out or Path("runs") / config.name
    if config.base != "none":
        find_world(config.base)  # or it is told now
    out.mkdir(parents=True, exist_ok=True)
    with alone(out / ".lock", f"making a world in {out}"):
        plan = Plan(config, out)
        recording = plan.recording()
        improved = _improved(config, out, _train(config, out, recording.dataset, plan), plan)
        world = _drawn(config, out, recording.dataset, improved, plan)
        steps = _held_out_steps(load_episodes(recording.dataset), load_config(world)[0].dynamics.observed)
        judging = Evaluate(
            str(world), episodes=64, dataset=recording.dataset, steps=steps, report=out / "report",
            json=out / "dream.json",
        )  # fmt: skip
        evaluate(judging)
        plan.note("done", 1)
    minutes = plan.spent() / 60
    agent = "actor-critic" if isinstance(load_config(world)[0].codec.space, Box) else "ppo"
    planned = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in PLANNED.items())
    print(
        f"{world} is a world of {config.env}, made in {minutes:.1f} minutes. Next:\n"
        f"  worldgym plan {world} --episodes 10 {planned}\n"
        f"  worldgym learn {world} --agent {agent}\n"
        f"  worldgym play {world}\n"
        f"  worldgym improve {world} --dataset {recording.dataset} --no-looks {planned}\n"
        f'  gym.make("worldgym/Dream-v0", world="{world}")'
    )
    return plan.decided


class Plan:
    """What was decided so far, and the time that is left."""

    def __init__(self, config: New, out: Path):
        self.config, self.path, self.commit = config, out / "plan.json", current_commit()
        self.decided: dict[str, Any] = {"asked": json.loads(json.dumps(asdict(config), default=str)), "spent": 0.0}
        if self.path.exists():
            self.decided = json.loads(self.path.read_text(encoding="utf-8"))["metrics"]
            check_settings(out, self.decided["asked"], config)
        self.began = time.monotonic() - self.decided["spent"]

    def spent(self) -> float:
        """Seconds, of killed runs until what they noted last."""
        return time.monotonic() - self.began

    def left(self) -> float:
        """Seconds for what comes before frames and evaluation."""
        return 60 * self.config.minutes * (1 - EVALUATION - FRAMES) - self.spent()

    def note(self, what: str, number: int) -> int:
        """Keep a decision, unless an earlier run made it; returns the one that counts."""
        number = self.decided.setdefault(what, number)
        self.decided["spent"] = self.spent()
        write_results(self.path, self.config.seed, self.decided, self.commit)
        return number

    def recording(self) -> RecordConfig:
        """The recording, once it is there."""
        asked = self.config.recording()
        record = resolve_name(twin_kind(asked.env).record)
        if get_dataset_path(asked.dataset).exists():
            print(f"{asked.dataset} is there already, and used as it is")
            return asked
        if "episodes" not in self.decided:
            seconds, steps = _episode(asked, record)
            fitting = int(RECORDING * 60 * self.config.minutes / seconds * asked.workers)
            wanted = math.ceil(self.config.frames / steps)
            self.note("episodes", max(min(wanted, fitting), FEWEST_EPISODES))
        asked = replace(asked, episodes=self.decided["episodes"])
        record(asked)
        return asked

    def steps(self, name: str, make_stage: Callable[[int], Stage], precision: torch.dtype, processes: int = 1) -> int:
        """Of a stage, as many as fit into its share of what is left."""
        if name not in self.decided:
            stage = make_stage(MOST)
            seconds = _seconds_a_step(stage, precision, processes)
            share = 60 * self.config.minutes * FRAMES if name == "frames" else SHARES[name] * self.left()
            fitting = int(share / seconds)
            self.note(name, min(max(fitting, FEWEST), MOST))
            if name == "state":  # rounds train as fast
                fitting = int(TRAINED_ON * (self.left() - seconds * self.decided[name]) / ROUNDS / seconds)
                self.note("steps_a_round", min(max(fitting, FEWEST), MOST))
            print(f"{name}: {self.decided[name]} steps of {seconds:.2f} s; {self.left() / 60:.1f} minutes are left")
        return self.decided[name]


def _train(config: New, out: Path, dataset: str, plan: Plan) -> RecurrentTraining:
    """Tokenizer, dynamics and recurrent state, whose training is returned."""
    about: dict[str, Any] = {"dataset": dataset, "seed": config.seed, "device": config.device}
    base = None if config.base == "none" else config.base
    tokenizer = TokenizerTraining(out=out / "tokenizer", begin_from=base, tokenizer=config.tokenizer, **about)
    device = pick_device(config.device)

    def of(training: Any, steps: int) -> Any:
        return replace(training, steps=steps, evaluate_every=max(steps // 5, 1))

    steps = plan.steps("tokenizer", lambda most: TokenizerStage(of(tokenizer, most), device), torch.bfloat16)
    train_tokenizer(of(tokenizer, steps))

    shared = 2 if device.type == "cpu" and config.workers > 1 else 1
    data = load_episodes(dataset)
    fitting = _fitting(config.dynamics, np.diff(data.starts)[data.split("train")] - 1, plan)
    dynamics = DynamicsTraining(
        tokenizer=tokenizer.out, out=out / "world", begin_from=base, processes=shared, dynamics=fitting, **about
    )
    steps = plan.steps("dynamics", lambda most: DynamicsStage(of(dynamics, most), device), torch.bfloat16, shared)
    train_dynamics(of(dynamics, steps))

    seeing = base if base is not None and load_config(find_world(base))[0].recurrent is not None else None
    state = RecurrentTraining(
        world=str(dynamics.out), out=out / "state", begin_from=seeing, looks=False, recurrent=config.recurrent, **about
    )
    steps = plan.steps("state", lambda most: RecurrentStage(of(state, most), device), torch.float32)
    train_recurrent_state(of(state, steps))
    return of(state, steps)


def _improved(config: New, out: Path, trained: RecurrentTraining, plan: Plan) -> Path:
    """Rounds of acting by plans and training on, until the time is over; returns the world's folder."""
    asked = Improve(
        str(trained.out), trained.dataset, out / "improved", real_steps=min(max(int(100 * config.minutes), 1), 4000),
        steps=plan.decided["steps_a_round"], learning_rate=trained.learning_rate / 2, looks=False, seed=config.seed,
        device=config.device, **PLANNED,
    )  # fmt: skip
    number, longest = 0, 0.0
    while "rounds" not in plan.decided and number < 2 * ROUNDS and (number == 0 or longest < plan.left()):
        began = time.monotonic()
        number += 1
        improve_in_rounds(replace(asked, rounds=number))
        longest = max(longest, time.monotonic() - began)
    newest = out / "improved" / f"round{plan.note('rounds', number)}"
    with replacing(out / "planned") as folder:
        shutil.copytree(newest, folder, dirs_exist_ok=True)
    return out / "planned"


def _drawn(config: New, out: Path, dataset: str, planned: Path, plan: Plan) -> Path:
    """The same world, drawing from its state; returns its folder."""
    frames = FramesTraining(dataset, str(planned), out / "drawn", processes=1, seed=config.seed, device=config.device)
    device = pick_device(config.device)
    steps = plan.steps("frames", lambda most: FramesStage(replace(frames, steps=most), device), torch.bfloat16)
    return train_frames(replace(frames, steps=steps, evaluate_every=max(steps // 2, 1)))


def _fitting(dynamics: DynamicsConfig, lengths: np.ndarray, plan: Plan) -> DynamicsConfig:
    """The same, with a window that three quarters of the episodes have, whose steps are `lengths`."""
    longest = max(2, int(np.quantile(lengths, 0.25)) - dynamics.lead)
    window = plan.note("window", min(dynamics.window, longest))
    return replace(dynamics, window=window, memory=min(dynamics.memory, window // 2 + 1))


def _held_out_steps(data: Episodes, observed: int) -> int:
    """That four episodes of the test split have behind the frames that a dream begins from, 16 at most."""
    lengths = np.sort(np.diff(data.starts)[data.split("test")] - 1)
    return max(1, min(16, int(lengths[-4]) - observed + 1))


def _episode(asked: RecordConfig, record: Callable[[RecordConfig], Path]) -> tuple[float, float]:
    """How long an episode takes one process, in seconds, and how many steps it has."""
    stem, _, version = asked.dataset.rpartition("-v")
    trial, seconds, steps = replace(asked, dataset=f"{stem}-trial-v{version}", workers=1), [], 0.0
    for episodes in TRIED:
        if get_dataset_path(trial.dataset).exists():  # of a killed run
            delete_dataset(trial.dataset)
        began = time.monotonic()
        record(replace(trial, episodes=episodes))
        seconds.append(time.monotonic() - began)
        steps = load_dataset(trial.dataset).total_steps / episodes
        delete_dataset(trial.dataset)
    return max(seconds[1] - seconds[0], 1e-3) / (TRIED[1] - TRIED[0]), steps


def _seconds_a_step(stage: Stage, precision: torch.dtype, processes: int) -> float:
    """Of a stage whose batches are shared by processes, which share the cores."""
    threads, seconds = torch.get_num_threads(), []
    torch.set_num_threads(max(1, threads // processes))
    device = next(stage.model.parameters()).device
    for share in (0.0, *np.linspace(0.0, 0.95, TIMED)):  # the very first is slow, and not counted
        began, batch = time.monotonic(), stage.draw(int(share * MOST), 0, processes)
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            loss = stage.model(*batch)["loss"]
        loss.backward()
        stage.model.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.monotonic() - began)
    torch.set_num_threads(threads)
    return float(np.mean(seconds[1:]))
