"""The Tabletop in MuJoCo: a round pusher and coloured blocks on a walled table, seen from above.

`gym.make("worldgym/TabletopMuJoCo-v0")` is the real twin of the dream `worldgym/Tabletop-v0`: same spaces, same
action modes, same instructions. Sizes, speeds and the camera are chosen so that two CPU cores can learn its
physics in a few hours (see docs/decisions.md).
"""

import json
import os
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict
from typing import Any, Literal, SupportsIndex

import gymnasium as gym
import mujoco
import numpy as np
from mujoco import rollout

from worldgym.actions import read_codec
from worldgym.reader import reader_of
from worldgym.spaces import ActionMode, action_space, read_action, read_seed

from ..poses import read_pose
from ..rendering import Renderer, open_renderer
from .scene import TIMESTEP, Variation, mjcf
from .skills import SPEED, phrases, skill_action
from .tasks import BLOCK_HALF, evaluate_task, find_instruction, find_task, tasks

FRAME_SKIP = 10
FRAMES_PER_TEXT = 16
SNAPSHOT_VERSION = 2
INSTRUCTION = "push the red block to the centre"
"""What rewards are for by default."""


class TabletopEnv(gym.Env):
    """A pusher, blocks and an instruction, simulated by MuJoCo.

    Observation: uint8 [64, 64, 3]. Actions by `action_mode`:
        "vector": float32 [2] in [-1, 1], the pusher's velocity; one step of 0.1 s.
        "text": a sentence in whatever words; a scripted controller executes each thing that it asks for during 16
            steps, whose rewards are summed.
        "discrete": an index into the list of sentences, `env.unwrapped.phrases`.
        "both": `(0, vector)` or `(1, sentence)`; a bare vector or sentence will do.
    Reward and success belong to `instruction`; an episode terminates on success. An instruction that was asked for
    cuts a sentence short when it succeeds; the default one lets it finish.
    `info` has "success" (bool), "positions" (float32 [1 + blocks, 2], pusher first), "num_frames" (int), and unless
    actions are vectors "action_ok" (bool) and "action_reason" (str): during a sentence that is not understood the
    pusher stands still, and the reason says why.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(
        self,
        instruction: str | None = None,
        action_mode: ActionMode = "vector",
        variation: Variation | dict | None = None,
        resolution: int = 64,
        render_mode: Literal["rgb_array"] | None = None,
    ):
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode {render_mode!r} must be None or 'rgb_array'")
        self.variation = Variation(**variation) if isinstance(variation, dict) else variation or Variation()
        self.instruction = find_instruction(instruction or INSTRUCTION, self.colors)
        self.task, self.chosen = find_task(self.instruction, self.colors), instruction is not None
        self.action_mode = action_mode
        self.render_mode = render_mode
        self.phrases = list(phrases(self.colors))
        self._reader = reader_of(tuple(self.phrases))
        self.resolution = resolution
        self.observation_space = gym.spaces.Box(0, 255, (resolution, resolution, 3), np.uint8)
        self.codec = read_codec(None, 2)
        self.action_space = action_space(action_mode, self.codec, self.phrases)
        self.model = mujoco.MjModel.from_xml_string(mjcf(self.variation))
        self.data = mujoco.MjData(self.model)
        self._joints = np.stack(
            [[self.model.joint(f"{name}_{axis}").qposadr[0] for axis in "xy"] for name in ("pusher", *self.colors)]
        )
        self._renderer: Renderer | None = None  # made on the first frame: planners never need one
        self._threads: list[mujoco.MjData] = []  # of `evaluate`, made when it is first asked
        self._late: list[np.ndarray] = []

    @property
    def colors(self) -> tuple[str, ...]:
        return self.variation.colors

    @property
    def positions(self) -> np.ndarray:
        """Where everything is, float32 [1 + blocks, 2], pusher first."""
        return self.data.qpos[self._joints].astype(np.float32)

    @property
    def pose(self) -> np.ndarray:
        """Where and how turned everything is: float64 [2 + 3 * blocks], the pusher's x and y, then x, y and angle of
        each block."""
        return self.data.qpos.copy()

    # -- Gymnasium ---------------------------------------------------------------------------------------------

    def reset(self, *, seed: SupportsIndex | None = None, options: dict[str, Any] | None = None):
        """Scatter the objects, or put them where `options={"pose": ...}` has them. `options={"instruction": ...}`
        changes the task from here on."""
        options = options or {}
        if unknown := set(options) - {"instruction", "pose"}:
            raise ValueError(f"unknown reset options {sorted(unknown)}; the twin knows instruction and pose")
        seed = read_seed(seed)
        if "instruction" in options:
            self.instruct(options["instruction"])
        super().reset(seed=seed)
        mujoco.mj_resetData(self.model, self.data)
        self._late = [np.zeros(2)] * self.variation.action_delay
        for _ in range(1000):
            places = self.np_random.uniform(-0.55, 0.55, (1 + len(self.colors), 2))
            places[0] = self.np_random.uniform(-0.85, 0.85, 2)
            gaps = np.linalg.norm(places[:, None] - places[None], axis=-1)[np.triu_indices(len(places), 1)]
            solved = evaluate_task(self.task, places, self.colors)[1]
            if gaps.min() > 2.5 * BLOCK_HALF * self.variation.block_size and not solved:
                break
        else:
            raise RuntimeError(f"no unsolved start found for {self.instruction!r} in 1000 draws")
        self.data.qpos[self._joints] = places
        for color in self.colors:
            self.data.joint(f"{color}_turn").qpos[0] = self.np_random.uniform(-np.pi, np.pi)
        for index in range(self.variation.distractors):
            spot = self.np_random.uniform(-0.9, 0.9, 2)
            self.model.geom(f"distractor{index}").pos[:2] = spot
        if "pose" in options:
            self.data.qpos[:] = read_pose(options["pose"], self.pose)
        mujoco.mj_forward(self.model, self.data)
        return self._frame(), self._info(evaluate_task(self.task, self.positions, self.colors)[1], 0)

    def instruct(self, instruction: str) -> None:
        """Reward another instruction from here on, in whatever words."""
        self.instruction = find_instruction(instruction, self.colors)
        self.task, self.chosen = find_task(self.instruction, self.colors), True

    def step(self, action):
        action = read_action(action, self.action_mode, self.codec, self.phrases)
        if isinstance(action, str):
            reward, success, count, reason = self._carry_out(action)
        else:
            (reward, success), count, reason = self.advance(action), 1, ""
        return self._frame(), reward, success, False, self._info(success, count, reason)

    def render(self) -> np.ndarray:
        return self._frame()

    def close(self):
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    # -- true physics for planners, recorders and tests -----------------------------------------------------------

    def advance(self, action: np.ndarray) -> tuple[float, bool]:
        """One physics step of 0.1 s without a picture: (reward, success)."""
        action = np.clip(action, -1.0, 1.0)
        if self.variation.action_noise:
            action = np.clip(action + self.np_random.normal(0, self.variation.action_noise, 2), -1.0, 1.0)
        self._late.append(action)
        self.data.ctrl[:] = self._late.pop(0) * (SPEED / (FRAME_SKIP * TIMESTEP))
        mujoco.mj_step(self.model, self.data, nstep=FRAME_SKIP)
        reward, success = evaluate_task(self.task, self.positions, self.colors)
        return float(reward), bool(success)

    def evaluate(self, action_sequences: np.ndarray) -> np.ndarray:
        """Returns [n] of action sequences [n, horizon, 2] tried from here on true physics; nothing changes.

        A sequence stops earning when the task succeeds. The planner's upper bound: the same protocol as the
        dream's `WorldModel.evaluate`. MuJoCo's `rollout` tries them on a thread for each core.
        """
        qpos = self.poses_after(action_sequences)
        rewards, successes = evaluate_task(self.task, qpos[..., self._joints].astype(np.float32), self.colors)
        over = np.cumsum(successes, axis=1) - successes > 0  # before this step
        return np.where(over, 0.0, rewards).sum(1).astype(np.float32)

    def poses_after(self, action_sequences: np.ndarray) -> np.ndarray:
        """The poses [n, horizon, p] that action sequences [n, horizon, 2] would lead through; nothing changes."""
        kind = mujoco.mjtState.mjSTATE_FULLPHYSICS
        state = np.empty(mujoco.mj_stateSize(self.model, kind))
        mujoco.mj_getState(self.model, self.data, state, kind)
        if not self._threads:
            self._threads = [mujoco.MjData(self.model) for _ in range(os.cpu_count() or 1)]
        states, _ = rollout.rollout(
            self.model, self._threads, state, self._commands(action_sequences).repeat(FRAME_SKIP, axis=1),
            initial_warmstart=self.data.qacc_warmstart,
        )  # fmt: skip
        return states[:, FRAME_SKIP - 1 :: FRAME_SKIP, 1 : 1 + self.model.nq]  # behind the time

    def _commands(self, actions: np.ndarray) -> np.ndarray:
        """What `advance` would make of actions [n, horizon, 2] from here on, by its noise and delay."""
        actions = np.clip(actions, -1.0, 1.0)
        if self.variation.action_noise:
            chances = deepcopy(self.np_random)  # the same for all
            actions = np.clip(actions + chances.normal(0, self.variation.action_noise, actions.shape[1:]), -1.0, 1.0)
        late = np.broadcast_to(np.reshape(self._late, (-1, 2)), (len(actions), len(self._late), 2))
        return np.concatenate([late, actions], 1)[:, : actions.shape[1]] * (SPEED / (FRAME_SKIP * TIMESTEP))

    def fork(self) -> "TabletopEnv":
        """An independent table that continues from here exactly as this one would."""
        other = TabletopEnv(None, self.action_mode, self.variation, self.resolution)
        other.render_mode = self.render_mode
        other.restore(self.snapshot())
        return other

    def all_rewards(self) -> tuple[np.ndarray, np.ndarray]:
        """Reward and success now under every instruction, float32 [m] and bool [m], in `tasks()` order."""
        results = [evaluate_task(task, self.positions, self.colors) for task in tasks(self.colors).values()]
        return np.stack([reward for reward, _ in results]), np.stack([success for _, success in results])

    def snapshot(self) -> bytes:
        """Everything that evolves, exactly: what follows a `restore` is what would have followed here."""
        state = np.empty(mujoco.mj_stateSize(self.model, mujoco.mjtState.mjSTATE_INTEGRATION))
        mujoco.mj_getState(self.model, self.data, state, mujoco.mjtState.mjSTATE_INTEGRATION)
        meta = {
            "version": SNAPSHOT_VERSION,
            "variation": asdict(self.variation),
            "instruction": self.instruction,
            "chosen": self.chosen,
            "random": self.np_random.bit_generator.state,
            "late": [action.tolist() for action in self._late],
            "distractors": [self.model.geom(f"distractor{i}").pos.tolist() for i in range(self.variation.distractors)],
        }
        return json.dumps(meta).encode() + b"\n" + state.tobytes()

    def restore(self, blob: bytes) -> None:
        """Return to a `snapshot()` of this table or of one with the same variation."""
        header, _, body = blob.partition(b"\n")
        try:
            meta = json.loads(header)
            if meta["version"] != SNAPSHOT_VERSION:
                raise ValueError(f"snapshot version is {meta['version']}; this release reads {SNAPSHOT_VERSION}")
            variation, instruction, chosen, random, late, spots = (
                meta[key] for key in ("variation", "instruction", "chosen", "random", "late", "distractors")
            )
        except (TypeError, KeyError, json.JSONDecodeError, UnicodeDecodeError):
            raise ValueError(f"these {len(blob)} bytes are not a snapshot of a Tabletop") from None
        if json.loads(json.dumps(asdict(self.variation))) != variation:
            raise ValueError("the snapshot is of a table with another variation; make the env with the same one")
        size = mujoco.mj_stateSize(self.model, mujoco.mjtState.mjSTATE_INTEGRATION)
        if len(body) != 8 * size:
            raise ValueError(f"the snapshot is cut short: {len(body)} of {8 * size} bytes of state")
        task = find_task(instruction, self.colors)
        for index, spot in enumerate(spots):
            self.model.geom(f"distractor{index}").pos[:] = spot
        mujoco.mj_setState(self.model, self.data, np.frombuffer(body), mujoco.mjtState.mjSTATE_INTEGRATION)
        mujoco.mj_forward(self.model, self.data)
        mujoco.mj_setState(self.model, self.data, np.frombuffer(body), mujoco.mjtState.mjSTATE_INTEGRATION)
        self.instruction, self.chosen, self.task = instruction, chosen, task
        self.np_random.bit_generator.state = random
        self._late = [np.asarray(action) for action in late]

    get_state, set_state = snapshot, restore
    """The same two, by the names that tools look for which plan on any environment that can branch."""

    def __getstate__(self) -> dict[str, Any]:
        """What pickles and deep copies hold: all but the renderer and the threads, which are made again when needed."""
        return {**vars(self), "_renderer": None, "_threads": []}

    # -- inside ------------------------------------------------------------------------------------------------

    def _carry_out(self, sentence: str) -> tuple[float, bool, int, str]:
        """A sentence by the scripted controller: (summed reward, success, frames, why it is not understood)."""
        reading = self._reader.read(sentence)
        total, success, count = 0.0, False, 0
        for phrase in reading.phrases or ("",):
            task = phrases(self.colors).get(phrase)
            for _ in range(FRAMES_PER_TEXT):
                if success and self.chosen:
                    break
                vector = np.zeros(2, np.float32) if task is None else skill_action(task, self.positions, self.colors)
                reward, success = self.advance(vector)
                total, count = total + reward, count + 1
        return total, success, count, reading.reason

    def _frame(self) -> np.ndarray:
        if self._renderer is None:
            self._renderer = open_renderer(self.model, self.resolution)
        # A physics step leaves the geometry one substep behind its positions.
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_camlight(self.model, self.data)
        self._renderer.update_scene(self.data, camera="above")
        return self._renderer.render()

    def _info(self, success, num_frames: int, reason: str = "") -> dict[str, Any]:
        ok: dict[str, Any] = {} if self.action_mode == "vector" else {"action_ok": not reason}
        ok |= {"action_reason": reason} if self.action_mode in ("text", "both") else {}
        return {"success": bool(success), "positions": self.positions, "num_frames": num_frames, **ok}


def controller(table: TabletopEnv) -> Callable[[str], np.ndarray]:
    """How a table carries out a sentence: its next vector from where it stands. It stands still at unknown ones."""
    known = phrases(table.colors)

    def carry_out(sentence: str) -> np.ndarray:
        task = known.get(table._reader.read(sentence).phrase or "")
        return np.zeros(2, np.float32) if task is None else skill_action(task, table.positions, table.colors)

    return carry_out
