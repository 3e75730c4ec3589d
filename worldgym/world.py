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

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from safetensors import SafetensorError
from safetensors.torch import load as load_bytes
from safetensors.torch import save as save_bytes
from torch import Tensor, nn

from .backbone import KVCache
from .chance import uniforms
from .checkpoint import find_world, load_config, load_tensors, load_weights
from .config import WorldConfig
from .device import pick_device
from .dynamics import Dynamics
from .pixels import to_float, to_uint8
from .text import PhraseTokenizer
from .tokenizer import Tokenizer

SNAPSHOT_VERSION = 1


@dataclass(frozen=True)
class Outcome:
    """What a step brought, for each dream."""

    reward: Float[Tensor, " b"]
    success: Float[Tensor, " b"]
    """Probability."""
    terminated: Float[Tensor, " b"]
    """Probability."""
    uncertainty: Float[Tensor, " b"]
    """Mean entropy of the drawn tokens, nats."""


@dataclass(frozen=True)
class WorldState:
    """Where `b` dreams stand. A value, but for one economy: a step writes into the cache of the state it came
    from, which is then spent; `fork` it before if you want to go two ways."""

    context: Float[Tensor, "b f g g"]
    """Dense map of the observed frame that tokens are relative to."""
    latent: Float[Tensor, "b z g g"]
    """What the tokens of the newest frame add up to."""
    fused: Float[Tensor, "b f g g"]
    """What the newest frame shows; rewards and pixels are read off it."""
    cache: KVCache
    steps: Int[Tensor, " b"]
    """Steps in the cache, for each dream."""
    seeds: Int[Tensor, " b"]
    counters: Int[Tensor, " b"]
    """Steps dreamed so far; with the seed, all the randomness of a dream."""
    instruction: Float[Tensor, "b d"]
    """What rewards are judged by."""
    temperature: float = 0.0
    """Of the token distributions; 0 takes the likeliest token."""
    age: int = 0
    """Steps taken from the cache's birth; a spent state is older than its cache."""

    def __len__(self) -> int:
        return len(self.seeds)

    def fork(self, copies: int, seeds: Int[Tensor, " n"] | None = None) -> "WorldState":
        """`copies` independent continuations of each dream, next to each other: [b * copies].

        They share their past and, unless `seeds` (long [b * copies]) are given, their chances too: the same
        actions lead to the same future.
        """
        forked = self.select(torch.arange(len(self), device=self.seeds.device).repeat_interleave(copies))
        return forked if seeds is None else replace(forked, seeds=seeds.to(self.seeds))

    def select(self, dreams: Int[Tensor, " n"]) -> "WorldState":
        """A copy with these dreams, in this order."""
        self._check_fresh()
        tensors: dict[str, Any] = {name: getattr(self, name)[dreams] for name in _TENSORS}
        return replace(self, cache=self.cache.select(dreams), age=0, **tensors)

    def put(self, dreams: Int[Tensor, " n"], other: "WorldState") -> "WorldState":
        """A copy in which these dreams are replaced by those of `other`."""
        merged = self.select(torch.arange(len(self), device=self.seeds.device))
        merged.cache.put(dreams, other.cache)
        for name in _TENSORS:
            getattr(merged, name)[dreams] = getattr(other, name)
        return merged

    def snapshot(self) -> bytes:
        """Everything, as bytes that survive the process: what follows a `restore` is what would have followed."""
        self._check_fresh()
        tensors = {name: getattr(self, name) for name in _TENSORS}
        tensors |= {"keys": self.cache.keys, "values": self.cache.values}
        return save_bytes(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
            {"worldgym_snapshot": json.dumps({"version": SNAPSHOT_VERSION, "temperature": self.temperature})},
        )

    @classmethod
    def restore(cls, blob: bytes, device: str | torch.device = "cpu") -> "WorldState":
        """The state behind a `snapshot()`."""
        try:
            size = int.from_bytes(blob[:8], "little")
            meta = json.loads(json.loads(blob[8 : 8 + size])["__metadata__"]["worldgym_snapshot"])
            version, temperature = meta["version"], meta["temperature"]
            tensors = load_bytes(blob)
        except (SafetensorError, ValueError, KeyError, TypeError):
            raise ValueError(f"these {len(blob)} bytes are not a snapshot of a dream, or are cut short") from None
        if version != SNAPSHOT_VERSION:
            raise ValueError(f"snapshot version is {version}; this release reads {SNAPSHOT_VERSION}")
        here: dict[str, Any] = {name: tensor.to(device) for name, tensor in tensors.items()}
        cache = KVCache(here.pop("keys"), here.pop("values"))
        return cls(cache=cache, temperature=temperature, **here)

    def _check_fresh(self) -> None:
        if self.age != self.cache.age:
            raise ValueError(
                "this state was already stepped from and its cache has moved on; fork() it before stepping"
            )


