"""Dreams over a network are the dreams of one process, and no session can disturb another."""

import asyncio
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

import gymnasium as gym
import msgpack
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

import worldgym  # noqa: F401  registers the ids
from worldgym.checks import check_dream_env
from worldgym.checks.report import close
from worldgym.cli.serve import serve
from worldgym.cli.serve_settings import Serve
from worldgym.dreams import DreamOptions
from worldgym.errors import UserError
from worldgym.serve.client import RemoteEnv
from worldgym.serve.server import Limits, Server, listening, run
from worldgym.serve.table import Table
from worldgym.serve.wire import DEEPEST, MAX_MESSAGE, decode, encode

TOKEN = "0123456789abcdef"


@contextmanager
def serving(table: Table, **limits) -> Iterator[Server]:
    """A server in a thread of this process, on a free port."""
    ready, servers, stop = threading.Event(), [], []

    async def serve() -> None:
        async with listening(table, Limits(**{"port": 0, **limits})) as server:
            stop.append((asyncio.get_running_loop(), asyncio.Event()))
            servers.append(server)
            ready.set()
            await stop[0][1].wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(10)
    try:
        yield servers[0]
    finally:
        loop, event = stop[0]
        loop.call_soon_threadsafe(event.set)
        thread.join()


@pytest.fixture(scope="module")
def table(checkpoint) -> Table:
    return Table(DreamOptions(str(checkpoint), action_mode="both", device="cpu"), 3, max_episode_steps=5)


@pytest.fixture
def server(table) -> Iterator[Server]:
    with serving(table) as server:
        yield server
    assert table.seats == 3 and server.sessions == 0


def remote(server: Server, **options) -> RemoteEnv:
    return RemoteEnv(f"127.0.0.1:{server.port}", **options)


@pytest.fixture
def local(checkpoint) -> gym.Env:
    return gym.make(
        "worldgym/Dream-v0", world=str(checkpoint), action_mode="both", max_episode_steps=5, device="cpu",
        disable_env_checker=True,
    )  # fmt: skip


def wander(count: int, seed: int = 0) -> list:
    """Vectors, and a sentence among them."""
    actions: list = list(np.random.default_rng(seed).uniform(-1, 1, (count, 2)).astype(np.float32))
    actions[1] = (1, "move up")
    return actions


def lived(env: gym.Env, seed: int | None = 3, actions: list | None = None, options: dict | None = None) -> list:
    """All that comes of a reset and some steps."""
    actions = wander(5) if actions is None else actions
    return [env.reset(seed=seed, options=options), *(env.step(action) for action in actions)]


def same(found: list, expected: list) -> bool:
    """To within rounding: a batch of another size sums in another order."""
    return len(found) == len(expected) and all(
        close(one[0], two[0])
        and one[1:-1] == pytest.approx(two[1:-1], abs=1e-4)
        and one[-1] == pytest.approx(two[-1], abs=1e-3)
        for one, two in zip(found, expected, strict=True)
    )


# -- it is the same dream ---------------------------------------------------------------------------------------------


def test_a_remote_dream_is_the_local_one(server, local):
    with closing(remote(server)) as env:
        assert (env.action_space, env.observation_space) == (local.action_space, local.observation_space)
        found = lived(env)
        assert same(found, lived(local)) and found[-1][3] is True
        assert np.array_equal(env.render(), found[-1][0])
        asked = {"instruction": env.instructions[1]}
        assert same(lived(env, 4, options=asked), lived(local, 4, options=asked))


def test_it_begins_from_given_frames(server, local, frames):
    options = {"frames": frames[0], "actions": np.zeros((3, 2), np.float32)}
    with closing(remote(server)) as env:
        assert same(lived(env, options=options), lived(local, options=options))


