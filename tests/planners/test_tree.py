from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest

import worldgym  # noqa: F401  registers the ids
from worldgym.planners import BeamSearch, BestFirstSearch, DreamFutures, Node, Phrases, TextMPC, TwinFutures
from worldgym.planners.planning import make_policy
from worldgym.planners.settings import Planning
from worldgym.planners.tree import by_reward

INSTRUCTION = "reach the centre"
STEPS = {"left": (-1, 0), "right": (1, 0), "up": (0, 1), "down": (0, -1)}


class Grid:
    """Sentences are steps on a grid; the reward is minus the steps still to go, walls make detours."""

    def __init__(self, goal=(2, 1), walls=()):
        self.goal, self.walls, self.batches, self.grounded = goal, set(walls), [], []

    def ground(self, observation):
        self.grounded.append(observation)
        return self.node((), tuple(observation))

    def extend(self, nodes, sentences):
        self.batches.append([(*node.said, sentence) for node, sentence in zip(nodes, sentences, strict=True)])
        return [self.node((*node.said, s), self.after(node.where, s)) for node, s in zip(nodes, sentences, strict=True)]

    def after(self, place, sentence):
        there = (place[0] + STEPS[sentence][0], place[1] + STEPS[sentence][1])
        return place if there in self.walls else there

    def node(self, said, place):
        away = abs(place[0] - self.goal[0]) + abs(place[1] - self.goal[1])
        return Node(INSTRUCTION, said, -float(away), float(away == 0), lambda: np.asarray(place), place)


def walk(grid, search, limit=12):
    control, place, said = TextMPC(search), (0, 0), []
    while place != grid.goal and len(said) < limit:
        said.append(control(np.asarray(place)))
        place = grid.after(place, said[-1])
    return place, said


SEARCHES = [BeamSearch, BestFirstSearch]
PHRASES = Phrases(list(STEPS))

# -- searching ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SEARCHES)
def test_it_finds_the_shortest_way_within_its_depth(kind):
    plan = kind(Grid(), PHRASES, depth=4).plan(Grid().ground((0, 0)))
    assert sorted(plan.sentences) == ["right", "right", "up"]
    assert plan.success == 1.0 and plan.value == 1.0


@pytest.mark.parametrize("kind", SEARCHES)
def test_beyond_its_depth_it_goes_as_far_as_it_sees(kind):
    plan = kind(Grid(goal=(9, 0)), PHRASES, depth=2).plan(Grid(goal=(9, 0)).ground((0, 0)))
    assert plan.sentences == ("right", "right") and plan.success == 0.0


@pytest.mark.parametrize("kind", SEARCHES)
def test_it_speaks_again_until_it_is_there(kind):
    grid = Grid(goal=(3, -2))
    place, said = walk(grid, kind(grid, PHRASES, depth=2))
    assert place == (3, -2) and len(said) == 5
    assert len(grid.grounded) == 5  # it looked before each


def test_looking_ahead_gets_round_what_the_next_sentence_does_not():
    """A wall stands before the goal, and the first step round it leads away."""
    short, far = Grid((2, 0), [(1, 0)]), Grid((2, 0), [(1, 0)])
    assert len(walk(short, BeamSearch(short, PHRASES, depth=1))[1]) > 4
    place, said = walk(far, BeamSearch(far, PHRASES, depth=4, breadth=16))
    assert place == (2, 0) and len(said) == 4


def test_a_beam_simulates_a_level_in_one_batch():
    grid = Grid(goal=(9, 9))
    plan = BeamSearch(grid, PHRASES, depth=3, breadth=2).plan(grid.ground((0, 0)))
    assert [len(batch) for batch in grid.batches] == [4, 8, 8]
    assert plan.tried == 20
    assert {path[:1] for path in grid.batches[1]} == {("right",), ("up",)}  # the two that came nearer


