"""The actor and the critic that learn in the recurrent state."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from worldgym.agents.actor_critic import HORIZON, LAMBDA, ActorCritic, lambda_returns, recorded_states
from worldgym.agents.learning import checkpoints, learn, load_policy
from worldgym.agents.observers import SeeAlone
from worldgym.agents.settings import Learning
from worldgym.envs_real.twins import twin_of
from worldgym.world import WorldModel

from ..conftest import filtered_world, tiny_world, write_world

GOAL = "reach the centre"


@pytest.fixture
def world() -> WorldModel:
    return filtered_world()


@pytest.fixture
def twinned(tmp_path) -> Path:
    world = filtered_world()
    world.config = replace(world.config, twin="worldgym/TabletopMuJoCo-v0")
    return write_world(tmp_path / "world", world)


def test_lambda_returns_are_the_sums_of_the_paper():
    """R = sum over n of (1 - lambda) lambda^(n-1) V_n, with V_n the n-step return; the last has the rest."""
    random = torch.Generator().manual_seed(0)
    rewards, follows, discounts = (torch.rand(4, 3, generator=random) for _ in range(3))

    def steps(begin: int, count: int) -> torch.Tensor:
        total, weight = torch.zeros(3), torch.ones(3)
        for at in range(begin, begin + count):
            total, weight = total + weight * rewards[at], weight * discounts[at]
        return total + weight * follows[begin + count - 1]

    for begin in range(4):
        left = 4 - begin
        weighed = sum((1 - LAMBDA) * LAMBDA ** (n - 1) * steps(begin, n) for n in range(1, left))
        expected = weighed + LAMBDA ** (left - 1) * steps(begin, left)
        torch.testing.assert_close(lambda_returns(rewards, follows, discounts)[begin], expected)


def test_it_imagines_what_the_world_says(world, frames):
    """Rewards of imagined steps are those of the same actions in `evaluate`; entropies are as torch has them."""
    agent, states = ActorCritic(world, GOAL), world.observe(frames[:, :1])
    noise = torch.randn(HORIZON, 3, 2, generator=torch.Generator().manual_seed(0))
    made, state, actions = agent.imagine(states, noise), states, []
    for when, chance in enumerate(noise):
        mean, spread = agent.policy(state)
        squashed = torch.distributions.TransformedDistribution(
            torch.distributions.Normal(mean, spread), torch.distributions.TanhTransform()
        )
        actions.append(torch.tanh(mean + spread * chance))
        torch.testing.assert_close(made.entropy[when], -squashed.log_prob(actions[-1]).sum(-1), atol=1e-3, rtol=1e-3)
        state = world.recurrent.predict(state, actions[-1])
        torch.testing.assert_close(made.states[when + 1], state)
    read = world.read_instructions([GOAL] * 3)
    returns = world.imagine(states, torch.stack(actions, 1)[:, None].detach(), read)[:, 0]
    torch.testing.assert_close(made.rewards.sum(0), returns, atol=1e-4, rtol=1e-4)


def test_it_learns_what_pays(world, frames):
    """What it does earns more in the state than before, and the world stays as it was."""
    before = {name: value.clone() for name, value in world.state_dict().items()}
    agent, states = ActorCritic(world, GOAL), world.observe(frames.reshape(12, 1, 64, 64, 3))
    noise = torch.zeros(HORIZON, 12, 2)
    earned = float(agent.imagine(states, noise).rewards.detach().sum(0).mean())
    agent.learn(states, 30)
    after = float(agent.imagine(states, noise).rewards.detach().sum(0).mean())
    random = np.random.default_rng(0).uniform(-1, 1, (12, 64, HORIZON, 2)).astype(np.float32)
    tried = world.imagine(states, random, world.read_instructions([GOAL] * 12))
    assert after > earned and after > float(tried.mean()) + float(tried.std(1).mean())
    assert all(torch.equal(value, before[name]) for name, value in world.state_dict().items())


def test_a_killed_agent_continues_as_it_would_have(world, frames, tmp_path):
    states = world.observe(frames[:, :1])
    whole, cut = ActorCritic(world, GOAL), ActorCritic(world, GOAL)
    cut.load_state_dict(whole.state_dict())
    whole.learn(states, 6)
    cut.learn(states, 3)
    cut.save(tmp_path / "agent.safetensors")
    resumed = ActorCritic.load(tmp_path / "agent.safetensors", world)
    assert resumed.num_timesteps == 3
    resumed.learn(states, 6)
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in resumed.state_dict().items())


def test_it_acts_on_all_that_an_episode_showed(world, frames, actions):
    agent = ActorCritic(world, GOAL)
    torch.nn.init.normal_(agent.actor[-1].weight)
    act, done = SeeAlone(agent, world, "state"), []
    for when in range(3):
        done.append(act(frames[0, when]))
    seen = world.observe(frames[:1, :3], np.stack(done[:2])[None])
    np.testing.assert_allclose(done[2], agent.predict(seen.numpy())[0][0], atol=1e-5)


def test_the_command_learns_judges_and_continues(twinned, tmp_path):
    settings = {"world": str(twinned), "agent": "actor-critic", "episodes": 1, "out": tmp_path / "out"}
    metrics = learn(Learning(steps=2, save_every=1, **settings), twin_of)
    assert (metrics["steps"], metrics["real_steps"], metrics["sees"]) == (2, 0, "state")
    metrics = learn(Learning(steps=4, save_every=1, **settings), twin_of)
    assert metrics["steps"] == 4
    world = WorldModel.load(str(twinned), "cpu")
    assert checkpoints(tmp_path / "out") == ["_0000001", "_0000002", "_0000003", "_0000004"]
    first, made = load_policy(tmp_path / "out", world, "_0000001")
    assert (first.num_timesteps, made.sees) == (1, "state")


def test_what_cannot_be_is_said_before_anything_is_written(twinned, tmp_path):
    with pytest.raises(ValueError, match="actor-critic learns with --in dream only"):
        Learning(str(twinned), "actor-critic", "mujoco")
    with pytest.raises(ValueError, match="actor-critic learns with --sees state only"):
        Learning(str(twinned), "actor-critic", sees="latent")
    plain = tiny_world()
    plain.config = replace(plain.config, twin="worldgym/TabletopMuJoCo-v0")
    folder = write_world(tmp_path / "plain", plain)
    with pytest.raises(ValueError, match="no recurrent state to imagine in"):
        learn(Learning(str(folder), "actor-critic", out=tmp_path / "out"), twin_of)
    assert not (tmp_path / "out").exists()
    save_file({"a": torch.zeros(1)}, tmp_path / "agent.safetensors")
    with pytest.raises(ValueError, match="holds no agent"):
        ActorCritic.load(tmp_path / "agent.safetensors", filtered_world())


def test_states_begin_where_the_instruction_is_still_to_be_done(twinned):
    world = WorldModel.load(str(twinned), "cpu")
    assert recorded_states(world, None, GOAL).shape == (5, 32)
