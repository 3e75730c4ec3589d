"""The motion prompt: tracked, drawn, told to the world, and refreshed from what it imagines."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from worldgym.config import DynamicsConfig
from worldgym.model.dynamics import Prefix
from worldgym.motion import CoTracker, lucas_kanade, motion_prompt, rainbow
from worldgym.planners.gradient import differentiable_returns
from worldgym.world import WorldModel, WorldState


def sliding(steps: int, by: tuple[float, float], seed: int = 0) -> np.ndarray:
    """A speckled square that moves by (right, down) pixels a frame, uint8 [t, 64, 64, 3]."""
    import cv2

    speckles = cv2.resize(np.random.default_rng(seed).integers(0, 256, (5, 5, 3), np.uint8), (20, 20))
    still = np.full((64, 64, 3), 200, np.uint8)
    still[18:38, 14:34] = speckles
    moves = [np.float32([[1, 0, by[0] * when], [0, 1, by[1] * when]]) for when in range(steps)]
    return np.stack([cv2.warpAffine(still, move, (64, 64), borderValue=(200, 200, 200)) for move in moves])


def test_points_are_followed():
    """Inside the square they move as it does, far from it not at all."""
    points, sure = lucas_kanade(sliding(4, (3.0, 1.5)))
    inside = sure & (np.abs(points[0] - [24, 28]) < 7).all(1)
    far = (np.abs(points[0] - [24, 28]) > 20).any(1) & (points[0, :, 0] < 30)
    assert inside.sum() >= 6
    np.testing.assert_allclose(points[3, inside] - points[0, inside], np.tile([9.0, 4.5], (inside.sum(), 1)), atol=1.0)
    assert np.abs(points[3, far & sure] - points[0, far & sure]).max(initial=0) < 0.5


def test_a_point_that_does_not_find_its_way_home_is_not_trusted():
    """Pictures that have nothing to do with each other have no trajectories."""
    noise = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    assert lucas_kanade(noise).sure.mean() < 0.1


def test_trajectories_are_drawn_where_something_moved():
    frames = sliding(4, (3.0, 0.0))
    overlay = motion_prompt(frames)
    drawn = (overlay != frames[-1]).any(-1)
    assert overlay.dtype == np.uint8 and overlay.shape == (64, 64, 3)
    assert drawn[18:38, 14:46].mean() > 0.05 and not drawn[46:].any()
    first, last = rainbow(3)[0], rainbow(3)[-1]
    assert first == (255, 0, 0) and last[2] == 255  # red, and something blue
    near = [np.argwhere(drawn & (np.abs(overlay - np.array(end)).max(-1) < 120)) for end in (first, last)]
    assert near[0][:, 1].mean() < near[1][:, 1].mean() - 3  # to the right


@pytest.mark.parametrize("frames", [sliding(1, (0, 0)), sliding(3, (0, 0))], ids=["one frame", "nothing moves"])
def test_without_motion_the_prompt_is_the_frame(frames):
    np.testing.assert_array_equal(motion_prompt(frames), frames[-1])


def test_a_tracker_of_ones_own():
    """What CoTracker3's predictor returns, from a stand-in that takes what it takes."""

    class Predictor(torch.nn.Module):
        def forward(self, video: torch.Tensor, grid_size: int):
            assert video.shape == (1, 3, 3, 64, 64) and video.max() > 1
            batch, time = video.shape[:2]
            tracks = torch.tensor([[10.0, 20.0], [40.0, 50.0]]).expand(batch, time, 2, 2)
            tracks = tracks + 5 * torch.arange(time).view(1, -1, 1, 1)
            visible = torch.ones(batch, time, 2)
            visible[:, 1, 1] = 0
            return tracks, visible[..., None]

    frames = sliding(3, (0, 0))
    tracks = CoTracker(Predictor())(frames)
    np.testing.assert_array_equal(tracks.sure, [True, False])
    overlay = motion_prompt(frames, CoTracker(Predictor()))
    drawn = np.argwhere((overlay != frames[-1]).any(-1))
    assert drawn.min(0).tolist() >= [19, 9] and drawn.max(0).tolist() <= [31, 21]


# -- in a world ----------------------------------------------------------------------------------------------------


@pytest.fixture(params=[1, 2], ids=["prompt", "prompt and memory"])
def prompted(request, make_world) -> WorldModel:
    return make_world(prompt=3, memory=request.param)


@pytest.fixture
def moving() -> np.ndarray:
    """uint8 [2, 6, 64, 64, 3]: one square goes right, the other left."""
    return np.stack([sliding(6, (3.0, 0.0)), sliding(6, (-2.0, 0.5), seed=1)])


def prefix(state: WorldState, world: WorldModel) -> torch.Tensor:
    return state.cache.keys[:, :, :, : world.dynamics.layout.cells]


