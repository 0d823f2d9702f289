"""decide and its policy in simulated hosts of processors, GPUs and accelerators: models go to where they are answered
sooner, and stay there as long as the load does.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence

import pytest

from server.models.live_load import device_of
from server.models.placement import Load, Model, Put, Snapshot, decide, next_device
from server.supervisor.demand import Counters, demand
from server.supervisor.move_policy import LOOK_NS, REST_NS, MovePolicy
from tests.reference.simulator import (
    DONE,
    HOLD,
    SECOND_NS,
    Due,
    Lane,
    Policies,
    Request,
    World,
    check,
    linear,
    noisy,
    poisson,
)

MS = 1_000_000
CPU, GPU, NPU = 0, 1, 2
NAMES = ("cpu", "cuda:0", "npu")
#: What loading a model elsewhere takes.
LOAD_NS = 3 * SECOND_NS


class Host:
    """A world in which every lane runs where it was put; is_moving False: where it was put at first."""

    def __init__(self, lanes: Sequence[Lane], seed: int, *, is_moving: bool = True) -> None:
        self.world = World(lanes, Policies(place=self.placed), seed)
        self.policy = MovePolicy()
        self.moves: list[tuple[int, Put]] = []
        self.seen = {lane.name: Counters() for lane in lanes}
        self.places: dict[str, tuple[str, ...]] = {}
        self.is_loading = False
        self.running: dict[int, tuple[int, str, int]] = {}
        self.logged_count = 0
        while isinstance(put := decide(self.snapshot(0)), Put):
            self.places[put.model] = put.devices
        if is_moving:
            self.world.at(LOOK_NS, self.look)

    def placed(self, world: World, due: Due) -> int:
        """next_device, of those that the lane has."""
        for start_ns, _, device, name, rows in world.log[self.logged_count :]:
            self.running[device] = start_ns, name, rows
        self.logged_count = len(world.log)
        loads = []
        for device in map(NAMES.index, self.places[due.lane.name]):
            free_ns = world.now_ns
            if device not in world.idle:
                start_ns, name, rows = self.running[device]
                free_ns = max(start_ns + world.lanes[name].costs[device].of(rows), world.now_ns + 1)
            loads.append(Load(NAMES[device], free_ns, due.lane.costs[device].of(due.slab.rows)))
        chosen = next_device(world.now_ns, world.now_ns - due.slab.opened_ns, loads)
        return HOLD if chosen is None else NAMES.index(chosen)

    def snapshot(self, passed_ns: int) -> Snapshot:
        """What the supervisor would see, each device doing one batch at a time."""
        came: dict[str, int] = {}
        for request in self.world.requests:
            came[request.lane] = came.get(request.lane, 0) + (request.at_ns <= self.world.now_ns)
        models = []
        for lane in self.world.lanes.values():
            counters = Counters(came.get(lane.name, 0), came.get(lane.name, 0), 0, lane.busy_ns)
            asked = demand(self.seen[lane.name], counters, passed_ns)
            self.seen[lane.name] = counters
            run_ns = {NAMES[device]: measured(lane, device) for device in lane.curves}
            models.append(Model(lane.name, self.places.get(lane.name, ()), run_ns, *asked))
        return Snapshot([device_of(name, 1) for name in NAMES], models)

    def look(self) -> None:
        if any(not request.status for request in self.world.requests):
            self.world.at(self.world.now_ns + LOOK_NS, self.look)
        snapshot = self.snapshot(LOOK_NS)
        if not self.is_loading and (put := self.policy.look(self.world.now_ns, snapshot)) is not None:
            self.is_loading = True
            self.world.at(self.world.now_ns + LOAD_NS, lambda: self.done(put))

    def done(self, put: Put) -> None:
        self.is_loading = False
        self.places[put.model] = put.devices
        self.moves.append((self.world.now_ns, put))
        self.policy.on_moved(self.world.now_ns, put.model)

    def run(self, requests: Sequence[Request]) -> Host:
        self.world.run(requests)
        check(self.world)
        return self

    def mean_ms(self, lane: str, from_s: int = 0, to_s: int = 10**6) -> float:
        return statistics.mean(
            (request.ended_ns - request.at_ns) / MS
            for request in self.world.requests
            if request.lane == lane and request.status == DONE and from_s <= request.at_ns / SECOND_NS < to_s
        )


def measured(lane: Lane, device: int) -> list[tuple[int, int]]:
    sizes = sorted({1, max(1, lane.capacity // 4), lane.capacity})
    return [(rows, lane.curves[device](rows, random.Random(0), 0)) for rows in sizes]


def between(lane: str, rate: float, from_s: int, to_s: int, chance: random.Random) -> list[Request]:
    found = poisson(chance, lane, rate, (to_s - from_s) * SECOND_NS)
    return [request_at(request, request.at_ns + from_s * SECOND_NS) for request in found]


def request_at(request: Request, at_ns: int) -> Request:
    request.at_ns = at_ns
    return request


def test_a_model_leaves_a_device_that_others_begin_to_use_and_comes_back() -> None:
    """Of a GPU that two other models keep busy from 60 s to 240 s; the CPU is half as fast."""

    def lanes() -> list[Lane]:
        light = Lane("light", {CPU: linear(5 * MS, 40 * MS), GPU: linear(5 * MS, 20 * MS)}, slab_count=64)
        return [light, *(Lane(name, {GPU: linear(20 * MS, 2 * MS)}, slab_count=64) for name in ("one", "two"))]

    def requests() -> list[Request]:
        chance = random.Random(1)
        heavy = [request for name in ("one", "two") for request in between(name, 45, 60, 240, chance)]
        return between("light", 4, 0, 400, chance) + heavy

    host, fixed = (Host(lanes(), 1, is_moving=moves).run(requests()) for moves in (True, False))
    assert [(put.model, put.devices) for _, put in host.moves] == [("light", ("cpu",)), ("light", ("cuda:0",))]
    (away_ns, _), (back_ns, _) = host.moves
    assert 70 * SECOND_NS < away_ns < 90 * SECOND_NS and 250 * SECOND_NS < back_ns < 330 * SECOND_NS
    # While the others work its requests take about what was expected, 50 and not 74 ms, and theirs less too.
    assert host.mean_ms("light", 90, 240) == pytest.approx(host.moves[0][1].there.ns / MS, rel=0.1)
    assert host.mean_ms("light", 90, 240) < 0.72 * fixed.mean_ms("light", 90, 240)
    assert all(host.mean_ms(name, 90) < fixed.mean_ms(name, 90) for name in ("one", "two"))
    assert host.mean_ms("light", 330) == pytest.approx(fixed.mean_ms("light", 330), rel=0.05)


def test_a_model_gets_another_device_when_one_is_not_enough_and_gives_it_back() -> None:
    def lane() -> Lane:
        return Lane(
            "a", {CPU: linear(0, 60 * MS), GPU: linear(2 * MS, 30 * MS), NPU: linear(0, 45 * MS)}, slab_count=96
        )

    def requests() -> list[Request]:
        chance = random.Random(2)
        return between("a", 4, 0, 60, chance) + between("a", 28, 60, 240, chance) + between("a", 4, 240, 500, chance)

    host, fixed = (Host([lane()], 2, is_moving=moves).run(requests()) for moves in (True, False))
    assert len(host.moves[0][1].devices) == 2 and host.moves[-1][1].devices == ("cuda:0",) and len(host.moves) <= 3
    assert host.mean_ms("a", 120, 240) < 0.5 * fixed.mean_ms("a", 120, 240)


def random_host(seed: int, demands: Callable[[random.Random, float], list[float]], *, is_moving: bool) -> Host:
    """Models and devices of all kinds; each model is asked for with these demands, for two minutes each."""
    chance = random.Random(seed)
    lanes, requests = [], []
    for index in range(chance.randrange(1, 5)):
        able = [device for device in (CPU, GPU, NPU) if chance.random() < 0.7] or [CPU]
        curves = {
            device: noisy(linear(chance.randrange(1, 60) * MS, chance.randrange(1, 60) * MS), 0.3) for device in able
        }
        lane = Lane(f"m{index}", curves, capacity=chance.choice((1, 4, 16)), slab_count=4096)
        best = max(cell[0] * 1e9 / cell[1] for device in able for cell in measured(lane, device))
        lanes.append(lane)
        for step, rate in enumerate(demands(chance, best)):
            requests += between(lane.name, min(rate, 10.0), 120 * step, 120 * step + 120, chance)
    return Host(lanes, seed, is_moving=is_moving).run(requests)


def test_a_steady_load_comes_to_rest() -> None:
    def steady(chance: random.Random, best: float) -> list[float]:
        return [best * chance.choice((0.05, 0.2, 0.4))] * 5

    for seed in range(8):
        host = random_host(seed, steady, is_moving=True)
        late = [put for at_ns, put in host.moves if at_ns > 300 * SECOND_NS]
        assert len(host.moves) <= 2 * len(host.world.lanes) and len(late) <= 1, (seed, host.moves)


@pytest.mark.parametrize("block", range(2))
def test_whatever_the_load_requests_are_answered_sooner(block: int) -> None:
    def changing(chance: random.Random, best: float) -> list[float]:
        return [best * chance.choice((0.02, 0.1, 0.4, 0.8)) for _ in range(4)]

    whole_ns = [0, 0]
    for seed in range(block * 6, block * 6 + 6):
        host, fixed = (random_host(seed, changing, is_moving=moves) for moves in (True, False))
        took_ns = [sum(one.ended_ns - one.at_ns for one in of.world.requests) for of in (host, fixed)]
        assert took_ns[0] < 1.02 * took_ns[1], seed
        whole_ns = [before + now for before, now in zip(whole_ns, took_ns, strict=True)]
        at: dict[str, int] = {}
        for at_ns, put in host.moves:
            assert at_ns - at.get(put.model, -REST_NS) >= REST_NS, (seed, host.moves)
            at[put.model] = at_ns
        assert len(host.moves) <= 8 * len(host.world.lanes), (seed, host.moves)
    assert whole_ns[0] < 0.95 * whole_ns[1]
