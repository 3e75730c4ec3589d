r"""Is a small recurrent state as true as the bundled world's own path, faster than MuJoCo, and good to plan in?

    python benchmarks/recurrent_state_bench.py tabletop --dataset worldgym/tabletop-v0 \
        --instruction "push the * to the centre" "push the * side" "push the * corner"
    python benchmarks/recurrent_state_bench.py reacher --dataset worldgym/reacher-v0 --shown 5 --single 0 \
        --horizon 8 --action-repeat 2 --replan-every 2
    python benchmarks/recurrent_state_bench.py hopper --dataset worldgym/hopper-v1 --shown 2 --single 0 \
        --horizon 12 --action-repeat 2 --replan-every 2

The world's tokenizer reads every frame of the recording into a fused map, once; the state (recurrent_state.py) learns
from those maps; then both predict the same held-out stretches, roll out by turns with MuJoCo, and are planned in by
the same CEM. A run that was killed continues from its last checkpoint by the same command. It prints its tables.
"""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
import tyro
from jaxtyping import Float
from recurrent_state import RecurrentState, StateConfig, Window
from section import markdown
from torch import Tensor, nn
from tqdm import tqdm

from worldgym.bench import by_turns
from worldgym.data import Episodes, Segment, load_episodes, sample_rows, segments_at
from worldgym.errors import UserError
from worldgym.evaluate.rollout import play
from worldgym.files import alone, check_room
from worldgym.metrics import correlation, psnr
from worldgym.model.outcome_heads import OutcomeVotes, returns_until_end
from worldgym.model.pixels import to_float, to_uint8
from worldgym.planners import CEM, MPC
from worldgym.planners.planning import plan_and_act
from worldgym.planners.settings import Planning
from worldgym.train.loop import schedule
from worldgym.world import WorldModel

TILE = 256
"""Futures rolled out at a time: what they need stays in the processor's cache."""
NEAR = 4
"""Steps within which one of the drawn frames lies, since planning needs the first steps most."""
DRAWN = 3
"""Frames of each stretch whose maps are drawn in full."""
SAMPLED = 3000
"""Maps that means and principal components are taken from."""
SAVE_EVERY = 250
TOKENS, DRAFT = "the world, token by token", "the world's draft"


@dataclass(frozen=True)
class Experiment:
    """Train a recurrent state on a recording and compare it with the bundled world."""

    world: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="WORLD")] = "tabletop"
    """A world with a twin; its tokenizer makes the maps."""
    dataset: str = "worldgym/tabletop-v0"
    state: StateConfig = field(default_factory=StateConfig)
    updates: int = 3000
    batch: int = 64
    learning_rate: float = 1e-3
    observed: int = 8
    """Frames of a stretch that training shows at most, and that a decision is grounded on."""
    single: float = 0.5
    """Share of the stretches that show one frame only; 0 where a single frame tells no speed."""
    ahead: int = 32
    """Open-loop steps in the second half of the training; half of them in the first, a quarter in its first tenth."""
    seed: int = 0
    shown: int = 1
    """Frames that the held-out stretches show."""
    at: tuple[int, ...] = (1, 2, 4, 8, 12, 16)
    """Steps that the table of held-out stretches shows; they are as long as the last."""
    stretches: int = 160
    """Held-out ones."""
    futures: tuple[int, ...] = (64, 1024)
    """Rolled out at a time where speed is measured."""
    rounds: int = 9
    """Turns in which speed is measured."""
    instruction: tuple[str, ...] = ("*",)
    """Instructions to draw episodes of planning from; * stands for anything."""
    episodes: int = 20
    """Of planning, on the twin; 0 leaves planning out."""
    horizon: int = 12
    samples: int = 32
    iterations: int = 2
    action_repeat: int = 3
    replan_every: int = 4
    out: Path = Path("runs/recurrent_state")

    def training(self) -> dict[str, Any]:
        """What a run has to be continued with."""
        names = ("world", "dataset", "updates", "batch", "learning_rate", "observed", "single", "ahead", "seed")
        return {name: getattr(self, name) for name in names} | {"state": asdict(self.state)}


# -- the recording as maps --------------------------------------------------------------------------------------------


@torch.no_grad()
def fuse(world: WorldModel, frames: np.ndarray) -> Float[Tensor, "n f g g"]:
    """Fused maps of frames uint8 [n, h, w, 3], each with itself as the context: one frame is read without any other."""
    maps = []
    for part in torch.from_numpy(np.array(frames)).split(64):
        context = world.tokenizer.encode_context(to_float(part))
        maps.append(world.tokenizer.fuse(world.latent(to_float(part), context), context).float())
    return torch.cat(maps)


