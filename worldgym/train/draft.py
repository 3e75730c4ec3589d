"""Stage three, for planners: a draft learns to look ahead over the frozen maps and heads of a world.

It is trained on what it is used for: on its own maps, several steps on, first a few and then a whole window. The loss
is how far they are from the true frames' maps, and what the world's heads make of them.
"""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from ..checkpoint import decoder_files, fingerprint, load_config, load_tensors
from ..config import DraftConfig
from ..data import Episodes, load_episodes
from ..errors import UserError
from ..listing import find_world
from ..model.device import pick_device
from ..model.pixels import to_float
from ..model.processes import mean_of_processes
from ..results import current_commit
from ..world import WorldModel
from .checkpoints import check_world, load_world, save_world, training_into
from .launch import launch, launched
from .log import Log
from .loop import named, run, train
from .settings import DraftTraining

JUDGED = 2
"""Instructions that each step is judged by, drawn for each step."""


def train_draft(config: DraftTraining) -> Path:
    """Train until `config.steps`; returns the checkpoint folder."""
    source, stage = load_config(find_world(config.world))
    if stage != "world":
        raise UserError(f"{config.world} holds a {stage} only; train its dynamics first")
    if config.batch % config.processes:
        raise UserError(f"a batch of {config.batch} stretches can't be shared by {config.processes} processes")
    if not config.ahead or any(source.dynamics.window % length for length in config.ahead):
        raise UserError(f"--ahead is {config.ahead}; the window of {config.world} has {source.dynamics.window} steps")
    resuming = check_world(config, "world")
    if resuming and (found := load_config(config.out)[0]) != replace(source, draft=config.draft):
        raise UserError(f"{config.out} holds another world, {found}; choose another --out")
    data = load_episodes(config.dataset)
    if data.instructions != source.instructions:
        raise UserError(
            f"{config.dataset} judges by {len(data.instructions)} instructions and {config.world} by "
            f"{len(source.instructions)}, not the same ones; name the recording that the world was trained on"
        )
    if resuming and int(load_tensors(config.out / "training.safetensors")["step"]) >= config.steps:
        return config.out  # there is nothing to read the recording for
    world = WorldModel.load(config.world, str(pick_device(config.device)))
    if not launched():  # one process reads faster than several of which all but one wait
        with training_into(config.out):
            read_maps(world, data, _maps_path(config, world, data))
    launch(_train, config)
    _maps_path(config, world, data).unlink(missing_ok=True)
    return config.out


def _maps_path(config: DraftTraining, world: WorldModel, data: Episodes) -> Path:
    """Next to the run and named after data and tokenizer, so that no other run reads what a killed one left."""
    dataset = config.dataset.replace("/", "_")
    return config.out.with_name(
        f"{config.out.name}_maps_{dataset}_{len(data.frames)}_{fingerprint(world.tokenizer)}.npy"
    )


def _train(config: DraftTraining) -> None:
    with run(config) as accelerator:
        with accelerator.main_process_first():
            stage = DraftStage(config, accelerator.device)
        train(stage, config, accelerator)


class Stretches(NamedTuple):
    """Stretches of a recording, on the device; w steps of a window, q instructions that each is judged by."""

    maps: Float[Tensor, "b m f g g"]
    """Fused maps in truth: of the frame that the window begins with and of its steps; with motion, of one before."""
    actions: Float[Tensor, "b w a"]
    asked: Int[Tensor, "b w q"]
    rewards: Float[Tensor, "b w q"]
    terminations: Float[Tensor, "b w q"]


