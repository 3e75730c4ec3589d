"""A stranger's environment, from its Gymnasium id to a dream of it."""

import importlib
import os
import sys
from dataclasses import replace

import gymnasium as gym
import minari
import mujoco
import numpy as np
import pytest

from worldgym.actions import read_codec
from worldgym.config import DynamicsConfig, TokenizerConfig
from worldgym.data import load_episodes, segments_at
from worldgym.envs_real import recording, rendering
from worldgym.envs_real.gym_record import Twin, make_twin, play_episode, record
from worldgym.envs_real.settings import RecordConfig
from worldgym.errors import UserError
from worldgym.files import alone

STRANGER = '''
import os

import gymnasium as gym
import numpy as np


class Slide(gym.Env):
    """A place between 0 and 6, moved right by 0 to 1; the other number of an action does nothing. Out at 5."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    observation_space = gym.spaces.Box(-100.0, 100.0, (1,), np.float32)
    action_space = gym.spaces.Box(np.array([0.0, -30.0], np.float32), np.array([1.0, 0.7], np.float32))

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.np_random.uniform(0, 4)
        return self.observe(), {"is_success": False}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.place += float(action[0])
        return self.observe(), -100.0 * self.place, self.place > 5, False, {"is_success": self.place > 5}

    def observe(self):
        return np.array([self.place], np.float32)

    def render(self):
        """Noise that says where it is; multiples of four, so that a mean of four is exact."""
        return np.random.default_rng(int(1e6 * self.place)).integers(0, 64, (128, 192, 3), np.uint8) * 4


class Seen(Slide):
    """Observes what the other one renders, and is out of time after 3 steps."""

    metadata = {"render_modes": []}
    observation_space = gym.spaces.Box(0, 255, (128, 192, 3), np.uint8)
    observe = Slide.render

    def step(self, action):
        observation, reward, terminated, truncated, _ = super().step(action)
        return observation, reward, terminated, truncated, {}


class Blind(Slide):
    metadata = {"render_modes": ["human"]}


class Unbounded(Slide):
    action_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)


class Written(Slide):
    action_space = gym.spaces.Text(5)


class Framed(Blind):
    """Observes two pictures, of which one is grey and neither is square, and renders none."""

    observation_space = gym.spaces.Dict(
        front=gym.spaces.Box(0, 255, (64, 128, 3), np.uint8),
        place=gym.spaces.Box(-100.0, 100.0, (1,), np.float32),
        side=gym.spaces.Box(0, 255, (128, 64, 1), np.uint8),
    )

    def observe(self):
        front = np.zeros((64, 128, 3), np.uint8)
        front[:, :32], front[:, 96:] = (255, 0, 0), (0, 0, 255)
        side = np.full((128, 64, 1), 100, np.uint8)
        return {"front": front, "place": Slide.observe(self), "side": side}


class Keys(Slide):
    """Of several keys; the first moves it."""

    action_space = gym.spaces.Dict(
        keys=gym.spaces.MultiBinary(2), gear=gym.spaces.Discrete(3, start=1), push=gym.spaces.Box(0.0, 1.0, (1,))
    )

    def step(self, action):
        assert self.action_space.contains(action), action
        self.place += float(action["push"][0]) * action["keys"][0] * action["gear"]
        return self.observe(), -100.0 * self.place, self.place > 5, False, {"is_success": self.place > 5}


class Largest(Slide):
    """Unbounded, as many write it."""

    action_space = gym.spaces.Box(np.finfo(np.float32).min, np.finfo(np.float32).max, (2,), np.float32)


class Late(Slide):
    """Tells success with its last step alone."""

    def step(self, action):
        *outcome, info = super().step(action)
        return *outcome, info if info["is_success"] else {}


class Returns(Slide):
    """What it is made with stands for what it returns."""

    reward, over, success, picture = 1.0, False, False, None

    def step(self, action):
        return self.observe(), self.reward, self.over, False, {"success": self.success}

    def render(self):
        return super().render() if self.picture is None else self.picture


class Mortal(Slide):
    """Its third episode ends the process that it is in, or is told by it what is wrong, as long as it is asked to."""

    def reset(self, *, seed=None, options=None):
        if seed == int(np.random.default_rng([1, 2]).integers(2**31)):
            if os.environ.get("MORTAL") == "exits":
                os._exit(7)
            if os.environ.get("MORTAL") == "raises":
                raise ArithmeticError("no way out")
        return super().reset(seed=seed, options=options)


for kind in (Slide, Seen, Blind, Unbounded, Largest, Late, Mortal, Written, Framed, Keys):
    gym.register(f"{kind.__name__}-v0", kind, max_episode_steps=3 if kind is Seen else 100)
'''

