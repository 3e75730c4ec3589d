"""Many dreams behind Gymnasium's vector API: the same dreams as one at a time, and the autoreset modes."""

import multiprocessing
import os

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import iterate

from worldgym.dreams import DreamOptions, Dreams, load_shared
from worldgym.env import DreamEnv
from worldgym.vector import DreamVectorEnv

STILL = np.zeros((3, 2), np.float32)


@pytest.fixture
def dreams(checkpoint):
    """Makes three dreams of the tiny world; they last two steps unless told otherwise."""
    return lambda num_envs=3, **options: gym.make_vec(
        "worldgym/Dream-v0", num_envs, world=str(checkpoint), **{"max_episode_steps": 2, "device": "cpu", **options}
    )


@pytest.fixture
def ending(write_checkpoint):
    """Makes three dreams that end at their first frame."""
    folder = write_checkpoint(ends=True)
    return lambda **options: DreamVectorEnv(str(folder), 3, device="cpu", **options)


def close(one, other) -> bool:
    """Frames to within rounding."""
    return bool(np.abs(np.asarray(one).astype(int) - np.asarray(other).astype(int)).max() <= 1)


# -- one batch, many dreams ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["vector", "text", "discrete", "both"])
def test_each_dream_is_what_it_is_alone(checkpoint, dreams, mode):
    """Also across its ends and new beginnings, and while others are at other frames of their sentences."""
    envs = dreams(action_mode=mode, temperature=1.0)
    alone = [
        gym.make("worldgym/Dream-v0", world=str(checkpoint), action_mode=mode, temperature=1.0, max_episode_steps=2)
        for _ in range(3)
    ]
    envs.action_space.seed(0)
    observations, _ = envs.reset(seed=5)
    assert all(close(env.reset(seed=5 + i)[0], observations[i]) for i, env in enumerate(alone))
    for count in range(5):
        actions = envs.action_space.sample()
        observations, rewards, terminations, truncations, infos = envs.step(actions)
        for i, (env, action) in enumerate(zip(alone, iterate(envs.action_space, actions), strict=True)):
            if count == 2:  # the step after the end
                (observation, info), reward, terminated, truncated = env.reset(), 0.0, False, False
            else:
                observation, reward, terminated, truncated, info = env.step(action)
            assert close(observation, observations[i])
            assert rewards[i] == pytest.approx(reward, abs=1e-4)
            assert (terminations[i], truncations[i]) == (terminated, truncated)
            assert infos["num_frames"][i] == info["num_frames"]


@pytest.mark.parametrize("mode", ["vector", "text"])
def test_a_dream_is_the_same_alone_and_among_64(checkpoint, mode):
    """The same tokens, hence the same latent; frames and rewards to within rounding."""
    many, one = (Dreams(n, DreamOptions(str(checkpoint), action_mode=mode, temperature=1.0)) for n in (64, 1))
    many.reset(seeds=range(64)), one.reset(seeds=[41])
    random = np.random.default_rng(0)
    for _ in range(3):
        if mode == "vector":
            actions = list(random.uniform(-1, 1, (64, 2)).astype(np.float32))
        else:
            actions = [many.phrases[k] for k in random.integers(len(many.phrases), size=64)]
        together, alone = many.step(actions), one.step(actions[41:42])
        torch.testing.assert_close(many.state.latent[41], one.state.latent[0], atol=1e-5, rtol=0)
        assert together.reward[41] == pytest.approx(alone.reward[0], abs=1e-4)
    assert close(many.render()[41], one.render()[0])


