"""n dreams of PAN, each with its own goal, chances and clock: the core under `PanEnv` and `PanVectorEnv`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import index
from pathlib import Path
from typing import Any, Literal, SupportsIndex

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from ..checkpoint import fingerprint
from ..dreams import DreamBatch, Step
from ..dreams.rewards import FrameReward
from ..model.device import isolated, pick_device
from ..spaces import action_space, on_host
from .clips import find_clips, read_frames
from .folder import find_trained
from .rewards import make_reward
from .state import PanState
from .world import PanReward, PanWorld

SNAPSHOT_VERSION = 1


@dataclass(frozen=True)
class PanOptions:
    """What dreams of PAN are like: the keyword arguments of `gym.make("worldgym/Pan-v0", ...)` and `gym.make_vec`."""

    trained: str
    """The folder that `worldgym train pan joint` wrote, or user/name on the hub."""
    reward: str | np.ndarray | FrameReward
    """What the newest frame is worth after each action. A goal in words: the probability, in [0, 1], that the language
    model sees it; it is the environment's `instruction`, which can be changed. A goal image, uint8 [h, w, 3]: minus the
    relative distance to it between latents of the video autoencoder; 0 is there. Or a function of frames, uint8
    [b, h, w, 3] -> [b]."""
    vlm: str | None = None
    """The Qwen2.5-VL, by folder or hub name; the one that PAN was trained on by default."""
    video: str | None = None
    """The Wan pipeline, for its autoencoder and text encoder; the one that PAN was trained with by default."""
    success_reward: float | None = None
    """The reward at which an action has succeeded, which ends the episode; without one, none ever does."""
    starts: str | None = None
    """Folder of clips, as for the training, to begin from: at a frame before one of their actions. Without it, every
    reset needs frames."""
    phrases: Sequence[str] = ()
    """The sentences that the action space draws; what is done in `starts` by default. Any other can be said, too."""
    action_mode: Literal["text", "discrete"] = "text"
    """"text": any sentence. "discrete": an index into the phrases."""
    at_once: int = 1
    """Dreams that go through the networks together, at most: more need memory. At full size, one is a window of
    32,760 tokens."""
    device: str = "auto"
    """"auto" takes a GPU where there is one."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Of the weights; the autoencoder is always in float32."""

    def __post_init__(self):
        if self.dtype not in ("bfloat16", "float32"):
            raise ValueError(f"dtype {self.dtype!r} must be 'bfloat16' or 'float32'")
        if self.at_once < 1:
            raise ValueError(f"at_once is {self.at_once}; it must be at least 1")
        if isinstance(self.phrases, str):
            raise TypeError(f"phrases is the sentence {self.phrases!r:.80}; pass a list of sentences")


