"""An actor and a critic that learn in the recurrent state alone (Dreamer; Hafner et al., 2020, arXiv 1912.01603).

From states that filtered recorded frames the actor imagines 15 steps; the critic says what would follow. The actor
climbs the lambda returns by their gradient, straight through rewards and state; the critic learns to foresee them. No
frame is drawn, and nothing real is done.

    agent = ActorCritic(world, "push the red block to the centre")
    agent.learn(recorded_states(world, "worldgym/tabletop-v0", agent.instruction), updates=2000)
    action, _ = agent.predict(world.observe(frames, actions).numpy())
"""

import copy
import json
import math
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium.spaces import Box
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from worldgym.checkpoint import restore_training, training_state, write_tensors
from worldgym.errors import UserError
from worldgym.model.device import isolated
from worldgym.starts import bundled_starts, recorded_starts
from worldgym.world import WorldModel

from .settings import Learning

BATCH = 256
"""States that each update imagines from."""
HORIZON = 15
LAMBDA = 0.95
ENTROPY = 3e-3
"""What a nat of the actor's entropy is worth, in units of the returns' spread."""
TARGET = 0.02
"""Share of the critic that its slow copy, which says what follows the horizon, takes over in each update."""
OPTIMIZER = "optimizer."
"""Before the names of optimisers' tensors in a file."""
STATES = 8192
"""Recorded states that imagination begins from."""


class Imagined(NamedTuple):
    """Imagined steps, [h, b] each but the states."""

    states: Float[Tensor, "h1 b s"]
    rewards: Float[Tensor, "h b"]
    alive: Float[Tensor, "h b"]
    """Probability that the episode goes on after each step."""
    entropy: Float[Tensor, "h b"]


