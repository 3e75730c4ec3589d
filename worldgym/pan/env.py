"""PAN behind Gymnasium's two interfaces, the shells of all dreams around a core of its own.

env = gym.make("worldgym/Pan-v0", trained="runs/pan/joint", reward="the cup is full", starts="clips")
frame, info = env.reset(seed=0)
frame, reward, terminated, truncated, info = env.step("pour the water into the cup")
"""

from typing import Any, Literal

from gymnasium.vector import AutoresetMode

from ..env import DreamEnv, DreamVectorEnv
from .dreams import PanDreams, PanOptions


class PanEnv(DreamEnv):
    """PAN as an environment: an action is a sentence, an observation the newest frame, uint8 [h, w, 3].

    `reset` starts from a frame of the clips in `starts`, or from what was really seen:
    `reset(options={"frames": uint8 [1, h, w, 3]})`, or a whole past, `{"frames": uint8 [1 + n * k, h, w, 3],
    "actions": n sentences}`, k frames after each. `options={"instruction": ...}` changes the goal where it is in words.
    `info` has "success" (bool), "num_frames" (int), "action_ok" (bool): False for a sentence that says nothing, and
    "action_reason" (str), which is then not empty.

    Args:
        trained, reward, ...: see `PanOptions`.
    """

    def __init__(self, trained: str | None = None, *, render_mode: Literal["rgb_array"] | None = None, **options: Any):
        self._take(PanDreams(1, _options(trained, options)), render_mode)


class PanVectorEnv(DreamVectorEnv):
    """`gym.make_vec("worldgym/Pan-v0", num_envs=4, ...)`: `DreamVectorEnv`, of PAN.

    Args:
        trained, reward, ...: see `PanOptions`.
    """

    def __init__(
        self,
        trained: str | None = None,
        num_envs: int = 1,
        max_episode_steps: int | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        output: Literal["numpy", "torch"] = "numpy",
        render_mode: Literal["rgb_array"] | None = None,
        **options: Any,
    ):
        dreams = PanDreams(num_envs, _options(trained, options), max_episode_steps)
        self._take(dreams, autoreset_mode, output, render_mode)


def _options(trained: str | None, options: dict[str, Any]) -> PanOptions:
    """A ValueError says what is missing; nobody has published weights that could be a default."""
    if trained is None:
        raise ValueError("PAN needs weights: pass trained=FOLDER, the folder that `worldgym train pan joint` wrote")
    if "reward" not in options:
        raise ValueError(
            "PAN needs a reward: pass reward='what the picture should show', a goal image (uint8 [h, w, 3]) or a "
            "function of frames (uint8 [b, h, w, 3] -> [b])"
        )
    return PanOptions(trained, **options)
