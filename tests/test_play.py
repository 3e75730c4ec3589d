"""Playing: a session does what its player asks, the server passes it on, and the page can be used."""

import json
import shutil
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gymnasium as gym
import imageio.v3 as iio
import numpy as np
import pytest
import torch
import uvicorn
from starlette.testclient import TestClient

from worldgym.play import STILL, Session, arrow_keys
from worldgym.play import session as session_module
from worldgym.play.server import make_app, obey
from worldgym.starts import Starts

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
    starts = Starts(
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
    from worldgym.starts import bundled_starts
    from worldgym.world import WorldModel

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
        (lambda session: obey(session, {"do": "dance"}, Path()), "no order"),
        (lambda session: obey(session, "dance", Path()), "no order"),
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


# -- the server ----------------------------------------------------------------------------------------------------


@pytest.fixture
def client(both, tmp_path):
    with ThreadPoolExecutor(1) as thread, TestClient(make_app(both, thread, tmp_path, 100)) as client:
        yield client


def until(window, wanted):
    """The first message that is what is waited for."""
    for _ in range(100):
        message = window.receive_json()
        if wanted(message):
            return message
    raise AssertionError("it never came")


def test_the_page_is_served(client):
    page = client.get("/")
    assert page.status_code == 200 and "<title>WorldGym</title>" in page.text


def test_a_window_sees_what_it_asked_for(client):
    with client.websocket_connect("/socket") as window:
        about = window.receive_json()["about"]
        assert about["action_size"] == 2 and "move up" in about["phrases"]
        assert window.receive_json()["futures"]["A"]["at"] == 0
        window.send_json({"do": "say", "sentence": "move up"})
        shown = until(window, lambda message: message["futures"]["A"]["at"] == 3)["futures"]["A"]
        assert len(shown["reward"]) == len(shown["uncertainty"]) == len(shown["twin_reward"]) == 3
        assert shown["dream"].startswith("data:image/png;base64,")
        window.send_json({"do": "goto", "index": 1})
        assert until(window, lambda message: message["futures"]["A"]["at"] == 1)


def test_a_mistake_is_told_and_the_game_goes_on(client):
    with client.websocket_connect("/socket") as window:
        window.send_json({"do": "goto", "index": 99})
        assert "moment 99" in until(window, lambda message: "error" in message)["error"]
        window.send_json({"do": "fork"})
        assert until(window, lambda message: message.get("active") == "B")


def test_a_recording_can_be_fetched(client):
    with client.websocket_connect("/socket") as window:
        window.send_json({"do": "save", "as": "gif", "view": "both"})
        saved = until(window, lambda message: "saved" in message)["saved"]
    assert client.get("/" + saved).content.startswith(b"GIF")


def test_other_sites_may_not_play_here(client):
    from starlette.websockets import WebSocketDisconnect

    with (
        pytest.raises(WebSocketDisconnect),
        client.websocket_connect("/socket", headers={"origin": "https://elsewhere.example"}) as window,
    ):
        window.receive_json()


# -- the page, in a browser -----------------------------------------------------------------------------------------

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture
def address(both, tmp_path):
    """Of a running server."""
    with ThreadPoolExecutor(1) as thread, socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(
            uvicorn.Config(make_app(both, thread, tmp_path, 50), log_level="warning", timeout_graceful_shutdown=1)
        )
        runner = threading.Thread(target=server.run, args=([listener],))
        runner.start()
        while not server.started:
            time.sleep(0.01)
        yield "http://{}:{}".format(*listener.getsockname())
        server.should_exit = True
        runner.join()


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium on the PATH")
def test_the_page_plays(address, tmp_path):
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=60_000)  # a slow machine is no mistake of the page
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"], timeout=60_000
        )
        page = browser.new_page()
        page.set_default_timeout(60_000)
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(address)
        expect(page.locator(".future")).to_have_count(1)
        page.keyboard.press("ArrowRight")
        expect(page.locator(".step")).to_have_text("step 1 of 1")
        page.keyboard.press("f")
        expect(page.locator(".future.active h2")).to_have_text("Future B")
        page.keyboard.press("/")
        page.keyboard.type("move up")
        page.keyboard.press("Enter")
        expect(page.locator(".future.active .step")).to_have_text("step 4 of 4")
        page.keyboard.press("[")
        expect(page.locator(".future.active .step")).to_have_text("step 3 of 4")
        assert page.locator(".future.active .reward path").count() == 2
        page.keyboard.press("1")
        expect(page.locator(".future.active figure.twin")).to_be_hidden()
        page.keyboard.press("Tab")
        expect(page.locator(".future.active h2")).to_have_text("Future A")
        page.get_by_role("button", name="GIF").click()
        expect(page.locator("#note a")).to_contain_text(".gif")
        assert problems == []
        browser.close()


# -- the command, and Gymnasium's own way to play ---------------------------------------------------------------


def test_the_command_plays_the_bundled_world_beside_its_twin(monkeypatch, tmp_path):
    from worldgym import cli
    from worldgym.play import server

    played = []
    monkeypatch.setattr(server, "run", lambda make_session, *_: played.append(make_session()))
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
    from worldgym.play import server

    played = []
    monkeypatch.setattr(server, "run", lambda make_session, *_: played.append(make_session()))
    monkeypatch.setattr(sys, "argv", ["worldgym", "play", "reacher", "--seed", "3", "--recordings", str(tmp_path)])
    cli.main()
    (session,) = played
    act(session, 2)
    assert np.abs(session.now.dream.astype(int) - session.now.twin).mean() < 8
    session.wake()
    assert session.now.state.deeds[0, -2:].any(-1).all()  # told of what moved it
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
