"""Gymnasium's wrappers, and Minari's collector, do on dreams what they do on anything else."""

import gc
import warnings

import gymnasium as gym
import imageio.v3 as imageio
import minari
import numpy as np
import pytest
from gymnasium import wrappers
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import vector

STEPS = 4
"""Of an episode."""
ZERO = np.zeros((64, 64, 3), np.uint8)


@pytest.fixture
def make(checkpoint):
    """Makes a dream whose episodes take four steps."""

    def make(**arguments):
        arguments = {"temperature": 1.0, "device": "cpu", "max_episode_steps": STEPS} | arguments
        return gym.make("worldgym/Dream-v0", world=str(checkpoint), **arguments)

    return make


@pytest.fixture
def make_vec(checkpoint):
    """Makes two such dreams in a batch."""

    def make_vec(**arguments):
        arguments = {"temperature": 1.0, "device": "cpu", "max_episode_steps": STEPS, "num_envs": 2} | arguments
        return gym.make_vec("worldgym/Dream-v0", world=str(checkpoint), **arguments)

    return make_vec


def play(env, count=STEPS, scale=1.0):
    """Observations [count + 1], rewards [count] and infos [count + 1] of seeded random actions."""
    rng = np.random.default_rng(0)
    observation, info = env.reset(seed=3)
    observations, rewards, infos = [observation], [], [info]
    for _ in range(count):
        action = rng.uniform(-scale, scale, env.action_space.shape).astype(np.float32)
        observation, reward, _, _, info = env.step(action)
        observations.append(observation), rewards.append(reward), infos.append(info)
    return observations, rewards, infos


# -- what is seen --------------------------------------------------------------------------------------------------


def gray(frame):
    return frame @ np.array([0.2125, 0.7154, 0.0721])


def halve(frame):
    return frame.reshape(*frame.shape[:-3], 32, 2, 32, 2, 3).mean((-4, -2))


SEEN = {
    "stacked": (lambda env: wrappers.FrameStackObservation(env, 3), lambda seen: np.stack(([seen[0]] * 2 + seen)[-3:])),
    "grey": (wrappers.GrayscaleObservation, lambda seen: gray(seen[-1])),
    "small": (lambda env: wrappers.ResizeObservation(env, (32, 32)), lambda seen: halve(seen[-1])),
    "flat": (wrappers.FlattenObservation, lambda seen: seen[-1].ravel()),
    "folded": (lambda env: wrappers.ReshapeObservation(env, (64, 192)), lambda seen: seen[-1].reshape(64, 192)),
    "float": (lambda env: wrappers.DtypeObservation(env, np.float32), lambda seen: seen[-1].astype(np.float32)),
    "late": (lambda env: wrappers.DelayObservation(env, 1), lambda seen: seen[-2] if len(seen) > 1 else ZERO),
    "upside down": (
        lambda env: wrappers.TransformObservation(env, lambda frame: frame[::-1], None),
        lambda seen: seen[-1][::-1],
    ),
}


@pytest.mark.parametrize(("wrap", "expected"), SEEN.values(), ids=SEEN)
def test_what_is_seen(make, wrap, expected):
    env = wrap(make())
    plain, (found, _, _) = play(make())[0], play(env)
    for count, observation in enumerate(found):
        assert observation in env.observation_space
        np.testing.assert_allclose(observation, expected(plain[: count + 1]), atol=1)


