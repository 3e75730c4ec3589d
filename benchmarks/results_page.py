"""Print docs/results.md, made of benchmarks/results alone; `--write` writes it. What was not run says how to run it.

Each section is its benchmark's own; here is their order.
"""

import sys

import ablations
import adapters
import cluster
import compiled
import corruption
import decoders
import drift
import environments
import freed_memory
import fuzz
import goals
import guided
import gymnasium_worlds
import imagined
import improving
import kills
import latent_matching
import learning
import lerobot_videos
import motion
import mutations
import pan_backbone
import pan_suite
import past
import perception
import pretrained
import pretrained_words
import ranking
import ray_recording
import scaling
import serving
import shards
import streaming
import swin_drift
import swm_solvers
import tabletop
import token_cache
import transfer
import two_steps
import unknown_words
import weak_scaling
import wordings
import zero_shot
from section import ROOT

PAGE = ROOT / "docs" / "results.md"
HEAD = """# Results

Written by `benchmarks/results_page.py --write` from the files in `benchmarks/results`, each of which also has the
command, commit, seed and machine that made it. Intervals are 95%. Position errors are medians in block widths; an
object that the dream lost counts as infinitely far off, and "lost" says that this is so for half of them.
"""
SECTIONS = (
    tabletop.DREAM,
    perception.SECTION,
    imagined.SECTION,
    improving.SECTION,
    tabletop.PLANNING,
    learning.SECTION,
    guided.TABLETOP,
    ranking.SECTION,
    transfer.OTHER_TABLES,
    swm_solvers.SECTION,
    gymnasium_worlds.REACHER,
    gymnasium_worlds.LEARNING_IN_THE_REACHER,
    gymnasium_worlds.HOPPER,
    guided.HOPPER,
    gymnasium_worlds.LEARNING_IN_THE_HOPPER,
    adapters.SECTION,
    environments.SECTION,
    ablations.SECTION,
    scaling.SECTION,
    motion.SECTION,
    wordings.SECTION,
    unknown_words.SECTION,
    two_steps.SECTION,
    goals.REACHER,
    goals.TABLETOP,
    zero_shot.SECTION,
    drift.SECTION,
    past.SECTION,
    corruption.SECTION,
    pan_suite.SECTION,
    decoders.SECTION,
    swin_drift.SECTION,
    latent_matching.SECTION,
    pan_backbone.SECTION,
    pretrained.SECTION,
    pretrained_words.SECTION,
    cluster.SECTION,
    weak_scaling.SECTION,
    compiled.SECTION,
    freed_memory.SECTION,
    serving.SECTION,
    fuzz.SECTION,
    kills.SECTION,
    ray_recording.SECTION,
    streaming.SECTION,
    shards.SECTION,
    lerobot_videos.SECTION,
    token_cache.SECTION,
    mutations.SECTION,
)


def page() -> str:
    """The page as markdown."""
    return "\n".join([HEAD, *(section.markdown() for section in SECTIONS)])


def main() -> None:
    if "--write" in sys.argv:
        PAGE.write_text(page(), encoding="utf-8")
    else:
        print(page())


if __name__ == "__main__":
    main()
