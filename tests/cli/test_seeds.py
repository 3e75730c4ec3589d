"""Commands with several seeds: each run is the one with that seed alone, and the figures are over all of them."""

import json
import sys
from pathlib import Path

import pytest

from worldgym.agents.settings import Learning
from worldgym.cli.evaluate import Evaluate
from worldgym.cli.plan import plan
from worldgym.cli.seeds import over_seeds, summary, with_seed
from worldgym.planners.settings import Planning

from ..conftest import on_the_tabletop
from .briefly import run


def untimed(metrics: dict) -> dict:
    return {name: value for name, value in metrics.items() if name != "seconds_per_decision"}


def test_a_run_is_the_one_with_its_seed_alone(write_checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    random = ["plan", write_checkpoint(on_the_tabletop()), "--planner", "random", "--episodes", "2"]
    run(*random, "--seeds", "3", "5", "--json", "both.json", "--video", "seen.gif")
    said = capsys.readouterr().out
    run(*random, "--seed", "5", "--json", "five.json")
    both, five = (json.loads(Path(name).read_text(encoding="utf-8"))["metrics"] for name in ("both.json", "five.json"))
    assert both["seeds"] == [3, 5] and list(both["by_seed"]) == ["3", "5"]
    assert untimed(both["by_seed"]["5"]) == untimed(five) != untimed(both["by_seed"]["3"])
    returns = [both["by_seed"][seed]["mean_return"] for seed in ("3", "5")]
    mean = both["over_seeds"]["mean_return"]["mean"]
    assert mean == pytest.approx(sum(returns) / 2)
    assert f"mean_return {mean:.3g} (95% interval" in said
    assert sorted(path.name for path in tmp_path.glob("*.gif")) == ["seen_seed_3.gif", "seen_seed_5.gif"]


def test_runs_write_where_no_other_does():
    assert with_seed(Learning("w", out=Path("runs/a"), json=Path("j")), 2) == Learning(
        "w", out=Path("runs/a/seed_2"), seed=2
    )
    assert with_seed(Evaluate("runs/w"), 1).report == Path("runs/evaluate/w/seed_1")
    assert with_seed(Planning("w"), 1) == Planning("w", seed=1)


def test_figures_of_all_runs_are_summed_up():
    def metrics(good: float, steps: list[float]) -> dict:
        return {
            "a": {"rate": good, "rate_interval": [0.0, 1.0]},
            "psnr": steps,
            "episodes": 4,
            "name": "w",
            "odd": None,
        }

    found = summary([metrics(1.0, [10.0, 20.0]), metrics(2.0, [12.0, 20.0]), metrics(3.0, [14.0, 20.0])])
    assert set(found) == {"a.rate", "psnr"}
    assert found["a.rate"]["mean"] == 2.0
    assert found["a.rate"]["interval"] == pytest.approx([2 - 2.4841, 2 + 2.4841], abs=1e-3)  # SciPy's t.interval
    assert found["psnr"]["mean"] == [12.0, 20.0]
    assert found["psnr"]["interval"][1] == [20.0, 20.0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--ray", "local"], "--ray is of several runs"),
        (["--seeds", "1", "2", "--gpus", "1"], "--gpus of runs on --ray"),
        (["--seeds", "1", "1"], "seeds are 1 1"),
        (["--seeds", "1", "--horizon", "7"], "horizon 7 must be a multiple"),
    ],
)
def test_mistakes_are_told(capsys, arguments, says):
    with pytest.raises(SystemExit) as stop:
        run("plan", "tabletop", *arguments)
    assert stop.value.code == 2
    assert says in capsys.readouterr().err


def test_processes_of_torchrun_have_no_seeds_of_their_own(monkeypatch):
    """All of them would write the same files."""
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(ValueError, match="not in processes of torchrun"):
        over_seeds(plan, Planning("tabletop"), [0, 1])


def test_without_ray_it_is_told_what_to_install(monkeypatch, checkpoint):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match="--ray needs Ray"):
        over_seeds(plan, Planning(str(checkpoint)), [0], ray="local")
