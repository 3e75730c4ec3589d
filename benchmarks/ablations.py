"""What is each part of the design worth? Worlds that differ in one part, taught alike.

    bash benchmarks/ablations.sh

Tokenizer and dynamics begin from nothing; data, batches and their order, optimiser, optimiser steps and (within 3%) the
number of parameters are the same for all, slips too; nobody is fed with its own dreams. Each row of the table is ours
with another part in the place of one:

    raster        iVideoGPT's scheme (arXiv 2405.15223): 16 tokens a frame, each one pass of the whole backbone
    scales        SAMPO's (arXiv 2509.15536): the scales, each one pass of the whole backbone, all kept in its cache
    single        one scale, all 64 tokens in one pass of the scale head
    symmetric     encoder and decoder don't look at the context, which is tokenised as all other frames
    queries       the next state comes out at query tokens that leave the cache (PAN, arXiv 2511.09057)
    queries_kept  the same, but they stay
    tokens_alone  nothing of what tokens leave out is kept
    timeless      all steps stand at the same time in the backbone's positions: that a step is past is all it can tell

What is compared is what these parts give for as much training; a published model is more than one of them.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from drift import show
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from worldgym.backbone import Backbone, KVCache
from worldgym.bench import by_turns
from worldgym.config import DynamicsConfig, TokenizerConfig, WorldConfig
from worldgym.data import Episodes, Segment, load_episodes
from worldgym.dynamics import Batch, Dynamics
from worldgym.envs_real.tabletop import locate
from worldgym.envs_real.tabletop_cases import BLOCK_WIDTH, held_out_episodes
from worldgym.evaluate import Dreamed, dream, evaluate_dreams, evaluate_objects
from worldgym.layout import TokenLayout
from worldgym.metrics import bootstrap, psnr
from worldgym.outcomes import OutcomeHeads
from worldgym.pixels import to_float, to_uint8
from worldgym.results import current_commit, write_results
from worldgym.scales import entropy
from worldgym.text import PhraseTokenizer
from worldgym.tokenizer import MultiScaleQuantizer, ResidualBlock, Tokenizer, resize_area
from worldgym.train.dynamics import Batches
from worldgym.train.tokenizer import sample_pairs, schedule
from worldgym.world import Outcome, WorldModel

WINDOW = 8
"""Steps the backbones remember; every past scale of every frame has to be trained on."""


@dataclass(frozen=True)
class Ablations:
    """Train and measure what has not been yet, then write the table of all."""

    runs: tuple[str, ...] = ()
    """Only these, each NAME_SEED, and no table: several processes can share the work."""
    dataset: str = "worldgym/tabletop-v0"
    tokenizer_steps: int = 700
    """Optimiser steps of 48 frames."""
    steps: int = 400
    """Optimiser steps of the dynamics."""
    batch: int = 8
    """Segments a step."""
    learning_rate: float = 1e-3
    """Peak, of everything."""
    slips: float = 0.1
    """Mean share of tokens that are replaced by wrong ones in the past that is taught from."""
    episodes: int = 128
    """Held-out episodes of MuJoCo."""
    at: tuple[int, ...] = (1, 4, 8, 16)
    """Steps that the table shows."""
    rounds: int = 5
    """Turns in which speed is measured."""
    out: Path = Path("runs/ablations")
    json: Path = Path("benchmarks/results/tabletop_ablations.json")
    picture: Path = Path("docs/images/ablations.png")


class Variant(NamedTuple):
    name: str
    tokenizer: str = "ours"
    """Of TOKENIZERS."""
    through: str | None = None
    """What goes through the backbone token by token ("raster") or scale by scale ("scales"); None for ours."""
    changed: dict[str, Any] = {}
    """Of our dynamics' configuration."""
    timeless: bool = False
    """Whether the backbone's positions have no time."""
    seeds: int = 1