SLIDE = RecordConfig("test/slide-v0", "stranger:Slide-v0", episodes=20, steps=8, seed=1, workers=1)
TOKENIZER = TokenizerConfig(channels=(8, 16, 16), latent_channels=4, codes=32, heads=2)
DYNAMICS = DynamicsConfig(
    layers=2, width=64, heads=2, kv_heads=1, mlp_width=64, head_width=32, head_layers=1, window=4,
    outcome_heads=2,
)  # fmt: skip


class Killed(BaseException):
    """What the operating system does, as far as a test can."""


def killed(*args, **kwargs):
    raise Killed


@pytest.fixture(scope="module", autouse=True)
def stranger(tmp_path_factory):
    """A package of somebody's own, in a folder that worker processes see, too."""
    folder = tmp_path_factory.mktemp("theirs")
    (folder / "stranger.py").write_text(STRANGER, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield importlib.import_module("stranger")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory, stranger):
    """Folder of the datasets, with SLIDE in it."""
    shelf = tmp_path_factory.mktemp("datasets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(shelf))
        record(SLIDE)
        yield shelf


@pytest.fixture(scope="module")
def played(stranger):
    """What SLIDE must turn out as."""
    return [play_episode(SLIDE, index) for index in range(SLIDE.episodes)]


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """An empty place for datasets."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return tmp_path


def assert_complete(dataset_id: str, expected) -> None:
    dataset = minari.load_dataset(dataset_id)
    assert dataset.total_episodes == len(expected)
    for found, episode in zip(dataset.iterate_episodes(), expected, strict=True):
        assert np.array_equal(found.observations, episode["frames"])
        assert np.array_equal(found.actions, episode["actions"])
        for name in ("rewards", "successes", "terminations"):
            assert np.array_equal(found.infos[name], episode[name])


# -- recording -----------------------------------------------------------------------------------------------


def test_the_environment_replays_it(recorded, stranger):
    """Every frame, reward and end, where they belong: those of a step stand in the row of the frame it leads to."""
    data = load_episodes(SLIDE.dataset)
    lengths = np.diff(data.starts)
    assert len(lengths) == 20 and lengths.min() < 9 and lengths.max() == 9
    assert data.instructions == ("Slide-v0",) and data.phrase_list == () and data.environment == SLIDE.env
    assert data.sentences.shape == (len(data.frames), 0) and data.sentence_actions.shape == (len(data.frames), 0, 2)
    assert np.abs(data.actions).max() <= 1
    env = stranger.Slide()
    for episode, (first, end) in enumerate(zip(data.starts, data.starts[1:], strict=False)):
        # The first number an episode draws is the seed of its environment.
        env.reset(seed=int(np.random.default_rng([SLIDE.seed, episode]).integers(2**31)))
        low, high = env.action_space.low, env.action_space.high
        for row in range(first, end):
            square = env.render()[:, 32:160].reshape(64, 2, 64, 2, 3).mean((1, 3))
            assert np.array_equal(data.frames[row], square)
            if row + 1 < end:
                action = np.clip(low + (high - low) * (data.actions[row] + 1) / 2, low, high)
                _, reward, terminated, _, info = env.step(action)
                assert data.rewards[row + 1] == pytest.approx(reward)
                assert data.terminations[row + 1] == terminated and data.successes[row + 1] == info["is_success"]
                assert terminated == (row + 2 == end) or row + 2 - first == 9
    env.close()


def test_minari_makes_the_environment_that_was_recorded(recorded, played):
    env = minari.load_dataset(SLIDE.dataset).recover_environment()
    frame, _ = env.reset(seed=int(np.random.default_rng([SLIDE.seed, 0]).integers(2**31)))
    assert np.array_equal(frame, played[0]["frames"][0])
    for action, expected in zip(played[0]["actions"], played[0]["frames"][1:], strict=True):
        assert np.array_equal(env.step(action)[0], expected)
    env.close()


def test_an_early_end_is_the_last_of_its_episode(recorded):
    data = load_episodes(SLIDE.dataset)
    ended = [int(e) for e in np.flatnonzero(np.diff(data.starts) < 9)]
    last = data.starts[1:][ended] - 1
    segment = segments_at(data, last - 1, 1)
    assert segment.terminations.all() and (segment.rewards < -500).all()
    assert np.array_equal(segment.frames[:, 1], data.frames[last])
    assert data.terminations.sum() >= len(ended) > 0
    for episode in minari.load_dataset(SLIDE.dataset).iterate_episodes():
        ends = episode.infos["terminations"][-1, 0]
        assert episode.terminations.tolist() == [False] * (len(episode.actions) - 1) + [ends]
        assert episode.truncations.tolist() == [False] * (len(episode.actions) - 1) + [not ends]
        assert np.array_equal(episode.rewards, episode.infos["rewards"][1:, 0])


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("exits", "a worker process died with exit status 7 while it played episode 2"),
        ("raises", r"episode 2: Mortal-v0, reset: its reset raised ArithmeticError: no way out .stranger.py, line \d+"),
    ],
)
def test_a_recording_whose_environment_fails_ends_and_keeps_what_it_has(shelf, monkeypatch, how, says):
    """And goes on with the rest when it is asked for again."""
    config = replace(SLIDE, env="stranger:Mortal-v0", episodes=4)
    monkeypatch.setenv("MORTAL", how)
    with pytest.raises(UserError, match=rf"(?s){says}.*; 2 of 4 episodes are kept; the same command records the rest"):
        record(config)
    monkeypatch.delenv("MORTAL")
    asked, in_workers = [], recording.in_workers
    monkeypatch.setattr(
        recording, "in_workers", lambda task, left, workers: asked.extend(left) or in_workers(task, left, workers)
    )
    record(config)
    assert asked == [2, 3]
    assert_complete(config.dataset, [play_episode(config, index) for index in range(4)])


def test_two_recordings_of_one_id_are_refused_at_once(shelf, monkeypatch):
    monkeypatch.setattr(recording, "in_workers", pytest.fail)
    partial = shelf / "test" / "slide-v0.partial"
    partial.mkdir(parents=True)
    refused = pytest.raises(UserError, match="another process is recording test/slide-v0")
    with alone(partial / "lock", "recording"), refused:
        record(SLIDE)
    assert [path.name for path in partial.iterdir()] == ["lock"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"dataset": "mine/robot"}, "'mine/robot' cannot name a Minari data set"),
        ({"resolution": 0}, "resolution is 0"),
        ({"resolution": 65}, "resolution is 65; .*multiples of 8"),
        ({"episodes": 0}, "at least one"),
        ({"steps": 0}, "at least one"),
        ({"workers": 0}, "at least one"),
    ],
)
def test_what_cannot_be_recorded_is_refused_before_anything_is_made(changes, says):
    with pytest.raises(UserError, match=says):
        replace(SLIDE, **changes)


def test_an_episode_follows_from_the_seed_and_its_number(played):
    again, other = play_episode(SLIDE, 4), play_episode(replace(SLIDE, seed=2), 4)
    assert all(np.array_equal(again[name], played[4][name]) for name in again)
    assert not np.array_equal(again["frames"][0], other["frames"][0])
    assert not np.array_equal(played[0]["actions"][0], played[1]["actions"][0])


def test_behaviour_is_smooth_and_of_several_scales():
    still = [play_episode(replace(SLIDE, env="stranger:Seen-v0", steps=3), index)["actions"] for index in range(200)]
    sizes = [np.abs(actions).mean() for actions in still]
    assert np.quantile(sizes, 0.2) < 0.15 and np.quantile(sizes, 0.8) > 0.4
    before, after = (
        np.concatenate([actions[part] for actions in still if len(actions) == 3]).flatten()
        for part in (slice(2), slice(1, 3))
    )
    assert np.corrcoef(before, after)[0, 1] > 0.5


def test_pictures_may_be_observed_and_time_may_run_out():
    episode = play_episode(replace(SLIDE, env="stranger:Seen-v0", resolution=32), 0)
    assert episode["frames"].shape == (4, 32, 32, 3) and len(episode["actions"]) == 3
    assert not episode["successes"].any()  # it tells nothing of success
    assert episode["terminations"].tolist() == [[False]] * 4


def test_what_it_does_not_know_is_said(shelf, capsys):
    record(replace(SLIDE, episodes=1))
    assert "success" not in capsys.readouterr().out
    record(replace(SLIDE, dataset="test/seen-v0", env="stranger:Seen-v0", episodes=1))
    told = capsys.readouterr().out
    assert (
        "success is recorded as False wherever none is reported" in told
        and "3 to 3 steps" in told
        and "0% of the episodes" in told
    )


def test_mujoco_is_recorded(shelf):
    """By a worker, as always: a renderer in this process might be in the way of another test's."""
    record(RecordConfig("test/reacher-v0", "Reacher-v5", episodes=1, steps=2, workers=1))
    data = load_episodes("test/reacher-v0")
    assert data.frames.shape == (3, 64, 64, 3) and data.frames.std() > 20
    assert not np.array_equal(data.frames[0], data.frames[2])


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ("stranger:Unbounded-v0", r"its actions are in Box\(-inf, inf, \(2,\).*finite bounds.*--limits LOW HIGH"),
        ("stranger:Largest-v0", r"its actions are in Box\(-3.4028235e\+38, .*finite bounds \(below 1e\+09"),
        ("stranger:Written-v0", r"actions in Text\(.*cannot be a vector; a dream takes Box, Discrete"),
        ("stranger:Framed-v0", r"renders \['human'\]; a dream needs pictures: .*--picture front or side"),
        ("stranger:Blind-v0", r"renders \['human'\]; a dream needs pictures"),
        ("Atlantis-v0", "cannot make the environment 'Atlantis-v0'"),
        ("atlantis:Slide-v0", "cannot make the environment 'atlantis:Slide-v0'"),
    ],
)
def test_what_cannot_be_dreamed_is_refused(shelf, env, message):
    with pytest.raises(ValueError, match=message):
        record(replace(SLIDE, env=env))
    assert not any(shelf.iterdir())