def test_best_first_goes_on_from_the_best_wherever_it_is():
    """Behind the first step lies a wall, so the second best root child is extended before its own children."""
    grid = Grid(goal=(3, 0), walls=[(2, 0), (1, 1), (1, -1)])
    BestFirstSearch(grid, PHRASES, depth=4, breadth=3).plan(grid.ground((0, 0)))
    assert [batch[0][:-1] for batch in grid.batches[:2]] == [(), ("right",)]
    assert all(len(batch) == 4 for batch in grid.batches) and len(grid.batches) == 3


def test_best_first_does_not_look_beyond_its_depth():
    grid = Grid(goal=(9, 9))
    BestFirstSearch(grid, PHRASES, depth=2, breadth=50).plan(grid.ground((0, 0)))
    assert len(grid.batches) == 1 + 4  # the root and its children; then there is nothing left
    assert max(len(path) for batch in grid.batches for path in batch) == 2


@pytest.mark.parametrize("kind", SEARCHES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_never_chosen(kind, bad):
    def judge(instruction, nodes):
        return np.array([bad if "right" in node.said else node.reward for node in nodes])

    plan = kind(Grid(goal=(9, 0)), PHRASES, judge, depth=2).plan(Grid(goal=(9, 0)).ground((0, 0)))
    assert "right" not in plan.sentences and np.isfinite(plan.value)


@pytest.mark.parametrize("kind", SEARCHES)
def test_what_cannot_be_searched_says_so(kind):
    root = Grid().ground((0, 0))
    with pytest.raises(ValueError, match="nothing to say"):
        kind(Grid(), lambda instruction, node: []).plan(root)
    with pytest.raises(FloatingPointError, match="no future a finite value"):
        kind(Grid(), PHRASES, lambda instruction, nodes: np.full(len(nodes), np.nan)).plan(root)
    with pytest.raises(ValueError, match=r"shape \(1,\) for 4 futures"):
        kind(Grid(), PHRASES, lambda instruction, nodes: np.zeros(1)).plan(root)
    with pytest.raises(ValueError, match="depth is 0"):
        kind(Grid(), PHRASES, depth=0)


def test_what_led_nowhere_is_not_said_again():
    """The simulation does not know of a wall that is there in reality; without a memory it would run into it again."""
    grid, real = Grid(goal=(2, 0)), Grid(goal=(2, 0), walls=[(1, 0)])
    control, place, said = TextMPC(BeamSearch(grid, PHRASES)), (0, 0), []
    while place != (2, 0) and len(said) < 12:
        said.append(control(np.asarray(place)))
        place = real.after(place, said[-1])
    assert said[0] == "right" and said[1] != "right"
    assert place == (2, 0)
    only = TextMPC(BeamSearch(grid, lambda instruction, node: ["left"]))
    assert [only(np.zeros(2)) for _ in range(2)] == ["left", "left"]  # there is nothing else to say
    again = TextMPC(BeamSearch(grid, PHRASES))
    first = again(np.zeros(2))
    again.reset()
    assert again(np.zeros(2)) == first


# -- proposing and judging ----------------------------------------------------------------------------------------


def test_phrases_about_other_blocks_are_left_out():
    node = Grid().ground((0, 0))
    listed = ["push the red block left", "push the blue block left", "push the red block to the blue block", "move up"]
    assert list(Phrases(listed)("push the red block to the centre", node)) == listed
    relevant = Phrases(listed, ["red block", "blue block"])
    assert list(relevant("push the red block to the centre", node)) == [listed[0], listed[3]]
    assert list(relevant("push the red block to the blue block", node)) == listed
    assert list(relevant("gather the blocks", node)) == listed
    with pytest.raises(ValueError, match="no phrases"):
        Phrases([])


class Chat:
    """Stands in for a chat model: it reads the question, looks at the pictures, and answers in words."""

    def __init__(self):
        self.asked = []

    def __call__(self, question, pictures):
        self.asked.append((question, len(pictures)))
        if "what could be said" in question:
            return "right\nup\n"
        return str(10 - np.abs(pictures[0] - (2, 1)).sum())


def test_a_chat_model_can_propose_and_judge():
    """The two functions of the module's docstring."""
    ask = Chat()

    def propose(instruction, node):
        return ask(f"To {instruction}, what could be said next? One sentence a line.", [node.look()]).splitlines()

    def judge(instruction, nodes):
        question = f"From 0 to 10, how close is this to: {instruction}? A number alone."
        return np.array([float(ask(question, [node.look()])) for node in nodes])

    grid = Grid()
    place, said = walk(grid, BeamSearch(grid, propose, judge, depth=3))
    assert place == (2, 1) and sorted(said) == ["right", "right", "up"]
    assert {"left", "down"}.isdisjoint(sentence for batch in grid.batches for path in batch for sentence in path)
    assert all(INSTRUCTION in question and pictures == 1 for question, pictures in ask.asked)


# -- in the dream -------------------------------------------------------------------------------------------------


def futures(world, instruction=INSTRUCTION):
    return DreamFutures(world, instruction)


def never(world):
    """No success, so that every sentence runs to its end."""
    for member in world.dynamics.outcome_heads.members:
        member.outer[-1].bias[1] = -20.0
    return world


def test_sentences_in_a_batch_are_what_each_would_be_alone(make_world, frames):
    """Two levels deep, beyond the tiny window of four steps; parents in any order."""
    world = never(make_world())
    sentences = list(world.config.phrases)
    dream = futures(world)
    first = dream.extend([dream.ground(frames[0, 0])] * 4, sentences)
    second = dream.extend([first[2], first[0], first[2]], [sentences[1], sentences[3], sentences[0]])
    assert second[0].said == (sentences[2], sentences[1])
    state = world.start(frames[:1, :1], instruction=INSTRUCTION)
    for sentence in second[0].said:
        for _ in range(world.config.frames_per_action):
            state, outcome = world.step(state, [sentence])
    assert second[0].reward == pytest.approx(outcome.reward.item(), abs=1e-4)
    assert second[0].success == pytest.approx(outcome.success.item(), abs=1e-4)
    np.testing.assert_allclose(second[0].look(), world.render(state)[0].numpy(), atol=1)
    assert second[0].look().shape == (64, 64, 3) and second[0].look().dtype == np.uint8


def test_futures_of_different_batches_can_be_extended_together(make_world, frames):
    world = never(make_world())
    dream = futures(world)
    root = dream.ground(frames[0, 0])
    (up,), (left,) = dream.extend([root], ["move up"]), dream.extend([root], ["push the red block left"])
    mixed = dream.extend([left, up, left], ["move up", "stay still", "stay still"])
    alone = [dream.extend([node], [s])[0] for node, s in ((left, "move up"), (up, "stay still"), (left, "stay still"))]
    assert [node.said for node in mixed] == [node.said for node in alone]
    np.testing.assert_allclose([n.reward for n in mixed], [n.reward for n in alone], atol=1e-4)


def test_a_dream_that_succeeds_stops_there(make_world, frames):
    world = make_world()
    for member in world.dynamics.outcome_heads.members:
        member.outer[-1].bias[1] = 20.0
    dream = futures(world)
    nodes = dream.extend([dream.ground(frames[0, 0])] * 2, ["move up", "stay still"])
    state, outcome = world.step(world.start(frames[:1, :1], instruction=INSTRUCTION), ["move up"])
    assert nodes[0].solved and nodes[0].reward == pytest.approx(outcome.reward.item(), abs=1e-4)
    np.testing.assert_allclose(nodes[0].look(), world.render(state)[0].numpy(), atol=1)


def test_pictures_are_made_when_somebody_looks(make_world, frames, monkeypatch):
    world, rendered = never(make_world()), []
    monkeypatch.setattr(world, "render", lambda state: rendered.append(len(state)) or state.fused)
    dream = futures(world)
    plan = BeamSearch(dream, Phrases(world.config.phrases), depth=2, breadth=2).plan(dream.ground(frames[0, 0]))
    assert plan.tried == 12 and rendered == []


def test_searching_leaves_the_root_as_it_was(make_world, frames):
    world = never(make_world())
    dream = futures(world)
    search = BeamSearch(dream, Phrases(world.config.phrases), depth=2, breadth=2)
    root = dream.ground(frames[0, 0])
    assert search.plan(root) == search.plan(root)


def test_an_instruction_the_world_does_not_know_needs_another_judge(make_world, frames):
    world = make_world()
    dream = futures(world, "make a pretty picture")
    root, phrases = dream.ground(frames[0, 0]), Phrases(world.config.phrases)
    with pytest.raises(ValueError, match="no reward for 'make a pretty picture'; give the search a judge"):
        BeamSearch(dream, phrases).plan(root)

    def darkest(instruction, nodes):
        assert instruction == "make a pretty picture"
        return np.array([-node.look().mean() for node in nodes])

    plan = BeamSearch(dream, phrases, darkest, depth=1).plan(root)
    children = dream.extend([root] * len(phrases.phrases), phrases.phrases)
    assert plan.value == max(-child.look().mean() for child in children)
    assert all(child.success == 0 and len(child.said) == 1 for child in children)


# -- on true physics ----------------------------------------------------------------------------------------------


@pytest.fixture
def twin():
    env = gym.make("worldgym/TabletopMuJoCo-v0", action_mode="text", instruction="gather the blocks")
    yield env
    env.close()


def test_trying_on_the_twin_changes_nothing(twin):
    frame, _ = twin.reset(seed=0)
    before = twin.unwrapped.snapshot()
    real = TwinFutures(twin)
    nodes = real.extend([real.ground(frame)] * 2, ["push the red block left", "move up"])
    deeper = real.extend(nodes[:1], ["stay still"])
    assert twin.unwrapped.snapshot() == before
    twin.step("push the red block left")
    np.testing.assert_array_equal(nodes[0].look(), twin.render())
    frame, *_ = twin.step("stay still")
    np.testing.assert_array_equal(deeper[0].look(), frame)
    assert deeper[0].said == ("push the red block left", "stay still")


def test_what_the_twin_says_is_so(twin):
    """The reward is that of standing there; a success is 0, and nothing is left to gain."""
    frame, _ = twin.reset(seed=0)
    real = TwinFutures(twin)
    still, gathered = real.extend([real.ground(frame)] * 2, ["stay still", "gather the blocks"])
    assert still.reward == pytest.approx(twin.unwrapped.advance(np.zeros(2))[0], abs=1e-3) and not still.solved
    assert gathered.solved and gathered.reward == 0.0
    assert by_reward("gather the blocks", [still, gathered])[1] == 1.0


@pytest.mark.parametrize("kind", SEARCHES)
def test_on_true_physics_it_brings_a_block_into_a_corner(twin, kind):
    """With sentences that only name directions."""
    frame, _ = twin.reset(seed=1, options={"instruction": "push the red block to the top left corner"})
    phrases = [f"push the red block {direction}" for direction in STEPS]
    control, said, terminated = TextMPC(kind(TwinFutures(twin), Phrases(phrases), depth=2)), [], False
    while not terminated and len(said) < 6:
        said.append(control(frame))
        frame, _, terminated, _, info = twin.step(said[-1])
    assert info["success"]


def test_the_command_line_says_only_what_it_may(make_world, twin):
    config = Planning("tiny", "best-first", "mujoco", say=("move *", "push *"), breadth=3)
    search = make_policy(config, make_world(), twin, INSTRUCTION, 0).search
    assert search.propose.phrases == ("push the red block left", "move up") and search.breadth == 3
    dreaming = make_policy(replace(config, planner="beam", on="dream"), make_world(), twin, INSTRUCTION, 0).search
    assert isinstance(dreaming, BeamSearch) and isinstance(dreaming.futures, DreamFutures)
    with pytest.raises(ValueError, match="no sentence of 'tiny' matches"):
        make_policy(replace(config, say=("sing *",)), make_world(), twin, INSTRUCTION, 0)


def test_a_twin_that_takes_vectors_is_refused():
    env = gym.make("worldgym/TabletopMuJoCo-v0")
    with pytest.raises(ValueError, match="action_mode='text'"):
        TwinFutures(env)
    env.close()
