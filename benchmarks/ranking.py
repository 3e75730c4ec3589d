"""How dreams rank policies: benchmarks/ranking.sh."""

from section import RESULTS, Results, Section, estimate, made_by, markdown

from worldgym.agents.rank_report import policy_table

ASKED = {
    "rank_tabletop_reach": 'Tabletop, "reach the centre"',
    "rank_tabletop_push": 'Tabletop, "push the red block to the centre"',
    "rank_reacher": "Reacher",
    "rank_hopper": "Hopper",
}
TASKS = {name: called for name, called in ASKED.items() if (RESULTS / f"{name}.json").exists()}
"""Those that were run."""


def agreement(results: Results) -> tuple[str, str]:
    """Correlations of returns over policies, in cells."""
    m = results["metrics"]
    pearson, spearman = (
        estimate(m[f"return_{name}"], m[f"return_{name}_interval"], ".3f") for name in ("pearson", "spearman")
    )
    return pearson, spearman


def section(*tasks: Results) -> list[str]:
    rows = [
        [
            called, "its state" if m["imagined"] else "frames", str(len(m["policies"])), str(m["episodes"]),
            *agreement(results), f"{100 * m['success_bias']:+.0f}",
        ]
        for called, results in zip(TASKS.values(), tasks, strict=True)
        for m in [results["metrics"]]
    ]  # fmt: skip
    head = [
        "world", "the dream moves", "policies", "episodes each", "returns, Pearson", "returns, Spearman",
        "success in the dream, points over MuJoCo's",
    ]  # fmt: skip
    lines = [
        "Policies of every quality act in the dream and in MuJoCo from the same first frames: scripts with errors, CEM "
        "of several budgets, an agent in its making, and the same agent with some actions at random. Where the "
        "dream moves its state alone, policies act on that and no frame is drawn. Diverged: an object is further off "
        "than half a block, or lost. Intervals are over episodes. The states of Reacher and Hopper flatter the agents "
        "that learned in them, the Hopper's by more than twice what MuJoCo pays, and rank these among themselves "
        "little better than by chance.",
        "",
        *markdown(head, rows),
        "",
    ]
    for called, results in zip(TASKS.values(), tasks, strict=True):
        head, cells = policy_table(results["metrics"]["policies"])
        lines += [f"{called}:", "", *markdown(head, cells), "", made_by(results), ""]
    return [*lines, "The Tabletop, pushing:", "", "![Policies in both worlds](images/ranked_policies.png)"]


SECTION = Section("Does it rank policies?", tuple(TASKS), "benchmarks/ranking.sh", section)