_TENSORS = ("context", "latent", "fused", "steps", "seeds", "counters", "instruction")


class WorldModel(nn.Module):
    """A learned world: tokenizer and dynamics, and what they were trained on. Make one with `load`."""

    def __init__(self, config: WorldConfig, text: PhraseTokenizer):
        super().__init__()
        self.config = config
        self.text = text
        self.tokenizer = Tokenizer(config.tokenizer)
        self.dynamics = Dynamics(config.tokenizer, config.dynamics, config.action_size)

    @classmethod
    def load(cls, name: str, device: str = "auto") -> "WorldModel":
        """A world by bundled name or folder, ready to dream.

        Raises:
            ValueError: unknown name; a checkpoint that is damaged, foreign, of another version, or only half
                trained.
        """
        where = pick_device(device)
        folder = find_world(name)
        config, stage = load_config(folder)
        if stage != "world":
            raise ValueError(f"{folder} holds a {stage} only; train its dynamics before dreaming in it")
        text = PhraseTokenizer.load(folder / "bpe.json")
        world = cls(config, text)
        load_weights(world, load_tensors(folder / "model.safetensors"), folder)
        return world.to(where).eval().requires_grad_(False)

    @property
    def device(self) -> torch.device:
        return self.dynamics.cells.device

    # -- the verbs ------------------------------------------------------------------------------------------------

    @torch.no_grad()
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
            frames: uint8 [b, t, h, w, 3], what was seen, oldest first; more than half a window of them are cut
                to the newest.
            actions: float32 [b, t - 1, a], what was done between them; may be left out for a single frame.
            seeds: [b], one for each dream; 0, 1, 2, ... by default.
            instruction: judged by the rewards; one for all or one each; the world's first by default.
            temperature: of the token distributions; 0 dreams the likeliest future, 1 the learned spread.
        """
        if not 0.0 <= temperature < float("inf"):
            raise ValueError(f"temperature is {temperature}; it must be 0 or more")
        frames = _tensor(frames).to(self.device)
        self._check_frames(frames)
        batch, count = frames.shape[:2]
        if actions is None:
            actions = torch.zeros(batch, 0, self.config.action_size)
        actions = _tensor(actions).to(self.device, torch.float32)
        if actions.shape != (batch, count - 1, self.config.action_size):
            raise ValueError(
                f"actions have shape {tuple(actions.shape)}; {count} frames in {batch} dreams of this world take "
                f"{(batch, count - 1, self.config.action_size)}"
            )
        if not torch.isfinite(actions).all():
            raise ValueError("actions are not finite")
        keep = min(count, self.config.dynamics.window // 2 + 1)
        frames, actions = frames[:, count - keep :], actions[:, count - keep :]
        images = to_float(frames.flatten(0, 1)).unflatten(0, (batch, keep))
        seeds = torch.arange(batch) if seeds is None else torch.as_tensor(seeds)
        if seeds.shape != (batch,):
            raise ValueError(f"seeds have shape {tuple(seeds.shape)}; {batch} dreams take ({batch},)")
        wanted = self.config.instructions[0] if instruction is None else instruction
        return self._begin(
            images,
            self.dynamics.from_vector(actions),
            seeds.to(self.device, torch.long),
            torch.zeros(batch, dtype=torch.long, device=self.device),
            self.read_instructions([wanted] * batch if isinstance(wanted, str) else list(wanted)),
            temperature,
        )

    @torch.no_grad()
    def step(self, state: WorldState, action: Tensor | np.ndarray | Sequence[str]) -> tuple[WorldState, Outcome]:
        """Dream one frame on, without making its pixels.

        Args:
            action: float32 [b, a] vectors, or b sentences.
        """
        return self._step(state, self.embed_actions(action, state))

    @torch.no_grad()
    def render(self, state: WorldState) -> UInt8[Tensor, "b h w c"]:
        """The newest frame of each dream, on the model's device."""
        return to_uint8(self.tokenizer.decode(state.fused))

    @torch.no_grad()
    def evaluate(self, state: WorldState, action_sequences: Tensor | np.ndarray) -> Float[Tensor, "b n"]:
        """Return of each of n action sequences tried from each dream; never decodes, leaves `state` as it is.

        Args:
            action_sequences: [b, n, horizon, a].

        A sequence stops earning once the dream says that its episode has ended.
        """
        sequences = _tensor(action_sequences).to(self.device, torch.float32)
        if sequences.ndim != 4 or sequences.shape[0] != len(state) or sequences.shape[3] != self.config.action_size:
            raise ValueError(
                f"action sequences have shape {tuple(sequences.shape)}; {len(state)} dreams of this world take "
                f"({len(state)}, n, horizon, {self.config.action_size})"
            )
        batch, count, horizon, _ = sequences.shape
        dreams = state.fork(count)
        embedded = self.dynamics.from_vector(sequences.flatten(0, 1))
        total = torch.zeros(batch * count, device=self.device)
        alive = torch.ones_like(total)
        for when in range(horizon):
            dreams, outcome = self._step(dreams, embedded[:, when])
            total += alive * outcome.reward
            alive *= (outcome.terminated < 0.5).float()
        return total.view(batch, count)

    # -- words and vectors ------------------------------------------------------------------------------------------

    def embed_actions(self, action: Tensor | np.ndarray | Sequence[str], state: WorldState) -> Float[Tensor, "b d"]:
        """Actions as the backbone's tokens, checked. What a sentence means depends on the newest frame."""
        batch = len(state)
        if isinstance(action, (list, tuple)) and action and isinstance(action[0], str):
            if len(action) != batch:
                raise ValueError(f"got {len(action)} sentences for {batch} dreams")
            return self.dynamics.from_vector(self.act(state, self.read(list(action))))
        action = _tensor(action).to(self.device, torch.float32)
        if action.shape != (batch, self.config.action_size):
            raise ValueError(
                f"action has shape {tuple(action.shape)}; this world takes ({batch}, {self.config.action_size})"
            )
        if not torch.isfinite(action).all():
            raise ValueError("action is not finite")
        return self.dynamics.from_vector(action)

    @torch.no_grad()
    def read(self, sentences: list[str]) -> Float[Tensor, "b d"]:
        """Sentences as the backbone understands them; what they mean does not depend on any frame."""
        unique = sorted(set(sentences))
        ids, lengths = self.text.encode(unique)
        read = self.dynamics.backbone.read(ids.to(self.device), lengths.to(self.device))
        return read[[unique.index(sentence) for sentence in sentences]]

    @torch.no_grad()
    def act(self, state: WorldState, read: Float[Tensor, "b d"]) -> Float[Tensor, "b a"]:
        """The vector actions that carry out sentences, once `read`, from the newest frame of each dream."""
        return self.dynamics.sentence_policy.act(self.dynamics.outcome_heads.features(state.fused), read)

    @torch.no_grad()
    def see(self, frames: UInt8[Tensor, "b h w c"], state: WorldState) -> Float[Tensor, "b f g g"]:
        """Fused maps of given frames, one for each dream and relative to its context: comparable to `state.fused`."""
        tokens = self.tokenizer.encode(to_float(frames), state.context)
        return self.tokenizer.fuse(self.tokenizer.quantizer.embed(tokens), state.context)

    @torch.no_grad()
    def read_instructions(self, instructions: list[str]) -> Float[Tensor, "b d"]:
        """Instructions for the outcome heads."""
        self.check_instructions(instructions)
        return self.read(instructions)

    def check_instructions(self, instructions: list[str]) -> None:
        """A ValueError if the world was not trained on one of them."""
        for instruction in instructions:
            if instruction not in self.config.instructions:
                known = self.config.instructions
                raise ValueError(
                    f"unknown instruction {instruction!r}; the world {self.config.name!r} judges {len(known)}, "
                    f"for instance: {'; '.join(known[:: max(1, len(known) // 5)])}"
                )

    # -- inside -----------------------------------------------------------------------------------------------------

    def _begin(
        self,
        images: Tensor,
        embedded: Tensor,
        seeds: Tensor,
        counters: Tensor,
        instruction: Tensor,
        temperature: float,
    ) -> WorldState:
        """Dreams whose context is the first of `images` [b, t, c, h, w] and whose newest frame is the last."""
        batch, count = images.shape[:2]
        context = self.tokenizer.encode_context(images[:, 0])
        contexts = context.repeat_interleave(count, 0)
        latent = self.tokenizer.quantizer.embed(self.tokenizer.encode(images.flatten(0, 1), contexts))
        fused = self.tokenizer.fuse(latent, contexts).unflatten(0, (batch, count))
        newest = latent.unflatten(0, (batch, count))[:, -1]
        config = self.config.dynamics
        cache = KVCache.empty(config, batch, self.dynamics.layout.capacity(config.window), context)
        self.dynamics.prefill(cache, context, fused[:, :-1], embedded)
        steps = torch.full_like(counters, count - 1)
        # One memory layout always: convolutions round differently in another, and a snapshot must be exact.
        return WorldState(
            context.contiguous(), newest.contiguous(), fused[:, -1].contiguous(), cache,
            steps, seeds, counters, instruction, temperature,
        )  # fmt: skip

    def _step(self, state: WorldState, action: Tensor) -> tuple[WorldState, Outcome]:
        state._check_fresh()
        full = torch.nonzero(state.steps == self.config.dynamics.window).flatten()
        if len(full):
            state = self._anchor(state, full)
        dynamics, quantizer = self.dynamics, self.tokenizer.quantizer
        aligned = dynamics.predict(state.cache, state.steps, state.fused, action)
        numbers = uniforms(state.seeds, state.counters, self.config.tokenizer.tokens)
        _, latent, entropy = dynamics.scale_head.draw(
            aligned, action, state.latent, quantizer, numbers, state.temperature
        )
        fused = self.tokenizer.fuse(latent, state.context)
        judged = dynamics.outcome_heads(dynamics.outcome_heads.features(fused), state.instruction)
        state.cache.age += 1
        after = replace(
            state,
            latent=latent.contiguous(),
            fused=fused.contiguous(),
            steps=state.steps + 1,
            counters=state.counters + 1,
            age=state.cache.age,
        )
        return after, Outcome(
            reward=judged.reward.mean(0),
            success=judged.success.mean(0).sigmoid(),
            terminated=judged.terminated.mean(0).sigmoid(),
            uncertainty=entropy,
        )

    def _anchor(self, state: WorldState, full: Tensor) -> WorldState:
        """Dreams whose window is full go on with their newest imagined frame as the context."""
        part = state.select(full)
        images = self.tokenizer.decode(part.fused)[:, None].clamp(-1.0, 1.0)
        nothing = part.instruction.new_zeros(len(part), 0, self.config.dynamics.width)
        return state.put(
            full, self._begin(images, nothing, part.seeds, part.counters, part.instruction, state.temperature)
        )

    def check_state(self, state: WorldState) -> None:
        """A ValueError if the state cannot be of this world."""
        config = self.config.dynamics
        slots = self.dynamics.layout.capacity(config.window)
        wanted = (config.layers, len(state), config.kv_heads, slots, config.width // config.heads)
        if state.cache.keys.shape != wanted:
            raise ValueError(
                f"the snapshot's cache has shape {tuple(state.cache.keys.shape)}; this world's is {wanted}: "
                "it was taken in a world of another size"
            )

    def _check_frames(self, frames: Tensor) -> None:
        size = self.config.tokenizer.resolution
        if frames.ndim != 5 or frames.shape[2:] != (size, size, 3) or frames.shape[1] < 1:
            raise ValueError(
                f"frames have shape {tuple(frames.shape)}; this world takes (batch, time, {size}, {size}, 3)"
            )
        if frames.dtype != torch.uint8:
            raise TypeError(f"frames have dtype {frames.dtype}; this world takes uint8")


def _tensor(array: Tensor | np.ndarray | Sequence) -> Tensor:
    """As a tensor; of a read-only array, such as a slice of a memory-mapped file, a copy."""
    return array if isinstance(array, Tensor) else torch.from_numpy(np.require(array, requirements="W"))
