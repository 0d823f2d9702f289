"""A model on devices of different speed: who takes the batch that is due, who leaves it, and that nothing is lost."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import select
import threading
from collections.abc import Iterator, Sequence
from time import monotonic_ns

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server._fast import cost_table, device_turns
from server._fast.device_turns import DeviceTurns
from server._fast.lane_executor import LaneExecutor
from server._fast.layout import Arena, Control
from server._fast.ring import Ring
from server.executor.backend import ModelError, ProducedTensor, Run, TensorBuffer
from server.executor.rows_warm_up import Sample
from server.executor.runner import RowsRunner, TensorSpec
from server.executor.several_devices import by_speed, together, turns_of
from server.models.placement import Load, next_device
from server.models.providers import Place
from server.option_values import MAX_DEVICES
from tests.reference.slab_ring import Claim

UINT8 = 2
CAPACITY, SLABS = 4, 12
PATIENCE_S = 20.0
MS, SECOND, LONG = 10**6, 10**9, 1000 * 10**9
#: What a table needs to be believed.
ENOUGH_RUNS = 4


def arena_of(instances: int) -> Arena:
    tensor = (UINT8, 1, (-1, 2))
    return Arena.create(
        inputs=[tensor], outputs=[tensor], rows_mode=True, row_capacity=CAPACITY, slab_count=SLABS, owner_count=1,
        instance_count=instances,
    )  # fmt: skip


# -- the rule

NS = st.integers(0, 2**40)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(st.one_of(NS, st.just(1000)), st.one_of(NS, st.just(0))), max_size=MAX_DEVICES), NS, NS)
def test_it_chooses_as_the_reference_does(loads: list[tuple[int, int]], now_ns: int, waited_ns: int) -> None:
    expected = next_device(now_ns, waited_ns, [Load(str(device), *load) for device, load in enumerate(loads)])
    assert device_turns.choose(now_ns, waited_ns, loads) == (-1 if expected is None else int(expected))


def test_instances_and_tables_as_the_reference_has_them() -> None:
    """Random hosts: what an idle instance does follows from the loads that its devices have."""
    chance = random.Random(7)
    decisions = set()
    for _ in range(3000):
        count = chance.randrange(2, 6)
        devices = sorted(range(count), key=lambda _: chance.random())
        devices = [min(device, chance.randrange(1, count)) for device in devices]
        devices = [sorted(set(devices)).index(device) for device in devices]
        turns = DeviceTurns(arena := arena_of(count), devices, [-1] * count)
        cost_ns = {}
        for device in set(devices):
            cost_ns[device] = chance.choice((0, chance.randrange(1, 50) * MS))
            for rows in cost_table.sizes(arena):
                if cost_ns[device]:
                    turns.learn(device, rows, cost_ns[device], 0, ENOUGH_RUNS, 1)
        now_ns, since_ns = 10 * SECOND, 10 * SECOND - chance.randrange(60) * MS
        own = chance.randrange(count)
        free_ns = [0] * count
        for instance in range(count):
            if instance != own and chance.random() < 0.7:
                began_ns = now_ns - chance.randrange(60) * MS
                turns.begins(instance, 1, began_ns)
                free_ns[instance] = max(began_ns + cost_ns[devices[instance]], now_ns + 1)
        loads = [
            Load(str(device), min(free_ns[i] for i in range(count) if devices[i] == device), cost_ns[device])
            for device in sorted(set(devices))
        ]
        chosen = next_device(now_ns, now_ns - since_ns, loads)
        own_ns = cost_ns[devices[own]]
        # Nobody sleeps here who could be woken, so what the rule gives to others is taken once it has waited.
        takes = chosen == str(devices[own]) or now_ns - since_ns >= own_ns
        decisions.add((takes, chosen is None))
        assert turns.wait(arena, own, 1, since_ns, now_ns) == (0 if takes else since_ns + own_ns), (devices, loads)
        turns.looks(own)
    assert decisions == {(True, False), (False, False), (False, True)}


def test_a_device_is_measured_after_a_few_runs() -> None:
    turns = DeviceTurns(arena := arena_of(2), [0, 1], [-1, -1])
    turns.learn(0, 1, 5 * MS, 0, ENOUGH_RUNS, 1)
    turns.learn(1, 1, LONG, 0, ENOUGH_RUNS - 1, 1)
    # The second has to run something first, whatever it is believed to take.
    assert turns.wait(arena, 1, 1, 10, 10) == 0
    turns.learn(1, 1, LONG, 0, 1, 1)
    assert turns.wait(arena, 1, 1, 10, 10) == 10 + LONG
    assert (turns.of(0, 1), turns.of(1, 1), turns.run_count(1)) == (5 * MS, LONG, ENOUGH_RUNS)


def test_what_has_ended_is_free_at_once() -> None:
    """Between the end of a run and the next look at the queue a device is not idle, and as good as."""
    turns = DeviceTurns(arena := arena_of(2), [0, 1], [-1, -1])
    for device, ns in ((0, 10 * MS), (1, 12 * MS)):
        turns.learn(device, 1, ns, 0, ENOUGH_RUNS, 1)
    turns.begins(0, 1, SECOND)
    assert turns.wait(arena, 1, 1, SECOND, SECOND) == 0
    turns.ends(0, SECOND + MS)
    assert turns.wait(arena, 1, 1, SECOND + MS, SECOND + MS) == SECOND + 13 * MS
    turns.looks(0)
    assert turns.wait(arena, 0, 1, SECOND + MS, SECOND + MS) == 0


def test_a_device_that_was_slow_is_tried_again() -> None:
    """It is left as soon as its runs get slow; nobody would learn that it has recovered if nobody tried."""
    turns = DeviceTurns(arena := arena_of(2), [0, 1], [-1, -1])
    for device, ns in ((0, 2 * MS), (1, 20 * MS)):
        turns.learn(device, 1, ns, 0, ENOUGH_RUNS, SECOND)
    now_ns = SECOND
    for _ in range(40):
        now_ns += 200 * MS
        turns.ran(0, 1, 200 * MS, now_ns)
        turns.ran(1, 1, 20 * MS, now_ns)
    assert turns.of(0, 1) > 100 * MS and turns.wait(arena, 1, 1, now_ns, now_ns) == 0
    later_ns = now_ns + 11 * SECOND
    turns.ran(1, 1, 30 * MS, later_ns - SECOND)
    learnt_ns = turns.of(1, 1)
    assert turns.wait(arena, 0, 1, later_ns, later_ns) == 0 and turns.of(0, 1) == 2 * MS
    # The other one has run meanwhile: what it has learnt stays.
    assert learnt_ns == turns.of(1, 1) > 20 * MS
    assert turns.wait(arena, 1, 1, later_ns, later_ns) > later_ns


def test_what_it_is_not_told() -> None:
    arena = arena_of(2)
    for devices, bells in (([], []), ([0], [1, 2]), ([1], [1]), ([0, 2], [1, 2]), (list(range(9)), [1] * 9)):
        with pytest.raises(ValueError, match=r"expected|as many"):
            DeviceTurns(arena, devices, bells)
    turns = DeviceTurns(arena, [0, 1], [1, 2])
    with pytest.raises(ValueError, match="there are 2"):
        turns.learn(2, 1, 1, 1, 1, 1)
    with pytest.raises(ValueError, match="expected a size"):
        turns.learn(0, 3, 1, 1, 1, 1)
    with pytest.raises(ValueError, match="at most 8"):
        device_turns.choose(0, 0, [(0, 0)] * 9)
    with pytest.raises(ValueError, match="instance 2 of 2"):
        LaneExecutor(arena, Control.create(1, 0), 2, 1, [1], turns)


# -- what the warm-up shows

CPU, GPU, NPU = Place("cpu"), Place("cuda:0"), Place("npu")
MEASURED = {
    CPU: [Sample(1, 9 * MS, MS, 5), Sample(4, 30 * MS, MS, 5)],
    GPU: [Sample(1, 3 * MS, 0, 5)],
    NPU: [],
}


def test_the_fastest_comes_first() -> None:
    assert by_speed(MEASURED) == [GPU, CPU, NPU]


def test_the_lane_has_the_mean_of_devices_that_share_the_batches_out() -> None:
    """In 9 ms the GPU runs three batches, each CPU instance one: five in 9 ms on three instances."""
    one, four = together([GPU, CPU, CPU], MEASURED)
    assert (one.rows, one.ns, one.run_count) == (1, round(3 * 9 * MS / 5), 5)
    assert one.deviation_ns == round(0.6 * 2.4 * MS + 0.4 * (3.6 * MS + MS))
    assert four == Sample(4, 30 * MS, MS, 5)
    assert together([NPU], MEASURED) == []


def test_each_device_has_its_own_table() -> None:
    arena = arena_of(4)
    turns = turns_of(arena, [GPU, CPU, CPU, NPU], [-1] * 4, MEASURED, 1)
    assert [turns.of(device, 1) for device in range(3)] == [3 * MS, 9 * MS, 0]
    assert cost_table.of(arena, 1) == 0


# -- instances on threads


class Puppet:
    """y = x + 1, on a device that runs when it is let."""

    device = "puppet"

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.is_open = threading.Event()
        self.is_open.set()
        self.has_begun = threading.Event()

    def prepare(self, inputs: Sequence[TensorBuffer], outputs: Sequence[TensorBuffer]) -> Run:
        rows = inputs[0].dims[0]

        def run() -> None:
            self.batches.append(rows)
            self.has_begun.set()
            assert self.is_open.wait(PATIENCE_S)
            data = ctypes.string_at(inputs[0].address, 2 * rows)
            ctypes.memmove(outputs[0].address, bytes((value + 1) % 256 for value in data), 2 * rows)

        return run

    def run(self, inputs: Sequence[TensorBuffer], output_names: Sequence[str]) -> list[ProducedTensor]:
        raise ModelError("rows mode only")


class Host:
    """Instances of these devices, whose runs are believed to take cost_ns[device]; 0: not measured."""

    def __init__(self, devices: Sequence[int], cost_ns: Sequence[int]) -> None:
        count = len(devices)
        self.bells = [os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) for _ in devices]
        self.worker_bell = os.eventfd(0, os.EFD_CLOEXEC)
        self.control = Control.create(1, 0)
        self.arena = arena_of(count)
        self.ring = Ring(self.arena)
        self.turns = DeviceTurns(self.arena, list(devices), self.bells)
        self.puppets = [Puppet() for _ in cost_ns]
        for device, ns in enumerate(cost_ns):
            for rows in cost_table.sizes(self.arena):
                if ns:
                    self.turns.learn(device, rows, ns, 0, 1000, monotonic_ns())
        specs = [TensorSpec("x", UINT8, (-1, 2))]
        self.threads = []
        for index, device in enumerate(devices):
            lane = LaneExecutor(self.arena, self.control, index, self.bells[index], [self.worker_bell], self.turns)
            runner = RowsRunner(lane, self.arena, self.puppets[device], specs, specs)
            self.threads.append(threading.Thread(target=runner.serve))

    def start(self) -> None:
        for thread in self.threads:
            thread.start()

    def ask(self, value: int = 7, rows: int = 1) -> Claim:
        claim = self.ring.claim(0, rows, now_ns=monotonic_ns())
        assert claim is not None
        slab, first_row, _, _ = claim
        self.arena.tensor_buffer(slab, 0)[2 * first_row : 2 * (first_row + rows)] = bytes([value]) * 2 * rows
        self.ring.publish(0, claim, monotonic_ns())
        self.ring.wake(self.bells)
        return claim

    def take(self, claim: Claim, value: int = 7) -> bool:
        """Whether the answer was there, which is right, and only once."""
        slab, first_row, rows, _ = claim
        code = self.ring.finished(0, claim)
        if code is None:
            return False
        assert code == 0
        found = bytes(self.arena.tensor_buffer(slab, 1)[2 * first_row : 2 * (first_row + rows)])
        assert found == bytes([(value + 1) % 256]) * 2 * rows
        self.ring.release(0, claim)
        return True

    def answered(self, claim: Claim) -> None:
        """Waits for the answer."""
        while not self.take(claim):
            self.hear()

    def hear(self) -> None:
        """Waits for the worker's bell, which the executor rings."""
        heard, _, _ = select.select([self.worker_bell], [], [], PATIENCE_S)
        assert heard, "no answer"
        os.eventfd_read(self.worker_bell)
        self.control.clear_bell(0)

    def held(self, count: int = 1) -> None:
        """Waits until a batch has been left to another device so often."""
        until_ns = monotonic_ns() + int(PATIENCE_S * SECOND)
        while self.turns.held_count < count:
            assert monotonic_ns() < until_ns
            os.sched_yield()

    def end(self) -> None:
        for puppet in self.puppets:
            puppet.is_open.set()
        self.arena.shut_down()
        for bell in self.bells:
            os.eventfd_write(bell, 1)
        for thread in self.threads:
            if thread.ident is not None:
                thread.join(PATIENCE_S)
                assert not thread.is_alive()
        assert self.arena.missed_wakeups == 0
        for bell in (*self.bells, self.worker_bell):
            os.close(bell)


