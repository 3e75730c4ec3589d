"""Stage three: a recurrent state learns to see and to foresee, beside a frozen world.

It is trained as it is used: a few frames of a stretch are observed, the rest is imagined, and at every step of it the
outcomes of all instructions and the frame's principal components are read off the state; of some steps the whole frame.
Near steps weigh more, since planners act on them. Frames that are imagined are targets alone, so nothing of what is to
come reaches the state.
"""

import json
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from jaxtyping import Bool, Float, Int, UInt8
from safetensors.torch import save as save_bytes
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from ..checkpoint import READOUTS, companions, file_metadata, load_config, load_tensors, load_weights
from ..config import RecurrentConfig, WorldConfig
from ..data import Episodes, Rows, StreamedEpisodes, load_episodes
from ..errors import UserError
from ..evaluate.fidelity import check_recording
from ..listing import find_world
from ..metrics import correlation
from ..model.goal_heads import COMPONENTS, GoalHeads
from ..model.outcome_heads import OutcomeVotes
from ..model.pixels import to_float
from ..model.processes import mean_of_processes
from ..model.recurrent_state import RecurrentState
from ..results import current_commit
from ..streams import WINDOW
from ..world import WorldModel
from .appearance import alter, draw_looks
from .checkpoints import check_world, load_world, save_world, world_done
from .launch import launch
from .log import Log
from .loop import named, run, train
from .settings import RecurrentTraining
from .tokenizer import begin_from

TOGETHER = 256
"""Frames that are projected on components at a time, so that a processor's cache holds them."""
AT_ONCE = 32
"""Observed frames are embedded in multiples of this, the last ones black. For every number of frames that it meets,
oneDNN makes kernels and keeps them: a gigabyte after sixty updates."""
SAMPLED = 3000
"""Frames that means and principal components are taken from."""
LEVELLED = 0.25
"""Power of its share of the variance that each component is divided by: what moves by less than a pixel shows in
components of little variance, which would count for nothing."""
DRAWN = 2
"""Steps of each stretch whose whole frame is read off."""
NEAR = 4
"""Steps within which the first of them lies."""
HALF_WEIGHT = 8
"""Imagined steps after which a step weighs half."""
REWARD_WEIGHT = 3.0
PRIOR_WEIGHT = 0.5
"""Of what is foreseen of the next frame while frames are still observed."""
SEEN_WEIGHT = 1.0
"""Of what is read off an observed frame's embedding alone."""
INVERSE_WEIGHT = 0.1


def train_recurrent_state(config: RecurrentTraining) -> Path:
    """Train until `config.steps`; returns the checkpoint folder."""
    source, stage = load_config(find_world(config.world))
    if stage != "world":
        raise UserError(f"{config.world} holds a {stage} only; train its dynamics first")
    if check_world(config, "world"):
        found = load_config(config.out)[0]
        on = replace(source, recurrent=config.recurrent)
        if found != (_with_fresh_state(source, config.recurrent) if config.fresh else on):
            raise UserError(f"{config.out} holds another world, {found}; choose another --out")
        if world_done(config, "world"):
            return config.out
    if config.begin_from is not None and load_config(find_world(config.begin_from))[0].recurrent is None:
        raise UserError(f"{config.begin_from} has no recurrent state to begin from")
    for name in (config.dataset, *config.lived):
        check_recording(source, name, load_episodes(name))
    launch(_train, config)
    return config.out


def _train(config: RecurrentTraining) -> None:
    with run(config, "no") as accelerator:  # the cell's products are too small to gain by bfloat16
        with accelerator.main_process_first():
            stage = RecurrentStage(config, accelerator.device)
        train(stage, config, accelerator)


class Stretches(NamedTuple):
    """Stretches of a recording: t steps and t + 1 frames, of which the first `observed` are shown.

    Row i of rewards, successes and terminations judges frame i + 1.
    """

    frames: UInt8[Tensor, "n h w c"]
    """Of all stretches, those that are observed, one after another."""
    shown: Bool[Tensor, "b k"]
    """Which of the first k frames each stretch is shown, k the most of any."""
    actions: Float[Tensor, "b t a"]
    rewards: Float[Tensor, "b t m"]
    """By all instructions."""
    successes: Float[Tensor, "b t m"]
    terminations: Float[Tensor, "b t m"]
    inside: Bool[Tensor, "b t1"]
    """Whether the episode has this frame; a stretch may begin close to its end."""
    components: Float[Tensor, "b t1 p"]
    """Of every frame."""
    drawn: Int[Tensor, "b d"]
    """Some frames of each stretch that are read off whole, by number."""
    targets: UInt8[Tensor, "bd h w c"]
    """What they show."""


