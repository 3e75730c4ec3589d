"""Playing: a session does what its player asks, and the page passes it on and can be used."""

import asyncio
import json
import shutil
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import httpx
import imageio.v3 as iio
import minari
import numpy as np
import pytest
import torch
from gymnasium.spaces import Discrete
from nicegui import app, ui
from nicegui.testing import user_simulation
from nicegui.testing.general import nicegui_reset_globals

from worldgym.actions import ActionCodec
from worldgym.data import load_episodes
from worldgym.play import STILL, Session, arrow_keys
from worldgym.play import session as session_module
from worldgym.play.page import Room, serve
from worldgym.starts import InitialStates, bundled_starts
from worldgym.world import WorldModel

RIGHT = [1.0, 0.0]


class Line:
    """A twin whose picture is a point on a line, moved by the first number of an action."""

    def __init__(self):
        self.place = 0.0

    def _frame(self):
        frame = np.zeros((64, 64, 3), np.uint8)
        frame[:, int(np.clip(8 + 4 * self.place, 0, 63))] = 255
        return frame

    def reset(self, *, seed=None, options=None):
        self.place = float(seed)
        return self._frame(), {"success": False}

    def step(self, action):
        self.place += float(action[0])
        return self._frame(), -self.place, False, False, {"success": self.place > 9}

    def snapshot(self):
        return json.dumps(self.place).encode()

    def restore(self, blob):
        self.place = json.loads(blob)


def carry_out(sentence):
    return np.asarray([0.5, 0.0], np.float32)


@pytest.fixture
def endless(make_world):
    """A world whose episodes never end: what random weights say of that is neither here nor there."""
    world = make_world()
    with torch.no_grad():
        for member in world.dynamics.outcome_heads.members:
            member.outer[-1].bias[2] = -20.0
    return world


@pytest.fixture
def alone(endless):
    """A session without a twin."""
    world = endless
    frames = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    starts = InitialStates(
        frames, np.zeros((3, 2), np.float32), np.arange(3), np.zeros((3, 2), bool), world.config.instructions
    )
    return Session(world, starts)


@pytest.fixture
def both(endless):
    """A session beside a twin."""
    return Session(endless, None, Line(), carry_out)


def act(session, count, vector=RIGHT):
    session.hold(vector)
    for _ in range(count):
        assert session.tick()
    session.hold(None)


def pictures(session, name="A"):
    return np.stack([moment.dream for moment in session.futures[name].moments])


# -- a session ---------------------------------------------------------------------------------------------------


def test_it_dreams_what_the_environment_dreams(checkpoint):
    world = WorldModel.load(str(checkpoint))
    session = Session(world, bundled_starts(str(checkpoint), world.config))
    env = gym.make("worldgym/Dream-v0", world=str(checkpoint))
    first, _ = env.reset(options={"frames": session.now.dream[None]})
    start = session.futures["A"].moments[0]
    env.reset(options={"frames": session.starts.draw(session.instruction, np.random.default_rng(0)).frames})
    act(session, 2)
    for moment in session.futures["A"].moments[1:]:
        frame, reward, *_ = env.step(np.asarray(RIGHT, np.float32))
        # Both futures of a session are one batch; in another batch a pixel may round the other way.
        np.testing.assert_allclose(moment.dream.astype(int), frame.astype(int), atol=1)
        assert moment.reward == pytest.approx(reward, abs=1e-5)
    assert start.action == "" and first.shape == frame.shape


def test_time_passes_only_while_something_is_done(alone):
    assert not alone.tick()
    act(alone, 2)
    assert not alone.tick()
    assert len(alone.futures["A"].moments) == 3


def test_a_key_that_was_let_go_at_once_still_counts(alone):
    alone.hold(RIGHT)
    alone.hold(None)
    assert alone.tick()
    assert not alone.tick()


def test_a_sentence_covers_its_frames(alone):
    alone.say("move up")
    assert alone.sentence == "move up"
    ticks = 0
    while alone.tick():
        ticks += 1
    assert ticks == alone.world.config.frames_per_action
    assert alone.now.action == "move up" and alone.sentence == ""


