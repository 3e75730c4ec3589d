"""The core contract: a world model with few verbs, and a state that is a value.

    world = WorldModel.load("tabletop")
    state = world.start(frames, actions, seeds)
    state, outcome = world.step(state, action)
    frame = world.render(state)
    branches = state.fork(64)
    returns = world.evaluate(state, action_sequences)

Modules hold weights only; everything that evolves is in `WorldState`. Time: `frame_t, action_t -> reward_t,
terminated_t, frame_{t+1}`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from . import inputs
from .inputs import action_vectors, dream_seeds, observed_actions, observed_frames
from .model.cache import KVCache
from .model.device import isolated
from .model.dynamics import Prefix
from .model.outcome_heads import OutcomeVotes, returns_until_end
from .model.pixels import to_float, to_uint8
from .model.recurrent_state import RecurrentState
from .model.rng import uniforms
from .model.sentence_policy import SentencePolicy
from .motion import motion_prompt
from .network import WorldNetwork
from .state import Outcome, Scored, WorldState

BLOCK = {"cpu": 32}
"""Dreams that go through the scale head at a time, where that is faster: more would fall out of the processor's cache,
and allocating memory for each layer costs more than the layer's arithmetic."""


TILE = 256
"""Futures that are tried in the recurrent state at a time: what they need stays in the processor's cache."""