class PanDreams(DreamBatch):
    """`count` dreams of PAN. An action is a sentence and leads to a chunk of video, of which the last frame is seen."""

    def __init__(self, count: int, options: PanOptions, max_episode_steps: int | None = None):
        super().__init__(count, max_episode_steps)
        self.options, self.codec = options, None
        self.world = load_pan(options)
        self._clips = None if options.starts is None else find_clips(Path(options.starts), least=1)
        told = {action for clip in self._clips or () for action in clip.actions}
        self.phrases = list(options.phrases) or sorted(told)
        if not self.phrases:
            raise ValueError(
                "the action space has no sentences to draw; pass phrases=[...], or a folder of clips, starts=..."
            )
        self.action_space = action_space(options.action_mode, None, self.phrases)
        size = (self.world.config.height, self.world.config.width, 3)
        self.observation_space = gym.spaces.Box(0, 255, size, np.uint8)
        self._rewards: dict[str | None, PanReward] = {}
        """By the goal in words; the one of None is no words."""
        self.instructions = [options.reward if isinstance(options.reward, str) else None] * count
        self._reward(self.instructions[0])  # which may be none that PAN can judge

    def read_past(self, actions: Any) -> np.ndarray:
        """Sentences, object [n]."""
        said = on_host(actions)
        if isinstance(said, str) or any(not isinstance(action, str) for action in said):
            raise TypeError(f"actions are {said!r:.80}; what was done in PAN is a list of sentences")
        return np.array([*map(str, said)], object)

    @property
    def first_info(self) -> dict[str, Any]:
        return {"success": False, "num_frames": 0, "action_ok": True, "action_reason": ""}

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
        for wanted in {wished[row] for row in rows}:
            self._reward(wanted)
        randoms = [self._random(row, None if seeds is None else seeds[row]) for row in rows.tolist()]
        begun = np.stack([self._draw(random) for random in randoms]) if frames is None else np.asarray(frames)[rows]
        said = None if actions is None else [actions[row].tolist() for row in rows]
        fresh = self.world.start(begun, said, [int(random.integers(2**63)) for random in randoms])
        self._put(rows, fresh)
        for row, random in zip(rows, randoms, strict=True):
            self.instructions[row], self.randoms[row] = wished[row], random
        self.elapsed[rows], self.returns[rows], self.over[rows] = 0, 0.0, False

    @isolated
    def step(self, actions: Sequence[np.ndarray | str], which: np.ndarray | None = None) -> Step:
        count, before = len(self), self._running()
        moving = np.ones(count, bool) if which is None else which
        rows = np.flatnonzero(moving)
        reward, num_frames = np.zeros(count), np.zeros(count, np.int64)
        if len(rows):
            state = before.select(torch.from_numpy(rows))
            state, _ = self.world.step(state, [str(actions[row]) for row in rows.tolist()])
            reward[rows], num_frames[rows] = self._judged(state, rows), self.world.frames_per_action
            self._put(rows, state)
        bound = self.options.success_reward
        success = moving & (reward >= bound) if bound is not None else np.zeros(count, bool)
        self.elapsed += moving
        self.returns += reward
        late = moving & (self.elapsed >= self.max_episode_steps) if self.max_episode_steps else np.zeros(count, bool)
        self.over = np.where(moving, success | late, self.over)
        reasons = np.array(["" if str(action).strip() else "it says nothing" for action in actions], object)
        info = {
            "success": success, "num_frames": num_frames, "action_ok": reasons == "", "action_reason": reasons,
        }  # fmt: skip
        return Step(reward, success.copy(), late, info)

    def observe(self) -> Tensor:
        return self.render()

    def render(self) -> Tensor:
        return self.world.render(self._running())

    def instruct(self, rows: Sequence[int], instructions: Sequence[str | None]) -> None:
        for wanted in set(instructions):
            self._reward(wanted)
        for row, wanted in zip(rows, instructions, strict=True):
            self.instructions[row] = wanted

    def snapshot(self) -> bytes:
        body = self._running().snapshot()
        meta = {"version": SNAPSHOT_VERSION, "pan": fingerprint(self.world), **self._surroundings()}
        return json.dumps(meta).encode() + b"\n" + body

    def restore(self, blob: bytes) -> None:
        header, _, body = blob.partition(b"\n")
        try:
            meta = json.loads(header)
            version, weights, around = index(meta["version"]), meta["pan"], self._recalled(meta)
        except (ValueError, TypeError, KeyError):
            raise ValueError(f"these {len(blob)} bytes are not a snapshot of an environment of PAN") from None
        if version != SNAPSHOT_VERSION:
            raise ValueError(f"snapshot version is {version}; this release reads {SNAPSHOT_VERSION}")
        if weights != (here := fingerprint(self.world)):
            raise ValueError(f"the snapshot was taken in a PAN of other weights ({weights}; here they are {here})")
        state = PanState.restore(body, self.world.device)
        if {len(state), *map(len, around.values())} != {len(self)}:
            raise ValueError(f"the snapshot holds {len(state)} dreams; this environment has {len(self)}")
        for wanted in set(around["instructions"]):
            self._reward(wanted)
        self.state = state
        vars(self).update(around)

    def __reduce__(self):
        """What pickles and deep copies hold: everything that evolves. The world is loaded where they are opened."""
        before = None if self.state is None else self.snapshot()
        return _reopen, (self.options, self.max_episode_steps, self.instructions, self.randoms, before)

    # -- inside ---------------------------------------------------------------------------------------------------

    def _reward(self, goal: str | None) -> PanReward:
        """The judge of a goal in words; of None, what the options say instead."""
        if goal not in self._rewards:
            if isinstance(self.options.reward, str) != isinstance(goal, str):
                raise ValueError(
                    f"the instruction {goal!r} has nobody to judge it: the reward is no goal in words; make the "
                    "environment with reward='what the picture should show'"
                )
            self._rewards[goal] = make_reward(self.options.reward if goal is None else goal, self.world)
        return self._rewards[goal]

    def _judged(self, state: PanState, rows: np.ndarray) -> np.ndarray:
        """Rewards of these dreams, those of one goal together."""
        goals = [self.instructions[row] for row in rows]
        reward = np.zeros(len(rows))
        for goal in dict.fromkeys(goals):
            mine = np.flatnonzero([wanted == goal for wanted in goals])
            reward[mine] = self._reward(goal)(state.select(torch.from_numpy(mine))).double().cpu().numpy()
        return reward

    def _draw(self, random: np.random.Generator) -> np.ndarray:
        """A frame to begin from, uint8 [1, h, w, 3]."""
        if self._clips is None:
            raise ValueError(
                'there are no starts; pass a real frame, reset(options={"frames": uint8 [1, h, w, 3]}), or make the '
                "environment with a folder of clips, starts=..."
            )
        clip = self._clips[random.integers(len(self._clips))]
        first = int(random.integers(len(clip.actions))) * self.world.frames_per_action
        return read_frames(clip, first, 1, self.world.config.height, self.world.config.width).numpy()


def load_pan(options: PanOptions) -> PanWorld:
    """One copy of the weights for all environments of this process; a folder that has been trained since is read
    again."""
    folder = find_trained(options.trained).resolve()
    described = folder / "pan.json"
    stamp = described.stat().st_mtime_ns if described.exists() else None
    device = str(pick_device(options.device))
    return _load(str(folder), options.vlm, options.video, options.dtype, device, options.at_once, stamp)


@lru_cache(maxsize=2)
def _load(
    folder: str, vlm: str | None, video: str | None, dtype: str, device: str, at_once: int, stamp: int | None
) -> PanWorld:
    world = PanWorld.load(folder, vlm, video, getattr(torch, dtype)).to(device)
    world.at_once = at_once
    return world


def _reopen(
    options: PanOptions,
    max_episode_steps: int | None,
    instructions: list[str | None],
    randoms: list[np.random.Generator | None],
    before: bytes | None,
) -> PanDreams:
    """Dreams out of a pickle; a ValueError if PAN has been trained since."""
    dreams = PanDreams(len(instructions), options, max_episode_steps)
    if before is not None:
        dreams.restore(before)
    dreams.instructions, dreams.randoms = instructions, randoms  # of which the seeds are known
    return dreams
