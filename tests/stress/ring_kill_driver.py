"""Plays the supervisor of a ring whose workers and executors die by SIGKILL at failpoints.

Started by test_ring_kills.py as a process of its own, small enough to fork by the thousand; needs a build with
failpoints. Arguments: rounds per case, seed, rows or shaped. Prints one JSON object: how often each (role, failpoint)
struck, and totals. Any broken invariant ends it with a traceback and exit status 1.

A round: the driver is the supervisor and worker 1 at once, so what worker 1 published can be followed without asking
anyone. Around it live worker 0 and the executor, in processes of their own; one of them is armed. Wrong answers, lost
rows and slabs that never come back are all looked for in the drain at the end.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any

from server._fast import slab_ring, slab_run
from server._fast.layout import Arena
from server._fast.ring import Ring

UINT64 = 5
WORDS = 4
#: Words of a row in shaped mode: with the longest, a slab holds two rows instead of CAPACITY.
LENGTHS = (1, 4, 16)
SHAPED_BYTES = 256
#: Executors that died with a slab until its rows are run alone.
ALONE_ATTEMPTS = 1
SLABS = 3
CAPACITY = 4
VICTIM_WORKER, LIVE_WORKER, EARLIER_VICTIM = 0, 1, 2
OPENED, CLAIMED, STAMPING, POISON = 2, 3, 4, 8
ROW_FREE, ROW_FILLING, ROW_READY, ROW_RUNNING, ROW_DONE, ROW_FAILED = range(6)
#: Drains longer than this mean that a row or a slab is lost.
PATIENCE_S = 20.0
#: Rounds until a failpoint strikes. One that is rarely passed (joining a slab that is sealed at once) needs a lower hit
#: count, so that halves with each try.
TRIES = 40
HEAD_START_STEPS = 200

#: Where each role can die. STAMPING: whoever moves a slab word completes the last claim; RECYCLED: whoever frees the
#: last row.
WORKER_POINTS = {1, 2, 3, 4, 5, 6, 13, 14, 15, 16}
EXECUTOR_POINTS = {4, 7, 8, 9, 10, 11, 12, 15}

Claim = tuple[int, int, int, int]


def answer(word: int) -> int:
    """What the executor makes of an input word."""
    return (word * 0x9E3779B97F4A7C15 + 0x1234567) & 0xFFFFFFFFFFFFFFFF


class Board:
    """A ring with the payloads of all slabs, inherited by every child."""

    def __init__(self, shaped: bool, has_levels: bool = False) -> None:
        dims = (-1, -1 if shaped else WORDS)
        self.shaped = shaped
        self.arena = arena = Arena.create(
            inputs=[(UINT64, 8, dims)],
            outputs=[(UINT64, 8, dims)],
            rows_mode=not shaped,
            shaped=shaped,
            input_bytes=SHAPED_BYTES,
            output_bytes=SHAPED_BYTES,
            row_capacity=CAPACITY,
            slab_count=SLABS,
            owner_count=3,
            instance_count=2,
            levels=[(SLABS, 0, 0, False, False)] * 2 if has_levels else None,
        )
        self.level_count = 1 + has_levels
        self.ring = Ring(arena)
        self.words = [arena.slab_buffer(slab).cast("Q") for slab in range(SLABS)]
        self.flags = mmap.mmap(-1, mmap.PAGESIZE)

    def input(self, slab: int, row: int) -> memoryview:
        """The row's input words."""
        at, count = row * WORDS, WORDS
        if self.shaped:
            offset, row_bytes, _ = self.arena.shape(slab, 0)
            at, count = (offset + row * row_bytes) // 8, row_bytes // 8
        return self.words[slab][at : at + count]

    def output(self, slab: int, row: int) -> memoryview:
        """The row's output words."""
        at, count = (CAPACITY + row) * WORDS, WORDS
        if self.shaped:
            offset, row_bytes, _, _ = self.arena.output(slab, row, 0)
            at, count = offset // 8, row_bytes // 8
        return self.words[slab][at : at + count]

    @property
    def stop(self) -> bool:
        """Whether children have to finish."""
        return self.flags[0] != 0

    @stop.setter
    def stop(self, value: bool) -> None:
        self.flags[0] = value


