"""The section of docs/results.md on `worldgym improve`: planners act, and the world learns from what they did.

benchmarks/states.sh tabletop
"""

from section import Results, Section, estimate, made_by, markdown, three_digits

WORLDS = ("tabletop",)


def section(*found: Results) -> list[str]:
    lines = [
        "Each round plays episodes of CEM in the recurrent state on the twin, half of them with bursts of random "
        "actions, and trains the state on. A row's figures are of episodes that the world had not seen, before it "
        "learned from them: returns of those without bursts, and rewards eight steps ahead of all.",
        "",
    ]
    for name, results in zip(WORLDS, found, strict=True):
        rows = [
            [
                str(one["round"]), f"{one['real_steps']:,}",
                estimate(one["mean_return"], one["return_interval"], ".2f"), three_digits(one["reward_correlation_8"]),
            ]
            for one in results["metrics"]["rounds"]
        ]  # fmt: skip
        head = [f"{name.capitalize()}, round", "real steps so far", "return on the twin", "rewards' correlation"]
        lines += [*markdown(head, rows), "", made_by(results), ""]
    return lines[:-1]


SECTION = Section(
    "Does a world learn from what planners do in it?",
    tuple(f"{world}_improve" for world in WORLDS),
    "benchmarks/states.sh WORLD",
    section,
)