def test_gymnasium_and_the_checker_of_dreams_accept_it(checkpoint):
    table = Table(DreamOptions(str(checkpoint), device="cpu"), 3)
    without = {"a fork is independent": "a session has one row"}
    with serving(table) as server:
        env = gym.make("worldgym/Remote-v0", address=f"127.0.0.1:{server.port}", render_mode="rgb_array")
        with closing(env):
            assert len(check_dream_env(env, without).passed) >= 14


@pytest.mark.parametrize("options", [{"obs_type": "both"}, {"action_mode": "discrete", "obs_type": "latent"}])
def test_other_spaces_are_served(checkpoint, options):
    local = gym.make("worldgym/Dream-v0", world=str(checkpoint), device="cpu", disable_env_checker=True, **options)
    with (
        serving(Table(DreamOptions(str(checkpoint), device="cpu", **options), 2)) as server,
        closing(remote(server)) as env,
    ):
        assert (env.action_space, env.observation_space) == (local.action_space, local.observation_space)
        actions = [1, 2] if "action_mode" in options else [np.zeros(2, np.float32)] * 2
        assert same(lived(env, actions=actions), lived(local, actions=actions))


def test_a_snapshot_continues_in_another_session(server):
    actions = wander(4)
    with closing(remote(server)) as one, closing(remote(server)) as other:
        lived(one, actions=actions[:2])
        blob = one.snapshot()
        expected = [one.step(action) for action in actions[2:]]
        other.restore(blob)
        assert same([other.step(action) for action in actions[2:]], expected)
        other.restore(blob)
        assert same([other.step(action) for action in actions[2:]], expected)
        forged = bytearray(blob)
        forged[-1] ^= 1
        with pytest.raises(ValueError, match="no snapshot of this server"):
            other.restore(bytes(forged))


# -- many at a time ---------------------------------------------------------------------------------------------------


