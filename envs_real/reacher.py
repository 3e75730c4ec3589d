"""Gymnasium's Reacher-v5 seen from above, `worldgym/ReacherMuJoCo-v0`: the twin of the bundled `worldgym/Reacher-v0`.

The physics, the start, and the reward's distance are Gymnasium's. The picture is made for 64 pixels: the camera looks
straight down, and the arm, its tip and the target are drawn thicker, which nothing touches. The reward has no control
cost (`reward_control_weight=0`): rewards are read off frames, and a frame does not show the torque.
"""

import mujoco
import numpy as np
from gymnasium.envs.mujoco import reacher_v5

from .pictured import Pictured

NEAR = 0.025
"""Metres between tip and target below which the target is reached; as Gymnasium sizes them they touch at 0.019."""
ARM = 0.1, 0.11
"""Lengths of the links, metres."""
CAMERA_HEIGHT = 0.57
DRAWN = {"link0": 0.016, "link1": 0.016, "fingertip": 0.022, "target": 0.024}
"""Radii in the picture, metres."""


class ReacherEnv(Pictured, reacher_v5.ReacherEnv):
    """Two links and a target. An episode never terminates, and begins with the arm nearly straight and still.

    Observation: uint8 [64, 64, 3]. Action: float32 [2] in [-1, 1], the torques of shoulder and elbow, for 0.02 s.
    Reward: minus the distance from tip to target, metres.
    `info` has "success" (bool), "positions" (float32 [2, 2], tip and target, metres) and "num_frames" (1).
    """

    INSTRUCTION = "reach the target"
    metadata = {"render_modes": ["rgb_array"], "render_fps": 50}

    def _build(self) -> None:
        reacher_v5.ReacherEnv.__init__(self, reward_control_weight=0.0)

    def _paint(self) -> None:
        for name, radius in DRAWN.items():
            self.model.geom(name).size[0] = radius
        self.model.vis.headlight.ambient[:] = 0.5

    @property
    def positions(self) -> np.ndarray:
        """Tip and target."""
        return np.stack([self.get_body_com(name)[:2] for name in ("fingertip", "target")]).astype(np.float32)

    @property
    def success(self) -> bool:
        tip, target = self.positions
        return bool(np.linalg.norm(tip - target) < NEAR)

    def advance(self, action: np.ndarray) -> float:
        action = np.clip(action, -1.0, 1.0)
        self.do_simulation(action, self.frame_skip)
        reward = float(self._get_rew(action)[0])  # Gymnasium's, of positions that are a substep old
        mujoco.mj_kinematics(self.model, self.data)
        return reward

    def all_rewards(self) -> tuple[np.ndarray, np.ndarray]:
        """(reward, success) of its one instruction, [1] each."""
        return np.array([self._get_rew(np.zeros(2))[0]], np.float32), np.array([self.success])

    def _look(self, camera: mujoco.MjvCamera) -> None:
        camera.distance, camera.elevation, camera.azimuth = CAMERA_HEIGHT, -90.0, 90.0


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
