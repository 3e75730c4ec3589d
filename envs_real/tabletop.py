"""The Tabletop in MuJoCo: a round pusher and coloured blocks on a walled table, seen from above.

`gym.make("worldgym/TabletopMuJoCo-v0")` is the real twin of the dream `worldgym/Tabletop-v0`: same spaces, same
action modes, same instructions. Sizes, speeds and the camera are chosen so that two CPU cores can learn its
physics in a few hours (see docs/decisions.md).
"""

import json
import os
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any, Literal

import gymnasium as gym
import mujoco
import numpy as np
from mujoco import rollout

from worldgym.spaces import ActionMode, action_space, read_action

from .rendering import open_renderer
from .tabletop_skills import SPEED, phrases, skill_action
from .tabletop_tasks import BLOCK_HALF, PUSHER_RADIUS, evaluate_task, find_task, tasks

PALETTE = {
    "red": (0.85, 0.12, 0.12),
    "blue": (0.15, 0.3, 0.9),
    "green": (0.1, 0.65, 0.2),
    "yellow": (0.9, 0.8, 0.1),
    "purple": (0.55, 0.15, 0.7),
}
PUSHER_RGB = (0.12, 0.12, 0.12)
WALL_RGB = (0.35, 0.3, 0.25)
FRAME_SKIP = 10
TIMESTEP = 0.01
FRAMES_PER_TEXT = 16
SNAPSHOT_VERSION = 1


@dataclass(frozen=True)
class Variation:
    """The factors of variation of a table. Defaults are the nominal world; `ranges()` has the studied spread."""

    colors: tuple[str, ...] = ("red", "blue")
    """One block of each colour; names from PALETTE."""
    shapes: tuple[Literal["box", "cylinder", "hexagon"], ...] = ("box", "cylinder")
    """Shape of each block, in the order of the colours (repeated if shorter)."""
    block_size: float = 1.0
    """Scale of the blocks' width."""
    mass: float = 1.0
    """Scale of the blocks' mass."""
    friction: float = 1.0
    """Scale of the friction between blocks and table."""
    light: float = 1.0
    """Scale of the brightness."""
    camera_tilt: float = 0.0
    """Degrees away from straight down."""
    table_rgb: tuple[float, float, float] = (0.78, 0.74, 0.66)
    distractors: int = 0
    """Small grey discs that nobody names."""
    action_noise: float = 0.0
    """Standard deviation of noise added to each action."""
    action_delay: int = 0
    """Steps by which actions arrive late."""

    def __post_init__(self):
        unknown = set(self.colors) - set(PALETTE)
        if unknown or not self.colors or len(set(self.colors)) < len(self.colors):
            raise ValueError(f"colors {self.colors} must be distinct names from {', '.join(PALETTE)}")
        if not 0 <= self.camera_tilt <= 60:
            raise ValueError(f"camera_tilt {self.camera_tilt} must be within 0 and 60 degrees")
        for name in ("block_size", "mass", "friction", "light"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} {getattr(self, name)} must be positive")


FACTORS: dict[str, tuple[tuple, tuple]] = {
    # factor: (values a world is trained on, values held out for zero-shot tests)
    "colors": (
        (("red", "blue"),),
        (("green", "blue"), ("red", "purple"), ("red", "blue", "yellow"), ("red",)),
    ),
    "shapes": ((("box", "cylinder"), ("cylinder", "box")), (("box", "box"), ("hexagon", "hexagon"))),
    "block_size": ((0.9, 1.0, 1.1), (0.75, 1.25)),
    "mass": ((0.7, 1.0, 1.4), (0.4, 2.5)),
    "friction": ((0.7, 1.0, 1.4), (0.4, 2.5)),
    "light": ((0.85, 1.0, 1.1), (0.6, 1.25)),
    "camera_tilt": ((0.0,), (10.0, 20.0)),
    "table_rgb": (((0.78, 0.74, 0.66),), ((0.6, 0.75, 0.8), (0.5, 0.5, 0.5))),
    "distractors": ((0,), (1, 2)),
    "action_noise": ((0.0, 0.1), (0.3,)),
    "action_delay": ((0,), (1, 2)),
}
"""Each factor of variation with its training values and its held-out values."""


def sample_variation(
    rng: np.random.Generator, split: Literal["train", "held_out"], factors=tuple(FACTORS)
) -> Variation:
    """A table with the named factors drawn from their training or held-out values; the others stay nominal."""
    column = {"train": 0, "held_out": 1}[split]
    chosen = {name: FACTORS[name][column][rng.integers(len(FACTORS[name][column]))] for name in factors}
    return Variation(**chosen)


