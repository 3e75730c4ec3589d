"""Agents of Stable-Baselines3: what they see, what they remember, and that they learn, stop and go on."""

import json
import pickle
import signal
import sys
from dataclasses import fields, replace
from pkgutil import resolve_name

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.env_util import make_vec_env
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from worldgym import cli
from worldgym.actions import read_codec
from worldgym.agents import AGENTS
from worldgym.agents.features import Places
from worldgym.agents.learning import Progress, learn, load_policy, make_envs
from worldgym.agents.mbpo import Imagination, MixedReplay
from worldgym.agents.observers import LatentObserver, SeeAlone, SeenVecEnv
from worldgym.agents.refit import Refit, lived_episodes, own_world
from worldgym.agents.sac import HalfReplay, sac
from worldgym.agents.settings import Learning
from worldgym.dreams import DreamOptions, Dreams
from worldgym.envs_real.twins import twin_of
from worldgym.evaluate.rollout import play
from worldgym.world import WorldModel

STILL = np.zeros((3, 2), np.float32)
TWIN = "worldgym/TabletopMuJoCo-v0"
LATENTS = gym.spaces.Box(-10.0, 10.0, (5,), np.float32)


@pytest.fixture
def latents(checkpoint):
    """The tiny world and what its dreams' latents look like."""
    dreams = Dreams(3, DreamOptions(str(checkpoint), obs_type="latent", device="cpu"))
    return WorldModel.load(str(checkpoint), "cpu"), dreams


# -- what they see ------------------------------------------------------------------------------------------


def test_eyes_see_the_first_frame_as_a_dream_does(latents, frames):
    world, dreams = latents
    dreams.reset(seeds=[0, 1, 2], frames=frames[:, :1])
    assert np.allclose(LatentObserver(world, 3).begin(frames[:, 0]), dreams.observe().numpy(), atol=1e-5)


def test_eyes_change_their_context_when_a_window_is_full(make_world, frames):
    """Window 2: frames 1 and 2 are seen relative to frame 0, frame 3 relative to frame 2."""
    world = make_world(window=2)
    eyes = LatentObserver(world, 3)
    eyes.begin(frames[:, 0])
    seen = [eyes.see(frames[:, when], STILL) for when in (1, 2, 3)]
    first, second = world.start(frames[:, :1]), world.start(frames[:, 2:3])
    for found, when, state in zip(seen, (1, 2, 3), (first, first, second), strict=True):
        expected = world.see(torch.from_numpy(frames[:, when]), state).flatten(1).numpy()
        assert np.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("told", [{"memory": 2}, {"memory": 3, "prompt": 2}])