class Readouts(GoalHeads):
    """What training reads off states and embeddings; acting never does, but to judge goals."""

    spread: Tensor
    basis: Tensor

    def __init__(self, config: RecurrentConfig, resolution: int, action_size: int, instructions: int):
        super().__init__(config, COMPONENTS + instructions)
        self.inverse = nn.Sequential(nn.Linear(2 * config.embedding, 128), nn.SiLU(), nn.Linear(128, action_size))
        self.register_buffer("basis", torch.zeros(COMPONENTS, 3 * resolution**2), persistent=False)
        self.register_buffer("spread", torch.ones(()), persistent=False)

    @torch.no_grad()
    def turn(self, before: Float[Tensor, "p d"]) -> None:
        """Say along the basis what was said along another one, whose rows are orthogonal, too: frames stay the same."""
        turned = self.basis @ (before / before.square().sum(1, keepdim=True).clamp(min=1e-12)).T
        for said in (self.components[-1], self.seen[-1]):
            assert isinstance(said, nn.Linear)
            said.weight[:COMPONENTS] = turned @ said.weight[:COMPONENTS]
            said.bias[:COMPONENTS] = turned @ said.bias[:COMPONENTS]


class RecurrentLoss(nn.Module):
    """The loss of a recurrent state, as one module: what Accelerate wraps.

    Args:
        instructions: those of the data, as the world reads them.
        reward_variance: theirs.
    """

    def __init__(
        self, state: RecurrentState, readouts: Readouts, instructions: Float[Tensor, "m d"], reward_variance: float
    ):
        super().__init__()
        self.state, self.readouts = state, readouts
        self.instructions, self.reward_variance = instructions, reward_variance

    @torch.no_grad()
    def measure(self, frames: UInt8[Tensor, "n h w c"], fresh: bool = True) -> None:
        """Take principal components from a sample of frames, and mean and spread of a fresh state."""
        images = to_float(frames)
        if fresh:
            self.state.mean_frame.copy_(images.mean(0))
            self.state.frame_scale.copy_((images - self.state.mean_frame).square().mean().sqrt())
        del images  # as large as what comes next
        centred = self._centred(frames)
        variances, vectors = principal_components(centred, min(COMPONENTS, len(centred)))
        scales = (variances / variances.sum()).clamp(min=1e-6) ** -LEVELLED
        self.readouts.basis[: len(vectors)].copy_(vectors * scales[:, None])
        self.readouts.spread.copy_((variances * scales**2).sum())

    @torch.no_grad()
    def project(self, frames: UInt8[Tensor, "n h w c"]) -> Float[Tensor, "n p"]:
        """Principal components of frames, levelled."""
        return self._centred(frames) @ self.readouts.basis.T

    def _centred(self, frames: UInt8[Tensor, "n h w c"]) -> Float[Tensor, "n d"]:
        """As `to_float` has them, but in their own layout: to change it takes a CPU as long as to project them."""
        return frames.flatten(1).float().div_(127.5).sub_(1 + self.state.mean_frame.permute(1, 2, 0).flatten())

    def forward(self, stretches: Stretches) -> dict[str, Tensor]:
        state, (batch, most) = self.state, stretches.shown.shape
        embedded = self._embed(stretches)
        states, priors = self._follow(embedded, stretches)
        observed = stretches.shown.sum(1, keepdim=True)
        ahead = (torch.arange(states.shape[1], device=states.device) - observed + 1).clamp(min=0)
        weights = stretches.inside / (1 + ahead / HALF_WEIGHT)
        parts = self._read(states, weights, states[:, 1:], weights[:, 1:], stretches)
        parts["seen"] = self._seen(embedded, stretches)
        total = _total(parts) + SEEN_WEIGHT * parts["seen"]
        if priors is not None:
            foreseen = (stretches.shown & stretches.inside[:, :most])[:, 1:].float()
            few = stretches._replace(
                components=stretches.components[:, 1:most],
                **{name: getattr(stretches, name)[:, : most - 1] for name in ("rewards", "successes", "terminations")},
            )
            total = total + PRIOR_WEIGHT * _total(self._read(priors, foreseen, priors, foreseen, few))
            said = self.readouts.inverse(torch.cat([embedded[:, :-1], embedded[:, 1:]], -1))
            wrong = (said - stretches.actions[:, : most - 1]).square().mean(-1)
            parts["inverse"] = _mean(wrong, foreseen)
            total = total + INVERSE_WEIGHT * parts["inverse"]
        rows = torch.arange(batch, device=states.device)[:, None]
        read = state.picture(states[rows, stretches.drawn].flatten(0, 1))
        parts["frame"] = (read - state.centred(stretches.targets)).square().mean()
        return {"loss": total + parts["frame"], **parts}

    def _embed(self, stretches: Stretches) -> Float[Tensor, "b k e"]:
        """What each observed frame tells, in its place; zeros elsewhere."""
        left_over = -len(stretches.frames) % AT_ONCE
        shown = self.state.embed(F.pad(stretches.frames, (0, 0, 0, 0, 0, 0, 0, left_over)))
        # By number, not by mask, whose gradient has a size that `torch.compile` cannot know.
        number = (stretches.shown.flatten().cumsum(0) - 1).clamp(min=0).view(stretches.shown.shape)
        return torch.where(stretches.shown[..., None], shown[number], 0.0)

    def _seen(self, embedded: Float[Tensor, "b k e"], stretches: Stretches) -> Tensor:
        """Errors of components and rewards that are read off each observed frame by itself. What comes back through
        many steps is too noisy to teach the encoder where things are to a fraction of a pixel.

        No action led to the first frame of a stretch, so no reward judges it.
        """
        most = embedded.shape[1]
        there = (stretches.shown & stretches.inside[:, :most]).float()
        components, rewards = self.readouts.seen(embedded).split((COMPONENTS, stretches.rewards.shape[-1]), -1)
        error = (components - stretches.components[:, :most]).square().sum(-1) / self.readouts.spread
        worth = (rewards[:, 1:] - stretches.rewards[:, : most - 1]).square().mean(-1) / self.reward_variance
        return _mean(error, there) + REWARD_WEIGHT * _mean(worth, there[:, 1:])

    def _follow(self, embedded: Float[Tensor, "b k e"], stretches: Stretches) -> tuple[Tensor, Tensor | None]:
        """(states [b, t + 1, s] of all frames, corrected by those that are observed; [b, k - 1, s] before they are)."""
        cell, entered = self.state.predictor, self.state.predictor.enter(stretches.actions)
        corrector, seen = self.state.corrector, self.state.corrector.enter(embedded)
        now = corrector(self.state.initial.expand(len(embedded), -1), seen[:, 0])
        states, priors = [now], []
        for step, action in enumerate(entered.unbind(1), 1):
            now = cell(now, action)
            if step < seen.shape[1]:
                priors.append(now)
                now = torch.where(stretches.shown[:, step, None], corrector(now, seen[:, step]), now)
            states.append(now)
        return torch.stack(states, 1), torch.stack(priors, 1) if priors else None

    def _read(
        self,
        states: Float[Tensor, "b s w"],
        weights: Float[Tensor, "b s"],
        judged: Float[Tensor, "b j w"],
        judged_weights: Float[Tensor, "b j"],
        true: Stretches,
    ) -> dict[str, Tensor]:
        """Errors of what is read off states: of frames, and of outcomes of the states that an action led to."""
        error = (self.readouts.components(states) - true.components).square().sum(-1) / self.readouts.spread
        said: OutcomeVotes = self.state.heads(judged, self.instructions)
        reward = (said.reward - true.rewards).square().mean(-1) / self.reward_variance
        success, terminated = (
            F.binary_cross_entropy_with_logits(logits, what, reduction="none").mean(-1)
            for logits, what in ((said.success, true.successes), (said.terminated, true.terminations))
        )
        outcomes = {"reward": reward, "success": success, "terminated": terminated}
        read = {name: _mean(values, judged_weights) for name, values in outcomes.items()}
        return {"components": _mean(error, weights), **read}


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    """Over the rows of all processes, once their losses' mean is taken."""
    return (values * weights).sum() / mean_of_processes(weights.sum()).clamp(min=1e-6)