class ActorCritic(nn.Module):
    """Acts on recurrent states, by one instruction.

    Args:
        world: one with a recurrent state; it stays as it is.
        discount: of rewards a step later.
    """

    def __init__(self, world: WorldModel, instruction: str, discount: float = 0.95):
        super().__init__()
        assert world.recurrent is not None and world.config.recurrent is not None
        width, actions = world.config.recurrent.width, world.config.action_size
        self.actor, self.critic = (network(width, size) for size in (2 * actions, 1))
        self.slow_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.register_buffer("spread", torch.ones(()))
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))
        rates = (self.actor, 3e-4), (self.critic, 1e-3)
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Adam(network.parameters(), rate, eps=1e-5) for network, rate in rates
        ]
        self.instruction, self.discount, self._actions = instruction, discount, actions
        self._codec = world.config.codec
        self._read = world.read_instructions([instruction])
        self._filter = [world.recurrent]  # in a list, so that its weights are not the agent's

    spread: Tensor
    """Of returns: from the 5th to the 95th percentile, a running mean."""
    updates: Tensor
    """Made so far."""

    @property
    def num_timesteps(self) -> int:
        """Updates made so far."""
        return int(self.updates)

    # -- acting --------------------------------------------------------------------------------------------------------

    def policy(self, states: Float[Tensor, "b s"]) -> tuple[Float[Tensor, "b a"], Float[Tensor, "b a"]]:
        """Mean and standard deviation of actions before `tanh` brings them into [-1, 1]."""
        mean, spread = self.actor(states).chunk(2, -1)
        return 2 * torch.tanh(mean / 2), F.softplus(spread) + 0.05

    def value(self, states: Float[Tensor, "*b s"]) -> Float[Tensor, "*b"]:
        """Discounted sum of the rewards that follow, as the slow critic has it."""
        return self.slow_critic(states).squeeze(-1)

    @torch.no_grad()
    def predict(self, observation: np.ndarray, deterministic: bool = True) -> tuple[np.ndarray, None]:
        """Actions of the world's space for recurrent states [b, s], as Stable-Baselines3's agents have it."""
        mean, spread = self.policy(torch.from_numpy(observation).to(self.spread.device))
        vectors = torch.tanh(mean if deterministic else torch.normal(mean, spread)).cpu().numpy()
        return np.stack([self._codec.decode(vector) for vector in vectors]), None

    # -- learning ------------------------------------------------------------------------------------------------------

    def imagine(self, states: Float[Tensor, "b s"], noise: Float[Tensor, "h b a"]) -> Imagined:
        """What the actor does from these states and what it earns, with gradients."""
        recurrent, instruction = self._filter[0], self._read.expand(len(states), -1)
        passed, entropy = [states], []
        for chance in noise:
            mean, spread = self.policy(passed[-1])
            wanted = mean + spread * chance
            squeezed = 2 * (math.log(2) - wanted - F.softplus(-2 * wanted))  # log of tanh's slope
            entropy.append((0.5 * chance.square() + spread.log() + 0.5 * math.log(2 * math.pi) + squeezed).sum(-1))
            passed.append(recurrent.predict(passed[-1], torch.tanh(wanted)))
        whole = torch.stack(passed)
        said = recurrent.heads.each(whole[1:].transpose(0, 1), instruction)
        return Imagined(whole, said.reward.T, (-said.terminated).sigmoid().T, torch.stack(entropy))

    def update(self, states: Float[Tensor, "b s"], noise: Float[Tensor, "h b a"]) -> dict[str, float]:
        """One step of actor and critic."""
        made = self.imagine(states, noise)
        follows = self.value(made.states[1:])
        returns = lambda_returns(made.rewards, follows, self.discount * made.alive)
        reached = torch.cumprod(torch.cat([torch.ones_like(made.alive[:1]), made.alive[:-1]]), 0).detach()
        low, high = torch.quantile(returns.detach(), torch.tensor([0.05, 0.95], device=returns.device))
        self.spread.lerp_((high - low).clamp(min=1e-3), 1.0 if self.updates == 0 else 0.02)
        actor_loss = -(reached * (returns / self.spread + ENTROPY * made.entropy)).mean()
        foreseen = self.critic(made.states[:-1].detach()).squeeze(-1)
        critic_loss = (reached * ((foreseen - returns.detach()) / self.spread).square()).mean()
        for loss, network, optimizer in zip(
            (actor_loss, critic_loss), (self.actor, self.critic), self.optimizers, strict=True
        ):
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(self.slow_critic.parameters(), self.critic.parameters(), strict=True):
                slow.lerp_(fast, TARGET)
        self.updates += 1
        figures = {"return": returns[0], "reward": made.rewards, "entropy": made.entropy, "critic_loss": critic_loss}
        return {name: float(values.detach().mean()) for name, values in figures.items()}

    @isolated
    def learn(
        self, states: Float[Tensor, "n s"], updates: int, seed: int = 0, log: Path | None = None,
        after: Callable[[], bool] = lambda: True,
    ) -> None:  # fmt: skip
        """Learn until so many updates are made.

        Args:
            states: recurrent ones to begin from, such as `recorded_states` gives.
            log: TensorBoard's folder.
            after: called after each update; stops if it says False.
        """
        with (
            SummaryWriter(str(log)) if log else nullcontext() as writer,
            torch.enable_grad(),
            tqdm(total=updates, initial=int(self.updates), desc="imagining", unit="update") as bar,
        ):
            while self.updates < updates:
                random = torch.Generator().manual_seed(hash((seed, int(self.updates))))
                rows = torch.randint(len(states), (BATCH,), generator=random)
                noise = torch.randn(HORIZON, BATCH, self._actions, generator=random)
                figures = self.update(states[rows.to(states.device)], noise.to(states.device))
                bar.update()
                bar.set_postfix(imagined=f"{figures['return']:.2f}", refresh=False)
                if writer is not None and self.updates % 20 == 0:
                    for name, value in figures.items():
                        writer.add_scalar(f"imagination/{name}", value, int(self.updates))
                if not after():
                    break

    # -- on disk -------------------------------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Write networks, optimisers and what they were made for, as safetensors."""
        tensors, told = self.state_dict(), {"instruction": self.instruction, "discount": self.discount}
        for which, optimizer in enumerate(self.optimizers):
            state = training_state(optimizer, int(self.updates))
            tensors |= {f"{OPTIMIZER}{which}.{name}": tensor for name, tensor in state.items()}
        write_tensors(path, tensors, {"actor_critic": json.dumps(told)})

    @classmethod
    def load(cls, path: Path, world: WorldModel) -> "ActorCritic":
        """An agent that `save` wrote, for the world that it learned in.

        Raises:
            ValueError: the file is damaged, no agent, or one of a world of another size.
        """
        try:
            with safe_open(path, "pt") as file:
                told = json.loads((file.metadata() or {})["actor_critic"])
            agent, tensors = cls(world, told["instruction"], told["discount"]), load_file(path)
            agent.load_state_dict({name: value for name, value in tensors.items() if not name.startswith(OPTIMIZER)})
            for which, optimizer in enumerate(agent.optimizers):
                own = f"{OPTIMIZER}{which}."
                state = {name.removeprefix(own): value for name, value in tensors.items() if name.startswith(own)}
                restore_training(optimizer, state)
        except (SafetensorError, KeyError, RuntimeError) as error:
            raise ValueError(f"{path} holds no agent for the world {world.config.name!r}: {error}") from None
        return agent.to(world.device)


