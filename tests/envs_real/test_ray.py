"""Recorders and seeds on a Ray cluster: what they give is what is given without it, whichever of them die."""

import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from worldgym.cli.seeds import over_seeds
from worldgym.envs_real.gym_record import record
from worldgym.envs_real.on_ray import on_ray
from worldgym.envs_real.settings import RecordConfig
from worldgym.envs_real.workers import WorkerError
from worldgym.errors import UserError
from worldgym.planners.settings import Planning

from ..conftest import on_the_tabletop

TASKS = '''
import os, signal, time
from pathlib import Path

import gymnasium as gym
import numpy as np

from worldgym.envs_real.on_ray import RETRIES
from worldgym.errors import UserError

HERE = Path(__file__).parent


def dies(index, times):
    """Kill this worker unless that was done so often."""
    for time in range(times):
        try:
            (HERE / f"{index}.{time}.died").open("x").close()
        except FileExistsError:
            continue
        os.kill(os.getpid(), signal.SIGKILL)


def dies_once(index):
    if index == 2:
        dies(index, 1)
    return index * index


def always_dies(index):
    dies(index, RETRIES + 1)


def raises(index):
    raise UserError("the robot has no arms")


def mistaken(index):
    return 1 / index


def plans(config):
    """Dies once, with seed 5, when all is done but not yet told."""
    from worldgym.cli.plan import plan

    metrics = plan(config)
    if config.seed == 5:
        dies("plan", 1)
    return {name: metrics[name] for name in ("success_rate", "mean_return", "by_episode")}


def shares(index):
    return os.environ["CUDA_VISIBLE_DEVICES"]


def lasts(index):
    began = time.monotonic()
    time.sleep(0.1)
    return began, time.monotonic()


class Dot(gym.Env):
    """A picture of noise; the worker dies, twice, in the third step after the seed that a file names."""

    metadata = {"render_modes": ["rgb_array"]}
    observation_space = gym.spaces.Box(0.0, 1.0, (1,), np.float32)
    action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps, self.fatal = 0, str(seed) == (HERE / "fatal").read_text(encoding="utf-8")
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        if self.steps == 3 and self.fatal:
            dies("dot", 2)
        return np.zeros(1, np.float32), float(action[0]), False, False, {}

    def render(self):
        return self.np_random.integers(0, 256, (16, 16, 3), np.uint8)


gym.register("Dot-v0", Dot)
'''
DOT = RecordConfig("test/dot-v0", "ray_tasks:Dot-v0", episodes=6, steps=5, resolution=16)


@pytest.fixture(scope="module")
def cluster():
    """The address of one with two CPUs."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 2, "num_gpus": 1, "include_dashboard": False}
        )
        yield cluster.address
        cluster.shutdown()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where workers find their tasks, and leave what they did."""
    (tmp_path / "ray_tasks.py").write_text(TASKS, encoding="utf-8")
    (tmp_path / "fatal").write_text("none", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("ray_tasks", None)
    gym.registry.pop("Dot-v0", None)


def recorded(folder: Path, monkeypatch, config: RecordConfig, name: str) -> dict[str, bytes]:
    """The files of the data set, recorded in a folder of that name."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder / name))
    made = record(config)
    return {str(path.relative_to(made)): path.read_bytes() for path in made.rglob("*") if path.is_file()}


def test_a_recording_on_ray_is_the_one_without_it_byte_for_byte(cluster, folder, monkeypatch):
    """Also if workers are killed in the middle, and if the other way recorded its first half."""
    expected = recorded(folder, monkeypatch, replace(DOT, workers=1), "here")
    (folder / "fatal").write_text(str(np.random.default_rng([DOT.seed, 3]).integers(2**31)), encoding="utf-8")
    with pytest.raises(UserError, match=r"died by SIGKILL.* 3 of 6 episodes are kept"):
        recorded(folder, monkeypatch, replace(DOT, workers=1), "both")
    (folder / "dot.0.died").unlink()
    assert recorded(folder, monkeypatch, replace(DOT, ray=cluster), "both") == expected
    assert {path.name for path in folder.glob("*.died")} == {"dot.0.died", "dot.1.died"}


def test_a_task_whose_worker_died_is_done_again(cluster, folder):
    from ray_tasks import dies_once

    assert sorted(on_ray(dies_once, range(5), 2, cluster)) == [(index, index * index) for index in range(5)]
    assert [path.name for path in folder.glob("*.died")] == ["2.0.died"]


@pytest.mark.parametrize(
    ("task", "ours", "says"),
    [
        ("always_dies", False, "Ray could not finish episode 0: .*died"),
        ("raises", False, "episode 0: the robot has no arms"),
        ("mistaken", True, "episode 0: ZeroDivisionError: division by zero"),
    ],
)
def test_a_failure_ends_it_with_its_cause(cluster, folder, task, ours, says):
    import ray_tasks

    with pytest.raises(WorkerError, match=says) as failure:
        list(on_ray(getattr(ray_tasks, task), range(4), 1, cluster))
    assert isinstance(failure.value, UserError) is not ours


def test_seeds_on_ray_are_those_without_it(cluster, folder, write_checkpoint):
    """To the bit, where both have as many threads; also if a worker is killed."""
    from ray_tasks import plans

    write_checkpoint(on_the_tabletop())
    config = Planning("world", "random", episodes=2)
    metrics = over_seeds(plans, config, [3, 5], cluster)
    assert [path.name for path in folder.glob("*.died")] == ["plan.0.died"]
    assert metrics == over_seeds(plans, config, [3, 5])
    with pytest.raises(WorkerError, match=r"seed 3: unknown world 'nowhere'"):
        over_seeds(plans, replace(config, world="nowhere"), [3], cluster)


def test_tasks_share_a_gpu(cluster, folder):
    """One that Ray takes our word for."""
    from ray_tasks import shares

    assert dict(on_ray(shares, range(2), 2, cluster, gpus=0.5)) == {0: "0", 1: "0"}


def test_no_more_are_at_it_than_asked_for(cluster, folder):
    from ray_tasks import lasts

    times = sorted(span for _, span in on_ray(lasts, range(4), 1, cluster))
    assert all(ended <= began for (_, ended), (began, _) in pairwise(times))


@pytest.mark.parametrize(
    ("address", "says"),
    [("127.0.0.1:1", "no Ray cluster at --ray 127.0.0.1:1: .*refused"), ("there", "neither .local. nor .auto. nor")],
)
def test_an_address_where_no_cluster_is(address, says):
    pytest.importorskip("ray")
    with pytest.raises(UserError, match=says):
        list(on_ray(str, [0], 1, address))


def test_without_ray_it_is_told_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r'--ray needs Ray: pip install "worldgym\[ray\]"'):
        list(on_ray(str, [0], 1, "local"))
    assert list(on_ray(str, [], 1, "local")) == []
