"""The dream as a `gymnasium.Env`: a thin shell over the core contract of world.py."""

import json
import zipfile
from functools import cache
from typing import Any, Literal

import gymnasium as gym
import numpy as np

from .checkpoint import find_world
from .spaces import PhraseText, check_vector_action, chosen_phrase
from .world import WorldModel, WorldState

SNAPSHOT_VERSION = 1


class DreamEnv(gym.Env):
    """A learned world behind the Gymnasium API. Its physics is a neural network.

    Observation: uint8 [h, w, 3], the imagined frame. Actions by `action_mode`:
        "vector": float32 [a] in [-1, 1]; one frame.
        "text": any sentence; it covers `frames_per_action` frames of the world, whose rewards are summed.
        "discrete": an index into the world's list of sentences, `env.unwrapped.phrases`.
    `reset` starts from a held-out real frame that is bundled with the world, or from what was really seen:
    `reset(options={"frames": uint8 [t, h, w, 3], "actions": float32 [t - 1, a]})`. `options={"instruction": ...}`
    changes the task.
    `info` has "success" (bool), "uncertainty" (nats), "num_frames" (int), and for text "action_ok" (bool): False
    for a sentence that the world was not trained on, which is dreamed all the same.

    Args:
        world: a bundled name or a checkpoint folder.
        instruction: what reward and success are judged by; the world's first by default.
        temperature: 0 dreams the likeliest future, 1 the learned spread.
        device: "auto" takes a GPU where there is one.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(
        self,
        world: str,
        instruction: str | None = None,
        action_mode: Literal["vector", "text", "discrete"] = "vector",
        temperature: float = 0.0,
        device: str = "auto",
        render_mode: Literal["rgb_array"] | None = None,
    ):
        if action_mode not in ("vector", "text", "discrete"):
            raise ValueError(f"action_mode {action_mode!r} must be 'vector', 'text' or 'discrete'")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode {render_mode!r} must be None or 'rgb_array'")
        self.world = load_shared(world, device)
        config = self.world.config
        self.phrases = list(config.phrases)
        self.instruction = config.instructions[0] if instruction is None else instruction
        self.world.read_instructions([self.instruction])
        self.action_mode = action_mode
        self.temperature = temperature
        self.render_mode = render_mode
        size = config.tokenizer.resolution
        self.observation_space = gym.spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.action_space = {
            "vector": lambda: gym.spaces.Box(-1.0, 1.0, (config.action_size,), np.float32),
            "text": lambda: PhraseText(self.phrases),
            "discrete": lambda: gym.spaces.Discrete(len(self.phrases)),
        }[action_mode]()
        self._starts = _load_starts(world)
        self._state: WorldState | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        options = options or {}
        if unknown := set(options) - {"frames", "actions", "instruction"}:
            raise ValueError(f"unknown reset options {sorted(unknown)}; known are frames, actions, instruction")
        instruction = options.get("instruction", self.instruction)
        self.world.read_instructions([instruction])
        if "frames" in options:
            frames = np.asarray(options["frames"])[None]
            actions = np.asarray(options["actions"])[None] if "actions" in options else None
        elif "actions" in options:
            raise ValueError("reset options have actions but no frames; pass the frames they were taken at, too")
        else:
            frames, actions = self._draw_start(instruction), None
        dream_seed = int(self.np_random.integers(2**63))
        state = self.world.start(frames, actions, [dream_seed], instruction, self.temperature)
        self.instruction, self._state = instruction, state
        return self._frame(), {"success": False, "uncertainty": 0.0, "num_frames": 0}

    def step(self, action):
        state = self._running()
        if self.action_mode == "vector":
            return self._advance(state, check_vector_action(action, self.action_space)[None], 1)
        phrase = chosen_phrase(action, self.action_space, self.phrases)
        observation, reward, terminated, truncated, info = self._advance(
            state, [phrase], self.world.config.frames_per_action
        )
        return observation, reward, terminated, truncated, info | {"action_ok": phrase in self.phrases}

    def render(self) -> np.ndarray:
        self._running()
        return self._frame()

    def snapshot(self) -> bytes:
        """Everything that evolves: what follows a `restore` is what would have followed here."""
        meta = {
            "version": SNAPSHOT_VERSION,
            "world": self.world.config.name,
            "instruction": self.instruction,
            "random": self.np_random.bit_generator.state,
        }
        return json.dumps(meta).encode() + b"\n" + self._running().snapshot()

    def restore(self, blob: bytes) -> None:
        """Return to a `snapshot()` of this world, taken in this process or another."""
        header, _, body = blob.partition(b"\n")
        try:
            meta = json.loads(header)
            version, world, instruction, random = (meta[key] for key in ("version", "world", "instruction", "random"))
        except (ValueError, TypeError, KeyError):
            raise ValueError(f"these {len(blob)} bytes are not a snapshot of a dream environment") from None
        if version != SNAPSHOT_VERSION:
            raise ValueError(f"snapshot version is {version}; this release reads {SNAPSHOT_VERSION}")
        if world != self.world.config.name:
            raise ValueError(
                f"the snapshot is of the world {world!r}; this environment dreams {self.world.config.name!r}"
            )
        self.world.read_instructions([instruction])
        state = WorldState.restore(body, self.world.device)
        self.world.check_state(state)
        self._state, self.instruction = state, instruction
        self.np_random.bit_generator.state = random

    # -- inside ------------------------------------------------------------------------------------------------

    def _advance(self, state: WorldState, action, num_frames: int):
        reward, success, terminated, uncertainty, count = 0.0, False, False, 0.0, 0
        while count < num_frames and not terminated:
            state, outcome = self.world.step(state, action)
            reward += float(outcome.reward)
            success, terminated = bool(outcome.success > 0.5), bool(outcome.terminated > 0.5)
            uncertainty = max(uncertainty, float(outcome.uncertainty))
            count += 1
        self._state = state
        info = {"success": success, "uncertainty": uncertainty, "num_frames": count}
        return self._frame(), reward, terminated, False, info

    def _frame(self) -> np.ndarray:
        assert self._state is not None
        return self.world.render(self._state)[0].cpu().numpy()

    def _running(self) -> WorldState:
        if self._state is None:
            raise gym.error.ResetNeeded("call reset() before stepping, rendering or taking a snapshot")
        return self._state

    def _draw_start(self, instruction: str) -> np.ndarray:
        if self._starts is None:
            raise ValueError('this checkpoint has no starts.npz; pass real frames: reset(options={"frames": ...})')
        unsolved = ~self._starts["successes"][:, self.world.config.instructions.index(instruction)]
        if not unsolved.any():
            raise ValueError(f"{instruction!r} is already done in all {len(unsolved)} starting frames; pass your own")
        chosen = self.np_random.choice(np.flatnonzero(unsolved))
        return self._starts["frames"][chosen][None, None]


@cache
def load_shared(world: str, device: str) -> WorldModel:
    """One copy of a world's weights for all environments of this process; they only ever read it."""
    return WorldModel.load(world, device)


@cache
def _load_starts(world: str) -> dict[str, np.ndarray] | None:
    path = find_world(world) / "starts.npz"
    if not path.exists():
        return None
    try:
        with path.open("rb") as stream, np.load(stream) as file:
            return dict(file)
    except (ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
