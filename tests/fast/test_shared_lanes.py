"""Several lanes on the instances of one executor, with puppets of models: who is woken, who runs, who goes."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from server._fast.lane_executor import LaneExecutor
from server._fast.lane_sharing import Sharing
from server._fast.layout import Arena, Control
from server._fast.ring import Ring
from server._fast.shared_lanes import SharedLanes
from server.executor.backend import ModelError, ProducedTensor, Run, TensorBuffer
from server.executor.runner import RowsRunner, TensorSpec
from server.executor.shared_serve import SharedServe, Turns
from tests.reference.slab_ring import Claim

UINT8 = 2
PATIENCE_S = 10.0
CAPACITY, SLABS = 4, 4


class Puppet:
    """A Backend whose runs do what it is told."""

    device = "cpu"

    def __init__(self, on_run: Callable[[int], None] = lambda rows: None) -> None:
        self.on_run = on_run
        self.batches: list[int] = []

    def prepare(self, inputs: Sequence[TensorBuffer], outputs: Sequence[TensorBuffer]) -> Run:
        rows = inputs[0].dims[0]

        def run() -> None:
            self.batches.append(rows)
            self.on_run(rows)

        return run

    def run(self, inputs: Sequence[TensorBuffer], output_names: Sequence[str]) -> list[ProducedTensor]:
        raise ModelError("rows mode only")


class Lane:
    """A model's ring on this host, with its worker's side."""

    def __init__(self, host: Host, number: int, puppet: Puppet) -> None:
        tensor = (UINT8, 1, (-1, 8))
        self.number, self.puppet, self.host = number, puppet, host
        self.arena = Arena.create(
            inputs=[tensor],
            outputs=[tensor],
            rows_mode=True,
            row_capacity=CAPACITY,
            slab_count=SLABS,
            owner_count=1,
            instance_count=len(host.bells),
        )
        self.ring = Ring(self.arena)

    def ask(self, rows: int = 1, deadline_ns: int = 0) -> Claim | None:
        claim = self.ring.claim(0, rows)
        if claim is not None:
            self.ring.publish(0, claim, 0, deadline_ns)
        return claim

    def wake(self) -> None:
        self.ring.wake(self.host.bells)

    def take_answer(self, claim: Claim) -> bool:
        """Whether it was there."""
        if self.ring.finished(0, claim) is None:
            return False
        self.ring.release(0, claim)
        return True

    def wait(self, claim: Claim) -> None:
        self.host.wait_until(lambda: self.take_answer(claim))


class Host:
    """An executor process in threads: `instances` of them, and lanes that come and go."""

    def __init__(self, instances: int) -> None:
        self.bells = [os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) for _ in range(instances)]
        self.worker_bell = os.eventfd(0, os.EFD_CLOEXEC)
        self.control = Control.create(1, 0)
        self.sharing = Sharing(8)
        self.over: list[int] = []
        self.lanes: list[Lane] = []
        turns = Turns()
        turns.instance_count = instances
        self.serves = [
            SharedServe(SharedLanes(self.sharing, index, self.bells), self.over.append, turns)
            for index in range(instances)
        ]
        self.threads = [threading.Thread(target=serve.run) for serve in self.serves]

    def start(self) -> None:
        for thread in self.threads:
            thread.start()

    def add(self, puppet: Puppet, prepare: Callable[[Lane], None] = lambda lane: None) -> Lane:
        lane = Lane(self, len(self.lanes), puppet)
        prepare(lane)
        spec = [TensorSpec("x", UINT8, (-1, 8))]
        for index, serve in enumerate(self.serves):
            own = LaneExecutor(lane.arena, self.control, index, self.bells[index], [self.worker_bell])
            serve.add(lane.number, own, RowsRunner(own, lane.arena, puppet, spec, [TensorSpec("y", UINT8, (-1, 8))]))
        self.lanes.append(lane)
        return lane

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Hears the worker's bell until the condition holds."""
        while not condition():
            os.eventfd_read(self.worker_bell)
            self.control.clear_bell(0)

    def end(self) -> None:
        for serve in self.serves:
            serve.stop()
        for thread in self.threads:
            if thread.ident is not None:
                thread.join(PATIENCE_S)
                assert not thread.is_alive()
        assert [lane.arena.missed_wakeups for lane in self.lanes] == [0] * len(self.lanes)
        for bell in (*self.bells, self.worker_bell):
            os.close(bell)


@contextlib.contextmanager
def hosting(instances: int = 1) -> Iterator[Host]:
    host = Host(instances)
    try:
        yield host
    finally:
        host.end()


def test_each_lane_wakes_the_instance_that_sleeps_for_all() -> None:
    with hosting() as host:
        lanes = [host.add(Puppet()) for _ in range(3)]
        host.start()
        for turn in range(60):
            lane = lanes[turn * 7 % 3]
            claim = lane.ask(1 + turn % CAPACITY)
            assert claim is not None
            lane.wake()
            lane.wait(claim)
        assert [sum(lane.puppet.batches) for lane in lanes] == [50, 50, 50]
        assert all(host.sharing.served_ns(lane.number) > 0 for lane in lanes)


