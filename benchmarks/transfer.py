"""What other tables cost: benchmarks/transfer.sh."""

from typing import Any

from section import BY_A_DRAFT, Results, Section, made_by, markdown

from worldgym.agents import transfer_report

REACHING, PUSHING = "tabletop_transfer_reach_the_centre", "tabletop_transfer_push_to_the_centre"


def other_tables(*tasks: Results) -> list[str]:
    lines = [
        "Who plans in the dream and who learned in it act in MuJoCo on tables that differ from the dream's own in one "
        "factor. Trained: inside the factor's training range, from which the agent's dreams began; the bundled world "
        "itself was trained on the nominal table alone. The cost is in points of success, from the nominal table on.",
        "",
    ]
    for results in tasks:
        m = results["metrics"]
        lines += [
            f"{' or '.join(map(repr, m['instructions']))}. Points lost: {points_lost(m['zero_shot'])}. "
            + (BY_A_DRAFT if m["instructions"] == ["reach the centre"] else ""),
            "",
            *markdown(transfer_report.GRID_HEAD, [transfer_report.grid_row(one) for one in m["zero_shot"]]),
            "",
            made_by(results),
            "",
        ]
    return lines[:-1]


def of_each_policy(grid: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The tables of a grid but the nominal one, by the policy that acted on them."""
    found: dict[str, list[dict[str, Any]]] = {}
    for one in grid:
        if one["factor"] != "nominal":
            found.setdefault(one["policy"], []).append(one)
    return found


def points_lost(grid: list[dict[str, Any]]) -> str:
    """By each policy, in words."""
    return "; ".join(elsewhere(policy, tables) for policy, tables in of_each_policy(grid).items())


def elsewhere(policy: str, tables: list[dict[str, Any]]) -> str:
    """What other tables cost."""
    inside = [one for one in tables if one["trained"]]
    dearest = max(inside, key=lambda one: one["cost"])
    unseen = max((one for one in tables if not one["trained"]), key=lambda one: one["cost"])
    if max(dearest["cost"], unseen["cost"]) <= 0:
        return f"{policy} none on any of the {len(tables)}"
    lost = "none" if dearest["cost"] <= 0 else f"at most {dearest['cost']:.0f}"
    of = "" if dearest["cost"] <= 0 else f" ({dearest['factor']} {dearest['value']})"
    return (
        f"{policy} {lost} on the {len(inside)} inside the training ranges{of}, {unseen['cost']:.0f} on the worst of "
        f"those held out ({unseen['factor']} {unseen['value']})"
    )


OTHER_TABLES = Section(
    "Do agents and plans work on other tables?", (PUSHING, REACHING), "benchmarks/transfer.sh", other_tables
)
