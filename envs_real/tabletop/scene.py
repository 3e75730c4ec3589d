"""The table that the simulator is given: its factors of variation, and MJCF made of them."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from .tasks import BLOCK_HALF, PUSHER_RADIUS

PALETTE = {
    "red": (0.85, 0.12, 0.12),
    "blue": (0.15, 0.3, 0.9),
    "green": (0.1, 0.65, 0.2),
    "yellow": (0.9, 0.8, 0.1),
    "purple": (0.55, 0.15, 0.7),
}
PUSHER_RGB = (0.12, 0.12, 0.12)
WALL_RGB = (0.35, 0.3, 0.25)
TIMESTEP = 0.01
VIEW_HALF = 1.06
"""Half the width of what the camera sees; the walls stand at 1.0."""


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
    """Small grey discs that no instruction names."""
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


def mjcf(variation: Variation) -> str:
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
