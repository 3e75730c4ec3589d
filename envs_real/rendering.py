"""Opening MuJoCo's renderer, or saying what is missing."""

import os
import sys

import mujoco
import numpy as np

from worldgym.errors import UserError

_inherited = False
"""Whether this process was forked from one that had opened EGL, by anybody's hand: its first use here would hang."""


class NoRenderer(UserError, RuntimeError):
    """MuJoCo cannot draw on this machine as it is set up."""


def _after_fork() -> None:
    global _inherited
    egl = sys.modules.get("mujoco.egl")
    _inherited = egl is not None and egl.EGL_DISPLAY is not None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Renderer(mujoco.Renderer):
    """MuJoCo's, which raises where it would hang."""

    def render(self, *, out: np.ndarray | None = None) -> np.ndarray:
        _check_process()
        return super().render(out=out)

    def close(self) -> None:
        if not _inherited:  # else there is nothing of ours to give back
            super().close()


def open_renderer(model: mujoco.MjModel, resolution: int) -> Renderer:
    """A renderer of resolution x resolution pixels, without shadows and reflections.

    Raises:
        NoRenderer: none can be opened here.
    """
    _check_process()
    try:
        renderer = Renderer(model, resolution, resolution)
    except Exception as error:
        raise NoRenderer(
            f"MuJoCo cannot open a renderer (MUJOCO_GL={os.environ.get('MUJOCO_GL', 'unset')}): {error}. "
            "Without a screen it takes EGL; on Debian and Ubuntu: apt-get install libegl1 libgl1"
        ) from error
    renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
    renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
    return renderer


def _check_process() -> None:
    if _inherited:
        raise RuntimeError(
            "this process was forked from one that had already opened EGL, which would hang here. Start it fresh: "
            "gym.make_vec(id, n, vectorization_mode='async', vector_kwargs={'context': 'spawn'}), "
            "multiprocessing.get_context('spawn'), or fork before anything is rendered"
        )