class TabletopEnv(gym.Env):
    """A pusher, blocks and an instruction, simulated by MuJoCo.

    Observation: uint8 [64, 64, 3]. Actions by `action_mode`:
        "vector": float32 [2] in [-1, 1], the pusher's velocity; one step of 0.1 s.
        "text": a sentence; a scripted controller executes it for 16 steps, whose rewards are summed.
        "discrete": an index into the list of sentences, `env.unwrapped.phrases`.
        "both": `(0, vector)` or `(1, sentence)`; a bare vector or sentence will do.
    Reward and success belong to `instruction`; an episode terminates on success.
    `info` has "success" (bool), "positions" (float32 [1 + blocks, 2], pusher first), "num_frames" (int), and unless
    actions are vectors "action_ok" (bool): an unknown sentence leaves the pusher still.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(
        self,
        instruction: str = "push the red block to the centre",
        action_mode: ActionMode = "vector",
        variation: Variation | dict | None = None,
        resolution: int = 64,
        render_mode: Literal["rgb_array"] | None = None,
    ):
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode {render_mode!r} must be None or 'rgb_array'")
        self.variation = Variation(**variation) if isinstance(variation, dict) else variation or Variation()
        self.instruction = instruction
        self.task = find_task(instruction, self.colors)
        self.action_mode = action_mode
        self.render_mode = render_mode
        self.phrases = list(phrases(self.colors))
        self.resolution = resolution
        self.observation_space = gym.spaces.Box(0, 255, (resolution, resolution, 3), np.uint8)
        self.action_space = action_space(action_mode, 2, self.phrases)
        self.model = mujoco.MjModel.from_xml_string(_mjcf(self.variation))
        self.data = mujoco.MjData(self.model)
        self._joints = np.stack(
            [[self.model.joint(f"{name}_{axis}").qposadr[0] for axis in "xy"] for name in ("pusher", *self.colors)]
        )
        self._renderer: mujoco.Renderer | None = None  # made on the first frame: planners never need one
        self._threads: list[mujoco.MjData] = []  # of `evaluate`, made when it is first asked
        self._late: list[np.ndarray] = []

    @property
    def colors(self) -> tuple[str, ...]:
        return self.variation.colors

    @property
    def positions(self) -> np.ndarray:
        """Where everything is, float32 [1 + blocks, 2], pusher first."""
        return self.data.qpos[self._joints].astype(np.float32)

    # -- Gymnasium ---------------------------------------------------------------------------------------------

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Scatter the objects. `options={"instruction": ...}` changes the task from here on."""
        super().reset(seed=seed)
        if unknown := set(options or {}) - {"instruction"}:
            raise ValueError(f"unknown reset options {sorted(unknown)}; the twin knows instruction")
        if options and "instruction" in options:
            self.task = find_task(options["instruction"], self.colors)
            self.instruction = options["instruction"]
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
        mujoco.mj_forward(self.model, self.data)
        return self._frame(), self._info(evaluate_task(self.task, self.positions, self.colors)[1], 0)

    def step(self, action):
        action = read_action(action, self.action_space, self.phrases)
        if isinstance(action, str):
            reward, success, count, known = self._carry_out(action)
        else:
            (reward, success), count, known = self.advance(action), 1, True
        ok = {} if self.action_mode == "vector" else {"action_ok": known}
        return self._frame(), reward, success, False, self._info(success, count) | ok

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
        kind = mujoco.mjtState.mjSTATE_FULLPHYSICS
        state = np.empty(mujoco.mj_stateSize(self.model, kind))
        mujoco.mj_getState(self.model, self.data, state, kind)
        if not self._threads:
            self._threads = [mujoco.MjData(self.model) for _ in range(os.cpu_count() or 1)]
        states, _ = rollout.rollout(
            self.model, self._threads, state, self._commands(action_sequences).repeat(FRAME_SKIP, axis=1),
            initial_warmstart=self.data.qacc_warmstart,
        )  # fmt: skip
        qpos = states[:, FRAME_SKIP - 1 :: FRAME_SKIP, 1 : 1 + self.model.nq]  # behind the time
        rewards, successes = evaluate_task(self.task, qpos[..., self._joints].astype(np.float32), self.colors)
        over = np.cumsum(successes, axis=1) - successes > 0  # before this step
        return np.where(over, 0.0, rewards).sum(1).astype(np.float32)

    def _commands(self, actions: np.ndarray) -> np.ndarray:
        """What `advance` would make of actions [n, horizon, 2] from here on, by its noise and delay."""
        actions = np.clip(actions, -1.0, 1.0)
        if self.variation.action_noise:
            chances = deepcopy(self.np_random)  # the same for all
            actions = np.clip(actions + chances.normal(0, self.variation.action_noise, actions.shape[1:]), -1.0, 1.0)
        late = np.broadcast_to(np.reshape(self._late, (-1, 2)), (len(actions), len(self._late), 2))
        return np.concatenate([late, actions], 1)[:, : actions.shape[1]] * (SPEED / (FRAME_SKIP * TIMESTEP))

    def fork(self) -> "TabletopEnv":
        """An independent table that goes on from here, as this one would have."""
        other = TabletopEnv(self.instruction, self.action_mode, self.variation, self.resolution)
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
            version, variation, instruction, random, late, spots = (
                meta[key] for key in ("version", "variation", "instruction", "random", "late", "distractors")
            )
        except (ValueError, TypeError, KeyError):
            raise ValueError(f"these {len(blob)} bytes are not a snapshot of a Tabletop") from None
        if version != SNAPSHOT_VERSION:
            raise ValueError(f"snapshot version is {version}; this release reads {SNAPSHOT_VERSION}")
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
        self.instruction, self.task = instruction, task
        self.np_random.bit_generator.state = random
        self._late = [np.asarray(action) for action in late]

    # -- inside ------------------------------------------------------------------------------------------------

    def _carry_out(self, phrase: str) -> tuple[float, bool, int, bool]:
        """A sentence by the scripted controller: (summed reward, success, frames, whether it is known)."""
        task = phrases(self.colors).get(phrase)
        total, success, count = 0.0, False, 0
        while count < FRAMES_PER_TEXT and not success:
            vector = np.zeros(2, np.float32) if task is None else skill_action(task, self.positions, self.colors)
            reward, success = self.advance(vector)
            total, count = total + reward, count + 1
        return total, success, count, task is not None

    def _frame(self) -> np.ndarray:
        if self._renderer is None:
            self._renderer = open_renderer(self.model, self.resolution)
        # A physics step leaves the geometry one substep behind its positions.
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_camlight(self.model, self.data)
        self._renderer.update_scene(self.data, camera="above")
        return self._renderer.render()

    def _info(self, success, num_frames: int) -> dict[str, Any]:
        return {"success": bool(success), "positions": self.positions, "num_frames": num_frames}


