"""Stage two: the world learns what happens next, over frozen tokens; its checkpoint is the whole world."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from jaxtyping import Float
from tensorboard.compat.proto.summary_pb2 import Summary
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from ..actions import read_codec
from ..checkpoint import load_config, load_tensors, load_weights
from ..config import DynamicsConfig
from ..data import Episodes, Segment, load_episodes, long_enough, rows_within, sample_segments, segments_at
from ..errors import UserError
from ..evaluate.video import gif, side_by_side, stacked
from ..metrics import psnr
from ..model.dynamics import Batch, Chances, Dynamics
from ..model.pixels import to_float
from ..model.recurrent_state import RecurrentState
from ..model.text import PhraseTokenizer
from ..model.tokenizer import Tokenizer
from ..motion import motion_prompt
from ..results import current_commit
from ..world import WorldModel
from .checkpoints import check_world, load_world, save_world, world_done
from .launch import launch
from .log import Log
from .loop import named, run, train
from .settings import DynamicsTraining, FramesTraining
from .tokenizer import begin_from

SHOWN = 4
"""Frames from the context on that the recurrent state is shown at most; then it foresees."""
JUDGED = 6
"""Instructions that each step is judged by, drawn for each step."""
ENDS = 0.25
"""Of the segments of episodes that end, the share that does so."""


def train_dynamics(config: DynamicsTraining) -> Path:
    """Train until `config.steps`; returns the checkpoint folder."""
    if config.batch % config.processes:
        raise UserError(f"a batch of {config.batch} segments can't be shared by {config.processes} processes")
    # Mistakes show here, in one process, before several begin.
    world = _new_world(config)
    if check_world(config, "world"):
        if (found := load_config(config.out)[0]) != world.config:
            raise UserError(f"{config.out} holds another world, {found}; choose another --out")
        if world_done(config, "world"):
            return config.out
    elif config.begin_from is not None:
        print(begin_from(config.begin_from, world.dynamics, "dynamics."))
    data = load_episodes(config.dataset)
    if (acted := read_codec(data.action_space, data.actions.shape[1])) != world.config.codec:
        raise UserError(
            f"{config.dataset} has actions in {acted.space}; {config.tokenizer} is of a world with "
            f"{world.config.codec.space}: train a tokenizer on this data set"
        )
    launch(_train, config)
    return config.out


def _train(config: DynamicsTraining) -> None:
    with run(config) as accelerator:
        train(DynamicsStage(config, accelerator.device), config, accelerator)


class WorldLoss(nn.Module):
    """The loss of the dynamics over a frozen tokenizer, as one module: what Accelerate wraps."""

    def __init__(self, dynamics: Dynamics, tokenizer: Tokenizer):
        super().__init__()
        self.dynamics, self.tokenizer = dynamics, tokenizer

    def forward(self, batch: Batch, chances: Chances, self_forcing: int) -> dict[str, Tensor]:
        loss = self.dynamics.loss(batch, self.tokenizer, chances, self_forcing)._asdict()
        scales = zip(self.tokenizer.config.scales, loss.pop("scales"), strict=True)
        return {"loss": loss.pop("total"), **loss, **{f"scale_{scale}": value for scale, value in scales}}


class SegmentStage:
    """What the loop asks of a stage that learns from segments what the next frame is.

    Args:
        world: of which the weights of the dynamics that want a gradient are trained.
        files: that travel with the checkpoint.
    """

    name: str
    clip, warm_up, parts = 1.0, 200, 1

    def __init__(
        self,
        config: DynamicsTraining | FramesTraining,
        world: WorldModel,
        data: Episodes,
        files: dict[str, bytes],
    ):
        dynamics = world.config.dynamics
        self.config, self.world, self.data, self.files = config, world, data, files
        self.frames = config.batch * dynamics.window
        self.logs = config.out.parent / "tensorboard" / self.name
        world.tokenizer.eval().requires_grad_(False)
        self.model = WorldLoss(world.dynamics, world.tokenizer)
        self.optimizer = torch.optim.AdamW(
            [weight for weight in world.dynamics.parameters() if weight.requires_grad],
            config.learning_rate,
            betas=(0.9, 0.95),
            weight_decay=0.01,
        )
        self.batches = Batches(
            data, world.text, config.batch, dynamics, config.prompt_dropout, world.device, world.recurrent
        )
        steps = dynamics.lead + dynamics.window
        self.held_out = sample_segments(data, data.split("validation"), 32, steps, np.random.default_rng(0))
        self.commit = current_commit()
        self.gain: list[float] | None = None
        """Of the newest evaluation, dB at each step."""

    def draw(self, step: int, rank: int, processes: int) -> tuple[Batch, Chances, int]:
        config, generator = self.config, torch.Generator().manual_seed(hash((self.config.seed, step, 0)))
        chances = self.world.dynamics.draw_chances(
            self.world.tokenizer, config.batch, config.token_noise, generator, rank, processes
        )
        late = step >= config.steps * (1 - config.self_forcing_steps)
        # The first rows of the batch are read as the world dreams them itself; of them, those of this process.
        self_forced = len(range(rank, round(config.batch * config.self_forcing), processes)) if late else 0
        return self.batches.draw(config.seed, step, rank, processes), chances, self_forced

    def source(self, step: int) -> str:
        return named(self.config.dataset, self.data.episodes_of(self.batches.rows(self.config.seed, step)[0]))

    @torch.no_grad()
    def evaluate(self, step: int, log: Log, writer: SummaryWriter) -> None:
        """Open-loop dreams of held-out segments, in dB over repeating the last frame seen, for each step."""
        world, segment = self.world, self.held_out
        world.eval()
        seen = world.config.dynamics.observed
        state = world.start(segment.frames[:, :seen], segment.actions[:, : seen - 1])
        dreamed = []
        for when in range(seen - 1, segment.actions.shape[1]):
            state, _ = world.step(state, segment.actions[:, when])
            dreamed.append(world.render(state).cpu().numpy())
        world.dynamics.train()
        frames, real = np.stack(dreamed, 1), segment.frames[:, seen:]
        repeated = np.broadcast_to(segment.frames[:, seen - 1 : seen], real.shape)
        quality = psnr(frames, real).mean(0)
        gain = quality - psnr(repeated, real).mean(0)
        for when in (0, 3, 7, 15):
            if when < len(quality):
                writer.add_scalar(f"validation/psnr_step_{when + 1}", quality[when], step)
                writer.add_scalar(f"validation/psnr_over_repeat_step_{when + 1}", gain[when], step)
        pairs = [stacked([real[i], frames[i]]) for i in range(6)]
        _add_gif(writer, "validation/real_above_dream", side_by_side([stacked(pairs[:3]), stacked(pairs[3:])]), step)
        self.gain = gain.tolist()
        log.say(
            f"step {step + 1}: open loop {gain.mean():+.2f} dB over repeating the last frame seen, "
            f"last step {gain[-1]:+.2f}"
        )

    def save(self, accelerator: Accelerator, step: int) -> None:
        told: dict[str, Any] = {"step": step, "open_loop_psnr_gain": self.gain}
        if accelerator.is_main_process:
            world = self.world
            save_world(
                self.config, world.config, world.state_dict(), "world", self.optimizer, told, self.files, self.commit
            )

    def load(self, accelerator: Accelerator) -> int:
        return load_world(self.config, "world", self.world, self.optimizer)


class DynamicsStage(SegmentStage):
    """A world's dynamics, from scratch or from another world's."""

    name = "dynamics"

    def __init__(self, config: DynamicsTraining, device: torch.device):
        torch.manual_seed(config.seed)
        world, data = _new_world(config).to(device), load_episodes(config.dataset)
        if config.begin_from is not None and not config.out.exists():
            begin_from(config.begin_from, world.dynamics, "dynamics.")
        starts = pick_starts(data, config.starts, config.dynamics.observed)
        super().__init__(config, world, data, {"bpe.json": world.text.to_json().encode(), "starts.npz": starts})


class Batches:
    """Training batches; each follows from (seed, step)."""

    def __init__(
        self,
        data: Episodes,
        text: PhraseTokenizer,
        size: int,
        dynamics: DynamicsConfig,
        prompt_dropout: float,
        device: torch.device,
        recurrent: RecurrentState | None = None,
    ):
        self.data, self.size, self.dynamics, self.prompt_dropout = data, size, dynamics, prompt_dropout
        self.device, self.recurrent = device, recurrent
        self.steps = dynamics.lead + dynamics.window
        self.choose = data.choice(long_enough(data, data.split("train"), self.steps), size)
        self.sentences = list(dict.fromkeys([*data.phrase_list, *data.instructions]))
        self.instruction_rows = np.array([self.sentences.index(text) for text in data.instructions])
        self.ids, self.lengths = text.encode(self.sentences)

    def draw(self, seed: int, step: int, rank: int = 0, processes: int = 1) -> Batch:
        """Rows `rank`, `rank + processes`, ... of batch number `step`."""
        rows, told, asked = (part[rank::processes] for part in self.rows(seed, step))
        segment = segments_at(self.data, rows, self.steps)
        batch = self.batch(segment, told, asked)
        if self.recurrent is None:
            return batch
        shown = np.random.default_rng([seed, step, 1]).integers(1, SHOWN + 1, self.size)[rank::processes]
        return batch._replace(foreseen=self.foresee(segment, np.where(told, 0, self.dynamics.lead), shown))

    def rows(self, seed: int, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of a whole batch: where its segments begin, which are told of the motion before them, and which instructions
        [b, t, q] each step is judged by."""
        rng = np.random.default_rng([seed, step, 0])
        begin = rows_within(self.data, self.choose(seed, step, rng), self.steps, rng, ENDS)
        told = np.zeros(self.size, bool)
        if self.dynamics.lead:
            told = rng.random(self.size) >= self.prompt_dropout
        return begin, told, rng.integers(len(self.data.instructions), size=(self.size, self.dynamics.window, JUDGED))

    def batch(self, segment: Segment, told: np.ndarray, asked: np.ndarray) -> Batch:
        """On the device; of a segment's frames the first `lead` are for the motion prompt alone."""
        lead = self.dynamics.lead
        before, segment = segment.frames[:, :lead], segment.since(lead)
        context = segment.frames[:, 0]
        prompt, earlier = context, context
        if lead:
            observed = np.concatenate([before, context[:, None]], 1)
            prompt = np.stack([motion_prompt(each if t else each[-1:]) for each, t in zip(observed, told, strict=True)])
            earlier = before[:, -1]
        phrases = np.maximum(segment.sentences, 0)
        # Only the sentences of this batch are read by the backbone.
        used, rows = np.unique(
            np.concatenate([phrases.flatten(), self.instruction_rows[asked].flatten()]), return_inverse=True
        )
        phrase_rows, instruction_rows = rows[: phrases.size], rows[phrases.size :]
        images = to_float(self._tensor(segment.frames.reshape(-1, *segment.frames.shape[2:])))
        images = images.unflatten(0, segment.frames.shape[:2])
        lengths = self.lengths[used]
        return Batch(
            context=images[:, 0],
            prompt=to_float(self._tensor(prompt)),
            earlier=to_float(self._tensor(earlier)),
            has_prompt=self._tensor(told),
            frames=images,
            actions=self._tensor(segment.actions),
            sentences=self._tensor(np.where(segment.sentences >= 0, phrase_rows.reshape(phrases.shape), -1)),
            sentence_actions=self._tensor(segment.sentence_actions),
            instructions=self._tensor(instruction_rows.reshape(asked.shape)),
            rewards=self._tensor(np.take_along_axis(segment.rewards, asked, -1)),
            successes=self._tensor(np.take_along_axis(segment.successes, asked, -1).astype(np.float32)),
            terminations=self._tensor(np.take_along_axis(segment.terminations, asked, -1).astype(np.float32)),
            phrase_ids=self.ids[used][:, : int(lengths.max())].to(self.device),
            phrase_lengths=lengths.to(self.device),
        )

    @torch.no_grad()
    def foresee(self, segment: Segment, first: np.ndarray, shown: np.ndarray) -> Float[Tensor, "b t p g g"]:
        """What the recurrent state pictures after each action from the context on, as a dream has it: it has observed
        the frames from number `first` [b] on, and of the context and those after it as many as `shown` [b]."""
        recurrent, lead = self.recurrent, self.dynamics.lead
        assert recurrent is not None
        most, begins, ends = lead + int(shown.max()), self._tensor(first), self._tensor(lead + shown)
        embedded = recurrent.embed(self._tensor(segment.frames[:, :most]).flatten(0, 1)).unflatten(0, (-1, most))
        state, states = recurrent.initial.expand(len(shown), -1), []
        for when in range(self.steps + 1):
            if when:
                moved = recurrent.predict(state, self._tensor(segment.actions[:, when - 1]))
                state = torch.where((when > begins)[:, None], moved, state)
                states.append(state)
            if when < most:
                seen = ((when >= begins) & (when < ends))[:, None]
                state = torch.where(seen, recurrent.correct(state, embedded[:, when]), state)
        return recurrent.pictured(torch.stack(states[lead:], 1))

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)


