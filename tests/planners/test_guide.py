"""CEM guided by an agent: what follows the horizon counts, and what is proposed is tried."""

import numpy as np
import pytest
import torch

from worldgym.agents.actor_critic import ActorCritic
from worldgym.cli.plan import plan
from worldgym.errors import UserError
from worldgym.planners import CEM, GuidedReturns
from worldgym.planners.settings import Planning

from ..cli.briefly import run
from ..conftest import filtered_world

GOAL = "reach the centre"


@pytest.fixture
def guided(frames):
    world = filtered_world()
    torch.manual_seed(0)
    agent = ActorCritic(world, GOAL, discount=0.9)
    torch.nn.init.normal_(agent.slow_critic[-1].weight)
    torch.nn.init.normal_(agent.actor[-1].weight)
    returns = GuidedReturns(world, GOAL, agent)
    returns.ground(frames[0, :2], np.zeros((1, 2), np.float32))
    return world, agent, returns


def test_the_return_has_the_value_of_where_it_ends(guided):
    world, agent, returns = guided
    sequences = np.random.default_rng(0).uniform(-1, 1, (3, 5, 2)).astype(np.float32)
    for sequence, found in zip(sequences, returns(sequences), strict=True):
        state, expected, weight = returns.state, 0.0, 1.0
        for action in torch.from_numpy(sequence):
            state = world.recurrent.predict(state, action[None])
            said = world.recurrent.heads.each(state[:, None], world.read_instructions([GOAL]))
            expected += weight * float(said.reward)
            weight *= 0.9 * float((-said.terminated).sigmoid())
        expected += weight * float(agent.value(state))
        assert found == pytest.approx(expected, abs=1e-4)


def test_it_proposes_what_the_actor_would_do(guided):
    world, agent, returns = guided
    proposed = returns.propose(4, 6)
    assert proposed.shape == (4, 6, 2) and np.abs(proposed).max() <= 1
    state = returns.state
    for action in proposed[0]:
        wanted, _ = agent.predict(state.numpy())
        np.testing.assert_allclose(action, wanted[0], atol=1e-5)
        state = world.recurrent.predict(state, torch.from_numpy(action)[None])
    assert not np.allclose(proposed[0], proposed[1])


def test_cem_tries_what_is_proposed(guided):
    """With nothing but the centre and the proposals to try, the plan is the best of them."""
    _, _, returns = guided
    search = CEM(returns, -np.ones(2), np.ones(2), horizon=4, samples=5, iterations=1, elites=2, action_repeat=1)
    returns._random = torch.Generator().manual_seed(0)
    found = search.plan()
    returns._random = torch.Generator().manual_seed(0)
    tried = np.concatenate([np.zeros((1, 4, 2), np.float32), returns.propose(4, 4)])
    np.testing.assert_allclose(found.actions, tried[returns(tried).argmax()], atol=1e-6)


def test_a_guide_of_another_instruction_is_refused(guided):
    world, agent, _ = guided
    with pytest.raises(UserError, match=f"the guide learned '{GOAL}'"):
        GuidedReturns(world, "push the red block to the centre", agent)


@pytest.mark.parametrize("options", [["--planner", "mppi"], ["--on", "mujoco"], ["--drawn"]])
def test_what_cannot_be_guided_is_refused(options, capsys):
    with pytest.raises(SystemExit):
        run("plan", "tabletop", "--guide", "agent.safetensors", *options)
    assert "--guide is of --planner cem in the recurrent state of a dream" in " ".join(capsys.readouterr().err.split())


def test_a_file_that_is_no_agent_is_refused(tmp_path):
    with pytest.raises(UserError, match="is no file"):
        plan(Planning("tabletop", guide=tmp_path / "agent.safetensors"))
    (tmp_path / "agent.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="holds no agent"):
        plan(Planning("tabletop", guide=tmp_path / "agent.safetensors"))
