"""benchmarks/corruption.py: long dreams of several worlds, here two of the tiny one, which dreams noise."""

import json

import pytest


@pytest.fixture
def corruption(load_benchmark):
    return load_benchmark("corruption")


def test_worlds_are_compared_dream_by_dream(corruption, write_checkpoint, tmp_path):
    slips = write_checkpoint()
    (slips / "run.json").write_text(json.dumps({"metrics": {"training": {"steps": 7, "batch": 8}}}), encoding="utf-8")
    (tmp_path / "no_slips").mkdir()
    (tmp_path / "no_slips" / "world").symlink_to(slips)
    json_path, picture = tmp_path / "found.json", tmp_path / "found.png"
    worlds = (slips, tmp_path / "no_slips" / "world")
    corruption.main(corruption.Corruption(worlds, dreams=3, at=(2, 5), json=json_path, picture=picture))
    metrics = json.loads(json_path.read_text(encoding="utf-8"))["metrics"]
    assert metrics["steps"] == 7 and list(metrics["worlds"]) == ["tabletop", tmp_path.name, "no_slips"]
    assert metrics["worlds"]["no_slips"]["psnr_more"] == [0.0, 0.0]  # of the same world
    assert metrics["worlds"]["no_slips"]["objects_kept_more_interval"] == [[0.0, 0.0]] * 2
    assert picture.exists()
