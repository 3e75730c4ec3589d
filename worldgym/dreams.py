"""The one core under every environment: n dreams of one world, each with its own task, chances and clock.

`DreamEnv`, `DreamVectorEnv` and `sb3.DreamVecEnv` are thin shells over it, so that they cannot differ.

    dreams = Dreams(64, DreamOptions("tabletop", instruction="push the red block to the centre"))
    dreams.reset(seeds=range(64))
    step = dreams.step(actions)            # 64 vectors or sentences
    observation = dreams.observe()         # pixels are made here, and only here
    blob = dreams.snapshot()
"""

import copy
import hashlib
import json
import multiprocessing
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from operator import index
from pathlib import Path
from traceback import walk_stack
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from gymnasium.utils import seeding
from gymnasium.vector import AsyncVectorEnv
from jaxtyping import Float
from safetensors.torch import save as save_bytes
from torch import Tensor, nn

from .checkpoint import DECODER_FILES, find_world, read_tensors, recover
from .rewards import FrameReward, make_judge
from .spaces import ActionMode, action_space
from .starts import Start, Starts, bundled_starts, recorded_starts
from .world import WorldModel, WorldState

if TYPE_CHECKING:
    from .pan.decoder import DiffusionDecoder
    from .pan.screen import Screen

SNAPSHOT_VERSION = 4
FIRST_INFO = {"success": False, "uncertainty": 0.0, "num_frames": 0}
"""What a reset tells, at most."""
LATENT_BOUND = 10.0
"""Latent observations are clipped to it; in the bundled world they stay within 1.2."""


@dataclass(frozen=True)
class DreamOptions:
    """What dreams are like: the keyword arguments that `gym.make`, `gym.make_vec` and `DreamVecEnv` share."""

    world: str
    """A bundled name or a checkpoint folder."""
    instruction: str | None = None
    """What reward, success and the end of an episode are judged by. Without one, learned rewards are for the world's
    first; under any other reward there is then no success, and a dream never terminates."""
    action_mode: ActionMode = "vector"
    """"vector": float32 [a] in [-1, 1], one frame. "text": any sentence; it covers `frames_per_action` frames of the
    world, whose rewards are summed. "discrete": an index into the world's list of sentences, `phrases`. "both":
    `(0, vector)` or `(1, sentence)`; a bare vector or sentence will do."""
    obs_type: Literal["pixels", "latent", "both"] = "pixels"
    """"pixels": uint8 [h, w, 3]. "latent": float32 [f * g * g], the fused map that rewards are read off; in a world
    with `memory` [2 * f * g * g], it and the one before, which together tell speed. Nothing is decoded. "both": a
    dictionary of the two."""
    reward: str | np.ndarray | FrameReward = "learned"
    """"learned", for the instruction. A goal in words, one that the world can judge: learned, too, whatever the
    instruction says of ends; it is the instruction where there is none. A goal image, uint8 [h, w, 3]: minus the
    relative distance to it between fused maps, nothing is decoded. Or a function of imagined frames,
    uint8 [b, h, w, 3] -> [b], called for every frame."""
    uncertainty_penalty: float = 0.0
    """Reward that each nat of uncertainty costs, at every frame."""
    max_uncertainty: float | None = None
    """Nats above which an episode is truncated, though never by its first action."""
    starts: str | None = None
    """Id of a Minari dataset from `worldgym record` to begin from; the world's bundled held-out frames otherwise."""
    temperature: float = 0.0
    """0 dreams the likeliest future, 1 the learned spread."""
    decoder: str = "fast"
    """What pictures are made by. "fast": the tokenizer's own decoder, one pass. "diffusion": the diffusion decoder in
    the world's folder, many times slower; or the folder of one that `python -m worldgym.pan.train_decoder` wrote.
    It shows every frame after the one before, so a dream that is looked at seldom is shown in arrears. Rewards that
    are functions of frames see the fast decoder's."""
    compiled: bool = False
    """Compile the step of all dreams with OpenVINO first, which takes seconds: one dream is then twice as fast,
    on a CPU (`WorldModel.compile_for`)."""
    drafted: bool = False
    """Go on by the world's draft (see draft.py) instead of drawing tokens: several times faster, and truer on the
    Tabletop. There are no chances in it, and no uncertainty."""
    device: str = "auto"
    """"auto" takes a GPU where there is one."""

    def __post_init__(self):
        if self.obs_type not in ("pixels", "latent", "both"):
            raise ValueError(f"obs_type {self.obs_type!r} must be 'pixels', 'latent' or 'both'")
        if not 0.0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature is {self.temperature}; it must be 0 or more")
        if not 0.0 <= self.uncertainty_penalty < float("inf"):
            raise ValueError(f"uncertainty_penalty is {self.uncertainty_penalty}; it must be 0 or more")
        if self.max_uncertainty is not None and not self.max_uncertainty > 0.0:
            raise ValueError(f"max_uncertainty is {self.max_uncertainty}; it must be above 0, or None for no bound")
        if self.drafted:
            mine = {
                "temperature": self.temperature, "uncertainty_penalty": self.uncertainty_penalty,
                "max_uncertainty": self.max_uncertainty, "compiled": self.compiled,
            }  # fmt: skip
            if asked := [f"{name}={value}" for name, value in mine.items() if value not in (0.0, None, False)]:
                raise ValueError(
                    f"drafted dreams draw no tokens and are not compiled; leave out {' and '.join(asked)}, or drafted"
                )