def _total(parts: dict[str, Tensor]) -> Tensor:
    return parts["components"] + REWARD_WEIGHT * parts["reward"] + parts["success"] + parts["terminated"]


def principal_components(centred: Float[Tensor, "n d"], count: int) -> tuple[Float[Tensor, " c"], Float[Tensor, "c d"]]:
    """The largest variances along unit vectors, and those vectors; of fewer samples than numbers, by their products."""
    values, vectors = torch.linalg.eigh(centred @ centred.T / len(centred))
    values, vectors = values[-count:].clamp(min=1e-12), vectors[:, -count:]
    return values, (centred.T @ vectors / (values * len(centred)).sqrt()).T


class Source:
    """A data set that stretches are cut from.

    Args:
        episodes: int [n], those that training may see.
        batch: stretches a step.
    """

    def __init__(self, data: Episodes, model: RecurrentLoss, episodes: np.ndarray, batch: int):
        self.data, self.model, self.device, self.batch = data, model, model.state.initial.device, batch
        self.rows, self.choose = first_rows(data, episodes), data.choice(episodes, batch)
        self.components: Rows | None = None
        """Of every frame, float32 [n, p]; None where memory does not hold those of a window of pieces."""
        row, length = np.dtype((np.float32, (COMPONENTS,))), len(data.frames)
        if not isinstance(data, StreamedEpisodes):
            parts = np.array_split(np.arange(length), -(-length // TOGETHER))
            self.components = np.concatenate([self._project(data.frames[part]) for part in parts])
        elif row.itemsize * length * data.stream.window <= WINDOW * (len(data.stream.firsts) - 1):
            self.components = data.stream.derived("components", row, self._project)

    def _project(self, frames: np.ndarray) -> np.ndarray:
        parts = torch.from_numpy(np.array(frames)).split(TOGETHER)
        return torch.cat([self.model.project(part.to(self.device)).cpu() for part in parts]).numpy()

    def begin(self, seed: int, step: int, random: np.random.Generator) -> np.ndarray:
        """The frames that the stretches of a batch begin with."""
        if not isinstance(self.data, StreamedEpisodes):
            return random.choice(self.rows, self.batch)
        chosen, starts = self.choose(seed, step, random), self.data.starts
        return starts[chosen] + random.integers(_firsts(starts[chosen + 1] - starts[chosen]))

    def _seen(self, when: np.ndarray, *picked: np.ndarray) -> tuple[Tensor, ...]:
        """Components of the rows `when` [b, t + 1], and the frames of some of these rows, for each of `picked`."""
        wanted = picked if self.components is not None else (when, *picked)
        rows = np.unique(np.concatenate([one.ravel() for one in wanted]))  # each is read once: in shards it takes time
        pictures = _frames(self.data, rows, self.device)
        shown = (pictures[torch.from_numpy(np.searchsorted(rows, one))] for one in picked)
        if self.components is not None:
            return torch.from_numpy(self.components[when]).to(self.device), *shown
        return self.model.project(pictures)[torch.from_numpy(np.searchsorted(rows, when))], *shown

    def cut(
        self, rows: np.ndarray, observed: np.ndarray, ahead: int, random: np.random.Generator, mine: slice = slice(None)
    ) -> Stretches:
        """Stretches that begin at `rows` [b], show `observed` [b] frames, and end `ahead` steps after the most of
        them; of these, `mine`. What lies behind an episode's end is its last frame again, and not inside."""
        data, device, most = self.data, self.device, int(observed.max())
        last = (data.starts[data.episodes_of(rows) + 1] - 1)[:, None]
        when = rows[:, None] + np.arange(most + ahead)
        inside, when = when <= last, np.minimum(when, last)
        observed = np.minimum(observed, inside.sum(1))
        after = random.integers(1, ahead + 1, (len(rows), DRAWN))
        after[:, 0] = random.integers(min(NEAR, ahead + 1), size=len(rows))
        drawn = np.minimum(observed[:, None] - 1 + after, inside.sum(1, keepdims=True) - 1)
        shown = np.arange(most) < observed[:, None]
        when, inside, drawn, shown = when[mine], inside[mine], drawn[mine], shown[mine]

        def of(values: np.ndarray) -> Tensor:
            return torch.from_numpy(values).to(device)

        after_each = when[:, 1:]
        drawn_rows = np.take_along_axis(when, drawn, 1).ravel()
        components, frames, targets = self._seen(when, when[:, :most][shown], drawn_rows)
        return Stretches(
            frames=frames,
            shown=of(shown),
            actions=of(data.actions[when[:, :-1]]),
            rewards=of(data.rewards[after_each]),
            successes=of(data.successes[after_each].astype(np.float32)),
            terminations=of(data.terminations[after_each].astype(np.float32)),
            inside=of(inside),
            components=components,
            drawn=of(drawn),
            targets=targets,
        )


def first_rows(data: Episodes, episodes: np.ndarray) -> np.ndarray:
    """Frames of these episodes that a stretch may begin with: all but the last two of each."""
    starts = data.starts
    counts = _firsts(np.diff(starts))
    return np.concatenate([np.arange(starts[one], starts[one] + counts[one]) for one in episodes])


def _firsts(lengths: np.ndarray) -> np.ndarray:
    return np.maximum(1, lengths - 2)


def _sample(sets: list[Episodes], device: torch.device) -> UInt8[Tensor, "n h w c"]:
    """Of as many frames from each data set."""
    return torch.cat([_frames(one, one.some_rows(SAMPLED // len(sets), 0), device) for one in sets])


def _frames(data: Episodes, rows: np.ndarray, device: torch.device) -> UInt8[Tensor, "n h w c"]:
    return torch.from_numpy(np.array(data.frames[rows])).to(device)


class RecurrentStage:
    """What the loop asks of this stage."""

    name, clip, warm_up, parts = "state", 1.0, 200, 1

    def __init__(self, config: RecurrentTraining, device: torch.device):
        self.config, folder = config, find_world(config.world)
        self.logs = config.out.parent / "tensorboard" / "state"
        torch.manual_seed(config.seed)
        self.world = world = filtering(WorldModel.load(config.world, str(device)), config.recurrent, config.fresh)
        assert world.recurrent is not None
        if config.begin_from is not None and not config.out.exists():
            print(begin_from(config.begin_from, world.recurrent, "recurrent."))
        self.data = data = load_episodes(config.dataset)
        self.frames = config.batch * config.ahead
        about = world.config
        readouts = Readouts(config.recurrent, about.tokenizer.resolution, about.action_size, len(data.instructions)).to(
            device
        )
        self.model = RecurrentLoss(
            world.recurrent, readouts, world.read_instructions(list(data.instructions)), data.reward_variance
        ).train()
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), config.learning_rate, betas=(0.9, 0.99), weight_decay=1e-3
        )
        lived = [load_episodes(name) for name in config.lived]
        self.measured = [config.dataset, *config.lived]
        """What components are of: along those of a recording alone, much of what is only lived cannot be seen."""
        before = self._read_on(folder / READOUTS, device) if not config.fresh and (folder / READOUTS).exists() else None
        self.model.measure(_sample([data, *lived], device), config.fresh)
        if before is not None:
            readouts.turn(before)
        self.recorded = Source(data, self.model, data.split("train"), config.batch)
        self.lived = [Source(one, self.model, np.arange(len(one.starts) - 1), config.batch) for one in lived]
        self.single = 0.5 if world.config.dynamics.observed == 1 else 0.0
        """Share of the stretches that show a single frame: many, where one frame shows all there is to know."""
        self.files = companions(folder)
        self.commit = current_commit()
        self.figures: dict[str, float] = {}
        """Of the newest evaluation."""

    def _read_on(self, path: Path, device: torch.device) -> Tensor | None:
        """Begin with the readouts of an earlier training; returns their basis if it is of other data sets."""
        readouts = self.model.readouts
        load_weights(readouts, load_tensors(path), path.parent)
        measured = json.loads(file_metadata(path).get("measured", json.dumps([self.config.dataset])))
        if measured == self.measured:
            return None
        try:
            sets = [load_episodes(name) for name in measured]
        except FileNotFoundError as gone:
            print(f"{gone}; so what is read off the state begins along components of other frames")
            return None
        self.model.measure(_sample(sets, device), fresh=False)
        return readouts.basis.clone()

    def draw(self, step: int, rank: int, processes: int) -> tuple[Stretches]:
        config, done = self.config, step / self.config.steps
        random, source, rows = self._rows(step)
        several = random.integers(1, config.recurrent.observed + 1, config.batch)
        observed = np.where(random.random(config.batch) < self.single, 1, several)
        ahead = max(1, config.ahead // (4 if done < 0.1 else 2 if done < 0.4 else 1))
        mine = slice(rank, None, processes)
        stretches = source.cut(rows, observed, ahead, random, mine)
        if config.looks:
            looks, shown_by = draw_looks(random, len(rows)).of(mine), stretches.shown.nonzero()[:, 0]
            seen = alter(stretches.frames, shown_by, looks, self.model.state.mean_frame)
            stretches = stretches._replace(frames=seen)
        return (stretches,)

    def _rows(self, step: int) -> tuple[np.random.Generator, "Source", np.ndarray]:
        """(the random numbers of a batch, where it is from, the frames that its stretches begin with)."""
        random, source = np.random.default_rng([self.config.seed, step, 0]), self.recorded
        if self.lived and step % 2 == 0:
            source = self.lived[step // 2 % len(self.lived)]
        return random, source, source.begin(self.config.seed, step, random)

    def source(self, step: int) -> str:
        _, source, rows = self._rows(step)
        names = dict(zip(map(id, self.lived), self.config.lived, strict=True))
        return named(names.get(id(source), self.config.dataset), source.data.episodes_of(rows))

    @cached_property
    def held_out(self) -> tuple[int, Stretches]:
        """(how many frames they show, 128 stretches); read once, lest they drive out what training is going to read."""
        random, observed = np.random.default_rng(0), 1 if self.single else self.config.recurrent.observed
        rows = random.choice(first_rows(self.data, self.data.split("validation")), 128)
        return observed, self.recorded.cut(rows, np.full(len(rows), observed), self.config.ahead, random)

    @torch.no_grad()
    def evaluate(self, step: int, log: Log, writer: SummaryWriter) -> None:
        """Rewards of held-out stretches, imagined after as many frames as the state is used to."""
        recurrent, (observed, held_out) = self.world.recurrent, self.held_out
        assert recurrent is not None
        self.model.eval()
        states, _ = self.model._follow(self.model._embed(held_out), held_out)
        said = recurrent.heads(states[:, 1:], self.model.instructions).reward
        self.model.train()
        for ahead in (1, 4, 8, 12, 16):
            at = observed - 2 + ahead
            if at + 1 < held_out.inside.shape[1] and (inside := held_out.inside[:, at + 1]).any():
                pair = (part[inside, at].flatten().cpu().numpy() for part in (said, held_out.rewards))
                self.figures[f"reward_correlation_{ahead}"] = correlation(*pair)
        for name, value in self.figures.items():
            writer.add_scalar(f"validation/{name}", value, step)
        log.say(f"step {step + 1}: " + ", ".join(f"{name} {value:.3f}" for name, value in self.figures.items()))

    def save(self, accelerator: Accelerator, step: int) -> None:
        told: dict[str, Any] = {"step": step, "held_out": self.figures}
        if accelerator.is_main_process:
            about = {"measured": json.dumps(self.measured)}
            readouts = save_bytes(self.model.readouts.state_dict(), about)
            files, world = self.files | {READOUTS: readouts}, self.world
            save_world(self.config, world.config, world.state_dict(), "world", self.optimizer, told, files, self.commit)

    def load(self, accelerator: Accelerator) -> int:
        step = load_world(self.config, "world", self.world, self.optimizer)
        if step:
            load_weights(self.model.readouts, load_tensors(self.config.out / READOUTS), self.config.out)
        return step


def filtering(world: WorldModel, config: RecurrentConfig, fresh: bool = True) -> WorldModel:
    """The same world, with a recurrent state that begins anew, or as it is; the one part of it that is trained."""
    if not fresh:
        if world.recurrent is None or world.config.recurrent != config:
            raise UserError(
                f"{world.config.name!r} has no recurrent state of {config} to begin from; leave out --no-fresh"
            )
        world.recurrent.requires_grad_(True)
        return world
    made = WorldModel(_with_fresh_state(world.config, config), world.text).to(world.device)
    anew = made.state_dict()
    kept = {name: tensor for name, tensor in world.state_dict().items() if name in anew}
    anew = {name: tensor for name, tensor in anew.items() if name.startswith("recurrent.")}
    made.load_state_dict(kept | anew)
    made.eval().requires_grad_(False)
    assert made.recurrent is not None
    made.recurrent.requires_grad_(True)
    return made


def _with_fresh_state(world: WorldConfig, recurrent: RecurrentConfig) -> WorldConfig:
    """The world with a state that begins anew, whose frames are drawn without it: they knew another one."""
    return replace(world, recurrent=recurrent, dynamics=replace(world.dynamics, from_state=False, rereads=False))
