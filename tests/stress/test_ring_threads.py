"""The ring under threads: every claim ends once, every answer belongs to its input, nothing stays claimed.

Under ThreadSanitizer (`make test-tsan`) the same runs prove that payloads are ordered by the words alone.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from server._fast.layout import Arena
from server._fast.ring import Ring

ring_threads = pytest.importorskip(
    "ring_threads", reason="thread bodies are not part of a release build: make test-tsan, or make debug"
)

UINT64 = 5
ENDS = ("answered", "failed", "expired", "poisoned", "cancelled", "dropped")
STRESS = int(os.environ.get("HEADRACE_STRESS") or 0)
TSAN = os.environ.get("HEADRACE_VARIANT") == "tsan"
WORKERS = 4
INSTANCES = 3
#: Steps of an executor that hardly gets through a batch, so that rows are blamed for its deaths.
CRASH_LOOP_LIFE = 3


def new_ring(slab_count: int, row_capacity: int, shaped: bool = False, level_slabs: tuple[int, ...] = ()) -> Ring:
    """shaped: slabs have room for four of the longest rows. level_slabs: what each priority level may hold."""
    dims = (-1, -1) if shaped else (-1, 8)
    arena = Arena.create(
        inputs=[(UINT64, 8, dims)],
        outputs=[(UINT64, 8, dims)],
        rows_mode=not shaped,
        shaped=shaped,
        input_bytes=4 * 192,
        output_bytes=row_capacity * 192,
        row_capacity=row_capacity,
        slab_count=slab_count,
        owner_count=WORKERS,
        instance_count=INSTANCES,
        levels=[(slabs, 0, 0, False, False) for slabs in level_slabs] or None,
    )
    return Ring(arena)


def join_all(bodies: list[Callable[[], None]]) -> None:
    """Runs each body in a thread of its own and raises what one of them raised."""
    errors: list[BaseException] = []

    def guarded(body: Callable[[], None]) -> None:
        try:
            body()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in errors:
        raise error


def run_crowd(
    ring: Ring, operations: int, *, worker_life: int = 0, executor_life: int = 0, seed: int = 1
) -> tuple[Counter[str], Counter[str]]:
    """Drives the ring with `operations` per worker; returns the summed tallies of workers and of instances.

    worker_life, executor_life: a worker dies every so many operations, the executor every so many steps of a batch;
    0 never.
    """
    crowd = ring_threads.Crowd(ring.arena, WORKERS)
    workers = [ring_threads.WorkerBody(crowd, owner, seed * 1000 + owner) for owner in range(WORKERS)]
    instances = [ring_threads.InstanceBody(crowd, index, seed * 2000 + index) for index in range(INSTANCES)]
    chance = random.Random(seed)
    deaths = 0

    def worker(body: ring_threads.WorkerBody, owner: int) -> None:
        while not body.run(operations, worker_life and body.tally["operations"] + chance.randint(1, 2 * worker_life)):
            ring.reap_owner(owner)
        crowd.leave()

    def instance(body: ring_threads.InstanceBody) -> None:
        body.run(executor_life and chance.randint(1, 2 * executor_life))

    def executor() -> None:
        nonlocal deaths
        while True:
            join_all([lambda b=body: instance(b) for body in instances])
            if not crowd.crashed:
                return
            deaths += 1
            ring.recover_executor()
            crowd.clear_crash()

    join_all([executor] + [lambda b=body, k=k: worker(b, k) for k, body in enumerate(workers)])
    slabs = [ring.slab(slab) for slab in range(ring.arena.slab_count)]
    assert not crowd.stalled, f"waits for ever: slabs {slabs}, rows {ring.row_counts()}"
    totals: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
    for total, bodies in zip(totals, (workers, instances), strict=True):
        for body in bodies:
            total.update(body.tally)
    totals[1]["deaths"] = deaths
    return totals


SIZES = [
    pytest.param(5_000, id="short"),
    pytest.param(4_000_000 // WORKERS * max(STRESS, 1), id="long", marks=pytest.mark.stress),
]
CASES = [
    pytest.param(4, 8, 0, 0, False, id="nobody-dies"),
    pytest.param(2, 3, 0, 0, False, id="always-full"),
    pytest.param(3, 4, 500, 1000, False, id="workers-and-executor-die"),
    pytest.param(2, 2, 0, CRASH_LOOP_LIFE, False, id="executor-dies-all-the-time"),
    pytest.param(4, 8, 0, 0, True, id="shaped-nobody-dies"),
    pytest.param(2, 6, 500, 1000, True, id="shaped-workers-and-executor-die"),
    pytest.param(6, 4, 500, 1000, False, id="levels-workers-and-executor-die"),
]


@pytest.mark.parametrize(("slab_count", "row_capacity", "worker_life", "executor_life", "shaped"), CASES)
@pytest.mark.parametrize("operations", SIZES)
def test_every_claim_ends_once(
    operations: int, slab_count: int, row_capacity: int, worker_life: int, executor_life: int, shaped: bool
) -> None:
    crash_loop = executor_life == CRASH_LOOP_LIFE
    operations = min(operations // 20, 2_500) if crash_loop else operations
    ring = new_ring(slab_count, row_capacity, shaped, (2, 1, 3) if slab_count == 6 else ())
    workers, instances = run_crowd(ring, operations, worker_life=worker_life, executor_life=executor_life)
    print(f"workers {dict(workers)} instances {dict(instances)}")
    assert workers["wrong"] == 0
    assert workers["claims"] == sum(workers[end] for end in ENDS)
    assert workers["operations"] >= operations * WORKERS
    assert workers["answered"] > workers["claims"] // (20 if crash_loop else 2)
    assert (workers["dropped"] > 0) == (worker_life > 0)
    assert (instances["put_back"] > 0) == shaped
    assert (instances["deaths"] > 0) == (executor_life > 0)
    assert workers["poisoned"] == 0 or executor_life
    assert workers["poisoned"] > 0 or not crash_loop
    assert ring.free_slabs() == slab_count
    assert sum(ring.row_counts()) == 0


SABOTAGE = """
from tests.stress import test_ring_threads as t
ring = t.new_ring(2, 4)
crowd = t.ring_threads.Crowd(ring.arena, 2)
worker = [t.ring_threads.WorkerBody(crowd, k, k + 1, early=True) for k in range(2)]
instance = t.ring_threads.InstanceBody(crowd, 0, 9)
def work(body):
    body.run(20000)
    crowd.leave()
t.join_all([instance.run, lambda: work(worker[0]), lambda: work(worker[1])])
"""


@pytest.mark.stress
@pytest.mark.skipif(not TSAN, reason="asks whether ThreadSanitizer sees payloads: make test-tsan")
def test_the_sanitizer_sees_a_row_that_is_published_before_it_is_filled() -> None:
    # -P: with the current folder first, the release build of the tree would win over the sanitized one.
    paths = os.pathsep.join([os.environ["PYTHONPATH"], str(Path(__file__).resolve().parents[2])])
    done = subprocess.run(
        [sys.executable, "-P", "-c", SABOTAGE],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 66, done.stderr
    assert "ThreadSanitizer: data race" in done.stderr
    assert "WorkerBody_fill" in done.stderr or "compute_row" in done.stderr