class DraftStage:
    """What the loop asks of this stage."""

    name, clip, warm_up, parts = "draft", 1.0, 200, 1

    def __init__(self, config: DraftTraining, device: torch.device):
        self.config, folder = config, find_world(config.world)
        self.logs = config.out.parent / "tensorboard" / "draft"
        torch.manual_seed(config.seed)
        self.world = world = drafting(WorldModel.load(config.world, str(device)), config.draft)
        assert world.draft is not None
        self.frames = config.batch * world.config.dynamics.window
        self.data = data = load_episodes(config.dataset)
        self.optimizer = torch.optim.AdamW(
            world.draft.parameters(), config.learning_rate, betas=(0.9, 0.99), weight_decay=1e-3
        )
        self.maps = read_maps(world, data, _maps_path(config, world, data))
        self.training, self.validation = (self.maps.of(data.split(name)) for name in ("train", "validation"))
        self.model = DraftLoss(world, world.read_instructions(list(data.instructions)), data.reward_variance)
        self.files = {name: (folder / name).read_bytes() for name in ("bpe.json", "starts.npz")}
        if (folder / "decoder").exists():
            self.files |= {f"decoder/{path.name}": path.read_bytes() for path in decoder_files(folder / "decoder")}
        self.commit = current_commit()
        self.figures: dict[str, float] = {}
        """Of the newest evaluation."""

    def draw(self, step: int, rank: int, processes: int) -> tuple[Stretches, int]:
        chosen, asked = (part[rank::processes] for part in self._rows(step))
        ahead = self.config.ahead[step * len(self.config.ahead) // self.config.steps]
        return cut_stretches(self.world, self.data, self.maps, chosen, asked), ahead

    def _rows(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng([self.config.seed, step, 0])
        chosen = rng.choice(self.training, self.config.batch)
        return chosen, ask(self.world, self.data, len(chosen), rng)

    def source(self, step: int) -> str:
        return named(self.config.dataset, self.maps.episodes[self._rows(step)[0]])

    @torch.no_grad()
    def evaluate(self, step: int, log: Log, writer: SummaryWriter) -> None:
        """Held-out stretches, over the whole window."""
        rng = np.random.default_rng(0)
        held_out = np.sort(rng.permutation(self.validation)[:64])
        asked = ask(self.world, self.data, len(held_out), rng)
        stretches = cut_stretches(self.world, self.data, self.maps, held_out, asked)
        found = self.model.errors(stretches, self.world.config.dynamics.window)
        error = found.error / found.still
        for when in (1, 4, 8, 12, 16):
            if when <= len(error):
                self.figures[f"error_{when}"] = error[when - 1].item()
                self.figures[f"reward_off_{when}"] = found.reward[when - 1].sqrt().item()
        for name, value in self.figures.items():
            writer.add_scalar(f"validation/{name}", value, step)
        log.say(f"step {step + 1}: " + ", ".join(f"{name} {value:.2f}" for name, value in self.figures.items()))

    def save(self, accelerator: Accelerator, step: int) -> None:
        told: dict[str, Any] = {"step": step, "held_out": self.figures}
        if accelerator.is_main_process:
            world = self.world
            save_world(
                self.config, world.config, world.state_dict(), "world", self.optimizer, told, self.files, self.commit
            )

    def load(self, accelerator: Accelerator) -> int:
        return load_world(self.config, "world", self.world, self.optimizer)


def drafting(world: WorldModel, config: DraftConfig) -> WorldModel:
    """The same world with a fresh draft, the only part that is trained."""
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
        raise UserError(f"no episode is as long as the {frames} frames of a window; record longer ones")
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
    """Frames before the first map: one in a world with `memory`, to show how that map moves, else none."""
    return int(world.config.dynamics.memory > 1)


def ask(world: WorldModel, data: Episodes, stretches: int, rng: np.random.Generator) -> np.ndarray:
    """Which instructions each step of `stretches` stretches is judged by, int64 [b, w, q]."""
    return rng.integers(len(data.instructions), size=(stretches, world.config.dynamics.window, JUDGED))


def cut_stretches(
    world: WorldModel, data: Episodes, true_maps: TrueMaps, chosen: np.ndarray, asked: np.ndarray
) -> Stretches:
    """The chosen stretches."""
    now = true_maps.rows[chosen][:, None] + _before(world) + np.arange(world.config.dynamics.window)
    answers = (np.take_along_axis(each[now + 1], asked, -1) for each in (data.rewards, data.terminations))
    parts = (data.actions[now], asked, *(each.astype(np.float32) for each in answers))
    maps = torch.from_numpy(true_maps.maps[chosen]).to(world.device).float()
    return Stretches(maps, *(torch.from_numpy(part).to(world.device) for part in parts))


class DraftErrors(NamedTuple):
    """What a draft is off by after each of h steps."""

    error: Float[Tensor, " h"]
    """Squared error of the maps."""
    still: Float[Tensor, " h"]
    """That of repeating the first map."""
    reward: Float[Tensor, " h"]
    """Squared error of the rewards read off the maps."""
    terminated: Float[Tensor, ""]
    """Cross-entropy of the ends."""


class DraftLoss(nn.Module):
    """The loss of a world's draft, its one part that is trained, as one module: what Accelerate wraps.

    Args:
        instructions: those of the data, as the world reads them.
        reward_variance: theirs; rewards are metres here, fractions of a table there.
    """

    def __init__(self, world: WorldModel, instructions: Float[Tensor, "m d"], reward_variance: float):
        super().__init__()
        self.world, self.instructions, self.reward_variance = world, instructions, reward_variance

    def forward(self, stretches: Stretches, ahead: int) -> dict[str, Tensor]:
        found = self.errors(stretches, ahead)
        error, reward = (found.error / mean_of_processes(found.still)).mean(), found.reward.mean()
        total = error + reward / self.reward_variance + found.terminated
        parts = {f"error_{ahead}_steps": error, f"reward_{ahead}_steps": reward, "terminated": found.terminated}
        return {"loss": total, **parts}

    def errors(self, stretches: Stretches, ahead: int) -> DraftErrors:
        """Of stretches, each cut into pieces of `ahead` steps that the draft goes by itself."""
        world, maps, before = self.world, stretches.maps, _before(self.world)
        assert world.draft is not None

        def cut(whole: Tensor) -> Tensor:
            """[stretches, window, ...] -> [pieces, ahead, ...]."""
            return whole.unflatten(1, (-1, ahead)).flatten(0, 1)

        fused, true = cut(maps[:, before:-1])[:, 0], cut(maps[:, before + 1 :])
        still = (true - fused[:, None]).square().mean((0, 2, 3, 4)).clamp(min=1e-6)
        motion = cut(maps[:, 1:-1] - maps[:, :-2])[:, 0] if before else None
        made, moved = [], []
        with torch.autocast(world.device.type, torch.bfloat16):
            for action in cut(stretches.actions).unbind(1):
                after = world.draft(fused, action, motion).float()
                made.append(after)
                moved.append(after - fused)
                fused, motion = after, moved[-1] if before else None
            heads = world.dynamics.outcome_heads
            features = heads.features(
                torch.stack(made, 1).flatten(0, 1), torch.stack(moved, 1).flatten(0, 1) if before else None
            )
            votes = heads(features.repeat_interleave(JUDGED, 0), self.instructions[cut(stretches.asked).flatten()])
        error = (torch.stack(made, 1) - true).square().mean((0, 2, 3, 4))
        said = votes.reward.float().mean(0).view(-1, ahead, JUDGED)
        reward = (said - cut(stretches.rewards)).square().mean((0, 2))
        over = cut(stretches.terminations)
        terminated = F.binary_cross_entropy_with_logits(votes.terminated.float().mean(0).view_as(over), over)
        return DraftErrors(error, still, reward, terminated)
