"""Flow matching against closed forms, and the schedule's one trap."""

import subprocess
import sys
from itertools import pairwise

import pytest
import torch

from worldgym.decoders.flow import Schedule, advance, guide, mix, noise_levels, velocity

MEAN, SPREAD = 0.7, 0.3


def gaussian_velocity(x: torch.Tensor, level: float) -> torch.Tensor:
    """The exact expected velocity at x where the data are normal(MEAN, SPREAD)."""
    variance = (1 - level) ** 2 * SPREAD**2 + level**2
    surprise = (x - (1 - level) * MEAN) / variance
    return level * surprise - (MEAN + (1 - level) * SPREAD**2 * surprise)


@pytest.mark.parametrize("shift", [1.0, 5.0])
def test_euler_along_the_exact_velocity_turns_noise_into_the_data(shift):
    noise = torch.linspace(-2, 2, 9, dtype=torch.float64)
    x, levels = noise.clone(), noise_levels(Schedule(4000, shift)).double()
    for now, following in pairwise(levels):
        x = advance(x, gaussian_velocity(x, float(now)), now, following)
    torch.testing.assert_close(x, MEAN + SPREAD * noise, rtol=0, atol=2e-3)


@pytest.mark.parametrize("level", [0.1, 0.5, 0.9])
def test_the_least_squares_velocity_of_samples_is_the_closed_form(level):
    torch.manual_seed(0)
    clean, noise = MEAN + SPREAD * torch.randn(400_000, 1, 1, 1, 1), torch.randn(400_000, 1, 1, 1, 1)
    x = mix(clean, noise, torch.full((400_000, 1), level)).flatten()
    regressors = torch.stack([x, torch.ones_like(x)], 1)
    slope, intercept = torch.linalg.lstsq(regressors, velocity(clean, noise).flatten()[:, None]).solution.flatten()
    at = torch.tensor([-1.0, 0.0, 1.0])
    torch.testing.assert_close(slope * at + intercept, gaussian_velocity(at, level), rtol=0, atol=0.02)


def test_noise_level_zero_is_the_data_and_one_is_the_noise():
    clean, noise = torch.randn(2, 3, 4, 5, 5), torch.randn(2, 3, 4, 5, 5)
    levels = torch.tensor([[0.0, 1.0, 0.0, 0.055]]).repeat(2, 1)
    mixed = mix(clean, noise, levels)
    assert torch.equal(mixed[:, :, 0], clean[:, :, 0]) and torch.equal(mixed[:, :, 1], noise[:, :, 1])
    torch.testing.assert_close(mixed[:, :, 3], 0.945 * clean[:, :, 3] + 0.055 * noise[:, :, 3])


def test_the_shift_comes_after_the_pairing_by_steps():
    schedule = Schedule(50, 5.0)
    levels = noise_levels(schedule)
    assert levels[0] == 1 and levels[-1] == 0 and (levels[1:] < levels[:-1]).all()
    assert schedule.level(torch.tensor(0.5)) == pytest.approx(5 / 6)
    # Half of the steps earlier is not half of the noise more.
    assert levels[25] == pytest.approx(5 / 6, abs=1e-6)
    assert levels[10] - levels[35] != pytest.approx(0.5, abs=0.05)


def test_without_a_shift_the_levels_are_even():
    torch.testing.assert_close(noise_levels(Schedule(4, 1.0)), torch.tensor([1, 0.75, 0.5, 0.25, 0]))


def test_guidance_of_one_is_none_and_more_goes_beyond():
    conditional, unconditional = torch.tensor([1.0]), torch.tensor([0.5])
    assert guide(conditional, unconditional, 1.0) == conditional
    assert guide(conditional, unconditional, 4.0) == 2.5


def test_a_schedule_without_steps_is_refused():
    with pytest.raises(ValueError, match="at least 1 step"):
        Schedule(0)


def test_the_library_is_imported_without_diffusers():
    heavy = "{'diffusers', 'peft'} & set(sys.modules)"
    code = f"import sys, worldgym.world, worldgym.env; assert not {heavy}, {heavy}"
    subprocess.run([sys.executable, "-c", code], check=True)
