"""What holds for every environment alike: the single dream, the batch, Stable-Baselines3's, and the real twins."""

import copy
import multiprocessing
import os
import pickle
from contextlib import nullcontext

import gymnasium as gym
import minari
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import data_equivalence

from worldgym.dreams import DreamOptions, Dreams, loading
from worldgym.env import DreamEnv, DreamVectorEnv
from worldgym.sb3 import DreamVecEnv
from worldgym.spaces import ACTION_MODES

STILL = np.zeros(2, np.float32)
TWINS = ["worldgym/TabletopMuJoCo-v0", "worldgym/ReacherMuJoCo-v0", "worldgym/HopperMuJoCo-v0"]


@pytest.fixture
def dream(checkpoint):
    return lambda **options: DreamEnv(str(checkpoint), device="cpu", **options)


@pytest.fixture
def batch(checkpoint):
    """Makes two dreams, of two steps each."""
    return lambda **options: DreamVectorEnv(str(checkpoint), 2, **{"max_episode_steps": 2, "device": "cpu", **options})


@pytest.fixture
def agents_batch(checkpoint):
    """The same for Stable-Baselines3."""
    return lambda **options: DreamVecEnv(
        "worldgym/Dream-v0", 2, **{"world": str(checkpoint), "max_episode_steps": 2, "device": "cpu", **options}
    )


def follow(env, steps: int = 3) -> list:
    """What the next steps return, in any of the environments; its actions are always the same."""
    space = copy.deepcopy(env.action_space)
    space.seed(0)
    if isinstance(env, DreamVecEnv):
        results = [env.step(np.stack([space.sample() for _ in range(env.num_envs)])) for _ in range(steps)]
        return [(*result[:3], [{**info, "episode": None} for info in result[3]]) for result in results]
    return [env.step(space.sample()) for _ in range(steps)]


# -- infos -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "imagined"), [*((mode, False) for mode in ACTION_MODES), ("vector", True)])
def test_infos_have_one_set_of_names_and_types(mode, imagined):
    """At a reset and at every step, through the end of an episode, single, batched and in Gymnasium's own batch."""
    options = {"action_mode": mode, "imagined": imagined, "max_episode_steps": 2}
    env = gym.make("worldgym/Tabletop-v0", **options)
    infos = [env.reset(seed=0)[1], *(env.step(env.action_space.sample())[4] for _ in range(2))]
    names = {"success": bool, "num_frames": int}
    names |= {} if imagined else {"uncertainty": float, "too_uncertain": bool}
    names |= {} if mode == "vector" else {"action_ok": bool}
    names |= {"action_reason": str} if mode in ("text", "both") else {}
    assert all({key: type(value) for key, value in info.items()} == names for info in infos)
    for kind in ("vector_entry_point", "sync"):
        envs = gym.make_vec("worldgym/Tabletop-v0", 2, vectorization_mode=kind, **options)
        infos = [envs.reset(seed=0)[1], *(envs.step(envs.action_space.sample())[4] for _ in range(4))]
        for info in infos:
            found = {key: value.dtype for key, value in info.items() if not key.startswith("_")}
            assert found == {key: np.dtype(object if kind is str else kind) for key, kind in names.items()}
            assert all(info[f"_{key}"].all() for key in names)


@pytest.mark.parametrize("mode", ["vector", "discrete"])
def test_the_infos_of_the_autoreset_modes_agree(batch, mode):
    """Also of what was reached and of a reset of some."""
    names = set(batch(action_mode=mode).reset(seed=0)[1])
    same, waiting = (batch(action_mode=mode, autoreset_mode=kind) for kind in ("SameStep", "Disabled"))
    same.reset(seed=0), waiting.reset(seed=0)
    ended, last = follow(same, 2)[1][4], follow(waiting, 2)[1][4]
    assert set(ended) - {"final_obs", "final_info", "_final_obs", "_final_info"} == names
    assert set(ended["final_info"]) == set(last) == names
    mask = np.array([True, False])
    some = waiting.reset(options={"reset_mask": mask})[1]
    assert set(some) == names and np.array_equal(some["_success"], mask)


@pytest.mark.parametrize("id", TWINS)
def test_infos_of_twins_have_one_set_of_names_and_types(id):
    for mode in ("vector", "text") if "Tabletop" in id else ("vector",):
        env = gym.make(id, action_mode=mode)
        first, later = env.reset(seed=0)[1], env.step(env.action_space.sample())[4]
        assert {key: type(value) for key, value in first.items()} == {key: type(value) for key, value in later.items()}
        assert ("action_ok" in first) == (mode == "text")
        env.close()