def test_batches_of_two_lanes_that_were_told_to_one_instance_run_at_the_same_time() -> None:
    """Both workers see the first instance asleep; it has to wake the second, or the runs wait for each other."""
    both = threading.Barrier(2, timeout=PATIENCE_S)
    with hosting(instances=2) as host:
        lanes = [host.add(Puppet(lambda rows: both.wait() and None)) for _ in range(2)]
        host.start()
        for _ in range(50):
            claims = [lane.ask() for lane in lanes]
            for lane in lanes:
                lane.wake()
            for lane, claim in zip(lanes, claims, strict=True):
                assert claim is not None
                lane.wait(claim)
        assert not both.broken


def test_lanes_come_and_go_while_others_are_served() -> None:
    with hosting(instances=2) as host:
        host.start()
        first = host.add(Puppet())
        for _ in range(5):
            claim = first.ask(2)
            assert claim is not None
            first.wake()
            first.wait(claim)
            other = host.add(Puppet())
            claims = [other.ask(), other.ask(CAPACITY)]
            other.wake()
            for claim in claims:
                assert claim is not None
                other.wait(claim)
            other.arena.shut_down()
            for bell in host.bells:
                os.eventfd_write(bell, 1)
            claim = first.ask()
            assert claim is not None
            first.wake()
            first.wait(claim)
    # Whatever the threads had not done before they were told to stop, they did not do twice.
    assert set(host.over) <= set(range(1, 6)) and max(map(host.over.count, host.over), default=0) <= 2


def spin(rounds: int) -> Callable[[int], None]:
    """CPU time in proportion to the rounds."""
    return lambda rows: [None for _ in range(rounds * 1000)] and None


def test_a_greedy_lane_does_not_starve_another() -> None:
    """Both have more to run than there is time for. The shares are of time, which threads of one interpreter do not
    measure well: so they are only roughly those of the runs' lengths, one to three.
    """
    with hosting() as host:
        lanes = [host.add(Puppet(spin(3))), host.add(Puppet(spin(1)))]
        held: dict[int, list[Claim]] = {0: [], 1: []}

        def feed() -> bool:
            for lane in lanes:
                held[lane.number] = [claim for claim in held[lane.number] if not lane.take_answer(claim)]
                while claim := lane.ask(CAPACITY):
                    held[lane.number].append(claim)
                lane.wake()
            return sum(len(lane.puppet.batches) for lane in lanes) >= 300

        feed()
        host.start()
        host.wait_until(feed)
        assert min(len(lane.puppet.batches) for lane in lanes) >= 15


def test_a_batch_that_only_now_keeps_its_deadline_goes_first() -> None:
    order: list[str] = []
    with hosting() as host:
        patient = host.add(Puppet(lambda rows: order.append("patient")))
        urgent = host.add(Puppet(lambda rows: order.append("urgent")))
        minute_ns = 60_000_000_000
        # What runs took before: a minute's run of the one puts the other's deadline of 30 s at risk.
        host.sharing.ran(patient.number, minute_ns, minute_ns)
        host.sharing.ran(urgent.number, 0, 1)
        patient.ask()
        urgent.ask(deadline_ns=time.monotonic_ns() + minute_ns // 2)
        host.start()
        host.wait_until(lambda: len(order) == 2)
    assert order == ["urgent", "patient"]


def test_a_batch_that_an_executor_died_with_runs_while_no_other_does() -> None:
    """Else nobody would know which of them the process dies of next time."""
    begun, also_begun = threading.Event(), threading.Event()
    overlaps: list[bool] = []

    def run(rows: int) -> None:
        begun.set()
        overlaps.append(also_begun.wait(0.04))

    def died_with(lane: Lane) -> None:
        claims.append(lane.ask())
        batch = lane.ring.seal(0, 1)
        assert isinstance(batch, dict) and lane.ring.take(0, batch, 1) is not None
        assert lane.ring.recover_executor() == 1

    claims: list[Claim | None] = []
    with hosting(instances=2) as host:
        host.start()
        plain = host.add(Puppet(run))
        claims.append(plain.ask())
        plain.wake()
        assert begun.wait(PATIENCE_S)
        suspect = host.add(Puppet(lambda rows: also_begun.set()), died_with)
        for lane, claim in zip((plain, suspect), claims, strict=True):
            assert claim is not None
            lane.wait(claim)
    assert overlaps == [False]
    assert also_begun.is_set()


def test_what_does_not_belong_together_is_refused() -> None:
    with hosting(instances=2) as host:
        lane = Lane(host, 0, Puppet())
        shared = SharedLanes(host.sharing, 0, host.bells)
        with pytest.raises(ValueError, match="another instance"):
            shared.add(0, LaneExecutor(lane.arena, host.control, 1, host.bells[1], [host.worker_bell]))
        own = LaneExecutor(lane.arena, host.control, 0, host.bells[0], [host.worker_bell])
        shared.add(0, own)
        for number in (0, 8):
            with pytest.raises(ValueError, match=f"lane {number}"):
                shared.add(number, own)
        with pytest.raises(ValueError, match="at most"):
            SharedLanes(host.sharing, 2, host.bells)