@pytest.mark.parametrize(
    ("returned", "says"),
    [
        ({"reward": float("nan")}, "returned the reward nan; expected a finite number"),
        ({"reward": float("-inf")}, "returned the reward -inf"),
        ({"reward": None}, "returned the reward None"),
        ({"reward": np.array([1.0])}, r"returned the reward array\(\[1.\]\)"),
        ({"over": np.array([False])}, r"returned array\(\[False\]\) for terminated; expected True or False"),
        ({"over": None}, "returned None for terminated"),
        ({"success": float("nan")}, "reported the success nan in its info; expected True or False"),
        ({"success": 2}, "reported the success 2"),
        ({"picture": np.zeros((64, 64), np.uint8)}, r"rendered uint8 \(64, 64\); a frame must be uint8"),
        ({"picture": [1, 2]}, "rendered list"),
    ],
)
def test_what_an_environment_returns_is_looked_at_when_it_returns_it(stranger, monkeypatch, returned, says):
    for name, value in returned.items():
        monkeypatch.setattr(stranger.Returns, name, value)
    twin = Twin(stranger.Returns("rgb_array"), 64)
    if "picture" not in returned:
        twin.reset(seed=0)
    with pytest.raises(UserError, match=f"step 1: {says}" if "picture" not in returned else f"reset: {says}"):
        twin.step(np.zeros(2, np.float32)) if "picture" not in returned else twin.reset(seed=0)