def test_a_sentence_ends_with_what_was_asked_for(write_checkpoint):
    """And is finished where nobody asked: the default instruction's success is nobody's."""
    folder = write_checkpoint(ends=True)
    world = WorldModel.load(str(folder))
    starts, (default, other) = bundled_starts(str(folder), world.config), world.config.instructions
    asked, unasked = Session(world, starts, instruction=default), Session(world, starts)
    for session, frames in ((asked, 1), (unasked, world.config.frames_per_action)):
        session.say("move up")
        assert [session.tick() for _ in range(frames + 1)] == [True] * frames + [False]
        assert session.now.ended
    unasked.reset(instruction=other)
    unasked.say("move up")
    assert [unasked.tick() for _ in range(2)] == [True, False]


def test_acting_breaks_off_a_sentence(alone):
    alone.say("move up")
    alone.tick()
    act(alone, 1)
    assert not alone.tick()


def test_nothing_passes_while_paused(alone):
    alone.paused = True
    alone.hold(RIGHT)
    assert not alone.tick()
    alone.paused = False
    assert alone.tick()


def test_rewound_the_same_actions_lead_to_the_same_future(alone):
    act(alone, 3)
    seen = pictures(alone)
    alone.goto(1)
    assert len(alone.futures["A"].moments) == 4  # what came after is there until something else happens
    act(alone, 2)
    np.testing.assert_array_equal(pictures(alone), seen)


def test_acting_after_a_rewind_forgets_what_came_after(alone):
    act(alone, 3)
    alone.goto(1)
    act(alone, 1, [-1.0, 0.5])
    assert len(alone.futures["A"].moments) == 3


def test_a_fork_shares_the_past_and_leaves_its_parent_alone(alone):
    act(alone, 2)
    seen = pictures(alone)
    alone.fork()
    assert alone.active == "B"
    act(alone, 2, [-1.0, -1.0])
    np.testing.assert_array_equal(pictures(alone, "A"), seen)
    np.testing.assert_array_equal(pictures(alone, "B")[:3], seen)
    alone.choose("A")
    act(alone, 2, [-1.0, -1.0])
    np.testing.assert_array_equal(pictures(alone, "A"), pictures(alone, "B"))


def test_the_twin_goes_along_and_is_wound_back(both):
    act(both, 3)
    assert both.now.twin_reward == pytest.approx(-3.0)
    both.goto(1)
    both.fork()
    act(both, 1, [0.5, 0.0])
    assert both.now.twin_reward == pytest.approx(-1.5)
    both.choose("A")
    both.say("move up")
    both.tick()
    assert both.now.twin_reward == pytest.approx(-1.5)  # the controller's half a step from 1


def test_waking_dreams_on_from_what_the_twin_shows(both):
    act(both, 2)
    before = both.now
    both.wake()
    state = both.world.start(before.twin[None, None], seeds=[0])
    np.testing.assert_array_equal(both.now.dream, both.world.render(state)[0].numpy())
    assert len(both.futures["A"].moments) == 3


def test_waking_shows_as_many_frames_as_tell_the_speed(make_world):
    """In a world that is told speed, what the twin did last goes on in the dream."""
    session = Session(make_world(memory=3), None, Line(), carry_out)
    act(session, 3)
    seen = [moment.twin for moment in session.futures["A"].moments[-3:]]
    session.wake()
    state = session.world.start(np.stack(seen)[None], np.float32([[RIGHT, RIGHT]]), seeds=[0])
    np.testing.assert_array_equal(session.now.state.past, state.past)
    np.testing.assert_array_equal(session.now.dream, session.world.render(state)[0].numpy())


def test_a_new_episode_has_its_seed_and_instruction(both):
    act(both, 2)
    both.fork()
    both.reset(5, "push the red block to the centre")
    assert list(both.futures) == ["A"] and len(both.futures["A"].moments) == 1
    act(both, 1)
    assert both.now.twin_reward == pytest.approx(-6.0)
    assert both.instruction == "push the red block to the centre"