class WorldModel(WorldNetwork):
    """A learned world and its verbs. Make one with `load`."""

    # -- the verbs ------------------------------------------------------------------------------------------------

    @isolated
    def start(
        self,
        frames: Tensor | np.ndarray,
        actions: Tensor | np.ndarray | None = None,
        seeds: Tensor | np.ndarray | Sequence[int] | None = None,
        instruction: str | Sequence[str] | None = None,
        temperature: float = 0.0,
    ) -> WorldState:
        """Begin `b` dreams from observed frames.

        Args:
            frames: uint8 [b, t, h, w, 3], what was seen, oldest first. In a world with a motion prompt, the first ones
                are the prompt's; of the others the newest are used, at most half a window. One frame shows no motion.
            actions: float32 [b, t - 1, a], what was done between them; may be left out for a single frame.
            seeds: [b], one for each dream; 0, 1, 2, ... by default.
            instruction: judged by the rewards; one for all or one each; the world's first by default.
            temperature: of the token distributions; 0 dreams the likeliest future, 1 the learned spread.
        """
        if not 0.0 <= temperature < float("inf"):
            raise ValueError(f"temperature is {temperature}; it must be 0 or more")
        frames = observed_frames(frames, self.config, self.device)
        batch, count = frames.shape[:2]
        actions = observed_actions(actions, batch, count, self.config, self.device)
        keep = min(count, self.config.dynamics.lead + self.config.dynamics.window // 2 + 1)
        recurrent, frame = self._begun(frames, actions)
        frames, actions = frames[:, count - keep :], actions[:, count - keep :]
        images = to_float(frames.flatten(0, 1)).unflatten(0, (batch, keep))
        wanted = self.config.instructions[0] if instruction is None else instruction
        return self._begin(
            images,
            self._embed(actions),
            dream_seeds(seeds, batch, self.device),
            torch.zeros(batch, dtype=torch.long, device=self.device),
            self.read_instructions([wanted] * batch if isinstance(wanted, str) else list(wanted)),
            temperature,
            recurrent,
            frame,
        )

    @isolated
    def step(
        self, state: WorldState, action: Tensor | np.ndarray | Sequence[str], drawn: bool = True
    ) -> tuple[WorldState, Outcome]:
        """Dream one frame on.

        Args:
            action: float32 [b, a] vectors, or b sentences, in whatever words.
            drawn: False draws no frame and moves the recurrent state alone, many times faster. Such dreams take
                vectors, have no chances and no uncertainty, and are imagined from then on.

        Raises:
            ValueError: an action of another shape, not finite or not understood; a state that is spent; `drawn=False`
                in a world without a recurrent state, or `drawn=True` from a state that was imagined.
        """
        if not drawn:
            return self._imagined_step(state, action)
        vectors = self._vectors(action, state)
        after, votes, entropy = self._step(state, vectors, measure=True)
        assert entropy is not None
        return self._observed(after, vectors), Outcome.of(votes, entropy)

    def motion(self, state: WorldState) -> Float[Tensor, "b f g g"] | None:
        """How each dream's newest map differs from the one before; None in a world without `memory`."""
        return state.fused - state.past[:, -1] if self.config.dynamics.memory > 1 else None

    @isolated
    def render(self, state: WorldState) -> UInt8[Tensor, "b h w c"]:
        """The newest frame of each dream, on the model's device."""
        if self.recurrent is None:
            return self._decode(state)
        if state.imagined:
            return self.recurrent.render(state.recurrent)
        if not self._draws_from_state or not state.counters.any():
            return state.frame
        begun = (state.counters == 0)[:, None, None, None]
        return torch.where(begun, state.frame, self._decode(state))

    def _decode(self, state: WorldState) -> UInt8[Tensor, "b h w c"]:
        """The newest frame of each dream, from its map."""
        if compiled := self.compiled.get(len(state)):
            return compiled.decode(state.fused)
        with self._precision():
            parts = [to_uint8(self.tokenizer.decode(state.fused[rows])) for rows in self._blocks(len(state))]
        return torch.cat(parts)

    @isolated
    def evaluate(
        self, state: WorldState, action_sequences: Tensor | np.ndarray, drawn: bool | None = None
    ) -> Float[Tensor, "b n"]:
        """Return of each of n action sequences tried from each dream; never decodes, leaves `state` as it is.

        Args:
            action_sequences: [b, n, horizon, a].
            drawn: draw every frame as `step` does, or try futures in the recurrent state, a hundred times faster. By
                default the latter, in a world that has one. Where frames follow the state, both say the same.

        A sequence stops earning once the dream says that its episode has ended.

        Raises:
            ValueError: as `step` does.
        """
        if drawn is False or (drawn is None and self.recurrent is not None):
            state._check_fresh()
            return self.imagine(state.recurrent, action_sequences, state.instruction)
        sequences = inputs.action_sequences(action_sequences, len(state), self.config, self.device)
        batch, count = sequences.shape[:2]
        if state.cache.trunk is not None:  # else each fork below would write out the past that it shares
            state = state.select(torch.arange(batch, device=self.device))
        returns = torch.empty(batch, count, device=self.device)
        for dreams, tries in self._tiles(batch, count):
            part = state if len(dreams) == batch else state.select(dreams)
            tried = sequences[dreams, tries]
            returns[dreams, tries] = returns_until_end(self._dreamed(part, tried)).view(tried.shape[:2])
        return returns

    # -- the recurrent state ----------------------------------------------------------------------------------------

    @isolated
    def observe(self, frames: Tensor | np.ndarray, actions: Tensor | np.ndarray | None = None) -> Float[Tensor, "b s"]:
        """The recurrent state after what was seen and done: all that `imagine` needs, and no dream is begun.

        Args:
            frames: uint8 [b, t, h, w, 3], oldest first, as many as there are.
            actions: float32 [b, t - 1, a], what was done between them; may be left out for a single frame.

        Raises:
            ValueError: the world has no recurrent state.
        """
        frames = observed_frames(frames, self.config, self.device)
        batch, count = frames.shape[:2]
        return self._filter.observe(frames, observed_actions(actions, batch, count, self.config, self.device))

    @isolated
    def imagine(
        self,
        recurrent: Float[Tensor, "b s"],
        action_sequences: Tensor | np.ndarray,
        instruction: Float[Tensor, "b d"],
        expected: bool = False,
    ) -> Float[Tensor, "b n"]:
        """Return of each of n action sequences [b, n, horizon, a], tried from recurrent states: what `evaluate` says of
        states that `observe` gave.

        Args:
            instruction: of each state, as `read_instructions` reads it.
            expected: what planners go by instead: chances of an end count, and what comes after a sequence.
        """
        future = self._filter
        sequences = inputs.action_sequences(action_sequences, len(recurrent), self.config, self.device)
        dreams = torch.arange(len(recurrent), device=self.device).repeat_interleave(sequences.shape[1])
        tiles = zip(dreams.split(TILE), sequences.flatten(0, 1).split(TILE), strict=True)
        parts = [future.returns(recurrent[rows], tried, instruction[rows], expected) for rows, tried in tiles]
        return torch.cat(parts).view(sequences.shape[:2])

    @property
    def _draws_from_state(self) -> bool:
        """Whether the scale head is shown what the recurrent state foresees."""
        return self.config.dynamics.from_state

    def foretells(self, state: WorldState) -> bool:
        """Whether the recurrent state says what happens and frames follow it. Where chance draws, it follows them."""
        return self._draws_from_state and state.temperature == 0

    @property
    def _filter(self) -> RecurrentState:
        if self.recurrent is None:
            raise ValueError(f"the world {self.config.name!r} has no recurrent state; `worldgym train state` makes one")
        return self.recurrent

    def _imagined_step(
        self, state: WorldState, action: Tensor | np.ndarray | Sequence[str]
    ) -> tuple[WorldState, Outcome]:
        """One step of all dreams that draws nothing. What drawn dreams continue from stays as it was."""
        state._check_fresh()
        if isinstance(action, (list, tuple)) and action and isinstance(action[0], str):
            raise ValueError("imagined dreams take vectors: what a sentence means is read off a frame that is drawn")
        vectors = action_vectors(action, len(state), self.config, self.device)
        recurrent = self._filter.predict(state.recurrent, vectors)
        after = replace(state, recurrent=recurrent, counters=state.counters + 1, imagined=True)
        votes = self._judged(recurrent, state.instruction)
        return after, Outcome.of(votes, torch.full_like(votes.reward[0], float("nan")))

    def _judged(self, recurrent: Float[Tensor, "b s"], instruction: Float[Tensor, "b d"]) -> OutcomeVotes:
        return OutcomeVotes(*(part.T for part in self._filter.heads.each(recurrent[:, None], instruction)))

    def _begun(self, frames: UInt8[Tensor, "b t h w c"], actions: Float[Tensor, "b t1 a"]) -> tuple[Tensor, Tensor]:
        """(The recurrent state of new dreams, the frame that it observed last), both of no size where there is none."""
        if self.recurrent is None:
            return actions.new_empty(len(frames), 0), frames.new_empty(len(frames), 0, 0, 3)
        return self.recurrent.observe(frames, actions), frames[:, -1].contiguous()

    def _observed(self, state: WorldState, vectors: Float[Tensor, "b a"]) -> WorldState:
        """Dreams whose recurrent state has observed the frame that was drawn, if it was not drawn from it."""
        if self.recurrent is None or self._draws_from_state:
            return state
        frame = self._decode(state)
        return replace(state, recurrent=self.recurrent.follow(state.recurrent, vectors, frame), frame=frame)

    # -- words and vectors ------------------------------------------------------------------------------------------

    def _vectors(self, action: Tensor | np.ndarray | Sequence[str], state: WorldState) -> Float[Tensor, "b a"]:
        """Actions as vectors, checked. What a sentence means depends on the newest frame."""
        batch = len(state)
        if isinstance(action, (list, tuple)) and action and isinstance(action[0], str):
            if len(action) != batch:
                raise ValueError(f"got {len(action)} sentences for {batch} dreams")
            assert self._sentence_policy  # a world that was trained on none says so
            return self.act(state, self.read(inputs.known_sentences(action, self.config)))
        return action_vectors(action, batch, self.config, self.device)

    @isolated
    def read(self, sentences: list[str]) -> Float[Tensor, "b d"]:
        """Sentences as the backbone understands them; what they mean does not depend on any frame."""
        unique = sorted(set(sentences))
        ids, lengths = self.text.encode(unique)
        with self._precision():
            read = self.dynamics.backbone.read(ids.to(self.device), lengths.to(self.device)).float()
        return read[[unique.index(sentence) for sentence in sentences]]

    @isolated
    def act(self, state: WorldState, read: Float[Tensor, "b d"]) -> Float[Tensor, "b a"]:
        """The vector actions that carry out sentences, once `read`, from the newest frame of each dream."""
        features = self.dynamics.outcome_heads.features(state.fused, self.motion(state))
        return self._sentence_policy.act(features, read)

    @property
    def _sentence_policy(self) -> SentencePolicy:
        if self.dynamics.sentence_policy is None:
            raise ValueError(f"the world {self.config.name!r} was trained on no sentences; act by vectors")
        return self.dynamics.sentence_policy

    @isolated
    def score(self, state: WorldState, instruction: Float[Tensor, "b d"]) -> OutcomeVotes:
        """What the newest frame of each dream is worth by an instruction that `read_instructions` read."""
        if state.imagined or self.foretells(state):
            return self._judged(state.recurrent, instruction)
        return self.dynamics.outcome_heads.score(state.fused, self.motion(state), instruction)

    @isolated
    def see(self, frames: UInt8[Tensor, "b h w c"], state: WorldState) -> Float[Tensor, "b f g g"]:
        """Fused maps of given frames, one for each dream and relative to its context: comparable to `state.fused`."""
        with self._precision():
            return self.tokenizer.fuse(self.latent(to_float(frames), state.context), state.context).float()

    @isolated
    def latent(self, images: Float[Tensor, "b c h w"], contexts: Float[Tensor, "b f g g"]) -> Float[Tensor, "b z g g"]:
        """Latents of observed frames of the kind that the model dreams: tokens, and a share of what they leave out.

        Args:
            images: in [-1, 1].
            contexts: what the tokenizer's `encode_context` makes of the frames that they are relative to.
        """
        with self._precision():
            latent = self.tokenizer.latent(images, contexts).float()
            total = self.tokenizer.quantizer.quantize(latent).totals[-1]
            return torch.lerp(total, latent, self.config.dynamics.residual)

    @isolated
    def read_instructions(self, instructions: list[str]) -> Float[Tensor, "b d"]:
        """Instructions, in whatever words, for the outcome heads."""
        return self.read(self.known_instructions(instructions))

    def known_instructions(self, instructions: Sequence[str]) -> list[str]:
        """The world's own instructions that these mean; a ValueError if one means none."""
        return inputs.known_instructions(instructions, self.config)

    def _embed(self, vectors: Float[Tensor, "*b a"]) -> Float[Tensor, "*b d"]:
        with self._precision():
            return self.dynamics.from_vector(vectors).float()

    # -- inside -----------------------------------------------------------------------------------------------------

    def _begin(
        self,
        images: Tensor,
        embedded: Tensor,
        seeds: Tensor,
        counters: Tensor,
        instruction: Tensor,
        temperature: float,
        recurrent: Tensor,
        frame: Tensor,
    ) -> WorldState:
        """Dreams whose newest frame is the last of `images` [b, t, c, h, w], and whose context is the first, or in a
        world with motion prompts the last of those that the prompt is drawn from."""
        batch, count = images.shape[:2]
        config = self.config.dynamics
        lead = min(config.lead, count - 1)
        with self._precision():
            context = self.tokenizer.encode_context(images[:, lead]).float()
            contexts = context.repeat_interleave(count, 0)
            latent = self.latent(images.flatten(0, 1), contexts)
            fused = self.tokenizer.fuse(latent, contexts).float().unflatten(0, (batch, count))
            slots = self.dynamics.layout.slots(config.window)
            cache = KVCache.empty(config, batch, slots, context.new_empty(0, dtype=self.dtype))
            begin = Prefix(context, self._prompt(images[:, : lead + 1]), fused[:, lead - 1] if lead else None)
            self.dynamics.prefill(cache, begin, fused[:, lead:-1], embedded[:, lead:])
            # Before the first frame nothing moved, for all that is known.
            past = torch.cat([fused[:, :1].expand(-1, config.observed, -1, -1, -1), fused], 1)[:, count:-1]
            past_actions = torch.cat([embedded.new_zeros(batch, config.observed, config.width), embedded], 1)[:, count:]
        newest = latent.unflatten(0, (batch, count))[:, -1]
        steps = torch.full_like(counters, count - 1 - lead)
        # One memory layout always: convolutions round differently in another, and a snapshot must be exact.
        return WorldState(
            context.contiguous(), newest.contiguous(), fused[:, -1].contiguous(), past.contiguous(),
            past_actions.contiguous(), cache, steps, seeds, counters, instruction, recurrent, frame, temperature,
        )  # fmt: skip

    def _prompt(self, images: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b f g g"] | None:
        """Map of the motion prompt; None where there is none."""
        if images.shape[1] == 1:
            return None
        frames = to_uint8(images.flatten(0, 1)).unflatten(0, images.shape[:2]).cpu().numpy()
        drawn = np.stack([motion_prompt(each, self.tracker, self.config.dynamics.prompt) for each in frames])
        return self.tokenizer.encode_context(to_float(torch.from_numpy(drawn).to(images.device))).float()

    def _step(
        self, state: WorldState, vectors: Float[Tensor, "b a"], measure: bool
    ) -> tuple[WorldState, OutcomeVotes, Float[Tensor, " b"] | None]:
        """One step of all dreams: (where they are, what the ensemble says, mean entropy of their tokens)."""
        state._check_fresh()
        if state.imagined:
            raise ValueError("this state was imagined and has no tokens to dream on from; continue with drawn=False")
        state = self._anchor(state)
        motion, action = self.motion(state), self._embed(vectors)
        recurrent, foreseen = state.recurrent, None
        if self._draws_from_state:
            recurrent = self._filter.predict(recurrent, vectors)
            foreseen = self._filter.pictured(recurrent)
        compiled = self.compiled.get(len(state))
        if compiled and state.temperature == 0 and state.cache.level:
            made = compiled.step(
                state.cache,
                state.steps[:1],
                action,
                state.fused,
                state.latent,
                state.context,
                state.instruction,
                motion,
                foreseen,
            )
            latent, fused, votes, entropy = Scored(*made)
        else:
            with self._precision():
                hidden = self.dynamics.hidden_state(state.cache, state.steps, state.fused, action, motion)
            parts = [
                self._frame(state, hidden, action, motion, foreseen, rows, measure) for rows in self._blocks(len(state))
            ]
            latent, fused, votes, entropy = parts[0] if len(parts) == 1 else Scored.joined(parts)
        state.cache.age += 1
        after = replace(
            state,
            latent=latent,
            fused=fused,
            past=_shifted(state.past, state.fused),
            past_actions=_shifted(state.past_actions, action),
            steps=state.steps + 1,
            counters=state.counters + 1,
            recurrent=recurrent,
            age=state.cache.age,
        )
        if foreseen is None:
            return after, votes, entropy
        if self.foretells(state):
            return after, self._judged(recurrent, state.instruction), entropy
        after = replace(after, recurrent=self._filter.correct(recurrent, self._filter.embed(self._decode(after))))
        return after, votes, entropy

    def _frame(
        self,
        state: WorldState,
        hidden: Tensor,
        action: Tensor,
        motion: Tensor | None,
        foreseen: Tensor | None,
        rows: slice,
        measure: bool,
    ) -> Scored:
        """The next frame of some of the dreams, from what the backbone predicts, and its outcomes."""
        numbers = None
        if state.temperature > 0:
            numbers = uniforms(state.seeds[rows], state.counters[rows], self.config.tokenizer.tokens)
        with self._precision():
            latent, fused, moved, entropy = self.dynamics.next_frame(
                self.tokenizer,
                hidden[rows],
                state.fused[rows],
                state.latent[rows],
                state.context[rows],
                action[rows],
                None if motion is None else motion[rows],
                None if foreseen is None else foreseen[rows],
                numbers,
                state.temperature,
                measure,
            )
        # One memory layout always: convolutions round differently in another, and a snapshot must be exact.
        latent, fused = latent.float().contiguous(), fused.float().contiguous()
        votes = self.dynamics.outcome_heads.score(fused, moved, state.instruction[rows])
        return Scored(latent, fused, votes, entropy)

    def _dreamed(self, state: WorldState, sequences: Float[Tensor, "b n t a"]) -> Iterator[OutcomeVotes]:
        """Outcomes of each step of n futures of each dream, dreamed as `step` does."""
        dreams = state.fork(sequences.shape[1])
        for vectors in sequences.flatten(0, 1).unbind(1):
            dreams, votes, _ = self._step(dreams, vectors, measure=False)
            yield votes

    def _anchor(self, state: WorldState) -> WorldState:
        """Dreams whose window is full continue from their newest imagined frames, with the oldest as the context."""
        full = torch.nonzero(state.cache.lengths == self.dynamics.layout.capacity(self.config.dynamics.window))
        if not len(full):
            return state
        rows = full.flatten().to(self.device)
        parts = [self._anchored(state, part) for part in rows.split(self._block(len(rows)))]
        for part, fresh in parts:
            state = fresh if len(part) == len(state) else state.put(part, fresh)
        return state

    def _anchored(self, state: WorldState, rows: Tensor) -> tuple[Tensor, WorldState]:
        maps = torch.cat([state.past[rows], state.fused[rows, None]], 1)
        with self._precision():
            images = self.tokenizer.decode(maps.flatten(0, 1)).float().unflatten(0, maps.shape[:2]).clamp(-1.0, 1.0)
        recurrent = state.recurrent[rows]
        if self.foretells(state) and self.config.dynamics.rereads:
            recurrent = self._filter.correct(recurrent, self._filter.embed(to_uint8(images[:, -1])))
        return rows, self._begin(
            images,
            state.past_actions[rows],
            state.seeds[rows],
            state.counters[rows],
            state.instruction[rows],
            state.temperature,
            recurrent,
            state.frame[rows],
        )

    def _block(self, count: int) -> int:
        """Dreams that go through the scale head at a time."""
        return min(count, BLOCK.get(self.device.type, count))

    def _blocks(self, count: int) -> list[slice]:
        block = self._block(count)
        return [slice(start, min(start + block, count)) for start in range(0, count, block)]

    def _tiles(self, batch: int, count: int) -> Iterator[tuple[Tensor, slice]]:
        """(dreams, tries of each) that are evaluated at a time."""
        if not count:
            return
        block = self._block(batch * count)
        for dreams in torch.arange(batch, device=self.device).split(max(1, block // count)):
            for start in range(0, count, block):
                yield dreams, slice(start, min(start + block, count))

    def check_state(self, state: WorldState) -> None:
        """A ValueError if the state cannot be of this world."""
        config = self.config.dynamics
        width = self.recurrent.width if self.recurrent else 0
        if state.recurrent.shape[1] != width:
            raise ValueError(
                f"the snapshot's recurrent state has {state.recurrent.shape[1]} numbers; this world's has {width}: it "
                "was taken in another world, or by an earlier release of this one"
            )
        slots = self.dynamics.layout.slots(config.window)
        wanted = (config.layers, len(state), config.kv_heads, slots, config.width // config.heads)
        if state.cache.keys.shape != wanted:
            raise ValueError(
                f"the snapshot's cache has shape {tuple(state.cache.keys.shape)}; this world's is {wanted}: "
                "it was taken in a world of another size"
            )


def _shifted(past: Tensor, newest: Tensor) -> Tensor:
    """The past after one step more: [b, m, ...], of which the oldest is forgotten."""
    return torch.cat([past[:, 1:], newest[:, None]], 1) if past.shape[1] else past
