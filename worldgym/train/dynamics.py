"""Stage two: the world learns what happens next, over frozen tokens; its checkpoint is the whole world."""

import io
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from ..checkpoint import (
    load_config,
    load_tensors,
    load_weights,
    recover,
    resume,
    save_checkpoint,
    training_state,
)
from ..config import DynamicsConfig
from ..data import Episodes, Segment, load_episodes, sample_segments
from ..evaluate.video import gif, side_by_side, stacked
from ..interrupt import between_steps
from ..metrics import psnr
from ..model.device import pick_device
from ..model.dynamics import Batch, DynamicsLoss
from ..model.pixels import to_float
from ..model.text import PhraseTokenizer
from ..motion import motion_prompt
from ..results import current_commit, provenance
from ..world import WorldModel
from .settings import DynamicsTraining
from .together import average_gradients, in_any, run_together
from .tokenizer import begin_from, schedule

JUDGED = 6
"""Instructions that each step is judged by, drawn anew for each."""
ENDS = 0.25
"""Of the segments of episodes that end, the share that does so."""


def train_dynamics(config: DynamicsTraining) -> Path:
    """Train until `config.steps`; returns the checkpoint folder."""
    if config.batch % config.processes:
        raise ValueError(f"a batch of {config.batch} segments can't be shared by {config.processes} processes")
    # Mistakes show here, in one process, before several begin.
    world = _new_world(config)
    _check_resumable(config, world)
    if config.begin_from is not None and not config.out.exists():
        print(begin_from(config.begin_from, world.dynamics, "dynamics."))
    load_episodes(config.dataset)
    on_cpu = pick_device(config.device).type == "cpu"
    run_together(_train, config.processes if on_cpu else 1, config)
    return config.out


def _train(rank: int, config: DynamicsTraining) -> None:
    device = pick_device(config.device)
    torch.manual_seed(config.seed)
    world = _new_world(config).to(device)
    data = load_episodes(config.dataset)
    world.tokenizer.eval().requires_grad_(False)
    model = world.dynamics
    optimizer = torch.optim.AdamW(model.parameters(), config.learning_rate, betas=(0.9, 0.95), weight_decay=0.01)
    first = _begin(config, world, optimizer)
    share = config.batch // config.processes if device.type == "cpu" else config.batch
    batches = Batches(data, world.text, share, config.dynamics, config.prompt_dropout, device)
    log = Log(config, world, data, first) if rank == 0 else None

    def save(step: int) -> None:
        if log:
            state = training_state(optimizer, step)
            save_checkpoint(config.out, world.config, world.state_dict(), "world", log.extras(step), state)

    with between_steps() as interrupted:
        for step in range(first, config.steps):
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * schedule(step, config.steps)
            # Everything random follows from (seed, step, process), so a resumed run goes on as it would have.
            torch.manual_seed(hash((config.seed, step, rank)))
            own = round(share * config.self_forcing) if step >= config.steps * (1 - config.self_forcing_steps) else 0
            with torch.autocast(device.type, torch.bfloat16):
                loss = model.loss(batches.draw(config.seed, step, rank), world.tokenizer, config.token_noise, own)
            optimizer.zero_grad(set_to_none=True)
            loss.total.backward()
            average_gradients(model.parameters())
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            if log:
                log.step(step, loss, norm)
            if (step + 1) % config.evaluate_every == 0 or step + 1 == config.steps:
                if log:
                    log.evaluate(step)
                save(step + 1)
            if in_any(interrupted()):
                save(step + 1)
                raise KeyboardInterrupt(f"saved at step {step + 1}; the same command goes on from there")
    if log:
        log.close()


class Log:
    """What is told of a run: a progress bar, TensorBoard's scalars, and dreams of held-out segments."""

    def __init__(self, config: DynamicsTraining, world: WorldModel, data: Episodes, first: int):
        self.config, self.world = config, world
        held_out = data.split("validation")
        steps = config.dynamics.lead + config.dynamics.window
        self.segment = sample_segments(data, held_out, 32, steps, np.random.default_rng(0))
        starts = pick_starts(data, config.starts, config.dynamics.observed)
        self.files = {"bpe.json": world.text.to_json().encode(), "starts.npz": starts}
        self.commit = current_commit()
        self.gain: list[float] | None = None
        """Of the newest evaluation, dB at each step."""
        self.writer = SummaryWriter(config.out.parent / "tensorboard" / "dynamics", purge_step=first)
        self.progress = tqdm(total=config.steps, initial=first, desc="dynamics", unit="step")
        self.first, self.started = first, time.monotonic()
        if first:
            tqdm.write(f"resuming {config.out} at step {first}")

    def step(self, step: int, loss: DynamicsLoss, norm: torch.Tensor) -> None:
        self.progress.update()
        if step % 20:
            return
        add = self.writer.add_scalar
        add("loss/tokens", loss.tokens.item(), step)
        for scale, value in zip(self.world.config.tokenizer.scales, loss.scales, strict=True):
            add(f"loss/scale_{scale}", value.item(), step)
        for name in ("guess", "reward", "success", "terminated", "sentence"):
            add(f"loss/{name}", getattr(loss, name).item(), step)
        add("loss/gradient_norm", norm.item(), step)
        frames = (step + 1 - self.first) * self.config.batch * self.config.dynamics.window
        add("speed/frames_per_second", frames / (time.monotonic() - self.started), step)
        self.progress.set_postfix(
            {name: f"{getattr(loss, name).item():.3f}" for name in ("tokens", "guess", "reward", "sentence")}
        )

    def extras(self, step: int) -> dict[str, bytes]:
        """What a checkpoint has beside weights; `run.json` says what made it, and how good it is."""
        told = {"step": step, "open_loop_psnr_gain": self.gain, "training": asdict(self.config)}
        return self.files | {"run.json": provenance(self.config.seed, told, self.commit).encode()}

    def evaluate(self, step: int) -> None:
        gain = _evaluate(self.world, self.segment, self.writer, step)
        self.gain = gain.tolist()
        tqdm.write(
            f"step {step + 1}: open loop {gain.mean():+.2f} dB over repeating the last frame seen, "
            f"last step {gain[-1]:+.2f}"
        )

    def close(self) -> None:
        self.progress.close()
        self.writer.close()