def test_in_a_world_that_is_told_speed_eyes_see_two_frames(make_world, frames, told):
    """The newest map and the one before; relative to the context that a dream would have, also after a full window."""
    world = make_world(window=4, **told)
    dynamics = world.config.dynamics
    eyes, film = LatentObserver(world, 3), np.concatenate([frames, frames[:, ::-1] // 2], 1)
    assert np.array_equal(*np.split(eyes.begin(film[:, 0]), 2, 1))  # at rest, for all that is known
    seen = [eyes.see(film[:, when], STILL) for when in range(1, 6)]
    contexts = {when: 0 for when in range(1, 5)} | {5: 5 - dynamics.memory}
    for when, found in enumerate(seen, 1):
        state = world.start(film[:, contexts[when], None])
        newest, before = (world.see(torch.from_numpy(film[:, at]), state).flatten(1) for at in (when, when - 1))
        assert np.allclose(found, torch.cat([newest, before], 1).numpy(), atol=1e-5), when


def test_mbpo_does_not_begin_branches_where_one_frame_does_not_tell(make_world, write_checkpoint, tmp_path):
    """It is said before anything is trained."""
    world = make_world(memory=3)
    world.config = replace(world.config, twin="worldgym/ReacherMuJoCo-v0")
    folder = write_checkpoint(world)
    asked = Learning(str(folder), "mbpo", "mujoco", world.config.instructions[0], out=tmp_path / "agent")
    with pytest.raises(ValueError, match="is conditioned on 3 frames, and mbpo's branches begin from one"):
        learn(asked, twin_of)
    assert not (tmp_path / "agent").exists()


def test_one_episode_begins_anew_among_others(make_world, frames):
    world = make_world()
    eyes, alone = LatentObserver(world, 3), LatentObserver(world, 3)
    alone.begin(frames[:, 0])
    eyes.begin(frames[:, 0])
    begun = eyes.begin(frames[:, 1], np.array([False, True, False]))
    assert np.allclose(begun, LatentObserver(world, 1).begin(frames[1:2, 1]), atol=1e-5)
    found, expected = eyes.see(frames[:, 2], STILL), alone.see(frames[:, 2], STILL)
    assert np.allclose(found[[0, 2]], expected[[0, 2]], atol=1e-5)
    assert not np.allclose(found[1], expected[1], atol=1e-3)


def test_twins_show_latents_and_the_last_one_of_an_episode(make_world):
    """The terminal observation is of the old episode, the next one of the new."""
    world = make_world()
    asked = {"instruction": "reach the centre", "max_episode_steps": 5}
    envs = SeenVecEnv(make_vec_env(TWIN, 2, seed=0, env_kwargs=asked), world)
    assert envs.reset().shape == (2, *envs.observation_space.shape)
    first = envs.eyes.frames.copy()
    for step in range(5):
        observation, _, dones, infos = envs.step(np.zeros((2, 2), np.float32))
        if step == 0:
            assert np.array_equal(infos[1]["frame"], first[1])
    assert dones.all() and infos[0]["TimeLimit.truncated"]
    new = LatentObserver(world, 2).begin(envs.eyes.frames)
    assert np.allclose(observation, new, atol=1e-5)
    assert not np.allclose(infos[0]["terminal_observation"], observation[0], atol=1e-3)
    assert not np.array_equal(envs.eyes.frames, first)
    envs.close()


def test_a_policy_on_latents_acts_on_frames_of_one_episode(make_world, frames):
    world, given = make_world(), []

    class Policy:
        def predict(self, observation, deterministic):
            given.append(observation)
            return np.full((len(observation), 2), 0.5, np.float32), None

    act, eyes = SeeAlone(Policy(), world), LatentObserver(world, 1)
    assert act(frames[0, 0]).tolist() == [0.5, 0.5]
    act(frames[0, 1])
    assert np.allclose(given[0], eyes.begin(frames[:1, 0])) and np.allclose(given[1], eyes.see(frames[:1, 1], STILL))


def test_places_are_where_a_detector_answers():
    extractor = Places(gym.spaces.Box(-10, 10, (16,), np.float32), grid=4, count=1)
    extractor.detect = torch.nn.Identity()
    maps = torch.zeros(2, 1, 4, 4)
    maps[0, 0, 0, 3] = maps[1, 0, 3, 0] = 50.0
    found = extractor(maps.flatten(1))[:, :2]
    assert torch.allclose(found, torch.tensor([[-1.0, 1.0], [1.0, -1.0]]), atol=1e-4)


def test_of_two_maps_places_tell_how_far_they_moved():
    extractor = Places(gym.spaces.Box(-10, 10, (32,), np.float32), grid=4, maps=2, count=1)
    extractor.detect = torch.nn.Identity()
    maps = torch.zeros(1, 2, 4, 4)
    maps[0, 0, 1, 3] = maps[0, 1, 0, 3] = 50.0
    assert torch.allclose(extractor(maps.flatten(1))[0, :4], torch.tensor([-1 / 3, 1.0, 2 / 3, 0.0]), atol=1e-4)


# -- what they remember ---------------------------------------------------------------------------------------


def test_a_replay_buffer_is_saved_without_its_empty_rows():
    buffer = HalfReplay(1000, LATENTS, read_codec(None, 2).space, "cpu", n_envs=2)
    for step in range(3):
        buffer.add(
            np.full((2, 5), step), np.full((2, 5), step + 1), np.zeros((2, 2)), np.ones(2), np.zeros(2), [{}, {}]
        )
    blob = pickle.dumps(buffer)
    again = pickle.loads(blob)
    assert len(blob) < 5_000
    assert again.size() == 3 and again.observations.shape == buffer.observations.shape
    assert np.array_equal(again.observations, buffer.observations) and np.array_equal(again.rewards, buffer.rewards)
    again.add(np.zeros((2, 5)), np.zeros((2, 5)), np.zeros((2, 2)), np.ones(2), np.zeros(2), [{}, {}])
    assert again.size() == 4


def mixed(real_ratio: float, real: int = 20, imagined: int = 20) -> MixedReplay:
    """Real rewards are 1, imagined ones -1."""
    replay = MixedReplay(
        50, LATENTS, read_codec(None, 2).space, "cpu", real_ratio=real_ratio, imagined_size=30,
        frame_shape=(64, 64, 3),
    )  # fmt: skip
    for step in range(real):
        info = {"frame": np.full((64, 64, 3), step, np.uint8)}
        replay.add(np.zeros((1, 5)), np.zeros((1, 5)), np.zeros((1, 2)), np.ones(1), np.zeros(1), [info])
    for _ in range(imagined):
        replay.imagined.add(np.zeros(5), np.zeros(5), np.zeros(2), -np.ones(1), np.zeros(1), [{}])
    return replay


@pytest.mark.parametrize(("ratio", "real"), [(0.0, 0), (0.25, 16), (1.0, 64)])
def test_a_batch_is_mixed_as_asked(ratio, real):
    batch = mixed(ratio).sample(64)
    assert batch.observations.shape == (64, 5)
    assert int((batch.rewards > 0).sum()) == real


def test_batches_are_real_until_something_is_imagined():
    assert (mixed(0.25, imagined=0).sample(64).rewards > 0).all()


def test_branches_begin_at_frames_that_were_seen():
    drawn = mixed(0.5, real=4).draw_frames(100, np.random.default_rng(0))
    assert drawn.shape == (100, 64, 64, 3)
    assert set(drawn[:, 0, 0, 0].tolist()) == {0, 1, 2, 3}


def test_a_wrong_ratio_is_refused():
    with pytest.raises(ValueError, match=r"real_ratio is 1\.5"):
        mixed(1.5)


@pytest.fixture
def imagining(checkpoint, tmp_path):
    """An MBPO agent with two twins, 6 dreams a time, and its imagination."""
    world = WorldModel.load(str(checkpoint), "cpu")
    envs = SeenVecEnv(make_vec_env(TWIN, 2, seed=0, env_kwargs={"instruction": "reach the centre"}), world)
    replay = {"real_ratio": 0.5, "imagined_size": 500, "frame_shape": (64, 64, 3)}
    agent = sac(envs, world.config, 0, tmp_path, MixedReplay, replay, warm_up=4)
    dreams = Dreams(6, DreamOptions(str(checkpoint), "reach the centre", obs_type="latent", device="cpu"))
    yield agent, Imagination(dreams, every=8, horizon=(1, 3), grown=16)
    envs.close()


def test_imagination_branches_from_real_frames_ever_further(imagining):
    agent, imagination = imagining
    agent.learn(20, callback=imagination)
    # 4, 12 and 20 real steps: 6 branches each of 1 + 2 * min(1, t / 16) steps
    assert agent.replay_buffer.imagined.size() == 6 * (2 + 2 + 3)
    assert agent.replay_buffer.size() == 10
    assert (agent.replay_buffer.imagined.dones == 0).all(), "a branch that is cut has not ended"


def test_imagined_transitions_are_what_the_world_dreams(imagining):
    agent, imagination = imagining
    agent.learn(4, callback=imagination)
    replay, dreams = agent.replay_buffer, imagination.dreams
    first = replay.imagined.observations[:6, 0].astype(np.float32)
    random = np.random.default_rng((0, 4))
    random.integers(2**31, size=6)
    dreams.reset(frames=replay.draw_frames(6, random)[:, None])
    assert np.allclose(first, dreams.observe().numpy(), atol=2e-2)
    step = dreams.step(list(replay.imagined.actions[:6, 0]))
    assert np.allclose(replay.imagined.rewards[:6, 0], step.reward, atol=1e-2)
    assert np.allclose(replay.imagined.next_observations[:6, 0], dreams.observe().numpy(), atol=2e-2)


def test_imagination_needs_latents(checkpoint):
    with pytest.raises(ValueError, match="takes 'latent'"):
        Imagination(Dreams(2, DreamOptions(str(checkpoint), device="cpu")))


@pytest.mark.parametrize("full", [False, True])
def test_what_was_lived_is_cut_where_it_ended(full):
    """Two twins; the second ends after its second step. A full buffer has forgotten its oldest rows."""
    replay = MixedReplay(
        8, LATENTS, read_codec(None, 2).space, "cpu", n_envs=2, real_ratio=0.5, imagined_size=5,
        frame_shape=(64, 64, 3),
    )  # fmt: skip
    for step in range(6 if full else 3):  # four rows of two
        infos = [{"frame": np.full((64, 64, 3), 10 * twin + step, np.uint8)} for twin in range(2)]
        action = np.full((2, 2), step / 10)
        replay.add(
            np.zeros((2, 5)), np.zeros((2, 5)), action, np.ones(2), np.array([0, step == (3 if full else 1)]), infos
        )
    lived, first = lived_episodes(replay, 100, 2), 2 if full else 0
    count = 4 if full else 3
    assert lived.frames[:, 0, 0, 0].tolist() == [10 * twin + first + step for twin in range(2) for step in range(count)]
    assert lived.starts.tolist() == [0, count, count + 2, 2 * count]
    assert np.allclose(lived.actions[:count, 0], (first + np.arange(count)) / 10)


def test_a_refit_learns_what_happens_and_leaves_the_judges(imagining, checkpoint, tmp_path):
    agent, imagination = imagining
    world = WorldModel.load(str(checkpoint), "cpu")
    refit = Refit(world, own_world(str(checkpoint), tmp_path / "world"), every=16, steps=2, batch=2)
    before = {name: tensor.clone() for name, tensor in world.state_dict().items()}
    agent.learn(20, callback=[imagination, refit])
    changed = {name for name, tensor in world.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed and all(name.startswith("dynamics.") for name in changed)
    assert not any("outcome_heads" in name or "sentence_policy" in name for name in changed)
    again = WorldModel.load(str(tmp_path / "world"), "cpu")
    assert all(torch.equal(again.state_dict()[name], world.state_dict()[name]) for name in changed)


# -- the table -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", AGENTS)
def test_what_a_row_names_is_there(name):
    kind = AGENTS[name]
    assert all(callable(resolve_name(path)) for path in (kind.make, kind.load, kind.check, kind.callbacks) if path)
    assert {field.name for field in fields(Learning)} >= set(kind.takes)


# -- learning ----------------------------------------------------------------------------------------------------


@pytest.fixture
def twinned(make_world, write_checkpoint):
    """A tiny world that names its twin."""
    world = make_world()
    world.config = replace(world.config, twin=TWIN)
    return write_checkpoint(world)


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["worldgym", *map(str, arguments)])
    cli.main()


@pytest.mark.parametrize(("agent", "where"), [("sac", "dream"), ("sac", "mujoco")])
def test_learn_leaves_agent_figures_and_video(monkeypatch, twinned, tmp_path, agent, where):
    out, file = tmp_path / "out", tmp_path / "learn.json"
    run(
        monkeypatch, "learn", twinned, "--agent", agent, "--in", where, "--steps", 32, "--episodes", 2,
        "--out", out, "--json", file,
    )  # fmt: skip
    metrics = json.loads(file.read_text(encoding="utf-8"))["metrics"]
    assert metrics["steps"] == 32
    assert metrics["real_steps"] == (0 if where == "dream" else 32)
    assert len(metrics["by_episode"]) == metrics["episodes"] == 2
    low, high = metrics["success_interval"]
    assert 0 <= low <= metrics["success_rate"] <= high <= 1
    assert {"agent.zip", "agent_0000032.zip", "replay.pkl", "learning.json", "episodes.gif"} <= {
        path.name for path in out.iterdir()
    }
    (log,) = out.glob("tensorboard/*")
    assert EventAccumulator(str(log)).Reload().Scalars("rollout/reward")[-1].step == 32  # however short the run


def test_a_run_goes_on_where_it_stopped(twinned, tmp_path):
    settings = {"world": str(twinned), "agent": "mbpo", "where": "mujoco", "episodes": 1, "out": tmp_path / "out"}
    learn(Learning(steps=8, **settings), twin_of)
    metrics = learn(Learning(steps=16, **settings), twin_of)
    assert metrics["steps"] == metrics["real_steps"] == 16
    with pytest.raises(ValueError, match="--steps 8 is in its past"):
        learn(Learning(steps=8, **settings), twin_of)
    model, made = load_policy(tmp_path / "out", WorldModel.load(str(twinned), "cpu"))
    assert (model.num_timesteps, made.steps) == (16, 16)
    with (tmp_path / "out" / "replay.pkl").open("rb") as stream:
        assert pickle.load(stream).size() == 4  # of 4 twins each


def test_ctrl_c_saves_the_agent(twinned, tmp_path, monkeypatch):
    on_step = Progress._on_step

    def press(progress):
        signal.raise_signal(signal.SIGINT)
        return on_step(progress)

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "_on_step", press)
        with pytest.raises(KeyboardInterrupt, match="saved at step 4"):  # one of each of 4 twins
            learn(Learning(str(twinned), "mbpo", "mujoco", steps=400, episodes=1, out=tmp_path), twin_of)
    assert load_policy(tmp_path, WorldModel.load(str(twinned), "cpu"))[0].num_timesteps == 4


def test_another_run_does_not_go_on_in_its_folder(twinned, tmp_path):
    learn(Learning(str(twinned), "ppo", steps=1, episodes=1, out=tmp_path), twin_of)
    with pytest.raises(ValueError, match=r"holds another run \(agent 'ppo'\)"):
        learn(Learning(str(twinned), "sac", steps=1, episodes=1, out=tmp_path), twin_of)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"agent": "mbpo"}, "--in mujoco"),
        ({"agent": "mbpo", "where": "mujoco", "sees": "pixels"}, "--sees latent"),
        ({"instruction": "fly"}, "unknown instruction 'fly'"),
        ({"steps": 0}, "at least one of --steps"),
        ({"horizon": 0}, "horizon is 0"),
        ({"discount": 1.0}, "discount is 1.0"),
        ({"where": "mujoco", "horizon": 5}, "of dreams"),
        ({"agent": "ppo", "updates": 1.0}, "of sac and mbpo"),
        ({"agent": "sac", "refit": 100}, "that is of mbpo"),
    ],
)
def test_mistakes_are_refused_before_anything_is_written(twinned, tmp_path, changes, says):
    with pytest.raises(ValueError, match=says):
        learn(Learning(str(twinned), **{"out": tmp_path / "out", **changes}), twin_of)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("horizon", "steps"), [(None, 40), (5, 5)])
