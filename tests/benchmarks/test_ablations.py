"""The baselines that benchmarks/ablations.py trains dream what they are taught, and know no future; the worlds of
benchmarks/scaling.py differ in what they say."""

import numpy as np
import pytest
import torch

from worldgym.config import DynamicsConfig, TokenizerConfig, WorldConfig
from worldgym.model.text import PhraseTokenizer
from worldgym.model.tokenizer import Tokenizer

SIZES = {"channels": (8, 16, 16), "latent_channels": 4, "codes": 32, "heads": 2}
DYNAMICS = DynamicsConfig(layers=2, width=64, heads=2, mlp_width=64, window=3, vocabulary=280, outcome_heads=2)
WISH = "reach the centre"


class Data:
    """As much of a recording as a new world asks for."""

    actions, instructions, phrase_list, frames_per_action = np.zeros((1, 2)), (WISH,), ("move up",), 3


@pytest.fixture
def ablations(load_benchmark):
    return load_benchmark("ablations")


@pytest.fixture
def baselines(load_benchmark):
    return load_benchmark("baselines")


@pytest.fixture
def scaling(load_benchmark):
    return load_benchmark("scaling")


@pytest.fixture(params=["raster", "scales"])
def world(request, baselines):
    torch.manual_seed(0)
    raster = request.param == "raster"
    tokenizer = TokenizerConfig(**SIZES, scales=(4,) if raster else (1, 2, 4, 8))
    config = WorldConfig("tiny", 2, (WISH,), (), 3, tokenizer=tokenizer, dynamics=DYNAMICS)
    text = PhraseTokenizer.train((WISH,), DYNAMICS.vocabulary)
    world = baselines.TokenWorld(config, text, Tokenizer(tokenizer), raster).eval().requires_grad_(False)
    torch.nn.init.normal_(world.dynamics.slots)  # untrained, all inputs are as good as equal
    return world


def begun(world, frames):
    return world.start(frames[:, :1], frames[:, :0], np.arange(len(frames)), [WISH] * len(frames), 0.0)


def test_they_draw_what_the_teacher_forced_pass_finds_likeliest(world, frames, actions):
    """Token by token behind a cache, over three frames, and in one pass."""
    state, model = begun(world, frames), world.dynamics
    context, last, ids = state.context, [], []
    for when in range(3):
        drawn = model.draw(state, model.from_vector(torch.from_numpy(actions[:, when])), world.tokenizer)
        last.append(state.latent)
        ids.append(drawn.ids)
        state = state._replace(latent=drawn.latent, steps=when + 1, waiting=drawn.waiting)
    ids = torch.stack(ids, 1)
    logits = model(context, torch.from_numpy(actions[:, :3]), torch.stack(last, 1), ids, world.tokenizer.quantizer)
    assert torch.equal(logits.argmax(-1), ids)
    assert len(ids.unique()) > 3  # else this would say little
    assert ids.shape[-1] == world.config.tokenizer.tokens


def test_later_tokens_change_nothing_before_them(world, frames, actions):
    state, model = begun(world, frames), world.dynamics
    ids = torch.randint(32, (3, 2, model.tokens))
    last, actions = state.latent[:, None].expand(-1, 2, -1, -1, -1), torch.from_numpy(actions[:, :2])
    changed = ids.clone()
    changed[:, 1, -1] = (changed[:, 1, -1] + 1) % 32
    one, other = (model(state.context, actions, last, each, world.tokenizer.quantizer) for each in (ids, changed))
    assert torch.equal(one, other)  # nobody is shown the very last token
    changed[:, 1, 0] = (changed[:, 1, 0] + 1) % 32
    other = model(state.context, actions, last, changed, world.tokenizer.quantizer)
    assert torch.equal(one[:, 0], other[:, 0]) and torch.equal(one[:, 1, 0], other[:, 1, 0])
    assert not torch.equal(one[:, 1, -1], other[:, 1, -1])


def test_a_full_window_begins_anew(world, frames, actions):
    state = begun(world, frames)
    for when in range(4):
        state, outcome = world.step(state, actions[:, when])
    assert state.steps == 1 and int(state.cache.filled[0]) <= len(world.dynamics.cells) + world.dynamics.step
    assert outcome.reward.shape == outcome.uncertainty.shape == (3,)
    assert world.render(state).shape == (3, 64, 64, 3)