@pytest.mark.filterwarnings("ignore::UserWarning:minari")  # of an author and a description that are not given
@pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning")  # Minari's own folder
@pytest.mark.parametrize("mode", ["vector", "text"])
def test_minari_collects_the_infos(dream, mode, tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    env = gym.wrappers.TimeLimit(dream(action_mode=mode), 2)
    collector = minari.DataCollector(env, record_infos=True)
    collector.reset(seed=0)
    known = [collector.step(collector.action_space.sample())[4].get("action_ok") for _ in range(2)]
    episode = next(iter(collector.create_dataset("test/infos-v0")))
    assert episode.infos["num_frames"].tolist() == ([0, 1, 1] if mode == "vector" else [0, 3, 3])
    assert mode == "vector" or episode.infos["action_ok"].tolist() == [True, *known]
    collector.close()


def test_an_id_may_name_its_module(checkpoint):
    """As `gym.make` takes it."""
    envs = DreamVecEnv("worldgym:worldgym/Dream-v0", 2, world=str(checkpoint))
    assert envs.num_envs == 2
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        DreamVecEnv("no_such_module:worldgym/Dream-v0", 2)


# -- pickles and copies ----------------------------------------------------------------------------------------------

COPIES = {"pickle": lambda env: pickle.loads(pickle.dumps(env)), "deepcopy": copy.deepcopy}


@pytest.mark.parametrize("again", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("kind", ["dream", "batch", "agents_batch"])
def test_a_pickled_dream_continues_exactly(request, kind, again):
    """Before its first reset, too; and it holds no weights."""
    make = request.getfixturevalue(kind)
    env = make(temperature=1.0, action_mode="discrete")
    fresh = again(env)
    for one in (env, fresh):
        if kind == "agents_batch":
            one.seed(3)
        one.reset(**({} if kind == "agents_batch" else {"seed": 3}))
    assert data_equivalence(follow(fresh), follow(env), exact=True)
    later = again(env)
    assert data_equivalence(follow(later), follow(env), exact=True)
    assert data_equivalence(later.reset(), env.reset(), exact=True)
    assert later.dreams.world is env.dreams.world


def test_the_pickle_of_a_goal_in_pictures_continues(dream):
    env = dream(reward=np.full((64, 64, 3), 90, np.uint8), instruction="reach the centre")
    env.reset(seed=0)
    assert data_equivalence(follow(pickle.loads(pickle.dumps(env))), follow(env), exact=True)


def test_a_pickle_of_a_world_that_was_trained_since_is_refused(write_checkpoint, make_world):
    env = DreamEnv(str(write_checkpoint()), device="cpu")
    env.reset(seed=0)
    kept = pickle.dumps(env)
    trained = make_world()
    with torch.no_grad():
        next(trained.parameters()).add_(1.0)
    folder = write_checkpoint(trained)
    os.utime(folder / "model.safetensors", (1, 1))
    with pytest.raises(ValueError, match="trained since"):
        pickle.loads(kept)


@pytest.mark.parametrize("again", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("id", TWINS)
def test_a_pickled_twin_continues_exactly(id, again):
    env = gym.make(id)
    env.reset(seed=0)
    env.step(env.action_space.sample())
    other = again(env)
    assert data_equivalence(follow(other), follow(env), exact=True)
    assert data_equivalence(other.reset(), env.reset(), exact=True)
    env.close(), other.close()


# -- seeds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["dream", "batch", "twin"])
def test_a_seed_may_be_any_integer(request, kind):
    env = gym.make(TWINS[1]).unwrapped if kind == "twin" else request.getfixturevalue(kind)()
    expected = env.reset(seed=3)[0]
    for seed in (np.int64(3), np.uint8(3)):
        assert np.array_equal(env.reset(seed=seed)[0], expected)


@pytest.mark.parametrize("seed", [3.0, -1, "3"])
@pytest.mark.parametrize("kind", ["dream", "batch", *TWINS])
def test_a_bad_seed_is_refused_and_harmless(request, kind, seed):
    env = gym.make(kind).unwrapped if kind in TWINS else request.getfixturevalue(kind)()
    env.reset(seed=0)
    env.step(env.action_space.sample())
    before = env.snapshot()
    with pytest.raises((ValueError, TypeError), match="seed"):
        env.reset(seed=seed)
    assert env.snapshot() == before


@pytest.mark.parametrize("id", TWINS)
def test_bad_options_leave_a_twins_generator_alone(id):
    env = gym.make(id).unwrapped
    env.reset(seed=0)
    before = env.snapshot()
    for options in ({"colour": "red"}, {"instruction": "fly"}):
        with pytest.raises(ValueError, match=r"colour|fly"):
            env.reset(seed=1, options=options)
    assert env.snapshot() == before


def test_the_generator_of_a_dream_can_be_set(dream):
    env = dream()
    firsts = []
    for seed in (7, 7, 8):
        env.np_random = np.random.default_rng(seed)
        firsts.append(env.reset()[0])
    assert np.array_equal(firsts[0], firsts[1]) and not np.array_equal(firsts[0], firsts[2])
    for bad in (np.random.RandomState(0), np.random.Generator(np.random.MT19937(0)), 3):
        with pytest.raises(TypeError, match=r"default_rng|Type-check"):
            env.np_random = bad


def test_the_generators_of_a_batch_are_its_dreams_own(batch, dream):
    envs, alone = batch(), dream()
    envs.reset(seed=3), alone.reset(seed=4)
    assert envs.np_random[1].bit_generator.state == alone.np_random.bit_generator.state
    with pytest.raises(AttributeError):
        envs.np_random = np.random.default_rng(0)


def test_the_seed_of_a_generator_is_the_one_it_was_made_from(batch, dream):
    envs, alone = batch(), dream()
    envs.reset(seed=3), alone.reset(seed=4)
    envs.reset(), alone.reset()  # no seed: the generators stay, and so do their seeds
    assert envs.np_random_seed == envs.get_attr("np_random_seed") == (3, 4)
    assert alone.np_random_seed == alone.fork().np_random_seed == pickle.loads(pickle.dumps(alone)).np_random_seed == 4
    generators = [random.bit_generator.state for random in envs.np_random]
    assert envs.np_random_seed and generators == [random.bit_generator.state for random in envs.np_random]
    envs.restore(envs.snapshot()), alone.restore(alone.snapshot())
    assert envs.np_random_seed == (-1, -1) and alone.np_random_seed == -1  # a snapshot has the state alone


# -- PyTorch around them ---------------------------------------------------------------------------------------------


class DefaultDtype:
    """float64, as scripts have it that solve equations."""

    def __enter__(self):
        torch.set_default_dtype(torch.float64)

    def __exit__(self, *_):
        torch.set_default_dtype(torch.float32)


AROUND = {
    "inference mode": torch.inference_mode,
    "float64": DefaultDtype,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "another default device": lambda: torch.device("meta"),
    "no gradients": torch.no_grad,
}


@pytest.mark.parametrize("around", AROUND.values(), ids=AROUND)
@pytest.mark.parametrize("mode", ["vector", "discrete"])
def test_dreams_are_the_same_in_any_of_pytorchs_modes(checkpoint, mode, around):
    """Loaded, reset, stepped, forked, pickled and restored inside it, and stepped again outside."""
    runs = []
    for context in (nullcontext, around):
        loading._load.cache_clear()
        with context():
            dreams = Dreams(3, DreamOptions(str(checkpoint), action_mode=mode, temperature=1.0, device="cpu"))
            dreams.reset(seeds=range(3))
            acts = [dreams.phrases[0]] * 3 if mode == "discrete" else [STILL] * 3
            seen = [dreams.step(acts).reward, dreams.render().numpy(force=True)]
            blob, forked = dreams.snapshot(), dreams.fork(2)
            dreams.reset(np.array([True, False, False]), [5, None, None])
            dreams.instruct([1], ["push the red block to the centre"])
            other = Dreams(3, DreamOptions(str(checkpoint), action_mode=mode, device="cpu"))
            other.restore(blob)
            other.put([0], dreams.select([2]))
        for one in (dreams, forked, other, pickle.loads(pickle.dumps(dreams))):
            seen += [one.step(acts * (len(one) // 3)).reward, one.render().numpy(force=True)]
        runs.append(seen)
        assert all(parameter.dtype == torch.float32 for parameter in dreams.world.parameters())
    assert data_equivalence(runs[1], runs[0], exact=True)


@pytest.mark.parametrize("around", AROUND.values(), ids=AROUND)
def test_a_world_is_the_same_in_any_of_pytorchs_modes(make_world, frames, actions, around):
    """By its own verbs, with tensors that were made inside the mode."""
    world, runs = make_world(memory=3), []
    for context in (nullcontext, around):
        with context():
            state = world.start(frames, actions[:, :3], temperature=1.0)
            returns = world.evaluate(state, actions[:, None, 3:5])
            state, _ = world.step(state, ["move up", "stay still", "move up"])
            branches = state.fork(2).select(torch.tensor([0, 3], device="cpu"))
        branches, outcome = world.step(branches, actions[:2, 4])
        runs.append([returns, outcome.reward, world.render(branches), branches.fused, state.fork(1).fused])
    for one, same in zip(*runs, strict=True):
        assert torch.equal(one, same) and one.dtype == same.dtype


def test_the_callers_modes_are_as_they_were(dream):
    env = dream()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16), DefaultDtype():
        env.reset(seed=0)
        with pytest.raises(ValueError):
            env.step(np.zeros(3, np.float32))
        assert torch.is_inference_mode_enabled() and torch.is_autocast_enabled("cpu")
        assert torch.get_default_dtype() == torch.float64
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


TENSORS = {
    "of a policy that learns": lambda array: torch.as_tensor(array).requires_grad_(),
    "in bfloat16": lambda array: torch.as_tensor(array).bfloat16(),
    "in float64": lambda array: torch.as_tensor(array).double(),
}


@pytest.mark.parametrize("tensor", TENSORS.values(), ids=TENSORS)
def test_actions_may_be_tensors(dream, batch, agents_batch, tensor):
    half = np.full(2, 0.5, np.float32)
    for kind, number in ((dream, 0), (batch, 2), (agents_batch, 2)):
        results = []
        action = half if number == 0 else np.stack([half] * number)
        rows = tensor(half) if number == 0 else [tensor(half) for _ in range(number)]
        for given in (action, tensor(action), rows):
            env = kind()
            env.seed(0) if kind is agents_batch else None
            env.reset(**({} if kind is agents_batch else {"seed": 0}))
            results.append(env.step(given)[:3])
        assert data_equivalence(results[1], results[0], exact=True)
        assert data_equivalence(results[2], results[0], exact=True)


def test_indices_and_pairs_and_beginnings_may_be_tensors(dream, batch, frames, actions):
    index, pair = dream(action_mode="discrete"), dream(action_mode="both")
    index.reset(seed=0), pair.reset(seed=0)
    index.step(torch.tensor(2)), pair.step((0, torch.zeros(2, requires_grad=True)))
    seen = {"frames": torch.as_tensor(frames[0]), "actions": torch.as_tensor(actions[0, :3]).requires_grad_()}
    expected = dream().reset(options={"frames": frames[0], "actions": actions[0, :3]})[0]
    assert np.array_equal(dream().reset(options=seen)[0], expected)
    found = batch().reset(options=seen)[0]
    assert np.abs(found[1].astype(int) - expected).max() <= 1


@pytest.mark.parametrize("id", TWINS)
def test_twins_take_tensors(id):
    results = []
    for kind in (np.asarray, lambda action: torch.as_tensor(action).requires_grad_()):
        env = gym.make(id).unwrapped
        env.reset(seed=0)
        results.append(env.step(kind(np.full(env.action_space.shape, 0.5, np.float32))))
        env.close()
    assert data_equivalence(*results, exact=True)


# -- branching by other names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["dream", "batch", "agents_batch", *TWINS])
def test_a_state_can_be_got_and_set(request, kind):
    env = gym.make(kind).unwrapped if kind in TWINS else request.getfixturevalue(kind)()
    env.reset()
    state = env.get_state()
    expected = follow(env)
    env.set_state(state)
    assert data_equivalence(follow(env), expected, exact=True)


# -- processes -------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.environ.get("MUJOCO_GL") != "egl", reason="only EGL hangs")
def test_a_forked_worker_says_that_it_cannot_render():
    """Instead of hanging, in `gym.make_vec`'s workers too, where the parent has rendered; a spawned one can."""
    env = gym.make(TWINS[0])
    first, _ = env.reset(seed=0)
    context, heard = multiprocessing.get_context("fork"), multiprocessing.get_context("fork").Queue()

    def child() -> None:
        for use in (lambda: env.step(STILL), lambda: gym.make(TWINS[0]).reset(seed=0), env.close):
            try:
                use()
            except RuntimeError as error:
                heard.put(str(error))
        heard.put("closed")

    worker = context.Process(target=child)
    worker.start()
    found = [heard.get(timeout=60) for _ in range(3)]
    worker.join(60)
    assert worker.exitcode == 0 and found[2] == "closed"
    assert all("forked from one that had already opened EGL" in each and "spawn" in each for each in found[:2])
    spawned = gym.make_vec(TWINS[0], 1, vectorization_mode="async", vector_kwargs={"context": "spawn"})
    assert np.array_equal(spawned.reset(seed=0)[0][0], first)
    spawned.close(), env.close()