@contextlib.contextmanager
def hosting(devices: Sequence[int], cost_ns: Sequence[int]) -> Iterator[Host]:
    host = Host(devices, cost_ns)
    try:
        host.start()
        yield host
    finally:
        host.end()


@pytest.mark.parametrize("devices", [[0, 1], [1, 0], [1, 1, 0]])
def test_the_fast_one_takes_while_it_is_idle(devices: list[int]) -> None:
    """Whichever is woken: a slow one that is wakes the fast one."""
    with hosting(devices, [MS, LONG]) as host:
        for _ in range(50):
            host.answered(host.ask())
        assert len(host.puppets[0].batches) == 50 and not host.puppets[1].batches


def test_the_slow_one_waits_while_the_fast_one_is_busy_for_a_moment() -> None:
    with hosting([0, 1], [SECOND, LONG]) as host:
        fast, slow = host.puppets
        fast.is_open.clear()
        first = host.ask()
        assert fast.has_begun.wait(PATIENCE_S)
        second = host.ask()
        host.held()
        # Each look of a worker may wake it: it leaves the batch again.
        third = host.ask()
        host.held(2)
        assert not slow.batches
        fast.is_open.set()
        for claim in (first, second, third):
            host.answered(claim)
        assert sum(fast.batches) == 3 and not slow.batches


