"""The diffusion decoder of a small world: it begins as the fast decoder, and its chances belong to a dream."""

import copy
import json

import pytest
import torch

from worldgym.decoders.diffusion import DecoderConfig, DiffusionDecoder, normals
from worldgym.decoders.diffusion_frames import DiffusionFrames
from worldgym.decoders.flow import Schedule
from worldgym.decoders.swin import SwinConfig
from worldgym.model.pixels import to_float, to_uint8
from worldgym.train.decoder import dream

CONFIG = DecoderConfig(
    layers=1, heads=2, head_width=12, mlp_width=32,
    swin=SwinConfig(frames=1, schedule=Schedule(4, 1.0), guidance=1.0, drop=0.0),
)  # fmt: skip


@pytest.fixture
def tiny(make_world):
    return make_world("in_place")


@pytest.fixture
def decoder(tiny) -> DiffusionDecoder:
    torch.manual_seed(0)
    return DiffusionDecoder(tiny.tokenizer, CONFIG).eval().requires_grad_(False)


@pytest.fixture
def trained(decoder) -> DiffusionDecoder:
    """As if it had learned something: its last layer is not zero."""
    torch.nn.init.normal_(decoder.refiner.wan.wan.proj_out.weight, std=0.2)
    return decoder


@pytest.fixture
def state(tiny, frames):
    """Where three dreams stand; this decoder remembers all that it shows."""
    return tiny.start(frames[:, :1])


@pytest.fixture
def dreamed(tiny, frames, actions):
    """First frames and the fused maps of five steps, for three dreams."""
    state, maps = tiny.start(frames[:, :1]), []
    for when in range(5):
        state, _ = tiny.step(state, actions[:, when])
        maps.append(state.fused)
    return torch.from_numpy(frames[:, 0]), torch.stack(maps, 1)


def test_untrained_it_shows_what_the_fast_decoder_shows(tiny, decoder, dreamed):
    first, fused = dreamed
    shown = decoder.rerender(tiny.tokenizer, first, fused, torch.arange(3))
    fast = to_uint8(tiny.tokenizer.decode(fused.flatten(0, 1))).unflatten(0, (3, 5))
    assert (shown.int() - fast.int()).abs().max() <= 1


def test_a_dream_looks_the_same_alone_and_in_a_batch(tiny, trained, dreamed):
    first, fused = dreamed
    together = trained.rerender(tiny.tokenizer, first, fused, torch.tensor([5, 6, 7]))
    alone = trained.rerender(tiny.tokenizer, first[1:2], fused[1:2], torch.tensor([6]))
    assert (together[1].int() - alone[0].int()).abs().max() <= 1
    other = trained.rerender(tiny.tokenizer, first[1:2], fused[1:2], torch.tensor([9]))
    assert (other.int() - alone.int()).abs().max() > 1


def test_frame_by_frame_is_the_whole_episode(tiny, trained, dreamed):
    first, fused = dreamed
    seeds, stream, shown = torch.arange(3), trained.start(first), []
    for when in range(5):
        part = fused[:, when : when + 1]
        stream, picture = trained.show(stream, tiny.tokenizer, part, seeds, torch.full_like(seeds, when))
        shown.append(picture)
    assert torch.equal(torch.cat(shown, 1), trained.rerender(tiny.tokenizer, first, fused, seeds))


def test_a_stream_shows_dreams_that_began_at_different_times(tiny, trained, dreamed, state):
    first, fused = dreamed
    seeds, stream = torch.arange(3), DiffusionFrames(trained, tiny, 3)
    whole = trained.rerender(tiny.tokenizer, first, fused, seeds)
    stream.begin([0, 1, 2], first)
    assert torch.equal(stream.look(state), first)
    for when in range(3):
        stream.put([0, 1, 2], fused[:, when], seeds, torch.full_like(seeds, when))
        if when != 1:  # what nobody looked at is shown later, in order
            assert (stream.look(state).int() - whole[:, when].int()).abs().max() <= 1
    stream.begin([1], first[1:2])
    stream.put([0, 1], fused[[0, 1], [3, 0]], seeds[:2], torch.tensor([3, 0]))
    expected = torch.stack([whole[0, 3], whole[1, 0], whole[2, 2]])
    assert (stream.look(state).int() - expected.int()).abs().max() <= 1


