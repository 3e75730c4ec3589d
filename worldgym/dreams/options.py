"""What dreams are like: the one set of keyword arguments behind every environment."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..spaces import ActionMode
from .rewards import FrameReward


@dataclass(frozen=True)
class DreamOptions:
    """What dreams are like: the keyword arguments that `gym.make`, `gym.make_vec` and `DreamVecEnv` share."""

    world: str
    """A bundled name or a checkpoint folder."""
    instruction: str | None = None
    """What reward, success and the end of an episode are judged by. Without one, learned rewards are for the world's
    first, whose success then cuts no sentence short; under any other reward there is then no success, and a dream never
    terminates."""
    action_mode: ActionMode = "vector"
    """"vector": an action of the world's own space, one frame: float32 [a] in [-1, 1], or, in a world of another
    environment (`worldgym record --env`), whatever that takes, such as Discrete or a Dict. "text": any sentence; it
    covers `frames_per_action` frames of the world, whose rewards are summed. "discrete": an index into the world's list
    of sentences, `phrases`. "both": `(0, own action)` or `(1, sentence)`; a bare one of either will do."""
    obs_type: Literal["pixels", "latent", "both", "state"] = "pixels"
    """"pixels": uint8 [h, w, 3]. "latent": float32 [f * g * g], the fused map that rewards are read off; in a world
    with `memory` [2 * f * g * g], it and the one before, which together tell speed. Nothing is decoded. "both": a
    dictionary of the two. "state": float32 [w], the recurrent state, which remembers all that was seen and done."""
    reward: str | np.ndarray | FrameReward = "learned"
    """"learned", for the instruction. A goal in words, one that the world can judge: learned, too, whatever the
    instruction says of ends; it is the instruction where there is none. A goal image, uint8 [h, w, 3]: minus the
    relative distance to it between fused maps, nothing is decoded. Or a function of imagined frames,
    uint8 [b, h, w, 3] -> [b], called for every frame."""
    uncertainty_penalty: float = 0.0
    """Reward that each nat of uncertainty costs, at every frame."""
    max_uncertainty: float | None = None
    """Nats above which an episode is truncated, though never by its first action."""
    starts: str | None = None
    """Id of a Minari dataset from `worldgym record` to begin from; the world's bundled held-out frames otherwise."""
    temperature: float = 0.0
    """0 dreams the likeliest future, 1 the learned spread."""
    decoder: str = "fast"
    """What pictures are made by. "fast": the tokenizer's own decoder, one pass. "diffusion": the diffusion decoder in
    the world's folder, many times slower; or the folder of one that `worldgym train decoder` wrote.
    It draws each frame from the one before, so a dream that is seldom rendered catches up when it is. Rewards that
    are functions of frames see the fast decoder's."""
    compiled: bool = False
    """Compile the step of all dreams with OpenVINO first, which takes seconds: one dream is then twice as fast,
    on a CPU (`WorldModel.compile_for`)."""
    imagined: bool = False
    """Move the recurrent state alone (see recurrent_state.py) and draw no frame: many times faster. There are no
    chances in it, no uncertainty and no sentences; pictures are what the state has of them, soft ones."""
    device: str = "auto"
    """"auto" takes a GPU where there is one."""

    def __post_init__(self):
        if self.obs_type not in ("pixels", "latent", "both", "state"):
            raise ValueError(f"obs_type {self.obs_type!r} must be 'pixels', 'latent', 'both' or 'state'")
        if not 0.0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature is {self.temperature}; it must be 0 or more")
        if not 0.0 <= self.uncertainty_penalty < float("inf"):
            raise ValueError(f"uncertainty_penalty is {self.uncertainty_penalty}; it must be 0 or more")
        if self.max_uncertainty is not None and not self.max_uncertainty > 0.0:
            raise ValueError(f"max_uncertainty is {self.max_uncertainty}; it must be above 0, or None for no bound")
        if self.imagined:
            mine = {
                "temperature": self.temperature, "uncertainty_penalty": self.uncertainty_penalty,
                "max_uncertainty": self.max_uncertainty, "compiled": self.compiled,
            }  # fmt: skip
            asked = [f"{name}={value}" for name, value in mine.items() if value not in (0.0, None, False)]
            asked += [f"obs_type={self.obs_type!r}"] * (self.obs_type in ("latent", "both"))
            asked += [f"action_mode={self.action_mode!r}"] * (self.action_mode != "vector")
            asked += [f"decoder={self.decoder!r}"] * (self.decoder != "fast")
            asked += ["a goal image"] * isinstance(self.reward, np.ndarray)
            if asked:
                raise ValueError(
                    f"imagined dreams draw no frame and are not compiled; leave out {' and '.join(asked)}, or imagined"
                )
