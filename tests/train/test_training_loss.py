"""The loss that worlds are trained by, by value: each part is worked out again from the recording."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from worldgym.model.dynamics import Batch, Chances, DynamicsLoss
from worldgym.model.sentence_policy import SPREAD
from worldgym.train.dynamics import Batches

STEPS = 4
"""The window of the tiny world."""
EVERY_TOKEN = Chances(noise=None, scored=torch.arange(6 * STEPS))
"""Of six segments."""


@pytest.fixture
def data(recording):
    """Noise in which every frame has its own outcome, the same for both instructions, and two sentences that it would
    carry out by vectors of its own."""
    plain, random = recording(20, 9), np.random.default_rng(3)
    rows = len(plain.frames)
    sentences = np.tile(np.array([0, 2], np.int16), (rows, 1))
    sentences[::3, 1] = -1  # only one is known there
    return replace(
        plain,
        rewards=np.repeat(random.normal(size=(rows, 1)), 2, 1).astype(np.float32),
        successes=np.repeat(random.random((rows, 1)) < 0.5, 2, 1),
        terminations=np.repeat(random.random((rows, 1)) < 0.3, 2, 1),
        sentences=sentences,
        sentence_actions=random.uniform(-1, 1, (rows, 2, 2)).astype(np.float32),
        phrase_list=("push the red block left", "move up", "stay still"),
    )


def computed(world, data) -> tuple[Batch, DynamicsLoss]:
    batch = Batches(data, world.text, 6, world.config.dynamics, 0.0, torch.device("cpu")).draw(0, 0, 0)
    return batch, world.dynamics.loss(batch, world.tokenizer, EVERY_TOKEN)


def rows_of(batch: Batch, data) -> np.ndarray:
    """Where each frame of the batch lies in the recording, [b, t + 1], found by what it shows."""
    known = {frame.tobytes(): row for row, frame in enumerate(data.frames)}
    frames = ((batch.frames + 1.0) * 127.5).round().byte().permute(0, 1, 3, 4, 2).numpy()
    return np.array([[known[frame.tobytes()] for frame in segment] for segment in frames])


def maps(world, batch: Batch) -> torch.Tensor:
    """The fused map of every frame relative to the first, [b, t + 1, f, g, g]."""
    frames = ((batch.frames + 1.0) * 127.5).round().byte().permute(0, 1, 3, 4, 2)
    state = world.start(frames[:, :1].numpy())
    return torch.stack([world.see(frames[:, when], state) for when in range(STEPS + 1)], 1)


def test_outcomes_are_those_of_the_frame_that_an_action_leads_to(make_world, data):
    """Squared error of the reward and cross-entropies of success and end, over all votes: at frame t + 1, what the
    recording says of frame t + 1."""
    world = make_world()
    batch, loss = computed(world, data)
    rows, fused = rows_of(batch, data), maps(world, batch)
    assert (np.diff(rows) == 1).all()
    read = world.dynamics.backbone.read(batch.phrase_ids, batch.phrase_lengths)
    errors: dict[str, list[torch.Tensor]] = {"reward": [], "success": [], "terminated": []}
    for when in range(STEPS):
        truth = [torch.from_numpy(part[rows[:, when + 1], 0]).float() for part in (
            data.rewards, data.successes, data.terminations
        )]  # fmt: skip
        for asked in batch.instructions[:, when].unbind(1):
            votes = world.dynamics.outcome_heads.score(fused[:, when + 1], None, read[asked])
            reward, success, terminated = (true.expand_as(votes.reward) for true in truth)
            errors["reward"].append((votes.reward - reward).square().mean())
            errors["success"].append(F.binary_cross_entropy_with_logits(votes.success, success))
            errors["terminated"].append(F.binary_cross_entropy_with_logits(votes.terminated, terminated))
    for name, parts in errors.items():
        assert float(getattr(loss, name)) == pytest.approx(float(torch.stack(parts).mean()), rel=1e-4), name


def test_sentences_are_carried_out_from_the_frame_in_which_they_are_said(make_world, data):
    """Minus the log-likelihood of the vectors that the recording has for them, where it knows any."""
    world = make_world()
    batch, loss = computed(world, data)
    rows, fused = rows_of(batch, data), maps(world, batch)
    likelihoods = []
    for segment, row in zip(fused, rows, strict=True):
        features = world.dynamics.outcome_heads.features(segment[:-1], None)
        for when in range(STEPS):
            for sentence, action in zip(
                data.sentences[row[when]], torch.from_numpy(data.sentence_actions[row[when]]), strict=True
            ):
                if sentence < 0:
                    continue
                said = world.read([data.phrase_list[sentence]])
                choices, odds = world.dynamics.sentence_policy(features[when : when + 1], said)
                distance = (choices[0] - action).square().sum(-1) / (2 * SPREAD**2)
                likelihoods.append(torch.logsumexp(odds[0] - distance, 0))
    assert len(likelihoods) < 6 * STEPS * 2
    assert float(loss.sentence) == pytest.approx(-float(torch.stack(likelihoods).mean()), rel=1e-4)


def test_the_guess_is_measured_against_standing_still(make_world, data):
    """By value: a guess of no change has the error of copying the last frame, 1."""
    world = make_world()
    for part in world.dynamics.scale_head.guess[-1].parameters():
        torch.nn.init.zeros_(part)
    batch = Batches(data, world.text, 6, world.config.dynamics, 0.0, torch.device("cpu")).draw(0, 0, 0)
    contexts = world.tokenizer.encode_context(batch.context).repeat_interleave(STEPS + 1, 0)
    target = world.tokenizer.latent(batch.frames.flatten(0, 1), contexts)
    tokens = world.tokenizer.quantizer.quantize(target).totals[-1]
    kept = torch.lerp(tokens, target, world.config.dynamics.residual).unflatten(0, (6, STEPS + 1))
    target = target.unflatten(0, (6, STEPS + 1))
    expected = F.mse_loss(kept[:, :-1], target[:, 1:]) / F.mse_loss(target[:, :-1], target[:, 1:])
    assert float(world.dynamics.loss(batch, world.tokenizer, EVERY_TOKEN).guess) == pytest.approx(
        float(expected), rel=1e-4
    )


def test_every_part_counts(make_world, data):
    _, loss = computed(make_world(), data)
    parts = loss.tokens + 2.0 * loss.guess + loss.reward + loss.success + loss.terminated + 0.1 * loss.sentence
    assert float(loss.total) == pytest.approx(float(parts), rel=1e-6)
    assert all(float(part) > 0 for part in (loss.tokens, loss.guess, loss.reward, loss.success, loss.terminated))
    assert loss.sentence.isfinite() and float(loss.sentence) != 0
