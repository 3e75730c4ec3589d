"""Tree search over sentences in PAN, at toy size."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from worldgym.pan.world import PanWorld
from worldgym.planners import BeamSearch, BestFirstSearch, Node, PanFutures, Phrases, TextMPC

PHRASES = ["push", "go left", "stay"]


def brightness(frames: np.ndarray) -> np.ndarray:
    return frames.mean((1, 2, 3)) / 255


@pytest.fixture(scope="module")
def pan(pan_folder) -> PanWorld:
    world = PanWorld.load(pan_folder / "joint", dtype=torch.float32)
    torch.manual_seed(0)
    for layer in world.decoder.layers:  # so loud that two training steps can be heard
        torch.nn.init.normal_(layer.state.out.weight)
    return world


@pytest.fixture
def frame() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)


def test_the_best_of_all_futures_is_found(pan, frame):
    futures = PanFutures(pan, "as bright as can be", brightness)
    plan = BeamSearch(futures, Phrases(PHRASES), depth=2, breadth=3).plan(futures.ground(frame))
    start = pan.start(frame[None, None], seeds=[0])
    values = {}
    for first in PHRASES:
        once, _ = pan.step(start, [first])
        values[first,] = brightness(pan.render(once).numpy())[0]
        for second in PHRASES:
            values[first, second] = brightness(pan.render(pan.step(once, [second])[0]).numpy())[0]
    assert plan.sentences == max(values, key=values.__getitem__) and plan.tried == 12
    assert plan.value == pytest.approx(max(values.values()), abs=1e-5)


def test_a_search_ends_at_the_reward_of_success(pan, frame):
    futures = PanFutures(pan, "anything", brightness, success_reward=0.0)
    plan = BestFirstSearch(futures, Phrases(PHRASES), depth=2).plan(futures.ground(frame))
    assert plan.success == 1.0 and len(plan.sentences) == 1 and plan.tried == 3


def test_a_chat_model_may_propose_and_judge(pan, frame):
    """Both see the pictures that PAN made."""
    asked = []

    def propose(instruction: str, node: Node) -> list[str]:
        asked.append((instruction, node.look().shape))
        return ["pour", "wait"]

    def judge(instruction: str, nodes: list[Node]) -> np.ndarray:
        return np.array([float(node.look()[0, 0, 0]) + 1000 * (node.said[0] == "wait") for node in nodes])

    search = BeamSearch(PanFutures(pan, "the cup is full"), propose, judge, depth=2, breadth=1)
    assert TextMPC(search)(frame) == "wait"
    assert asked == [("the cup is full", (32, 32, 3))] * 2


def test_the_whole_way_from_clips_to_a_plan(pan_folder):
    """`pan_folder` was trained by both stages; here it is made, stepped and searched."""
    env = gym.make(
        "worldgym/Pan-v0", trained=str(pan_folder / "joint"), reward="the cup is full", device="cpu", dtype="float32",
        starts=str(pan_folder / "clips"), max_episode_steps=2,
    )  # fmt: skip
    futures = PanFutures(env.unwrapped.world, env.unwrapped.instruction)
    control = TextMPC(BeamSearch(futures, Phrases(env.unwrapped.phrases), depth=1))
    frame, _ = env.reset(seed=0)
    over = False
    while not over:
        frame, reward, terminated, truncated, _ = env.step(control(frame))
        assert 0.0 < reward < 1.0
        over = terminated or truncated
    assert control.plan.sentences[0] in env.unwrapped.phrases and control.plan.tried == 5