def fused_maps(world: WorldModel, data: Episodes, folder: Path) -> np.ndarray:
    """The maps of all frames, float16 [n, f, g, g], from a file in `folder` that is made if it is missing.

    Its name is a digest of the tokenizer and the recording, so that a file of other ones is never taken for it.
    """
    digest = hashlib.sha256()
    for weights in world.tokenizer.state_dict().values():
        digest.update(weights.numpy().tobytes())
    for array in (data.starts, data.actions, data.frames[data.starts[:-1]]):
        digest.update(np.ascontiguousarray(array).tobytes())
    path = folder / f"maps_{digest.hexdigest()[:16]}.npy"
    if not path.exists():
        tokenizer, count = world.config.tokenizer, len(data.frames)
        shape = (count, tokenizer.width, tokenizer.grid, tokenizer.grid)
        check_room(folder, 2 * int(np.prod(shape)))
        maps = np.lib.format.open_memmap(temporary := path.with_suffix(".tmp"), "w+", np.float16, shape)
        for begin in tqdm(range(0, count, 64), desc="maps of frames", unit_scale=64, unit="frame"):
            maps[begin : begin + 64] = fuse(world, data.frames[begin : begin + 64]).half().numpy()
        maps.flush()
        temporary.rename(path)
    return np.load(path, mmap_mode="r")


class Recording(NamedTuple):
    """What the state learns from."""

    data: Episodes
    maps: np.ndarray
    """float16 [n, f, g, g]."""
    components: Float[Tensor, "n c"]
    """Of the maps."""

    def windows(self, rows: np.ndarray, observed: np.ndarray, ahead: int, random: np.random.Generator) -> Window:
        """Stretches that begin at `rows` [b], show `observed` [b] frames, and end `ahead` steps after the most of them.

        What lies behind an episode's end is its last frame again, and not inside.
        """
        data, most = self.data, int(observed.max())
        last = (data.starts[data.episodes_of(rows) + 1] - 1)[:, None]
        when = rows[:, None] + np.arange(most + ahead)
        inside, when = when <= last, np.minimum(when, last)
        after = random.integers(1, ahead + 1, (len(rows), DRAWN))
        after[:, 0] = random.integers(NEAR, size=len(rows))
        drawn = np.minimum(observed[:, None] - 1 + after, inside.sum(1, keepdims=True) - 1)
        return Window(
            frames=torch.from_numpy(self.maps[when[:, :most]]).float(),
            observed=torch.from_numpy(observed),
            actions=torch.from_numpy(data.actions[when[:, :-1]]),
            rewards=torch.from_numpy(data.rewards[when[:, 1:]]),
            successes=torch.from_numpy(data.successes[when[:, 1:]]).float(),
            terminations=torch.from_numpy(data.terminations[when[:, 1:]]).float(),
            inside=torch.from_numpy(inside),
            components=self.components[when],
            drawn=torch.from_numpy(drawn),
            targets=torch.from_numpy(self.maps[np.take_along_axis(when, drawn, 1)]).float(),
        )


# -- training ---------------------------------------------------------------------------------------------------------


def train(config: Experiment, world: WorldModel, data: Episodes, folder: Path) -> RecurrentState:
    """The state after `config.updates`, from its last checkpoint in `folder` if there is one.

    Raises:
        UserError: the checkpoint is of other settings.
    """
    maps, instructions = fused_maps(world, data, folder), world.read_instructions(list(data.instructions))
    torch.manual_seed(config.seed)
    state = RecurrentState(world.config.tokenizer, config.state, world.config.action_size, instructions.shape[1])
    optimizer = torch.optim.AdamW(state.parameters(), config.learning_rate, betas=(0.9, 0.99), weight_decay=1e-3)
    path, begin = folder / "state.pt", 0
    if path.exists():
        found = torch.load(path, weights_only=True)
        if differ := sorted(key for key, value in config.training().items() if found["training"][key] != value):
            raise UserError(f"{path} was trained with another {', '.join(differ)}; choose another --out")
        state.load_state_dict(found["state"])
        optimizer.load_state_dict(found["optimizer"])
        begin = found["updates"]
    else:
        some = np.random.default_rng(config.seed).permutation(len(maps))[:SAMPLED]
        state.measure(torch.from_numpy(maps[np.sort(some)]).float(), data.reward_variance)
    parts = [
        state.project(torch.from_numpy(maps[row : row + 1024].astype(np.float32))) for row in range(0, len(maps), 1024)
    ]
    recording = Recording(data, maps, torch.cat(parts))
    ends = {episode: data.starts[episode + 1] for episode in data.split("train")}
    rows = np.concatenate([np.arange(data.starts[episode], end - 3) for episode, end in ends.items()])
    for update in (progress := tqdm(range(begin, config.updates), initial=begin, total=config.updates, desc="state")):
        window = draw(config, recording, rows, update)
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * schedule(update, config.updates, 100)
        loss = state.loss(window, instructions)
        optimizer.zero_grad(set_to_none=True)
        loss.total.backward()
        nn.utils.clip_grad_norm_(state.parameters(), 1.0)
        optimizer.step()
        if update % 20 == 0:
            progress.set_postfix({name: f"{part.item():.3f}" for name, part in loss._asdict().items()})
        if (update + 1) % SAVE_EVERY == 0 or update + 1 == config.updates:
            content = {"state": state.state_dict(), "optimizer": optimizer.state_dict(), "updates": update + 1}
            torch.save(content | {"training": config.training()}, temporary := path.with_suffix(".tmp"))
            temporary.rename(path)
    return state.eval().requires_grad_(False)


