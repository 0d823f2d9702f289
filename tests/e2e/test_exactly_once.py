"""Exactly one answer to every request, while processes are killed; and afterwards everything is as it was."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.faults import metric, open_descriptors, stopped, wait_until
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
    with running(tmp_path / "models", "--workers", "2", "--max-batch-size", "64", "--queue-rows", "2048") as server:
        yield server


def choose(serial: int) -> Question:
    """Mostly one row, some few, one in a hundred more than a slab: never more at a time than the queue has room for."""
    rows = WIDE_ROWS if serial % 100 == 50 else random.Random(serial).choice((1, 1, 1, 1, 2, 3))
    return Question(serial, "busy" if serial % 4 == 0 else "plain", rows)


def test_every_request_has_one_right_answer_while_workers_and_executors_are_killed(server: Server) -> None:
    shared_memory = set(os.listdir("/dev/shm"))
    capacity = {name: capacity_in_slabs(server, name) for name in MODELS}
    holdings = settled(server)
    kills_over = asyncio.Event()
    oracle = Oracle(
        server,
        connection_count=CONNECTION_COUNT,
        window=2,
        choose=choose,
        enough=lambda answered: answered >= REQUEST_COUNT and kills_over.is_set(),
    )

    async def everything() -> None:
        killer = asyncio.create_task(kill_all_kinds(server, oracle.killed))
        killer.add_done_callback(lambda _: kills_over.set())
        await oracle.run(timeout_s=600 if STRESS else 60)
        await killer

    started = time.monotonic()
    asyncio.run(everything())
    tally = oracle.tally
    took_s = time.monotonic() - started
    print(
        f"{tally.answered} answers in {took_s:.1f} s, {KILL_COUNT} + {KILL_COUNT} kills, "
        f"{tally.reconnects} reconnects, {tally.resent} requests of dead workers sent again"
    )
    assert tally.complaints == []
    assert tally.answered == oracle.asked >= REQUEST_COUNT
    assert tally.reconnects > 0, "no connection was open on a worker that was killed: nothing was proved"

    assert settled(server) == holdings
    assert {name: capacity_in_slabs(server, name) for name in MODELS} == capacity
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


def settled(server: Server) -> dict[str, list[int]]:
    """Open descriptors of every process, once no row waits and no connection is open."""
    wait_until(lambda: metric(server, "headrace_queue_depth") == 0, "no row waiting")
    wait_until(lambda: metric(server, "headrace_inflight_requests") == 0, "no request open")
    # The scrape itself is one connection.
    wait_until(lambda: metric(server, "headrace_connections") == 1, "all connections closed")
    return open_descriptors(server)


def capacity_in_slabs(server: Server, name: str) -> int:
    """How many requests of a whole slab fit into a lane whose executor stands still: all, if every row is free."""
    question = Question(1, name, 64)
    with contextlib.ExitStack() as stack:
        links = {stack.enter_context(contextlib.closing(server.connect())) for _ in range(40)}
        with stopped(server.pids("executor")[sorted(MODELS).index(name)]):
            for link in links:
                link.sendall(question.encoded())
            waiting = set(links)

            def all_decided() -> bool:
                for link in select.select(list(waiting), [], [], 0)[0]:
                    reply = link.recv(65536)
                    assert reply.startswith(b"HTTP/1.1 503 "), reply
                    assert b"Retry-After: 1\r\n" in reply
                    waiting.discard(link)
                return metric(server, "headrace_queue_depth", model=name) == 64 * len(waiting)

            wait_until(all_decided, "every request refused or queued")
        for link in waiting:
            assert link.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert len(waiting) < len(links)
        return len(waiting)
