"""Drawing tokens: chances that belong to a dream, sampling, and the scale head's reading order."""

import pytest
import torch

from worldgym.config import DynamicsConfig, TokenizerConfig
from worldgym.model.rng import uniforms
from worldgym.model.scale_head import ScaleHead, inverse_cdf

# -- chances -------------------------------------------------------------------------------------------------


def numbers(seeds, counters, count: int) -> torch.Tensor:
    return uniforms(torch.as_tensor(seeds), torch.as_tensor(counters), count)


def correlation(one, other) -> float:
    return float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]).double())[0, 1])


def test_chances_depend_on_seed_and_counter_alone():
    """Not on the neighbours in the batch, nor on how many are drawn, nor on any other generator."""
    seeds, counters = torch.tensor([7, 0, -3, 2**63 - 1, 7]), torch.tensor([0, 5, 9, 2**40, 0])
    together = numbers(seeds, counters, 85)
    torch.manual_seed(1)
    for index in range(5):
        alone = numbers(seeds[index : index + 1], counters[index : index + 1], 200)
        assert torch.equal(alone[0, :85], together[index])
    assert torch.equal(together[0], together[4])


def test_other_seeds_and_counters_have_other_chances():
    grid = numbers(torch.arange(64).repeat_interleave(64), torch.arange(64).repeat(64), 2)
    assert len(grid.unique(dim=0)) == 64 * 64


@pytest.mark.parametrize("along", ["lanes", "seeds", "counters"])
def test_chances_are_uniform(along):
    count = 64_000
    zeros, every = torch.zeros(count, dtype=torch.long), torch.arange(count)
    drawn = {
        "lanes": lambda: numbers([3], [4], count)[0],
        "seeds": lambda: numbers(every, zeros, 1)[:, 0],
        "counters": lambda: numbers(zeros, every, 1)[:, 0],
    }[along]()
    assert drawn.min() >= 0 and drawn.max() < 1
    observed = torch.histc(drawn, 64, 0, 1)
    chi_square = ((observed - count / 64) ** 2 / (count / 64)).sum()
    assert chi_square < 63 + 5 * (2 * 63) ** 0.5
    assert abs(correlation(drawn[:-1], drawn[1:])) < 0.02


def test_neighbours_are_unrelated():
    """Dreams with neighbouring seeds, and one dream at neighbouring steps."""
    seeds = torch.arange(100)
    base = numbers(seeds, torch.zeros_like(seeds), 400)
    for other in (
        numbers(seeds + 1, torch.zeros_like(seeds), 400),
        numbers(seeds, torch.ones_like(seeds), 400),
        numbers(-seeds - 1, torch.zeros_like(seeds), 400),
        numbers(torch.zeros_like(seeds), seeds + 1, 400),  # seed and counter do not stand in for each other
    ):
        assert abs(correlation(base, other)) < 0.025  # five standard deviations


def test_chances_stay_below_one():
    """Rounding to single precision must not reach it: here the integer behind the number is the largest."""
    assert numbers([7], [0], 453_375).max() < 1


# -- sampling ------------------------------------------------------------------------------------------------


def test_drawn_tokens_follow_their_distribution():
    probabilities = torch.tensor([0.4, 0.001, 0.25, 0.0, 0.049, 0.3])
    count = 100_000
    chances = numbers(torch.arange(count), torch.zeros(count, dtype=torch.long), 1)
    drawn = inverse_cdf(probabilities.log().expand(count, 1, 6), chances).flatten()
    observed = torch.bincount(drawn, minlength=6)
    assert observed[3] == 0
    kept = probabilities > 0
    expected = probabilities[kept] * count
    assert ((observed[kept] - expected) ** 2 / expected).sum() < 4 + 5 * 8**0.5


@pytest.mark.parametrize("chance", [0.5 / 2**24, 1 - 2**-24])
def test_the_ends_of_the_interval_draw_what_is_possible(chance):
    logits = torch.full((1, 1, 512), -torch.inf)
    logits[..., [100, 300]] = 0.0
    expected = 100 if chance < 0.5 else 300
    assert inverse_cdf(logits, torch.tensor([[chance]])).item() == expected