def draw(config: Experiment, recording: Recording, rows: np.ndarray, update: int) -> Window:
    """The windows of an update, which depend on nothing but the seed and its number."""
    random = np.random.default_rng([config.seed, update])
    share = 4 if update < config.updates / 10 else 2 if update < config.updates / 2 else 1
    begin, data = random.choice(rows, config.batch), recording.data
    room = data.starts[data.episodes_of(begin) + 1] - 1 - begin
    observed = np.minimum(random.integers(1, 2 + random.integers(config.observed), config.batch), room)
    observed = np.where(random.random(config.batch) < config.single, 1, observed)
    return recording.windows(begin, observed, max(1, config.ahead // share), random)


# -- how true ---------------------------------------------------------------------------------------------------------


class HeldOut(NamedTuple):
    """Stretches of test episodes."""

    past: Segment
    """What is shown: s frames and the s - 1 steps between them."""
    future: Segment
    """The last of those frames, and t steps more."""
    asked: np.ndarray
    """[n], the instruction that judges each."""
    at: tuple[int, ...]
    """Steps at which frames are looked at."""

    @property
    def truth(self) -> np.ndarray:
        """The frames that are looked at, uint8 [n, looked, h, w, 3]."""
        return self.future.frames[:, list(self.at)]

    def judged(self, by_all: np.ndarray) -> np.ndarray:
        """The column of each stretch's instruction, [n, t]."""
        return np.take_along_axis(by_all, self.asked[:, None, None], 2)[..., 0]


class Predicted(NamedTuple):
    """What was said of t steps of n stretches."""

    rewards: np.ndarray
    """[n, t]."""
    over: np.ndarray
    """bool [n, t]: that the episode has ended."""
    quality: np.ndarray
    """[n, looked], PSNR of the frames that are looked at."""


def held_out(config: Experiment, data: Episodes) -> HeldOut:
    random, ahead, begin = np.random.default_rng(config.seed), max(config.at), config.shown - 1
    rows = sample_rows(data, data.split("test"), config.stretches, begin + ahead, random)
    asked = random.integers(len(data.instructions), size=len(rows))
    return HeldOut(segments_at(data, rows, begin), segments_at(data, rows + begin, ahead), asked, config.at)


def by_the_world(world: WorldModel, data: Episodes, seen: HeldOut, drafted: bool) -> Predicted:
    """By the bundled world's own path, 32 dreams at a time."""
    parts = []
    for rows in np.array_split(np.arange(len(seen.asked)), -(-len(seen.asked) // 32)):
        instructions = [data.instructions[index] for index in seen.asked[rows]]
        dreams = world.start(seen.past.frames[rows], seen.past.actions[rows], instruction=instructions)
        rewards, over, quality = [], [], []
        for when, action in enumerate(seen.future.actions[rows].swapaxes(0, 1), 1):
            dreams, outcome = world.step(dreams, action, drafted)
            rewards.append(outcome.reward.numpy())
            over.append(outcome.terminated.numpy() > 0.5)
            if when in seen.at:
                quality.append(psnr(world.render(dreams).numpy(), seen.future.frames[rows, when]))
        parts.append(Predicted(np.stack(rewards, 1), np.stack(over, 1), np.stack(quality, 1)))
    return Predicted(*(np.concatenate(column) for column in zip(*parts, strict=True)))


@torch.no_grad()
def by_the_state(world: WorldModel, data: Episodes, seen: HeldOut, state: RecurrentState) -> Predicted:
    """By the state alone, once the frames that are shown have corrected it."""
    count, shown = seen.past.frames.shape[:2]
    maps = fuse(world, seen.past.frames.reshape(count * shown, *seen.past.frames.shape[2:])).unflatten(0, (-1, shown))
    began = state.observe(maps, torch.from_numpy(seen.past.actions))
    states = state.rollout(began, torch.from_numpy(seen.future.actions))
    said = state.outcomes(states, world.read_instructions(list(data.instructions)))
    quality = []
    for when in seen.at:
        drawn = torch.cat(
            [world.tokenizer.decode(part) for part in state.picture(states[:, when - 1], maps[:, -1]).split(64)]
        )
        quality.append(psnr(to_uint8(drawn).numpy(), seen.future.frames[:, when]))
    over = seen.judged(said.terminated.numpy()) > 0
    return Predicted(seen.judged(said.reward.numpy()), over, np.stack(quality, 1))


def truth_table(config: Experiment, world: WorldModel, data: Episodes, state: RecurrentState) -> list[str]:
    """The same held-out stretches by the world's own paths and by the state."""
    seen = held_out(config, data)
    ways = {TOKENS: by_the_world(world, data, seen, drafted=False)}
    if world.draft is not None:
        ways[DRAFT] = by_the_world(world, data, seen, drafted=True)
    ways["the state"] = by_the_state(world, data, seen, state)
    rewards, over = seen.judged(seen.future.rewards), seen.judged(seen.future.terminations)
    measures: dict[str, Callable[[Predicted, int, int], str]] = {
        "rewards' correlation": lambda said, _, step: f"{correlation(said.rewards[:, step], rewards[:, step]):.3f}",
        "rewards' relative error": lambda said, _, step: (
            f"{relative_error(said.rewards[:, step], rewards[:, step]):.2f}"
        ),
        "PSNR": lambda said, index, _: f"{said.quality[:, index].mean():.1f}",
    }
    rows = [
        [f"{measure}, {name}", *(figure(said, index, when - 1) for index, when in enumerate(seen.at))]
        for measure, figure in measures.items()
        for name, said in ways.items()
    ]
    still = psnr(np.broadcast_to(seen.future.frames[:, :1], seen.truth.shape), seen.truth).mean(0)
    rows.append(["PSNR, the last frame repeated", *(f"{value:.1f}" for value in still)])
    head = [f"{len(seen.asked)} held-out stretches, {config.shown} shown, after", *map(str, seen.at)]
    ends = [f"- {name}: {ends_foreseen(said.over, over)}" for name, said in ways.items()]
    return [*markdown(head, rows), "", *ends, ""]


def relative_error(said: np.ndarray, true: np.ndarray) -> float:
    """RMS error over the standard deviation of what is true; nan where that does not vary."""
    return float(np.sqrt(np.square(said - true).mean()) / true.std()) if np.ptp(true) else float("nan")


def ends_foreseen(said: np.ndarray, true: np.ndarray) -> str:
    """Of stretches [n, t] that end after their first step: how many were said to end within two steps of the truth.

    Of those that do not end: how many were said to.
    """
    never = np.ones((len(true), 1), bool)
    when, truly = (np.concatenate([one, never], 1).argmax(1) for one in (said, true))
    ends, others = (truly > 0) & (truly < true.shape[1]), truly == true.shape[1]
    ever = when < true.shape[1]
    found, alarms = (ever & (np.abs(when - truly) <= 2))[ends].sum(), ever[others].sum()
    return (
        f"{found} of {ends.sum()} ends foreseen within 2 steps, false alarms in {alarms} of {others.sum()} without one"
    )


# -- planning, and how fast -------------------------------------------------------------------------------------------


class StateReturns:
    """Tries action sequences in the state, from the last frames really seen (a `worldgym.planners.mpc.Returns`)."""

    def __init__(self, world: WorldModel, state: RecurrentState, instruction: str):
        self.world, self.state = world, state
        self.instruction = world.read_instructions([instruction])
        self.now: Float[Tensor, "1 w"] | None = None

    @torch.no_grad()
    def ground(self, frames: np.ndarray, actions: np.ndarray | None = None) -> None:
        done = np.zeros((0, self.state.action_size), np.float32) if actions is None else actions
        self.now = self.state.observe(fuse(self.world, frames)[None], torch.from_numpy(done)[None])

    @torch.no_grad()
    def __call__(self, sequences: np.ndarray) -> np.ndarray:
        if self.now is None:
            raise RuntimeError("ground() the state on an observation first")
        parts = []
        for tile in torch.from_numpy(sequences).float().split(TILE):
            said = self.state.outcomes(self.state.rollout(self.now.expand(len(tile), -1), tile), self.instruction)
            steps = zip(*(part[..., 0].unbind(1) for part in said), strict=True)
            parts.append(returns_until_end(OutcomeVotes(*(part[None] for part in step)) for step in steps))
        return torch.cat(parts).numpy()


def own_path(world: WorldModel) -> str:
    """What `world.evaluate` goes by."""
    return TOKENS if world.draft is None else DRAFT


def speed(config: Experiment, world: WorldModel, state: RecurrentState, twin: gym.Env) -> list[str]:
    """A table of samples x horizon a second, by turns from the same start."""
    instruction, rows = world.config.matching(config.instruction)[0], []
    frame, _ = twin.reset(seed=config.seed, options={"instruction": instruction})
    returns, begun = StateReturns(world, state, instruction), world.start(frame[None, None], instruction=instruction)
    returns.ground(frame[None])
    space = twin.action_space
    for futures in config.futures:
        size = (futures, config.horizon, world.config.action_size)
        tried = np.random.default_rng(config.seed).uniform(space.low, space.high, size).astype(np.float32)
        ways = {
            "MuJoCo": partial(twin.get_wrapper_attr("evaluate"), tried),
            own_path(world): partial(world.evaluate, begun, tried[None]),
            "the state": partial(returns, tried),
        }
        seconds = {name: float(np.median(some)) for name, some in by_turns(ways, config.rounds, world).items()}
        rows += [
            [name, str(futures), f"{futures * config.horizon / one:,.0f}", f"{seconds['MuJoCo'] / one:.1f}"]
            for name, one in seconds.items()
        ]
    return markdown(["samples x horizon a second", "futures", "", "over MuJoCo's"], rows)


def planned(config: Experiment, world: WorldModel, state: RecurrentState, twin: gym.Env) -> list[str]:
    """A table of the same episodes on the twin by CEM in the state, in the world, on true physics, and at random."""
    asked = Planning(
        config.world,
        instruction=config.instruction,
        episodes=config.episodes,
        seed=config.seed,
        horizon=config.horizon,
        samples=config.samples,
        iterations=config.iterations,
        action_repeat=config.action_repeat,
        replan_every=config.replan_every,
    )
    ways = {
        "random": replace(asked, planner="random"),
        "true physics": replace(asked, on="mujoco"),
        own_path(world): asked,
    }
    found = {name: plan_and_act(way, world, twin)[0] for name, way in ways.items()}
    won, earned, space = [], [], twin.action_space
    for index, episode in enumerate(
        tqdm(found[own_path(world)]["by_episode"], desc="cem in the state", unit="episode")
    ):
        returns, seed = StateReturns(world, state, episode["instruction"]), config.seed + index
        search = CEM(
            returns, space.low, space.high, config.horizon, config.samples, config.iterations,
            action_repeat=config.action_repeat, seed=seed,
        )  # fmt: skip
        policy = MPC(returns, search, config.replan_every, config.observed)
        played = play(twin, policy, seed, {"instruction": episode["instruction"]})
        won.append(played.success)
        earned.append(played.total)
    found["the state"] = {"mean_return": float(np.mean(earned)), "success_rate": float(np.mean(won))}
    floor, ceiling = (found[name]["mean_return"] for name in ("random", "true physics"))
    rows = [
        [
            name, f"{one['mean_return']:.2f}", f"{one['success_rate']:.0%}",
            f"{(one['mean_return'] - floor) / (ceiling - floor):.0%}" if ceiling != floor else "-",
        ]
        for name, one in found.items()
    ]  # fmt: skip
    return markdown([f"{config.episodes} episodes by CEM on", "return", "success", "of the way"], rows)


def main(config: Experiment) -> None:
    world, data = WorldModel.load(config.world, "cpu"), load_episodes(config.dataset)
    folder = config.out / world.config.name
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder / ".lock", f"training into {folder}"):
        state = train(config, world, data, folder)
    print(*truth_table(config, world, data, state), sep="\n")
    twin = gym.make(world.config.twin)
    print(*speed(config, world, state, twin), "", sep="\n")
    if config.episodes:
        print(*planned(config, world, state, twin), sep="\n")
    twin.close()


if __name__ == "__main__":
    main(tyro.cli(Experiment, description=__doc__))
