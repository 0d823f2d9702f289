"""next_device in simulated hosts of processors, GPUs and accelerators: nobody starves, fast devices are used."""

from __future__ import annotations

import random
import statistics

import pytest

from server.models.placement import Load, next_device
from tests.reference.simulator import (
    DONE,
    HOLD,
    SECOND_NS,
    Due,
    Lane,
    Policies,
    World,
    check,
    check_fifo,
    latencies_ns,
    linear,
    noisy,
    percentile,
    poisson,
    sub_linear,
)

CPU, GPU, NPU = 0, 1, 2


def loads(world: World, due: Due) -> list[Load]:
    """Every device that the lane may run on, with what the cost tables expect."""
    busy = {device: (start_ns, name, rows) for start_ns, _, device, name, rows in world.log}
    found = []
    for device in due.lane.curves:
        free_ns = world.now_ns
        if device not in world.idle:
            start_ns, name, rows = busy[device]
            # What takes longer than expected is expected to end now.
            free_ns = max(start_ns + world.lanes[name].costs[device].of(rows), world.now_ns + 1)
        found.append(Load(str(device), free_ns, due.lane.costs[device].of(due.slab.rows)))
    return found


def placed(world: World, due: Due) -> int:
    device = next_device(world.now_ns, world.now_ns - due.slab.opened_ns, loads(world, due))
    return HOLD if device is None else int(device)


def world_of(lanes: list[Lane], seed: int, *, smart: bool = True) -> World:
    return World(lanes, Policies(place=placed) if smart else Policies(), seed)


def mixed(name: str = "a") -> Lane:
    curves = {
        CPU: linear(100_000, 3_000_000),
        GPU: sub_linear(2_000_000, 0.2),
        NPU: linear(1_000_000, 1_500_000),
    }
    return Lane(name, curves, slab_count=64)


def shares(world: World) -> dict[int, float]:
    rows = {device: sum(one[4] for one in world.log if one[2] == device) for device in (CPU, GPU, NPU)}
    return {device: count / sum(rows.values()) for device, count in rows.items()}


def test_the_fast_device_alone_while_it_has_time() -> None:
    world = world_of([mixed()], 1)
    world.run(poisson(world.chance, "a", rate=40, until_ns=4 * SECOND_NS))
    check(world)
    assert shares(world)[GPU] > 0.8
    blind = world_of([mixed()], 1, smart=False)
    blind.run(poisson(blind.chance, "a", rate=40, until_ns=4 * SECOND_NS))
    assert shares(blind)[CPU] > 0.8
    assert statistics.mean(latencies_ns(world, "a")) < 0.8 * statistics.mean(latencies_ns(blind, "a"))


def test_all_devices_when_one_is_not_enough() -> None:
    world = world_of([mixed(), mixed("b")], 2)
    requests = [request for name in "ab" for request in poisson(world.chance, name, rate=2500, until_ns=SECOND_NS)]
    world.run(requests)
    check(world)
    assert all(share > 0.001 for share in shares(world).values()), shares(world)


def test_a_device_that_gets_slow_is_left() -> None:
    """Its cost table learns it: thermal throttling, a neighbour."""
    slow_from_ns = SECOND_NS

    def throttled(rows: int, chance: random.Random, now_ns: int) -> int:
        return (1_000_000 if now_ns < slow_from_ns else 20_000_000) + 10_000 * rows

    lane = Lane("a", {CPU: linear(4_000_000, 50_000), GPU: throttled}, slab_count=64)
    world = world_of([lane], 3)
    world.run(poisson(world.chance, "a", rate=100, until_ns=4 * SECOND_NS))
    check(world)
    late = [device for start_ns, _, device, _, _ in world.log if start_ns > 2 * slow_from_ns]
    early = [device for start_ns, _, device, _, _ in world.log if start_ns < slow_from_ns]
    assert early.count(GPU) > 0.8 * len(early)
    assert late.count(CPU) > 0.8 * len(late)


def random_world(seed: int, *, smart: bool) -> World:
    chance = random.Random(seed)
    devices = range(chance.randrange(1, 4))
    lanes = []
    for index in range(chance.randrange(1, 4)):
        able = [device for device in devices if chance.random() < 0.8] or [0]
        curves = {}
        for device in able:
            one_ns = chance.randrange(200_000, 8_000_000)
            curve = linear(one_ns // 2, one_ns // 2) if chance.random() < 0.5 else sub_linear(one_ns, chance.random())
            curves[device] = noisy(curve, 0.2, stall=chance.choice((0, 20)))
        lanes.append(Lane(f"l{index}", curves, capacity=chance.choice((1, 4, 16)), slab_count=256))
    world = world_of(lanes, seed, smart=smart)
    requests = []
    for lane in lanes:
        best = max(lane.costs[device].rate() for device in lane.curves)
        rate = best / len(lanes) * chance.choice((0.05, 0.3, 0.6, 0.9))
        requests += poisson(world.chance, lane.name, rate, 150_000_000)
    world.run(requests)
    return world


def check_held(world: World) -> None:
    """What the rule promises: no request waits beside an idle device for longer than it would have taken there."""
    runs: dict[int, list[tuple[int, int]]] = {}
    for start_ns, end_ns, device, _, _ in world.log:
        runs.setdefault(device, []).append((start_ns, end_ns))
    for request in world.requests:
        lane = world.lanes[request.lane]
        for device in lane.curves:
            idle_ns = request.sealed_ns - request.at_ns
            for start_ns, end_ns in runs.get(device, ()):
                idle_ns -= max(0, min(end_ns, request.sealed_ns) - max(start_ns, request.at_ns))
            # The table is not the truth: a run that stalled makes it expect too much for a while.
            limit_ns = 4 * lane.curves[device](lane.capacity, random.Random(0), 0)
            assert idle_ns <= limit_ns, (world.seed, request, device)


@pytest.mark.parametrize("block", range(10))
def test_random_worlds(block: int) -> None:
    """Everybody is answered, in order, and on the whole sooner than with whichever device is idle."""
    smart_ns, blind_ns, tails = 0, 0, []
    for seed in range(block * 16, block * 16 + 16):
        world, blind = random_world(seed, smart=True), random_world(seed, smart=False)
        check(world)
        check_fifo(world)
        check_held(world)
        assert world.log == random_world(seed, smart=True).log if seed % 10 == 0 else True
        assert all(request.status == DONE for request in world.requests), seed
        for lane in world.lanes.values():
            if found := latencies_ns(world, lane.name):
                tails.append(found[-1] / max(1, percentile(latencies_ns(blind, lane.name), 1.0)))
        smart_ns += sum(sum(latencies_ns(world, name)) for name in world.lanes)
        blind_ns += sum(sum(latencies_ns(blind, name)) for name in blind.lanes)
    assert smart_ns <= blind_ns
    assert statistics.median(tails) <= 1.0
