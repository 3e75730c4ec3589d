"""Opening MuJoCo's renderer, or saying what is missing."""

import os

import mujoco

from worldgym.errors import UserError


class NoRenderer(UserError, RuntimeError):
    """MuJoCo cannot draw on this machine as it is set up."""


def open_renderer(model: mujoco.MjModel, resolution: int) -> mujoco.Renderer:
    """A renderer of resolution x resolution pixels, without shadows and reflections.

    Raises:
        NoRenderer: none can be opened here.
    """
    try:
        renderer = mujoco.Renderer(model, resolution, resolution)
    except Exception as error:
        raise NoRenderer(
            f"MuJoCo cannot open a renderer (MUJOCO_GL={os.environ.get('MUJOCO_GL', 'unset')}): {error}. "
            "Without a screen it takes EGL; on Debian and Ubuntu: apt-get install libegl1 libgl1"
        ) from error
    renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
    renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
    return renderer
