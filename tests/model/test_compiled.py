"""A compiled step is the plain step."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from worldgym.dreams import DreamOptions, Dreams
from worldgym.errors import UserError
from worldgym.model import compiled as compiled_module
from worldgym.world import WorldModel, WorldState

from ..conftest import tiny_world

pytest.importorskip("openvino")


@contextmanager
def skipped_without_avx2() -> Iterator[None]:
    """OpenVINO has no group normalisation for processors without AVX2."""
    try:
        yield
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module", params=[(1, 0, 1), (2, 2, 2)], ids=["one", "two, told of motion"])
def pair(request) -> tuple[WorldModel, WorldModel, int]:
    """A world, the same compiled for so many dreams, and how many. Compiling takes seconds."""
    memory, prompt, count = request.param
    plain = tiny_world(memory=memory, prompt=prompt)
    with skipped_without_avx2():
        return plain, copy.deepcopy(plain).compile_for(count), count


def taken(monkeypatch) -> list[int]:
    """Sizes of the batches that compiled steps have taken."""
    sizes, step = [], compiled_module.CompiledStep.step

    def counted(self, cache, *arguments):
        sizes.append(len(cache))
        return step(self, cache, *arguments)

    monkeypatch.setattr(compiled_module.CompiledStep, "step", counted)
    return sizes


TIE = 1e-3
"""Logits that are nearer to each other than this may change places by rounding, which differs between processors."""


def decided(world: WorldModel, state: WorldState, action: np.ndarray) -> np.ndarray:
    """bool [b]: dreams in whose next step every token is likelier than any other by more than a tie."""
    margins, score = [], world.dynamics.scale_head._score

    def watched(*arguments):
        logits = score(*arguments)
        best, second = logits.topk(2, -1).values.unbind(-1)
        margins.append((best - second).amin(1))
        return logits

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.dynamics.scale_head, "_score", watched)
        world.step(WorldState.restore(state.snapshot()), action)
    return (torch.stack(margins).amin(0) > TIE).numpy()


def same_step(plain: WorldModel, fast: WorldModel, one: WorldState, other: WorldState, action: np.ndarray):
    """Both worlds' next states, and how many of the dreams could be compared: those without a tie."""
    clear = decided(plain, one, action)
    one, expected = plain.step(one, action)
    other, found = fast.step(other, action)
    for name in ("reward", "success", "terminated", "uncertainty"):
        torch.testing.assert_close(getattr(found, name)[clear], getattr(expected, name)[clear], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(other.fused[clear], one.fused[clear], atol=1e-3, rtol=1e-3)
    apart = (fast.render(other).int() - plain.render(one).int()).abs().flatten(1).amax(1)
    assert (apart[clear] <= 1).all()
    if not clear.all():  # the two may have taken different turns
        other = WorldState.restore(one.snapshot())
    return one, other, int(clear.sum())


def test_compiled_dreams_are_the_same_dreams(pair, frames, actions, monkeypatch):
    """Over two new windows, in a fork, and after a snapshot."""
    plain, fast, count = pair
    sizes, compared = taken(monkeypatch), 0
    one, other = (world.start(frames[:count, :1]) for world in (plain, fast))
    for when in range(9):
        one, other, clear = same_step(plain, fast, one, other, actions[:count, when])
        compared += clear
    assert sizes == [count] * 9 and compared >= 5 * count, compared
    one, other = (state.fork(1) for state in (one, other))
    one, other, _ = same_step(plain, fast, one, other, -actions[:count, 0])
    other = WorldState.restore(other.snapshot())
    same_step(plain, fast, one, other, actions[:count, 1])


def test_what_is_not_compiled_goes_on_as_ever(pair, frames, actions, monkeypatch):
    """Chance, and another number of dreams, to the last bit."""
    plain, fast, count = pair
    sizes = taken(monkeypatch)
    for dreams, temperature in ((count, 1.0), (3, 0.0)):
        expected, found = (
            world.step(world.start(frames[:dreams, :1], temperature=temperature), actions[:dreams, 0])[1].reward
            for world in (plain, fast)
        )
        assert torch.equal(found, expected)
    assert not sizes


@pytest.mark.parametrize("pair", [(2, 2, 2)], indirect=True, ids=["two, told of motion"])
def test_dreams_that_are_not_equally_far_along_go_on_as_ever(pair, frames, actions, monkeypatch):
    plain, fast, _ = pair
    found = []
    for world in (plain, fast):
        with monkeypatch.context() as patch:
            patch.setattr(fast, "compiled", {})
            state, _ = world.step(world.start(frames[:2, :1]), actions[:2, 3])
        state = state.put(torch.tensor([1]), world.start(frames[1:2, :1]))
        found.append(world.step(state, actions[:2, 0])[1].reward)
    assert torch.equal(*found)


def test_what_cannot_be_compiled_says_so(make_world):
    with pytest.raises(ValueError, match="in_place"):
        make_world("queries").compile_for(1)
    with pytest.raises(ValueError, match="float32"):
        make_world().compute_in(torch.bfloat16).compile_for(1)


def test_a_processor_that_openvino_cannot_compile_for_is_named(make_world, monkeypatch):
    def refuses(*arguments):
        raise RuntimeError("Unsupported operation of type: GroupNormalization")

    monkeypatch.setattr("openvino.Core.compile_model", refuses)
    with pytest.raises(UserError, match="for this processor, which probably lacks AVX2; dream without compiling"):
        make_world().compile_for(1)


def test_an_environment_compiles_for_all_its_dreams_and_for_no_other(checkpoint):
    action = np.array([[0.5, -0.5]] * 2, np.float32)

    def played(compiled: bool) -> np.ndarray:
        with skipped_without_avx2():
            dreams = Dreams(2, DreamOptions(str(checkpoint), device="cpu", compiled=compiled))
        dreams.reset(seeds=[0, 1])
        assert dreams.state is not None
        state = WorldState.restore(dreams.state.snapshot())
        for _ in range(6):
            dreams.step(list(action))
            state, _ = dreams.world.step(state, action)
        assert (2 in dreams.world.compiled) == compiled
        shown = dreams.render().numpy()
        assert np.array_equal(shown, dreams.world.render(state).numpy())
        return shown

    before, _, after = played(False), played(True), played(False)
    assert np.array_equal(before, after)