TOKENIZERS = {
    "ours": TokenizerConfig(),
    "raster": TokenizerConfig(scales=(4,)),
    "single": TokenizerConfig(scales=(8,)),
    "symmetric": TokenizerConfig(),
    "half": TokenizerConfig(resolution=32, scales=(1, 2, 4)),
}
OURS = Variant("ours", seeds=3)
VARIANTS = (
    OURS,
    Variant("raster", "raster", "raster", seeds=3),
    Variant("queries", changed={"predict": "queries"}),
    Variant("queries_kept", changed={"predict": "queries_kept"}),
    Variant("single", "single"),
    Variant("symmetric", "symmetric"),
    Variant("scales", through="scales"),
    Variant("tokens_alone", changed={"residual": 0.0}),
    Variant("timeless", timeless=True),
)
"""In the order of the table; ours first, which the others are measured against."""


class SymmetricTokenizer(Tokenizer):
    """Attention is a map's to itself, and the context's map is made of its tokens as every frame's is. What the
    encoder of contexts no longer holds, one more block each in encoder and decoder does."""

    def __init__(self, config: TokenizerConfig):
        super().__init__(config)
        del self.context_encoder
        self.future_encoder.append(ResidualBlock(config.width))
        self.pixel_decoder.insert(0, ResidualBlock(config.width))

    def encode_context(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d g g"]:
        return self.fuse(self.quantizer.quantize(self.latent(images)).latent)

    def latent(self, images: Tensor, context: Tensor | None = None) -> Float[Tensor, "b z g g"]:
        x = self.future_encoder(images)
        return self.to_latent(self.encoder_attention(x, x))

    def fuse(self, latent: Tensor, context: Tensor | None = None) -> Float[Tensor, "b d g g"]:
        x = self.fuse_blocks[0](self.from_latent(latent))
        return self.fuse_blocks[1](self.decoder_attention(x, x))


class Timeless(TokenLayout):
    """Every step stands where the first one does; that of the context remains another."""

    def step_positions(self, when: Tensor) -> Tensor:
        return super().step_positions(torch.zeros_like(when))


class Loss(NamedTuple):
    total: Tensor
    tokens: Tensor
    reward: Tensor


class ThroughBackbone(nn.Module):
    """Dynamics whose backbone draws the tokens itself, in groups, each one pass: every token sees the groups up to its
    own, of all frames so far, and the dense map of the context before them.

    In raster order a group is a token. The first is the action's, the others carry the code drawn last, and each tells
    the next code (iVideoGPT: the action in the slot before a frame). By scales a group is a scale, whose tokens carry
    what the coarser ones add up to, resized by area, and each tells its own code (VAR, SAMPO); its first carries the
    action.

    One thing is kinder than in those papers: every token is also shown what the frame before has at the place that it
    tells. By scales a past frame's finest codes would else be nobody's input. In raster order they are, but in so short
    a training attention does not find them: without it, dreams did not even keep what stands still.
    """

    def __init__(self, tokenizer: TokenizerConfig, config: DynamicsConfig, action_size: int, raster: bool):
        super().__init__()
        width, scales = config.width, tokenizer.scales
        self.config, self.raster, self.grid, self.tokens = config, raster, tokenizer.grid, tokenizer.tokens
        if raster and len(scales) > 1:
            raise ValueError(f"raster order is that of one map; the tokenizer has scales {scales}")
        self.sides = (*scales, 1) if raster else scales
        """Of the square maps on which lies what a frame's tokens tell; the last in raster order tells nothing."""
        self.step = sum(side * side for side in self.sides)
        self.groups = [1] * self.step if raster else [side * side for side in scales]
        self.cells = nn.Parameter(torch.randn(self.grid**2, width) * 0.02)
        self.slots = nn.Parameter(torch.randn(self.step, width) * 0.02)
        self.from_context = nn.Conv2d(tokenizer.width, width, 1)
        self.from_vector = nn.Sequential(nn.Linear(action_size, 128), nn.SiLU(), nn.Linear(128, width))
        if raster:
            self.from_code = nn.Embedding(tokenizer.codes, width)
            nn.init.normal_(self.from_code.weight, std=0.02)
        else:
            self.from_total = nn.Linear(tokenizer.latent_channels, width)
        self.from_last = nn.Linear(tokenizer.latent_channels, width)
        self.backbone = Backbone(config)
        self.logits = nn.Linear(width, tokenizer.codes)
        self.outcome_heads = OutcomeHeads(tokenizer, config)

    def prefix(self, context: Float[Tensor, "b f g g"]) -> Float[Tensor, "b k d"]:
        return self.from_context(context).flatten(2).transpose(1, 2) + self.cells

    def positions(self, first: int, steps: int) -> Float[Tensor, "3 1 n"]:
        """Time, row and column of each token of `steps` steps from number `first` on, in cells of the latent grid."""
        places = torch.cat([self._places(side) for side in self.sides], 1).repeat(1, steps)
        times = torch.arange(first + 1.0, first + steps + 1).repeat_interleave(self.step)
        return torch.cat([times[None], places])[:, None]

    def prefix_positions(self) -> Float[Tensor, "3 1 k"]:
        places = self._places(self.grid)
        return torch.cat([torch.zeros_like(places[:1]), places])[:, None]

    def _places(self, side: int) -> Float[Tensor, "2 n"]:
        centres = (torch.arange(side) + 0.5) * self.grid / side - 0.5
        return torch.stack([centres.repeat_interleave(side), centres.repeat(side)])

    def mask(self, steps: int) -> Tensor:
        """bool [n, n], True where a row may look at a column, for the prefix and whole steps."""
        group = torch.arange(len(self.groups)).repeat_interleave(torch.tensor(self.groups))
        level = 1 + group + len(self.groups) * torch.arange(steps)[:, None]
        level = torch.cat([torch.zeros(len(self.cells), dtype=torch.long), level.flatten()])
        return level[None] <= level[:, None]

    def scale(
        self, index: int, total: Float[Tensor, "m z g g"], last: Float[Tensor, "m z g g"], action: Float[Tensor, "m d"]
    ) -> Float[Tensor, "m n d"]:
        """What scale number `index` is drawn from.

        Args:
            total: what the coarser scales add up to.
            last: the whole latent of the frame before.
        """
        total = resize_area(total, self.sides[index]).flatten(2).transpose(1, 2)
        x = self.from_total(total) + self.before(index, last) + self.slots.split(self.groups)[index]
        return x + action[:, None] if index == 0 else x

    def before(self, index: int, last: Float[Tensor, "m z g g"]) -> Float[Tensor, "m n d"]:
        """What the frame before has at each place of map number `index`."""
        return self.from_last(resize_area(last, self.sides[index]).flatten(2).transpose(1, 2))

    def forward(
        self,
        context: Float[Tensor, "b f g g"],
        actions: Float[Tensor, "b t a"],
        last: Float[Tensor, "b t z g g"],
        taken: Int[Tensor, "b t n"],
        quantizer: MultiScaleQuantizer,
    ) -> Float[Tensor, "b t n c"]:
        """Logits of every token of t frames, given those before it.

        Args:
            last: latents of the frames before each.
            taken: the frames' tokens.
        """
        steps, action = actions.shape[1], self.from_vector(actions).flatten(0, 1)
        if self.raster:
            x = torch.cat([action[:, None], self.from_code(taken.flatten(0, 1)).to(action.dtype)], 1)
            x = x + self.slots + F.pad(self.before(0, last.flatten(0, 1)), (0, 0, 0, 1))
        else:
            last, total, scales = last.flatten(0, 1), torch.zeros_like(last.flatten(0, 1)), []
            for index, ids in enumerate(taken.flatten(0, 1).split(self.groups, 1)):
                scales.append(self.scale(index, total, last, action))
                total = total + quantizer.contribution(ids, index)
            x = torch.cat(scales, 1)
        tokens = torch.cat([self.prefix(context), x.unflatten(0, (-1, steps)).flatten(1, 2)], 1)
        positions = torch.cat([self.prefix_positions(), self.positions(0, steps)], -1)
        hidden = self.backbone(tokens, self.mask(steps), positions)[:, len(self.cells) :]
        return self.logits(hidden.unflatten(1, (steps, self.step))[:, :, : self.tokens])

    def loss(self, batch: Batch, tokenizer: Tokenizer, slips: float) -> Loss:
        """Cross-entropy of all tokens alike, teacher-forced, and what rewards, successes and ends are off by."""
        size, steps = batch.actions.shape[:2]
        with torch.no_grad():
            context = tokenizer.encode_context(batch.context)
            contexts = context.repeat_interleave(steps + 1, 0)
            target = tokenizer.latent(batch.frames.flatten(0, 1), contexts).float()
            quantized = tokenizer.quantizer.quantize(target, slips)
            fused = tokenizer.fuse(quantized.totals[-1], contexts)
            latent, ids, taken, fused = (
                part.unflatten(0, (size, steps + 1))
                for part in (quantized.totals[-1], quantized.ids, quantized.taken, fused)
            )
        logits = self(context, batch.actions, latent[:, :-1], taken[:, 1:], tokenizer.quantizer)
        tokens = F.cross_entropy(logits.float().flatten(0, 2), ids[:, 1:].flatten())
        features = self.outcome_heads.features(fused[:, 1:].flatten(0, 1), None).unflatten(0, (size, steps))
        read = self.backbone.read(batch.phrase_ids, batch.phrase_lengths)
        reward, success, terminated = self.outcome_heads.loss(
            features, read[batch.instructions], batch.rewards, batch.successes, batch.terminations
        )
        return Loss(tokens + reward + success + terminated, tokens, reward)

    def draw(self, state: "TokenState", action: Float[Tensor, "b d"], tokenizer: Tokenizer) -> "Drawn":
        """The likeliest tokens of the next frame, group by group; the cache grows by them."""
        places = self.positions(state.steps, 1).split(self.groups, -1)
        if not self.raster:
            total, ids, entropies = torch.zeros_like(state.latent), [], []
            for index, (count, where) in enumerate(zip(self.groups, places, strict=True)):
                x = self.scale(index, total, state.latent, action)
                logits = self.logits(self.backbone(x, None, where, state.cache, count))
                entropies.append(entropy(logits))
                ids.append(logits.argmax(-1))
                total = total + tokenizer.quantizer.contribution(ids[-1], index)
            return Drawn(torch.cat(ids, 1), total, torch.cat(entropies, 1).mean(1), state.waiting)
        # The code drawn last, which nobody has looked at yet, goes with the action that follows it.
        before = self.positions(state.steps - 1, 1)[:, :, -state.waiting.shape[1] or self.step :]
        last = self.before(0, state.latent).split(1, 1)
        x = torch.cat([state.waiting, action[:, None] + last[0] + self.slots[0]], 1)
        where, ids, entropies = torch.cat([before, places[0]], -1), [], []
        for slot in range(1, self.step):
            own = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
            logits = self.logits(self.backbone(x, own, where, state.cache, x.shape[1])[:, -1:])
            entropies.append(entropy(logits))
            ids.append(logits.argmax(-1))
            x, where = self.from_code(ids[-1]) + self.slots[slot], places[slot]
            if slot < self.tokens:
                x = x + last[slot]
        drawn = torch.cat(ids, 1)
        return Drawn(drawn, tokenizer.quantizer.embed(drawn), torch.cat(entropies, 1).mean(1), x)


class Drawn(NamedTuple):
    ids: Int[Tensor, "b n"]
    latent: Float[Tensor, "b z g g"]
    uncertainty: Float[Tensor, " b"]
    waiting: Float[Tensor, "b w d"]


class TokenState(NamedTuple):
    """Where `b` dreams stand."""

    context: Float[Tensor, "b f g g"]
    latent: Float[Tensor, "b z g g"]
    fused: Float[Tensor, "b f g g"]
    cache: KVCache
    steps: int
    waiting: Float[Tensor, "b w d"]
    """The input of raster order's last token, or nothing: it is not in the cache yet."""
    instruction: Float[Tensor, "b d"]


class TokenWorld(nn.Module):
    """`WorldModel`'s verbs, as far as they are asked for here, over `ThroughBackbone`: the likeliest dreams from one
    frame, that begin a new window from the newest frame when theirs is full, as ours do."""

    def __init__(self, config: WorldConfig, text: PhraseTokenizer, tokenizer: Tokenizer, raster: bool):
        super().__init__()
        self.config, self.text, self.tokenizer = config, text, tokenizer
        self.dynamics = ThroughBackbone(config.tokenizer, config.dynamics, config.action_size, raster)
        self.device = torch.device("cpu")

    @torch.no_grad()
    def start(
        self, frames: np.ndarray, actions: np.ndarray, seeds: Int[np.ndarray, " b"], instruction: list[str],
        temperature: float,
    ) -> TokenState:  # fmt: skip
        """As `WorldModel.start`; `actions` are none, and with a temperature of 0 `seeds` decide nothing."""
        assert frames.shape[1] == 1 and temperature == 0
        ids, lengths = self.text.encode(instruction)
        return self._begin(to_float(torch.from_numpy(frames[:, 0].copy())), self.dynamics.backbone.read(ids, lengths))

    def _begin(self, images: Float[Tensor, "b c h w"], instruction: Float[Tensor, "b d"]) -> TokenState:
        model, config = self.dynamics, self.config.dynamics
        context = self.tokenizer.encode_context(images)
        latent = self.tokenizer.quantizer.quantize(self.tokenizer.latent(images, context)).totals[-1]
        cache = KVCache.empty(config, len(images), len(model.cells) + config.window * model.step, context)
        model.backbone(model.prefix(context), None, model.prefix_positions(), cache, len(model.cells))
        fused = self.tokenizer.fuse(latent, context)
        return TokenState(
            context, latent, fused, cache, 0, context.new_empty(len(images), 0, config.width), instruction
        )

    @torch.no_grad()
    def step(self, state: TokenState, action: Float[np.ndarray, "b a"]) -> tuple[TokenState, Outcome]:
        if state.steps == self.config.dynamics.window:
            state = self._begin(self.tokenizer.decode(state.fused).clamp(-1.0, 1.0), state.instruction)
        drawn = self.dynamics.draw(state, self.dynamics.from_vector(torch.from_numpy(action)), self.tokenizer)
        fused, heads = self.tokenizer.fuse(drawn.latent, state.context), self.dynamics.outcome_heads
        judged = heads(heads.features(fused, None), state.instruction)
        outcome = Outcome(
            judged.reward.mean(0), judged.success.mean(0).sigmoid(), judged.terminated.mean(0).sigmoid(),
            drawn.uncertainty,
        )  # fmt: skip
        now = {"latent": drawn.latent, "fused": fused, "steps": state.steps + 1, "waiting": drawn.waiting}
        return state._replace(**now), outcome

    @torch.no_grad()
    def render(self, state: TokenState) -> Tensor:
        return to_uint8(self.tokenizer.decode(state.fused))


# -- making them -----------------------------------------------------------------------------------------------------


def new_tokenizer(name: str) -> Tokenizer:
    torch.manual_seed(0)
    model = (SymmetricTokenizer if name == "symmetric" else Tokenizer)(TOKENIZERS[name])
    return model.to(memory_format=torch.channels_last)


def new_world(variant: Variant, data: Episodes, seed: int) -> WorldModel | TokenWorld:
    """With random weights; without a sentence policy, which no variant needs."""
    tokenizer = new_tokenizer(variant.tokenizer)
    dynamics = replace(DynamicsConfig(window=WINDOW), **variant.changed)
    config = WorldConfig(
        f"tabletop_{variant.name}", data.actions.shape[1], data.instructions, (), data.frames_per_action,
        tokenizer=tokenizer.config, dynamics=dynamics,
    )  # fmt: skip
    text = PhraseTokenizer.train(data.phrase_list + data.instructions, dynamics.vocabulary)
    if variant.through:
        raster = variant.through == "raster"
        config = replace(config, dynamics=as_large(config, raster, parameters(new_world(OURS, data, 0).dynamics)))
        torch.manual_seed(seed)
        return TokenWorld(config, text, tokenizer, raster)
    torch.manual_seed(seed)
    world = WorldModel(config, text)
    world.tokenizer = tokenizer
    if variant.timeless:
        world.dynamics.layout = Timeless(**vars(world.dynamics.layout))
    return world


def as_large(config: WorldConfig, raster: bool, wanted: int) -> DynamicsConfig:
    """Five layers of backbone, their hidden size so that the dynamics have so many parameters."""
    sizes = [
        replace(config.dynamics, layers=5, mlp_width=hidden)
        for hidden in (64, 65)  # what one more of it costs
    ]
    few, more = (parameters(ThroughBackbone(config.tokenizer, size, config.action_size, raster)) for size in sizes)
    return replace(sizes[0], mlp_width=64 + round((wanted - few) / (more - few)))


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def fit(
    model: nn.Module, loss: Callable[[int], Tensor], steps: int, rate: float, seed: int, title: str,
    warm_up: int, betas: tuple[float, float] = (0.9, 0.95), decay: float = 0.01,
) -> None:  # fmt: skip
    """Minimise `loss(step)` as `worldgym train` does, but dynamics warm up in a tenth of their few steps."""
    optimizer = torch.optim.AdamW(model.parameters(), rate, betas=betas, weight_decay=decay)
    model.train()
    for step in (progress := tqdm(range(steps), desc=title, unit="step", mininterval=5)):
        for group in optimizer.param_groups:
            group["lr"] = rate * schedule(step, steps, warm_up)
        torch.manual_seed(hash((seed, step)))
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16):
            total = loss(step)
        total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0:
            progress.set_postfix(loss=f"{total.item():.3f}")
    model.eval()