def test_sessions_that_ask_at_a_time_share_a_batch_and_do_not_meet(server, local):
    expected = [lived(local, seed) for seed in range(3)]
    found: dict[int, list] = {}

    def live(seed: int) -> None:
        with closing(remote(server)) as env:
            gate.wait()
            found[seed] = lived(env, seed)
            gate.wait()

    gate, before = threading.Barrier(3), server.batches
    threads = [threading.Thread(target=live, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(same(found[seed], expected[seed]) for seed in range(3))
    assert server.batches - before < 3 * 6 + 3  # hello, a reset and five steps of each, if each were alone


def test_a_full_server_refuses_and_a_client_that_vanishes_makes_room(server):
    envs = [remote(server) for _ in range(3)]
    with pytest.raises(ConnectionRefusedError, match="all 3 sessions are taken"):
        remote(server)
    envs[0].reset(seed=0)
    envs[0]._socket.send(encode({"op": "step", "action": np.zeros(2, np.float32)}))
    envs[0]._socket.socket.shutdown(socket.SHUT_RDWR)  # in the middle of a step, without a word
    deadline = time.monotonic() + 5
    while not server.table.seats and time.monotonic() < deadline:
        time.sleep(0.01)
    with closing(remote(server)) as env:  # and nothing of the one before is left
        with pytest.raises(gym.error.ResetNeeded):
            env.step(np.zeros(2, np.float32))
        env.reset()
    for env in envs:
        env.close()


def test_the_instruction_of_a_session_leaves_with_it(server, local):
    for _ in range(3):
        with closing(remote(server)) as env:
            env.reset(seed=0, options={"instruction": env.instructions[1]})
    with closing(remote(server)) as env:
        assert same(lived(env), lived(local))


# -- who may come -----------------------------------------------------------------------------------------------------


def test_a_token_is_asked_for(table):
    with serving(table, token=TOKEN) as server:
        for wrong in (None, "0123456789abcdeX"):
            with pytest.raises(PermissionError, match="needs a token"):
                remote(server, token=wrong)
        remote(server, token=TOKEN).close()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_other_machines_need_a_token(host):
    with pytest.raises(UserError, match="needs a token"):
        Limits(host=host)
    assert Limits(host=host, token=TOKEN).host == host


def test_no_page_of_a_browser_may_come(server):
    with pytest.raises(Exception, match="403"):
        connect(f"ws://127.0.0.1:{server.port}", origin="http://127.0.0.1:8321").__enter__()


def test_without_a_server_it_says_so():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionError, match="`worldgym serve` starts one"):
            RemoteEnv(f"127.0.0.1:{free.getsockname()[1]}")


def test_an_idle_session_ends(table):
    with serving(table, idle_seconds=0.2) as server, closing(remote(server)) as env:
        time.sleep(0.5)
        with pytest.raises(ConnectionError, match=r"no request for 0\.2 seconds"):
            env.reset()


# -- bad input --------------------------------------------------------------------------------------------------------


def nested(depth: int) -> bytes:
    return b"\x91" * depth + b"\xc0"


BAD: dict[str, bytes | str] = {
    "nothing": b"",
    "text": "hello",
    "broken": b"\xc1\x00",
    "cut short": encode({"op": "step", "action": np.zeros(2, np.float32)})[:-3],
    "trailing": encode({"op": "render"}) + b"\x00",
    "no dictionary": encode([1, 2]),
    "deep": b"\x82\xa2op\xa4step\xa6action" + nested(DEEPEST + 1),
    "very deep": b"\x82\xa2op\xa4step\xa6action" + nested(100_000),
    "no op": encode({"action": 1}),
    "unknown op": encode({"op": "__init__"}),
    "odd op": encode({"op": ["step"]}),
    "unknown field": encode({"op": "step", "action": 1, "more": 2}),
    "no action": encode({"op": "step"}),
    "wrong shape": encode({"op": "step", "action": np.zeros(3, np.float32)}),
    "nan": encode({"op": "step", "action": np.full(2, np.nan, np.float32)}),
    "infinity": encode({"op": "step", "action": [float("inf"), 0.0]}),
    "None": encode({"op": "step", "action": None}),
    "no pair": encode({"op": "step", "action": (7, 0)}),
    "long sentence": encode({"op": "step", "action": "push " * 1000}),
    "huge array": msgpack.packb(
        {"op": "step", "action": msgpack.ExtType(1, msgpack.packb(["<f4", [2**40, 2**40]]) + b"\0" * 8)}
    ),
    "objects": msgpack.packb({"op": "step", "action": msgpack.ExtType(1, msgpack.packb(["|O", [1]]) + b"\0" * 8)}),
    "unknown extension": msgpack.packb({"op": "step", "action": msgpack.ExtType(9, b"")}),
    "negative seed": encode({"op": "reset", "seed": -1}),
    "fractional seed": encode({"op": "reset", "seed": 0.5}),
    "unknown instruction": encode({"op": "reset", "instruction": "fly"}),
    "odd instruction": encode({"op": "reset", "instruction": 3}),
    "odd frames": encode({"op": "reset", "frames": np.zeros((1, 3, 3, 3), np.uint8)}),
    "too many frames": encode({"op": "reset", "frames": np.zeros((65, 64, 64, 3), np.uint8)}),
    "lonely actions": encode({"op": "reset", "actions": np.zeros((3, 2), np.float32)}),
    "foreign snapshot": encode({"op": "restore", "snapshot": b"\0" * 100}),
    "odd snapshot": encode({"op": "restore", "snapshot": 3}),
}


def test_bad_input_is_answered_to_who_sent_it_and_changes_nothing(server, local):
    actions = wander(5)
    expected = lived(local, 3, actions)
    with closing(remote(server)) as env, closing(remote(server)) as bad:
        found, mine = lived(env, 3, actions[:1]), lived(bad, 3, actions[:1])
        for name, blob in BAD.items():
            bad._socket.send(blob)
            answer = decode(bad._socket.recv(5))
            assert "error" in answer, name
            kind, message = answer["error"]
            assert kind in ("ValueError", "TypeError"), f"{name}: {kind} {message}"
            assert message and len(message) < 500, name
        for way in (found, mine):
            way += [(env if way is found else bad).step(action) for action in actions[1:]]
        assert same(found, expected) and same(mine, expected)
        with pytest.raises(gym.error.ResetNeeded, match="has ended"):
            bad.step(actions[0])


def test_a_message_that_is_too_large_ends_its_own_session_alone(server, local):
    with closing(remote(server)) as env:
        env.reset(seed=3)
        with pytest.raises(ValueError, match="bytes; a server of dreams takes"):
            env.restore(b"\0" * MAX_MESSAGE)
        with connect(f"ws://127.0.0.1:{server.port}") as other:
            other.send(b"\0" * (MAX_MESSAGE + 1))
            with pytest.raises(ConnectionClosed, match="1009"):
                other.recv(5)
        assert same([env.step(action) for action in wander(5)], lived(local)[1:])


def test_errors_without_end_end_the_session(table):
    with serving(table, errors=3) as server, connect(f"ws://127.0.0.1:{server.port}") as socket_:
        for _ in range(3):
            socket_.send(b"")
            socket_.recv(5)
        with pytest.raises(ConnectionClosed, match="3 errors in a row"):
            socket_.recv(5)


def test_a_bug_in_a_batch_is_answered_and_ends_no_server(server, monkeypatch):
    with closing(remote(server)) as env:
        env.reset(seed=0)
        with monkeypatch.context() as patch:
            patch.setattr(server.table.dreams, "step", None)
            with pytest.raises(RuntimeError, match="the batch failed"):
                env.step(np.zeros(2, np.float32))
        env.step(np.zeros(2, np.float32))


def test_a_server_that_is_stopped_leaves_nobody_waiting(table):
    def step() -> None:
        with suppress(ConnectionError):  # unless its answer came first
            env.step(np.zeros(2, np.float32))

    with serving(table) as server:
        env = remote(server)
        env.reset(seed=0)
        thread = threading.Thread(target=step)
        thread.start()
    thread.join(10)
    assert not thread.is_alive()
    with pytest.raises(ConnectionError, match="is closed"):
        env.reset()
    env.close()


@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGTERM that a process could handle")
def test_sigterm_ends_a_server_as_ctrl_c_does(table, capsys):
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    told: list = []

    def live() -> None:
        env = None
        while env is None:
            with suppress(ConnectionError):
                env = RemoteEnv(f"127.0.0.1:{port}")
        env.reset(seed=0)
        signal.raise_signal(signal.SIGTERM)
        with suppress(ConnectionError):
            while True:
                env.step(np.zeros(2, np.float32))
        told.append("closed")

    before = signal.signal(signal.SIGTERM, lambda *_: pytest.fail("the server took no notice"))
    thread = threading.Thread(target=live)
    thread.start()
    run(table, Limits(port=port))
    thread.join(10)
    signal.signal(signal.SIGTERM, before)
    assert told == ["closed"] and table.seats == 3


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_command_refuses_what_would_be_open_to_all(checkpoint, tmp_path):
    with pytest.raises(UserError, match="needs a token"):
        serve(Serve(str(checkpoint), host="0.0.0.0"))
    (tmp_path / "token.txt").write_text("\n", encoding="utf-8")
    with pytest.raises(UserError, match="is empty"):
        serve(Serve(str(checkpoint), token_file=tmp_path / "token.txt"))
    with pytest.raises(UserError, match="less than 16 characters"):
        Limits(token="secret")


def test_the_command_serves_what_it_was_asked_for(checkpoint, monkeypatch):
    served: list = []
    monkeypatch.setattr("worldgym.serve.server.run", lambda *arguments: served.extend(arguments))
    serve(Serve(str(checkpoint), capacity=2, port=0, action_mode="text", device="cpu"))
    table, limits = served
    assert len(table.dreams) == 2 and table.dreams.max_episode_steps == 40 and limits.port == 0
    assert table.dreams.options.action_mode == "text"