class Worker:
    """A worker's side: steps that never wait. Claims carry tags that no other worker and no earlier claim used."""

    def __init__(self, board: Board, owner: int, seed: int) -> None:
        self.board = board
        self.ring = board.ring
        self.owner = owner
        self.chance = random.Random(seed)
        self.tag = (owner << 56) | (seed & 0xFFFFFF) << 32
        self.held: dict[Claim, int] = {}
        self.tally: Counter[str] = Counter()

    def step(self, may_claim: bool = True) -> None:
        if may_claim and len(self.held) < 5 and self.chance.random() < 0.6:
            self.ask()
        for claim in list(self.held):
            self.poll(claim)
        os.sched_yield()

    def ask(self) -> None:
        row_count = self.chance.choice((1, 1, 1, 2, 3))
        length = self.chance.choice(LENGTHS)
        if self.board.shaped:
            # One hash for all: it is the lengths that decide.
            claim = self.ring.claim(self.owner, min(row_count, 2), [(length,)], signature=7)
        else:
            claim = self.ring.claim(self.owner, row_count, level=self.chance.randrange(self.board.level_count))
        if claim is None:
            self.tally["full"] += 1
            return
        slab, first_row, row_count, generation = claim
        self.tag += 1 << 8
        for row in range(first_row, first_row + row_count):
            assert self.ring.row(slab, row) == (ROW_FILLING, self.owner, 0, 0, generation), "two owners"
            words = self.board.input(slab, row)
            assert len(words) == (length if self.board.shaped else WORDS), "rows of another shape"
            for word in range(len(words)):
                words[word] = self.tag + row * 16 + word
        self.tally["claimed"] += 1
        if self.chance.random() < 0.25:
            self.cancel(claim)
            return
        self.ring.publish(self.owner, claim)
        if self.chance.random() < 0.2:
            self.cancel(claim)
            return
        self.held[claim] = self.tag

    def cancel(self, claim: Claim) -> None:
        self.ring.cancel(self.owner, claim)
        self.tally["cancelled"] += 1

    def poll(self, claim: Claim) -> None:
        slab, first_row, row_count, generation = claim
        for row in range(first_row, first_row + row_count):
            state, owner, _, _, row_generation = self.ring.row(slab, row)
            assert (owner, row_generation) == (self.owner, generation), f"row {slab}/{row} lost to another owner"
            assert state in (ROW_READY, ROW_RUNNING, ROW_DONE, ROW_FAILED), f"published row in state {state}"
        code = self.ring.finished(self.owner, claim)
        if code is None:
            return
        assert code in (0, POISON), f"failure {code} that nobody caused"
        for row in range(first_row, first_row + row_count):
            state, _, attempts, _, _ = self.ring.row(slab, row)
            assert state == ROW_DONE or attempts >= 2, "refused without having been tried twice alone"
            if state != ROW_DONE:
                continue
            found = self.board.output(slab, row)
            assert len(found) == len(self.board.input(slab, row)), f"output of another row in {slab}/{row}"
            for word, value in enumerate(found):
                assert value == answer(self.held[claim] + row * 16 + word), f"wrong answer in row {slab}/{row}"
        del self.held[claim]
        self.ring.release(self.owner, claim)
        for row in range(first_row, first_row + row_count):
            state, _, _, _, row_generation = self.ring.row(slab, row)
            assert row_generation != generation or state == ROW_FREE, f"second answer for row {slab}/{row}"
        self.tally["answered" if code == 0 else "poisoned"] += 1

    def drain(self) -> None:
        limit = time.monotonic() + PATIENCE_S
        while self.held:
            self.step(may_claim=False)
            assert time.monotonic() < limit, f"worker {self.owner} waits for ever for {list(self.held)}"


def executor_step(board: Board, instance: int, chance: random.Random) -> bool:
    """One batch, if one is due. Rows are finished early at random, as after a bisection."""
    ring = board.ring
    batch = ring.seal(instance)
    if batch is None:
        return False
    parent = os.getppid()
    batch["row_limit"] = chance.choice([0, 0, 0, 1, 2])
    while (taken := ring.take(instance, batch, 0, chance.random() < 0.1)) is None:
        if board.stop or os.getppid() != parent:
            return False
        os.sched_yield()
    slab = taken["slab"]
    for row in range(taken["row_count"]):
        if taken["attempts"] >= ALONE_ATTEMPTS and ring.take_alone(taken, row) <= 0:
            continue
        if ring.row(slab, row)[0] != ROW_RUNNING:
            continue
        source = board.input(slab, row)
        if board.shaped:
            board.arena.set_output(slab, 0, row, 1, SHAPED_BYTES + row * source.nbytes, source.nbytes, (1, len(source)))
        target = board.output(slab, row)
        for at, word in enumerate(source):
            target[at] = answer(word)
        if board.shaped and chance.random() < 0.1:
            ring.crowd(slab)
            ring.put_back(slab, row)
        elif chance.random() < 0.3:
            ring.finish_row(slab, row)
    ring.complete(instance, taken)
    return True


