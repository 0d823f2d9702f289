"""Admission and sharing, driven through overloaded worlds: what is let in is answered in time, and nobody is shut out.

Virtual time: the figures are the same in each run.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from server.batching.admission import Action, Pressure, decide, margin_ns
from server.batching.admission import Lane as Seen
from server.batching.sharing import LOAN_NS, Sharing
from tests.reference.simulator import (
    DONE,
    EXPIRED,
    REFUSED,
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
BUDGET_NS = 100 * MS
#: When the overload ends.
CALM_NS = SECOND_NS


class Door:
    """server.batching.admission for the lanes of a world. The loop has no lag."""

    def __init__(self) -> None:
        self.pressures: dict[str, Pressure] = {}
        self._told = 0

    def __call__(self, world: World, lane: Lane, request: Request) -> bool:
        self._hear(world)
        busy = {
            device: start_ns + lane.costs[device].of(rows) - world.now_ns
            for start_ns, end_ns, device, name, rows in world.log[-world.device_count :]
            if end_ns > world.now_ns and name == lane.name
        }
        run_left_ns = min(map(abs, busy.values())) if len(busy) == len(lane.curves) else 0
        deadlines = [slab.deadline_ns for slab in lane.open if slab.deadline_ns and not slab.left_behind]
        work_ns = lane.cost.of(lane.waiting_rows + request.rows)
        seen = Seen(run_left_ns, work_ns, min(deadlines, default=0), lane.waiting_rows)
        budget_ns = request.deadline_ns - request.at_ns if request.deadline_ns else 0
        margin = margin_ns(budget_ns, 0, self.pressures.setdefault(lane.name, Pressure()).level)
        return decide(seen, world.now_ns, request.deadline_ns, margin) == Action.ADMIT

    def _hear(self, world: World) -> None:
        """What has ended since the last request tells whether answers come late."""
        for one in world.ended[self._told :]:
            if one.status != REFUSED and one.deadline_ns:
                pressure = self.pressures.setdefault(one.lane, Pressure())
                pressure.answered(one.ended_ns - one.at_ns, one.deadline_ns - one.at_ns, one.ended_ns)
        self._told = len(world.ended)


def overloaded(seed: int, factor: float, admits: bool) -> tuple[World, float]:
    """A model whose clients ask for `factor` times what it can do, for a second; then for a third of it. With how much
    it can do in a second.
    """
    chance = random.Random(seed)
    one_ns = chance.choice([MS, 4 * MS])
    curve = noisy(chance.choice([linear(0, one_ns), linear(one_ns, one_ns // 4)]), chance.choice([0.0, 0.1, 0.3]))
    lane = Lane("a", {0: curve}, capacity=8, slab_count=40)
    peak = lane.capacity * SECOND_NS / sum(curve(lane.capacity, chance, 0) for _ in range(50)) * 50
    world = World([lane], Policies(admit=Door()) if admits else Policies(), seed)
    requests = poisson(chance, "a", factor * peak, CALM_NS, timeout_ns=BUDGET_NS)
    later = poisson(chance, "a", peak / 3, CALM_NS // 2, timeout_ns=BUDGET_NS)
    for request in later:
        request.at_ns += CALM_NS
        request.deadline_ns += CALM_NS
    world.run(requests + later)
    check(world)
    return world, peak * CALM_NS / SECOND_NS


def in_time(requests: Sequence[Request]) -> int:
    return sum(one.status == DONE and one.ended_ns <= one.deadline_ns for one in requests)


@pytest.mark.parametrize("factor", [2, 10])
def test_what_the_model_can_do_it_does_in_time(factor: float) -> None:
    shares: dict[bool, list[float]] = {True: [], False: []}
    for seed in range(8):
        for admits, found in shares.items():
            world, can = overloaded(seed, factor, admits)
            crowd = [one for one in world.requests if one.at_ns < CALM_NS]
            found.append(in_time(crowd) / can)
            if admits:
                # Hardly any work is for nobody.
                late = sum(one.status == DONE and one.ended_ns > one.deadline_ns for one in crowd)
                assert late <= 0.1 * sum(one.status == DONE for one in crowd), seed
    assert min(shares[True]) >= 0.85
    if factor == 2:
        # What a queue alone does.
        assert max(shares[False]) < 0.7


def test_nothing_learnt_in_overload_outlives_it() -> None:
    for seed in range(8):
        world, _ = overloaded(seed, 10, True)
        calm = [one for one in world.requests if one.at_ns >= CALM_NS + BUDGET_NS]
        assert in_time(calm) >= 0.97 * len(calm), seed
        assert not world.lanes["a"].plan.newest_first


def shared(world_sharing: Sharing, names: str) -> Policies:
    """One device that several lanes share by server.batching.sharing."""
    chosen: list[tuple[int, int, int]] = []

    def choose(world: World, due: Sequence[Due]) -> Due:
        for lane, charge_ns, run_count in chosen:
            # A batch of which every request was late took no time.
            ran = world.log[run_count:]
            world_sharing.ran(lane, charge_ns, ran[0][1] - ran[0][0] if ran else 0)
        chosen.clear()
        offers = [(names.index(one.lane.name), one.slab.deadline_ns) for one in due]
        lane, charge_ns = world_sharing.take(offers, world.now_ns)
        chosen.append((lane, charge_ns, len(world.log)))
        return next(one for one in due if one.lane.name == names[lane])

    return Policies(choose=choose)


@pytest.mark.parametrize("greedy_ms", [1, 20])
@pytest.mark.parametrize("timeout_ms", [0, 30])
def test_a_greedy_model_leaves_the_others_their_share(greedy_ms: int, timeout_ms: int) -> None:
    """Whatever it asks for, in however large runs, and however it sets its deadlines."""
    lanes = [
        Lane("g", {0: linear(greedy_ms * MS, MS // 8)}, capacity=16, slab_count=20),
        Lane("p", {0: linear(MS, MS // 8)}, capacity=4, slab_count=20),
        Lane("q", {0: linear(MS, MS // 8)}, capacity=4, slab_count=20),
    ]
    world = World(lanes, shared(Sharing(3), "gpq"), seed=1)
    requests = poisson(world.chance, "g", 30_000, SECOND_NS, timeout_ns=timeout_ms * MS)
    # Each of the others asks for more than a third of the device.
    for name in "pq":
        requests += poisson(world.chance, name, 1200, SECOND_NS)
    world.run(requests)
    check(world)
    busy = dict.fromkeys("gpq", 0)
    for start_ns, end_ns, _, name, _ in world.log:
        if start_ns < SECOND_NS:
            busy[name] += end_ns - start_ns
    # What deadlines may lend, and a run.
    slack_ns = LOAN_NS // 3 + (greedy_ms + 4) * MS
    assert min(busy.values()) >= SECOND_NS // 3 - slack_ns
    assert {one.status for one in world.requests if one.lane in "pq"} <= {DONE, REFUSED, EXPIRED}