def pick_starts(data: Episodes, count: int, observed: int) -> bytes:
    """The first `observed` frames of test episodes, what was done at each, and what is already a success in the newest,
    as a compressed npz. Episodes that are over by then are left out."""
    episodes = data.split("test")
    episodes = episodes[np.diff(data.starts)[episodes] > observed][:count]
    rows = data.starts[episodes][:, None] + np.arange(observed)
    buffer = io.BytesIO()
    parts = {"frames": data.frames[rows], "actions": data.actions[rows], "successes": data.successes[rows[:, -1]]}
    np.savez_compressed(buffer, allow_pickle=False, **parts)
    return buffer.getvalue()


def _new_world(config: DynamicsTraining) -> WorldModel:
    found, stage = load_config(config.tokenizer)
    if config.dynamics.from_state:
        raise UserError("frames are drawn from a recurrent state by `worldgym train frames`, once there is one")
    sentences = tuple(dict.fromkeys([*found.phrases, *found.instructions]))
    text = PhraseTokenizer.train(sentences, config.dynamics.vocabulary)
    world = WorldModel(replace(found, dynamics=config.dynamics, recurrent=None), text)
    weights = load_tensors(config.tokenizer / "model.safetensors")
    if stage == "world":
        part = "tokenizer."
        weights = {name.removeprefix(part): value for name, value in weights.items() if name.startswith(part)}
    load_weights(world.tokenizer, weights, config.tokenizer)
    return world


def _add_gif(writer: SummaryWriter, tag: str, video: np.ndarray, step: int) -> None:
    """What `SummaryWriter.add_video` does, without its need for moviepy. `video` is uint8 [t, h, w, 3]."""
    height, width = video.shape[1:3]
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=gif(video))
    writer._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)
