"""Gymnasium's Reacher-v5 seen from above, `worldgym/ReacherMuJoCo-v0`: the twin of the bundled `worldgym/Reacher-v0`.

The physics, the start, and the reward's distance are Gymnasium's. The picture is made for 64 pixels: the camera looks
straight down, and the arm, its tip and the target are drawn thicker, which nothing touches. The reward has no control
cost (`reward_control_weight=0`): rewards are read off frames, and a frame cannot tell the torque.
"""

import json
from typing import Any, Literal

import gymnasium as gym
import mujoco
import numpy as np
from gymnasium.envs.mujoco import reacher_v5

from worldgym.spaces import ActionMode, read_action

from .rendering import open_renderer

INSTRUCTION = "reach the target"
NEAR = 0.025
"""Metres between tip and target below which the target is reached; as Gymnasium sizes them they touch at 0.019."""
ARM = 0.1, 0.11
"""Lengths of the links, metres."""
CAMERA_HEIGHT = 0.57
DRAWN = {"link0": 0.016, "link1": 0.016, "fingertip": 0.022, "target": 0.024}
"""Radii in the picture, metres."""
SNAPSHOT_VERSION = 1


class ReacherEnv(reacher_v5.ReacherEnv):
    """Two links and a target. An episode never terminates.

    Observation: uint8 [64, 64, 3]. Action: float32 [2] in [-1, 1], the torques of shoulder and elbow, for 0.02 s.
    Reward: minus the distance from tip to target, metres.
    `info` has "success" (bool), "positions" (float32 [2, 2], tip and target, metres) and "num_frames" (1).
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 50}

    def __init__(
        self,
        instruction: str = INSTRUCTION,
        action_mode: ActionMode = "vector",
        resolution: int = 64,
        render_mode: Literal["rgb_array"] | None = None,
    ):
        if action_mode != "vector":
            raise ValueError(f"action_mode is {action_mode!r}, but the Reacher knows no sentences; it takes 'vector'")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode {render_mode!r} must be None or 'rgb_array'")
        _check(instruction)
        self.metadata = reacher_v5.ReacherEnv.metadata  # what its own constructor expects
        super().__init__(reward_control_weight=0.0)
        self.metadata = type(self).metadata
        self.render_mode, self.instruction, self.resolution = render_mode, instruction, resolution
        self.observation_space = gym.spaces.Box(0, 255, (resolution, resolution, 3), np.uint8)
        for name, radius in DRAWN.items():
            self.model.geom(name).size[0] = radius
        self.model.vis.quality.shadowsize = 0
        self.model.vis.headlight.ambient[:] = 0.5
        self._renderer: mujoco.Renderer | None = None  # made on the first frame: planners never need one
        self._camera = mujoco.MjvCamera()
        self._camera.distance, self._camera.elevation, self._camera.azimuth = CAMERA_HEIGHT, -90.0, 90.0

    @property
    def positions(self) -> np.ndarray:
        """Tip and target, float32 [2, 2], metres."""
        return np.stack([self.get_body_com(name)[:2] for name in ("fingertip", "target")]).astype(np.float32)

    # -- Gymnasium ------------------------------------------------------------------------------------------------

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Gymnasium's start: the arm nearly straight and still, the target anywhere within its reach."""
        if unknown := set(options or {}) - {"instruction"}:
            raise ValueError(f"unknown reset options {sorted(unknown)}; the twin knows instruction")
        _check((options or {}).get("instruction", self.instruction))
        super().reset(seed=seed)
        return self._frame(), self._info(self._near(), 0)

    def step(self, action):
        action = read_action(action, self.action_space, [])
        assert isinstance(action, np.ndarray)  # there are no sentences in this space
        reward, success = self.advance(action)
        return self._frame(), reward, False, False, self._info(success, 1)

    def render(self) -> np.ndarray:
        return self._frame()

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    # -- true physics for planners, recorders and tests -------------------------------------------------------------

    def advance(self, action: np.ndarray) -> tuple[float, bool]:
        """One physics step of 0.02 s without a picture: (reward, success)."""
        action = np.clip(action, -1.0, 1.0)
        self.do_simulation(action, self.frame_skip)
        reward = float(self._get_rew(action)[0])  # Gymnasium's, of positions that are a substep old
        mujoco.mj_kinematics(self.model, self.data)
        return reward, self._near()

    def evaluate(self, action_sequences: np.ndarray) -> np.ndarray:
        """Returns [n] of action sequences [n, horizon, 2] tried from here on true physics; nothing changes."""
        before = self.snapshot()
        returns = np.zeros(len(action_sequences), np.float32)
        for index, sequence in enumerate(action_sequences):
            self.restore(before)
            returns[index] = sum(self.advance(action)[0] for action in sequence)
        self.restore(before)
        return returns

    def fork(self) -> "ReacherEnv":
        """An independent arm that goes on from here, as this one would have."""
        other = ReacherEnv(self.instruction, resolution=self.resolution)
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
            raise ValueError(f"not a snapshot of the Reacher: {error}") from None
        size = mujoco.mj_stateSize(self.model, mujoco.mjtState.mjSTATE_INTEGRATION)
        if version != SNAPSHOT_VERSION or len(state) != size:
            raise ValueError(f"the snapshot is of version {version}; this Reacher reads version {SNAPSHOT_VERSION}")
        mujoco.mj_setState(self.model, self.data, np.array(state), mujoco.mjtState.mjSTATE_INTEGRATION)
        mujoco.mj_forward(self.model, self.data)
        self.np_random.bit_generator.state = random

    def all_rewards(self) -> tuple[np.ndarray, np.ndarray]:
        """(reward, success) of its one instruction, [1] each."""
        return np.array([self._get_rew(np.zeros(2))[0]], np.float32), np.array([self._near()])

    # -- parts ----------------------------------------------------------------------------------------------------

    def _near(self) -> bool:
        tip, target = self.positions
        return bool(np.linalg.norm(tip - target) < NEAR)

    def _frame(self) -> np.ndarray:
        if self._renderer is None:
            self._renderer = open_renderer(self.model, self.resolution)
        mujoco.mj_camlight(self.model, self.data)
        self._renderer.update_scene(self.data, self._camera)
        return self._renderer.render()

    def _info(self, success: bool, num_frames: int) -> dict[str, Any]:
        return {"success": success, "positions": self.positions, "num_frames": num_frames}


def joints_at(target: np.ndarray, bend: float) -> np.ndarray:
    """Angles of shoulder and elbow that put the tip at `target` [2], as near as the arm reaches.

    Args:
        bend: 1 or -1, the side to which the elbow bends.
    """
    first, second = ARM
    cosine = (target @ target - first**2 - second**2) / (2 * first * second)
    elbow = bend * np.arccos(np.clip(cosine, -1.0, 1.0))
    shoulder = np.arctan2(target[1], target[0])
    return np.array([shoulder - np.arctan2(second * np.sin(elbow), first + second * np.cos(elbow)), elbow])


def _check(instruction: str) -> None:
    if instruction != INSTRUCTION:
        raise ValueError(f"unknown instruction {instruction!r}; the Reacher knows {INSTRUCTION!r}")
