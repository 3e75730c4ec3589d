"""The code that runs on a GPU, on a GPU that is not there: a tensor that was left on the CPU fails here.

Under PyTorch's fake tensors, what is on "cuda:0" has a shape, a type and a device, and no values. What is on the host
is real, as are the decisions that the host takes by it; whatever the host reads from the card is zero, or true. So the
very code of dreams, planners and trainings runs. Two things are not reached: backward passes, for which a PyTorch
without CUDA has no engine (gradients are put in by hand), and kernels: that a result is right is for other tests.
"""

import ctypes
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

from worldgym.config import RecurrentConfig, TokenizerConfig
from worldgym.data import load_episodes
from worldgym.dreams import DreamOptions, Dreams, loading
from worldgym.model.outcome_heads import OutcomeHeads
from worldgym.planners.cem import CEM
from worldgym.planners.mpc import DreamReturns
from worldgym.train.decoder import DecoderStage
from worldgym.train.dynamics import DynamicsStage
from worldgym.train.loop import Stage
from worldgym.train.recurrent_state import RecurrentStage
from worldgym.train.settings import DecoderTraining, DynamicsTraining, RecurrentTraining, TokenizerTraining
from worldgym.train.tokenizer import TokenizerStage
from worldgym.world import WorldModel

from .conftest import tiny_config, tiny_world, write_world
from .train.test_decoder import TINY

CARD = torch.device("cuda:0")
RECURRENT = RecurrentConfig(width=48, embedding=32, head_width=32, channels=(4, 8, 8), observed=3)
aten = torch.ops.aten


