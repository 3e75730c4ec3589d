"""Tokenizer and dynamics are trained, on a recording of a few seconds and networks of toy size."""

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from worldgym.checkpoint import load_config
from worldgym.config import DynamicsConfig, TokenizerConfig
from worldgym.data import load_episodes, sample_segments
from worldgym.env import DreamEnv
from worldgym.model.pixels import to_uint8
from worldgym.model.text import PhraseTokenizer
from worldgym.motion import motion_prompt
from worldgym.train import dynamics as dynamics_module
from worldgym.train import loop as loop_module
from worldgym.train.dynamics import Batches, train_dynamics
from worldgym.train.loop import schedule
from worldgym.train.settings import DynamicsTraining, TokenizerTraining
from worldgym.train.tokenizer import train_tokenizer
from worldgym.world import WorldModel

from .killing import Killed, killed_at

TOKENIZER = TokenizerConfig(channels=(8, 16, 16), latent_channels=4, codes=32, heads=2)
DYNAMICS = DynamicsConfig(
    layers=2, width=64, heads=2, kv_heads=1, mlp_width=64, head_width=32, head_layers=1, window=4,
    outcome_heads=2,
)  # fmt: skip

LONG = {"steps": 51, "learning_rate": 4e-3}
"""Enough to have learned something."""


def tokenizer_training(dataset: str, root: Path, **arguments) -> TokenizerTraining:
    return TokenizerTraining(
        dataset, root / "tokenizer", batch=8, device="cpu", **{"tokenizer": TOKENIZER, **arguments}
    )


def dynamics_training(dataset: str, root: Path, tokenizer: Path, **arguments) -> DynamicsTraining:
    return DynamicsTraining(
        dataset, tokenizer, root / "world", batch=4, device="cpu", **{"dynamics": DYNAMICS, "processes": 1, **arguments}
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory, dataset) -> Path:
    """A folder with a tokenizer and a world."""
    root = tmp_path_factory.mktemp("runs") / "toy"
    out = train_tokenizer(tokenizer_training(dataset, root, **LONG))
    assert out == root / "tokenizer"
    out = train_dynamics(dynamics_training(dataset, root, root / "tokenizer", **LONG))
    assert out == root / "world"
    return root


def assert_same(one: Path, other: Path) -> None:
    for name in ("model.safetensors", "training.safetensors"):
        expected, found = load_file(one / name), load_file(other / name)
        assert expected.keys() == found.keys()
        different = [key for key in expected if not torch.equal(expected[key], found[key])]
        assert not different, name


