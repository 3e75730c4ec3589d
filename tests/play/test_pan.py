"""Playing with PAN at toy size: sentences, rewinding, forks, and the page."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import imageio.v3 as iio
import numpy as np
import pytest
from nicegui import ui
from nicegui.testing import user_simulation

from worldgym.cli.play import Play, play
from worldgym.errors import UserError
from worldgym.pan.dreams import PanOptions
from worldgym.play.page import Room
from worldgym.play.pan import PanSession


@pytest.fixture
def session(pan_folder) -> PanSession:
    options = PanOptions(
        str(pan_folder / "joint"), "the cup is full", starts=str(pan_folder / "clips"), device="cpu", dtype="float32"
    )
    return PanSession(options)


def test_a_sentence_is_a_step_and_can_be_taken_back(session):
    assert not session.tick()
    session.say("push")
    assert session.sentence == "push" and session.tick() and not session.tick()
    first = session.now
    assert first.action == "push" and 0.0 < first.reward < 1.0
    session.say("go left"), session.tick()
    session.goto(0), session.say("push"), session.tick()
    assert np.array_equal(session.now.dream, first.dream) and len(session.futures["A"].moments) == 2


def test_two_futures_share_their_beginning(session):
    session.say("push"), session.tick()
    session.fork()
    session.say("go left"), session.tick()
    assert [len(session.futures[name].moments) for name in "AB"] == [2, 3]
    assert session.futures["A"].moments[1] is session.futures["B"].moments[1]


def test_a_seed_is_a_beginning(session):
    begun = session.now.dream
    session.reset(3)
    assert not np.array_equal(session.now.dream, begun)
    session.reset(0)
    assert np.array_equal(session.now.dream, begun)


def test_what_pan_has_not_is_refused(session, pan_folder):
    with pytest.raises(ValueError, match="sentences alone"):
        session.hold([1.0, 0.0])
    with pytest.raises(ValueError, match="GIF or an MP4"):
        session.record("play/pan-v0")
    with pytest.raises(ValueError, match="goal in words"):
        PanSession(PanOptions(str(pan_folder / "joint"), lambda frames: frames.mean((1, 2, 3)), phrases=["push"]))
    with pytest.raises(UserError, match="pass --starts"):
        play(Play(str(pan_folder / "joint")))
    with pytest.raises(UserError, match="--starts is for PAN"):
        play(Play("tabletop", starts=pan_folder / "clips"))


def test_the_page_takes_sentences_and_shows_no_sliders(session, tmp_path):
    async def visited():
        with ThreadPoolExecutor(1) as thread:
            async with user_simulation(Room(session, thread, tmp_path, 100).open) as user:
                await user.open("/")
                await user.should_see("PAN")
                await user.should_not_see("Act (hold)")
                user.find(ui.input).type("open the drawer").trigger("keydown.enter")
                await user.should_see("step 1 of 1", retries=200)

    asyncio.run(visited())
    session.save(tmp_path / "played.gif", "dream")
    assert len(iio.imread(tmp_path / "played.gif")) == 2