class Card(FakeTensorMode):
    """One fake GPU beside the real host."""

    def dispatch(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        to = kwargs.get("device")
        if not any(isinstance(tensor, FakeTensor) for tensor in tensors) and (to is None or to.type == "cpu"):
            return func(*args, **kwargs)  # all on the host
        if func is aten._local_scalar_dense.default:
            return args[0].dtype == torch.bool or torch.zeros((), dtype=args[0].dtype).item()
        if func is aten._to_copy.default and to is not None and to.type == "cpu":
            return torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        if func is aten.nonzero.default:  # how many they are is unknown: all
            return self._integers(args[0].numel(), args[0].ndim)
        if func is aten.unique_consecutive.default:
            return args[0].clone(), args[0].clone(), args[0].clone()
        if func is aten.bincount.default:  # how large the numbers are is unknown, too
            return self._integers(kwargs.get("minlength", args[-1]))
        args, kwargs = tree_map_only(torch.Tensor, self._described, (args, kwargs))
        return super().dispatch(func, types, args, kwargs)

    def _integers(self, *shape: int) -> FakeTensor:
        return FakeTensor(self, torch.empty(shape, dtype=torch.long, device="meta"), CARD)

    def _described(self, tensor: torch.Tensor) -> FakeTensor:
        """What is on the host, to an operation that runs on the card."""
        return tensor if isinstance(tensor, FakeTensor) else FakeTensor(self, tensor.to("meta"), tensor.device)


class FromTheHost(TorchFunctionMode):
    """Numbers and lists that PyTorch copies to the card behind the other mode's back."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
            place = args[1] if isinstance(args[1], tuple) else (args[1],)
            place = tuple(torch.tensor(part) if isinstance(part, list) else part for part in place)
            args = (args[0], place, *args[2:])
        if func is torch.Tensor.new_tensor:
            return torch.tensor(args[1], dtype=args[0].dtype).to(args[0].device)
        if func in (torch.tensor, torch.as_tensor) and "device" in kwargs:
            return func(*args, **{name: value for name, value in kwargs.items() if name != "device"}).to(
                kwargs["device"]
            )
        return func(*args, **kwargs)


@pytest.fixture(scope="module")
def guard():
    """A PyTorch without CUDA has nothing that selects its devices, which indexing asks for: Meta's, which does nothing,
    stands in."""
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
    guards = (ctypes.c_void_p * 15).in_dll(library, "_ZN3c104impl26device_guard_impl_registryE")
    before, guards[1] = guards[1], guards[1] or guards[14]  # c10::DeviceType's CUDA and Meta
    yield
    guards[1] = before


def move(self: torch.nn.Module, convert, recurse: bool = True) -> torch.nn.Module:
    """`Module._apply`, which cannot swap fake parameters, with new ones in the place of old ones."""
    for child in self.children():
        child._apply(convert)
    for name, weight in self._parameters.items():
        if weight is not None:
            with torch.no_grad():
                self._parameters[name] = torch.nn.Parameter(convert(weight), weight.requires_grad)
    self._buffers |= {name: convert(buffer) for name, buffer in self._buffers.items() if buffer is not None}
    return self


@pytest.fixture
def card(guard, monkeypatch):
    """Inside, "cuda:0" is there."""
    for name, value in {
        "is_available": True, "is_bf16_supported": True, "get_device_name": "a fake card",
        "is_current_stream_capturing": False,
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, lambda *args, value=value, **kwargs: value)
    monkeypatch.setattr(torch.nn.Module, "_apply", move)
    loading._load.cache_clear()
    with FromTheHost(), Card(allow_non_fake_inputs=False):
        yield
    loading._load.cache_clear()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, dataset) -> Path:
    """A world of all parts: memory, motion prompts and a recurrent state."""
    made = tiny_world(memory=2, prompt=2)
    instructions = load_episodes(dataset).instructions
    config = replace(made.config, instructions=instructions, recurrent=RECURRENT)
    return write_world(tmp_path_factory.mktemp("worlds") / "tiny", WorldModel(config, made.text))


def on_card(*tensors: torch.Tensor) -> bool:
    return all(tensor.device == CARD for tensor in tensors)


# -- it would be noticed -----------------------------------------------------------------------------------------------


def test_a_tensor_that_stays_on_the_cpu_is_noticed(card, folder, monkeypatch, frames):
    world, actions = WorldModel.load(str(folder), "cuda:0"), np.zeros((1, 2), np.float32)
    seen = world.config.dynamics.observed
    begin = frames[:1, :seen], np.zeros((1, seen - 1, 2), np.float32)
    world.step(world.start(*begin), actions)
    score = OutcomeHeads.score

    def forgetful(self, fused, motion, instruction):
        return score(self, fused, motion, torch.zeros(instruction.shape))

    monkeypatch.setattr(OutcomeHeads, "score", forgetful)
    with pytest.raises(RuntimeError, match="found at least two devices, cpu and cuda:0"):
        world.step(world.start(*begin), actions)


def test_the_host_is_real_and_what_it_reads_from_the_card_is_zero(card):
    there = torch.arange(3).to(CARD) + 1
    assert isinstance(there, FakeTensor) and on_card(there)
    assert (torch.arange(3) + 1).tolist() == [1, 2, 3] and there.cpu().tolist() == [0, 0, 0] and not there[0].item()


# -- the world ---------------------------------------------------------------------------------------------------------


def test_a_world_dreams_on_the_card(card, folder, frames):
    world = WorldModel.load(str(folder), "cuda:0", torch.bfloat16)
    assert on_card(*world.parameters(), *world.buffers())
    state = world.start(frames, np.zeros((3, 3, 2), np.float32), temperature=1.0)
    for _ in range(world.config.dynamics.window + 1):  # into the next window
        state, outcome = world.step(state, np.zeros((3, 2), np.float32))
        assert on_card(*outcome.__dict__.values(), world.render(state))
    state, _ = world.step(state, list(world.config.phrases[:3]))
    forked = state.fork(2)
    picked = forked.select(torch.tensor([0, 3]).to(CARD))
    picked, _ = world.step(picked, np.zeros((2, 2), np.float32))
    forked, _ = world.step(forked, np.zeros((6, 2), np.float32))
    forked = forked.put(torch.tensor([1, 2]).to(CARD), picked)
    forked, _ = world.step(forked, np.zeros((6, 2), np.float32))  # of which some are further along
    sequences = np.zeros((6, 5, 4, 2), np.float32)
    assert on_card(world.evaluate(forked, sequences, drawn=True), world.evaluate(forked, sequences))
    imagined, outcome = world.step(forked, np.zeros((6, 2), np.float32), drawn=False)
    assert on_card(outcome.reward, imagined.recurrent, world.render(imagined))
    assert on_card(world.observe(frames, np.zeros((3, 3, 2), np.float32)))


# -- dreams and planners -----------------------------------------------------------------------------------------------

OPTIONS: dict[str, dict] = {
    "pixels": {"action_mode": "both"},
    "latent": {"obs_type": "latent", "reward": np.zeros((64, 64, 3), np.uint8)},
    "imagined": {"obs_type": "state", "imagined": True},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_dreams_are_dreamed_on_the_card(card, folder, options):
    dreams = Dreams(3, DreamOptions(str(folder), device="cuda:0", **options))
    some, vector = np.array([True, False, True]), np.zeros(2, np.float32)
    dreams.reset(seeds=range(3))
    dreams.step([vector] * 3)
    dreams.step([vector] * 3, some)
    if dreams.options.action_mode == "both":
        dreams.step([dreams.phrases[0], vector, dreams.phrases[1]])
    dreams.reset(some)
    dreams.step([vector] * 3)  # of which one is further along
    branch = dreams.select([2, 0])
    branch.step([vector] * 2)
    dreams.put([0, 1], branch)
    dreams.fork(2).step([vector] * 6)
    dreams.instruct([1], [dreams.world.config.instructions[1]])
    seen = dreams.observe()
    assert isinstance(seen, torch.Tensor) and on_card(seen, dreams.render())
    dreams.snapshot()


@pytest.mark.parametrize("drawn", [False, True])
def test_a_plan_is_searched_on_the_card(card, folder, frames, drawn):
    world = WorldModel.load(str(folder), "cuda:0")
    returns = DreamReturns(world, world.config.instructions[0], drawn)
    returns.ground(frames[0], np.zeros((3, 2), np.float32))
    plan = CEM(returns, np.full(2, -1.0), np.full(2, 1.0), horizon=2, samples=8, iterations=1).plan()
    assert plan.actions.shape == (2, 2)


# -- trainings ---------------------------------------------------------------------------------------------------------


def step_of(stage: Stage, step: int = 0) -> None:
    """What the loop does with a stage, without a backward pass."""
    model, optimizer = stage.model.train().to(CARD), stage.optimizer  # Accelerate moves it
    optimizer.param_groups[0]["params"] = trained = [weight for weight in model.parameters() if weight.requires_grad]
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16, enabled=stage.name != "state"):
        losses = model(*stage.draw(step, 0, 1))
    assert on_card(*losses.values(), *model.parameters()) and trained
    for weight in trained:
        weight.grad = torch.zeros_like(weight)
    torch.nn.utils.clip_grad_norm_(trained, stage.clip)
    optimizer.step()
    assert on_card(*(part for state in optimizer.state.values() for name, part in state.items() if name != "step"))


def test_a_tokenizer_takes_a_training_step_on_the_card(card, dataset, tmp_path):
    sizes = TokenizerConfig(resolution=64, channels=(8, 16, 16), latent_channels=4, codes=32, heads=2)
    step_of(TokenizerStage(TokenizerTraining(dataset, tmp_path / "run", batch=4, tokenizer=sizes), CARD))


@pytest.mark.parametrize(("predict", "memory", "prompt"), [("in_place", 2, 2), ("queries", 1, 0)])
def test_dynamics_take_a_training_step_on_the_card(card, dataset, tmp_path, folder, predict, memory, prompt):
    sizes = tiny_config(predict, memory=memory, prompt=prompt).dynamics
    stage = DynamicsStage(DynamicsTraining(dataset, folder, tmp_path / "run", batch=4, dynamics=sizes), CARD)
    step_of(stage, stage.config.steps - 1 if memory > 1 else 0)  # the last ones read their own dreams


@pytest.mark.parametrize(("observed", "looks"), [(1, True), (3, False)])
def test_a_recurrent_state_takes_a_training_step_on_the_card(card, dataset, tmp_path, folder, observed, looks):
    sizes = replace(RECURRENT, observed=observed)
    config = RecurrentTraining(dataset, str(folder), tmp_path / "run", batch=8, ahead=4, recurrent=sizes, looks=looks)
    step_of(RecurrentStage(config, CARD))


def test_a_decoder_takes_a_training_step_on_the_card(card, dataset, tmp_path, folder):
    config = DecoderTraining(str(folder), dataset, tmp_path / "run", steps=4, batch=4, windows=2, decoder=TINY)
    step_of(DecoderStage(config, CARD))
