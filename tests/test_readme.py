"""The README keeps its word: its code runs, and its figures are those of the results files."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_its_code_runs():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2
    names: dict = {}
    for block in blocks:
        exec(block, names)
    assert names["frame"].shape == (64, 64, 3)
    assert names["picture"].shape == (1, 64, 64, 3)
    assert names["returns"].shape == (1, 8)


def test_its_figures_are_those_of_the_results_files(load_benchmark):
    assert load_benchmark("table").tables() in (ROOT / "README.md").read_text(encoding="utf-8")
