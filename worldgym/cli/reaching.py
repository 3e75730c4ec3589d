"""`worldgym plan --goal`: a planner that is asked for pictures, next to random actions on the same pairs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..envs_real.goals import GoalTwin, draw_pairs, rules_of, write_manifest
from ..envs_real.twins import twin_of
from ..errors import UserError
from ..evaluate.rollout import Episode
from ..planners.reaching import Wanted, plan_and_reach
from ..planners.settings import Planning
from ..world import WorldModel


def reach(config: Planning, world: WorldModel) -> tuple[dict[str, Any], list[Episode]]:
    """Plan for what `config.goal` names; prints and returns the figures, and the planner's episodes."""
    if config.goal != "recorded":
        return _reach_picture(config, world)
    rules, twin = rules_of(world.config), twin_of(world.config)
    pairs = draw_pairs(world.config, config.episodes, config.seed)
    if config.pairs:
        write_manifest(config.pairs, world.config, config.seed, pairs)
    wanted = [Wanted(pair.picture, {"start": pair.start, "goal": pair.goal}) for pair in pairs]
    goal_twin = GoalTwin(twin, rules)
    metrics, played = plan_and_reach(config, world, goal_twin, wanted)
    floor = metrics
    if config.planner != "random":
        floor, _ = plan_and_reach(replace(config, planner="random", on="dream", guide=None), world, goal_twin, wanted)
    twin.close()
    for label, found in ((f"{config.planner} on {metrics['on']}", metrics), ("random actions", floor)):
        for name, rule in rules.items():
            low, high = found["reached"][name]["interval"]
            print(
                f"{label}: {found['reached'][name]['rate']:.0%} of {len(pairs)} goals reached, {name} "
                f"(95% interval {low:.0%} to {high:.0%}): {rule.about}"
            )
    return metrics | {"floor": floor}, played


def _reach_picture(config: Planning, world: WorldModel) -> tuple[dict[str, Any], list[Episode]]:
    assert config.goal is not None
    picture, twin = read_picture(Path(config.goal)), twin_of(world.config)
    metrics, played = plan_and_reach(config, world, twin, [Wanted(picture)] * config.episodes)
    twin.close()
    print(
        f"{config.planner} on {metrics['on']}: the twin's last frames have {metrics['psnr_at_the_end']:.1f} dB to the "
        f"goal, its first ones {metrics['psnr_at_first']:.1f} dB, mean of {len(played)} episodes"
    )
    return metrics, played


def read_picture(path: Path) -> np.ndarray:
    """uint8 [h, w, 3]; a UserError if there is no such picture."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except OSError as error:
        raise UserError(f'--goal {path} is no picture: {error}; it takes a file or "recorded"') from None