SEEN_BY_ALL = {
    "grey": (vector.GrayscaleObservation, gray),
    "small": (lambda env: vector.ResizeObservation(env, (32, 32)), halve),
    "flat": (vector.FlattenObservation, lambda frames: frames.reshape(2, -1)),
    "folded": (lambda env: vector.ReshapeObservation(env, (64, 192)), lambda frames: frames.reshape(2, 64, 192)),
    "float": (lambda env: vector.DtypeObservation(env, np.float32), lambda frames: frames.astype(np.float32)),
    "upside down": (
        lambda env: vector.VectorizeTransformObservation(
            env, wrappers.TransformObservation, func=lambda frame: frame[::-1], observation_space=None
        ),
        lambda frames: frames[:, ::-1],
    ),
    "dark": (lambda env: vector.TransformObservation(env, lambda frames: frames // 2), lambda frames: frames // 2),
}


@pytest.mark.parametrize(("wrap", "expected"), SEEN_BY_ALL.values(), ids=SEEN_BY_ALL)
def test_what_a_batch_sees(make_vec, wrap, expected):
    """Through the end of an episode and the step that resets."""
    plain, found = (play(env, STEPS + 2)[0] for env in (make_vec(), wrap(make_vec())))
    for frames, observation in zip(plain, found, strict=True):
        np.testing.assert_allclose(observation, expected(frames), atol=1)


def test_skipped_frames_are_maximal_and_their_rewards_summed(make):
    frames, rewards, _ = play(make(max_episode_steps=20), 4)
    env = wrappers.MaxAndSkipObservation(make(max_episode_steps=20), skip=4)
    env.reset(seed=3)
    held = np.random.default_rng(0).uniform(-1, 1, 2).astype(np.float32)
    observation, reward, *_ = env.step(held)
    plain = make(max_episode_steps=20)
    plain.reset(seed=3)
    steps = [plain.step(held) for _ in range(4)]
    assert np.array_equal(observation, np.maximum(steps[-2][0], steps[-1][0]))
    assert reward == pytest.approx(sum(step[1] for step in steps))
    assert steps[0][1] == rewards[0] and np.array_equal(steps[0][0], frames[1])


def test_time_is_seen(make):
    env = wrappers.TimeAwareObservation(make(), flatten=False, normalize_time=False)
    found = play(env)[0]
    assert [int(observation["time"][0]) for observation in found] == list(range(STEPS + 1))


def test_a_render_joins_latent_observations(make):
    env = wrappers.AddRenderObservation(make(obs_type="latent", render_mode="rgb_array"), render_only=False)
    plain = play(make())[0]
    for observation, frame in zip(play(env)[0], plain, strict=True):
        assert np.array_equal(observation["pixels"], frame) and observation["state"].ndim == 1


def test_one_of_both_observations_is_chosen(make, make_vec):
    found = play(wrappers.FilterObservation(make(obs_type="both"), ["pixels"]))[0]
    batched = play(vector.FilterObservation(make_vec(obs_type="both"), ["pixels"]))[0]
    assert [set(observation) for observation in (found[0], batched[0])] == [{"pixels"}, {"pixels"}]
    assert all(np.array_equal(one["pixels"], frame) for one, frame in zip(found, play(make())[0], strict=True))


@pytest.mark.parametrize("batched", [False, True])
def test_observations_are_normalised(make, make_vec, batched):
    """By what was seen so far: the running mean is that of the plain frames."""
    plain = play(make_vec() if batched else make())[0]
    env = (vector if batched else wrappers).NormalizeObservation(make_vec() if batched else make())
    found = play(env)[0]
    assert np.isfinite(found).all()
    mean = np.asarray(plain).reshape(-1, 64, 64, 3).mean(0)
    np.testing.assert_allclose(env.obs_rms.mean, mean, atol=0.2)


@pytest.mark.parametrize("batched", [False, True])
def test_latents_are_rescaled(make, make_vec, batched):
    family, plain = (vector, make_vec) if batched else (wrappers, make)
    expected = play(plain(obs_type="latent"))[0]
    env = family.RescaleObservation(plain(obs_type="latent"), np.float32(-1), np.float32(1))
    np.testing.assert_allclose(play(env)[0], np.asarray(expected) / 10, atol=1e-6)


@pytest.mark.parametrize(
    "spoil", [lambda env: wrappers.AddWhiteNoise(env, 0.2), lambda env: wrappers.ObstructView(env, 0.2, 8)]
)
def test_renders_are_spoilt_and_dreams_are_not(make, spoil):
    """Spoilers draw from the dream's generator, and the dream goes on as it would have."""
    (plain, rewards, _) = play(make())
    (found, same, _) = play(wrappers.AddRenderObservation(spoil(make(obs_type="latent", render_mode="rgb_array"))))
    changed = np.any(np.asarray(found) != np.asarray(plain), -1).mean()
    assert rewards == same and 0.05 < changed < 0.5


# -- what is done --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batched", [False, True])
def test_actions_are_clipped_and_rescaled(make, make_vec, batched):
    family, plain = (vector, make_vec) if batched else (wrappers, make)
    shape = (2, 2) if batched else (2,)
    bold, half = np.full(shape, 7.0, np.float32), np.full(shape, 0.75, np.float32)
    for wrap, given, meant in (
        (family.ClipAction, bold, np.ones(shape, np.float32)),
        (lambda env: family.RescaleAction(env, np.float32(0), np.float32(1)), half, np.full(shape, 0.5, np.float32)),
        (lambda env: family.TransformAction(env, np.negative, env.action_space), half, -half),
    ):
        one, other = wrap(plain()), plain()
        one.reset(seed=3), other.reset(seed=3)
        found, expected = one.step(given), other.step(meant)
        assert np.array_equal(found[0], expected[0]) and np.array_equal(found[1], expected[1])


def test_actions_stick(make):
    """The first goes on and on."""
    env, plain = wrappers.StickyAction(make(), repeat_action_probability=0.999999), make()
    env.reset(seed=3), plain.reset(seed=3)
    first, *others = np.random.default_rng(0).uniform(-1, 1, (STEPS, 2)).astype(np.float32)
    for action in (first, *others):
        assert np.array_equal(env.step(action)[0], plain.step(first)[0])


def test_wrappers_of_one_are_made_wrappers_of_a_batch(make_vec):
    bold = np.full((2, 2), 7.0, np.float32)
    env = vector.VectorizeTransformAction(make_vec(), wrappers.ClipAction)
    env = vector.VectorizeTransformReward(env, wrappers.TransformReward, func=lambda reward: 2 * reward)
    plain = make_vec()
    env.reset(seed=3), plain.reset(seed=3)
    found, expected = env.step(bold), plain.step(np.ones((2, 2), np.float32))
    assert np.array_equal(found[0], expected[0])
    np.testing.assert_allclose(found[1], 2 * expected[1])


def test_a_grid_of_actions(make):
    """What DQN needs to act on vectors."""
    env = wrappers.DiscretizeAction(make(), bins=3)
    plain = make()
    env.reset(seed=3), plain.reset(seed=3)
    middle = env.action_space.n // 2
    meant = env.action(middle)  # the middle but for rounding
    np.testing.assert_allclose(meant, 0, atol=1e-6)
    assert np.array_equal(env.step(middle)[0], plain.step(meant)[0])


def test_repeated_actions_sum_their_rewards(make):
    env, plain = wrappers.RepeatAction(make(), num_repeats=3), make()
    env.reset(seed=3), plain.reset(seed=3)
    action = np.array([0.5, -0.5], np.float32)
    steps = [plain.step(action) for _ in range(3)]
    observation, reward, *_ = env.step(action)
    assert np.array_equal(observation, steps[-1][0]) and reward == pytest.approx(sum(step[1] for step in steps))


# -- what is earned ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batched", [False, True])
def test_rewards_are_transformed_and_clipped(make, make_vec, batched):
    family, plain = (vector, make_vec) if batched else (wrappers, make)
    expected = np.asarray(play(plain())[1])
    doubled = play(family.TransformReward(plain(), lambda reward: 2 * reward))[1]
    clipped = play(family.ClipReward(plain(), -0.01, 0.01))[1]
    np.testing.assert_allclose(doubled, 2 * expected)
    np.testing.assert_allclose(clipped, np.clip(expected, -0.01, 0.01))


@pytest.mark.parametrize("batched", [False, True])
def test_rewards_are_normalised(make, make_vec, batched):
    family, plain = (vector, make_vec) if batched else (wrappers, make)
    expected, found = play(plain())[1], play(family.NormalizeReward(plain(), gamma=0.9))[1]
    assert np.isfinite(found).all()
    assert np.array_equal(np.sign(found), np.sign(expected))
    assert not np.allclose(found, expected)


# -- what is counted -----------------------------------------------------------------------------------------------


def test_episode_statistics(make):
    _, rewards, infos = play(wrappers.RecordEpisodeStatistics(make()))
    assert "episode" not in infos[-2]
    assert infos[-1]["episode"]["r"] == pytest.approx(sum(rewards)) and infos[-1]["episode"]["l"] == STEPS


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_episode_statistics_of_a_batch(make_vec, mode):
    """Over two episodes, the first of which must not leak into the second."""
    count = 2 * STEPS + (mode is AutoresetMode.NEXT_STEP)
    _, rewards, infos = play(vector.RecordEpisodeStatistics(make_vec(autoreset_mode=mode)), count)
    episodes = [info["episode"] for info in infos if "episode" in info]
    assert [episode["l"].tolist() for episode in episodes] == [[STEPS] * 2] * 2
    np.testing.assert_allclose(episodes[0]["r"], np.sum(rewards[:STEPS], 0), rtol=1e-5)
    np.testing.assert_allclose(episodes[1]["r"], np.sum(rewards[-STEPS:], 0), rtol=1e-5)


def test_a_time_limit_of_one_s_own(make):
    env = wrappers.TimeLimit(make().unwrapped, 2)
    env.reset(seed=0)
    still = np.zeros(2, np.float32)
    assert [env.step(still)[2:4] for _ in range(2)] == [(False, False), (False, True)]


def test_an_autoreset_wrapper_begins_anew(make):
    env = wrappers.Autoreset(make())
    env.reset(seed=0)
    still = np.zeros(2, np.float32)
    ends = [env.step(still)[3] for _ in range(2 * STEPS + 1)]
    assert [count for count, end in enumerate(ends) if end] == [STEPS - 1, 2 * STEPS]


def test_infos_as_a_list(make_vec):
    infos = play(vector.DictInfoToList(make_vec()))[2]
    assert len(infos[-1]) == 2
    assert all({"success", "uncertainty", "num_frames"} <= set(info) for info in infos[-1])


def test_wrappers_without_a_batched_kind_go_inside(checkpoint):
    """`vectorization_mode="sync"` wraps each dream; they share one model."""
    env = gym.make_vec(
        "worldgym/Dream-v0", 2, vectorization_mode="sync", world=str(checkpoint), device="cpu",
        wrappers=[lambda one: wrappers.FrameStackObservation(one, 3)],
    )  # fmt: skip
    observations, _ = env.reset(seed=0)
    assert observations.shape == (2, 3, 64, 64, 3)
    assert env.envs[0].unwrapped.world is env.envs[1].unwrapped.world
    env.close()


# -- what is kept --------------------------------------------------------------------------------------------------


def test_renders_are_collected(make):
    env = wrappers.RenderCollection(make(render_mode="rgb_array"), pop_frames=False)
    frames = play(env)[0]
    assert all(np.array_equal(a, b) for a, b in zip(env.render(), frames, strict=True))


def test_a_video_is_recorded(make, tmp_path):
    env = wrappers.RecordVideo(make(render_mode="rgb_array"), str(tmp_path / "videos"), episode_trigger=lambda _: True)
    play(env), play(env)
    env.close()
    videos = sorted((tmp_path / "videos").glob("*.mp4"))
    assert [len(imageio.imread(video)) for video in videos] == [STEPS + 1] * 2


def test_a_video_of_a_batch_is_recorded(make_vec, tmp_path):
    env = vector.RecordVideo(
        make_vec(render_mode="rgb_array"),
        str(tmp_path / "videos"),
        video_aspect_ratio=(2, 1),
        episode_trigger=lambda _: True,
    )
    play(env)
    env.close()
    (video,) = (tmp_path / "videos").glob("*.mp4")
    assert imageio.imread(video).shape == (STEPS + 1, 64, 128, 3)


@pytest.fixture
def datasets(tmp_path, monkeypatch):
    """A place for datasets; Minari leaves closing its temporary folders there to the garbage collector."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning")
@pytest.mark.parametrize("mode", ["vector", "text", "discrete"])
def test_minari_collects_a_dream(make, datasets, mode):
    """Every frame comes back exactly, and the id in the dataset makes the dream again.

    Infos, too, where those of reset have the keys of those of steps, as Minari wants it: sentences add "action_ok".
    """
    env = minari.DataCollector(make(action_mode=mode), record_infos=mode == "vector", jpeg_encoding=False)
    env.action_space.seed(0)
    expected = []
    for seed in range(2):
        observations, actions, infos = [env.reset(seed=seed)[0]], [], []
        for _ in range(STEPS):
            actions.append(env.action_space.sample())
            observation, *_, info = env.step(actions[-1])
            observations.append(observation), infos.append(info)
        expected.append((observations, actions, infos))
    env.create_dataset(
        f"dream/{mode}-v0", algorithm_name="random", description="", author="me", author_email="-", code_permalink="-"
    )
    env.close()

    dataset = minari.load_dataset(f"dream/{mode}-v0")
    episodes = list(dataset.iterate_episodes())
    assert len(episodes) == 2
    for episode, (observations, actions, infos) in zip(episodes, expected, strict=True):
        assert np.array_equal(episode.observations, observations)
        assert len(episode.actions) == STEPS
        assert all(np.array_equal(found, action) for found, action in zip(episode.actions, actions, strict=True))
        assert episode.truncations.tolist() == [False] * (STEPS - 1) + [True]
        if mode == "vector":
            assert episode.infos["uncertainty"][1:].tolist() == [info["uncertainty"] for info in infos]
    again = dataset.recover_environment()
    assert np.array_equal(again.reset(seed=0)[0], expected[0][0][0])
    again.close()
