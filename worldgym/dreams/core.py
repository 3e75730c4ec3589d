"""The one core under every environment: n dreams of one world, each with its own task, chances and clock.

`DreamEnv`, `DreamVectorEnv` and `sb3.DreamVecEnv` are thin shells over it, so that they cannot differ.

    dreams = Dreams(64, DreamOptions("tabletop", instruction="push the red block to the centre"))
    dreams.reset(seeds=range(64))
    step = dreams.step(actions)            # 64 vectors or sentences
    observation = dreams.observe()         # pixels are made here, and only here
    blob = dreams.snapshot()
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from operator import index
from typing import Any, SupportsIndex

import numpy as np
import torch
from safetensors.torch import save as save_bytes
from torch import Tensor

from ..checkpoint import fingerprint, read_tensors
from ..decoders import open_stream
from ..listing import world_name
from ..model.device import isolated
from ..reader import Reading, reader_of
from ..spaces import action_space, on_host
from ..starts import InitialStates, Start, bundled_starts, recorded_starts
from ..state import WorldState
from .batch import DreamBatch, Step
from .loading import load_shared
from .observations import latents, observation_space
from .options import DreamOptions
from .rewards import make_reward

SNAPSHOT_VERSION = 5


class Dreams(DreamBatch):
    """`count` dreams of one world."""

    @isolated
    def __init__(self, count: int, options: DreamOptions, max_episode_steps: int | None = None):
        super().__init__(count, max_episode_steps)
        self.options = options
        self.world = load_shared(options.world, options.device, count if options.compiled else 0)
        config = self.world.config
        if (options.imagined or options.obs_type == "state") and self.world.recurrent is None:
            raise ValueError(
                f"the world {config.name!r} has no recurrent state for imagined=True or obs_type='state'; "
                "`worldgym train state` makes one"
            )
        self.phrases = list(config.phrases)
        if options.action_mode != "vector" and not self.phrases:
            raise ValueError(
                f"action_mode is {options.action_mode!r}, but the world {config.name!r} was trained on no sentences; "
                "use action_mode='vector'"
            )
        self.codec = config.codec
        self.action_space = action_space(options.action_mode, self.codec, self.phrases)
        self.observation_space = observation_space(options.obs_type, self.world)
        self.temperature = options.temperature
        self._reader = reader_of(tuple(self.phrases))
        self._still = self.codec.snap(np.zeros(self.codec.size, np.float32))
        self._reward = make_reward(options.reward, self.world)
        self._frames = open_stream(self.world, options.world, options.decoder, count)
        self._starts: InitialStates | None = None  # read at the first reset that needs one
        instruction = options.instruction
        if instruction is None and isinstance(options.reward, str) and options.reward != "learned":
            instruction = options.reward
        chosen = instruction is not None
        if instruction is None and isinstance(options.reward, str):
            if not config.instructions:
                raise ValueError(f"the world {config.name!r} was trained on no instruction; give it another reward")
            instruction = config.instructions[0]
        if instruction is not None:
            [instruction] = self.world.known_instructions([instruction])

        self.state: WorldState | None = None
        self.instructions = [instruction] * count
        self.chosen = np.full(count, chosen)
        """Whether the caller chose the instruction. The success of a default one does not cut a sentence short."""
        self._pictures: Tensor | None = None

    def read_past(self, actions: Any) -> np.ndarray:
        """What was done between observed frames, float32 [t - 1, a], as the world's own actions, oldest first."""
        actions = on_host(actions)
        if self.codec.plain:
            return np.asarray(actions)
        return np.array([self.codec.encode(action) for action in actions], np.float32).reshape(-1, self.codec.size)

    @property
    def first_info(self) -> dict[str, Any]:
        info: dict[str, Any] = {"success": False}
        if not self.options.imagined:  # which draws no tokens to be uncertain of
            info |= {"uncertainty": 0.0, "too_uncertain": False}
        info["num_frames"] = 0
        if self.options.action_mode != "vector":
            info["action_ok"] = True
        if self.options.action_mode in ("text", "both"):
            info["action_reason"] = ""
        return info

    # -- the verbs ------------------------------------------------------------------------------------------------

    @isolated
    def reset(
        self,
        which: np.ndarray | None = None,
        seeds: Sequence[SupportsIndex | None] | None = None,
        frames: np.ndarray | None = None,
        actions: np.ndarray | None = None,
        instructions: Sequence[str] | None = None,
    ) -> None:
        rows = self._to_reset(which, frames=frames, actions=actions, instructions=instructions, seeds=seeds)
        wished: Sequence[str | None] = self.instructions if instructions is None else instructions
        asked = self._known([wished[row] for row in rows.tolist()])
        randoms = [self._random(row, None if seeds is None else seeds[row]) for row in rows.tolist()]
        done: np.ndarray | None
        if frames is None:
            drawn = [self._draw(i, random) for i, random in zip(asked, randoms, strict=True)]
            begun, done = (np.stack(part) for part in zip(*drawn, strict=True))
        else:
            begun, done = np.asarray(frames)[rows], None if actions is None else np.asarray(actions)[rows]
        fresh = self.world.start(
            begun,
            done,
            [int(random.integers(2**63)) for random in randoms],
            self._spelled(asked),
            self.temperature,
        )
        self._put(rows, fresh)
        self._frames.begin(rows.tolist(), torch.from_numpy(begun[:, -1]).to(self.world.device))
        for row, wanted, random in zip(rows, asked, randoms, strict=True):
            self.instructions[row], self.randoms[row] = wanted, random
        if instructions is not None:
            self.chosen[rows] = True
        self.elapsed[rows], self.returns[rows], self.over[rows] = 0, 0.0, False

    @isolated
    def step(self, actions: Sequence[np.ndarray | str], which: np.ndarray | None = None) -> Step:
        """Take an action in each dream: a vector for one frame, a sentence for as many as it covers.

        A sentence that asks for several things covers as many times the frames. During one that is not understood
        nothing is done, as in the twin: the vector is 0, or the nearest to it that can be done. A dream that ends stops
        there, while the others continue with their sentences. A dream whose instruction was not chosen finishes its
        sentence first.

        Args:
            actions: n, as `read` makes them.
            which: bool [n], the dreams that move; all by default. The actions of the others are ignored.
        """
        before = self._running()
        count = len(self)
        moving = np.ones(count, bool) if which is None else which
        spoken = np.array([isinstance(action, str) for action in actions]) & moving
        readings = [self._reader.read(action) if isinstance(action, str) else None for action in actions]
        vectors, read = self._embed(actions, readings)
        several = np.array([max(1, len(reading.phrases)) if reading else 1 for reading in readings])
        frames = self.world.config.frames_per_action
        wanted = np.where(spoken, frames * several, 1)
        acting = np.array([bool(reading and reading.phrases) for reading in readings])
        reward, uncertainty, num_frames = np.zeros(count), np.zeros(count), np.zeros(count, np.int64)
        success, terminated, unsure = (np.zeros(count, bool) for _ in range(3))

        rows = np.flatnonzero(moving)
        state = before if len(rows) == count else before.select(self._index(rows))
        try:
            while len(rows):
                here = self._index(rows)
                now = vectors[here]
                if acting[rows].any():
                    said = torch.from_numpy(acting[rows, None]).to(now.device)
                    part = self._index(num_frames[rows] // frames)
                    now = torch.where(said, self.world.act(state, read[here, part]), now)
                state, outcome = self.world.step(state, now, not self.options.imagined)
                self._frames.put(rows.tolist(), state.fused, state.seeds, state.counters)
                figures = torch.stack(
                    [self._reward(state, outcome), outcome.success, outcome.terminated, outcome.uncertainty]
                )
                earned, succeeds, ends, nats = figures.cpu().numpy().astype(np.float64)
                reward[rows] += earned
                if self.options.uncertainty_penalty:
                    reward[rows] -= self.options.uncertainty_penalty * nats
                judged = np.array([self.instructions[row] is not None for row in rows])
                finished = self.chosen[rows] | (num_frames[rows] + 1 >= wanted[rows])
                success[rows], terminated[rows] = judged & (succeeds > 0.5), judged & finished & (ends > 0.5)
                uncertainty[rows] = np.maximum(uncertainty[rows], nats)
                unsure[rows] = self._too_uncertain(nats) & (self.elapsed[rows] > 0)
                num_frames[rows] += 1
                going = (num_frames[rows] < wanted[rows]) & ~terminated[rows] & ~unsure[rows]
                if not going.all():
                    self._put(rows, state)
                    state, rows = state.select(self._index(np.flatnonzero(going))), rows[going]
        finally:  # a reward function may raise; the dreams are then where it saw them
            self._put(rows, state)

        self.elapsed += moving
        self.returns += reward
        late = moving & (self.elapsed >= self.max_episode_steps) if self.max_episode_steps else np.zeros(count, bool)
        truncated = unsure | late
        self.over = np.where(moving, terminated | truncated, self.over)
        reasons = np.array([reading.reason if reading else "" for reading in readings], object)
        info = {
            "success": success, "uncertainty": uncertainty, "too_uncertain": unsure, "num_frames": num_frames,
            "action_ok": reasons == "", "action_reason": reasons,
        }  # fmt: skip
        return Step(reward, terminated, truncated, {name: info[name] for name in self.first_info})

    def observe(self) -> Tensor | dict[str, Tensor]:
        """What the newest frames look like to an agent, as `obs_type` says; new tensors on the model's device."""
        match self.options.obs_type:
            case "pixels":
                return self.render()
            case "latent":
                return self._latent()
            case "state":
                return self._running().recurrent.clamp(-1.0, 1.0)
            case _:
                return {"pixels": self.render(), "latent": self._latent()}

    @isolated
    def render(self) -> Tensor:
        """Pictures, uint8 [n, h, w, 3], decoded when they are first asked for; a copy."""
        if self._pictures is None:
            now = self._running()
            self._pictures = self._frames.look(now)
        return self._pictures.clone()

    @isolated
    def instruct(self, rows: Sequence[int], instructions: Sequence[str | None]) -> None:
        """Judge these dreams by other instructions, one for each, from here on."""
        instructions = self._known(instructions)
        read = self.world.read_instructions(self._spelled(instructions))
        if self.state is not None:
            place = self._index(np.asarray(rows, np.int64))
            self.state = replace(self.state, instruction=self.state.instruction.index_copy(0, place, read))
        for row, wanted in zip(rows, instructions, strict=True):
            self.instructions[row] = wanted
        self.chosen[list(rows)] = True

    def _branch(self, rows: np.ndarray, state: WorldState | None) -> "Dreams":
        branch = super()._branch(rows, state)
        assert isinstance(branch, Dreams)
        branch.chosen = self.chosen[rows]
        branch._reward = make_reward(self.options.reward, self.world)
        branch._frames = self._frames.select(rows.tolist())
        branch._pictures = None
        return branch

    def put(self, rows: Sequence[int] | np.ndarray, other: Any) -> None:
        super().put(rows, other)
        rows = np.asarray(rows, np.int64)
        if other.state is not None:
            self._frames.replace(rows.tolist(), other._frames)
        self.chosen[rows] = other.chosen

    @isolated
    def snapshot(self) -> bytes:
        meta = {
            "version": SNAPSHOT_VERSION,
            "world": self.world.config.name,
            "weights": fingerprint(self.world),
            "chosen": self.chosen.tolist(),
            **self._surroundings(),
        }
        body = self._running().snapshot()
        remembered = self._frames.snapshot()
        shown = save_bytes(remembered) if remembered else b""
        meta |= {"size": len(body), "decoder": self._frames.fingerprint}
        return json.dumps(meta).encode() + b"\n" + body + shown

    @isolated
    def restore(self, blob: bytes) -> None:
        header, _, body = blob.partition(b"\n")
        try:
            meta = json.loads(header)
            version = meta["version"]
            if version == SNAPSHOT_VERSION:
                world, weights, decoder, size = meta["world"], meta["weights"], meta["decoder"], index(meta["size"])
                around = self._recalled(meta) | {"chosen": np.array(meta["chosen"], bool)}
        except (ValueError, TypeError, KeyError):
            raise ValueError(f"these {len(blob)} bytes are not a snapshot of a dream environment") from None
        if version != SNAPSHOT_VERSION:
            raise ValueError(f"snapshot version is {version}; this release reads {SNAPSHOT_VERSION}")
        if world != self.world.config.name:
            raise ValueError(
                f"the snapshot is of the world {world!r}; this environment dreams {self.world.config.name!r}"
            )
        if weights != fingerprint(self.world):
            raise ValueError(
                f"the snapshot was taken in the world {world!r} with other weights ({weights}; here they are "
                f"{fingerprint(self.world)}): it has been trained since, and would not continue as it would have"
            )
        if decoder != self._frames.fingerprint:
            raise ValueError(
                f"the snapshot's pictures are by {'another diffusion' if decoder else 'the fast'} decoder; this "
                f"environment has decoder={self.options.decoder!r}"
            )
        self._known(around["instructions"])
        state = WorldState.restore(body[:size], self.world.device)
        self.world.check_state(state)
        if state.imagined and not self.options.imagined:
            raise ValueError("the snapshot is of imagined dreams; restore it with imagined=True")
        if {len(part) for part in around.values()} != {len(self)} or len(state) != len(self):
            raise ValueError(f"the snapshot holds {len(state)} dreams; this environment has {len(self)}")
        try:
            shown = read_tensors(body[size:], self.world.device) if len(body) > size else {}
        except ValueError as error:
            raise ValueError(f"the snapshot is cut short or too long: {error}") from None
        self._frames.restore(shown)
        self._put(np.arange(len(self)), state)
        self.temperature = state.temperature
        vars(self).update(around)

    def __reduce__(self):
        """What pickles and deep copies hold: everything that evolves. The world is loaded where they are opened."""
        assert self.world.folder is not None
        options = replace(self.options, world=world_name(self.world.folder))
        before = None if self.state is None else self.snapshot()
        return _reopen, (options, self.max_episode_steps, self.instructions, self.chosen, self.randoms, before)

    # -- inside ---------------------------------------------------------------------------------------------------

    def _put(self, rows: np.ndarray, state: WorldState) -> None:
        super()._put(rows, state)
        self._pictures = None

    def _spelled(self, instructions: Sequence[str | None]) -> list[str]:
        """For the state, which has to hold an instruction; it is not read where there is none."""
        return [self.world.config.instructions[0] if wanted is None else wanted for wanted in instructions]

    def _draw(self, instruction: str | None, random: np.random.Generator) -> Start:
        if self._starts is None:
            if self.options.starts is not None:
                self._starts = recorded_starts(self.options.starts, self.world.config)
            else:
                self._starts = bundled_starts(self.options.world, self.world.config)
        if self._starts is None:
            raise ValueError(
                'this checkpoint has no starts.npz; pass real frames, reset(options={"frames": ...}), '
                "or a dataset, starts=..."
            )
        return self._starts.draw(instruction, random)

    def _known(self, instructions: Sequence[str | None]) -> list[str | None]:
        """The world's own instructions that these mean; a ValueError if one means none."""
        return [None if wanted is None else self.world.known_instructions([wanted])[0] for wanted in instructions]

    def _embed(self, actions: Sequence[np.ndarray | str], readings: Sequence[Reading | None]) -> tuple[Tensor, Tensor]:
        """Vectors [n, a], and what each action asks for by sentences [n, k, d], one after the other; zeros elsewhere.
        A sentence is read once."""
        config, device = self.world.config, self.world.device
        vectors = np.zeros((len(actions), config.action_size), np.float32)
        asked = [reading.phrases if reading else () for reading in readings]
        for row, action in enumerate(actions):
            vectors[row] = self._still if isinstance(action, str) else action
        read = torch.zeros(len(actions), max(1, *map(len, asked)), config.dynamics.width, device=device)
        places = [(row, part) for row, phrases in enumerate(asked) for part in range(len(phrases))]
        if places:
            rows, parts = zip(*places, strict=True)
            read[list(rows), list(parts)] = self.world.read([asked[row][part] for row, part in places])
        return torch.from_numpy(vectors).to(device), read

    def _too_uncertain(self, uncertainty: np.ndarray) -> np.ndarray:
        bound = self.options.max_uncertainty
        return np.zeros(len(uncertainty), bool) if bound is None else uncertainty > bound

    def _latent(self) -> Tensor:
        return latents(self.world, self._running())


def _reopen(
    options: DreamOptions,
    max_episode_steps: int | None,
    instructions: list[str | None],
    chosen: np.ndarray,
    randoms: list[np.random.Generator | None],
    before: bytes | None,
) -> Dreams:
    """Dreams out of a pickle; a ValueError if their world has been trained since."""
    dreams = Dreams(len(instructions), options, max_episode_steps)
    if before is not None:
        dreams.restore(before)
    dreams.instructions, dreams.chosen, dreams.randoms = instructions, chosen, randoms  # of which the seeds are known
    return dreams
