"""docs/results.md is what benchmarks/results_page.py makes of the results files."""

import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def results_page(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    return importlib.import_module("results_page")


def test_the_page_is_that_of_the_results_files(results_page):
    assert (ROOT / "docs" / "results.md").read_text() == results_page.page()


def test_its_pictures_are_there(results_page):
    for line in results_page.page().splitlines():
        if line.startswith("!["):
            assert (ROOT / "docs" / line.split("](")[1].rstrip(")")).exists()


def test_what_was_not_run_says_how_to_run_it(results_page, monkeypatch):
    section = results_page.SECTIONS[0]._replace(files=("nowhere",), command="make it")
    monkeypatch.setattr(results_page, "SECTIONS", (section,))
    assert "Not measured yet: `make it`." in results_page.page()


def test_a_lost_object_and_one_that_never_moved_are_told_apart(results_page):
    figures = {"moved_blocks": [0, 3, 3], "moved_block_error_blocks": [None, None, 0.5]}
    assert [results_page.moved_error(figures, figures, index) for index in range(3)] == ["-", "lost", "0.50"]