def locate(frames: np.ndarray, colors: tuple[str, ...] = ("red", "blue")) -> np.ndarray:
    """Object positions found in pictures by colour alone, for judging dreams.

    Args:
        frames: uint8 [..., h, w, 3] seen by the nominal camera.

    Returns:
        float32 [..., 1 + blocks, 2], pusher first: the mean place of the pixels nearest to the object's colour,
        nan where fewer than three pixels have it.
    """
    return middles(label(frames, colors), 1 + len(colors))


def label(frames: np.ndarray, colors: tuple[str, ...] = ("red", "blue")) -> np.ndarray:
    """What each pixel shows, by the nearest colour: int8 [..., h, w].

    Args:
        frames: uint8 [..., h, w, 3] of the nominal light.

    Returns:
        0 for the pusher, 1 to k for the blocks in the order of `colors`, k + 1 for the table, k + 2 for the wall; -1
        where none of these colours is near.
    """
    image = frames.astype(np.float32) / 255
    # A frame is lit evenly, so rendered colours are the named ones times one brightness.
    named = [PUSHER_RGB, *(PALETTE[color] for color in colors), Variation().table_rgb, WALL_RGB]
    known = np.asarray(named, np.float32)
    away = (known**2).sum(-1) - 2 * image @ known.T  # squared distances, less what they share: the pixel's own length
    nearest = away.argmin(-1)
    distance = np.take_along_axis(away, nearest[..., None], -1)[..., 0] + np.einsum("...c,...c->...", image, image)
    return np.where(distance < 0.1, nearest, -1).astype(np.int8)


def middles(shown: np.ndarray, objects: int) -> np.ndarray:
    """Mean place of the pixels of each of the first labels: float32 [..., objects, 2], nan of fewer than three.

    Args:
        shown: labels [..., h, w].
    """
    centres = pixel_places(shown.shape[-1])
    found = np.full((*shown.shape[:-2], objects, 2), np.nan, np.float32)
    for index in range(objects):
        mask = (shown == index).astype(np.float32)
        count = mask.sum((-2, -1))
        with np.errstate(invalid="ignore", divide="ignore"):
            x, y = (mask.sum(-2) @ centres) / count, (mask.sum(-1) @ -centres) / count
        found[..., index, :] = np.where((count >= 3)[..., None], np.stack([x, y], -1), np.nan)
    return found


