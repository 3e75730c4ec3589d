"""`decoder="diffusion"`: the same dream, shown by another decoder, behind the same environments."""

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from worldgym import cli
from worldgym.checkpoint import export_world
from worldgym.config import TokenizerConfig
from worldgym.datasets import dream_episodes, write_minari
from worldgym.decoders import DECODERS, DecoderKind, load_decoder
from worldgym.decoders.diffusion import DecoderConfig, DiffusionDecoder
from worldgym.decoders.flow import Schedule
from worldgym.decoders.render import rerender
from worldgym.decoders.swin import SwinConfig
from worldgym.dreams import DreamOptions, Dreams
from worldgym.env import DreamEnv
from worldgym.metrics import sharpness
from worldgym.model.tokenizer import Tokenizer
from worldgym.vector import DreamVectorEnv
from worldgym.world import WorldModel

CONFIG = DecoderConfig(
    layers=1, heads=2, head_width=12, mlp_width=32,
    swin=SwinConfig(frames=1, schedule=Schedule(4, 1.0), guidance=1.0, drop=0.0),
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory, checkpoint):
    """A decoder for the tiny world, as if it had learned something: its last layer is not zero."""
    torch.manual_seed(0)
    decoder = DiffusionDecoder(WorldModel.load(str(checkpoint)).tokenizer, CONFIG)
    torch.nn.init.normal_(decoder.refiner.wan.wan.proj_out.weight, std=0.2)
    path = tmp_path_factory.mktemp("decoder")
    decoder.save(path)
    return path


@pytest.fixture(scope="module")
def shown(tmp_path_factory, checkpoint, folder):
    """The tiny world with its decoder in its folder, in half precision."""
    path = tmp_path_factory.mktemp("worlds") / "shown"
    export_world(checkpoint, path, folder)
    return path


def wander(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (count, 2)).astype(np.float32)


def test_it_shows_the_same_dream_in_other_pictures(shown):
    fast, slow = (DreamEnv(str(shown), device="cpu", decoder=name) for name in ("fast", "diffusion"))
    fast.reset(seed=0), slow.reset(seed=0)
    for action in wander(5):
        one, other = fast.step(action), slow.step(action)
        assert one[1:] == other[1:]
        assert not np.array_equal(one[0], other[0])


def test_it_begins_with_the_frame_that_was_seen(shown, frames, actions):
    env = DreamEnv(str(shown), device="cpu", decoder="diffusion")
    observation, _ = env.reset(seed=0, options={"frames": frames[0], "actions": actions[0, :3]})
    assert np.array_equal(observation, frames[0, -1])


def test_gymnasiums_checker_finds_nothing_to_say(shown, recwarn):
    check_env(gym.make("worldgym/Dream-v0", world=str(shown), device="cpu", decoder="diffusion").unwrapped)
    assert [str(warning.message) for warning in recwarn if "WARN" in str(warning.message)] == []


def test_pictures_nobody_looked_at_change_nothing(shown):
    looked, asleep = (DreamEnv(str(shown), device="cpu", decoder="diffusion", obs_type="latent") for _ in range(2))
    looked.reset(seed=0), asleep.reset(seed=0)
    for action in wander(4):
        looked.step(action), asleep.step(action)
        looked.render()
    assert np.array_equal(looked.render(), asleep.render())


def test_a_fork_cannot_alter_its_parent(shown):
    env, apart = (DreamEnv(str(shown), device="cpu", decoder="diffusion") for _ in range(2))
    for each in (env, apart):
        each.reset(seed=0)
        each.step(wander(1)[0])
    fork = env.fork()
    for action in wander(2, seed=9):
        fork.step(action)
    for action in wander(2):
        assert np.array_equal(env.step(action)[0], apart.step(action)[0])


def test_a_snapshot_continues_exactly(shown):
    env, later = (DreamEnv(str(shown), device="cpu", decoder="diffusion", temperature=1.0) for _ in range(2))
    env.reset(seed=0)
    for action in wander(3):
        env.step(action)
    later.restore(env.snapshot())
    assert np.array_equal(later.render(), env.render())
    for action in wander(3, seed=1):
        assert np.array_equal(later.step(action)[0], env.step(action)[0])


def test_a_snapshot_of_branches_goes_on_in_each(shown):
    env = DreamEnv(str(shown), device="cpu", decoder="diffusion")
    env.reset(seed=0)
    env.step(wander(1)[0])
    env.step(wander(1)[0])
    forked = env.fork(2)
    later = DreamVectorEnv(str(shown), 2, device="cpu", decoder="diffusion")
    later.dreams.restore(forked.dreams.snapshot())
    actions = wander(2, seed=3)
    one, other = (envs.step(actions)[0].astype(int) for envs in (later, forked))
    assert np.abs(one - other).max() <= 2  # a restored fork has its past to itself, which sums in another order


