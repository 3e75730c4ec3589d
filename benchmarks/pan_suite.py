"""What the evaluation of PAN says: benchmarks/pan_suite.sh."""

from section import Results, Section, made_by, markdown

from worldgym.evaluate import pan_report


def section(results: Results) -> list[str]:
    m = results["metrics"]
    lines = [
        pan_report.about(m) + " MuJoCo is the judge; what is counted, and what the paper counts, is in "
        "[the decisions](decisions.md#the-evaluation-of-pan).",
        "",
        *markdown(["", *pan_report.ROWS.values()], pan_report.figure_table(m)),
        "",
        f"Consistency of the dream, round by round: {pan_report.round_by_round(m)}.",
        "",
    ]
    if isinstance(m["planning"], str):
        return [*lines, f"Structured planning {m['planning']}.", "", made_by(results)]
    planning = m["planning"]
    return [
        *lines,
        f"Structured planning: {planning['episodes_of_each_task']} episodes of each of "
        f"{len(next(iter(planning['ways'].values()))['by_task'])} tasks, at most {planning['sentences']} sentences for "
        "each instruction, carried out in MuJoCo.",
        "",
        *markdown(["sentences chosen by", "success", "seconds a decision"], pan_report.planning_table(m)),
        "",
        made_by(results),
    ]


SECTION = Section("What does the evaluation of PAN say?", ("pan_suite",), "benchmarks/pan_suite.sh", section)
