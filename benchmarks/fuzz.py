"""Make random calls on dreams, valid and invalid ones, and check the invariants after each of them.

    .venv/bin/python benchmarks/fuzz.py --calls 200000 --json benchmarks/results/fuzz.json
    .venv/bin/python benchmarks/fuzz.py --calls 0 --kills 100 --json benchmarks/results/kills.json

A session has one environment in one of its modes, on a tiny world of tests/conftest.py: the single dream, the batch in
each autoreset mode, or Stable-Baselines3's. It makes random calls: steps, resets, snapshots, forks, pickles, changes of
the instruction, and calls that must be refused: bad actions, seeds, frames, options, masks, snapshots. Session i
depends on the seed and i alone, so `--only i` repeats it. The kills are those of kills.py.
"""

import importlib.util
import pickle
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode
from kills import KillsConfig, kill_commands
from section import Results, Section, made_by

import worldgym  # noqa: F401  registers the environments
from worldgym.checks.report import bad_actions, global_randomness
from worldgym.config import RecurrentConfig
from worldgym.env import DreamEnv, DreamVectorEnv
from worldgym.results import current_commit, write_results
from worldgym.sb3 import DreamVecEnv
from worldgym.spaces import ACTION_MODES

SESSION = 250
"""Calls of a session."""
LIMIT = 5
"""Steps of an episode."""
GOALS = ("reach the centre", "push the red block to the centre")
REFUSALS = (ValueError, TypeError, gym.error.ResetNeeded)


@dataclass(frozen=True)
class Config:
    """Call dreams at random, and report what broke."""

    calls: int = 200_000
    kills: int = 0
    """How many times to kill a command at a random moment: recordings, trainings and exports in turn."""
    seed: int = 0
    only: int | None = None
    """The one session to play, instead of `calls`."""
    json: Path | None = None
    """Write the figures here, with command, commit and hardware."""


class Broken(AssertionError):
    """Something that must hold does not."""


def hold(condition: bool, otherwise: str) -> None:
    if not condition:
        raise Broken(otherwise)


