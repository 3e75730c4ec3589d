"""`worldgym render`: recorded episodes, drawn again by the diffusion decoder."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .arguments import TabletopByDefault


@dataclass(frozen=True)
class Render:
    """Redraw a recorded episode, of a dream or of the true environment, with the diffusion decoder.

    The tokenizer reads its pictures into the world's maps, and the decoder redraws them. The video shows the recorded
    pictures on the left.

    For example:
        worldgym render --dataset worldgym/tabletop-v0 \
            --episode 3 --out three.mp4
    """

    world: TabletopByDefault = "tabletop"
    """A bundled world, a checkpoint folder, or user/name on the hub."""
    dataset: str = "worldgym/tabletop-v0"
    """Minari id of the episodes: `worldgym record` writes real ones, `worldgym play` dreamed ones."""
    episode: int = 0
    decoder: str = "diffusion"
    """"diffusion" for the one in the world's folder, or the folder of another."""
    out: Path = Path("runs/render.mp4")
    """The video; its suffix says of what kind."""
    seed: int = 0
    """Of the noise that pictures begin as."""
    device: str = "auto"
    """"auto" takes a GPU where there is one."""


def render(config: Render) -> None:
    from ..data import load_episodes
    from ..decoders import load_decoder
    from ..decoders.render import rerender
    from ..evaluate import check_recording
    from ..evaluate.video import check_video, enlarged, side_by_side, write_video
    from ..world import WorldModel

    check_video(config.out)
    world, data = WorldModel.load(config.world, config.device), load_episodes(config.dataset)
    check_recording(world.config, config.dataset, data)
    episodes = len(data.starts) - 1
    if not 0 <= config.episode < episodes:
        raise ValueError(f"episode is {config.episode}; {config.dataset} has {episodes}, counted from 0")
    decoder = load_decoder(config.world, config.decoder, world)
    frames = np.array(data.frames[data.starts[config.episode] : data.starts[config.episode + 1]])
    drawn = rerender(world, decoder, frames, config.seed)
    write_video(config.out, enlarged(side_by_side([frames, drawn], gap=2), 4), frames_per_second=10)
    print(f"wrote {config.out}: recorded, and by the diffusion decoder")