def test_only_so_much_is_kept(alone, monkeypatch):
    monkeypatch.setattr(session_module, "KEPT", 2)
    act(alone, 4)
    assert [moment.state is not None for moment in alone.futures["A"].moments] == [False, False, False, True, True]
    with pytest.raises(ValueError, match="too long ago"):
        alone.goto(1)
    assert len(alone.video("dream")) == 5


@pytest.mark.parametrize(
    ("do", "says"),
    [
        (lambda session: session.hold([1.0]), "2 finite numbers"),
        (lambda session: session.hold([1.0, float("nan")]), "2 finite numbers"),
        (lambda session: session.say("  "), "empty"),
        (lambda session: session.goto(7), "moment 7"),
        (lambda session: session.choose("C"), "no future 'C'"),
        (lambda session: session.wake(), "no twin"),
        (lambda session: session.reset(instruction="fly"), "unknown instruction"),
        (lambda session: session.reset(-1), "0 or more"),
        (lambda session: session.save(Path("film.avi"), "dream"), "gif or .mp4"),
        (lambda session: session.video("twin"), "no twin"),
        (lambda session: session.episodes(), "act first"),
        (lambda session: session.record("play/nothing-v0"), "save this world to a folder first"),
    ],
)
def test_mistakes_say_what_is_wrong_and_change_nothing(alone, do, says):
    before = alone.futures["A"]
    with pytest.raises(ValueError, match=says):
        do(alone)
    assert alone.futures == {"A": before} and alone.instruction == "reach the centre"


@pytest.mark.parametrize("suffix", ["gif", "mp4"])
def test_recordings_show_both_futures_from_the_start(both, tmp_path, suffix):
    act(both, 2)
    both.fork()
    act(both, 2)
    path = tmp_path / f"film.{suffix}"
    both.save(path, "both")
    film = iio.imread(path)
    assert film.shape == (5, 2 * (256 + 64), 2 * 256 + 16, 3)


def test_what_was_played_is_data_to_learn_from(checkpoint, tmp_path, monkeypatch):
    """Each future an episode of a Minari dataset, which dreams as it was dreamed."""
    from worldgym.starts import bundled_starts
    from worldgym.world import WorldModel

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    world = WorldModel.load(str(checkpoint))
    session = Session(world, bundled_starts(str(checkpoint), world.config))
    act(session, 1)
    session.fork()
    session.say("move up")
    session.tick()
    session.record("play/mine-v0")
    first, second = minari.load_dataset("play/mine-v0").iterate_episodes()
    np.testing.assert_array_equal(first.observations, pictures(session, "A"))
    np.testing.assert_array_equal(second.observations, pictures(session, "B"))
    np.testing.assert_array_equal(first.actions, [RIGHT])
    assert len(second.actions) == 2 and second.actions[1].tolist() != RIGHT
    assert second.rewards == pytest.approx([moment.reward for moment in session.futures["B"].moments[1:]], abs=1e-5)
    assert load_episodes("play/mine-v0").instructions == world.config.instructions


# -- the page ------------------------------------------------------------------------------------------------------


def visit(session, recordings, play):
    """Have `play` use a window of the page, without a browser."""

    async def visited():
        with ThreadPoolExecutor(1) as thread:
            async with user_simulation(Room(session, thread, recordings, 100).open) as user:
                await user.open("/")
                await play(user)

    asyncio.run(visited())


def test_a_window_shows_what_it_is_used_for(both, tmp_path):
    async def play(user):
        await user.should_see("step 0 of 0")
        user.find(ui.input).type("move up").trigger("keydown.enter")
        await user.should_see("step 3 of 3", retries=100)
        user.find("Fork").click()
        await user.should_see("Future B", retries=100)
        user.find("Pause").click()
        await user.should_see("Go on", retries=100)
        assert both.paused
        left = both.active
        user.find("act here").click()
        for _ in range(100):
            await asyncio.sleep(0.01)
            if both.active != left:
                break
        assert both.active != left

    visit(both, tmp_path, play)


