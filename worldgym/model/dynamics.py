"""What happens next: PAN's backbone, one pass a step, and SAMPO's scale head on top.

State tokens are cut from the *fused map* of the frame (the tokenizer's decoder features after its look at the
context): future tokens alone say how a frame differs from its context, not where an unmoved object is.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..config import DynamicsConfig, TokenizerConfig
from .backbone import Backbone
from .cache import KVCache
from .layout import TokenLayout
from .outcome_heads import OutcomeHeads
from .scale_head import ScaleHead, zero_init
from .sentence_policy import SentencePolicy
from .tokenizer import Quantized, Tokenizer, TokenNoise


class Batch(NamedTuple):
    """A training segment on the device; t steps, t + 1 frames."""

    context: Float[Tensor, "b c h w"]
    """The observed frame that the tokens of all others are relative to; the first frame of the segment."""
    prompt: Float[Tensor, "b c h w"]
    """The context with the trajectories of what moved before it; the context itself where there is none."""
    earlier: Float[Tensor, "b c h w"]
    """The frame before the context."""
    has_prompt: Bool[Tensor, " b"]
    """Whether a segment is conditioned on the motion before its context."""
    frames: Float[Tensor, "b t1 c h w"]
    actions: Float[Tensor, "b t a"]
    sentences: Int[Tensor, "b t s"]
    """Rows of `phrase_ids`: sentences whose meaning is known at each step; -1 for none."""
    sentence_actions: Float[Tensor, "b t s a"]
    """The vector action that carries each of them out."""
    instructions: Int[Tensor, "b t q"]
    """Rows of `phrase_ids`: which instructions to judge each step by."""
    rewards: Float[Tensor, "b t q"]
    successes: Float[Tensor, "b t q"]
    terminations: Float[Tensor, "b t q"]
    phrase_ids: Int[Tensor, "p l"]
    phrase_lengths: Int[Tensor, " p"]
    foreseen: Float[Tensor, "b t p g g"] | None = None
    """What the recurrent state pictures after each action, in a world whose frames are drawn from it."""


class Prefix(NamedTuple):
    """What a window of the backbone begins from, as maps of the tokenizer."""

    context: Float[Tensor, "b f g g"]
    """Dense map of the frame that the tokens of all others are relative to."""
    prompt: Float[Tensor, "b f g g"] | None = None
    """Dense map of the motion prompt drawn on it; None if nothing is known to move."""
    earlier: Float[Tensor, "b f g g"] | None = None
    """Fused map of the frame before the context; None if it is at rest, for all that is known."""

    def first(self, count: int) -> "Prefix":
        """Of the first `count` in the batch."""
        prompt, earlier = (None if part is None else part[:count] for part in (self.prompt, self.earlier))
        return Prefix(self.context[:count], prompt, earlier)


class NextFrame(NamedTuple):
    """What a step makes of each dream."""

    latent: Float[Tensor, "b z g g"]
    fused: Float[Tensor, "b f g g"]
    motion: Float[Tensor, "b f g g"] | None
    """How the map differs from the one before; None in a world without `memory`."""
    entropy: Float[Tensor, " b"] | None
    """Mean entropy of the drawn tokens, nats; None where it was not measured."""


class DynamicsLoss(NamedTuple):
    total: Tensor
    tokens: Tensor
    scales: list[Tensor]
    guess: Tensor
    reward: Tensor
    success: Tensor
    terminated: Tensor
    sentence: Tensor


class Chances(NamedTuple):
    """The random numbers of a training step."""

    noise: TokenNoise | None
    """Of the frames of all segments, then of the frames before the contexts."""
    scored: Int[Tensor, " s"]
    """Rows of the frames, [b * t], whose tokens count: one half, as they are the dearest part of a step."""


class Dynamics(nn.Module):
    """Backbone, scale head and outcome heads, and what sentences mean if it `speaks`. The tokenizer is handed in."""

    def __init__(self, tokenizer: TokenizerConfig, config: DynamicsConfig, action_size: int, speaks: bool):
        super().__init__()
        self.config = config
        self.layout = TokenLayout.of(tokenizer, config)
        width, patch = config.width, config.patch
        self.backbone = Backbone(config)
        self.from_context = nn.Conv2d(tokenizer.width, width, patch, stride=patch)
        self.from_fused = nn.Conv2d(tokenizer.width, width, patch, stride=patch)
        if config.memory > 1:
            self.from_motion = zero_init(nn.Conv2d(tokenizer.width, width, patch, stride=patch))
        if config.prompt:
            # Without a bias: a context on which nothing is drawn is a context without a prompt.
            self.from_prompt = zero_init(nn.Conv2d(tokenizer.width, width, patch, stride=patch, bias=False))
        self.cells = nn.Parameter(torch.randn(self.layout.cells, width) * 0.02)
        self.from_vector = nn.Sequential(nn.Linear(action_size, 128), nn.SiLU(), nn.Linear(128, width))
        self.action_to_state = nn.Linear(width, width)
        if self.layout.queries:
            self.queries = nn.Parameter(torch.randn(self.layout.cells, width) * 0.02)
        self.scale_head = ScaleHead(tokenizer, config)
        self.outcome_heads = OutcomeHeads(tokenizer, config)
        self.sentence_policy = SentencePolicy(tokenizer, config, action_size) if speaks else None

    # -- tokens of the conversation -------------------------------------------------------------------------------

    def prefix_tokens(self, begin: Prefix) -> Float[Tensor, "b k d"]:
        """The context and, in a world with motion prompts, what the prompt's map has and the context's has not: both
        lie cell on cell, so they are concatenated along channels (the sum of two convolutions) and not as tokens."""
        x = self.from_context(begin.context)
        if begin.prompt is not None:
            x = x + self.from_prompt(begin.prompt - begin.context)
        return x.flatten(2).transpose(1, 2) + self.cells

    def motion(self, fused: Float[Tensor, "b t f g g"], begin: Prefix) -> Float[Tensor, "b t f g g"] | None:
        """How each frame differs from the one before it, from the context on. None in a world whose `memory` is a
        single frame."""
        if self.config.memory == 1:
            return None
        return torch.diff(fused, dim=1, prepend=fused[:, :1] if begin.earlier is None else begin.earlier[:, None])

    def step_tokens(
        self,
        fused: Float[Tensor, "m f g g"],
        action: Float[Tensor, "m d"],
        motion: Float[Tensor, "m f g g"] | None = None,
    ) -> Float[Tensor, "m n d"]:
        """[state][action] and, in PAN's layout, [queries]. Tokens that predict also get the action directly."""
        state = self.from_fused(fused).flatten(2).transpose(1, 2) + self.cells
        if motion is not None:
            state = state + self.from_motion(motion).flatten(2).transpose(1, 2)
        told = self.action_to_state(action)[:, None]
        if not self.layout.queries:
            return torch.cat([state + told, action[:, None]], 1)
        queries = (self.queries + self.cells).expand(len(fused), -1, -1)
        return torch.cat([state, action[:, None], queries + told], 1)

    # -- training -----------------------------------------------------------------------------------------------

    def draw_chances(
        self,
        tokenizer: Tokenizer,
        segments: int,
        token_noise: float,
        generator: torch.Generator | None = None,
        rank: int = 0,
        processes: int = 1,
    ) -> Chances:
        """For rows `rank`, `rank + processes`, ... of a batch of `segments` segments.

        Args:
            token_noise: mean share of tokens that are replaced by wrong ones, so that a dream can live with its own
                mistakes: finer scales learn to make up for coarser ones, and the next step for the last.
        """
        steps, mine = self.config.window, torch.arange(segments)[rank::processes]
        frames, before = segments * (steps + 1), segments if self._reads_earlier else 0
        noise = tokenizer.quantizer.draw_noise(frames + before, token_noise, generator)
        scored = torch.randperm(segments * steps, generator=generator)[: (segments * steps + 1) // 2]
        if noise is not None:
            rows = torch.arange(frames).view(segments, -1)[mine].flatten()
            rows = torch.cat([rows, frames + mine]) if before else rows
            noise = TokenNoise(*(part[rows.to(part.device)] for part in noise))
        scored = scored[scored // steps % processes == rank]
        scored = scored // steps // processes * steps + scored % steps
        return Chances(noise, scored.to(self.cells.device))

    @property
    def _reads_earlier(self) -> bool:
        """Whether the frame before the context says how the context moves."""
        return self.config.lead > 0 and self.config.memory > 1

    def loss(self, batch: Batch, tokenizer: Tokenizer, chances: Chances, self_forcing: int = 0) -> DynamicsLoss:
        """Teacher-forced over whole segments, or fed with its own dreams of them.

        Args:
            self_forcing: how many of the segments have all frames but the first `memory` replaced, as inputs, by what
                the model itself dreams there. The targets stay the truth (Self Forcing, arXiv 2506.08009, and before
                it DAgger).
        """
        size, steps = batch.actions.shape[:2]
        with torch.no_grad():
            context = tokenizer.encode_context(batch.context)
            prompt = tokenizer.encode_context(batch.prompt) if self.config.prompt else None
            contexts = context.repeat_interleave(steps + 1, 0)
            images = batch.frames.flatten(0, 1)
            if self._reads_earlier:  # behind all others the frames before the contexts
                images, contexts = torch.cat([images, batch.earlier]), torch.cat([contexts, context])
            target = tokenizer.latent(images, contexts).float()
            quantized = tokenizer.quantizer.quantize(target, chances.noise)
            kept = torch.lerp(quantized.totals[-1], target, self.config.residual)
            latent = kept[: size * (steps + 1)].unflatten(0, (size, steps + 1))
            fused, earlier = tokenizer.fuse(kept, contexts).split([size * (steps + 1), len(kept) - size * (steps + 1)])
            fused = fused.unflatten(0, (size, steps + 1))
            if len(earlier):  # without a prompt everything is at rest, with or without token noise
                earlier = torch.where(batch.has_prompt[:, None, None, None], earlier, fused[:, 0])
            begin = Prefix(context, prompt, earlier if len(earlier) else None)
            if self_forcing:
                latent, fused = latent.clone(), fused.float()
                seen = self.config.memory
                latent[:self_forcing, seen:], fused[:self_forcing, seen:] = self.imagine(
                    tokenizer, begin.first(self_forcing), latent[:self_forcing, seen - 1], fused[:self_forcing, :seen],
                    batch.actions[:self_forcing],
                    None if batch.foreseen is None else batch.foreseen[:self_forcing],
                )  # fmt: skip
        before, now = latent[:, :-1].flatten(0, 1), fused[:, :-1].flatten(0, 1)
        moved = self.motion(fused, begin)
        motion = None if moved is None else moved[:, :-1].flatten(0, 1)
        frame = torch.arange(size * (steps + 1), device=target.device).view(size, steps + 1)
        after = frame[:, 1:].flatten()

        read = self.backbone.read(batch.phrase_ids, batch.phrase_lengths)
        action = self.from_vector(batch.actions).flatten(0, 1)
        tokens = self.step_tokens(now, action, motion).unflatten(0, (size, steps)).flatten(1, 2)
        tokens = torch.cat([self.prefix_tokens(begin), tokens], 1)
        when = torch.arange(steps, device=tokens.device)[None]
        positions = torch.cat([self.layout.prefix_positions(tokens.device), self.layout.step_positions(when)], -1)
        hidden = self.backbone(tokens, self.layout.training_mask(steps, tokens.device), positions)
        hidden = hidden[:, self.layout.cells :].unflatten(1, (steps, self.layout.step))
        state = hidden[:, :, self.layout.output].flatten(0, 1)

        token_loss, by_scale, guess = self.scale_head.loss(
            self.scale_head.align(
                state, now, action, motion, None if batch.foreseen is None else batch.foreseen.flatten(0, 1)
            ),
            action,
            before,
            target[after],
            target[frame[:, :-1].flatten()],
            Quantized(
                quantized.ids[after],
                quantized.latent[after],
                quantized.commitment,
                [t[after] for t in quantized.totals],
                quantized.taken[after],
            ),
            chances.scored,  # of the frames, half; the guess, which better dreams wait for, counts in all
            tokenizer.quantizer,
        )

        reward = success = terminated = sentence = token_loss.new_zeros(())
        if batch.foreseen is None:  # else they are read off the state, and what reads maps stays as it is
            features = self.outcome_heads.features(fused.flatten(0, 1), None if moved is None else moved.flatten(0, 1))
            features = features.unflatten(0, (size, steps + 1))
            reward, success, terminated = self.outcome_heads.loss(
                features[:, 1:], read[batch.instructions], batch.rewards, batch.successes, batch.terminations
            )
            sentence = self._sentence_loss(batch, features[:, :-1].flatten(0, 1), read)
        total = token_loss + 2.0 * guess + reward + success + terminated + 0.1 * sentence
        return DynamicsLoss(total, token_loss, by_scale, guess, reward, success, terminated, sentence)

    def _sentence_loss(self, batch: Batch, features: Tensor, read: Tensor) -> Tensor:
        """Negative log-likelihood of the sentences' vector actions, where they are known."""
        known = (batch.sentences >= 0).flatten()
        if self.sentence_policy is None:
            return features.new_zeros(())
        frame = torch.arange(len(features), device=features.device).repeat_interleave(batch.sentences.shape[-1])
        return self.sentence_policy.loss(
            features[frame[known]],
            read[batch.sentences.flatten()[known]],
            batch.sentence_actions.flatten(0, 2)[known],
        )

    # -- dreaming -----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def imagine(
        self,
        tokenizer: Tokenizer,
        begin: Prefix,
        latent: Float[Tensor, "b z g g"],
        seen: Float[Tensor, "b s f g g"],
        actions: Float[Tensor, "b t a"],
        foreseen: Float[Tensor, "b t p g g"] | None = None,
    ) -> tuple[Float[Tensor, "b u z g g"], Float[Tensor, "b u f g g"]]:
        """The likeliest dream of a segment after its first s frames: latents and fused maps of the u = t + 1 - s next.

        Args:
            latent: of the last frame seen.
            seen: fused maps of all of them.
            actions: of the whole segment.
            foreseen: what the recurrent state pictures after each of them, in a world whose frames are drawn from it.
        """
        size, count = actions.shape[:2]
        past, fused, moved = seen.shape[1] - 1, seen[:, -1], self.motion(seen, begin)
        motion = None if moved is None else moved[:, -1]
        latents, maps = [], []
        # Weights that autocast has cast here, without gradients, must not be met again in the loss.
        with torch.autocast(seen.device.type, cache_enabled=False):
            action = self.from_vector(actions)
            cache = KVCache.empty(self.config, size, self.layout.slots(count), seen)
            self.prefill(cache, begin, seen[:, :past], action[:, :past])
            for when in range(past, count):
                steps = torch.full((size,), when, device=seen.device)
                hidden = self.hidden_state(cache, steps, fused, action[:, when], motion)
                latent, fused, motion, _ = self.next_frame(
                    tokenizer, hidden, fused, latent, begin.context, action[:, when], motion,
                    None if foreseen is None else foreseen[:, when], measure=False,
                )  # fmt: skip
                latents.append(latent)
                maps.append(fused)
        return torch.stack(latents, 1), torch.stack(maps, 1).float()

    def prefill(self, cache: KVCache, begin: Prefix, fused: Tensor, action: Tensor) -> None:
        """Read the prefix and `t` past steps into an empty cache.

        Args:
            fused: [b, t, f, g, g], the frames before the newest.
            action: [b, t, d], what was done at each.
        """
        size, steps = action.shape[:2]
        moved = self.motion(fused, begin)
        motion = None if moved is None else moved.flatten(0, 1)
        past = self.step_tokens(fused.flatten(0, 1), action.flatten(0, 1), motion)[:, : self.layout.kept]
        tokens = torch.cat([self.prefix_tokens(begin), past.reshape(size, -1, past.shape[-1])], 1)
        when = torch.arange(steps, device=tokens.device)[None]
        layout = self.layout.past
        positions = torch.cat([layout.prefix_positions(tokens.device), layout.step_positions(when)], -1)
        mask = layout.training_mask(steps, tokens.device)
        self.backbone(tokens, mask, positions, cache, keep=tokens.shape[1])

    def next_frame(
        self,
        tokenizer: Tokenizer,
        hidden: Float[Tensor, "b k d"],
        fused: Float[Tensor, "b f g g"],
        latent: Float[Tensor, "b z g g"],
        context: Float[Tensor, "b f g g"],
        action: Float[Tensor, "b d"],
        motion: Float[Tensor, "b f g g"] | None = None,
        foreseen: Float[Tensor, "b p g g"] | None = None,
        uniforms: Float[Tensor, "b n"] | None = None,
        temperature: float = 0.0,
        measure: bool = True,
        straight_through: bool = False,
    ) -> NextFrame:
        """The next imagined frame, drawn from the predicted state: the one place that makes it.

        Args:
            hidden: the predicted state, from `hidden_state`.
            fused, latent, motion: of the newest frame.
            foreseen: what the recurrent state pictures after the action, in a world whose frames are drawn from it.
            uniforms: random numbers in [0, 1), one for each token; needed above temperature 0.
            measure: also compute the entropy.
            straight_through: let the gradient pass the draw through the scale head's guess, of which the drawn tokens
                are the rounding (Bengio et al., 2013, arXiv 1308.3432).
        """
        aligned = self.scale_head.align(hidden, fused, action, motion, foreseen)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not straight_through):
            _, drawn, entropy = self.scale_head.draw(
                aligned, action, latent, tokenizer.quantizer, uniforms, temperature, measure
            )
        if straight_through:
            guess = latent + self.scale_head.guess(aligned).float()
            drawn = guess + (drawn.float() - guess).detach()
        after = tokenizer.fuse(drawn, context)
        return NextFrame(drawn, after, None if motion is None else after - fused, entropy)

    def hidden_state(
        self, cache: KVCache, steps: Tensor, fused: Tensor, action: Tensor, motion: Tensor | None = None
    ) -> Float[Tensor, "b k d"]:
        """One pass of the backbone: the predicted next state; the cache grows by one step.

        Args:
            steps: long [b], steps in each dream's cache so far.
            motion: how the newest frame differs from the one before, in a world with `memory`.
        """
        # Dreams that are equally far along stand at the same positions.
        when = steps[:1] if cache.even else steps
        own = self.layout.step_mask(steps.device) if self.layout.queries else None
        hidden = self.backbone(
            self.step_tokens(fused, action, motion),
            own,
            self.layout.step_positions(when[:, None]),
            cache,
            self.layout.kept,
        )
        return hidden[:, self.layout.output]
