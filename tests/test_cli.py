"""The command line: what a user types, and what a user's mistake looks like."""

import json
import subprocess
import sys

import pytest

from worldgym import cli
from worldgym.cli.main import COMMANDS


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["worldgym", *arguments])
    cli.main()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["evaluate", "atlantis"], "unknown world 'atlantis'"),
        (["plan", "tabletop", "--instruction", "fly *"], "matches 'fly *'; it has 33"),
        (["export", "nowhere", "somewhere"], "unknown world 'nowhere'"),
        (["train", "dynamics", "--tokenizer", "nowhere"], "no checkpoint"),
        (["evaluate", "tabletop", "--episodes", "0"], "episodes"),
        (["plan", "tabletop", "--episodes", "0"], "must be positive"),
        (["plan", "tabletop", "--video", "plan.avi"], "must end in .gif or .mp4"),
        (["train", "tokenizer", "--dataset", "nobody/none-v0"], "`worldgym record --dataset nobody/none-v0` makes"),
        (["export", "tabletop", __file__], "no checkpoint that an export could replace"),
        (["bench", "--json", __file__ + "/bench.json"], "cannot write figures"),
        (["learn", "atlantis", "--json", "."], "it is a folder"),  # told before anything else is
        (["demo", "--out", __file__ + "/demo"], "Not a directory"),
    ],
)
def test_a_mistake_is_one_line(monkeypatch, capsys, arguments, says):
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, *arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert says in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("command", "wants"),
    [
        ("evaluate", "WORLD"),
        ("plan", "WORLD"),
        ("learn", "WORLD"),
        ("transfer", "WORLD"),
        ("play", "[WORLD]"),
        ("export", "WORLD TARGET [--decoder {None}|PATH]"),
        ("push", "FOLDER USER/NAME"),
    ],
)
def test_help_says_what_a_command_wants(monkeypatch, capsys, command, wants):
    with pytest.raises(SystemExit):
        run(monkeypatch, command, "--help")
    assert capsys.readouterr().out.splitlines()[0].endswith(f" {wants}")


HEAVY = "torch", "mujoco", "minari", "matplotlib", "stable_baselines3", "transformers"
HELP = """
import sys
from worldgym.cli import main
sys.argv = ["worldgym", *sys.argv[1:], "--help"]
try:
    main()
finally:
    print("imported:", *sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize("command", ["", "train dynamics", *COMMANDS])
def test_help_imports_nothing_heavy(command):
    """Which would take seconds."""
    asked = subprocess.run([sys.executable, "-c", HELP, *command.split()], capture_output=True, text=True)
    assert asked.returncode == 0, asked.stderr
    imported = asked.stderr.partition("imported:")[2].split()
    assert "tyro" in imported and not set(HEAVY) & set(imported)


@pytest.mark.parametrize(
    "command",
    ["record", "train", "train tokenizer", "train dynamics", "evaluate", "plan", "learn", "transfer", "demo", "bench",
     "render", "export", "play", "list", "push"],
)  # fmt: skip
def test_help_teaches_by_example(monkeypatch, capsys, command):
    with pytest.raises(SystemExit):
        run(monkeypatch, *command.split(), "--help")
    assert f"For example:\n    worldgym {command}" in capsys.readouterr().out


def test_evaluate_writes_figures_with_their_provenance(monkeypatch, tmp_path):
    report, file = tmp_path / "report", tmp_path / "figures.json"
    run(
        monkeypatch, "evaluate", "tabletop", "--episodes", "4", "--steps", "3", "--sentences", "1", "--seed", "5",
        "--json", str(file), "--report", str(report),
    )  # fmt: skip
    written = json.loads(file.read_text())
    assert set(written) == {"command", "commit", "seed", "hardware", "metrics"}
    assert written["seed"] == 5
    assert "evaluate tabletop" in written["command"]
    assert len(written["metrics"]["psnr"]) == 3
    assert {path.name for path in report.iterdir()} == {
        "index.html", "horizon.png", "calibration.png", "dream.gif", "run.json",
    }  # fmt: skip
    assert json.loads((report / "run.json").read_text()) == written


def test_plan_acts_in_mujoco(monkeypatch, tmp_path):
    file, video = tmp_path / "plan.json", tmp_path / "plan.gif"
    run(
        monkeypatch, "plan", "tabletop", "--on", "dream", "--instruction", "reach the centre", "--episodes", "1",
        "--samples", "8", "--iterations", "1", "--json", str(file), "--video", str(video),
    )  # fmt: skip
    metrics = json.loads(file.read_text())["metrics"]
    assert metrics["instructions"] == ["reach the centre"]
    assert len(metrics["by_episode"]) == 1
    assert video.stat().st_size > 0
