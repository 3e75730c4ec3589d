"""Gymnasium's Hopper-v5 seen from the side, `worldgym/HopperMuJoCo-v0`: the twin of the bundled `worldgym/Hopper-v0`.

The physics, the start, the reward and the end of an episode are Gymnasium's. A step is 0.032 s long, four of
Gymnasium's, in which something happens. The picture is made for 64 pixels: the camera goes along, the parts have
colours of their own, and stripes on the ground tell how fast it goes. The reward has no control cost
(`ctrl_cost_weight=0`): rewards are read off frames, and a frame does not show the torque.
"""

import mujoco
import numpy as np
from gymnasium.envs.mujoco import hopper_v5

from .pictured import Pictured

FRAME_SKIP = 16
COLORS = {
    "torso_geom": (0.85, 0.2, 0.2), "thigh_geom": (0.95, 0.75, 0.2), "leg_geom": (0.2, 0.6, 0.9),
    "foot_geom": (0.35, 0.8, 0.35), "floor": (0.45, 0.45, 0.45),
}  # fmt: skip
THICKER = 1.4
"""Radii in the picture over those of physics."""
STRIPE = 0.6
"""Width of the stripes on the ground, metres."""
DEPTH = 0.45
"""Half the width of the ground's strip, metres."""


class HopperEnv(Pictured, hopper_v5.HopperEnv):
    """One leg of four parts. An episode terminates when it falls: torso below 0.7 m or leaning by 0.2 rad.

    Observation: uint8 [64, 64, 3]. Action: float32 [3] in [-1, 1], the torques of hip, knee and ankle, for 0.032 s.
    Reward: 1 for being up, and the speed forward, m/s.
    `info` has "success" (False: one cannot be done with hopping), "positions" (float32 [1, 2], x and z of the torso,
    metres) and "num_frames" (1).
    """

    INSTRUCTION = "hop forward"
    metadata = {"render_modes": ["rgb_array"], "render_fps": 31}

    def _build(self) -> None:
        hopper_v5.HopperEnv.__init__(self, frame_skip=FRAME_SKIP, ctrl_cost_weight=0.0)

    @property
    def positions(self) -> np.ndarray:
        return self.data.qpos[None, :2].astype(np.float32)

    @property
    def over(self) -> bool:
        return not self.is_healthy

    def advance(self, action: np.ndarray) -> float:
        before = self.data.qpos[0]
        action = np.clip(action, -1.0, 1.0)
        self.do_simulation(action, self.frame_skip)
        return float(self._get_rew((self.data.qpos[0] - before) / self.dt, action)[0])

    def _paint(self) -> None:
        for name, color in COLORS.items():
            geom = self.model.geom(name)
            geom.rgba[:3] = color
            if name != "floor":
                geom.matid = -1
        self.model.geom("floor").size[1] = DEPTH  # as physics has it, a plane has no edge
        material = self.model.mat("MatPlane")
        material.texrepeat[:], material.reflectance = (2 * self.model.geom("floor").size[0] / (2 * STRIPE), 0.5), 0.0
        self.model.vis.headlight.ambient[:] = 0.4

    def _look(self, camera: mujoco.MjvCamera) -> None:
        camera.distance, camera.elevation, camera.azimuth = 2.6, -8.0, 90.0
        camera.lookat[:] = self.data.qpos[0], 0.0, 0.9

    def _draw(self, scene: mujoco.MjvScene) -> None:
        for geom in scene.geoms[: scene.ngeom]:
            if geom.type == mujoco.mjtGeom.mjGEOM_CAPSULE:
                geom.size[:2] *= THICKER