def test_a_chance_means_the_same_at_every_place():
    logits = torch.randn(3, 5, 32)
    chances = torch.rand(3, 5)
    together = inverse_cdf(logits, chances)
    assert together.shape == (3, 5)
    for row in range(3):
        for place in range(5):
            alone = inverse_cdf(logits[row, place][None, None], chances[row, place][None, None])
            assert alone.item() == together[row, place]


# -- the scale head ------------------------------------------------------------------------------------------


@pytest.fixture
def head(make_world):
    """The tiny world's scale head, with opinions; its quantiser; and inputs for `b` frames."""
    world = make_world()
    scale_head, quantizer = world.dynamics.scale_head, world.tokenizer.quantizer
    scale_head.logits.weight.mul_(4.0)

    def inputs(batch: int, seed: int = 0):
        generator = torch.Generator().manual_seed(seed)
        maps = [torch.randn(batch, width, 8, 8, generator=generator) for width in (32, 4)]
        return maps[0], torch.randn(batch, 64, generator=generator), maps[1]

    return scale_head, quantizer, inputs


def draw(head, aligned, action, latent, temperature: float, seeds=None):
    scale_head, quantizer, _ = head
    seeds = torch.arange(len(aligned)) if seeds is None else seeds
    chances = uniforms(seeds, torch.zeros_like(seeds), 85)
    return scale_head.draw(aligned, action, latent, quantizer, chances, temperature)


def logits_of(head, aligned, action, latent, ids) -> list[torch.Tensor]:
    """Each scale's logits, told the tokens of the coarser scales."""
    scale_head, quantizer, _ = head
    guess, total, logits = latent + scale_head.guess(aligned), torch.zeros_like(latent), []
    for index, part in enumerate(ids.split(quantizer.splits, dim=1)):
        logits.append(scale_head(aligned, action, guess - total, index, quantizer))
        total = total + quantizer.contribution(part, index)
    return logits


def test_without_temperature_the_likeliest_is_drawn(head):
    inputs = head[2](4)
    ids, _, entropy = draw(head, *inputs, temperature=0.0)
    other, _, _ = draw(head, *inputs, temperature=0.0, seeds=torch.arange(4) + 100)
    assert torch.equal(ids, other)
    likeliest = torch.cat([logits.argmax(-1) for logits in logits_of(head, *inputs, ids)], 1)
    assert torch.equal(ids, likeliest)
    assert ids.shape == (4, 85) and (entropy > 0).all()


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_share_of_what_tokens_leave_out_of_the_guess_is_kept(head, share):
    head[0].residual = share
    aligned, action, before = head[2](4)
    ids, latent, _ = draw(head, aligned, action, before, temperature=0.0)
    guess, tokens = before + head[0].guess(aligned), head[1].embed(ids)
    torch.testing.assert_close(latent, (1 - share) * tokens + share * guess)


def test_a_little_temperature_is_nearly_none(head):
    inputs = head[2](4)
    ids, _, _ = draw(head, *inputs, temperature=0.0)
    warm, _, _ = draw(head, *inputs, temperature=1e-3)
    assert torch.equal(ids, warm)


def test_temperature_spreads_what_is_drawn(head):
    """Entropy of the first token over many draws of the same frame. A draw reports the model's own."""
    one = head[2](1)
    inputs = [part.expand(1000, *part.shape[1:]) for part in one]
    spreads, reported = [], []
    for temperature in (0.3, 1.0, 3.0):
        ids, _, entropy = draw(head, *inputs, temperature=temperature)
        share = torch.bincount(ids[:, 0], minlength=32) / len(ids)
        spreads.append(float(-(share * share.clamp(min=1e-9).log()).sum()))
        reported.append(entropy)
    assert spreads[0] + 0.2 < spreads[1] < spreads[2] - 0.1, spreads
    log_p = logits_of(head, *one, ids[:1])[0][0, 0].log_softmax(-1)
    assert spreads[1] == pytest.approx(float(-(log_p.exp() * log_p).sum()), abs=0.1)
    assert all((entropy > 0).all() and (entropy < 3.4658).all() for entropy in reported)  # log 32