def test_a_mistake_is_told_and_the_game_goes_on(alone, tmp_path):
    async def play(user):
        user.find("Minari").click()
        await user.should_see("save this world to a folder first", retries=100)
        user.find("Fork").click()
        await user.should_see("Future B", retries=100)

    visit(alone, tmp_path, play)


@pytest.mark.parametrize(("size", "named"), [(2, True), (3, False)])
def test_keys_that_do_nothing_are_not_named(both, tmp_path, size, named):
    both.world.config = replace(both.world.config, action_size=size)

    async def play(user):
        await user.should_see(content="<kbd>f</kbd>")
        look = user.should_see if named else user.should_not_see
        await look(content="<kbd>←</kbd>")

    visit(both, tmp_path, play)


def test_categories_have_buttons_and_keys(alone, tmp_path):
    codec = ActionCodec(Discrete(2, start=3))  # of two numbers, which are no arrows
    alone.world.config = replace(alone.world.config, actions=codec.describe())

    async def play(user):
        await user.should_see(content="<kbd>s</kbd>")
        await user.should_not_see(content="<kbd>←</kbd>")
        (toggle,) = user.find(ui.toggle).elements
        assert toggle.options == {0: "3 (a)", 1: "4 (s)"}
        toggle.value = 1
        (flows,) = [box for box in user.find(ui.checkbox).elements if box.text == "time passes by itself"]
        flows.value = True
        for _ in range(200):
            await asyncio.sleep(0.05)
            if len(alone.futures["A"].moments) > 1:
                break
        flows.value = False

    visit(alone, tmp_path, play)
    assert alone.futures["A"].moments[1].action == "action 4"
    assert np.array_equal(alone.futures["A"].moments[1].dreamed_action, codec.encode(4))


TICKS = 2
"""A second: a busy machine hears late that a key is up, and must not take that for a second step."""


@pytest.fixture
def address(both, tmp_path, monkeypatch):
    """Of a running server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("NICEGUI_SCREEN_TEST_PORT", str(port))  # which NiceGUI, in a test, takes instead of its own
    with ThreadPoolExecutor(1) as thread, nicegui_reset_globals():
        runner = threading.Thread(target=serve, args=(Room(both, thread, tmp_path, TICKS), port))
        runner.start()
        while not app.is_started:
            assert runner.is_alive()
            time.sleep(0.01)
        yield f"http://127.0.0.1:{port}"
        app.shutdown()
        runner.join()


def test_the_page_and_recordings_are_served_to_this_machine_alone(address, tmp_path):
    (tmp_path / "film.gif").write_bytes(b"GIF89a")
    assert "WorldGym" in httpx.get(address).text
    assert httpx.get(f"{address}/recordings/film.gif").content.startswith(b"GIF")
    assert httpx.get(address, headers={"host": "elsewhere.example"}).status_code == 400


@pytest.mark.parametrize("transport", ["polling", "websocket"])
@pytest.mark.parametrize("path", ["/", "/_nicegui_ws/socket.io/?EIO=4&transport={transport}"])
def test_pages_of_other_sites_are_refused(address, path, transport):
    """A socket's handshake is an HTTP request; `null` is the origin of a frame that is shut in."""
    asked = address + path.format(transport=transport)
    key = {"connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "13",
           "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA=="} if transport == "websocket" else {}  # fmt: skip
    for origin in ("https://elsewhere.example", "http://127.0.0.1:1", "null"):
        assert httpx.get(asked, headers=key | {"origin": origin}).status_code == 403
    if transport == "polling":
        assert httpx.get(asked, headers={"origin": address}).status_code == 200


# -- the page, in a browser -----------------------------------------------------------------------------------------

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