def test_a_streams_branches_and_snapshots_continue_as_it_would_have(tiny, trained, dreamed, state):
    first, fused = dreamed
    seeds, stream = torch.arange(3), DiffusionFrames(trained, tiny, 3)
    stream.begin([0, 1, 2], first)
    for when in range(2):
        stream.put([0, 1, 2], fused[:, when], seeds, torch.full_like(seeds, when))
    branch, restored = stream.select([2, 0]), DiffusionFrames(trained, tiny, 3)
    restored.restore(stream.snapshot())
    assert torch.equal(restored.look(state), stream.look(state))
    later = (fused[:, 2], seeds, torch.full_like(seeds, 2))
    stream.put([0, 1, 2], *later)
    restored.put([0, 1, 2], *later)
    branch.put([0, 1], *(part[[2, 0]] for part in later))
    assert torch.equal(restored.look(state), stream.look(state))
    assert (branch.look(state).int() - stream.look(state)[[2, 0]].int()).abs().max() <= 1


def test_save_and_load(tmp_path, tiny, trained, dreamed):
    first, fused = dreamed
    trained.save(tmp_path)
    again = DiffusionDecoder.load(tmp_path, tiny.tokenizer)
    assert again.config == CONFIG
    expected = trained.rerender(tiny.tokenizer, first, fused, torch.arange(3))
    before, after = trained.state_dict(), again.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(after[name], before[name]) for name in before)
    # Where in memory weights lie decides on some processors how sums of them are rounded.
    found = again.rerender(tiny.tokenizer, first, fused, torch.arange(3))
    assert (found.int() - expected.int()).abs().max() <= 1


def test_it_is_trained_on_what_the_world_dreams(tiny, actions, dreamed):
    """Up to the rounding of bfloat16, in which it dreams while the decoder trains."""
    first, fused = dreamed
    maps = dream(tiny, to_float(first), torch.from_numpy(actions[:, :5]))
    assert (maps[:, 0] - fused[:, 0]).abs().mean() < 0.05 * fused[:, 0].abs().mean()


def test_folders_it_cannot_use_are_refused(tmp_path, tiny, decoder):
    with pytest.raises(FileNotFoundError, match="no diffusion decoder"):
        DiffusionDecoder.load(tmp_path, tiny.tokenizer)
    decoder.save(tmp_path)
    retrained = copy.deepcopy(tiny.tokenizer)
    retrained.quantizer.codebook += 0.01
    with pytest.raises(ValueError, match="another tokenizer"):
        DiffusionDecoder.load(tmp_path, retrained)
    found = json.loads((tmp_path / "decoder.json").read_text(encoding="utf-8"))
    (tmp_path / "decoder.json").write_text(json.dumps({**found, "version": 99}), encoding="utf-8")
    with pytest.raises(ValueError, match="another format"):
        DiffusionDecoder.load(tmp_path, tiny.tokenizer)


def test_a_chunk_of_another_length_is_refused(tiny, decoder, dreamed):
    first, fused = dreamed
    zeros = torch.zeros(3, dtype=torch.long)
    with pytest.raises(ValueError, match="1 at a time"):
        decoder.show(decoder.start(first), tiny.tokenizer, fused[:, :2], zeros, zeros)


def test_noise_is_normal_and_each_dreams_own():
    drawn = normals(torch.tensor([1, 2, 1]), torch.tensor([0, 0, 1]), 20_000)
    assert drawn.isfinite().all()
    torch.testing.assert_close(drawn.mean(1), torch.zeros(3), rtol=0, atol=0.03)
    torch.testing.assert_close(drawn.std(1), torch.ones(3), rtol=0, atol=0.03)
    correlation = torch.corrcoef(drawn)
    assert (correlation - torch.eye(3)).abs().max() < 0.03
    assert torch.equal(normals(torch.tensor([2]), torch.tensor([0]), 20_000)[0], drawn[1])