def test_the_prefix_tells_the_motion_before_the_context(prompted, moving, actions):
    """Of two dreams from the same frame, one moved: they have the same context, latent and map, and other prefixes."""
    came = prompted.start(moving[:, 1:4], actions[:2, :2])
    stood = prompted.start(np.repeat(moving[:, 3:4], 3, 1), actions[:2, :2])
    for name in ("context", "latent", "fused"):
        torch.testing.assert_close(getattr(came, name), getattr(stood, name))
    assert (prefix(came, prompted) - prefix(stood, prompted)).abs().max() > 1e-3
    assert came.steps.tolist() == [0, 0]
    on, _ = prompted.step(came, actions[:2, 2])
    rest, _ = prompted.step(stood, actions[:2, 2])
    assert (on.latent - rest.latent).abs().max() > 1e-4


def test_a_single_frame_tells_of_no_motion(prompted, moving, actions):
    """Dreams that begin from one frame, and from the same frame again and again, are the same."""
    alone = prompted.start(moving[:, 3:4])
    still = prompted.start(np.repeat(moving[:, 3:4], 3, 1), actions[:2, :2])
    torch.testing.assert_close(prefix(alone, prompted), prefix(still, prompted), atol=1e-5, rtol=1e-4)
    one, _ = prompted.step(alone, actions[:2, 2])
    other, _ = prompted.step(still, actions[:2, 2])
    torch.testing.assert_close(one.fused, other.fused, atol=1e-4, rtol=1e-4)


def test_frames_after_the_prompt_are_steps(prompted, moving, actions):
    state = prompted.start(moving[:, :5], actions[:2, :4])
    assert state.steps.tolist() == [2, 2]
    assert state.past.shape[1] == state.past_actions.shape[1] == prompted.config.dynamics.observed - 1
    again = prompted.start(moving[:, :3], actions[:2, :2])
    torch.testing.assert_close(again.context, state.context)


def test_a_full_window_draws_its_prompt_from_imagined_frames(prompted, moving, actions):
    """The same tracker sees them: what follows is what follows a start from the same frames."""
    prompted.config = replace(prompted.config, dynamics=replace(prompted.config.dynamics, residual=1.0))
    prompted.dynamics.scale_head.residual = 1.0  # no token can flip by rounding
    seen: list[np.ndarray] = []
    prompted.tracker = lambda frames: seen.append(frames) or lucas_kanade(frames)
    state, pictures = prompted.start(moving[:, :1]), []
    for when in range(5):
        state, _ = prompted.step(state, actions[:2, when])
        pictures.append(prompted.render(state))
        assert bool(seen) == (when == 4)  # the window is of four
    observed = prompted.config.dynamics.observed
    shown = torch.stack(pictures[4 - observed : 4], 1)
    np.testing.assert_allclose(np.stack(seen).astype(int), shown[:, :3].numpy().astype(int), atol=1)
    again = prompted.start(shown, actions[:2, 5 - observed : 4])
    again, _ = prompted.step(again, actions[:2, 4])
    assert state.steps.tolist() == again.steps.tolist()
    # Rendered frames are rounded to whole numbers; those of a dream that goes on are not.
    torch.testing.assert_close(state.fused, again.fused, atol=0.1, rtol=0.1)


def test_a_short_prompt_has_the_colours_of_now(prompted, moving, actions):
    """Of two frames the newest motion is drawn as of four: before the first, nothing moved."""
    seen: list[np.ndarray] = []
    prompted.tracker = lambda frames: seen.append(frames) or lucas_kanade(frames)
    prompted.start(moving[:1, :2], actions[:1, :1])
    np.testing.assert_array_equal(seen[0], moving[0, [0, 0, 1]])


def test_a_batch_dreams_what_each_would_alone(prompted, moving, actions):
    together = prompted.start(moving[:, :3], actions[:2, :2])
    alone = prompted.start(moving[1:, :3], actions[1:2, :2])
    torch.testing.assert_close(prefix(together, prompted)[:, 1:], prefix(alone, prompted), atol=1e-5, rtol=1e-4)


def test_gradients_plan_in_it(prompted, moving, actions):
    """As `evaluate` sees it."""
    state = prompted.start(moving[:, :4], actions[:2, :3])
    sequences = torch.from_numpy(actions[:2, 3:5])
    expected = prompted.evaluate(state, sequences[:, None])[:, 0]
    torch.testing.assert_close(differentiable_returns(prompted, state.fork(1), sequences), expected)


def test_an_untrained_prompt_says_nothing(make_world, moving):
    """So weights of a world without prompts remain good to begin from."""
    dynamics = make_world(prompt=2).dynamics
    torch.nn.init.zeros_(dynamics.from_prompt.weight)
    context, prompt = torch.randn(2, 1, 16, 8, 8)
    torch.testing.assert_close(dynamics.prefix_tokens(Prefix(context, prompt)), dynamics.prefix_tokens(Prefix(context)))


@pytest.mark.parametrize("prompt", [-1, 1])
def test_one_frame_has_no_motion_to_prompt_with(prompt):
    with pytest.raises(ValueError, match="2 observed frames or more"):
        DynamicsConfig(prompt=prompt)