def executor_body(board: Board, seed: int) -> Callable[[], None]:
    def body() -> None:
        chance = random.Random(seed)
        parent = os.getppid()
        while not board.stop and os.getppid() == parent:
            if not executor_step(board, seed % 2, chance):
                os.sched_yield()

    return body


def worker_body(board: Board, owner: int, seed: int, steps: int) -> Callable[[], None]:
    def body() -> None:
        worker = Worker(board, owner, seed)
        for _ in range(steps):
            worker.step()
        worker.drain()

    return body


#: Children that were not waited for yet.
CHILDREN: set[int] = set()


def spawn(body: Callable[[], None], point: int = 0, hits: int = 0) -> int:
    """Forks a child that runs `body`, armed at `point`. Its exit status: 0 done, 1 an invariant broke."""
    pid = os.fork()
    if pid:
        CHILDREN.add(pid)
        return pid
    status = 1
    try:
        slab_ring.arm_failpoint(point, hits)
        slab_run.arm_failpoint(point, hits)
        body()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def ended(pid: int, patience_s: float = PATIENCE_S) -> int:
    """The wait status of a child that has to end by itself."""
    limit = time.monotonic() + patience_s
    while (status := poll(pid)) is None:
        os.sched_yield()
        assert time.monotonic() < limit, f"child {pid} never ends"
    return status


def poll(pid: int) -> int | None:
    """The wait status of a child if it has ended."""
    done, status = os.waitpid(pid, os.WNOHANG)
    if not done:
        return None
    CHILDREN.discard(pid)
    return status