def pixel_places(size: int) -> np.ndarray:
    """x of the pixels of a row, from the left, or minus y of those of a column, from the top: [size]."""
    return ((np.arange(size) + 0.5) / size * 2 - 1) * VIEW_HALF


VIEW_HALF = 1.06
"""Half the width of what the camera sees; the walls stand at 1.0."""


def _mjcf(variation: Variation) -> str:
    """The table as MJCF. Blocks slide and turn in the plane: dry friction and damping on planar joints stand in
    for table contact, which keeps motion quasi-static and a step at tens of microseconds."""
    half = BLOCK_HALF * variation.block_size
    blocks = "".join(
        _block(color, variation.shapes[index % len(variation.shapes)], half, variation)
        for index, color in enumerate(variation.colors)
    )
    distractors = "".join(
        f'<geom name="distractor{i}" type="cylinder" size=".06 .01" pos="0 0 .01" rgba=".45 .45 .45 1" '
        'contype="0" conaffinity="0"/>'
        for i in range(variation.distractors)
    )
    walls = "".join(
        f'<geom type="box" size="{sx} {sy} .1" pos="{x} {y} .1" rgba="{_rgba(WALL_RGB)}"/>'
        for x, y, sx, sy in (
            (1.05, 0, 0.05, 1.1),
            (-1.05, 0, 0.05, 1.1),
            (0, 1.05, 1.1, 0.05),
            (0, -1.05, 1.1, 0.05),
        )
    )
    tilt, light = np.deg2rad(variation.camera_tilt), variation.light
    camera = f"0 {-4 * np.sin(tilt):.5f} {4 * np.cos(tilt):.5f}"
    return f"""
<mujoco>
  <option timestep="{TIMESTEP}" gravity="0 0 0" integrator="implicitfast"/>
  <visual>
    <quality shadowsize="0" offsamples="4"/>
    <headlight ambient="{light} {light} {light}" diffuse="0 0 0" specular="0 0 0"/>
    <map znear=".1" zfar="20"/>
  </visual>
  <worldbody>
    <camera name="above" projection="orthographic" fovy="{2 * VIEW_HALF}" pos="{camera}"
            euler="{variation.camera_tilt} 0 0"/>
    <geom type="box" size="1.1 1.1 .01" pos="0 0 -.01" rgba="{_rgba(variation.table_rgb)}" contype="0" conaffinity="0"/>
    {walls}{distractors}
    <body name="pusher" pos="0 0 .1">
      <joint name="pusher_x" type="slide" axis="1 0 0"/>
      <joint name="pusher_y" type="slide" axis="0 1 0"/>
      <geom type="cylinder" size="{PUSHER_RADIUS} .1" mass="1" rgba="{_rgba(PUSHER_RGB)}" friction=".3"/>
    </body>
    {blocks}
  </worldbody>
  <actuator>
    <velocity joint="pusher_x" kv="100"/>
    <velocity joint="pusher_y" kv="100"/>
  </actuator>
</mujoco>"""


def _block(color: str, shape: str, half: float, variation: Variation) -> str:
    rgba, friction, mass = _rgba(PALETTE[color]), variation.friction, 0.2 * variation.mass
    slide = f'type="slide" damping="{4 * friction}" frictionloss="{0.5 * friction}"'
    look = f'rgba="{rgba}" friction=".3" mass="{mass}"'
    geoms = {
        "box": f'<geom type="box" size="{half} {half} .08" {look}/>',
        "cylinder": f'<geom type="cylinder" size="{half} .08" {look}/>',
        # three boxes turned by 60 degrees make a regular hexagon
        "hexagon": "".join(
            f'<geom type="box" size="{half * 0.95:.4f} {half * 0.5485:.4f} .08" euler="0 0 {turn}" '
            f'rgba="{rgba}" friction=".3" mass="{mass / 3}"/>'
            for turn in (0, 60, 120)
        ),
    }
    return f"""
    <body name="{color}" pos="0 0 .08">
      <joint name="{color}_x" axis="1 0 0" {slide}/>
      <joint name="{color}_y" axis="0 1 0" {slide}/>
      <joint name="{color}_turn" type="hinge" axis="0 0 1" damping="{0.06 * friction}"
             frictionloss="{0.008 * friction}"/>
      {geoms[shape]}
    </body>"""


def _rgba(rgb: tuple[float, float, float]) -> str:
    return f"{rgb[0]} {rgb[1]} {rgb[2]} 1"