def test_a_dream_that_ends_within_a_sentence_stops_there(write_checkpoint):
    """While the others carry theirs on."""
    dreams = Dreams(3, DreamOptions(str(write_checkpoint()), action_mode="text", max_uncertainty=1e-6))
    dreams.reset(seeds=[0, 1, 2])
    assert dreams.step(["move up"] * 3).info["num_frames"].tolist() == [3, 3, 3]  # never the first
    dreams.reset(np.array([False, True, False]), seeds=[None, 1, None])
    before, ended = dreams.state.counters.clone(), dreams.step(["move up"] * 3)
    assert ended.info["num_frames"].tolist() == [1, 3, 1]
    assert (dreams.state.counters - before).tolist() == [1, 3, 1]


def test_sentences_are_read_once_an_action(dreams, monkeypatch):
    envs = dreams(action_mode="text")
    envs.reset(seed=0)
    read, calls = envs.dreams.world.read, []
    monkeypatch.setattr(envs.dreams.world, "read", lambda sentences: calls.append(sentences) or read(sentences))
    envs.step(["move up", "stay still", "move up"])
    assert len(calls) == 1


# -- autoreset -----------------------------------------------------------------------------------------------


def test_by_default_the_step_after_an_end_begins_anew(dreams):
    envs = dreams()
    assert envs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    envs.reset(seed=0)
    envs.step(STILL)
    _, _, terminations, truncations, infos = envs.step(STILL)
    assert truncations.all() and not terminations.any()
    assert not infos["too_uncertain"].any()
    _, rewards, _, truncations, infos = envs.step(STILL)
    assert not rewards.any() and not truncations.any() and infos["num_frames"].tolist() == [0, 0, 0]
    assert envs.step(STILL)[1].all()


def test_in_the_same_step_the_end_is_in_the_infos(dreams):
    envs, other = dreams(autoreset_mode="SameStep"), dreams(autoreset_mode=AutoresetMode.DISABLED)
    envs.reset(seed=0), other.reset(seed=0)
    for _ in range(2):
        first, rewards, _, truncations, infos = envs.step(STILL)
        reached, expected, *_, last = other.step(STILL)
    assert np.array_equal(rewards, expected) and truncations.all()
    assert infos["_final_obs"].all() and infos["_final_info"].all()
    assert np.array_equal(np.stack(infos["final_obs"]), reached)
    for key, value in last.items():
        assert np.array_equal(infos["final_info"][key], value), key
    assert not close(first, reached)
    assert np.array_equal(first, other.reset()[0])
    assert "_final_obs" not in envs.step(STILL)[4]


def test_a_mask_resets_some_and_is_left_alone(dreams):
    envs = dreams(autoreset_mode=AutoresetMode.DISABLED, max_episode_steps=None)
    envs.reset(seed=0)
    before = envs.step(STILL)[0]
    options = {"reset_mask": np.array([False, True, False])}
    after, infos = envs.reset(seed=[None, 9, None], options=options)
    assert list(options) == ["reset_mask"]
    assert infos["_num_frames"].tolist() == [False, True, False]
    assert [np.array_equal(after[i], before[i]) for i in range(3)] == [True, False, True]
    assert close(after[1], envs.reset(seed=9)[0][0])


def test_without_autoreset_it_waits_for_one(ending):
    envs = ending(autoreset_mode="Disabled")
    envs.reset(seed=0)
    terminations = envs.step(STILL)[2]
    assert terminations.all()
    with pytest.raises(gym.error.ResetNeeded, match=r"\[0, 1, 2\] have ended.*reset_mask"):
        envs.step(STILL)
    envs.reset(options={"reset_mask": np.array([True, True, False])})
    with pytest.raises(gym.error.ResetNeeded, match=r"\[2\] have ended"):
        envs.step(STILL)
    envs.reset(options={"reset_mask": np.array([False, False, True])})
    envs.step(STILL)


@pytest.mark.parametrize(
    ("mask", "error"),
    [
        ([True, False, False], TypeError),
        (np.array([1, 0, 0]), TypeError),
        (np.array([True]), ValueError),
        (np.zeros(3, bool), ValueError),
    ],
)
def test_a_bad_mask_is_refused_and_harmless(dreams, mask, error):
    envs = dreams()
    envs.reset(seed=0)
    before = envs.snapshot()
    with pytest.raises(error, match="reset_mask is"):
        envs.reset(options={"reset_mask": mask})
    assert envs.snapshot() == before


