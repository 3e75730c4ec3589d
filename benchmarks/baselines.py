"""Other people's ways to draw the next frame, as models of ours' size: what the benchmarks compare ours with.

The first two have random weights and are timed (bench.py). The others are ours with another part in the place of one;
they are trained and judged (ablations.py).
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from worldgym.bench import FEW, Contender, num_parameters
from worldgym.config import DynamicsConfig, TokenizerConfig, WorldConfig
from worldgym.model.backbone import Backbone
from worldgym.model.cache import KVCache
from worldgym.model.dynamics import Batch
from worldgym.model.layout import TokenLayout
from worldgym.model.outcome_heads import OutcomeHeads
from worldgym.model.pixels import to_float, to_uint8
from worldgym.model.scale_head import entropy
from worldgym.model.text import PhraseTokenizer
from worldgym.model.tokenizer import MultiScaleQuantizer, ResidualBlock, Tokenizer, resize_area
from worldgym.world import Outcome, WorldModel

# -- timed, with random weights ---------------------------------------------------------------------------------------


def raster_16(world: WorldModel, batch: int) -> dict[str, Contender]:
    """iVideoGPT's 16 tokens a frame, as it ships and as it could."""
    raster = Raster(world, batch)
    return {"raster_16_as_shipped": raster.as_shipped, "raster_16_kept_cache": raster.kept_cache}


def raster_85(world: WorldModel, batch: int) -> dict[str, Contender]:
    """The same with as many tokens as our frames have; the costliest, of few dreams alone."""
    return {"raster_85_kept_cache": Raster(world, batch, tokens=85).kept_cache} if batch <= FEW else {}


def all_scales(world: WorldModel, batch: int) -> dict[str, Contender]:
    return {"all_scales_kept": AllScales(world, batch).step}


TIMED = (raster_16, all_scales, raster_85)
"""In the order of the table."""


class Raster:
    """iVideoGPT's scheme (arXiv 2405.15223): a Llama over 256 context tokens, then a slot token that carries the
    action and 16 tokens for each frame, one at a time, with 100 candidates a token and a reward head on the last.

    No pixels are made. Eight frames have gone by: half of the window of ours.
    """

    def __init__(self, world: WorldModel, batch: int, tokens: int = 16, past: int = 8):
        from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

        self.world, self.tokens = world, tokens
        codes, width, layers = world.config.tokenizer.codes, world.config.dynamics.width, 3
        vocabulary = 2 * codes + 2
        rest = num_parameters(world.dynamics) - vocabulary * width - layers * 4 * width * width
        self.model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=vocabulary, hidden_size=width, intermediate_size=rest // (3 * layers * width),
                num_hidden_layers=layers, num_attention_heads=4, tie_word_embeddings=True, pad_token_id=0,
                bos_token_id=None, eos_token_id=None, max_position_embeddings=4096,
            )
        ).eval().requires_grad_(False).to(world.device, world.dtype)  # fmt: skip
        self.action = nn.Linear(world.config.action_size, width).to(world.device, world.dtype)
        self.reward = nn.Linear(width, 1).to(world.device, world.dtype)
        self.ids = torch.randint(vocabulary, (batch, 256 + past * (tokens + 1)), device=world.device)
        self.now = torch.rand(batch, world.config.action_size, device=world.device, dtype=world.dtype)
        self.slot = torch.full((batch, 1), vocabulary - 1, device=world.device)
        self.cache = DynamicCache(config=self.model.config)
        with torch.no_grad():
            self.model.model(input_ids=self.ids, past_key_values=self.cache)

    @torch.no_grad()
    def as_shipped(self) -> Tensor:
        """The history is embedded and read anew for each frame, by `generate`."""
        embedded = torch.cat([self.model.get_input_embeddings()(self.ids), self._told()], 1)
        out = self.model.generate(
            inputs_embeds=embedded, attention_mask=torch.ones(embedded.shape[:2], device=embedded.device),
            max_new_tokens=self.tokens, do_sample=True, top_k=100, output_hidden_states=True,
            return_dict_in_generate=True,
        )  # fmt: skip
        return self.reward(out.hidden_states[-1][-1][:, -1])

    @torch.no_grad()
    def kept_cache(self) -> Tensor:
        """The history's keys and values are kept; each token costs one pass over itself."""
        new, drawn = self._told(), []
        try:
            for _ in range(self.tokens):
                hidden = self.model.model(inputs_embeds=new, past_key_values=self.cache).last_hidden_state[:, -1]
                best = self.model.lm_head(hidden).topk(min(100, self.model.config.vocab_size))
                drawn.append(best.indices.gather(1, best.values.float().softmax(-1).multinomial(1)))
                new = self.model.get_input_embeddings()(drawn[-1])
            return self.reward(hidden)
        finally:
            self.cache.crop(self.ids.shape[1] - self.cache.get_seq_length())

    def _told(self) -> Tensor:
        return self.model.get_input_embeddings()(self.slot) + self.action(self.now)[:, None]


class AllScales:
    """SAMPO's own layout (arXiv 2509.15536): every scale is a pass of the whole backbone, and all tokens of every past
    frame stay in its cache. No pixels are made, and no reward: it has none."""

    def __init__(self, world: WorldModel, batch: int):
        config, self.splits = world.config.dynamics, world.tokenizer.quantizer.splits
        self.world, self.tokens = world, sum(self.splits)
        layer = num_parameters(world.dynamics.backbone.model.layers[0])
        layers = max(1, round(num_parameters(world.dynamics) / layer))
        config = replace(config, layers=layers)
        self.backbone = Backbone(config).eval().requires_grad_(False).to(world.device)
        for module in self.backbone.modules():
            if isinstance(module, nn.Linear):
                module.to(world.dtype)
        self.logits = nn.Linear(config.width, world.config.tokenizer.codes).to(world.device, world.dtype)
        self.embed = nn.Embedding(world.config.tokenizer.codes, config.width).to(world.device)
        past = config.window // 2
        like = torch.empty(0, device=world.device, dtype=world.dtype)
        self.cache = KVCache.empty(config, batch, (past + 1) * self.tokens + 64, like)
        self.cache.keys.normal_(), self.cache.values.normal_()
        self.cache.filled += past * self.tokens
        self.action = torch.randn(batch, 1, config.width, device=world.device)

    @torch.no_grad()
    def step(self) -> None:
        begun, new = self.cache.filled.clone(), self.action
        with torch.autocast(self.world.device.type, self.world.dtype, enabled=self.world.dtype != torch.float32):
            for index, count in enumerate(self.splits):
                positions = torch.zeros(3, 1, new.shape[1], device=new.device)
                hidden = self.backbone(new, None, positions, self.cache, keep=new.shape[1])
                ids = self.logits(hidden).max(-1).indices
                for following in self.splits[index + 1 : index + 2]:
                    new = self.embed(ids.repeat_interleave(following // count, 1))
        self.cache.filled = begun


# -- trained ----------------------------------------------------------------------------------------------------------


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

    def loss(self, batch: Batch, tokenizer: Tokenizer, token_noise: float) -> Loss:
        """Cross-entropy of all tokens alike, teacher-forced, and what rewards, successes and ends are off by."""
        size, steps = batch.actions.shape[:2]
        with torch.no_grad():
            context = tokenizer.encode_context(batch.context)
            contexts = context.repeat_interleave(steps + 1, 0)
            target = tokenizer.latent(batch.frames.flatten(0, 1), contexts).float()
            quantized = tokenizer.quantizer.quantize(target, tokenizer.quantizer.draw_noise(len(target), token_noise))
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
