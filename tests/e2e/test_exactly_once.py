"""Exactly one answer to every request, while processes are killed; and afterwards everything is as it was."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.onnx_writer import write_repository
from tests.support.oracle import Oracle, Question, model
from tests.support.server import Server, running

pytestmark = pytest.mark.slow

STRESS = int(os.environ.get("HEADRACE_STRESS") or 0)
REQUEST_COUNT = 200_000 * STRESS or 15_000
#: Kills of workers, and as many of executors.
KILL_COUNT = 20 * STRESS or 3
KILL_PAUSE_S = 2.4 if STRESS else 0.5
CONNECTION_COUNT = 64
MODELS = {"plain": model(), "busy": model(busy_width=256)}
WIDE_ROWS = 150  # more than a slab holds: split and joined


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    write_repository(tmp_path / "models", MODELS)
    with running(tmp_path / "models", "--workers", "2", "--max-batch-size", "64", "--queue-rows", "1024") as server:
        yield server


def choose(serial: int) -> Question:
    """Mostly one row, some few, one in a hundred more than a slab."""
    draw = random.Random(serial).random()
    rows = WIDE_ROWS if draw < 0.01 else 1 + int(draw * 4) if draw < 0.5 else 1
    return Question(serial, "busy" if serial % 4 == 0 else "plain", rows)


def test_every_request_has_one_right_answer_while_workers_and_executors_are_killed(server: Server) -> None:
    shared_memory = set(os.listdir("/dev/shm"))
    capacity = {name: capacity_in_slabs(server, index, name) for index, name in enumerate(sorted(MODELS))}
    holdings = settled(server)
    print(capacity, holdings)
    oracle = Oracle(
        server,
        connection_count=CONNECTION_COUNT,
        window=2,
        choose=choose,
        enough=lambda answered: answered >= REQUEST_COUNT and killer.done(),
    )

    async def everything() -> None:
        nonlocal killer
        killer = asyncio.create_task(kill_all_kinds(server, oracle.killed))
        await oracle.run(timeout_s=600 if STRESS else 60)
        await killer

    killer: asyncio.Task[None]
    started = time.monotonic()
    asyncio.run(everything())
    tally = oracle.tally
    took_s = time.monotonic() - started
    print(
        f"{tally.answered} answers in {took_s:.1f} s, {KILL_COUNT} + {KILL_COUNT} kills, {tally.reconnects} reconnects, "
        f"{tally.resent} requests of dead workers sent again"
    )
    assert tally.complaints == []
    assert tally.answered == oracle.asked >= REQUEST_COUNT
    assert tally.reconnects > 0, "no connection was open on a worker that was killed: nothing was proved"

    assert settled(server) == holdings
    assert {name: capacity_in_slabs(server, index, name) for index, name in enumerate(sorted(MODELS))} == capacity
    assert set(os.listdir("/dev/shm")) == shared_memory
    server.stop()


async def kill_all_kinds(server: Server, killed: set[int]) -> None:
    """Kills a worker, an executor, a worker, ... in turns, each after a pause."""
    rng = random.Random(3)
    for turn in range(2 * KILL_COUNT):
        role = "worker" if turn % 2 == 0 else "executor"
        await asyncio.sleep(KILL_PAUSE_S * rng.uniform(0.8, 1.2))
        while len(server.pids(role)) < 2:
            await asyncio.sleep(0.02)
        victim = server.pids(role)[turn // 2 % 2]
        if role == "worker":
            killed.add(victim)
        os.kill(victim, signal.SIGKILL)
    for role in ("worker", "executor"):
        while len(server.pids(role)) < 2:
            await asyncio.sleep(0.02)


def settled(server: Server, timeout_s: float = 10) -> dict[str, list[int]]:
    """Open descriptors of every process, once no row waits and no connection is open."""
    deadline = time.monotonic() + timeout_s
    while True:
        lines = server.get("/metrics", port=server.metrics_port).body.decode().splitlines()
        queued = [float(line.split()[-1]) for line in lines if line.startswith("headrace_queue_depth")]
        inflight = [float(line.split()[-1]) for line in lines if line.startswith("headrace_inflight_requests")]
        opened = [float(line.split()[-1]) for line in lines if line.startswith('headrace_connections{protocol="http"}')]
        assert len(queued) == len(inflight) == len(MODELS)
        # The scrape itself is one connection.
        if not any(queued) and not any(inflight) and opened == [1.0]:
            break
        assert time.monotonic() < deadline, f"rows waiting {queued}, in flight {inflight}, connections {opened}"
        time.sleep(0.02)
    time.sleep(0.05)
    return {
        role: sorted(len(os.listdir(f"/proc/{pid}/fd")) for pid in server.pids(role))
        for role in ("supervisor", "worker", "executor")
    }


def capacity_in_slabs(server: Server, executor_index: int, name: str) -> int:
    """How many requests of a whole slab fit into a lane whose executor stands still: all, if every row is free."""
    pid = server.pids("executor")[executor_index]
    question = Question(1, name, 64)
    links: list[socket.socket] = []
    os.kill(pid, signal.SIGSTOP)
    try:
        for _ in range(24):
            link = server.connect()
            links.append(link)
            link.sendall(question.encoded())
        refused = 0
        waiting = set(links)
        deadline = time.monotonic() + 10
        while len(waiting) * 64 != depth(server, name):
            assert time.monotonic() < deadline, f"{len(waiting)} wait, {depth(server, name)} rows queued"
            for link in list(waiting):
                link.settimeout(0.02)
                try:
                    reply = link.recv(65536)
                except TimeoutError:
                    continue
                assert reply.startswith(b"HTTP/1.1 503 "), reply
                assert b"Retry-After: 1\r\n" in reply
                waiting.discard(link)
                refused += 1
    finally:
        os.kill(pid, signal.SIGCONT)
    try:
        for link in waiting:
            link.settimeout(10)
            reply = link.recv(65536)
            assert reply.startswith(b"HTTP/1.1 200 "), reply
        assert refused > 0
        return len(waiting)
    finally:
        for link in links:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0))
            link.close()


def depth(server: Server, name: str) -> float:
    lines = server.get("/metrics", port=server.metrics_port).body.decode().splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(f'headrace_queue_depth{{model="{name}"'))
