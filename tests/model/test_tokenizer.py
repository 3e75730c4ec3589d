"""The tokenizer: residual quantisation over scales, and pictures through it and back."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from worldgym.config import TokenizerConfig
from worldgym.model.tokenizer import MultiScaleQuantizer, Tokenizer, resize_area

SIZES = {"resolution": 64, "channels": (8, 16, 16), "latent_channels": 4, "codes": 32, "heads": 2}


@pytest.fixture
def quantizer() -> MultiScaleQuantizer:
    torch.manual_seed(0)
    return MultiScaleQuantizer(TokenizerConfig(**SIZES)).eval().requires_grad_(False)


@pytest.fixture(params=[(1, 2, 4, 8), (8,), (1, 3, 5, 8)], ids=str)
def scales(request) -> tuple[int, ...]:
    return request.param


def latents(count: int = 6, seed: int = 0) -> torch.Tensor:
    """Maps with something to say at every scale, [count, 4, 8, 8]."""
    generator = torch.Generator().manual_seed(seed)
    parts = [torch.randn(count, 4, size, size, generator=generator) for size in (1, 2, 8)]
    weights = (1.0, 0.7, 0.3)
    return sum(weight * F.interpolate(part, size=8) for weight, part in zip(weights, parts, strict=True))


def scenes(count: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures and contexts: a square on a grey ground, somewhere else in each; [count, 3, 64, 64] each."""
    generator = torch.Generator().manual_seed(0)
    images = torch.full((2, count, 3, 64, 64), 0.3)
    for picture in images.flatten(0, 1):
        row, column = torch.randint(0, 48, (2,), generator=generator).tolist()
        picture[:, row : row + 16, column : column + 16] = torch.tensor([0.7, -0.8, -0.8])[:, None, None]
    return images[0], images[1]


def running_sums(quantizer, ids) -> list[torch.Tensor]:
    """The latent after each scale."""
    total, totals = torch.zeros(len(ids), 4, quantizer.grid, quantizer.grid), []
    for index, part in enumerate(ids.split(quantizer.splits, dim=1)):
        total = total + quantizer.contribution(part, index)
        totals.append(total)
    return totals


# -- quantisation --------------------------------------------------------------------------------------------