def test_numbers_of_every_kind_are_taken(stranger, monkeypatch):
    monkeypatch.setattr(stranger.Returns, "reward", np.float32(0.5))
    monkeypatch.setattr(stranger.Returns, "over", np.bool_(True))
    monkeypatch.setattr(stranger.Returns, "success", np.array(1.0))
    twin = Twin(stranger.Returns("rgb_array"), 64)
    twin.reset(seed=0)
    _, reward, terminated, truncated, info = twin.step(np.zeros(2, np.float32))
    assert (reward, terminated, truncated, info["success"]) == (0.5, True, False, True)
    assert (type(reward), type(terminated), type(info["success"])) == (float, bool, bool)


def test_success_that_is_told_with_the_end_alone_is_recorded(shelf, capsys):
    """And what is said before the recording does not deny it."""
    config = replace(SLIDE, env="stranger:Late-v0", steps=40, dataset="test/late-v0", episodes=1)
    record(config)
    assert "success is recorded as False wherever none is reported" in capsys.readouterr().out
    data = load_episodes(config.dataset)
    assert data.successes[:, 0].tolist() == [False] * (len(data.frames) - 1) + [True]


def test_an_environment_in_the_current_folder_is_found(tmp_path, monkeypatch):
    """By a command, whose path does not have it; but it hides nothing that is installed."""
    source = STRANGER.replace('f"{kind', 'f"Here{kind')
    (tmp_path / "lies_here.py").write_text(source, encoding="utf-8")
    (tmp_path / "mujoco.py").write_text("raise RuntimeError", encoding="utf-8")
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place not in ("", os.getcwd())])
    monkeypatch.chdir(tmp_path)
    make_twin("lies_here:HereSlide-v0").close()
    make_twin("Reacher-v5").close()


