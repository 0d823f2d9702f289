"""The policies of batching, driven through many random worlds: what must hold holds in each of them.

HEADRACE_STRESS=N runs N times as many worlds.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence

import pytest

from tests.reference import simulator
from tests.reference.simulator import (
    DONE,
    EXPIRED,
    REFUSED,
    SECOND_NS,
    Curve,
    Due,
    Lane,
    Policies,
    Request,
    World,
    bursts,
    check,
    check_conserved,
    check_fifo,
    latencies_ns,
    linear,
    noisy,
    percentile,
    poisson,
    sub_linear,
)

STRESS = max(1, int(os.environ.get("HEADRACE_STRESS") or 1))
#: Worlds together; split, so that a failure shows early and the seed is in the message.
WORLDS, PARTS = 10_000 * STRESS, 10
MS = 1_000_000


def some_curve(chance: random.Random) -> Curve:
    one_ns = chance.choice([50_000, 500_000, 4 * MS])
    kind = chance.randrange(4)
    if kind == 0:
        return linear(one_ns // 10, one_ns)
    if kind == 1:
        return linear(one_ns, one_ns // 50)
    if kind == 2:
        return sub_linear(one_ns, 0.6)
    return noisy(linear(one_ns // 2, one_ns // 2), 0.4, stall=5.0)


def some_world(seed: int, policies: Policies | None = None) -> World:
    """A few lanes on a few devices, some idle, some hopelessly overloaded, and requests of all kinds."""
    chance = random.Random(seed)
    device_count = chance.choice([1, 1, 2, 3])
    lanes, requests = [], []
    for name in "abc"[: chance.choice([1, 1, 2, 3])]:
        curve = some_curve(chance)
        lane = Lane(
            name,
            dict.fromkeys(chance.sample(range(device_count), chance.randint(1, device_count)), curve),
            capacity=chance.choice([1, 4, 8, 16]),
            slab_count=chance.randint(3, 6),
            max_queue_delay_ns=chance.choice([0, 0, MS]),
            preferred_rows=chance.choice([0, 0, 3]),
            slo_ns=chance.choice([0, 0, 2 * MS, 20 * MS]),
            is_warm=chance.random() < 0.8,
        )
        lanes.append(lane)
        timeout_ns = chance.choice([0, 0, 3 * MS, 30 * MS])
        rows = chance.choice([(1,), (1,), (1, 2, 4)]) if lane.capacity >= 4 else (1,)
        full_ns = curve(lane.capacity, chance, 0)
        rate = chance.choice([0.2, 0.7, 1.0, 3.0]) * lane.capacity * SECOND_NS / full_ns / len(rows)
        count = chance.randint(5, 25)
        if chance.random() < 0.3:
            requests += bursts(name, full_ns, max(1, count // 2), 2 * full_ns, timeout_ns=timeout_ns)
        else:
            until_ns = int(count / rate * SECOND_NS)
            requests += poisson(chance, name, rate, until_ns, rows=rows, timeout_ns=timeout_ns)
    world = World(lanes, policies, seed)
    world.run(requests)
    return world


@pytest.mark.parametrize("part", range(PARTS))
def test_what_must_hold_in_any_world(part: int) -> None:
    ran = {DONE: 0, REFUSED: 0, EXPIRED: 0}
    for seed in range(part, WORLDS, PARTS):
        world = some_world(seed)
        check(world)
        check_conserved(world)
        check_fifo(world)
        check_no_starvation(world)
        for request in world.requests:
            ran[request.status] += 1
    # The worlds are worth something only if all of it happens in them.
    assert min(ran.values()) > WORLDS // PARTS // 20


def check_no_starvation(world: World) -> None:
    """Whoever waits for a device that all may use is not passed by batches that came after: the oldest goes first."""
    if any(len(lane.curves) != world.device_count or lane.max_queue_delay_ns for lane in world.lanes.values()):
        return
    starts = sorted((start_ns, name) for start_ns, _, _, name, _ in world.log)
    for request in world.requests:
        if request.status != DONE:
            continue
        # A batch of another lane that began meanwhile had been opened before, so each lane's slabs bound their number.
        passed = sum(request.at_ns < start_ns < request.sealed_ns and name != request.lane for start_ns, name in starts)
        bound = sum(2 * lane.slab_count for lane in world.lanes.values() if lane.name != request.lane)
        assert passed <= bound, f"request {request.number} was passed by {passed} batches, seed {world.seed}"


CURVES = {
    "linear": linear(100_000, MS),
    "half": linear(2 * MS, MS // 2),
    "flat": linear(6 * MS, 50_000),
    "sub-linear": sub_linear(2 * MS, 0.6),
}


def best_rate(curve: Curve, rows: int) -> float:
    return rows * SECOND_NS / curve(rows, random.Random(0), 0)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
@pytest.mark.parametrize("name", CURVES)
def test_the_target_holds_where_the_load_allows(name: str, load: float) -> None:
    """The load allows it if two runs of the batches that it makes by itself, b = rate * T(b), are in time, and as much
    again as one of them is left for the moments in which more comes.
    """
    curve, chance = CURVES[name], random.Random(0)
    slo_ns, rate = 20 * MS, load * best_rate(curve, 32)
    rows = next(rows for rows in range(1, 33) if rows >= rate * curve(rows, chance, 0) / SECOND_NS or rows == 32)
    is_allowed = 3 * curve(rows, chance, 0) <= slo_ns
    waits = []
    for seed in range(4):
        world = World([Lane("a", {0: noisy(curve, 0.05)}, capacity=32, slab_count=20, slo_ns=slo_ns)], seed=seed)
        world.run(poisson(world.chance, "a", rate, int(SECOND_NS * 800 / rate)))
        check(world)
        waits += latencies_ns(world, "a")
    assert is_allowed or load > 0.3
    if is_allowed:
        assert percentile(sorted(waits), 0.99) <= slo_ns


@pytest.mark.parametrize(
    ("name", "size", "least"), [("linear", 30, 0.6), ("linear", 60, 0.3), ("half", 60, 0.5), ("flat", 60, 1.0)]
)
def test_bursts_are_answered_in_time_as_far_as_they_can(name: str, size: int, least: float) -> None:
    """Without the target all of a burst is as late as its last row."""
    found = {}
    for slo_ns in (0, 20 * MS):
        world = World([Lane("a", {0: CURVES[name]}, capacity=64, slab_count=6, slo_ns=slo_ns)])
        world.run(bursts("a", 120 * MS, size, SECOND_NS))
        check(world)
        check_fifo(world)
        times_ns = latencies_ns(world, "a")
        found[slo_ns] = sum(one <= 20 * MS for one in times_ns) / len(world.requests), times_ns[-1]
    assert found[20 * MS][0] >= least
    assert found[0][0] == (1.0 if name == "flat" else 0.0)
    # The last row pays for the second batch, no more.
    assert found[20 * MS][1] <= found[0][1] + 2 * CURVES[name](1, random.Random(0), 0)


@pytest.mark.parametrize("load", [0.5, 0.9, 0.98, 1.5])
@pytest.mark.parametrize("name", CURVES)
def test_the_target_takes_nothing_from_throughput(name: str, load: float) -> None:
    ends = []
    for slo_ns in (0, 20 * MS):
        world = World([Lane("a", {0: CURVES[name]}, capacity=32, slab_count=20, slo_ns=slo_ns)], seed=5)
        rate = load * best_rate(CURVES[name], 32)
        world.run(poisson(world.chance, "a", rate, int(SECOND_NS * 1500 / rate)))
        ends.append((world.now_ns, len(latencies_ns(world, "a"))))
    assert ends[1][1] >= 0.99 * ends[0][1]
    assert ends[1][0] <= 1.02 * ends[0][0]


def test_a_policy_of_ones_own_is_asked() -> None:
    """An admission that refuses every second request, a lane that goes first, the last idle device."""
    seen: list[str] = []

    def choose(world: World, due: list[Due]) -> Due:
        seen.append(",".join(one.lane.name for one in due))
        return max(due, key=lambda one: one.lane.name)

    policies = Policies(
        admit=lambda world, lane, request: request.number % 2 == 0,
        choose=choose,
        place=lambda world, due: due.devices[-1],
        keep=lambda world, lane, request, device: request.number != 2,
    )
    lanes = [Lane(name, {0: linear(MS, 0), 1: linear(MS, 0)}, capacity=2) for name in "ab"]
    world = World(lanes, policies)
    world.run([Request(0, "ab"[number // 2 % 2], 0) for number in range(12)])
    check(world)
    assert [request.status for request in world.requests] == [DONE, REFUSED, EXPIRED, REFUSED] + [DONE, REFUSED] * 4
    assert seen[0] == "a,b"
    assert world.log[0][2:4] == (1, "b")


def test_time_can_be_told_what_happens() -> None:
    """A device that becomes slow half-way: the table follows."""
    slow = {"factor": 1}
    lane = Lane("a", {0: lambda rows, chance, now_ns: slow["factor"] * (MS + rows * 1000)})
    world = World([lane])
    world.at(SECOND_NS, lambda: slow.update(factor=3))
    world.run(poisson(world.chance, "a", 200, 2 * SECOND_NS))
    check(world)
    assert lane.cost.of(1) == pytest.approx(3 * (MS + 1000), rel=0.05)


class _Careless(World):
    """Runs what is late."""

    def _start(self, due: Due, device: int) -> None:
        for request in due.slab.requests:
            request.deadline_ns = -request.deadline_ns
        super()._start(due, device)
        for request in self.requests:
            request.deadline_ns = abs(request.deadline_ns)


class _Lazy(World):
    """Looks a microsecond late what there is to do."""

    def _dispatch(self) -> None:
        if self.idle and self.due(self.idle):
            self.at(self.now_ns + 1000, super()._dispatch)


class _Newest(World):
    """Takes the youngest slab of a lane."""

    def due(self, devices: Sequence[int]) -> list[Due]:
        found = super().due(devices)
        return [Due(one.lane, max(one.lane.open, key=lambda slab: slab.number), one.devices) for one in found]


@pytest.mark.parametrize(
    ("kind", "broken", "text"),
    [(_Careless, check, "ran late"), (_Lazy, check_conserved, "idle"), (_Newest, check_fifo, "overtook")],
)
def test_a_server_that_breaks_a_rule_is_found(kind: type[World], broken: Callable[[World], None], text: str) -> None:
    world = kind([Lane("a", {0: linear(MS, MS // 10)}, capacity=2)], seed=3)
    world.run(poisson(world.chance, "a", 3000, SECOND_NS // 20, timeout_ns=4 * MS * (kind is _Careless)))
    with pytest.raises(AssertionError, match=text):
        broken(world)


def test_a_world_repeats_itself() -> None:
    assert some_world(77).log == some_world(77).log
    assert simulator.percentile([1, 2, 3], 0.99) == 3