def test_what_is_drawn_depends_on_the_seed_alone(head):
    inputs = [part.expand(6, *part.shape[1:]) for part in head[2](1)]
    ids, _, _ = draw(head, *inputs, temperature=1.0, seeds=torch.tensor([4, 5, 6, 4, 5, 7]))
    assert torch.equal(ids[0], ids[3]) and torch.equal(ids[1], ids[4])
    assert len(ids.unique(dim=0)) == 4


@pytest.mark.parametrize("index", [1, 2, 3])
def test_a_scale_sees_all_of_itself(head, index):
    """One corner of the state reaches the logits of the opposite corner."""
    scale_head, quantizer, inputs = head
    aligned, action, latent = inputs(1)
    before = scale_head(aligned, action, latent, index, quantizer)
    for corner in (0, 7):
        moved = aligned.clone()
        moved[:, :, corner, corner] *= -2
        after = scale_head(moved, action, latent, index, quantizer)
        assert ((after - before).abs().amax(-1) > 1e-5).all()


def test_the_action_is_heard_at_every_scale(head):
    scale_head, quantizer, inputs = head
    aligned, action, latent = inputs(1)
    for index in range(4):
        before, after = (scale_head(aligned, told, latent, index, quantizer) for told in (action, -action))
        assert ((after - before).abs().amax(-1) > 1e-5).all()


@pytest.mark.parametrize("changed", [0, 1, 2, 3])
def test_no_scale_sees_a_finer_one(head, changed):
    """Other tokens at one scale change the logits of the finer scales, and of no other; in training too."""
    _, quantizer, inputs = head
    aligned, action, latent = inputs(2)
    one = torch.randint(32, (2, 85), generator=torch.Generator().manual_seed(0))
    parts = list(one.split(quantizer.splits, dim=1))
    parts[changed] = (parts[changed] + 1) % 32
    other = torch.cat(parts, 1)
    before, after = (logits_of(head, aligned, action, latent, ids) for ids in (one, other))
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [i <= changed for i in range(4)]


def test_training_asks_what_drawing_answers(head):
    """Cross-entropies under teacher forcing are those of the logits that tokens are drawn from."""
    scale_head, quantizer, inputs = head
    aligned, action, latent = inputs(3)
    target = inputs(3, seed=1)[2]
    quantized = quantizer.quantize(target)
    total, losses, _ = scale_head.loss(aligned, action, latent, target, latent, quantized, torch.arange(3), quantizer)
    logits = logits_of(head, aligned, action, latent, quantized.ids)
    parts = quantized.ids.split(quantizer.splits, dim=1)
    for loss, part_logits, part in zip(losses, logits, parts, strict=True):
        expected = -part_logits.log_softmax(-1).gather(-1, part[..., None]).mean()
        torch.testing.assert_close(loss, expected)
    weights = torch.tensor([1.0, 2.0, 4.0, 8.0])  # by side, not by area
    torch.testing.assert_close(total, (weights * torch.stack(losses)).sum() / weights.sum())


def test_drawing_is_the_same_alone_and_in_a_batch(head):
    inputs = head[2](4)
    together, _, _ = draw(head, *inputs, temperature=1.0)
    alone, _, _ = draw(head, *(part[2:3] for part in inputs), temperature=1.0, seeds=torch.tensor([2]))
    assert torch.equal(together[2:3], alone)


def test_scales_end_at_the_grid_that_is_guessed():
    with pytest.raises(ValueError, match="end below the latent grid, 8"):
        ScaleHead(TokenizerConfig(scales=(1, 2, 4)), DynamicsConfig())
