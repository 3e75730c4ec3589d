"""Stage four: frames are drawn from the recurrent state.

The scale head is shown what the state foresees, as a dream has it: after a few observed frames the state follows the
actions alone. Most segments are the world's own dreams, in which what was lost has to be drawn from the state again.
All but the scale head stays as it is: the state's heads read instructions as the backbone does.
"""

from dataclasses import replace
from pathlib import Path

import torch

from ..checkpoint import GOALS, READOUTS, adopt, companions, load_config
from ..config import WorldConfig
from ..data import load_episodes
from ..errors import UserError
from ..evaluate.fidelity import check_recording
from ..listing import find_world
from ..world import WorldModel
from .checkpoints import check_world, world_done
from .dynamics import SegmentStage
from .launch import launch
from .loop import run, train
from .settings import FramesTraining


def train_frames(config: FramesTraining) -> Path:
    """Train until `config.steps`; returns the checkpoint folder."""
    source, stage = load_config(find_world(config.world))
    if stage != "world" or source.recurrent is None:
        raise UserError(f"{config.world} has no recurrent state to draw from; `worldgym train state` makes one")
    if check_world(config, "world"):
        found = load_config(config.out)[0]
        if found != _drawing(source, config.rereads):
            raise UserError(f"{config.out} holds another world, {found}; choose another --out")
        if world_done(config, "world"):
            return config.out
    check_recording(source, config.dataset, load_episodes(config.dataset))
    launch(_train, config)
    return config.out


def _train(config: FramesTraining) -> None:
    with run(config) as accelerator:
        with accelerator.main_process_first():
            stage = FramesStage(config, accelerator.device)
        train(stage, config, accelerator)


class FramesStage(SegmentStage):
    """The dynamics' own training, in which the scale head alone moves."""

    name, warm_up = "frames", 50

    def __init__(self, config: FramesTraining, device: torch.device):
        torch.manual_seed(config.seed)
        folder = find_world(config.world)
        world = drawing_from_state(WorldModel.load(config.world, str(device)), config.rereads)
        files = companions(folder) | {
            name: (folder / name).read_bytes() for name in (READOUTS, GOALS) if (folder / name).exists()
        }
        super().__init__(config, world, load_episodes(config.dataset), files)


def drawing_from_state(world: WorldModel, rereads: bool) -> WorldModel:
    """The same world, whose scale head is shown what its recurrent state foresees; that does nothing yet."""
    made = WorldModel(_drawing(world.config, rereads), world.text).to(world.device)
    adopt(made, world.state_dict())
    made.eval().requires_grad_(False)
    made.dynamics.scale_head.requires_grad_(True)
    return made


def _drawing(world: WorldConfig, rereads: bool) -> WorldConfig:
    return replace(world, dynamics=replace(world.dynamics, from_state=True, rereads=rereads))