def test_a_picture_that_failed_can_be_looked_at_again(shown, monkeypatch):
    env, calm = (DreamEnv(str(shown), device="cpu", decoder="diffusion", obs_type="latent") for _ in range(2))
    for each in (env, calm):
        each.reset(seed=0)
        each.step(wander(1)[0])
    with monkeypatch.context() as patch:
        patch.setattr(DiffusionDecoder, "show", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            env.render()
    assert np.array_equal(env.render(), calm.render())


def test_a_snapshot_with_other_pictures_is_refused_and_harmless(shown, checkpoint):
    env, fast = DreamEnv(str(shown), device="cpu", decoder="diffusion"), DreamEnv(str(shown), device="cpu")
    env.reset(seed=0), fast.reset(seed=0)
    before = env.snapshot()
    for spoilt, says in ((fast.snapshot(), "the fast decoder"), (before[:-10], "truncated")):
        with pytest.raises(ValueError, match=says):
            env.restore(spoilt)
    with pytest.raises(ValueError, match="another diffusion decoder"):
        fast.restore(before)
    assert env.snapshot() == before


def test_dreams_of_a_batch_end_and_begin_apart(shown):
    envs = DreamVectorEnv(str(shown), 3, max_episode_steps=4, device="cpu", decoder="diffusion")
    envs.reset(seed=0)
    alone = DreamEnv(str(shown), device="cpu", decoder="diffusion")
    envs.reset(options={"reset_mask": np.array([False, True, False])}, seed=[0, 7, 2])
    alone.reset(seed=7)
    for action in wander(3):
        together = envs.step(np.tile(action, (3, 1)))[0]
        expected = alone.step(action)[0]
        assert np.abs(together[1].astype(int) - expected.astype(int)).max() <= 1


def test_rewards_of_frames_see_the_fast_decoders(shown):
    seen = []

    def reward(frames):
        seen.append(frames)
        return np.zeros(len(frames))

    env = DreamEnv(str(shown), device="cpu", decoder="diffusion", reward=reward)
    env.reset(seed=0)
    env.step(wander(1)[0])
    assert np.array_equal(seen[0][0], env.world.render(env.dreams.state)[0].numpy())


def test_what_it_cannot_show_with_is_refused(checkpoint, tmp_path):
    for decoder in ("diffusion", str(tmp_path)):
        with pytest.raises(ValueError, match=r"no diffusion decoder in .*worldgym train decoder"):
            Dreams(1, DreamOptions(str(checkpoint), decoder=decoder, device="cpu"))


def test_a_decoder_of_another_world_is_refused(checkpoint, tmp_path):
    DiffusionDecoder(Tokenizer(TokenizerConfig()), CONFIG).save(tmp_path)
    with pytest.raises(ValueError, match="another tokenizer"):
        Dreams(1, DreamOptions(str(checkpoint), decoder=str(tmp_path), device="cpu"))


def test_an_export_without_a_decoder_where_one_is_promised_writes_nothing(checkpoint, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"decoder\.json"):
        export_world(checkpoint, tmp_path / "world", tmp_path)
    assert not (tmp_path / "world").exists()


def test_render_draws_a_dreamed_episode_anew(shown, frames, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    world = WorldModel.load(str(shown))
    episodes = dream_episodes(world, frames[:2, 0], np.stack([wander(6), wander(6, 1)]))
    write_minari("dreams/tiny-v0", str(shown), episodes)
    out = tmp_path / "render.gif"
    command = ["worldgym", "render", str(shown), "--dataset", "dreams/tiny-v0", "--episode", "1", "--out", str(out)]
    monkeypatch.setattr("sys.argv", command)
    cli.main()
    assert out.exists()
    assert str(out) in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", [*command, "--episode", "2"])
    with pytest.raises(SystemExit):
        cli.main()
    assert "episode is 2" in capsys.readouterr().err


def test_what_is_drawn_anew_is_what_was_seen(shown, frames):
    """With a decoder that adds nothing: what the tokenizer makes of each frame, relative to the first of its window."""
    world = WorldModel.load(str(shown))
    plain = DiffusionDecoder(world.tokenizer, CONFIG).eval().requires_grad_(False)
    drawn = rerender(world, plain, frames[0], seed=0)
    assert np.array_equal(drawn[0], frames[0, 0])
    state = world.start(frames[:1, :1])
    fused = world.see(torch.from_numpy(frames[0, 2:3]), state)
    expected = world.render(replace(state, fused=fused))
    assert np.abs(drawn[2].astype(int) - expected[0].numpy().astype(int)).max() <= 1


def test_the_bundled_decoder_is_sharper_than_the_fast_one():
    fast, slow = (gym.make("worldgym/Tabletop-v0", device="cpu", decoder=name) for name in ("fast", "diffusion"))
    fast.reset(seed=0), slow.reset(seed=0)
    pairs = np.stack([(fast.step(action)[0], slow.step(action)[0]) for action in wander(5)], 1)
    blurred, drawn = sharpness(pairs).mean(1)
    assert drawn > 1.1 * blurred


def test_a_decoder_is_loaded_once(shown):
    world = WorldModel.load(str(shown))
    assert load_decoder(str(shown), "diffusion", world) is load_decoder(str(shown), "diffusion", world)


NEGATIVE = """
class NegativeFrames:
    fingerprint = "negative"

    def __init__(self, world, dreams):
        self.world, self.shown = world, [0] * dreams

    def begin(self, rows, frames):
        for row in rows:
            self.shown[row] = 0

    def put(self, rows, fused, seeds, counters):
        for row in rows:
            self.shown[row] += 1

    def look(self, state):
        return 255 - self.world.render(state)

    def select(self, rows):
        return self

    def replace(self, rows, other): ...

    def snapshot(self):
        return {}

    def restore(self, tensors): ...
"""


def test_a_decoder_is_a_file_and_a_row(tmp_path, monkeypatch, checkpoint):
    (tmp_path / "negative.py").write_text(NEGATIVE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(DECODERS, "negative", DecoderKind("colours turned round", "negative:NegativeFrames"))
    fast, turned = (DreamEnv(str(checkpoint), device="cpu", decoder=name) for name in ("fast", "negative"))
    fast.reset(seed=0), turned.reset(seed=0)
    for action in wander(3):
        assert np.array_equal(turned.step(action)[0], 255 - fast.step(action)[0])
    with pytest.raises(ValueError, match="decoder"):
        fast.restore(turned.snapshot())