def trained_tokenizer(config: Ablations, data: Episodes, name: str) -> Tokenizer:
    """The same for all seeds of the dynamics; what was trained before is read."""
    model, path = new_tokenizer(name), config.out / f"{name}_tokenizer.safetensors"
    if not path.exists():
        episodes, pictures = data.split("train"), replace(data, frames=at_resolution(model.config, data.frames))

        def loss(step: int) -> Tensor:
            pairs = sample_pairs(pictures, episodes, 48, 16, np.random.default_rng([0, step]))
            images = (to_float(torch.from_numpy(each)).contiguous(memory_format=torch.channels_last) for each in pairs)
            return model.loss(*images).total

        fit(model, loss, config.tokenizer_steps, config.learning_rate, 0, f"{name}, tokenizer", 200, (0.9, 0.99), 1e-4)
        save(model, path)
    model.load_state_dict(load_file(path))
    return model.eval().requires_grad_(False)


def trained_world(config: Ablations, data: Episodes, variant: Variant, seed: int) -> WorldModel | TokenWorld:
    """After its training; what was trained before is read."""
    world, path = new_world(variant, data, seed), config.out / f"{variant.name}_{seed}.safetensors"
    world.tokenizer = trained_tokenizer(config, data, variant.tokenizer)
    if not path.exists():
        loss = partial(dynamics_loss, config, world, batches(config, data, world), seed)
        title = f"{variant.name}, seed {seed}"
        fit(world.dynamics, loss, config.steps, config.learning_rate, seed, title, config.steps // 10)
        save(world.dynamics, path)
    world.dynamics.load_state_dict(load_file(path))
    return world.eval().requires_grad_(False)


def batches(config: Ablations, data: Episodes, world: WorldModel | TokenWorld) -> Batches:
    """As many frames in each, however long a window is."""
    window = world.config.dynamics.window
    size = config.batch * WINDOW // window
    data = replace(data, frames=at_resolution(world.config.tokenizer, data.frames))
    return Batches(data, world.text, size, DynamicsConfig(window=window), 0.0, torch.device("cpu"))


def dynamics_loss(config: Ablations, world: WorldModel | TokenWorld, drawn: Batches, seed: int, step: int) -> Tensor:
    return world.dynamics.loss(drawn.draw(seed, step, 0), world.tokenizer, config.slips).total


def at_resolution(config: TokenizerConfig, frames: np.ndarray) -> np.ndarray:
    """Frames as a tokenizer takes them: as they are, or at half the resolution."""
    if config.resolution == frames.shape[-2]:
        return frames
    assert 2 * config.resolution == frames.shape[-2]
    return np.concatenate([halved(part) for part in np.array_split(frames, 1 + len(frames) // 1000)])


def halved(frames: np.ndarray) -> np.ndarray:
    """The mean of each square of four pixels."""
    rows = frames[..., ::2, :, :].astype(np.uint16) + frames[..., 1::2, :, :]
    return ((rows[..., ::2, :] + rows[..., 1::2, :] + 2) // 4).astype(np.uint8)


def save(model: nn.Module, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, temporary)
    temporary.rename(path)


# -- measuring them --------------------------------------------------------------------------------------------------


@cache
def held_out(config: Ablations) -> tuple[Segment, np.ndarray]:
    """(episodes, the objects' places)."""
    return held_out_episodes(config.episodes, max(config.at), seed=0)


def shown(config: Ablations) -> int:
    """The episode that the picture shows: that in which blocks go furthest."""
    _, places = held_out(config)
    return int(np.linalg.norm(places[:, -1, 1:] - places[:, 0, 1:], axis=-1).sum(1).argmax())


def measured(config: Ablations, data: Episodes, variant: Variant, seed: int) -> dict[str, Any]:
    """Open-loop dreams of a variant; what was measured before is read."""
    path = config.out / f"{variant.name}_{seed}.json"
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    world = trained_world(config, data, variant, seed)
    real, places = held_out(config)
    real = replace(real, frames=at_resolution(world.config.tokenizer, real.frames))
    dreamed = dream(world, real, seed=0)  # the same questions for all
    at, asked = [step - 1 for step in config.at], dreamed.asked
    truth = Segment(real.frames[:, [0, *config.at]], *(part[:, at] for part in list(vars(real).values())[1:]))
    dreamed = Dreamed(*(part[:, at] for part in list(vars(dreamed).values())[:-1]), asked)
    figures = evaluate_dreams(world, truth, dreamed)
    figures |= evaluate_objects(dreamed.frames, places[:, [0, *config.at]], locate, BLOCK_WIDTH)
    small = gain_of_small_pictures(truth.frames, dreamed.frames)
    figures |= {
        "psnr_gain_32": small.mean(0).tolist(), "psnr_gain_32_interval": [bootstrap(np.mean, one) for one in small.T],
    }  # fmt: skip
    kept = (
        "reconstruction_psnr", "psnr_repeat_context", "psnr", "psnr_gain", "psnr_gain_interval", "psnr_gain_32",
        "psnr_gain_32_interval", "reward_correlation", "reward_correlation_interval", "pusher_error_blocks",
        "pusher_error_blocks_interval", "moved_blocks", "moved_block_error_blocks",
        "moved_block_error_blocks_interval", "moved_block_error_blocks_if_still",
    )  # fmt: skip
    strip = torch.from_numpy(dreamed.frames[shown(config)]).contiguous()
    dreams = {"frames": strip, "gain_32": torch.from_numpy(small).contiguous()}
    save_file(dreams, path.with_name(f"{variant.name}_{seed}_dream.safetensors"))
    write_results(path, seed, {name: figures[name] for name in kept}, current_commit())
    return json.loads(path.read_text(encoding="utf-8"))


def gain_of_small_pictures(truth: np.ndarray, dreamed: np.ndarray) -> np.ndarray:
    """dB over repeating the first frame, [episodes, steps], all seen at 32 pixels a side, whatever a world's are."""
    truth, dreamed = (at_resolution(TOKENIZERS["half"], frames) for frames in (truth, dreamed))
    first = np.broadcast_to(truth[:, :1], dreamed.shape)
    return psnr(dreamed, truth[:, 1:]) - psnr(first, truth[:, 1:])


def costs(config: Ablations, data: Episodes, variants: Sequence[Variant]) -> dict[str, dict[str, Any]]:
    """Of each variant its size, and by turns, with random weights, the time of a training step, and of a window of
    frames with pixels, its beginning included."""
    real, _ = held_out(config)
    worlds = {variant.name: new_world(variant, data, 0).eval().requires_grad_(False) for variant in variants}
    one = worlds[variants[0].name]

    def train(world: WorldModel | TokenWorld, drawn: Batches) -> None:
        world.dynamics.requires_grad_(True).train()
        with torch.autocast("cpu", torch.bfloat16):
            total = dynamics_loss(config, world, drawn, 0, 0)
        total.backward()
        world.dynamics.eval().requires_grad_(False).zero_grad()

    def window(world: WorldModel | TokenWorld, count: int) -> None:
        first = at_resolution(world.config.tokenizer, real.frames[:count, :1])
        state = world.start(first, real.actions[:count, :0], np.arange(count), [data.instructions[0]] * count, 0.0)
        for when in range(world.config.dynamics.window):
            state, _ = world.step(state, real.actions[:count, when])
            world.render(state).numpy()

    found: dict[str, dict[str, Any]] = {}
    for name, world in worlds.items():
        kept = world.dynamics.layout.kept if isinstance(world.dynamics, Dynamics) else world.dynamics.step
        found[name] = {
            "parameters": {"tokenizer": parameters(world.tokenizer), "dynamics": parameters(world.dynamics)},
            "tokens_a_frame": world.config.tokenizer.tokens,
            "cached_tokens_a_frame": kept,
        }
    taught = {name: partial(train, world, batches(config, data, world)) for name, world in worlds.items()}
    for name, seconds in by_turns(taught, 3, one).items():
        found[name]["seconds_a_training_step"] = float(np.median(seconds))
    for count in (1, 16):
        dreamed = {name: partial(window, world, count) for name, world in worlds.items()}
        for name, seconds in by_turns(dreamed, config.rounds, one, settle=count == 1).items():
            frames = count * worlds[name].config.dynamics.window
            found[name][f"frames_a_second_{count}"] = frames / float(np.median(seconds))
    return found


def study(config: Ablations, variants: Sequence[Variant]) -> dict[str, Any]:
    """Train and measure them, and write their table, which is returned; or do some runs of it alone."""
    torch.set_num_threads(1)  # which is what runs that share a machine have
    commit, data = current_commit(), load_episodes(config.dataset)
    if config.runs:
        known = {variant.name: variant for variant in variants}
        for run in config.runs:
            name, seed = run.rsplit("_", 1)
            print(run, brief(measured(config, data, known[name], int(seed))["metrics"]))
        return {}
    metrics: dict[str, Any] = {
        "at": config.at, "episodes": config.episodes, "tokenizer_steps": config.tokenizer_steps, "steps": config.steps,
        "batch": config.batch, "window": WINDOW, "variants": costs(config, data, variants),
    }  # fmt: skip
    real, _ = held_out(config)
    pictures = {"MuJoCo": real.frames[shown(config)][None, list(config.at)]}
    for variant in variants:
        seeds = [measured(config, data, variant, seed)["metrics"] for seed in range(variant.seeds)]
        metrics["variants"][variant.name]["seeds"] = seeds
        strip = load_file(config.out / f"{variant.name}_0_dream.safetensors")["frames"]
        pictures[variant.name.replace("_", " ")] = strip[None].numpy()
        print(f"{variant.name:14s}", brief(seeds[0]))
        write_results(config.json, 0, metrics, commit)  # after each: a variant takes minutes
        show(pictures, list(range(len(config.at))), config.at, config.picture, episodes=1)
    return metrics


def brief(found: dict[str, Any]) -> str:
    gains = " ".join(f"{gain:+.2f}" for gain in found["psnr_gain"])
    return f"{found['reconstruction_psnr']:.1f} dB through tokens; dreams {gains} dB over the first frame"


if __name__ == "__main__":
    study(tyro.cli(Ablations), VARIANTS)
