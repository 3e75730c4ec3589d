"""The rounds of `worldgym improve`: an agent learns in the dream, it and a planner act, what they did is judged and
trained on.

A round's figures are of episodes that the world had not seen: the returns of those without bursts, what the dream pays
the agent from their first frames, and how the rewards of all of them correlate with what was imagined eight steps
before.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gymnasium as gym
import minari
import numpy as np
import torch
from minari.data_collector import EpisodeBuffer
from minari.storage import get_dataset_path
from tqdm import tqdm

from ..agents.actor_critic import STATES, ActorCritic, check_recurrent, recorded_states
from ..agents.observers import SeeAlone
from ..data import load_episodes
from ..envs_real.twins import twin_of
from ..episodes import EpisodeFormat
from ..errors import UserError
from ..evaluate.rollout import Policy
from ..files import alone, replacing
from ..listing import find_world
from ..metrics import bootstrap, correlation
from ..planners.mpc import MPC
from ..planners.planning import make_policy
from ..results import current_commit, write_results
from ..storage import write_dataset
from ..train.checkpoints import check_settings
from ..train.recurrent_state import train_recurrent_state
from ..train.settings import RecurrentTraining
from ..world import WorldModel
from .improve_report import returned, write_report
from .improve_settings import Improve

BURST = 0.08
"""Probability that a step of an exploring episode begins a burst of random actions."""
LONGEST_BURST = 6
AHEAD = 8
"""Steps that what was foreseen is judged over."""
BEST = "best"
"""Folder of the agent that earned most on the twin, in episodes that the budget counts, and of the world in whose dream
it learned: after more of that, what it does may be worth less in truth."""
SEEN = 8
"""Frames that it is foreseen from."""


def improve_in_rounds(config: Improve) -> dict[str, Any]:
    """Until `config.rounds`; returns what `rounds.json` holds."""
    out = config.out or Path("runs/improve") / Path(config.world).name
    world = WorldModel.load(config.world, config.device)
    if world.recurrent is None:
        raise UserError(f"{world.config.name!r} has no recurrent state to improve; `worldgym train state` makes one")
    if config.updates:
        check_recurrent(world)
        if len(wanted := world.config.matching(config.instruction)) > 1:
            raise UserError(f"an agent learns one instruction, and --instruction names {len(wanted)}")
    twin = twin_of(world.config)
    if len(world.config.instructions) > 1 and not hasattr(twin.unwrapped, "all_rewards"):
        raise UserError(f"{world.config.twin} does not say what a step is worth by each of the world's instructions")
    out.mkdir(parents=True, exist_ok=True)
    with alone(out / ".lock", f"improving into {out}"):
        rounds = _begun(config, out)
        for number in range(len(rounds), config.rounds):
            current = str(out / f"round{number}") if number else config.world
            found = _round(config, out, number + 1, current, twin)
            found["real_steps"] += rounds[-1]["real_steps"] if rounds else 0
            rounds.append(found)
            _say(found)
            if config.updates and found["agent"]["mean_return"] >= max(one["agent"]["mean_return"] for one in rounds):
                _keep(Path(find_world(current)), out, number + 1)
            # More rounds may be asked for later; anything else has to stay.
            asked = {name: value for name, value in asdict(config).items() if name not in ("out", "rounds")}
            metrics = {"improving": asked, "rounds": rounds}
            write_results(out / "rounds.json", config.seed, metrics, current_commit())
            write_report(out, world.config.name, rounds, _data_set(config, out, number + 1))
            if number > 1:
                shutil.rmtree(out / f"round{number - 1}", ignore_errors=True)
    twin.close()
    newest, figures, report = (out / name for name in (f"round{config.rounds}", "rounds.json", "index.html"))
    print(f"the world is in {newest}, its figures in {figures}; report: {report}")
    if config.updates:
        print(f"the agent that its own episodes spoke for is in {out / BEST}, with the world that it learned in")
    return {"rounds": rounds}


def _keep(world: Path, out: Path, number: int) -> None:
    """The agent of a round, and the world that it learned in, as the best so far."""
    with replacing(out / BEST) as folder:
        shutil.copytree(world, folder, dirs_exist_ok=True)
        shutil.copy(out / f"agent{number}.safetensors", folder / "agent.safetensors")


def _begun(config: Improve, out: Path) -> list[dict[str, Any]]:
    """The rounds that an earlier run finished; a UserError if it was of other settings."""
    path = out / "rounds.json"
    if not path.exists():
        return []
    found = json.loads(path.read_text(encoding="utf-8"))["metrics"]
    check_settings(out, found["improving"], config)
    return found["rounds"]


def _data_set(config: Improve, out: Path, number: int) -> str:
    recording = config.dataset.rpartition("-v")[0] or config.dataset
    return f"improve/{recording.rpartition('/')[2]}-{out.name}-{number}-v0"


def _lived(name: str, out: Path) -> bool:
    """Whether this run has written the data set already; a UserError if another run did."""
    if not get_dataset_path(name).exists():
        return False
    if (run := minari.load_dataset(name).storage.metadata.get("run")) != str(out.resolve()):
        raise UserError(
            f"{name} holds what the run in {run} did. `minari delete {name}` deletes it, or choose an --out whose last "
            "part is another"
        )
    return True


def _round(config: Improve, out: Path, number: int, current: str, twin: gym.Env) -> dict[str, Any]:
    """Act in the current world's dream, and train it on."""
    world, name = WorldModel.load(current, config.device), _data_set(config, out, number)
    layout = EpisodeFormat(
        world.config.tokenizer.resolution, world.config.action_size, world.config.instructions,
        actions=world.config.actions,
    )  # fmt: skip
    agent = _learned(config, out, world, number) if config.updates else None
    if not _lived(name, out):
        acted, what = _acted(config, world, twin, number, agent), f"what it did in {world.config.name}"
        about = {"seed": config.seed, "run": str(out.resolve())}
        who = "CEM in the recurrent state" + (", and an actor that learned in it" if agent else "")
        write_dataset(name, acted, layout, who, what, about=about)
    limit = twin.spec.max_episode_steps if twin.spec is not None else None
    found = _judged(world, name, number, agent, min(config.longest, limit or config.longest))
    lived = tuple(_data_set(config, out, one) for one in range(1, number + 1))
    assert world.config.recurrent is not None
    train_recurrent_state(
        RecurrentTraining(
            config.dataset, current, out / f"round{number}", lived,
            fresh=False, looks=config.looks, steps=config.steps, learning_rate=config.learning_rate,
            seed=config.seed + number, evaluate_every=config.steps, device=config.device,
            recurrent=world.config.recurrent,
        )
    )  # fmt: skip
    return found


