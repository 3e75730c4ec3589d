"""docs/results.md is what benchmarks/results_page.py makes of the results files."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def results_page(load_benchmark):
    return load_benchmark("results_page")


def test_the_page_is_that_of_the_results_files(results_page):
    assert (ROOT / "docs" / "results.md").read_text(encoding="utf-8") == results_page.page()


def test_its_pictures_are_there(results_page):
    for line in results_page.page().splitlines():
        if line.startswith("!["):
            assert (ROOT / "docs" / line.split("](")[1].rstrip(")")).exists()


def test_what_was_not_run_says_how_to_run_it(load_benchmark):
    section = load_benchmark("section").Section("Why?", ("nowhere",), "make it", lambda results: ["never"])
    assert section.markdown() == "## Why?\n\nNot measured yet: `make it`.\n"


def test_a_lost_object_and_one_that_never_moved_are_told_apart(load_benchmark):
    figures = {"moved": [0, 3, 3], "moved_error": [None, None, 0.5]}
    moved_error = load_benchmark("section").moved_error
    assert [moved_error(figures, figures, index) for index in range(3)] == ["-", "lost", "0.50"]


def test_of_one_seed_the_interval_and_of_more_the_range(load_benchmark):
    of_seeds = load_benchmark("ablations").of_seeds
    one, other = ({"error": [value], "error_interval": [[0.5, None]]} for value in (1.0, 2.0))
    assert of_seeds([one], "error", 0, 1) == "1.0 (0.5 to lost)"
    assert of_seeds([one, other], "error", 0, 1) == "1.5 (1.0 to 2.0)"
    assert of_seeds([{"error": [None]}], "error", 0, 1) == "lost"


def test_pans_evaluation_says_whether_planning_was_measured(load_benchmark):
    one = {"value": 0.5, "interval": [0.25, 0.75], "cases": 8, "by_round": [1.0, 0.25]}
    names = ("agent", "environment", "environment_where_pushed", "smoothness", "consistency", "step_wise")
    rows = {name: dict.fromkeys(names, one) for name in ("truth", "dream", "repeat")}
    rows["dream"]["environment_where_pushed"] = {"value": None, "interval": None, "cases": 0}
    m = {"episodes": 8, "seeds": [3, 10], "rounds": 2, "frames_per_round": 16, "candidates": 4, "rows": rows}
    way = {**one, "by_task": {"gather": 0.5}, "seconds_per_decision": 1.5}
    ways = dict.fromkeys(("mujoco", "dream", "nothing"), way)
    planned = {"episodes_of_each_task": 8, "sentences": 6, "ways": ways}
    made = {"command": "worldgym", "commit": "0", "hardware": {"cpu": "x", "cores": 2, "threads": 1}}

    def page(planning):
        return "\n".join(load_benchmark("pan_suite").section(made | {"metrics": m | {"planning": planning}}))

    with_planning, without = page(planned), page("left out: --plan-episodes is 0")
    assert "| search in the dream | 50% of 8 (25% to 75%) | 1.50 |" in with_planning
    assert "Structured planning left out: --plan-episodes is 0." in without and "search" not in without
    assert "round by round: 100%, 25%." in without and "no case" in without and "0.50 (0.25 to 0.75)" in without