def events(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    accumulator.Reload()
    return accumulator


# -- learning ------------------------------------------------------------------------------------------------


def test_the_tokenizer_learns(trained):
    logged = events(trained / "tensorboard" / "tokenizer").Scalars("loss/reconstruction")
    losses = [event.value for event in logged]
    assert losses[-1] < 0.85 * losses[0], losses


@pytest.mark.parametrize("name", ["tokens", "scale_1", "reward", "success", "terminated"])
def test_the_dynamics_learn(trained, name):
    losses = [event.value for event in events(trained / "tensorboard" / "dynamics").Scalars(f"loss/{name}")]
    assert losses[-1] < 0.95 * losses[0], losses


def test_the_tokenizer_stays_as_it_was(trained):
    tokenizer, world = (load_file(trained / name / "model.safetensors") for name in ("tokenizer", "world"))
    assert all(torch.equal(world[f"tokenizer.{name}"], weight) for name, weight in tokenizer.items())


def test_what_was_trained_dreams(trained, dataset):
    data = load_episodes(dataset)
    world = WorldModel.load(str(trained / "world"), "cpu")
    config = world.config
    assert (config.name, config.twin, config.action_size) == ("toy", "worldgym/TabletopMuJoCo-v0", 2)
    assert (config.instructions, config.phrases) == (data.instructions, data.phrase_list)
    assert (config.tokenizer, config.dynamics, config.frames_per_action) == (TOKENIZER, DYNAMICS, 16)
    env = DreamEnv(str(trained / "world"), instruction="reach the top left corner", device="cpu")
    first, _ = env.reset(seed=0)
    (start,) = data.split("test")
    state = world.start(data.frames[[[data.starts[start]]]])  # the one test episode's first frame
    assert np.array_equal(first, world.render(state)[0].numpy())
    for _ in range(6):
        frame, reward, *_ = env.step(env.action_space.sample())
        assert np.isfinite(reward) and frame.dtype == np.uint8


@pytest.mark.parametrize(("stage", "figure"), [("tokenizer", "validation_psnr"), ("world", "open_loop_psnr_gain")])
def test_a_checkpoint_says_what_made_it(trained, dataset, stage, figure):
    told = json.loads((trained / stage / "run.json").read_text(encoding="utf-8"))
    assert {"command", "commit", "seed", "hardware"} < told.keys()
    metrics = told["metrics"]
    assert metrics["step"] == LONG["steps"] and np.isfinite(metrics[figure]).all()
    assert metrics["training"]["dataset"] == dataset


def test_it_can_be_watched(trained):
    """Scalars, pictures and a video for TensorBoard."""
    tokenizer, dynamics = (events(trained / "tensorboard" / name) for name in ("tokenizer", "dynamics"))
    assert {"validation/psnr", "speed/frames_per_second"} <= set(tokenizer.Tags()["scalars"])
    assert {"validation/psnr_step_1", "loss/gradient_norm"} <= set(dynamics.Tags()["scalars"])
    (picture,) = tokenizer.Images("validation/context_real_tokens")
    assert iio.imread(io.BytesIO(picture.encoded_image_string)).shape == (3 * 64, 12 * 64, 3)
    (video,) = dynamics.Images("validation/real_above_dream")
    shown = iio.imread(io.BytesIO(video.encoded_image_string), index=None)
    assert len(shown) == DYNAMICS.window and shown.shape[-1] == 3


@pytest.mark.parametrize("total", [1000, 5000])
def test_the_learning_rate_warms_up_and_cools_down(total):
    rates = [schedule(step, total) for step in range(total)]
    assert 0 < rates[0] < 0.01
    assert 0.9 < max(rates) <= 1 and rates.index(max(rates)) < 250
    assert rates[-1] == pytest.approx(0.05, abs=0.01)


# -- dying and going on --------------------------------------------------------------------------------------


def test_a_killed_tokenizer_training_ends_up_the_same(tmp_path, dataset, monkeypatch):
    whole = tokenizer_training(dataset, tmp_path / "whole", steps=6, evaluate_every=3)
    halved = replace(whole, out=tmp_path / "halved" / "tokenizer")
    train_tokenizer(whole)
    killed_at(monkeypatch, train_tokenizer, halved, when=5)  # two steps are lost
    train_tokenizer(halved)
    assert_same(whole.out, halved.out)


def test_a_killed_dynamics_training_ends_up_the_same(tmp_path, dataset, trained, monkeypatch):
    tokenizer = trained / "tokenizer"
    whole = dynamics_training(dataset, tmp_path / "whole", tokenizer, steps=6, evaluate_every=3)
    halved = replace(whole, out=tmp_path / "halved" / "world")
    train_dynamics(whole)
    killed_at(monkeypatch, train_dynamics, halved, when=5)
    train_dynamics(halved)
    assert_same(whole.out, halved.out)


@pytest.mark.parametrize("stage", ["tokenizer", "dynamics"])
def test_ctrl_c_saves_at_the_end_of_a_step(tmp_path, dataset, trained, monkeypatch, stage):
    """And who goes on from there ends up where an undisturbed run does."""
    if stage == "tokenizer":
        train = train_tokenizer
        whole = tokenizer_training(dataset, tmp_path / "whole", steps=6)
    else:
        whole = dynamics_training(dataset, tmp_path / "whole", trained / "tokenizer", steps=6)
        train = train_dynamics
    train(whole)
    broken = replace(whole, out=tmp_path / "broken" / whole.out.name)

    def press(step, steps, warm_up):
        if step == 2:
            signal.raise_signal(signal.SIGINT)
        return schedule(step, steps, warm_up)

    with monkeypatch.context() as patch:
        patch.setattr(loop_module, "schedule", press)
        with pytest.raises(KeyboardInterrupt, match="saved at step 3"):
            train(broken)
    train(broken)
    assert_same(whole.out, broken.out)


def test_it_begins_from_another_world(tmp_path, dataset, trained, capsys):
    """With its weights where they fit; what the other world did not have begins anew, and is named."""
    root = trained / "world"
    begun = train_tokenizer(tokenizer_training(dataset, tmp_path, begin_from=str(root), steps=1, learning_rate=1e-9))
    assert "beginning from" in capsys.readouterr().out
    theirs, ours = (load_file(folder / "model.safetensors") for folder in (trained / "tokenizer", begun))
    name = next(name for name in theirs if name.endswith("weight"))
    torch.testing.assert_close(ours[name], theirs[name], atol=1e-4, rtol=1e-4)

    remembering = replace(DYNAMICS, memory=2)
    training = dynamics_training(
        dataset, tmp_path, begun, begin_from=str(root), steps=1, learning_rate=1e-9, dynamics=remembering
    )
    out = train_dynamics(training)
    said = capsys.readouterr().out
    assert "from scratch: from_motion.bias, from_motion.weight, outcome_heads.from_motion.weight, scale_head" in said
    name = "dynamics.scale_head.logits.weight"
    theirs, ours = (load_file(folder / "model.safetensors") for folder in (root, out))
    torch.testing.assert_close(ours[name], theirs[name], atol=1e-4, rtol=1e-4)


def test_a_world_with_motion_prompts_trains_and_resumes(tmp_path, dataset, trained, monkeypatch):
    """Its segments have frames before the context, half of them are not shown, and a killed run goes on the same."""
    prompted = replace(DYNAMICS, prompt=3, memory=2)
    whole = dynamics_training(
        dataset, tmp_path / "whole", trained / "tokenizer", dynamics=prompted, steps=6, evaluate_every=3
    )
    train_dynamics(whole)
    halved = replace(whole, out=tmp_path / "halved" / "world")
    killed_at(monkeypatch, train_dynamics, halved, when=5)
    train_dynamics(halved)
    assert_same(whole.out, halved.out)
    assert load_file(whole.out / "model.safetensors")["dynamics.from_prompt.weight"].any()


def test_a_segment_is_prompted_by_what_was_before_it(dataset, trained):
    """By the prompt and the difference to the frame before, or by neither; the context is the prompt's newest frame."""
    data, text = load_episodes(dataset), PhraseTokenizer.load(trained / "world" / "bpe.json")
    config = replace(DYNAMICS, prompt=3, memory=2)
    segment = sample_segments(data, data.split("train"), 32, config.lead + config.window, np.random.default_rng(0))
    for dropout in (0.0, 0.5, 1.0):
        batches = Batches(data, text, 32, config, dropout, torch.device("cpu"))
        batch = batches.batch(segment, *batches.rows(0, 0)[1:])
        told = batch.has_prompt.numpy()
        assert told.all() == (dropout == 0.0) and told.any() == (dropout < 1.0)
        for row in range(32):
            observed = segment.frames[row, :3]
            wanted = motion_prompt(observed if told[row] else observed[-1:])
            np.testing.assert_array_equal(to_uint8(batch.prompt[row, None])[0], wanted)
            np.testing.assert_array_equal(to_uint8(batch.earlier[row, None])[0], observed[1])
            np.testing.assert_array_equal(to_uint8(batch.context[row, None])[0], observed[2])
            np.testing.assert_array_equal(to_uint8(batch.frames[row])[:, :2], segment.frames[row, 2:, :2])
        np.testing.assert_array_equal(batch.actions, segment.actions[:, 2:])


def test_an_unknown_world_to_begin_from_is_a_mistake(tmp_path, dataset, trained):
    with pytest.raises(ValueError, match="unknown world 'nowhere'"):
        train_tokenizer(tokenizer_training(dataset, tmp_path, begin_from="nowhere"))
    with pytest.raises(ValueError, match="unknown world 'nowhere'"):
        train_dynamics(dynamics_training(dataset, tmp_path, trained / "tokenizer", begin_from="nowhere"))
    assert not (tmp_path / "world").exists()


def curves(folder: Path) -> dict[str, list[float]]:
    """Losses of the first and the last step."""
    accumulator = events(folder)
    names = [name for name in accumulator.Tags()["scalars"] if name.startswith("loss/")]
    return {name: [accumulator.Scalars(name)[when].value for when in (0, -1)] for name in names}


def test_two_processes_train_the_dynamics_as_one_does(tmp_path, dataset, trained):
    """Up to the rounding of bfloat16; and what two do they do again, to the bit."""
    late = {"steps": 3, "self_forcing_steps": 0.5}  # with the model's own dreams at the end
    alone = dynamics_training(dataset, tmp_path / "alone", trained / "tokenizer", **late)
    together = replace(alone, out=tmp_path / "together" / "world", processes=2)
    again = replace(together, out=tmp_path / "again" / "world")
    for config in (alone, together, again):
        train_dynamics(config)
    assert_same(together.out, again.out)
    one, two = (curves(config.out.parent / "tensorboard" / "dynamics") for config in (alone, together))
    assert one.keys() == two.keys() and {"loss/tokens", "loss/scale_1", "loss/sentence"} < one.keys()
    for name, (first, last) in one.items():
        assert two[name][0] == pytest.approx(first, rel=5e-3, abs=1e-3), name
        assert two[name][1] == pytest.approx(last, rel=0.02, abs=1e-2), name


def test_two_processes_of_torchrun_train_the_tokenizer_as_one_does(tmp_path, dataset):
    """Its codebook, too, follows the rows of both."""
    alone = tokenizer_training(dataset, tmp_path / "alone", steps=3)
    train_tokenizer(alone)
    out = tmp_path / "together" / "tokenizer"
    small = [word for name, value in asdict(TOKENIZER).items() for word in option(name, value)]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    door = ["--local-addr", "localhost", "-m", "worldgym", "train", "tokenizer"]
    asked = ["--dataset", dataset, "--out", out, "--batch", "8", "--steps", "3", "--device", "cpu"]
    run = subprocess.run([*torchrun, *door, *asked, *small], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    one, two = (curves(folder.parent / "tensorboard" / "tokenizer") for folder in (alone.out, out))
    assert one.keys() == two.keys()
    for name, (first, last) in one.items():
        assert two[name][0] == pytest.approx(first, rel=5e-3), name
        assert two[name][1] == pytest.approx(last, rel=0.02), name
    one, two = (load_file(folder / "model.safetensors")["quantizer.usage"] for folder in (alone.out, out))
    assert (one - two).abs().mean() < 0.1 * (one - 1).abs().mean()  # all begin at 1


def option(name: str, value: object) -> list[str]:
    """As the command line takes it."""
    if isinstance(value, bool):
        return [f"--{'' if value else 'no-'}{name.replace('_', '-')}"]
    values = value if isinstance(value, tuple) else (value,)
    return [f"--{name.replace('_', '-')}", *map(str, values)]


COMMAND = """
import sys
from worldgym.cli import main

if __name__ == "__main__":
    sys.argv = ["worldgym", "train", "dynamics", "--processes", "2", "--steps", "100000", *sys.argv[1:]]
    main()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Ctrl-C is sent as a Linux terminal does")
def test_ctrl_c_in_a_terminal_saves_what_two_processes_learned(tmp_path, dataset, trained):
    """It reaches all processes, each in another moment; they stop after the same step, and the command says so."""
    (tmp_path / "run.py").write_text(COMMAND, encoding="utf-8")
    out = tmp_path / "toy" / "world"
    small = [word for name, value in asdict(DYNAMICS).items() for word in option(name, value)]
    command = [
        sys.executable, "run.py", "--dataset", dataset, "--tokenizer", trained / "tokenizer", "--out", out,
        "--batch", "4", "--device", "cpu", *small,
    ]  # fmt: skip
    run = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True)
    said = ""
    while "1/100000" not in said:
        more = run.stderr.read(1)
        assert more, said
        said += more
    os.killpg(run.pid, signal.SIGINT)
    said = run.communicate(timeout=120)[1]
    assert run.returncode == 130, said
    assert "worldgym: interrupted, the same command continues from the last checkpoint" in said
    assert "Traceback" not in said
    assert load_file(out / "training.safetensors")["step"] > 0


def test_a_batch_that_cannot_be_shared(tmp_path, dataset, trained):
    with pytest.raises(ValueError, match="batch of 4 segments can't be shared by 3 processes"):
        train_dynamics(dynamics_training(dataset, tmp_path, trained / "tokenizer", processes=3))


def test_a_training_killed_while_saving_goes_on(tmp_path, dataset, monkeypatch, capsys):
    """Not from the beginning: between the renames of a second save there is a checkpoint, too."""
    config = tokenizer_training(dataset, tmp_path, steps=4, evaluate_every=2)
    rename, renamed = os.rename, []

    def stop(*args):
        renamed.append(args)
        if len(renamed) == 3:
            raise Killed
        rename(*args)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", stop)
        patch.setattr(os, "replace", stop)
        with contextlib.suppress(Killed):
            train_tokenizer(config)
    capsys.readouterr()
    train_tokenizer(config)
    assert f"resuming {config.out} at step" in capsys.readouterr().out


def test_codes_are_reborn_the_same_after_a_kill(tmp_path, dataset, monkeypatch):
    """Two groups of unused codes die, one before and one after the kill, and are replaced at random."""
    whole = tokenizer_training(dataset, tmp_path / "whole", steps=8, evaluate_every=2)
    halved = replace(whole, out=tmp_path / "halved" / "tokenizer")
    killed_at(monkeypatch, train_tokenizer, whole, when=2)
    # Cloned: what load_file returns lives in the file that is about to be overwritten.
    weights = {name: tensor.clone() for name, tensor in load_file(whole.out / "model.safetensors").items()}
    weights["quantizer.codebook"][:10] = 1000.0  # far from everything
    weights["quantizer.usage"][:5], weights["quantizer.usage"][5:10] = 0.0203, 0.0208  # dead in 2 and 4 steps
    save_file(weights, whole.out / "model.safetensors")
    shutil.copytree(whole.out, halved.out)
    train_tokenizer(whole)
    killed_at(monkeypatch, train_tokenizer, halved, when=4)
    train_tokenizer(halved)
    assert load_file(whole.out / "model.safetensors")["quantizer.codebook"].abs().max() < 100  # all reborn
    assert_same(whole.out, halved.out)


def test_rewards_that_are_no_numbers_end_a_training(tmp_path, dataset, trained, monkeypatch):
    """At the first batch that has one. It is named, and the checkpoint before it holds numbers alone."""
    data = load_episodes(dataset)
    rewards = data.rewards.copy()
    rewards[data.starts[3] : data.starts[6]] = np.nan
    monkeypatch.setattr(dynamics_module, "load_episodes", lambda dataset_id: replace(data, rewards=rewards))
    config = dynamics_training(dataset, tmp_path, trained / "tokenizer", steps=30, evaluate_every=1)
    with pytest.raises(ValueError, match=r"step \d+ is not finite: loss nan.* reward nan.*Its batch is of") as caught:
        train_dynamics(config)
    assert f" of {dataset}:" in str(caught.value) and re.search(r"episodes.* [345][, ]", str(caught.value))
    if config.out.exists():  # not if the first batch was of them
        assert all(part.isfinite().all() for part in load_file(config.out / "model.safetensors").values())


def test_a_finished_training_is_left_alone(trained, dataset, tmp_path, monkeypatch, capsys):
    """Its recording is not read again: it need not even be there."""
    before = {path: path.stat().st_mtime_ns for path in trained.glob("*/model.safetensors")}
    assert len(before) == 2
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    train_tokenizer(tokenizer_training(dataset, trained, **LONG))
    train_dynamics(dynamics_training(dataset, trained, trained / "tokenizer", **LONG))
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert capsys.readouterr().out.count("has had all its 51 steps: nothing is left to do") == 2


def test_another_tokenizer_is_not_resumed(trained, dataset):
    with pytest.raises(ValueError, match=r"tokenizer\.codes was 32 and is 64; choose another --out"):
        train_tokenizer(tokenizer_training(dataset, trained, tokenizer=replace(TOKENIZER, codes=64), **LONG))
    assert load_config(trained / "tokenizer")[0].tokenizer == TOKENIZER


def test_another_world_is_not_resumed(trained, dataset):
    other = replace(DYNAMICS, window=8)
    with pytest.raises(ValueError, match=r"dynamics\.window was 4 and is 8; choose another --out"):
        train_dynamics(dynamics_training(dataset, trained, trained / "tokenizer", dynamics=other, **LONG))
    with pytest.raises(ValueError, match="holds a world; the training of a tokenizer takes another --out"):
        train_tokenizer(replace(tokenizer_training(dataset, trained, **LONG), out=trained / "world"))
    assert load_config(trained / "world")[0].dynamics == DYNAMICS


def test_dynamics_need_a_tokenizer(tmp_path, dataset):
    with pytest.raises(FileNotFoundError, match="tokenizer is no checkpoint"):
        train_dynamics(dynamics_training(dataset, tmp_path, tmp_path / "tokenizer"))