def test_a_symmetric_tokenizer_needs_no_context(baselines, frames):
    torch.manual_seed(0)
    tokenizer = baselines.SymmetricTokenizer(TokenizerConfig(**SIZES)).eval()
    images, other = (torch.from_numpy(frames[:, when]).movedim(-1, 1) / 127.5 - 1 for when in range(2))
    with torch.no_grad():
        one, two = (tokenizer.reconstruct(images, context) for context in (images, other))
        map_of_tokens = tokenizer.fuse(tokenizer.quantizer.embed(tokenizer.encode(images, other)))
        torch.testing.assert_close(tokenizer.encode_context(images), map_of_tokens)
    assert torch.equal(one, two)


def test_all_are_as_large(ablations):
    worlds = [ablations.new_world(variant, Data, 0) for variant in ablations.VARIANTS]
    for part in ("tokenizer", "dynamics"):
        sizes = [ablations.num_parameters(getattr(world, part)) for world in worlds]
        assert max(sizes) / min(sizes) < 1.03, (part, sizes)


def test_without_time_all_steps_stand_at_one(ablations):
    variants = {variant.name: variant for variant in ablations.VARIANTS}
    timeless, ours = (ablations.new_world(variants[name], Data, 0).dynamics.layout for name in ("timeless", "ours"))
    when = torch.arange(4)[None]
    (time, *places), (_, *same) = (layout.step_positions(when) for layout in (timeless, ours))
    assert (time == 1).all() and (timeless.prefix_positions(torch.device("cpu"))[0] == 0).all()
    assert all(torch.equal(one, other) for one, other in zip(places, same, strict=True))
    assert torch.equal(timeless.past.step_positions(when), timeless.step_positions(when))  # as read into a cache, too


def test_half_the_resolution_is_the_mean_of_four_pixels(ablations, frames):
    half = ablations.at_resolution(ablations.TOKENIZERS["half"], frames)
    assert half.shape == (*frames.shape[:2], 32, 32, 3) and half.dtype == np.uint8
    assert abs(int(half[0, 1, 3, 5, 2]) - frames[0, 1, 6:8, 10:12, 2].mean()) <= 0.5
    assert ablations.at_resolution(ablations.TOKENIZERS["ours"], frames) is frames
    assert ablations.at_resolution(ablations.TOKENIZERS["half"], half) is half


def test_worlds_of_both_resolutions_are_judged_alike(ablations, frames):
    truth = np.random.default_rng(0).integers(256, size=frames.shape, dtype=np.uint8)
    half = ablations.at_resolution(ablations.TOKENIZERS["half"], truth)
    large, small = (ablations.gain_of_small_pictures(each, each[:, :-1]) for each in (truth, half))
    assert np.array_equal(large, small) and large.shape == (3, 3)


def test_a_longer_memory_has_as_many_frames_in_a_batch(scaling, ablations, recording):
    """And whoever sees 32 pixels a side is taught 32."""
    data, shapes = recording(20, 20), {}
    for variant in scaling.VARIANTS:
        world = ablations.new_world(variant, data, 0)
        shapes[variant.name] = ablations.batches(scaling.Scaling(), data, world).draw(0, 0, 0).frames.shape[:4]
    assert shapes["base"] == shapes["small"] == shapes["large"] == (8, 9, 3, 64)
    assert shapes["half"] == (8, 9, 3, 32)
    assert shapes["window_4"] == (16, 5, 3, 64) and shapes["window_16"] == (4, 17, 3, 64)


def test_sizes_are_what_they_say(scaling, ablations):
    worlds = {variant.name: ablations.new_world(variant, Data, 0) for variant in scaling.VARIANTS}
    sizes = {name: ablations.num_parameters(world.dynamics) for name, world in worlds.items()}
    assert round(sizes["small"] / sizes["base"], 2) == 0.44 and round(sizes["large"] / sizes["base"], 1) == 2.4
    tokens = {name: (world.config.tokenizer.tokens, world.dynamics.layout.cells) for name, world in worlds.items()}
    assert tokens["half"] == (21, 4) and tokens["base"] == (85, 16)
