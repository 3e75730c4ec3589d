"""`worldgym learn`: an agent in the dream or on true physics, judged on the twin."""

from typing import Any

from ..agents.settings import Learning


def learn(config: Learning) -> dict[str, Any]:
    from ..agents.learning import learn as train_and_judge
    from ..envs_real.twins import twin_of
    from ..results import current_commit, write_results

    commit = current_commit()
    metrics = train_and_judge(config, twin_of)
    low, high = metrics["success_interval"]
    print(
        f"{config.agent}, {metrics['steps']} steps in {config.where}, {metrics['real_steps']} of them real: success on "
        f"the twin {metrics['success_rate']:.0%} of {config.episodes} (95% interval {low:.0%} to {high:.0%}), "
        f"mean return {metrics['mean_return']:.2f}"
    )
    print(f"agent, log, figures and video in {config.out}")
    for path in filter(None, (config.out / "run.json", config.json)):
        write_results(path, config.seed, metrics, commit)
    return metrics