def test_a_renderer_that_cannot_open_is_no_mistake_of_ours(monkeypatch):
    def refuse(*size):
        raise OSError("no device")

    monkeypatch.setattr(rendering, "Renderer", refuse)
    with pytest.raises(UserError, match=r"MuJoCo cannot open a renderer .*: no device"):
        rendering.open_renderer(mujoco.MjModel.from_xml_string("<mujoco/>"), 64)


# -- other actions, other pictures ---------------------------------------------------------------------------


def test_choices_are_recorded_as_vectors_that_say_what_was_done(shelf):
    config = replace(SLIDE, dataset="test/keys-v0", env="stranger:Keys-v0", episodes=20)
    record(config)
    data = load_episodes(config.dataset)
    codec = read_codec(data.action_space, data.actions.shape[1])
    assert codec.space == importlib.import_module("stranger").Keys.action_space and codec.size == 6
    assert np.array_equal(codec.snap(data.actions), data.actions)
    assert minari.load_dataset(config.dataset).storage.metadata["worldgym_actions"] == codec.describe()
    twin = make_twin(config.env, native=True)
    for episode, (first, end) in enumerate(zip(data.starts, data.starts[1:], strict=False)):
        twin.reset(seed=int(np.random.default_rng([config.seed, episode]).integers(2**31)))
        for row in range(first, end - 1):
            frame, reward, *_ = twin.step(codec.decode(data.actions[row]))
            assert np.array_equal(frame, data.frames[row + 1]) and reward == pytest.approx(data.rewards[row + 1, 0])
    recovered = minari.load_dataset(config.dataset).recover_environment()
    assert recovered.action_space == minari.load_dataset(config.dataset).action_space


def test_choices_stick_and_reach_everything():
    config = replace(SLIDE, env="stranger:Keys-v0", steps=40)
    played = [play_episode(config, index)["actions"] for index in range(120)]
    codec = make_twin(config.env).codec
    for choice in codec.choices:
        chosen = [choice.read(actions) for actions in played]
        counts = np.bincount(np.concatenate(chosen), minlength=len(choice.codes)) / sum(map(len, chosen))
        stayed = np.mean(np.concatenate([np.diff(one) == 0 for one in chosen]))
        assert counts.min() > 0.6 / len(choice.codes)
        assert stayed > 1 / len(choice.codes) + 0.2