def test_dreams_last_as_long_as_episodes_of_the_twin(twinned, horizon, steps):
    """Some never succeed, and would go on for ever."""
    config = Learning(str(twinned), instruction="reach the centre", horizon=horizon)
    world = WorldModel.load(str(twinned), "cpu")
    twin = twin_of(world.config)
    envs = make_envs(config, world, twin, twin_of)
    twin.close()
    assert envs.get_attr("unwrapped")[0]._max_episode_steps == steps


@pytest.mark.parametrize("agent", ["sac", "ppo"])
def test_the_discount_is_the_agents(twinned, tmp_path, agent):
    learn(Learning(str(twinned), agent, discount=0.5, steps=1, episodes=1, out=tmp_path), twin_of)
    assert load_policy(tmp_path, WorldModel.load(str(twinned), "cpu"))[0].gamma == 0.5


def test_play_is_the_same_again_and_knows_its_return():
    env = gym.make(TWIN, instruction="reach the centre", max_episode_steps=3)
    one, other = (play(env, lambda frame: np.array([0.5, 0.0], np.float32), seed=3) for _ in range(2))
    assert np.array_equal(one.frames, other.frames) and len(one.frames) == len(one.rewards) + 1
    assert one.total == pytest.approx(one.rewards.sum()) and np.isnan(one.uncertainty)
    env.close()