# -- what goes in, what comes out ----------------------------------------------------------------------------


def test_what_it_returns_is_the_callers(dreams):
    envs = dreams()
    first = envs.reset(seed=0)[0]
    kept = first.copy()
    envs.step(STILL)
    assert np.array_equal(first, kept)
    picture = envs.render()[0].copy()
    envs.render()[0][:] = 0
    assert np.array_equal(envs.render()[0], picture)


def test_tensors_if_asked_for(dreams):
    envs, other = dreams(output="torch"), dreams()
    one, same = envs.reset(seed=0)[0], other.reset(seed=0)[0]
    assert isinstance(one, torch.Tensor) and np.array_equal(one, same)
    found, expected = envs.step(torch.zeros(3, 2)), other.step(STILL)
    assert all(isinstance(part, torch.Tensor) for part in found[:4])
    assert np.array_equal(found[0], expected[0]) and np.allclose(found[1], expected[1])


def test_it_starts_from_frames_for_each_or_for_all(dreams, frames):
    envs = dreams()
    each, _ = envs.reset(seed=0, options={"frames": frames[:, :1]})
    for index in range(3):
        shared, _ = envs.reset(seed=0, options={"frames": frames[index, :1]})
        assert close(shared[index], each[index])
    with pytest.raises(ValueError, match="frames for 2 dreams; there are 3"):
        envs.reset(options={"frames": frames[:2, :1]})


def test_each_dream_has_its_instruction(dreams):
    envs = dreams()
    envs.reset(seed=0, options={"instruction": "reach the centre", "frames": np.zeros((1, 64, 64, 3), np.uint8)})
    envs.set_attr("instruction", ["reach the centre", "push the red block to the centre", "reach the centre"])
    assert envs.get_attr("instruction")[1] == "push the red block to the centre"
    _, rewards, *_ = envs.step(STILL)
    assert rewards[0] == pytest.approx(rewards[2]) and rewards[0] != pytest.approx(rewards[1])
    with pytest.raises(AttributeError, match="'instruction' can"):
        envs.set_attr("colour", "red")
    with pytest.raises(ValueError, match="unknown instruction 'fly'"):
        envs.set_attr("instruction", "fly")
    assert envs.get_attr("instruction")[1] == "push the red block to the centre"


def test_methods_are_called_as_if_each_dream_were_alone(dreams):
    envs = dreams()
    envs.reset(seed=0)
    blobs = envs.call("snapshot")
    env = DreamEnv.of(envs.dreams.select([1]))
    env.restore(blobs[1])
    assert close(env.step(STILL[1])[0], envs.step(STILL)[0][1])
    envs.call("restore", blobs[1])
    assert all(close(picture, envs.render()[0]) for picture in envs.render())
    assert envs.get_attr("world")[0] is envs.call("world")[2] is envs.dreams.world


