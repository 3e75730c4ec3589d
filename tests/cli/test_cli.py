"""The command line: what a user types, and what a user's mistake looks like."""

import json
import subprocess
import sys

import pytest

from worldgym import __version__, cli
from worldgym.cli.list import List
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
        (["plan", "tabletop", "--horizon", "7"], "horizon 7 must be a multiple of action_repeat 3"),
        (["plan", "tabletop", "--seed", "-1"], "seed is -1; it must be 0 or more"),
        (["train", "tokenizer", "--seed", "-1"], "seed is -1; it must be 0 or more"),
        (["play", "--port", "99999"], "port is 99999; it must be between 1 and 65535"),
        (["plan", "tabletop", "--planner", "oracle"], "unknown planner 'oracle'; there are cem, icem"),
        (["plan", "tabletop", "--planner", "gradient", "--on", "mujoco"], "plans on dream only"),
        (["learn", "tabletop", "--agent", "dqn"], "unknown agent 'dqn'; there are ppo, sac, mbpo"),
        (["transfer", "tabletop", "--agents", "nowhere"], "nowhere holds no agent"),
        (["rank", "tabletop", "--agents", "nowhere"], "nowhere holds no agent"),
        (["rank", "tabletop", "--episodes", "1"], "episodes is 1; a mean with an interval takes two or more"),
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
        ("rank", "WORLD"),
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


def a_library_is_called_wrongly():
    int("four")


def an_argument_is_missing():
    isinstance(1)


def a_package_is_missing():
    import atlantis  # noqa: F401


def a_shape_is_wrong():
    raise RuntimeError("shape")


@pytest.mark.parametrize(
    "happens", [a_library_is_called_wrongly, an_argument_is_missing, a_package_is_missing, a_shape_is_wrong]
)
def test_a_bug_of_ours_keeps_its_traceback(monkeypatch, happens):
    monkeypatch.setitem(happens.__globals__, "__name__", "worldgym.somewhere")
    monkeypatch.setitem(COMMANDS, "list", (List, lambda config: happens()))
    with pytest.raises(Exception) as stop:
        run(monkeypatch, "list")
    assert f"worldgym {__version__}: this is a bug in WorldGym" in stop.value.__notes__[0]


def test_a_mistake_shows_its_traceback_if_asked(monkeypatch):
    monkeypatch.setenv("WORLDGYM_TRACEBACK", "1")
    with pytest.raises(ValueError, match="unknown world") as stop:
        run(monkeypatch, "export", "nowhere", "somewhere")
    assert not hasattr(stop.value, "__notes__")


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


@pytest.mark.parametrize("command", ["", *COMMANDS, "train dynamics", "train decoder", "train pan joint"])
def test_help_imports_nothing_heavy(command):
    """Which would take seconds."""
    asked = subprocess.run([sys.executable, "-c", HELP, *command.split()], capture_output=True, text=True)
    assert asked.returncode == 0, asked.stderr
    imported = asked.stderr.partition("imported:")[2].split()
    assert "tyro" in imported and not set(HEAVY) & set(imported)


@pytest.mark.parametrize(
    "command",
    ["record", "train", "train tokenizer", "train dynamics", "train decoder", "evaluate", "plan", "learn", "rank",
     "transfer", "demo", "bench", "render", "export", "play", "list", "push"],
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
    written = json.loads(file.read_text(encoding="utf-8"))
    assert set(written) == {"command", "commit", "seed", "hardware", "metrics"}
    assert written["seed"] == 5
    assert "evaluate tabletop" in written["command"]
    assert len(written["metrics"]["psnr"]) == 3
    assert {path.name for path in report.iterdir()} == {
        "index.html", "horizon.png", "calibration.png", "dream.gif", "run.json",
    }  # fmt: skip
    assert json.loads((report / "run.json").read_text(encoding="utf-8")) == written


def test_two_processes_evaluate_as_one_does(monkeypatch, tmp_path):
    """They share the episodes, and one of them writes."""
    asked = ["evaluate", "tabletop", "--episodes", "5", "--steps", "3", "--sentences", "1", "--report", str(tmp_path)]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command = [*torchrun, "--local-addr", "localhost", "-m", "worldgym", *asked, "--json", str(tmp_path / "two.json")]
    two = subprocess.run(command, capture_output=True, text=True)
    assert two.returncode == 0, two.stderr
    assert two.stdout.count("report: ") == 1
    run(monkeypatch, *asked, "--json", str(tmp_path / "one.json"))
    one, two = (
        json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))["metrics"] for name in ("one", "two")
    )
    for figure, tolerance in {"psnr": 0.05, "controlled_error": 0.02, "reward_correlation": 0.02}.items():
        assert two[figure] == pytest.approx(one[figure], abs=tolerance), figure
    assert one["sentences"] == two["sentences"]


def test_plan_acts_in_mujoco(monkeypatch, tmp_path):
    file, video = tmp_path / "plan.json", tmp_path / "plan.gif"
    run(
        monkeypatch, "plan", "tabletop", "--on", "dream", "--instruction", "reach the centre", "--episodes", "1",
        "--samples", "8", "--iterations", "1", "--json", str(file), "--video", str(video),
    )  # fmt: skip
    metrics = json.loads(file.read_text(encoding="utf-8"))["metrics"]
    assert metrics["instructions"] == ["reach the centre"]
    assert len(metrics["by_episode"]) == 1
    assert video.stat().st_size > 0