def test_limits_are_the_bounds_of_what_has_none(shelf):
    config = replace(SLIDE, dataset="test/wide-v0", env="stranger:Unbounded-v0", limits=(-3.0, 5.0), episodes=1)
    record(config)
    data = load_episodes(config.dataset)
    assert read_codec(data.action_space, 2).space == gym.spaces.Box(-3.0, 5.0, (2,))
    assert data.twin_options == {"limits": [-3.0, 5.0]}
    twin = make_twin(config.env, native=True, **data.twin_options)
    assert twin.action_space == gym.spaces.Box(-3.0, 5.0, (2,))
    with pytest.raises(UserError, match="leave out --limits"):
        record(replace(SLIDE, dataset="test/other-v0", limits=(-3.0, 5.0)))


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_a_picture_becomes_square_as_asked(fit):
    twin = make_twin("stranger:Framed-v0", 16, fit=fit, picture="front")
    frame, _ = twin.reset(seed=0)
    assert frame.shape == (16, 16, 3)
    red, blue = frame[8, :, 0] == 255, frame[8, :, 2] == 255
    match fit:
        case "crop":  # of 128 columns, the middle 64
            assert not red.any() and not blue.any()
        case "pad":  # of as many rows as columns, a quarter each above and below is black
            assert red[:4].all() and blue[-4:].all() and not frame[:4].any() and not frame[-4:].any()
        case "stretch":
            assert red[:4].all() and blue[-4:].all() and (frame[0, :4, 0] == 255).all()


def test_the_fit_and_the_picture_are_kept(shelf):
    config = replace(SLIDE, dataset="test/framed-v0", env="stranger:Framed-v0", picture="side", fit="pad", episodes=1)
    record(config)
    data = load_episodes(config.dataset)
    assert data.twin_options == {"fit": "pad", "picture": "side"}
    assert (data.frames[:, :, 16:48] == 100).all() and not data.frames[:, :, :16].any()
    recovered = minari.load_dataset(config.dataset).recover_environment()
    assert np.array_equal(recovered.reset(seed=0)[0], data.frames[0])
    with pytest.raises(UserError, match=r"--picture names 'top'; its pictures are front, side"):
        make_twin(config.env, picture="top")


def test_bundled_twins_have_no_such_options():
    with pytest.raises(UserError, match="leave out --fit and --limits"):
        RecordConfig(fit="pad", limits=(-1.0, 1.0))


def test_what_is_of_the_tabletop_is_refused(shelf):
    with pytest.raises(ValueError, match="is the Tabletop's; name another one for stranger:Slide-v0"):
        record(RecordConfig(env="stranger:Slide-v0"))
    with pytest.raises(ValueError, match="--variation train is of the Tabletop"):
        record(replace(SLIDE, variation="train"))


# -- and on to a dream ---------------------------------------------------------------------------------------


def test_it_is_trained_on_and_dreamed(recorded, tmp_path):
    from worldgym.train.dynamics import train_dynamics
    from worldgym.train.settings import DynamicsTraining, TokenizerTraining
    from worldgym.train.tokenizer import train_tokenizer

    tokenizer = train_tokenizer(
        TokenizerTraining(
            SLIDE.dataset, tmp_path / "mine" / "tokenizer", steps=2, batch=4, device="cpu", tokenizer=TOKENIZER
        )
    )
    world = train_dynamics(
        DynamicsTraining(
            SLIDE.dataset, tokenizer, tmp_path / "mine" / "world", steps=2, batch=4, processes=1, device="cpu",
            dynamics=DYNAMICS,
        )
    )  # fmt: skip
    dream = gym.make("worldgym/Dream-v0", world=str(world), device="cpu")
    twin = make_twin("stranger:Slide-v0", native=True)
    assert dream.action_space == twin.action_space == importlib.import_module("stranger").Slide.action_space
    assert dream.observation_space == twin.observation_space
    dream.reset(seed=0)
    seen, _ = twin.reset(seed=0)
    dream.reset(options={"frames": seen[None]})
    for _ in range(3):
        frame, reward, *_ = dream.step(dream.action_space.sample())
        assert frame.shape == (64, 64, 3) and np.isfinite(reward)
    dream.close()
    twin.close()