@pytest.mark.parametrize(
    ("mode", "actions", "error"),
    [
        ("vector", np.zeros((2, 2), np.float32), ValueError),
        ("vector", np.full((3, 2), np.nan, np.float32), ValueError),
        ("text", "move up", ValueError),
        ("text", ["move up", "stay still"], ValueError),
        ("text", ["move up", "stay still", 3], TypeError),
        ("discrete", np.array([0, 1, 4]), ValueError),
        ("both", [STILL[0], "move up", (2, "move up")], ValueError),
    ],
)
def test_bad_actions_are_refused_and_harmless(dreams, mode, actions, error):
    envs = dreams(action_mode=mode)
    envs.reset(seed=0)
    before = envs.snapshot()
    with pytest.raises(error):
        envs.step(actions)
    assert envs.snapshot() == before


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"autoreset_mode": "sometimes"}, "autoreset_mode 'sometimes'.*'NextStep', 'SameStep', 'Disabled'"),
        ({"output": "jax"}, "output.*jax"),
        ({"num_envs": 0}, "got 0 dreams"),
        ({"max_episode_steps": 0}, "max_episode_steps is 0"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_batch_that_cannot_be_is_refused(dreams, options, says):
    with pytest.raises((ValueError, TypeError), match=f"(?s){says}"):
        dreams(**options)


# -- going several ways --------------------------------------------------------------------------------------


def test_a_snapshot_holds_clocks_and_ends(dreams):
    envs, other = dreams(temperature=1.0), dreams(temperature=1.0)
    envs.reset(seed=0)
    envs.step(STILL)
    for _ in range(3):  # before, at and after the end
        blob = envs.snapshot()
        expected = [envs.step(STILL) for _ in range(4)]
        other.restore(blob)
        assert other.snapshot() == blob
        for one, same in zip(expected, [other.step(STILL) for _ in range(4)], strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(one[:4], same[:4], strict=True))
        envs.restore(blob)
        envs.step(STILL)


def test_a_snapshot_of_another_number_of_dreams_is_refused(dreams):
    envs, other = dreams(), dreams(2)
    envs.reset(seed=0), other.reset(seed=0)
    before = other.snapshot()
    with pytest.raises(ValueError, match="holds 3 dreams; this environment has 2"):
        other.restore(envs.snapshot())
    assert other.snapshot() == before


def test_a_fork_goes_its_own_way(dreams):
    envs = dreams()
    envs.reset(seed=0)
    forked, before = envs.fork(2), envs.snapshot()
    actions = np.repeat(STILL, 2, 0)
    actions[1::2] = 1.0
    found = forked.step(actions)[1]
    assert forked.num_envs == 6 and envs.snapshot() == before
    assert np.allclose(envs.step(STILL)[1], found[::2], atol=1e-4) and not np.allclose(found[::2], found[1::2])


# -- one model -----------------------------------------------------------------------------------------------


def test_gymnasiums_own_batch_shares_one_model(checkpoint):
    envs = gym.make_vec("worldgym/Dream-v0", 2, vectorization_mode="sync", world=str(checkpoint), device="cpu")
    one, other = envs.get_attr("dreams")
    assert one.world is other.world
    envs.reset(seed=0)
    envs.step(STILL[:2])
    envs.close()


def test_gymnasiums_processes_work_on_the_cpu(checkpoint):
    envs = gym.make_vec("worldgym/Dream-v0", 2, vectorization_mode="async", world=str(checkpoint), device="cpu")
    batch = DreamVectorEnv(str(checkpoint), 2, device="cpu")
    assert close(envs.reset(seed=0)[0], batch.reset(seed=0)[0])
    assert close(envs.step(STILL[:2])[0], batch.step(STILL[:2])[0])
    envs.close()


def test_worker_processes_may_not_use_a_gpu(checkpoint, monkeypatch):
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: object())
    with pytest.raises(ValueError, match=r"not for worker processes.*make_vec"):
        load_shared(str(checkpoint), "cuda")


def test_async_on_a_gpu_is_refused_and_says_why(checkpoint, monkeypatch):
    """Before any process is started: their errors would not reach who called `make_vec`."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ValueError, match=r"not for worker processes.*gym\.make_vec\(id, num_envs=n\)"):
        gym.make_vec("worldgym/Dream-v0", 2, vectorization_mode="async", world=str(checkpoint))


def test_a_checkpoint_that_was_trained_on_is_loaded_anew(write_checkpoint):
    folder = write_checkpoint()
    before = load_shared(str(folder), "cpu")
    assert load_shared(os.path.relpath(folder), "cpu") is before
    write_checkpoint(ends=True)
    os.utime(folder / "model.safetensors", (1, 1))
    assert load_shared(str(folder), "cpu") is not before
