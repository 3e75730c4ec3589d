"""`worldgym plan`: a planner in the dream or on true physics, judged by what it achieves on the twin."""

from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..planners import PLANNERS
from ..planners.settings import Planning

if TYPE_CHECKING:
    from ..evaluate.rollout import Episode
    from ..planners.guide import Guide
    from ..world import WorldModel


def plan(config: Planning) -> dict[str, Any]:
    from ..envs_real.twins import twin_of
    from ..evaluate.video import check_video
    from ..planners.planning import plan_and_act
    from ..results import current_commit
    from ..world import WorldModel

    commit = current_commit()
    if config.video:
        check_video(config.video)
    world = WorldModel.load(config.world, config.device)
    if config.goal is not None:
        from .reaching import reach

        metrics, played = reach(config, world)
        _write(config, metrics, played, commit)
        return metrics
    sentences = PLANNERS[config.planner].over == "sentences"
    twin = twin_of(world.config, action_mode="text" if sentences else "vector")
    metrics, played = plan_and_act(config, world, twin, _guide(config, world))
    twin.close()
    low, high = metrics["success_interval"]
    print(
        f"{config.planner} on {metrics['on']}: success on the twin {sum(e.success for e in played)} of {len(played)} "
        f"({metrics['success_rate']:.0%}, 95% interval {low:.0%} to {high:.0%}), "
        f"mean return {metrics['mean_return']:.2f} in {metrics['mean_steps']:.0f} steps"
    )
    _write(config, metrics, played, commit)
    return metrics


def _write(config: Planning, metrics: dict[str, Any], played: "list[Episode]", commit: str) -> None:
    """What the command line asks for besides a few lines."""
    from ..evaluate.video import enlarged, side_by_side, write_video
    from ..results import write_results

    if config.video:
        write_video(config.video, enlarged(side_by_side([episode.frames for episode in played[:6]])))
    if config.json:
        write_results(config.json, config.seed, metrics, commit)


def _guide(config: Planning, world: "WorldModel") -> "Guide | None":
    """The agent that `--guide` names.

    Raises:
        UserError: it is none, or of another world.
    """
    if config.guide is None:
        return None
    from ..agents.actor_critic import ActorCritic, check_recurrent

    check_recurrent(world)
    if not config.guide.is_file():
        raise UserError(
            f"--guide {config.guide} is no file; `worldgym learn --agent actor-critic` writes agent.safetensors"
        )
    try:
        return ActorCritic.load(config.guide, world)
    except ValueError as error:
        raise UserError(f"--guide: {error}") from None
