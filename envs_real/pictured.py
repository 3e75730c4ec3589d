"""Gymnasium's MuJoCo environments as twins of dreams: their physics and rewards, another picture.

What a dream is of must be seen in 64 pixels, so the picture is our own, drawn by MuJoCo's renderer: Gymnasium's
renderers share one context, and with two environments in a process each draws into the other's picture.
"""

import json
from typing import Any, Literal, SupportsIndex

import gymnasium as gym
import mujoco
import numpy as np
from gymnasium.envs.mujoco import MujocoEnv

from worldgym.actions import ActionCodec
from worldgym.spaces import ActionMode, read_action, read_seed

from .poses import read_pose
from .rendering import Renderer, open_renderer

SNAPSHOT_VERSION = 1


class Pictured(MujocoEnv):
    """What twins of Gymnasium's environments share; to be named before Gymnasium's class.

    A subclass has `INSTRUCTION`, the one thing to do, `metadata`, and `advance`, `positions`, `_build`, `_paint`
    and `_look`; if its episodes may end early, `over`, and if something can be achieved, `success`.
    """

    INSTRUCTION: str

    def __init__(
        self,
        instruction: str | None = None,
        action_mode: ActionMode = "vector",
        resolution: int = 64,
        render_mode: Literal["rgb_array"] | None = None,
    ):
        instruction = self.INSTRUCTION if instruction is None else instruction
        if action_mode != "vector":
            raise ValueError(f"action_mode is {action_mode!r}, but {self._name} knows no sentences; it takes 'vector'")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode {render_mode!r} must be None or 'rgb_array'")
        self._check(instruction)
        self.metadata = super().metadata  # what Gymnasium's constructor expects
        self._build()
        self.codec = ActionCodec(self.action_space)
        self.metadata = type(self).metadata
        self.render_mode, self.instruction, self.resolution = render_mode, instruction, resolution
        self.observation_space = gym.spaces.Box(0, 255, (resolution, resolution, 3), np.uint8)
        self.model.vis.quality.shadowsize = 0
        self._renderer: Renderer | None = None  # made on the first frame: planners never need one
        self._paint()

    @property
    def positions(self) -> np.ndarray:
        """Where things are, float32 [k, 2], metres."""
        raise NotImplementedError

    @property
    def pose(self) -> np.ndarray:
        """How everything lies, without its motion: float64 [p], MuJoCo's `qpos`."""
        return self.data.qpos.copy()

    @property
    def over(self) -> bool:
        """Whether the episode has ended."""
        return False

    @property
    def success(self) -> bool:
        """Whether what is to be done is done."""
        return False

    # -- Gymnasium ------------------------------------------------------------------------------------------------

    def reset(self, *, seed: SupportsIndex | None = None, options: dict[str, Any] | None = None):
        """Gymnasium's start; with `options={"pose": ...}` everything is at rest where the pose has it."""
        if unknown := set(options or {}) - {"instruction", "pose"}:
            raise ValueError(f"unknown reset options {sorted(unknown)}; the twin knows instruction and pose")
        self._check((options or {}).get("instruction", self.instruction))
        super().reset(seed=read_seed(seed))
        if (pose := (options or {}).get("pose")) is not None:
            super().set_state(read_pose(pose, self.pose), np.zeros(self.model.nv))
        return self._frame(), self._info(0)

    def step(self, action):
        action = read_action(action, "vector", self.codec, [])
        assert isinstance(action, np.ndarray)  # there are no sentences in this space
        reward = self.advance(action)
        return self._frame(), reward, self.over, False, self._info(1)

    def render(self) -> np.ndarray:
        return self._frame()

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    # -- true physics for planners, recorders and tests -------------------------------------------------------------

    def advance(self, action: np.ndarray) -> float:
        """One step without a picture: its reward."""
        raise NotImplementedError

    def evaluate(self, action_sequences: np.ndarray) -> np.ndarray:
        """Returns [n] of action sequences [n, horizon, a] tried from here on true physics, each until its episode
        ends; nothing changes."""
        before = self.snapshot()
        returns = np.zeros(len(action_sequences), np.float32)
        for index, sequence in enumerate(action_sequences):
            self.restore(before)
            for action in sequence:
                returns[index] += self.advance(action)
                if self.over:
                    break
        self.restore(before)
        return returns

    def poses_after(self, action_sequences: np.ndarray) -> np.ndarray:
        """The poses [n, horizon, p] that action sequences [n, horizon, a] would lead through, whatever would end the
        episode; nothing changes."""
        before = self.snapshot()
        poses = np.empty((*action_sequences.shape[:2], len(self.pose)))
        for index, sequence in enumerate(action_sequences):
            self.restore(before)
            for step, action in enumerate(sequence):
                self.advance(action)
                poses[index, step] = self.data.qpos
        self.restore(before)
        return poses

    def fork(self) -> "Pictured":
        """An independent environment that continues from here exactly as this one would."""
        other = type(self)(self.instruction, resolution=self.resolution)
        other.render_mode = self.render_mode
        other.restore(self.snapshot())
        return other

    def snapshot(self) -> bytes:
        """Physics and chances; what follows a `restore` is what would have followed here."""
        state = np.empty(mujoco.mj_stateSize(self.model, mujoco.mjtState.mjSTATE_INTEGRATION))
        mujoco.mj_getState(self.model, self.data, state, mujoco.mjtState.mjSTATE_INTEGRATION)
        content = {
            "version": SNAPSHOT_VERSION,
            "physics": state.tolist(),
            "random": self.np_random.bit_generator.state,
        }
        return json.dumps(content).encode()

    def restore(self, blob: bytes) -> None:
        """Go back to a snapshot of this environment.

        Raises:
            ValueError: the snapshot is not one, or of another version.
        """
        try:
            content = json.loads(blob)
            version, state, random = (content[name] for name in ("version", "physics", "random"))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"not a snapshot of {self._name}: {error}") from None
        size = mujoco.mj_stateSize(self.model, mujoco.mjtState.mjSTATE_INTEGRATION)
        if version != SNAPSHOT_VERSION or len(state) != size:
            raise ValueError(
                f"the snapshot has version {version} and {len(state)} numbers; {self._name} reads version "
                f"{SNAPSHOT_VERSION} and {size} numbers"
            )
        mujoco.mj_setState(self.model, self.data, np.array(state), mujoco.mjtState.mjSTATE_INTEGRATION)
        mujoco.mj_forward(self.model, self.data)
        self.np_random.bit_generator.state = random

    get_state = snapshot
    """The same, by the name that tools look for which plan on any environment that can branch."""

    def set_state(self, state: Any, velocities: np.ndarray | None = None) -> None:
        """Go back to a `get_state()`; or, with velocities, to Gymnasium's positions and velocities."""
        if velocities is None:
            self.restore(state)
        else:
            super().set_state(state, velocities)

    def __getstate__(self) -> dict[str, Any]:
        """What pickles and deep copies hold: all but the renderers, which are made again when needed."""
        return {**vars(self), "_renderer": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)

    # -- parts ----------------------------------------------------------------------------------------------------

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _build(self) -> None:
        """Call Gymnasium's constructor."""
        raise NotImplementedError

    def _paint(self) -> None:
        """Make the model look as it is to be seen."""
        raise NotImplementedError

    def _look(self, camera: mujoco.MjvCamera) -> None:
        """Point a new camera, before each frame."""
        raise NotImplementedError

    def _draw(self, scene: mujoco.MjvScene) -> None:
        """Change what is drawn, and only that."""

    def _check(self, instruction: str) -> None:
        if instruction != self.INSTRUCTION:
            raise ValueError(f"unknown instruction {instruction!r}; {self._name} knows {self.INSTRUCTION!r}")

    def _frame(self) -> np.ndarray:
        if self._renderer is None:
            self._renderer = open_renderer(self.model, self.resolution)
        mujoco.mj_kinematics(self.model, self.data)  # a step leaves bodies where they were a substep ago
        mujoco.mj_camlight(self.model, self.data)
        camera = mujoco.MjvCamera()
        self._look(camera)
        self._renderer.update_scene(self.data, camera)
        self._draw(self._renderer.scene)
        return self._renderer.render()

    def _info(self, num_frames: int) -> dict[str, Any]:
        return {"success": self.success, "positions": self.positions, "num_frames": num_frames}
