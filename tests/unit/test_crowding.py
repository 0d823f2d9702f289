"""A worker that is the bottleneck itself: its loop in virtual time, with the real rule, under open and closed loops."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field

from server.batching.admission import margin_ns
from server.batching.crowding import CROWDED_NS, WorkerLoad

MS = 1_000_000
SECOND_NS = 1000 * MS
#: What the worker needs for a request that it takes, and for one that it refuses.
SERVE_NS, REFUSE_NS = 4_000, 2_000
BUDGET_NS = 100 * MS


@dataclass
class Worker:
    """Each turn reads what came before it began, and writes all answers at its end. The model costs nothing."""

    is_ruled: bool = True
    load: WorkerLoad = field(default_factory=WorkerLoad)
    chance: random.Random = field(default_factory=lambda: random.Random(5))
    now_ns: int = SECOND_NS
    thread_ns: int = 1
    waiting: deque[int] = field(default_factory=deque)
    served_ns: list[int] = field(default_factory=list)
    refused_ns: list[int] = field(default_factory=list)

    def takes(self, at_ns: int, now_ns: int) -> bool:
        if self.is_ruled and self.load.is_crowded_out(now_ns, BUDGET_NS, self.chance.getrandbits(16)):
            return False
        if now_ns + margin_ns(BUDGET_NS, self.load.lag_ns, 0) > at_ns + BUDGET_NS:
            self.load.predicted_late(now_ns)
            return False
        return True

    def turn(self, idle_ns: int = MS // 10) -> int:
        """How many requests it read."""
        began_ns = self.now_ns
        read = list(self.waiting)
        self.waiting.clear()
        taken = []
        for at_ns in read:
            taken.append(self.takes(at_ns, self.now_ns))
            self.now_ns += SERVE_NS if taken[-1] else REFUSE_NS
        work_ns = self.now_ns - began_ns
        for at_ns, is_taken in zip(read, taken, strict=True):
            (self.served_ns if is_taken else self.refused_ns).append(self.now_ns - at_ns)
        self.thread_ns += work_ns
        self.load.turn_ended(work_ns, self.now_ns, self.thread_ns if self.load.crowded_until_ns else 0)
        if not read:
            self.now_ns += idle_ns
        return len(read)

    def open_loop(self, rate: float, seconds: float) -> None:
        """Requests come by Poisson's law; what was measured before is forgotten."""
        self.served_ns.clear()
        self.refused_ns.clear()
        due_ns, until_ns = float(self.now_ns), self.now_ns + seconds * SECOND_NS
        while self.now_ns < until_ns:
            while due_ns <= self.now_ns:
                self.waiting.append(int(due_ns))
                due_ns += self.chance.expovariate(rate / SECOND_NS)
            self.turn()

    def closed_loop(self, clients: int, seconds: float) -> None:
        """Each client asks again as soon as it is answered, refused or not."""
        self.served_ns.clear()
        self.refused_ns.clear()
        until_ns = self.now_ns + seconds * SECOND_NS
        self.waiting.clear()
        free = clients
        while self.now_ns < until_ns:
            self.waiting.extend([self.now_ns] * free)
            free = self.turn()


def p99_ms(times_ns: list[int]) -> float:
    return sorted(times_ns)[int(0.99 * (len(times_ns) - 1))] / MS


def test_an_open_loop_is_refused_quickly_and_served_no_less() -> None:
    """325,000 requests a second where 250,000 can be served and 500,000 refused."""
    ruled, plain = Worker(), Worker(is_ruled=False)
    for worker in (ruled, plain):
        worker.open_loop(325_000, 0.5)
        worker.open_loop(325_000, 0.5)
    assert p99_ms(plain.refused_ns) > 40
    assert p99_ms(ruled.refused_ns) < 10
    assert p99_ms(ruled.served_ns) < 10
    assert len(ruled.served_ns) > 0.85 * len(plain.served_ns) > 0


def test_nobody_is_refused_below_the_capacity() -> None:
    worker = Worker()
    worker.open_loop(225_000, 0.5)
    assert worker.refused_ns == []


def test_nobody_is_refused_in_long_turns_of_a_closed_loop() -> None:
    """4,000 connections make turns of 16 ms; all answers are in time."""
    worker = Worker()
    worker.closed_loop(4000, 0.5)
    assert worker.refused_ns == []
    assert max(worker.served_ns) < BUDGET_NS // 2


def test_what_overload_taught_ends_in_a_closed_loop() -> None:
    """A moment of overload before costs a part of the answers for CROWDED_NS, and none later."""
    worker = Worker()
    worker.load.predicted_late(worker.now_ns)
    worker.closed_loop(4000, 0.5)
    assert len(worker.served_ns) > 0.2 * (len(worker.served_ns) + len(worker.refused_ns))
    assert worker.refused_ns != []
    worker.now_ns += CROWDED_NS
    worker.turn()
    worker.closed_loop(4000, 0.5)
    assert worker.refused_ns == []


def test_it_ends_with_the_overload() -> None:
    worker = Worker()
    worker.open_loop(400_000, 0.5)
    assert worker.refused_ns != []
    worker.open_loop(200_000, 0.1)
    worker.open_loop(200_000, 0.3)
    assert worker.refused_ns == []


def test_a_worker_that_waits_for_its_core_is_not_crowded() -> None:
    """Its turns are long, but it has not worked: the predictions say who is late."""
    load = WorkerLoad()
    load.predicted_late(0)
    for number in range(1, 50):
        load.turn_ended(20 * MS, number * 20 * MS, number * MS)
    assert load.lag_ns == 20 * MS
    assert not any(load.is_crowded_out(SECOND_NS, BUDGET_NS, chance) for chance in range(1024))


def test_who_has_time_is_not_refused_for_turns_of_a_few_milliseconds() -> None:
    load = WorkerLoad(crowded_until_ns=SECOND_NS, turn_work_ns=8 * MS)
    assert not any(load.is_crowded_out(0, SECOND_NS, chance) for chance in range(1024))
    hurried = sum(load.is_crowded_out(0, BUDGET_NS, chance) for chance in range(1024))
    assert 0.7 < hurried / 1024 < 0.8
