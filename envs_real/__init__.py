"""Real simulators: the true twins of the bundled dreams."""

import os
import sys

if sys.platform == "linux" and not os.environ.get("DISPLAY"):
    os.environ.setdefault("MUJOCO_GL", "egl")  # MuJoCo reads it when it is imported, which is after this