class Batches:
    """Training batches; each follows from (seed, step, process)."""

    def __init__(
        self,
        data: Episodes,
        text: PhraseTokenizer,
        size: int,
        dynamics: DynamicsConfig,
        prompt_dropout: float,
        device: torch.device,
    ):
        self.data, self.size, self.dynamics, self.prompt_dropout = data, size, dynamics, prompt_dropout
        self.device = device
        self.episodes = data.split("train")
        self.sentences = list(dict.fromkeys([*data.phrase_list, *data.instructions]))
        self.instruction_rows = np.array([self.sentences.index(text) for text in data.instructions])
        self.ids, self.lengths = text.encode(self.sentences)

    def draw(self, seed: int, step: int, rank: int) -> Batch:
        rng = np.random.default_rng([seed, step, rank])
        steps = self.dynamics.lead + self.dynamics.window
        return self.batch(sample_segments(self.data, self.episodes, self.size, steps, rng, ENDS), rng)

    def batch(self, segment: Segment, rng: np.random.Generator) -> Batch:
        """On the device; of a segment's frames the first `lead` are for the motion prompt alone."""
        lead = self.dynamics.lead
        before, segment = segment.frames[:, :lead], segment.since(lead)
        context = segment.frames[:, 0]
        told, prompt, earlier = np.zeros(len(context), bool), context, context
        if lead:
            told = rng.random(len(context)) >= self.prompt_dropout
            observed = np.concatenate([before, context[:, None]], 1)
            prompt = np.stack([motion_prompt(each if t else each[-1:]) for each, t in zip(observed, told, strict=True)])
            earlier = before[:, -1]
        asked = rng.integers(len(self.data.instructions), size=(*segment.actions.shape[:2], JUDGED))
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
            told=self._tensor(told),
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
    sentences = tuple(dict.fromkeys([*found.phrases, *found.instructions]))
    text = PhraseTokenizer.train(sentences, config.dynamics.vocabulary)
    world = WorldModel(replace(found, dynamics=config.dynamics), text)
    weights = load_tensors(config.tokenizer / "model.safetensors")
    if stage == "world":
        part = "tokenizer."
        weights = {name.removeprefix(part): value for name, value in weights.items() if name.startswith(part)}
    load_weights(world.tokenizer, weights, config.tokenizer)
    return world


def _check_resumable(config: DynamicsTraining, world: WorldModel) -> None:
    recover(config.out)
    if config.out.exists() and (found := load_config(config.out)[0]) != world.config:
        raise ValueError(f"{config.out} holds another world, {found}; choose another --out")


def _begin(config: DynamicsTraining, world: WorldModel, optimizer: torch.optim.Optimizer) -> int:
    if config.out.exists():
        return resume(config.out, world, optimizer)
    if config.begin_from is not None:
        begin_from(config.begin_from, world.dynamics, "dynamics.")
    return 0


@torch.no_grad()
def _evaluate(world: WorldModel, segment: Segment, writer: SummaryWriter, step: int) -> np.ndarray:
    """Open-loop dreams of held-out segments; returns dB over repeating the last frame seen, for each step."""
    world.eval()
    seen = world.config.dynamics.observed
    state = world.start(segment.frames[:, :seen], segment.actions[:, : seen - 1])
    dreamed = []
    for when in range(seen - 1, segment.actions.shape[1]):
        state, _ = world.step(state, segment.actions[:, when])
        dreamed.append(world.render(state).cpu().numpy())
    world.dynamics.train()
    frames, real = np.stack(dreamed, 1), segment.frames[:, seen:]
    quality, repeat = (
        psnr(frames, real).mean(0),
        psnr(np.broadcast_to(segment.frames[:, seen - 1 : seen], real.shape), real).mean(0),
    )
    for when in (0, 3, 7, 15):
        if when < len(quality):
            writer.add_scalar(f"validation/psnr_step_{when + 1}", quality[when], step)
            writer.add_scalar(f"validation/psnr_over_repeat_step_{when + 1}", quality[when] - repeat[when], step)
    pairs = [stacked([real[i], frames[i]]) for i in range(6)]
    _add_gif(writer, "validation/real_above_dream", side_by_side([stacked(pairs[:3]), stacked(pairs[3:])]), step)
    return quality - repeat


def _add_gif(writer: SummaryWriter, tag: str, video: np.ndarray, step: int) -> None:
    """What `SummaryWriter.add_video` does, without its need for moviepy. `video` is uint8 [t, h, w, 3]."""
    height, width = video.shape[1:3]
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=gif(video))
    writer._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)