def test_ids_stand_for_the_quantised_latent(scales):
    torch.manual_seed(0)
    quantizer = MultiScaleQuantizer(TokenizerConfig(**SIZES, scales=scales)).eval()
    with torch.no_grad():
        quantized = quantizer.quantize(latents())
        torch.testing.assert_close(quantizer.embed(quantized.ids), quantized.latent, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(running_sums(quantizer, quantized.ids)[-1], quantized.latent)
    assert quantized.ids.shape == (6, sum(scale * scale for scale in scales))
    assert quantized.ids.dtype == torch.long
    assert quantized.ids.min() >= 0 and quantized.ids.max() < 32


def test_each_scale_quantises_what_the_coarser_ones_left(quantizer):
    latent = latents()
    ids = quantizer.quantize(latent).ids.split(quantizer.splits, dim=1)
    behind = [torch.zeros_like(latent), *running_sums(quantizer, torch.cat(ids, 1))[:-1]]
    for scale, found, total in zip(quantizer.scales, ids, behind, strict=True):
        residual = F.interpolate(latent - total, size=(scale, scale), mode="area")
        distances = torch.cdist(residual.permute(0, 2, 3, 1).flatten(1, 2), quantizer.codebook[None])
        torch.testing.assert_close(
            distances.gather(2, found[..., None]).squeeze(2), distances.amin(2), atol=1e-3, rtol=0
        )


def test_quantising_is_the_same_alone_and_in_a_batch(quantizer):
    together, alone = quantizer.quantize(latents()).ids, quantizer.quantize(latents()[2:3]).ids
    assert torch.equal(together[2:3], alone)


def test_quantising_takes_no_chances(quantizer):
    before = torch.get_rng_state()
    quantizer.quantize(latents())
    assert torch.equal(torch.get_rng_state(), before)


def test_every_scale_brings_it_closer():
    """Once codebook and smoothing have been fitted to the data."""
    torch.manual_seed(0)
    quantizer = MultiScaleQuantizer(TokenizerConfig(**SIZES), decay=0.8)
    optimizer = torch.optim.Adam(quantizer.parameters(), 1e-2)
    data = latents(64)
    for _ in range(60):
        optimizer.zero_grad()
        F.mse_loss(quantizer.quantize(data).latent, data).backward()
        optimizer.step()
    with torch.no_grad():
        ids = quantizer.eval().quantize(data).ids
        errors = [float(data.square().mean())]
        errors += [float(F.mse_loss(total, data)) for total in running_sums(quantizer, ids)]
    assert all(after < 1.05 * before for before, after in pairwise(errors)), errors
    assert errors[-1] < 0.3 * errors[0], errors


def test_slips_are_made_up_for_by_the_finer_scales(quantizer):
    """With token_noise, ids still name the code nearest to what is left, wrong turns included."""
    torch.manual_seed(1)
    latent = latents()
    straight, slipped = quantizer.quantize(latent), quantizer.quantize(latent, quantizer.draw_noise(len(latent), 0.4))
    assert torch.equal(straight.ids[:, :1], slipped.ids[:, :1])  # nothing went wrong before the first
    assert not torch.equal(straight.ids, slipped.ids)
    assert torch.equal(straight.taken, straight.ids) and not torch.equal(slipped.taken, slipped.ids)
    torch.testing.assert_close(quantizer.embed(slipped.taken), slipped.totals[-1])
    behind = [torch.zeros_like(latent), *slipped.totals[:-1]]
    ids = slipped.ids.split(quantizer.splits, dim=1)
    for scale, found, total in zip(quantizer.scales, ids, behind, strict=True):
        residual = resize_area(latent - total, scale).permute(0, 2, 3, 1).flatten(0, 2)
        assert torch.equal(quantizer.nearest(residual), found.flatten())


def test_gradients_go_straight_through(quantizer):
    latent = latents().requires_grad_(True)
    direction = torch.randn(latent.shape, generator=torch.Generator().manual_seed(3))
    (quantizer.quantize(latent).latent * direction).sum().backward()
    torch.testing.assert_close(latent.grad, direction)


# -- the codebook --------------------------------------------------------------------------------------------


def test_the_codebook_follows_its_inputs(quantizer):
    """Towards the mean of what a code was given; and only in training."""
    before = quantizer.codebook.clone()
    quantizer.quantize(latents())
    assert torch.equal(quantizer.codebook, before)
    quantizer.train()
    first = float(F.mse_loss(quantizer.quantize(latents()).latent, latents()))
    for _ in range(200):
        quantizer.quantize(latents())
    assert float(F.mse_loss(quantizer.eval().quantize(latents()).latent, latents())) < 0.8 * first


def test_dead_codes_are_reborn_as_inputs(quantizer):
    dead = torch.arange(32) % 2 == 0
    quantizer.codebook[dead], quantizer.usage[dead] = 100.0, 0.015
    data = latents()
    behind = [torch.zeros_like(data), *running_sums(quantizer, quantizer.quantize(data).ids)[:-1]]
    inputs = []
    for scale, total in zip(quantizer.scales, behind, strict=True):
        inputs.append(resize_area(data - total, scale).permute(0, 2, 3, 1).flatten(0, 2))
    quantizer.train()
    quantizer.quantize(data)
    assert torch.cdist(quantizer.codebook[dead], torch.cat(inputs)).amin(1).max() < 1e-3
    assert dead[quantizer.quantize(data).ids].any()  # and used at once


def test_alive_counts_the_codes_in_use(quantizer):
    assert quantizer.alive() == 32
    quantizer.usage[:20] = 0.001
    assert quantizer.alive() == 12


# -- resizing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 8])
def test_resizing_by_area_is_adaptive_averaging(size):
    maps = torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(resize_area(maps, size), F.adaptive_avg_pool2d(maps, size))


def test_resizing_by_area_averages_blocks():
    maps = torch.arange(64.0).view(1, 1, 8, 8)
    assert resize_area(maps, 2).flatten().tolist() == [13.5, 17.5, 45.5, 49.5]
    assert resize_area(maps, 1).item() == 31.5


# -- pictures ------------------------------------------------------------------------------------------------


@pytest.fixture
def tokenizer() -> Tokenizer:
    torch.manual_seed(0)
    return Tokenizer(TokenizerConfig(**SIZES))


def test_the_loss_reaches_every_weight(tokenizer):
    """The encoders too, through the quantiser and through the context."""
    loss = tokenizer.loss(*scenes())
    loss.total.backward()
    missing = [name for name, weight in tokenizer.named_parameters() if weight.grad is None]
    assert missing == []
    still = [name for name, weight in tokenizer.named_parameters() if not weight.grad.abs().sum() > 0]
    # A constant added to all keys of an attention, or before a normalisation, changes nothing.
    assert not [name for name in still if not name.endswith("bias")]


def test_a_batch_can_be_learned(tokenizer):
    images, contexts = scenes()
    optimizer = torch.optim.AdamW(tokenizer.parameters(), 4e-3)
    losses = []
    for _ in range(40):
        loss = tokenizer.loss(images, contexts)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        losses.append(loss.reconstruction.item())
    assert losses[-1] < 0.3 * losses[0], losses
    with torch.no_grad():
        output = tokenizer.eval().reconstruct(images, contexts)
    assert output.shape == images.shape
    assert F.mse_loss(output, images) < F.mse_loss(contexts, images)


def test_tokens_depend_on_the_context(tokenizer):
    """They say how a frame differs from it."""
    images, contexts = scenes()
    tokenizer.eval()
    with torch.no_grad():
        one, other = (tokenizer.encode_context(context) for context in (contexts, images))
        ids = tokenizer.encode(images, one)
        assert ids.shape == (8, TokenizerConfig(**SIZES).tokens)
        assert not torch.equal(ids, tokenizer.encode(images, other))
        latent = tokenizer.quantizer.embed(ids)
        assert not torch.allclose(tokenizer.fuse(latent, one), tokenizer.fuse(latent, other))


def test_what_moved_weighs_five_times(tokenizer):
    """Errors of the same size cost more where frame and context differ."""
    tokenizer.eval()
    images, _ = scenes(2)
    with torch.no_grad():
        still = tokenizer.loss(images, images)
        error = still.images - images
        expected = (error.abs() + 2 * error.square()).mean()
        torch.testing.assert_close(still.reconstruction, expected)
        everywhere = tokenizer.loss(images, images + 0.5)
        error = everywhere.images - images
        torch.testing.assert_close(everywhere.reconstruction, 5 * (error.abs() + 2 * error.square()).mean())


# -- sizes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scales", [(1, 2, 4, 16), (2, 1, 8), (1, 1, 8), (8, 4)], ids=str)
def test_scales_must_grow(scales):
    with pytest.raises(ValueError, match="must grow, up to the latent grid, 8"):
        TokenizerConfig(**SIZES, scales=scales)


def test_sizes_follow_from_the_configuration():
    config = TokenizerConfig(**SIZES | {"channels": (8, 16)}, scales=(1, 4, 16))
    assert (config.grid, config.width, config.tokens) == (16, 16, 1 + 16 + 256)


@pytest.mark.parametrize(
    ("side", "scales"), [(64, (1, 2, 4, 8)), (96, (1, 2, 4, 8, 12)), (128, (1, 2, 4, 8, 16)), (8, (1,))], ids=str
)
def test_sizes_follow_from_the_frames(side, scales):
    fitted = TokenizerConfig().fitted((side, side, 3))
    assert (fitted.resolution, fitted.scales) == (side, scales)


def test_sizes_that_are_asked_for_stay():
    assert TokenizerConfig(scales=(1, 8)).fitted((96, 96, 3)).scales == (1, 8)
    with pytest.raises(ValueError, match="resolution is 32, but the data set has frames of 64 pixels a side"):
        TokenizerConfig(resolution=32, scales=(1, 2, 4)).fitted((64, 64, 3))
    with pytest.raises(ValueError, match="a tokenizer takes squares"):
        TokenizerConfig().fitted((64, 48, 3))
    with pytest.raises(ValueError, match="a multiple of 8"):
        TokenizerConfig().fitted((100, 100, 3))
