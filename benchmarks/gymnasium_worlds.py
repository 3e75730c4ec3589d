"""The Reacher and the Hopper, whose twins are Gymnasium's: benchmarks/reacher.sh and benchmarks/hopper.sh."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from learning import learned, learning, share_of_the_way
from section import (
    Results,
    Section,
    estimate,
    load,
    made_by,
    markdown,
    one_digit,
    percent,
    three_digits,
    two_digits,
    with_interval,
)

from worldgym.metrics import bootstrap

SAC_STEPS = {"hopper": 10_000, "reacher": 30_000}
"""Of Stable-Baselines3's SAC in the dreams of Gymnasium's worlds, and in MuJoCo."""


def reacher(*results: Results) -> list[str]:
    return dream_and_plans("reacher", *results, last="near at the end", cell=lambda plan: percent(plan["success_rate"]))


def hopper(*results: Results) -> list[str]:
    last = "steps until it falls, of 50"
    return dream_and_plans("hopper", *results, last=last, cell=lambda plan: f"{plan['mean_steps']:.0f}")


def dream_and_plans(
    world: str, results: Results, *planned: Results, last: str, cell: Callable[[dict[str, Any]], str]
) -> list[str]:
    """How true the dreams are, and what is planned in them.

    Args:
        results: of the dream.
        planned: in the dream's state, on true physics and at random.
        last: head of a column of planning, whose cells `cell` makes of the metrics of a plan.
    """
    m = results["metrics"]
    steps = [step for step in (1, 2, 4, 8, 12, 16) if step <= len(m["psnr"])]
    lines = [
        f"{m['episodes']} held-out stretches, dreamed open loop from what motion can be told by.",
        "",
        f"![MuJoCo above, the dream below](images/{world}.gif)",
        "",
    ]
    rows = [
        [title, *(with_interval(m, name, step - 1, show) for step in steps)]
        for title, name, show in (
            ("PSNR, dB", "psnr", one_digit),
            ("... above repeating the last frame seen", "psnr_gain", one_digit),
            ("SSIM", "ssim", three_digits),
            ("reward, correlation with MuJoCo's", "reward_correlation", three_digits),
        )
    ]
    lines += [*markdown(["steps dreamed", *(str(step) for step in steps)], rows), ""]
    if ends := m.get("ends"):
        foreseen, missed, alarms = (
            estimate(ends[name]["rate"], ends[name]["interval"], ".0%")
            for name in ("foreseen", "missed", "false_alarms")
        )
        lines += [
            f"Ends: {ends['ended']} held-out episodes that end, dreamed from {ends['steps']} steps before. "
            f"{foreseen} are over in the dream within two steps of the true one, {missed} not "
            f"by then. Of {ends['went_on']} that go on, {alarms} are over in the dream.",
            "",
        ]
    lines += [made_by(results), ""]
    rows, plans = [], [one["metrics"] for one in planned]
    labels = ("the dream's state", "true physics", "nothing: random torques")
    for label, plan in zip(labels, plans, strict=True):
        interval = bootstrap(np.mean, np.array([episode["return"] for episode in plan["by_episode"]]))
        returned = estimate(plan["mean_return"], interval, ".2f")
        rows.append([label, returned, cell(plan), two_digits(plan["seconds_per_decision"])])
    head = ["CEM plans on", "return", last, "seconds a decision"]
    return [
        *lines, *markdown(head, rows), "",
        f"The same planner and budget, {plans[0]['episodes']} seeded episodes in MuJoCo: the state gets it "
        f"{percent(planning_share(world))} of the way from random torques to true physics.", "",
        made_by(planned[0]),
    ]  # fmt: skip


def planning_share(world: str) -> float:
    """`share_of_the_way` of planning in the state, from random actions to the same planner on true physics."""
    returns = (load(f"{world}_plan_{on}")["metrics"]["mean_return"] for on in ("dream", "mujoco", "random"))
    return share_of_the_way(*returns)


def learning_in_the_hopper(*_: Results) -> list[str]:
    return [
        *learning_alone("hopper"),
        "",
        "Those frames are of gaits and of what lets go of them: agents of the dream begin amid hops, those of MuJoCo "
        "where an episode does. With more steps they fall behind, and 10,000 were chosen after 30,000 had been seen; "
        "nor does anything count as success in hopping.",
    ]


def learning_alone(world: str, *_: Results) -> list[str]:
    """With how far it gets from random torques, whose return is not 0."""
    returns = sac_returns(world, SAC_STEPS[world])
    low, high = bootstrap(share_of_the_way, *returns.values())
    return [
        *learning(world),
        "",
        f"From the return of random torques, {returns['nothing'].mean():.2f}, agents that learned in the dream alone "
        f"get {percent(share_of_the_way(*returns.values()))} as far after {SAC_STEPS[world]:,} steps as those that "
        f"learned in MuJoCo ({percent(low)} to {percent(high)}, by drawing episodes anew). Their dreams are of twelve "
        "steps, from frames of the recording.",
    ]


def sac_returns(world: str, steps: int) -> dict[str, np.ndarray]:
    """What SAC returns in MuJoCo, by where it learned, and random torques ("nothing"): by episode, means over seeds."""
    runs = {where: learned(world, "sac", where, steps) for where in ("dream", "mujoco")}
    runs["nothing"] = [load(f"{world}_plan_random")["metrics"]]
    return {
        where: np.mean([[episode["return"] for episode in m["by_episode"]] for m in seeds], 0)
        for where, seeds in runs.items()
    }


def learned_alone(world: str) -> str:
    """A line on agents that learned in a dream alone, without its end."""
    returns = sac_returns(world, SAC_STEPS[world])
    dream, truth, nothing = (returns[where].mean() for where in ("dream", "mujoco", "nothing"))
    return (
        f"- SAC that learned in the {world.capitalize()}'s dream alone returns {dream:.1f} in MuJoCo after "
        f"{SAC_STEPS[world]:,} steps, none of them real, {truth:.1f} after as many in MuJoCo, random torques "
        f"{nothing:.1f}: {percent(share_of_the_way(dream, truth, nothing))} of the way (`benchmarks/{world}.sh`)"
    )


def imagined_alone() -> str:
    """A line on actor-critics of the Reacher's dream, next to SAC in MuJoCo."""
    seeds = learned("reacher", "actor-critic", "dream", 3000)
    returns, truth = [m["mean_return"] for m in seeds], sac_returns("reacher", SAC_STEPS["reacher"])["mujoco"].mean()
    return (
        f"- An actor-critic that imagined in the Reacher's state, without a real step, returns {np.mean(returns):.1f} "
        f"in MuJoCo and reaches the target in {percent(float(np.mean([m['success_rate'] for m in seeds])))} of its "
        f"episodes ({len(seeds)} seed{'s' if len(seeds) > 1 else ''}, `benchmarks/reacher.sh`); SAC that learned in "
        f"MuJoCo for {SAC_STEPS['reacher']:,} steps returns {truth:.1f}"
    )


def of_dream_and_plans(world: str) -> tuple[str, ...]:
    return f"{world}_dream", *(f"{world}_plan_{on}" for on in ("dream", "mujoco", "random"))


def of_learning(world: str) -> tuple[str, ...]:
    runs = (f"{world}_learn_sac_{where}_seed0_{SAC_STEPS[world]}" for where in ("dream", "mujoco"))
    return *runs, f"{world}_plan_random"


REACHER = Section(
    "The Reacher, which one frame does not tell",
    of_dream_and_plans("reacher"),
    "benchmarks/reacher.sh",
    reacher,
)
LEARNING_IN_THE_REACHER = Section(
    "Can an agent learn in the Reacher's dream?",
    of_learning("reacher"),
    "benchmarks/reacher.sh",
    partial(learning_alone, "reacher"),
)
HOPPER = Section("The Hopper, which falls", of_dream_and_plans("hopper"), "benchmarks/hopper.sh", hopper)
LEARNING_IN_THE_HOPPER = Section(
    "Can an agent learn in the Hopper's dream?", of_learning("hopper"), "benchmarks/hopper.sh", learning_in_the_hopper
)