def _learned(config: Improve, out: Path, world: WorldModel, number: int) -> ActorCritic:
    """The agent of a round: the one before, after further updates in the world as it is now."""
    path, [instruction] = out / f"agent{number}.safetensors", world.config.matching(config.instruction)
    if path.exists():
        return ActorCritic.load(path, world)
    if number > 1:
        agent = ActorCritic.load(out / f"agent{number - 1}.safetensors", world)
    else:
        torch.manual_seed(config.seed)
        agent = ActorCritic(world, instruction, config.discount).to(world.device)
    states = [recorded_states(world, config.dataset, instruction, config.seed)]
    for one in range(1, number):  # half of them are of what was lived
        states.append(recorded_states(world, _data_set(config, out, one), instruction, count=STATES // (number - 1)))
    agent.learn(torch.cat(states), number * config.updates, config.seed)
    agent.save(path)
    return agent


def _acted(
    config: Improve, world: WorldModel, twin: gym.Env, number: int, agent: ActorCritic | None
) -> Iterator[EpisodeBuffer]:
    """Episodes on the twin; the second, the fourth and so on with bursts of random actions. Of an agent, if there is
    one, are the third and the fourth, the seventh and the eighth, and so on."""
    asked, wanted = config.planning(), world.config.matching(config.instruction)
    index = taken = 0
    with tqdm(total=config.real_steps, desc=f"round {number}: acting on the twin", unit="step") as progress:
        while taken < config.real_steps or index < (2 if agent is None else 4):
            random = np.random.default_rng([config.seed, number, index])
            instruction = wanted[random.integers(len(wanted))]
            seed = int(random.integers(2**31))
            if agent is not None and index % 4 > 1:
                policy: Policy = SeeAlone(agent, world, "state")
            else:
                policy = make_policy(asked, world, twin, instruction, seed)
            assert isinstance(policy, (MPC, SeeAlone))
            acted = _episode(world, twin, policy, instruction, random, config.longest, explores=bool(index % 2))
            progress.update(len(acted.actions))
            index, taken = index + 1, taken + len(acted.actions)
            yield acted


def _episode(
    world: WorldModel,
    twin: gym.Env,
    policy: MPC | SeeAlone,
    instruction: str,
    random: np.random.Generator,
    longest: int,
    explores: bool,
) -> EpisodeBuffer:
    codec, several = world.config.codec, len(world.config.instructions) > 1
    frame, info = twin.reset(seed=int(random.integers(2**31)), options={"instruction": instruction})
    frames, actions, left, over = [frame], [], 0, False
    judged = [_worth(twin, several, 0.0, info["success"], False)]
    while not over:
        action = policy(frame)
        if explores and left == 0 and random.random() < BURST:
            left, burst = int(random.integers(1, LONGEST_BURST + 1)), codec.snap(random.uniform(-1, 1, codec.size))
        if left:
            left -= 1
            action = policy.instead(burst.astype(np.float32))
        frame, reward, terminated, truncated, info = twin.step(action)
        frames.append(frame)
        actions.append(codec.encode(action))
        judged.append(_worth(twin, several, float(reward), bool(info["success"]), bool(terminated)))
        over = terminated or truncated or len(actions) == longest
    rewards, successes, terminations = (np.stack(part) for part in zip(*judged, strict=True))
    plain = np.full(len(frames), not explores)
    by_agent = np.full(len(frames), isinstance(policy, SeeAlone))
    return EpisodeBuffer(
        observations=np.stack(frames), actions=np.stack(actions),
        rewards=rewards[1:, world.config.instructions.index(instruction)].astype(np.float64).tolist(),
        terminations=[False] * len(actions), truncations=[False] * (len(actions) - 1) + [True],
        infos={
            "rewards": rewards, "successes": successes, "terminations": terminations, "plain": plain,
            "by_agent": by_agent,
        },
    )  # fmt: skip


def _worth(twin: gym.Env, several: bool, reward: float, success: bool, over: bool) -> tuple[np.ndarray, ...]:
    """Rewards [m], successes [m] and terminations [m] of the newest frame, by each instruction."""
    if several:
        rewards, successes = twin.unwrapped.all_rewards()  # type: ignore[attr-defined]
        return np.asarray(rewards, np.float32), np.asarray(successes, bool), np.asarray(successes, bool)
    return np.array([reward], np.float32), np.array([success]), np.array([over])


@torch.no_grad()
def _judged(world: WorldModel, name: str, number: int, agent: ActorCritic | None, longest: int) -> dict[str, Any]:
    """What the episodes of a data set are worth, and how true what the world foresees of them is; of an agent also what
    `longest` steps are worth in the dream."""
    data, stored = load_episodes(name), minari.load_dataset(name)
    plain = [one for one in stored.iterate_episodes() if one.infos["plain"][0]]
    instructions = world.read_instructions(list(data.instructions))
    said, true = [], []
    assert world.recurrent is not None
    for start, end in zip(data.starts[:-1], data.starts[1:], strict=True):
        for newest in range(start, end - AHEAD, AHEAD):
            first = max(start, newest - SEEN + 1)
            state = world.observe(data.frames[None, first : newest + 1], data.actions[None, first:newest])
            ahead = torch.from_numpy(np.array(data.actions[newest : newest + AHEAD]))[None].to(world.device)
            states = world.recurrent.imagine(state, ahead)
            said.append(world.recurrent.heads(states, instructions).reward[0, -1].cpu().numpy())
            true.append(data.rewards[newest + AHEAD])
    found = {
        "round": number,
        "real_steps": int(len(data.frames) - len(data.starts) + 1),
        **_returns([one for one in plain if not one.infos["by_agent"][0]]),
        "reward_correlation_8": correlation(np.concatenate(said), np.concatenate(true)) if said else None,
    }
    if agent is None:
        return found
    acted = [one for one in plain if one.infos["by_agent"][0]]
    dreamed = _dreamed(world, agent, np.stack([one.observations[0] for one in acted]), longest)
    return found | {"agent": {**_returns(acted), "dreamed_return": dreamed}}


def _returns(episodes: list[minari.EpisodeData]) -> dict[str, Any]:
    totals = np.array([float(np.sum(one.rewards)) for one in episodes])
    return {
        "episodes": len(totals),
        "mean_return": float(totals.mean()),
        "return_interval": bootstrap(np.mean, totals),
    }


def _dreamed(world: WorldModel, agent: ActorCritic, frames: np.ndarray, steps: int) -> float:
    """What an agent earns on average in dreams from these first frames, uint8 [n, h, w, 3], by their own account."""
    likeliest = torch.zeros(steps, len(frames), world.config.action_size, device=world.device)
    made = agent.imagine(world.observe(frames[:, None]), likeliest)
    going_on = (made.alive > 0.5).float().cumprod(0)
    reached = torch.cat([torch.ones_like(going_on[:1]), going_on[:-1]])
    return float((reached * made.rewards).sum(0).mean())


def _say(found: dict[str, Any]) -> None:
    truth = found["reward_correlation_8"]
    print(
        f"round {found['round']}: return {returned(found)} in {found['episodes']} "
        f"episodes by the world so far; rewards eight steps ahead correlate by "
        f"{'nothing' if truth is None else format(truth, '.3f')}; {found['real_steps']} real steps in all"
    )
    if (agent := found.get("agent")) is not None:
        print(
            f"  its agent: return {returned(agent)} in {agent['episodes']} episodes, "
            f"{agent['dreamed_return']:.2f} in the dream"
        )