def network(inputs: int, outputs: int) -> nn.Sequential:
    """Two hidden layers; at first it says nearly nothing."""
    layers = nn.Sequential(
        nn.Linear(inputs, 256), nn.LayerNorm(256), nn.SiLU(), nn.Linear(256, 256), nn.LayerNorm(256), nn.SiLU(),
        nn.Linear(256, outputs),
    )  # fmt: skip
    last = layers[-1]
    assert isinstance(last, nn.Linear)
    nn.init.normal_(last.weight, std=0.01)
    nn.init.zeros_(last.bias)
    return layers


def lambda_returns(
    rewards: Float[Tensor, "h b"], follows: Float[Tensor, "h b"], discounts: Float[Tensor, "h b"]
) -> Float[Tensor, "h b"]:
    """R_t = r_t + c_t ((1 - lambda) v_{t+1} + lambda R_{t+1}), with the value at the end of the horizon.

    Args:
        follows: v_{t+1}, what the critic says of the state after each step.
        discounts: c_t, none where the episode has ended.
    """
    returns, last = [], follows[-1]
    for reward, value, discount in zip(rewards.flip(0), follows.flip(0), discounts.flip(0), strict=True):
        last = reward + discount * ((1 - LAMBDA) * value + LAMBDA * last)
        returns.append(last)
    return torch.stack(returns[::-1])


def recorded_states(
    world: WorldModel, dataset: str | None, instruction: str, seed: int = 0, count: int = STATES
) -> Float[Tensor, "n s"]:
    """States to begin from, in which the instruction is still to be done.

    Args:
        dataset: Minari id of a recording; by default the frames that come with the world.
        count: states of a recording.
    """
    starts = recorded_starts(dataset, world.config) if dataset else bundled_starts(str(world.folder), world.config)
    if starts is None:
        raise ValueError(f"the world {world.config.name!r} has no starting frames; name a recording with --starts")
    random = np.random.default_rng(seed)
    drawn = [starts.draw(instruction, random) for _ in range(count if dataset else len(starts.newest))]
    parts = []
    for index in range(0, len(drawn), 256):
        frames, actions = (np.stack(part) for part in zip(*drawn[index : index + 256], strict=True))
        parts.append(world.observe(frames, actions))
    return torch.cat(parts)


def make_actor_critic(config: Learning, world: WorldModel) -> ActorCritic:
    """The agent of `worldgym learn --agent actor-critic`."""
    assert config.instruction is not None
    torch.manual_seed(config.seed)
    return ActorCritic(world, config.instruction, config.discount).to(world.device)


def check_recurrent(world: WorldModel) -> None:
    """A UserError if the world has no state to imagine in, or takes what has no gradient."""
    if world.recurrent is None:
        raise UserError(f"{world.config.name!r} has no recurrent state to imagine in; `worldgym train state` makes one")
    if world.config.codec.choices or not isinstance(world.config.codec.space, Box):
        raise UserError(
            f"actor-critic climbs gradients of continuous actions, and {world.config.name!r} takes "
            f"{world.config.codec.space}; --agent ppo --sees state takes any"
        )