class Session:
    """One environment, and the calls that are made on it."""

    def __init__(self, worlds: dict[str, str], random: np.random.Generator):
        self.random, self.log, self.calls = random, [], Counter()
        self.kind = str(random.choice(["single", "batch", "sb3"]))
        mode = str(random.choice(["vector", "discrete"] if self.kind == "sb3" else ACTION_MODES))
        self.options: dict[str, Any] = {
            "action_mode": mode,
            "obs_type": str(random.choice(["pixels", "latent", "both"])),
            "reward": [lambda: "learned", lambda: GOALS[1], self._goal, lambda: brightness][random.integers(4)](),
            "instruction": [None, *GOALS][random.integers(3)],
            "device": "cpu",
        }
        name = str(random.choice(list(worlds)))
        if name == "imagined":
            seen = str(random.choice(["pixels", "state"]))
            self.options |= {"imagined": True, "obs_type": seen, "action_mode": "vector"}
            if isinstance(self.options["reward"], np.ndarray):
                self.options["reward"] = "learned"
        else:
            self.options |= {
                "temperature": float(random.choice([0.0, 1.0])),
                "max_uncertainty": [None, 2.5][random.integers(2)],
                "uncertainty_penalty": float(random.choice([0.0, 0.5])),
            }
        world, self.count = worlds[name], 1 if self.kind == "single" else int(random.integers(1, 4))
        match self.kind:
            case "single":
                self.env: Any = DreamEnv(world, **self.options)
                self.mode = None
            case "batch":
                self.mode = AutoresetMode(random.choice([m.value for m in AutoresetMode]))
                self.env = DreamVectorEnv(world, self.count, LIMIT, self.mode, **self.options)
            case "sb3":
                self.mode = AutoresetMode.SAME_STEP
                self.env = DreamVecEnv("worldgym/Dream-v0", self.count, LIMIT, world=world, **self.options)
        self.single = getattr(self.env, "single_action_space", self.env.action_space)
        self.single.seed(int(random.integers(2**31)))
        self.world, self.begun = name, False

    def __str__(self) -> str:
        shown = {name: value for name, value in self.options.items() if name != "reward"}
        return (
            f"{self.kind} x {self.count} of {self.world}, {self.mode}, {shown}, reward {self.options['reward']!r:.40}"
        )

    def play(self, calls: int) -> None:
        """Make this many calls; a `Broken` or any other error is a finding."""
        names = [name for name, share in CALLS.items() for _ in range(share)]
        noise = global_randomness()
        while self.calls.total() < calls:
            name = str(self.random.choice(names))
            self.log.append(name)
            getattr(self, name)()
        hold(global_randomness() == noise, "a global generator was used")

    # -- what is called ---------------------------------------------------------------------------------------------

    def good_step(self) -> None:
        if not self.begun:
            return self._refused(lambda: self.env.step(self._actions()))
        self._wake()
        self.calls["step"] += 1
        clocks = self.env.dreams.elapsed.copy()
        self._check_step(self.env.step(self._actions()))
        now = self.env.dreams.elapsed
        hold(bool(((now == clocks + 1) | (now == 0)).all()), f"an action took clocks from {clocks} to {now}")

    def bad_step(self) -> None:
        before = self._now()
        good = [self.single.sample() for _ in range(self.count)]
        bad = list(bad_actions(self.single))
        value = bad[self.random.integers(len(bad))][1]
        if self.kind == "single":
            return self._refused(lambda: self.env.step(value), before)
        wrong = [[*good[:-1], value], good[:-1], [*good, good[0]], None][self.random.integers(4)]
        self._refused(lambda: self.env.step(wrong), before)

    def good_reset(self) -> None:
        options = {}
        if self.random.random() < 0.3:
            options["frames"] = self._frames(2)
            options["actions"] = self.random.uniform(-1, 1, (1, 2)).astype(np.float32)
        if self.random.random() < 0.3:
            options["instruction"] = GOALS[self.random.integers(2)]
        seed = [None, int(self.random.integers(2**40)), np.int64(self.random.integers(99))][self.random.integers(3)]
        self.calls["reset"] += 1
        if self.kind == "sb3":
            self.env.seed(None if seed is None else int(seed))
            self.env.set_options(options or None)
            self._check_seen(self.env.reset())
        else:
            if self.mode is AutoresetMode.DISABLED and self.begun and self.random.random() < 0.5:
                options["reset_mask"] = np.arange(self.count) <= self.random.integers(self.count)
            observation, info = self.env.reset(seed=seed, options=options)
            self._check_seen(observation)
            self._check_info(info)
            if seed is not None and "reset_mask" not in options:
                known = int(seed) if self.kind == "single" else tuple(int(seed) + row for row in range(self.count))
                found = self.env.np_random_seed
                hold(found == known, f"np_random_seed is {found} after a reset by {known}")
        self.begun = True

    def bad_reset(self) -> None:
        before = self._now()
        bad: list[dict[str, Any]] = [
            {"colour": "red"}, {"instruction": "fly"}, {"frames": self._frames(1)[:, ::2]},
            {"frames": self._frames(1) / 255.0}, {"frames": self._frames(2)}, {"frames": self._frames(0)},
            {"actions": np.zeros((1, 2), np.float32)},
            {"frames": self._frames(2), "actions": np.full((1, 2), np.nan, np.float32)},
        ]  # fmt: skip
        options = bad[self.random.integers(len(bad))]
        if self.kind == "sb3":
            self.env.set_options(options)
            self._refused(self.env.reset, before)
            return self.env.set_options()
        if self.kind == "batch" and self.random.random() < 0.3:
            masks = (np.zeros(self.count, bool), [True] * self.count, np.ones(self.count + 1, bool), np.ones(2, int))
            options = {"reset_mask": masks[self.random.integers(4)]}
        seed = [0, -1, 1.5, "1"][self.random.integers(4)]
        self._refused(lambda: self.env.reset(seed=seed, options=options), before)

    def restored(self) -> None:
        """A restored dream continues exactly: in the same environment, in a fork and out of a pickle."""
        if not self.begun:
            return self._refused(self.env.snapshot)
        self._wake()
        blob, places = self.env.get_state(), [self.env, self.env.fork()]
        if not callable(self.options["reward"]) or self.options["reward"] is brightness:
            places.append(pickle.loads(pickle.dumps(self.env)))
        steps = [self._actions() for _ in range(int(self.random.integers(1, 4)))]
        if self.mode is AutoresetMode.DISABLED:
            steps = steps[:1]  # then some may have ended
        self.calls["step"] += (1 + len(places)) * len(steps)
        self.calls |= {name: self.calls[name] + 1 for name in ("snapshot", "restore", "fork")}
        self.calls["pickle"] += len(places) > 2
        expected = [plain(self.env.step(deepcopy(actions))) for actions in steps]
        self.env.set_state(blob)
        hold(self.env.snapshot() == blob, "another snapshot just after restore")
        for place in places:
            found = [plain(place.step(deepcopy(actions))) for actions in steps]
            hold(data_equivalence(found, expected, exact=True), "another future after restore, fork or pickle")

    def forked(self) -> None:
        """Steps of several copies do not change their parent."""
        if not self.begun:
            return
        self._wake()
        blob = self._now()
        self.calls["fork"] += 1
        copies = self.env.fork(2)
        several = [self.single.sample() for _ in range(2 * self.count)]
        copies.step(np.stack(several) if isinstance(several[0], np.ndarray) else several)
        hold(self.env.snapshot() == blob, "a fork changed its parent")
        self._refused(lambda: self.env.fork(0), blob)

    def bad_restore(self) -> None:
        before = self._now()
        blob = before or b""
        spoilt = [
            b"",
            b"nonsense",
            blob[:-7],
            blob[: len(blob) // 2],
            blob + b"x",
            blob.replace(b'"over"', b'"under"', 1),
        ]
        self._refused(lambda: self.env.restore(spoilt[self.random.integers(len(spoilt))]), before)

    def instructed(self) -> None:
        goal = GOALS[self.random.integers(2)]
        before = self._now()
        self.calls["instruct"] += 1
        if self.kind == "single":
            self._refused(lambda: setattr(self.env, "instruction", "fly"), before)
            self.env.instruction = goal
            return hold(self.env.instruction == goal, "the instruction was not set")
        self._refused(lambda: self.env.set_attr("instruction", "fly"), before)
        self.env.set_attr("instruction", goal)
        hold(set(self.env.get_attr("instruction")) == {goal}, "the instruction was not set")

    def looked(self) -> None:
        if not self.begun:
            return
        before = self._now()
        self.calls["render"] += 1
        frames = self.env.get_images() if self.kind == "sb3" and self.env.render_mode else None
        frames = [self.env.render()] if self.kind == "single" else self.env.render() if self.kind == "batch" else frames
        for frame in frames or ():
            hold(frame.shape == (64, 64, 3) and frame.dtype == np.uint8, f"a frame is {frame.dtype} {frame.shape}")
        hold(self.env.snapshot() == before, "looking changed the dream")

    # -- what must hold ---------------------------------------------------------------------------------------------

    def _check_step(self, result: tuple) -> None:
        if self.kind == "sb3":
            observation, rewards, dones, infos = result
            flags, cut = [dones], np.array([info["TimeLimit.truncated"] for info in infos])
            for index, info in enumerate(infos):
                hold(("terminal_observation" in info) == dones[index] == ("episode" in info), "the infos of an end")
                hold(not cut[index] or bool(dones[index]), "cut, and not done")
                hold(not dones[index] or 1 <= info["episode"]["l"] <= LIMIT, "the length of an episode")
            info = {key: [row[key] for row in infos] for key in infos[0].keys() & KNOWN}
        else:
            observation, rewards, terminated, truncated, info = result
            flags = [terminated, truncated]
            self._check_info(info)
            if self.kind == "single":
                types = [type(rewards), type(terminated), type(truncated)]
                hold(types == [float, bool, bool], f"reward and ends are {types}")
        self._check_seen(observation)
        hold(bool(np.isfinite(rewards).all()), f"rewards are {rewards}")
        hold(np.ndim(rewards) == 0 or all(part.shape == (self.count,) for part in (rewards, *flags)), "their shapes")
        frames = np.asarray(info["num_frames"])
        hold(bool(((frames >= 0) & (frames <= 3)).all()), f"num_frames is {frames}")
        elapsed = self.env.dreams.elapsed
        hold(self.kind == "single" or bool((elapsed <= LIMIT).all()), f"{elapsed} steps, of at most {LIMIT}")

    def _check_seen(self, observation: Any) -> None:
        space = self.env.observation_space
        if self.kind != "sb3":
            return hold(space.contains(observation), "the observation is not in its space")
        for index in range(self.count):
            one = (
                {key: part[index] for key, part in observation.items()}
                if isinstance(observation, dict)
                else observation[index]
            )
            hold(space.contains(one), "an observation is not in its space")

    def _check_info(self, info: dict[str, Any]) -> None:
        names = set(self.env.dreams.first_info)
        masks = {f"_{name}" for name in names} if self.kind == "batch" else set()
        found = set(info) - {"final_obs", "_final_obs", "final_info", "_final_info"}
        hold(found == names | masks, f"infos are {sorted(found)}")
        typed = names - {"action_reason"}  # a text, of which Gymnasium's vector environments make objects
        hold(all(np.asarray(info[name]).dtype.kind != "O" for name in typed), "an info is an array of objects")

    def _refused(self, call: Callable[[], Any], before: bytes | None = None) -> None:
        """The call must be refused with a message, and change nothing."""
        try:
            self.calls["refused"] += 1
            call()
        except REFUSALS as error:
            hold(len(str(error)) > 10, f"{type(error).__name__} says only {error}")
        else:
            raise Broken("it was accepted")
        if before is not None:
            hold(self._now() == before, "it was refused, but changed the dream")

    # -- parts ------------------------------------------------------------------------------------------------------

    def _now(self) -> bytes | None:
        self.calls["snapshot"] += self.begun
        return self.env.snapshot() if self.begun else None

    def _wake(self) -> None:
        """Reset dreams that have ended, in the modes that do not reset by themselves."""
        over = self.env.dreams.over
        if self.mode is AutoresetMode.DISABLED and over.any():
            self._refused(lambda: self.env.step(self._actions()))
            self.env.reset(options={"reset_mask": over.copy()})
        elif self.mode is None and over.any():
            self.env.reset()

    def _actions(self) -> Any:
        if self.kind == "single":
            return self.single.sample()
        actions = [self.single.sample() for _ in range(self.count)]
        if not isinstance(actions[0], (np.ndarray, np.integer)):
            return tuple(actions)
        given = np.stack(actions)
        return torch.from_numpy(given) if self.random.random() < 0.2 else given

    def _frames(self, count: int) -> np.ndarray:
        return self.random.integers(0, 256, (count, 64, 64, 3), np.uint8)

    def _goal(self) -> np.ndarray:
        return self._frames(1)[0]


CALLS = {
    "good_step": 4, "bad_step": 4, "good_reset": 2, "bad_reset": 3, "restored": 1, "forked": 1, "bad_restore": 3,
    "instructed": 2, "looked": 2,
}  # fmt: skip
"""The weight of each call."""
KNOWN = {"success", "uncertainty", "too_uncertain", "num_frames", "action_ok", "action_reason"}


def brightness(frames: np.ndarray) -> np.ndarray:
    """A reward that is a function of frames."""
    return frames.mean((1, 2, 3)) / 255


def plain(result: tuple) -> tuple:
    """What a step returned, without the seconds of Stable-Baselines3's episodes."""
    if not isinstance(result[-1], list):
        return deepcopy(result)
    infos = [{key: value for key, value in info.items() if key != "episode"} for info in result[-1]]
    return deepcopy((*result[:-1], infos))


def make_worlds(folder: Path) -> dict[str, str]:
    """Tiny worlds of each kind, by name: their paths."""
    tests = _conftest()
    plain = tests.tiny_world()
    config = replace(plain.config, recurrent=RecurrentConfig(width=16, embedding=16, head_width=16, channels=(4, 4, 4)))
    worlds = {
        "plain": (tests.tiny_world(), False), "ending": (tests.tiny_world(), True),
        "memory": (tests.tiny_world(memory=3), False), "prompt": (tests.tiny_world(memory=2, prompt=2), False),
        "queries": (tests.tiny_world("queries"), False),
        "imagined": (type(plain)(config, plain.text).eval().requires_grad_(False), False),
    }  # fmt: skip
    return {name: str(tests.write_world(folder / name, *made)) for name, made in worlds.items()}


def _conftest() -> ModuleType:
    path = Path(__file__).resolve().parent.parent / "tests" / "conftest.py"
    spec = importlib.util.spec_from_file_location("worldgym_tests", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sessions(config: Config) -> Iterator[tuple[int, int]]:
    """(number, calls) of each session."""
    if config.only is not None:
        yield config.only, SESSION
        return
    for number in range(-(-config.calls // SESSION)):
        yield number, min(SESSION, config.calls - number * SESSION)


def fuzz(config: Config) -> dict[str, Any]:
    """Play the sessions; prints and counts what broke."""
    calls, kinds, findings, began = Counter(), Counter(), [], time.perf_counter()
    with TemporaryDirectory() as folder:
        worlds = make_worlds(Path(folder))
        for number, count in sessions(config):
            session = Session(worlds, np.random.default_rng([config.seed, number]))
            try:
                session.play(count)
            except Exception as error:
                where = traceback.extract_tb(error.__traceback__)[-1]
                said = f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
                findings.append({"session": number, "about": str(session), "said": said, "calls": session.log[-6:]})
                print(f"session {number}, {session}: {said}; last calls {session.log[-6:]}", flush=True)
            calls += session.calls
            kinds[f"{session.kind} {session.options['action_mode']}"] += session.calls.total()
            if number % 40 == 39:
                print(
                    f"{calls.total()} calls, {len(findings)} findings, {time.perf_counter() - began:.0f} s", flush=True
                )
    return {
        "calls": calls.total(), "by_call": dict(calls), "by_kind": dict(sorted(kinds.items())),
        "findings": findings, "seconds": time.perf_counter() - began,
    }  # fmt: skip


def section(results: Results) -> list[str]:
    found = results["metrics"]["fuzz"]
    counts = found["by_call"]
    made = ", ".join(
        f"{counts[call]:,} {name}"
        for call, name in (
            ("step", "steps"), ("reset", "resets"), ("snapshot", "snapshots"), ("restore", "restores"),
            ("fork", "forks"), ("pickle", "pickles"), ("instruct", "changes of the instruction"),
            ("render", "pictures"), ("refused", "calls that have to be refused"),
        )
    )  # fmt: skip
    return [
        "Random calls on the single dream, the batch in each autoreset mode and Stable-Baselines3's, in every action "
        "and observation mode, on six tiny worlds. After each call the invariants are checked: spaces, infos, clocks "
        "and ends are right; a refused call changes nothing; a restore, a fork and a pickle continue exactly; a fork "
        "cannot change its parent.",
        "",
        f"**{found['calls']:,} calls, {len(found['findings'])} findings**: {made}.",
        "",
        made_by(results),
    ]


SECTION = Section(
    "Do random calls break a dream?",
    ("fuzz",),
    "python benchmarks/fuzz.py --json benchmarks/results/fuzz.json",
    section,
)


def main(config: Config) -> None:
    commit, metrics = current_commit(), {}
    if config.calls or config.only is not None:
        metrics["fuzz"] = fuzz(config)
        print(f"{metrics['fuzz']['calls']} calls, {len(metrics['fuzz']['findings'])} findings")
    if config.kills:
        metrics["kills"] = kill_commands(KillsConfig(config.kills, config.seed))
        print(f"{config.kills} kills, {len(metrics['kills']['findings'])} findings")
    if config.json is not None:
        write_results(config.json, config.seed, metrics, commit)
    if any(part["findings"] for part in metrics.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(tyro.cli(Config, description=__doc__))