class Step(NamedTuple):
    """What an action brought, for each of n dreams; zeros for those that did not move."""

    reward: np.ndarray
    """float64 [n]."""
    terminated: np.ndarray
    """bool [n]."""
    truncated: np.ndarray
    """bool [n]."""
    info: dict[str, np.ndarray]
    """[n] each: "success", "uncertainty" (nats, the largest of the action's frames; drafted dreams have none),
    "num_frames", with sentences "action_ok", and where anything was truncated "truncation_reason", None elsewhere."""


class Dreams:
    """`count` dreams of one world.

    Everything that evolves is in `state` (the world's) and in the lists and arrays beside it, one entry a dream.
    """

    def __init__(self, count: int, options: DreamOptions, max_episode_steps: int | None = None):
        if count < 1:
            raise ValueError(f"got {count} dreams; there must be at least one")
        if max_episode_steps is not None and max_episode_steps < 1:
            raise ValueError(f"max_episode_steps is {max_episode_steps}; it must be positive, or None for no limit")
        self.options, self.max_episode_steps = options, max_episode_steps
        self.world = load_shared(options.world, options.device, count if options.compiled else 0)
        config = self.world.config
        if options.drafted and self.world.draft is None:
            raise ValueError(
                f"the world {config.name!r} has no draft; `worldgym train draft` makes one, or leave out drafted"
            )
        self.phrases = list(config.phrases)
        if options.action_mode != "vector" and not self.phrases:
            raise ValueError(
                f"action_mode is {options.action_mode!r}, but the world {config.name!r} was trained on no sentences; "
                "use action_mode='vector'"
            )
        self.action_space = action_space(options.action_mode, config.action_size, self.phrases)
        self.observation_space = _observation_space(options.obs_type, self.world)
        self.temperature = options.temperature
        self._judge = make_judge(options.reward, self.world)
        self._screen = _make_screen(self.world, options, count)
        self._starts: Starts | None = None  # read at the first reset that needs one
        instruction = options.instruction
        if instruction is None and isinstance(options.reward, str):
            if options.reward != "learned":
                instruction = options.reward
            elif not config.instructions:
                raise ValueError(f"the world {config.name!r} was trained on no instruction; give it another reward")
            else:
                instruction = config.instructions[0]
        if instruction is not None:
            self.world.check_instructions([instruction])

        self.state: WorldState | None = None
        self.instructions: list[str | None] = [instruction] * count
        self.randoms: list[np.random.Generator | None] = [None] * count
        self.elapsed = np.zeros(count, np.int64)
        """Actions taken in this episode."""
        self.returns = np.zeros(count)
        """Rewards of this episode so far."""
        self.over = np.zeros(count, bool)
        """Whether the episode has ended; such a dream waits for a reset."""
        self._pictures: Tensor | None = None

    def __len__(self) -> int:
        return len(self.instructions)

    @property
    def first_info(self) -> dict[str, Any]:
        """What a reset tells of a dream; of the same names and types as `Step.info`."""
        return {key: value for key, value in FIRST_INFO.items() if key != "uncertainty" or not self.options.drafted}

    # -- the verbs ------------------------------------------------------------------------------------------------

    def reset(
        self,
        which: np.ndarray | None = None,
        seeds: Sequence[int | None] | None = None,
        frames: np.ndarray | None = None,
        actions: np.ndarray | None = None,
        instructions: Sequence[str] | None = None,
    ) -> None:
        """Begin new episodes. After an error, nothing has changed.

        Args:
            which: bool [n], the dreams to reset; all by default.
            seeds: n, of which None goes on with the dream's own generator.
            frames: uint8 [n, t, h, w, 3], what was really seen, oldest first; drawn from the starts by default.
            actions: float32 [n, t - 1, a], what was done in between; may be left out for a single frame.
            instructions: n, from here on.
        """
        rows = np.arange(len(self)) if which is None else np.flatnonzero(which)
        wished: Sequence[str | None] = self.instructions if instructions is None else instructions
        if self.state is None and len(rows) < len(self):
            raise gym.error.ResetNeeded("reset all dreams once before resetting some of them")
        if frames is None and actions is not None:
            raise ValueError("reset options have actions but no frames; pass the frames they were taken at, too")
        for name, given in (("frames", frames), ("actions", actions), ("instructions", instructions), ("seeds", seeds)):
            if given is not None and len(given) != len(self):
                raise ValueError(f"got {name} for {len(given)} dreams; there are {len(self)}")
        asked = [wished[row] for row in rows.tolist()]
        self.world.check_instructions([wanted for wanted in asked if wanted is not None])
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
        if self._screen:
            self._screen.begin(rows.tolist(), torch.from_numpy(begun[:, -1]).to(self.world.device))
        for row, wanted, random in zip(rows, asked, randoms, strict=True):
            self.instructions[row], self.randoms[row] = wanted, random
        self.elapsed[rows], self.returns[rows], self.over[rows] = 0, 0.0, False

    def step(self, actions: Sequence[np.ndarray | str], which: np.ndarray | None = None) -> Step:
        """Take an action in each dream: a vector for one frame, a sentence for as many as it covers.

        A dream that ends stops there, while the others go on with their sentences.

        Args:
            actions: n, as `read_action` makes them.
            which: bool [n], the dreams that move; all by default. The actions of the others are ignored.
        """
        before = self._running()
        count = len(self)
        moving = np.ones(count, bool) if which is None else which
        spoken = np.array([isinstance(action, str) for action in actions]) & moving
        vectors, read = self._embed(actions, spoken)
        wanted = np.where(spoken, self.world.config.frames_per_action, 1)
        reward, uncertainty, num_frames = np.zeros(count), np.zeros(count), np.zeros(count, np.int64)
        success, terminated, unsure = (np.zeros(count, bool) for _ in range(3))

        rows = np.flatnonzero(moving)
        state = before if len(rows) == count else before.select(self._index(rows))
        try:
            while len(rows):
                here = self._index(rows)
                now = vectors[here]
                if spoken[rows].any():
                    said = torch.from_numpy(spoken[rows, None]).to(now.device)
                    now = torch.where(said, self.world.act(state, read[here]), now)
                state, outcome = self.world.step(state, now, self.options.drafted)
                if self._screen:
                    self._screen.put(rows.tolist(), state.fused, state.seeds, state.counters)
                figures = torch.stack(
                    [self._judge(state, outcome), outcome.success, outcome.terminated, outcome.uncertainty]
                )
                earned, succeeds, ends, nats = figures.cpu().numpy().astype(np.float64)
                reward[rows] += earned
                if self.options.uncertainty_penalty:
                    reward[rows] -= self.options.uncertainty_penalty * nats
                judged = np.array([self.instructions[row] is not None for row in rows])
                success[rows], terminated[rows] = judged & (succeeds > 0.5), judged & (ends > 0.5)
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
        info = {"success": success, "uncertainty": uncertainty, "num_frames": num_frames}
        if self.options.drafted:
            del info["uncertainty"]
        if self.options.action_mode != "vector":
            info["action_ok"] = np.array([not isinstance(a, str) or a in self.world.config.phrases for a in actions])
        if truncated.any():
            reason = np.full(count, None, object)
            reason[late], reason[unsure] = "time_limit", "max_uncertainty"
            info["truncation_reason"] = reason
        return Step(reward, terminated, truncated, info)

    def observe(self) -> Tensor | dict[str, Tensor]:
        """What the newest frames look like to an agent, as `obs_type` says; new tensors on the model's device."""
        match self.options.obs_type:
            case "pixels":
                return self.render()
            case "latent":
                return self._latent()
            case _:
                return {"pixels": self.render(), "latent": self._latent()}

    def render(self) -> Tensor:
        """Pictures, uint8 [n, h, w, 3], decoded when they are first asked for; a copy."""
        if self._pictures is None:
            now = self._running()
            self._pictures = self._screen.look() if self._screen else self.world.render(now)
        return self._pictures.clone()

    def instruct(self, instructions: Sequence[str | None]) -> None:
        """Judge the dreams by other instructions, n of them, from here on."""
        read = self.world.read_instructions(self._spelled(instructions))
        if self.state is not None:
            self.state = replace(self.state, instruction=read)
        self.instructions = list(instructions)

    def select(self, rows: Sequence[int] | np.ndarray) -> "Dreams":
        """Independent continuations of these dreams, in this order; one may be there many times.

        They share their weights and their past, and their chances too: the same actions lead to the same future.
        """
        rows = np.asarray(rows, np.int64)
        return self._branch(rows, None if self.state is None else self.state.select(self._index(rows)))

    def fork(self, copies: int) -> "Dreams":
        """`copies` independent continuations of each dream, next to each other.

        A single copy goes on exactly as its parent does. Several look at one past instead of copying it, which sums
        in another order: equal to within rounding.
        """
        if copies < 1:
            raise ValueError(f"got {copies} copies to fork into; there must be at least one")
        rows = np.arange(len(self)).repeat(copies)
        return self.select(rows) if copies == 1 or self.state is None else self._branch(rows, self.state.fork(copies))

    def _branch(self, rows: np.ndarray, state: WorldState | None) -> "Dreams":
        """What surrounds these dreams, around their new state."""
        chosen = copy.copy(self)
        chosen.state = state
        chosen.instructions = [self.instructions[row] for row in rows]
        chosen.randoms = [copy.deepcopy(self.randoms[row]) for row in rows]
        chosen.elapsed, chosen.returns, chosen.over = self.elapsed[rows], self.returns[rows], self.over[rows]
        chosen._judge = make_judge(self.options.reward, self.world)
        chosen._screen = self._screen and self._screen.select(rows.tolist())
        chosen._pictures = None
        return chosen

    def put(self, rows: Sequence[int] | np.ndarray, other: "Dreams") -> None:
        """Replace these dreams by those of `other`."""
        rows = np.asarray(rows, np.int64)
        if other.state is not None:
            if self.state is None and len(rows) < len(self):
                raise gym.error.ResetNeeded("reset all dreams once before replacing some of them")
            self._put(rows, other.state)
            if self._screen and other._screen:
                self._screen.replace(rows.tolist(), other._screen)
        for place, row in enumerate(rows):
            self.instructions[row], self.randoms[row] = other.instructions[place], other.randoms[place]
        self.elapsed[rows], self.returns[rows], self.over[rows] = other.elapsed, other.returns, other.over

    def snapshot(self) -> bytes:
        """Everything that evolves: what follows a `restore` is what would have followed here."""
        meta = {
            "version": SNAPSHOT_VERSION,
            "world": self.world.config.name,
            "weights": fingerprint(self.world),
            "instructions": self.instructions,
            "randoms": [random and random.bit_generator.state for random in self.randoms],
            "elapsed": self.elapsed.tolist(),
            "returns": self.returns.tolist(),
            "over": self.over.tolist(),
        }
        body = self._running().snapshot()
        shown = save_bytes(self._screen.snapshot()) if self._screen else b""
        meta |= {"size": len(body), "decoder": self._decoder_fingerprint()}
        return json.dumps(meta).encode() + b"\n" + body + shown

    def restore(self, blob: bytes) -> None:
        """Return to a `snapshot()` of as many dreams of this world, taken in this process or another."""
        header, _, body = blob.partition(b"\n")
        names = ("world", "weights", "decoder", "instructions", "randoms", "elapsed", "returns", "over", "size")
        try:
            meta = json.loads(header)
            version = meta["version"]
            if version == SNAPSHOT_VERSION:
                world, weights, decoder, instructions, states, elapsed, returns, over, size = (meta[n] for n in names)
                randoms = [_generator(state) for state in states]
                size = index(size)
                counts = {len(part) for part in (instructions, randoms, elapsed, returns, over)}
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
        if decoder != self._decoder_fingerprint():
            raise ValueError(
                f"the snapshot's pictures are by {'another diffusion' if decoder else 'the fast'} decoder; this "
                f"environment has decoder={self.options.decoder!r}"
            )
        self.world.check_instructions([wanted for wanted in instructions if wanted is not None])
        state = WorldState.restore(body[:size] if self._screen else body, self.world.device)
        self.world.check_state(state)
        if state.drafted and not self.options.drafted:
            raise ValueError("the snapshot is of drafted dreams; restore it with drafted=True")
        if counts != {len(self)} or len(state) != len(self):
            raise ValueError(f"the snapshot holds {len(state)} dreams; this environment has {len(self)}")
        if self._screen:
            self._screen.restore(read_tensors(body[size:], self.world.device))
        self._put(np.arange(len(self)), state)
        self.instructions, self.randoms, self.temperature = list(instructions), randoms, state.temperature
        self.elapsed, self.returns, self.over = np.array(elapsed, np.int64), np.array(returns), np.array(over, bool)

    # -- inside ---------------------------------------------------------------------------------------------------

    def _running(self) -> WorldState:
        if self.state is None:
            raise gym.error.ResetNeeded("call reset() before stepping, rendering or taking a snapshot")
        return self.state

    def _put(self, rows: np.ndarray, state: WorldState) -> None:
        """These dreams are now as in `state`."""
        if len(rows) == len(self):
            self.state = state
        elif len(rows):
            self.state = self._running().put(self._index(rows), state)
        self._pictures = None

    def _index(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(rows).to(self.world.device)

    def _spelled(self, instructions: Sequence[str | None]) -> list[str]:
        """For the state, which has to hold some instruction; nobody asks what it says where there is none."""
        return [self.world.config.instructions[0] if wanted is None else wanted for wanted in instructions]

    def _random(self, row: int, seed: int | None) -> np.random.Generator:
        """The generator that a reset of this dream will use, not yet its own."""
        random = self.randoms[row]
        if seed is None and random is not None:
            return copy.deepcopy(random)
        return seeding.np_random(None if seed is None else index(seed))[0]

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

    def _embed(self, actions: Sequence[np.ndarray | str], spoken: np.ndarray) -> tuple[Tensor, Tensor]:
        """Vectors [n, a] and read sentences [n, d], with zeros where there is none; a sentence is read once."""
        config, device = self.world.config, self.world.device
        vectors = np.zeros((len(actions), config.action_size), np.float32)
        for row, action in enumerate(actions):
            if not isinstance(action, str):
                vectors[row] = action
        read = torch.zeros(len(actions), config.dynamics.width, device=device)
        if spoken.any():
            read[self._index(np.flatnonzero(spoken))] = self.world.read(
                [action for action, said in zip(actions, spoken, strict=True) if said and isinstance(action, str)]
            )
        return torch.from_numpy(vectors).to(device), read

    def _decoder_fingerprint(self) -> str | None:
        if self._screen is None:
            return None
        decoder = self._screen.decoder
        return f"{fingerprint(decoder)} {decoder.config}"

    def _too_uncertain(self, uncertainty: np.ndarray) -> np.ndarray:
        bound = self.options.max_uncertainty
        return np.zeros(len(uncertainty), bool) if bound is None else uncertainty > bound

    def _latent(self) -> Tensor:
        return latents(self.world, self._running())


if hasattr(os, "register_at_fork"):
    # Gymnasium's AsyncVectorEnv forks, and a forked pool of OpenMP threads hangs at its first use.
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


def load_shared(world: str, device: str, compiled: int = 0) -> WorldModel:
    """One copy of a world's weights for all environments of this process; they only ever read it.

    A checkpoint that was trained on since is loaded anew.

    Args:
        compiled: dreams to compile the step for, in a copy of its own: rounding differs, and the dreams of who did not
            ask for it stay as they were to the last bit.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and (multiprocessing.parent_process() is not None or _asked_for_workers()):
        raise ValueError(
            "a world on a GPU is not for worker processes: each would load a copy of its own and dream one dream at a "
            "time. gym.make_vec(id, num_envs=n) dreams n in one batch; or pass device='cpu'"
        )
    folder = find_world(world).resolve()
    recover(folder)
    weights = folder / "model.safetensors"
    stat = weights.stat() if weights.exists() else None
    return _load(str(folder), device, stat and (stat.st_mtime_ns, stat.st_size), compiled)


def _asked_for_workers() -> bool:
    """Whether Gymnasium's AsyncVectorEnv is asking: it makes one environment here, to see its spaces, before it makes
    the others in processes, and of an error there it would say no more than that a pipe broke."""
    return any(isinstance(frame.f_locals.get("self"), AsyncVectorEnv) for frame, _ in walk_stack(None))


def fingerprint(model: nn.Module) -> str:
    """Tells models apart by their weights: a digest of a few numbers of each tensor, the same on every device.

    A step of training changes every tensor, so a few are as good as all and take milliseconds at any size.
    """
    return _fingerprint(model, sum(tensor._version for tensor in model.state_dict().values()))


@lru_cache(maxsize=8)
def _fingerprint(model: nn.Module, changes: int) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        flat = tensor.flatten()
        few = flat[:: max(1, len(flat) // 32)].double().cpu().numpy()
        digest.update(f"{name} {tuple(tensor.shape)}".encode() + few.tobytes())
    return digest.hexdigest()[:16]


@lru_cache(maxsize=8)
def _load(folder: str, device: str, stamp: tuple[int, int] | None, compiled: int) -> WorldModel:
    world = WorldModel.load(folder, device)
    return world.compile_for(compiled) if compiled else world


def _make_screen(world: WorldModel, options: DreamOptions, dreams: int) -> "Screen | None":
    """What shows the dreams, if not the world's own decoder."""
    if options.decoder == "fast":
        return None
    from .pan.screen import Screen

    return Screen(load_decoder(options.world, options.decoder, world), world.tokenizer, dreams)


def load_decoder(name: str, decoder: str, world: WorldModel) -> "DiffusionDecoder":
    """A diffusion decoder, one copy for all who show dreams in this process.

    Args:
        name: of the world, as `find_world` takes it.
        decoder: "diffusion" for the one in its folder, or another's folder.
        world: the same world, loaded.
    """
    folder = find_world(name) / "decoder" if decoder == "diffusion" else Path(decoder)
    weights = folder / DECODER_FILES[-1]
    if not weights.exists():
        raise ValueError(
            f"decoder is {decoder!r}, but there is no diffusion decoder in {folder}. Take decoder='fast', or train one "
            "with `python -m worldgym.pan.train_decoder` and pass the folder that it names; "
            "`worldgym export WORLD TARGET --decoder FOLDER` makes a world that has it"
        )
    stamp = tuple(path.stat().st_mtime_ns for path in (weights, folder / DECODER_FILES[0]))
    return _load_decoder(str(folder.resolve()), world, stamp)


@lru_cache(maxsize=8)
def _load_decoder(folder: str, world: WorldModel, stamp: tuple[int, ...]) -> "DiffusionDecoder":
    from .pan.decoder import DiffusionDecoder

    return DiffusionDecoder.load(Path(folder), world.tokenizer, world.device)


def _generator(state: dict[str, Any] | None) -> np.random.Generator | None:
    if state is None:
        return None
    random = np.random.Generator(np.random.PCG64())
    random.bit_generator.state = state
    return random


def latents(world: WorldModel, state: WorldState) -> Float[Tensor, "b n"]:
    """What an agent sees of each dream: the fused map, flat; in a world with `memory`, behind it the one before."""
    seen = [state.fused] if world.config.dynamics.memory == 1 else [state.fused, state.past[:, -1]]
    return torch.cat(seen, 1).flatten(1).clamp(-LATENT_BOUND, LATENT_BOUND)


def latent_space(world: WorldModel) -> gym.spaces.Box:
    """Of one dream's `latents`."""
    tokenizer, maps = world.config.tokenizer, min(world.config.dynamics.memory, 2)
    return gym.spaces.Box(-LATENT_BOUND, LATENT_BOUND, (maps * tokenizer.width * tokenizer.grid**2,), np.float32)


def _observation_space(obs_type: str, world: WorldModel) -> gym.Space:
    tokenizer = world.config.tokenizer
    pixels = gym.spaces.Box(0, 255, (tokenizer.resolution, tokenizer.resolution, 3), np.uint8)
    latent = latent_space(world)
    match obs_type:
        case "pixels":
            return pixels
        case "latent":
            return latent
        case _:
            return gym.spaces.Dict({"pixels": pixels, "latent": latent})
