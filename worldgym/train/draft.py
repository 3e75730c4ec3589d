"""Stage three, for planners: a draft learns to look ahead over the frozen maps and heads of a world.

It is trained on what it is used for: on its own maps, several steps on, first a few and then a whole window. The loss
is how far they are from the true frames' maps, and what the world's heads make of them.
"""

import time
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from ..checkpoint import (
    decoder_files,
    fingerprint,
    load_config,
    load_tensors,
    recover,
    resume,
    save_checkpoint,
    training_state,
)
from ..config import DraftConfig
from ..data import Episodes, load_episodes
from ..interrupt import between_steps
from ..listing import find_world
from ..model.device import pick_device
from ..model.pixels import to_float
from ..results import current_commit, provenance
from ..world import WorldModel
from .settings import DraftTraining
from .together import average_gradients, in_any, run_together
from .tokenizer import schedule

JUDGED = 2
"""Instructions that each step is judged by, drawn anew for each."""


class DraftLoss(NamedTuple):
    total: Tensor
    error: Float[Tensor, " h"]
    """Squared error of the maps at each step ahead, relative to repeating the first."""
    reward: Float[Tensor, " h"]
    """Squared error of the rewards read off them."""
    terminated: Tensor


def train_draft(config: DraftTraining) -> Path:
    """Train until `config.steps`; returns the checkpoint folder."""
    source, stage = load_config(find_world(config.world))
    if stage != "world":
        raise ValueError(f"{config.world} holds a {stage} only; train its dynamics first")
    if config.batch % config.processes:
        raise ValueError(f"a batch of {config.batch} stretches can't be shared by {config.processes} processes")
    if not config.ahead or any(source.dynamics.window % length for length in config.ahead):
        raise ValueError(f"--ahead is {config.ahead}; the window of {config.world} has {source.dynamics.window} steps")
    recover(config.out)
    if config.out.exists() and (found := load_config(config.out)[0]) != replace(source, draft=config.draft):
        raise ValueError(f"{config.out} holds another world, {found}; choose another --out")
    data = load_episodes(config.dataset)
    if data.instructions != source.instructions:
        raise ValueError(
            f"{config.dataset} judges by {len(data.instructions)} instructions and {config.world} by "
            f"{len(source.instructions)}, not the same ones; name the recording that the world was trained on"
        )
    if config.out.exists() and int(load_tensors(config.out / "training.safetensors")["step"]) >= config.steps:
        return config.out  # there is nothing to read the recording for
    device = pick_device(config.device)
    world = WorldModel.load(config.world, str(device))
    read_maps(world, data, _maps_path(config, world, data))
    run_together(_train, config.processes if device.type == "cpu" else 1, config)
    _maps_path(config, world, data).unlink()
    return config.out


def _maps_path(config: DraftTraining, world: WorldModel, data: Episodes) -> Path:
    """Beside the run; by what was read and by whom, so that a run that was killed leaves nothing to another."""
    dataset = config.dataset.replace("/", "_")
    return config.out.with_name(
        f"{config.out.name}_maps_{dataset}_{len(data.frames)}_{fingerprint(world.tokenizer)}.npy"
    )