def kill(pid: int) -> None:
    """Ends a child wherever it is."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    CHILDREN.discard(pid)


def struck(status: int) -> bool:
    """Whether a wait status is a death at a failpoint; anything but that and a clean end is an error."""
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL, f"child ended by signal {os.WTERMSIG(status)}"
        return True
    assert os.WEXITSTATUS(status) == 0, "a child broke an invariant, see above"
    return False


class Supervisor:
    """Runs rounds on one board and keeps the books."""

    def __init__(self, seed: int, mode: str) -> None:
        self.board = Board(mode == "shaped", mode == "levels")
        self.chance = random.Random(seed)
        self.strikes: Counter[str] = Counter()
        self.totals: Counter[str] = Counter()
        self.last_generation = 0

    def seed(self) -> int:
        self.totals["seeds"] += 1
        return self.totals["seeds"]

    def wait(self, pid: int, live: Worker) -> bool:
        """Goes on as the live worker until the child ends; whether it was struck."""
        limit = time.monotonic() + PATIENCE_S
        while True:
            if (status := poll(pid)) is not None:
                return struck(status)
            live.step()
            assert time.monotonic() < limit, f"child {pid} never ends"

    def both_die(self) -> None:
        """Worker and executor are armed at once; when one falls the other is killed wherever it is, untidied."""
        board, chance = self.board, self.chance
        live = Worker(board, LIVE_WORKER, self.seed())
        board.stop = False
        points = chance.choice(sorted(EXECUTOR_POINTS)), chance.choice(sorted(WORKER_POINTS))
        bodies = executor_body(board, self.seed()), worker_body(board, VICTIM_WORKER, self.seed(), 150)
        pids = [spawn(body, point, chance.randint(1, 12)) for body, point in zip(bodies, points, strict=True)]
        limit = time.monotonic() + chance.random() * 0.02
        while pids and time.monotonic() < limit:
            live.step()
            for pid in pids:
                if (status := poll(pid)) is not None:
                    struck(status)
                    pids.remove(pid)
                    limit = 0
                    break
        for pid in pids:
            kill(pid)
        tidy = [lambda: self.board.ring.reap_owner(VICTIM_WORKER), self.board.ring.recover_executor]
        chance.shuffle(tidy)
        for step in tidy:
            step()
            live.step()
        self.totals["double deaths"] += 1
        self.recover(live, spawn(executor_body(board, self.seed())))

    def round(self, role: str, point: int, hits: int, executor_deaths: int = 1) -> None:
        """One armed process of `role` among live ones, its successor, and a drain that must find everything."""
        board, ring = self.board, self.board.ring
        live = Worker(board, LIVE_WORKER, self.seed())
        board.stop = False
        executor = 0
        if role == "worker":
            victim = spawn(worker_body(board, VICTIM_WORKER, self.seed(), 150), point, hits)
            # An open slab to join is rare while an executor seals each at once.
            for _ in range(HEAD_START_STEPS if point == CLAIMED else 0):
                live.step()
            executor = spawn(executor_body(board, self.seed()))
            self.strikes[f"worker {point}"] += self.wait(victim, live)
            ring.reap_owner(VICTIM_WORKER)
        else:
            if point == STAMPING:
                self.kill_while_stamping()
            neighbour = spawn(worker_body(board, VICTIM_WORKER, self.seed(), 150))
            for _ in range(executor_deaths if point != STAMPING else 0):
                executor = spawn(executor_body(board, self.seed()), point, hits)
                self.strikes[f"executor {point}"] += self.wait_executor(executor, live)
                ring.recover_executor()
            executor = spawn(executor_body(board, self.seed()))
            assert not self.wait(neighbour, live)
        self.recover(live, executor)

    def recover(self, live: Worker, executor: int) -> None:
        """With a fresh worker and a live executor everything is answered, given back, and ready for more."""
        fresh = spawn(worker_body(self.board, VICTIM_WORKER, self.seed(), 20))
        assert not self.wait(fresh, live)
        live.drain()
        self.totals.update(live.tally)
        self.quiesce()
        self.board.stop = True
        assert not struck(ended(executor))
        self.totals["rounds"] += 1

    def kill_while_stamping(self) -> None:
        """A worker that died before its own stamp leaves one to the executor, if nobody joins in between."""
        worker = spawn(worker_body(self.board, EARLIER_VICTIM, self.seed(), 50), OPENED, 1)
        assert struck(ended(worker))
        executor = spawn(executor_body(self.board, self.seed()), STAMPING, 1)
        self.strikes[f"executor {STAMPING}"] += struck(ended(executor))
        if self.chance.random() < 0.5:
            self.board.ring.recover_executor()
        self.board.ring.reap_owner(EARLIER_VICTIM)
        self.board.ring.recover_executor()

    def wait_executor(self, pid: int, live: Worker) -> bool:
        """Goes on as the live worker until the armed executor is struck, or has lived so long that it will not be."""
        limit = time.monotonic() + 2.0
        while time.monotonic() < limit:
            if (status := poll(pid)) is not None:
                return struck(status)
            live.step()
        kill(pid)
        return False

    def quiesce(self) -> None:
        """With nobody claiming, every slab comes back; generations only grow."""
        ring = self.board.ring
        limit = time.monotonic() + PATIENCE_S
        while ring.free_slabs() < SLABS:
            os.sched_yield()
            slabs = [ring.slab(slab) for slab in range(SLABS)]
            assert time.monotonic() < limit, f"slabs that never come back: {slabs}, rows {ring.row_counts()}"
        assert sum(ring.row_counts()) == 0
        newest = max(ring.slab(slab)[3] for slab in range(SLABS))
        assert newest > self.last_generation
        self.last_generation = newest


def main(rounds: int, seed: int, mode: str) -> dict[str, Any]:
    """Every failpoint in every role that passes it, `rounds` times each at random hit counts, then crash loops."""
    points = set(range(1, slab_ring.FAILPOINT_COUNT))
    assert points == WORKER_POINTS | EXECUTOR_POINTS, "a failpoint that no role claims: say here who passes it"
    if not slab_ring.arm_failpoint(0):
        raise SystemExit("this build has no failpoints: make debug")
    supervisor = Supervisor(seed, mode)
    cases = [("worker", point) for point in WORKER_POINTS] + [("executor", point) for point in EXECUTOR_POINTS]
    for _ in range(rounds):
        supervisor.chance.shuffle(cases)
        for role, point in cases:
            for attempt in range(TRIES):
                before = supervisor.strikes[f"{role} {point}"]
                supervisor.round(role, point, supervisor.chance.randint(1, max(12 >> attempt, 1)))
                if supervisor.strikes[f"{role} {point}"] > before:
                    break
        supervisor.round("executor", supervisor.chance.choice((9, 10, 11)), 1, executor_deaths=6)
        for _ in range(4):
            supervisor.both_die()
    missing = [f"{role} {point}" for role, point in cases if not supervisor.strikes[f"{role} {point}"]]
    return {"missing": missing, "strikes": dict(supervisor.strikes), "totals": dict(supervisor.totals)}


if __name__ == "__main__":
    try:
        print(json.dumps(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])))
    finally:
        for child in list(CHILDREN):
            kill(child)