def test_the_slow_one_takes_while_the_fast_one_is_busy_for_long() -> None:
    with hosting([0, 1], [LONG // 3, LONG // 2]) as host:
        fast, slow = host.puppets
        fast.is_open.clear()
        first = host.ask()
        assert fast.has_begun.wait(PATIENCE_S)
        # A third until it ends and a third for this one are more than a half.
        host.answered(host.ask())
        assert (fast.batches, slow.batches) == ([1], [1])
        fast.is_open.set()
        host.answered(first)


def test_the_slow_one_takes_what_has_waited_for_as_long_as_it_runs() -> None:
    """The fast one was expected to end at once, and does not: nobody rings, and the batch is not forgotten."""
    with hosting([0, 1], [MS, 200 * MS]) as host:
        fast, slow = host.puppets
        fast.is_open.clear()
        first = host.ask()
        assert fast.has_begun.wait(PATIENCE_S)
        began_ns = monotonic_ns()
        host.answered(host.ask())
        assert monotonic_ns() - began_ns >= 200 * MS
        assert (fast.batches, slow.batches) == ([1], [1]) and host.turns.held_count > 0
        fast.is_open.set()
        host.answered(first)


def test_a_device_that_was_not_measured_runs_first() -> None:
    with hosting([0, 1], [MS, 0]) as host:
        for _ in range(10 * ENOUGH_RUNS):
            host.answered(host.ask())
        assert len(host.puppets[1].batches) == host.turns.run_count(1) >= ENOUGH_RUNS


def test_every_run_is_learnt_by_its_device() -> None:
    """A device that was thought slow and is not gets the batches that it is faster with."""
    with hosting([1, 0], [LONG, LONG]) as host:
        for _ in range(60):
            host.answered(host.ask())
        assert host.turns.of(0, 1) < LONG // 4 and host.turns.run_count(0) > 3000
        assert [len(puppet.batches) for puppet in host.puppets] == [60, 0]


def test_it_ends_while_a_batch_is_held() -> None:
    with hosting([0, 1], [SECOND, LONG]) as host:
        host.puppets[0].is_open.clear()
        host.ask()
        assert host.puppets[0].has_begun.wait(PATIENCE_S)
        host.ask()
        host.held()


@pytest.mark.parametrize(
    ("devices", "cost_ns"),
    [([0, 1], [50_000, 400_000]), ([1, 0, 1], [20_000, 100_000]), ([0, 1, 2, 2], [30_000, 0, 900_000])],
)
def test_every_row_is_answered_once(devices: list[int], cost_ns: list[int]) -> None:
    """Bursts and pauses, of which each instance sees another part."""
    chance = random.Random(len(devices))
    with hosting(devices, cost_ns) as host:
        waiting: list[tuple[Claim, int]] = []
        rows = 0

        def settle(most: int) -> None:
            while len(waiting) > most:
                left = [(claim, value) for claim, value in waiting if not host.take(claim, value)]
                if len(left) == len(waiting):
                    host.hear()
                waiting[:] = left

        for turn in range(1500):
            settle(chance.choice((0, SLABS // 2 - 1)) if turn % 7 == 0 else SLABS // 2)
            value, count = chance.randrange(256), chance.randrange(1, CAPACITY + 1)
            waiting.append((host.ask(value, count), value))
            rows += count
        settle(0)
        assert sum(sum(puppet.batches) for puppet in host.puppets) == rows
        assert host.ring.row_counts()[2] == 0