QUIETLY = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium on the PATH")
def test_the_page_plays(address, tmp_path):
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=60_000)  # a slow machine is no mistake of the page
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=QUIETLY, timeout=60_000)
        page = browser.new_page()
        page.set_default_timeout(60_000)
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(address)
        future = page.locator(".future:visible")
        expect(page.locator(".step").first).to_have_text("step 0 of 0")
        expect(future).to_have_count(1)
        page.keyboard.press("ArrowRight")
        expect(future.locator(".step")).to_have_text("step 1 of 1")
        page.keyboard.press("f")
        active = page.locator(".future.active")
        expect(active.locator(".title")).to_have_text("Future B")
        page.keyboard.press("/")
        expect(page.get_by_label("A sentence as the action")).to_be_focused()
        page.keyboard.type("move up")
        page.keyboard.press("Enter")
        expect(active.locator(".step")).to_have_text("step 4 of 4")
        page.keyboard.press("[")
        expect(active.locator(".step")).to_have_text("step 3 of 4")
        assert active.locator("canvas").count() == 2
        page.keyboard.press("2")
        expect(active.get_by_text("-2.00, together -4.50")).to_be_visible()  # of the twin, when it is looked at
        page.keyboard.press("1")
        expect(active.locator(".twin")).to_be_hidden()
        page.keyboard.press("o")
        expect(active.locator(".title")).to_have_text("Future A")
        page.get_by_role("button", name="GIF").click()
        expect(page.locator(".recorded")).to_contain_text(".gif")
        expect(active.locator(".title")).to_have_text("Future A")
        page.keyboard.press(" ")
        expect(page.get_by_role("button", name="Go on")).to_be_visible()
        assert problems == []
        browser.close()


# -- the command, and Gymnasium's own way to play ---------------------------------------------------------------


def test_the_command_plays_the_bundled_world_beside_its_twin(monkeypatch, tmp_path):
    from worldgym import cli
    from worldgym.play import page

    played = []
    monkeypatch.setattr(page, "run", lambda make_session, *_: played.append(make_session()))
    monkeypatch.setattr(sys, "argv", ["worldgym", "play", "tabletop", "--seed", "3", "--recordings", str(tmp_path)])
    cli.main()
    (session,) = played
    act(session, 1)
    assert np.abs(session.now.dream.astype(int) - session.now.twin).mean() < 8  # both show the same table
    session.say("push the red block left")
    session.tick()
    assert session.now.twin_reward is not None
    session.twin.close()


def test_the_command_plays_the_reacher_beside_its_twin(monkeypatch, tmp_path):
    from worldgym import cli
    from worldgym.play import page

    played = []
    monkeypatch.setattr(page, "run", lambda make_session, *_: played.append(make_session()))
    monkeypatch.setattr(sys, "argv", ["worldgym", "play", "reacher", "--seed", "3", "--recordings", str(tmp_path)])
    cli.main()
    (session,) = played
    act(session, 2)
    assert np.abs(session.now.dream.astype(int) - session.now.twin).mean() < 8
    session.wake()
    assert session.now.state.past_actions[0, -2:].any(-1).all()  # told of what moved it
    session.twin.close()


def test_gymnasium_plays_a_dream(checkpoint, monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    import matplotlib

    monkeypatch.setattr(matplotlib, "use", lambda backend: None)  # Gymnasium asks for a window toolkit
    pygame = pytest.importorskip("pygame")
    from gymnasium.utils.play import play

    env = gym.make("worldgym/Dream-v0", world=str(checkpoint), render_mode="rgb_array")
    taken = []

    def seen(before, after, action, *_):
        taken.append(np.asarray(action).tolist())
        if len(taken) == 1:
            pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_UP))
            pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_RIGHT))
        if len(taken) == 3:
            pygame.event.post(pygame.event.Event(pygame.QUIT))

    play(env, keys_to_action=arrow_keys(), noop=STILL, callback=seen, fps=100, zoom=2)
    assert taken[0] == [0.0, 0.0]
    assert taken[-1] == [1.0, 1.0]


def test_the_arrow_keys_are_pygames():
    pygame = pytest.importorskip("pygame")
    keys = arrow_keys()
    assert keys[(pygame.K_LEFT,)].tolist() == [-1.0, 0.0]
    assert keys[(pygame.K_DOWN,)].tolist() == [0.0, -1.0]
    assert all(action.dtype == np.float32 for action in keys.values())
