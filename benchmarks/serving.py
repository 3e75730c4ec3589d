"""How fast are dreams over a network, next to the same dreams in one process, and can one client disturb another?

    python benchmarks/serving.py

A server in a process of its own, clients in others, all on this machine. Rates are of the server and of `gym.make_vec`
by turns. Then a client is killed at work, and bad requests are sent while sessions are watched: each must live what it
lives when nobody sends any.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import gymnasium as gym
import numpy as np
import tyro
from section import RESULTS, Results, Section, made_by, markdown
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from worldgym.serve.client import RemoteEnv
from worldgym.serve.wire import MAX_MESSAGE, decode, encode

WATCHED = 8
"""Sessions that live on while others send what is bad."""
PESTERING = 8
"""Clients that send it."""
KINDS = ("bytes", "flipped", "cut", "shape", "nan", "type", "operation", "field", "deep", "seed", "snapshot", "frames")


@dataclass(frozen=True)
class Serving:
    """Measure a server of dreams on this machine."""

    world: str = "tabletop"
    clients: tuple[int, ...] = (1, 8, 64)
    steps: int = 30
    """Of each client in a turn."""
    turns: int = 3
    bad: int = 10_000
    """Bad requests."""
    seed: int = 0
    json: Path = RESULTS / "serving.json"


@contextmanager
def server(world: str, capacity: int) -> Iterator[str]:
    """Its address."""
    command = [sys.executable, "-u", "-m", "worldgym", "serve", world, "--capacity", str(capacity), "--port", "0"]
    with subprocess.Popen([*command, "--device", "cpu"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield next(line for line in process.stdout if line.startswith("serving")).split(" on ")[1].split()[0]
        finally:
            process.terminate()  # SIGINT is ignored by what a shell started with &


def actions(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (count, 2)).astype(np.float32)


# -- how fast ----------------------------------------------------------------------------------------------------------


def drive(address: str, seeds: list[int], steps: int, gate: Any, told: Any) -> None:
    """Clients in threads of this process: (when each began, when it ended, how long each step took)."""

    def live(seed: int) -> None:
        with closing(RemoteEnv(address)) as env:
            env.reset(seed=seed)
            gate.wait()
            began, took, over = time.monotonic(), [], False
            for action in actions(seed, steps):
                before = time.monotonic()
                if over:  # as make_vec does, which resets at the next step
                    env.reset()
                    over = False
                else:
                    _, _, terminated, truncated, _ = env.step(action)
                    over = terminated or truncated
                took.append(time.monotonic() - before)
            told.put((began, time.monotonic(), took))

    threads = [Thread(target=live, args=(seed,)) for seed in seeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def remote(address: str, clients: int, steps: int) -> tuple[float, list[float]]:
    """(Steps a second of all clients together, seconds that each step took its client)."""
    context = multiprocessing.get_context("spawn")
    gate, told = context.Barrier(clients), context.Queue()
    shares = [part.tolist() for part in np.array_split(np.arange(clients), min(clients, 4))]
    workers = [context.Process(target=drive, args=(address, share, steps, gate, told)) for share in shares]
    for worker in workers:
        worker.start()
    found = [told.get(timeout=300) for _ in range(clients)]
    for worker in workers:
        worker.join()
    began, ended, took = zip(*found, strict=True)
    return clients * steps / (max(ended) - min(began)), [one for each in took for one in each]


def rates(config: Serving, clients: int) -> dict[str, Any]:
    """Of a server with as many sessions as clients, and of `make_vec` with as many dreams, by turns."""
    env = gym.make_vec(f"worldgym/{config.world.capitalize()}-v0", num_envs=clients, device="cpu")
    moves = np.stack([actions(seed, config.steps) for seed in range(clients)])
    served, here, took = [], [], []
    with server(config.world, clients) as address:
        for _ in range(config.turns):
            rate, seconds = remote(address, clients, config.steps)
            served.append(rate)
            took += seconds
            env.reset(seed=0)
            began = time.monotonic()
            for step in range(config.steps):
                env.step(moves[:, step])
            here.append(clients * config.steps / (time.monotonic() - began))
    env.close()
    found = {
        "served": float(np.median(served)), "make_vec": float(np.median(here)),
        "share": float(np.median(np.divide(served, here))),
        "milliseconds": [1000 * float(q) for q in np.quantile(took, [0.5, 0.95, 1.0])],
    }  # fmt: skip
    print(clients, found, flush=True)
    return found


# -- who vanishes, and what is bad ------------------------------------------------------------------------------------


def lived(address: str, seed: int, steps: int, told: dict[int, list]) -> None:
    """What a session sees and earns, over as many episodes as it takes."""
    with closing(RemoteEnv(address)) as env:
        told[seed] = [env.reset(seed=seed)[0]]
        for action in actions(seed, steps):
            frame, reward, terminated, truncated, _ = env.step(action)
            told[seed].append((frame, reward))
            if terminated or truncated:
                env.reset(seed=seed)


def watch(address: str, steps: int) -> tuple[dict[int, list], list[Thread]]:
    told: dict[int, list] = {}
    threads = [Thread(target=lived, args=(address, seed, steps, told)) for seed in range(WATCHED)]
    for thread in threads:
        thread.start()
    return told, threads


def same(one: list, other: list) -> bool:
    """To within the rounding of batches of other sizes."""
    if len(one) != len(other):
        return False
    pairs = zip(one[1:], other[1:], strict=True)
    near = all(np.abs(a[0].astype(int) - b[0]).max() <= 1 and abs(a[1] - b[1]) < 1e-3 for a, b in pairs)
    return near and np.array_equal(one[0], other[0])


def killed(config: Serving) -> dict[str, Any]:
    """A client is killed between two steps: do the others live on as they would, and when is its place free?"""
    context = multiprocessing.get_context("spawn")
    with server(config.world, WATCHED + 1) as address:
        expected, threads = watch(address, config.steps)
        for thread in threads:
            thread.join()
        victim = context.Process(target=lived, args=(address, WATCHED, 10_000, {}))
        victim.start()
        time.sleep(5)
        found, threads = watch(address, config.steps)
        time.sleep(0.5)
        assert victim.pid is not None
        os.kill(victim.pid, signal.SIGKILL)
        gone = time.monotonic()
        while True:
            try:
                RemoteEnv(address).close()
                break
            except ConnectionRefusedError:
                time.sleep(0.01)
        free = time.monotonic() - gone
        for thread in threads:
            thread.join()
    disturbed = sum(not same(found[seed], expected[seed]) for seed in range(WATCHED))
    return {"watched": WATCHED, "disturbed": disturbed, "seconds_until_free": free}


def requests(random: np.random.Generator) -> bytes:
    """One that is bad, or by chance is not."""
    action = random.uniform(-1, 1, 2).astype(np.float32)
    good = encode({"op": "step", "action": action})
    match KINDS[random.integers(len(KINDS))]:
        case "bytes":
            return random.bytes(int(random.integers(200)))
        case "flipped":
            blob = bytearray(good)
            blob[random.integers(len(blob))] ^= 1 << int(random.integers(8))
            return bytes(blob)
        case "cut":
            return good[: random.integers(len(good))]
        case "shape":
            return encode({"op": "step", "action": np.zeros(random.integers(0, 5, random.integers(1, 4)), np.float32)})
        case "nan":
            action[random.integers(2)] = random.choice([np.nan, np.inf, -np.inf])
            return encode({"op": "step", "action": action})
        case "type":
            odd = [None, "left", {"x": 1}, [[0.0], 1.0], (0, 1), b"\0\0", True, 2**63, [[]], "x" * 5000]
            return encode({"op": "step", "action": odd[random.integers(len(odd))]})
        case "operation":
            return encode({"op": str(random.choice(["", "close", "answer", "_step", "dreams", "STEP"]))})
        case "field":
            return encode({"op": "render", f"field{random.integers(9)}": 1})
        case "deep":
            return b"\x82\xa2op\xa4step\xa6action" + b"\x91" * int(random.integers(20, 5000)) + b"\xc0"
        case "seed":
            seeds = [-1, 0.5, "1", [1], -(2**60)]
            return encode({"op": "reset", "seed": seeds[random.integers(len(seeds))]})
        case "snapshot":
            return encode({"op": "restore", "snapshot": random.bytes(int(random.integers(5000)))})
        case _:
            side = int(random.integers(1, 63))
            return encode({"op": "reset", "frames": np.zeros((int(random.integers(4)), side, side, 3), np.uint8)})


def pester(address: str, seed: int, count: int, told: dict[str, int]) -> None:
    """Send what is bad until `count` have been answered by an error; now and then far too much at once."""
    random, answered = np.random.default_rng([seed, 1]), 0
    while answered < count:
        try:
            connected = connect(f"ws://{address}", compression=None, max_size=MAX_MESSAGE).__enter__()
        except InvalidStatus:  # the place of the session before is not free yet
            time.sleep(0.01)
            continue
        with closing(connected) as socket:
            socket.send(encode({"op": "reset", "seed": 1}))
            socket.recv()
            told["sessions"] += 1
            try:
                while answered < count:
                    if random.random() < 0.005:
                        told["too_large"] += 1
                        socket.send(b"\0" * (MAX_MESSAGE + 1))
                    socket.send(requests(random))
                    if "error" in decode(socket.recv()):
                        answered += 1
                        told["errors"] += 1
                    else:
                        told["good_by_chance"] += 1
            except ConnectionClosed:
                told["ended_by_the_server"] += 1


def bad_requests(config: Serving) -> dict[str, Any]:
    with server(config.world, WATCHED + 2 * PESTERING) as address:
        expected, threads = watch(address, 40)
        for thread in threads:
            thread.join()
        told = dict.fromkeys(("errors", "good_by_chance", "sessions", "ended_by_the_server", "too_large"), 0)
        share = -(-config.bad // PESTERING)
        pests = [Thread(target=pester, args=(address, seed, share, told)) for seed in range(PESTERING)]
        for pest in pests:
            pest.start()
        lives = disturbed = 0
        while any(pest.is_alive() for pest in pests):
            found, threads = watch(address, 40)
            for thread in threads:
                thread.join()
            lives += WATCHED
            disturbed += sum(not same(found[seed], expected[seed]) for seed in range(WATCHED))
    return {**told, "watched": lives, "disturbed": disturbed}


def main(config: Serving) -> None:
    from worldgym.results import check_results, current_commit, write_results  # brings torch, which no client needs

    commit = current_commit()
    check_results(config.json)
    metrics: dict[str, Any] = {"steps": config.steps, "turns": config.turns}
    metrics["clients"] = {str(clients): rates(config, clients) for clients in config.clients}
    metrics["killed"] = killed(config)
    print(metrics["killed"], flush=True)
    metrics["bad"] = bad_requests(config)
    print(metrics["bad"], flush=True)
    write_results(config.json, config.seed, metrics, commit)


# -- the section of docs/results.md -----------------------------------------------------------------------------------


def section(results: Results) -> list[str]:
    m = results["metrics"]
    rows = []
    for clients, found in m["clients"].items():
        middle, late, last = found["milliseconds"]
        rows.append(
            [clients, f"{found['served']:.1f}", f"{found['make_vec']:.1f}", f"{found['share']:.2f}",
             f"{middle:.0f}, {late:.0f}, {last:.0f}"]
        )  # fmt: skip
    killed, bad = m["killed"], m["bad"]
    return [
        "A server, its clients and `gym.make_vec` on the same cores of one machine; the last two by turns, "
        f"{m['turns']} of {m['steps']} steps. Medians.",
        "",
        *markdown(
            ["clients", "steps a second, served", "`make_vec`", "share", "a step in ms: median, 95%, longest"], rows
        ),
        "",
        f"A client was killed at work: its place was free after {1000 * killed['seconds_until_free']:.0f} ms, "
        f"and of {killed['watched']} other sessions {killed['disturbed']} were disturbed.",
        "",
        f"{bad['errors']:,} bad requests ({bad['good_by_chance']:,} more were good by chance) and {bad['too_large']} "
        f"messages that were too large came in {bad['sessions']:,} sessions, of which the server ended "
        f"{bad['ended_by_the_server']:,}. Meanwhile {bad['watched']} episodes of 40 steps were watched: "
        f"{bad['disturbed']} were disturbed.",
        "",
        made_by(results),
    ]


SECTION = Section(
    "How fast are dreams over a network, and can clients disturb each other?",
    ("serving",),
    "python benchmarks/serving.py",
    section,
)


if __name__ == "__main__":
    main(tyro.cli(Serving))