def _train(rank: int, config: DraftTraining) -> None:
    device, folder = pick_device(config.device), find_world(config.world)
    torch.manual_seed(config.seed)
    world = drafting(WorldModel.load(config.world, str(device)), config.draft)
    assert world.draft is not None
    data = load_episodes(config.dataset)
    optimizer = torch.optim.AdamW(world.draft.parameters(), config.learning_rate, betas=(0.9, 0.99), weight_decay=1e-3)
    first = resume(config.out, world, optimizer) if config.out.exists() else 0
    if first and rank == 0:
        print(f"resuming {config.out} at step {first}")
    share = config.batch // config.processes if device.type == "cpu" else config.batch
    true_maps = read_maps(world, data, _maps_path(config, world, data))
    train = true_maps.of(data.split("train"))
    instructions = world.read_instructions(list(data.instructions))
    extras = {name: (folder / name).read_bytes() for name in ("bpe.json", "starts.npz")}
    if (folder / "decoder").exists():
        extras |= {f"decoder/{path.name}": path.read_bytes() for path in decoder_files(folder / "decoder")}
    commit = current_commit()
    figures: dict[str, float] = {}  # of the newest evaluation

    def save(step: int) -> None:
        if rank == 0:
            told = {"step": step, "held_out": figures, "training": asdict(config)}
            files = extras | {"run.json": provenance(config.seed, told, commit).encode()}
            state = training_state(optimizer, step)
            save_checkpoint(config.out, world.config, world.state_dict(), "world", files, state)

    writer = SummaryWriter(config.out.parent / "tensorboard" / "draft", purge_step=first) if rank == 0 else None
    started = time.monotonic()
    with (
        tqdm(total=config.steps, initial=first, desc="draft", unit="step", disable=rank > 0) as progress,
        between_steps() as interrupted,
    ):
        for step in range(first, config.steps):
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * schedule(step, config.steps)
            rng = np.random.default_rng([config.seed, step, rank])
            length = config.ahead[step * len(config.ahead) // config.steps]
            loss = draft_loss(world, data, true_maps, rng.choice(train, share), instructions, length, rng)
            optimizer.zero_grad(set_to_none=True)
            loss.total.backward()
            average_gradients(world.draft.parameters())
            torch.nn.utils.clip_grad_norm_(world.draft.parameters(), 1.0)
            optimizer.step()
            progress.update()
            if writer and step % 20 == 0:
                writer.add_scalar(f"loss/error_{length}_steps", loss.error.mean().item(), step)
                writer.add_scalar(f"loss/reward_{length}_steps", loss.reward.mean().item(), step)
                writer.add_scalar("loss/terminated", loss.terminated.item(), step)
                frames = (step + 1 - first) * config.batch * world.config.dynamics.window
                writer.add_scalar("speed/frames_per_second", frames / (time.monotonic() - started), step)
            if (step + 1) % config.evaluate_every == 0 or step + 1 == config.steps:
                if writer:
                    figures |= _evaluate(world, data, true_maps, instructions, writer, step)
                    progress.set_postfix({name: f"{value:.2f}" for name, value in figures.items()})
                save(step + 1)
            if in_any(interrupted()):
                save(step + 1)
                raise KeyboardInterrupt(f"saved at step {step + 1}; the same command goes on from there")
    if writer:
        writer.close()


def drafting(world: WorldModel, config: DraftConfig) -> WorldModel:
    """The same world, with a draft that begins anew, the one part of it that is trained."""
    drafted = WorldModel(replace(world.config, draft=config), world.text).to(world.device)
    fresh = {name: tensor for name, tensor in drafted.state_dict().items() if name.startswith("draft.")}
    kept = {name: tensor for name, tensor in world.state_dict().items() if not name.startswith("draft.")}
    drafted.load_state_dict(kept | fresh)
    drafted.eval().requires_grad_(False)
    assert drafted.draft is not None
    drafted.draft.requires_grad_(True)
    return drafted


class TrueMaps(NamedTuple):
    """Fused maps of a recording, read once: stretches of a window of steps that tile its episodes."""

    maps: np.ndarray
    """float16 [n, frames, f, g, g], each stretch relative to its first frame; memory-mapped."""
    rows: np.ndarray
    """int64 [n], of the frame that each begins with."""
    episodes: np.ndarray
    """int64 [n], that each is of."""

    def of(self, episodes: np.ndarray) -> np.ndarray:
        """Numbers of the stretches of these episodes."""
        return np.flatnonzero(np.isin(self.episodes, episodes))


def read_maps(world: WorldModel, data: Episodes, path: Path) -> TrueMaps:
    """Read all frames into maps, at `path`, where they stay for a run that is resumed."""
    window, before = world.config.dynamics.window, _before(world)
    frames = before + window + 1
    rows, episodes = [], []
    for episode, (start, end) in enumerate(pairwise(data.starts.tolist())):
        first = [*range(start, end - frames, window), end - frames] if end - start >= frames else []
        rows += first
        episodes += [episode] * len(first)
    if not rows:
        raise ValueError(f"no episode is as long as the {frames} frames of a window; record longer ones")
    if not path.exists():
        temporary = path.with_name(path.name + ".tmp")
        grid, width = world.config.tokenizer.grid, world.config.tokenizer.width
        path.parent.mkdir(parents=True, exist_ok=True)
        maps = np.lib.format.open_memmap(temporary, "w+", np.float16, (len(rows), frames, width, grid, grid))
        for index, row in enumerate(tqdm(rows, desc="reading frames", unit="stretch")):
            maps[index] = _read(world, data.frames[row : row + frames])
        maps.flush()
        temporary.rename(path)
    return TrueMaps(np.load(path, mmap_mode="r"), np.array(rows), np.array(episodes))


@torch.no_grad()
def _read(world: WorldModel, frames: np.ndarray) -> np.ndarray:
    images = to_float(torch.from_numpy(np.array(frames)).to(world.device))
    with torch.autocast(world.device.type, torch.bfloat16):
        contexts = world.tokenizer.encode_context(images[:1]).expand(len(images), -1, -1, -1)
        return world.tokenizer.fuse(world.latent(images, contexts), contexts).half().cpu().numpy()


def _before(world: WorldModel) -> int:
    """Frames before those that count: one, to tell how the first map moves, in a world with `memory`."""
    return int(world.config.dynamics.memory > 1)


def draft_loss(
    world: WorldModel,
    data: Episodes,
    true_maps: TrueMaps,
    chosen: np.ndarray,
    instructions: Float[Tensor, "m d"],
    ahead: int,
    rng: np.random.Generator,
) -> DraftLoss:
    """Of the chosen stretches, each cut into pieces of `ahead` steps that the draft goes by itself.

    Args:
        instructions: those of the data, as the world reads them.
    """
    assert world.draft is not None
    window, before = world.config.dynamics.window, _before(world)
    asked = rng.integers(len(data.instructions), size=(len(chosen), window, JUDGED))
    now = true_maps.rows[chosen][:, None] + before + np.arange(window)

    def cut(array: np.ndarray | Tensor) -> Tensor:
        """[stretches, window, ...] -> [pieces, ahead, ...], on the device."""
        whole = array if isinstance(array, Tensor) else torch.from_numpy(array)
        return whole.to(world.device).unflatten(1, (-1, ahead)).flatten(0, 1)

    def answers(judged: np.ndarray) -> Tensor:
        return cut(np.take_along_axis(judged[now + 1], asked, -1).astype(np.float32))

    maps = torch.from_numpy(true_maps.maps[chosen]).to(world.device).float()
    fused, true = cut(maps[:, before:-1])[:, 0], cut(maps[:, before + 1 :])
    still = (true - fused[:, None]).square().mean((0, 2, 3, 4)).clamp(min=1e-6)
    motion = cut(maps[:, 1:-1] - maps[:, :-2])[:, 0] if before else None
    made, moved = [], []
    with torch.autocast(world.device.type, torch.bfloat16):
        for action in cut(data.actions[now]).unbind(1):
            after = world.draft(fused, action, motion).float()
            made.append(after)
            moved.append(after - fused)
            fused, motion = after, moved[-1] if before else None
        heads = world.dynamics.outcome_heads
        features = heads.features(
            torch.stack(made, 1).flatten(0, 1), torch.stack(moved, 1).flatten(0, 1) if before else None
        )
        judged = heads(features.repeat_interleave(JUDGED, 0), instructions[cut(asked).flatten()])
    error = (torch.stack(made, 1) - true).square().mean((0, 2, 3, 4)) / still
    reward = (judged.reward.float().mean(0).view(-1, ahead, JUDGED) - answers(data.rewards)).square().mean((0, 2))
    over = answers(data.terminations)
    terminated = F.binary_cross_entropy_with_logits(judged.terminated.float().mean(0).view_as(over), over)
    # Relative, as the maps' error: rewards are metres here, fractions of a table there.
    relative = reward.mean() / data.reward_variance
    return DraftLoss(error.mean() + relative + terminated, error.detach(), reward.detach(), terminated)


@torch.no_grad()
def _evaluate(
    world: WorldModel, data: Episodes, true_maps: TrueMaps, instructions: Tensor, writer: SummaryWriter, step: int
) -> dict[str, float]:
    """Of held-out stretches, over the whole window."""
    rng = np.random.default_rng(0)
    held_out = np.sort(rng.permutation(true_maps.of(data.split("validation")))[:64])
    loss = draft_loss(world, data, true_maps, held_out, instructions, world.config.dynamics.window, rng)
    figures = {}
    for when in (1, 4, 8, 12, 16):
        if when <= len(loss.error):
            figures[f"error_{when}"] = loss.error[when - 1].item()
            figures[f"reward_off_{when}"] = loss.reward[when - 1].sqrt().item()
    for name, value in figures.items():
        writer.add_scalar(f"validation/{name}", value, step)
    return figures
