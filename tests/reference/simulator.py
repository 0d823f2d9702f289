"""A server of lanes and devices in virtual time: the real policies of server/batching, puppet executors, a fake clock.

What is real: where rows are put and when a slab runs (plan.claim, plan.decide), the cost table, how many rows run for a
latency target (slo_policy). What is the simulation's: arrivals, true costs, devices that run one batch at a time. What
a policy of yours plugs into: the fields of `Policies`. A world is made of a seed, so what fails can be run again.

    world = World([Lane("a", curves={0: linear(20_000, 5_000)})], Policies(), seed=7)
    world.run(poisson(world.chance, "a", rate=500, until_ns=10**9))
    check(world)
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from server.batching.cost import CostTable
from server.batching.plan import Full, Join, Plan, RunSlab, Slab, Standing, WaitUntil, claim, decide
from server.batching.slo_policy import BusyMeter, rows_to_run, run_by_ns

SECOND_NS = 10**9
#: What a run of so many rows truly takes at this moment.
Curve = Callable[[int, random.Random, int], int]

DONE, REFUSED, EXPIRED = "done", "refused", "expired"
HOLD = -1


# -- costs


def linear(fixed_ns: int, row_ns: int) -> Curve:
    return lambda rows, chance, now_ns: fixed_ns + row_ns * rows


def sub_linear(one_ns: int, exponent: float) -> Curve:
    return lambda rows, chance, now_ns: int(one_ns * rows**exponent)


def noisy(curve: Curve, spread: float, stall: float = 0.0) -> Curve:
    """Times that vary by `spread`; one run in a thousand takes `stall` times longer in addition."""

    def cost(rows: int, chance: random.Random, now_ns: int) -> int:
        factor = chance.uniform(1 - spread, 1 + spread) + (stall if chance.random() < 0.001 else 0)
        return max(1, int(curve(rows, chance, now_ns) * factor))

    return cost


# -- requests


@dataclass(slots=True)
class Request:
    """One request and what became of it. deadline_ns 0: none; times are those of the world's clock."""

    number: int
    lane: str
    at_ns: int
    rows: int = 1
    deadline_ns: int = 0
    priority: int = 0
    status: str = ""
    #: Its batch was taken up, -1 for never; with a latency target the request may run in a later part of it.
    sealed_ns: int = -1
    started_ns: int = 0
    ended_ns: int = 0
    device: int = -1


def poisson(
    chance: random.Random, lane: str, rate: float, until_ns: int, *, rows: Sequence[int] = (1,), timeout_ns: int = 0
) -> list[Request]:
    """Arrivals at random, `rate` a second."""
    found, now_ns = [], 0.0
    while (now_ns := now_ns + chance.expovariate(rate) * SECOND_NS) < until_ns:
        at_ns = int(now_ns)
        found.append(Request(0, lane, at_ns, chance.choice(rows), at_ns + timeout_ns if timeout_ns else 0))
    return found


def bursts(lane: str, every_ns: int, size: int, until_ns: int, *, rows: int = 1, timeout_ns: int = 0) -> list[Request]:
    """`size` requests at once, again and again."""
    return [
        Request(0, lane, at_ns, rows, at_ns + timeout_ns if timeout_ns else 0)
        for at_ns in range(0, until_ns, every_ns)
        for _ in range(size)
    ]


# -- the server


@dataclass(slots=True)
class OpenSlab:
    """A slab that waits; left_behind: its first requests have run, no others join it."""

    number: int
    opened_ns: int
    requests: list[Request] = field(default_factory=list)
    rows: int = 0
    left_behind: bool = False
    deadline_ns: int = 0
    undated: bool = False

    def add(self, request: Request) -> None:
        self.requests.append(request)
        self.rows += request.rows
        self.deadline_ns = min(request.deadline_ns or self.deadline_ns, self.deadline_ns or request.deadline_ns)
        self.undated |= not request.deadline_ns


@dataclass
class Lane:
    """A model and where it may run: device -> its true cost there. is_warm: the cost tables know the curve."""

    name: str
    curves: dict[int, Curve]
    capacity: int = 16
    slab_count: int = 6
    max_queue_delay_ns: int = 0
    preferred_rows: int = 0
    slo_ns: int = 0
    weight: int = 1
    is_warm: bool = True

    def __post_init__(self) -> None:
        self.costs = {device: CostTable(self.capacity) for device in self.curves}
        self.meters = {device: BusyMeter() for device in self.curves}
        self.open: list[OpenSlab] = []
        self.running_count = 0
        self.slab_number = 0
        self.hint = -1
        #: Time that its batches took, for fair shares.
        self.busy_ns = 0
        self.plan = Plan(self.capacity, self.max_queue_delay_ns, self.preferred_rows)
        self.standing = Standing()
        #: The newest slab may have gone before an older one.
        self.was_newest_first = False

    @property
    def cost(self) -> CostTable:
        """That of its first device."""
        return next(iter(self.costs.values()))

    @property
    def waiting_rows(self) -> int:
        return sum(slab.rows for slab in self.open)

    def slabs(self) -> list[Slab]:
        """The open ones, as the policies see them."""
        return [
            Slab(
                slab.number,
                slab.number,
                slab.rows,
                slab.opened_ns,
                left_behind=slab.left_behind,
                deadline_ns=slab.deadline_ns,
                undated=slab.undated,
                run_by_ns=run_by_ns(slab.opened_ns, slab.rows, self.cost, self.slo_ns) if self.slo_ns else 0,
            )
            for slab in self.open
        ]

    def warm_up(self, chance: random.Random) -> None:
        for device, curve in self.curves.items():
            for cell in self.costs[device].cells:
                times = sorted(curve(cell.rows, chance, 0) for _ in range(5))
                self.costs[device].learn(cell.rows, times[2], sum(abs(one - times[2]) for one in times) // 5, 5, 0)


@dataclass(frozen=True, slots=True)
class Due:
    """A batch that could begin on one of these idle devices."""

    lane: Lane
    slab: OpenSlab
    devices: Sequence[int]


def oldest_first(world: World, due: Sequence[Due]) -> Due:
    return min(due, key=lambda one: (one.slab.opened_ns, one.lane.name))


def first_idle(world: World, due: Due) -> int:
    return due.devices[0]


@dataclass(slots=True)
class Policies:
    """What decides. Each is asked with the world as it is; none may change it.

    admit: whether a request may wait; its time is world.now_ns. choose: which lane's batch goes first, when devices
    are idle. place: on which of them; HOLD: on none, the batch waits for a device that is busy. keep: whether a request
    of a batch that begins is worth running; what is past its deadline is not, whatever this says.
    """

    admit: Callable[[World, Lane, Request], bool] = lambda world, lane, request: True
    choose: Callable[[World, Sequence[Due]], Due] = oldest_first
    place: Callable[[World, Due], int] = first_idle
    keep: Callable[[World, Lane, Request, int], bool] = lambda world, lane, request, device: True


class World:
    """Runs requests through lanes. `log` has each batch: (start, end, device, lane, rows)."""

    def __init__(self, lanes: Sequence[Lane], policies: Policies | None = None, seed: int = 0) -> None:
        self.chance = random.Random(seed)
        self.seed = seed
        self.lanes = {lane.name: lane for lane in lanes}
        self.policies = policies or Policies()
        self.now_ns = 0
        self.requests: list[Request] = []
        #: In the order of their answers.
        self.ended: list[Request] = []
        self.idle = sorted({device for lane in lanes for device in lane.curves})
        self.device_count = len(self.idle)
        self.log: list[tuple[int, int, int, str, int]] = []
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._event_count = 0
        self._timer_ns = 0
        for lane in lanes:
            if lane.is_warm:
                lane.warm_up(self.chance)

    def at(self, at_ns: int, act: Callable[[], None]) -> None:
        """Lets something happen at a time: an arrival, or a change that a test wants."""
        self._event_count += 1
        heapq.heappush(self._events, (at_ns, self._event_count, act))

    def run(self, requests: Iterable[Request]) -> None:
        """Runs until every request has its answer."""
        for request in sorted(requests, key=lambda one: one.at_ns):
            request.number = len(self.requests)
            self.requests.append(request)
            self.at(request.at_ns, lambda request=request: self._arrive(request))  # type: ignore[misc]
        while self._events:
            self.now_ns, _, act = heapq.heappop(self._events)
            act()
            while self._events and self._events[0][0] == self.now_ns:
                heapq.heappop(self._events)[2]()
            self._dispatch()

    # -- arrivals

    def _arrive(self, request: Request) -> None:
        lane = self.lanes[request.lane]
        if not self.policies.admit(self, lane, request):
            self._end(request, REFUSED)
            return
        free_count = lane.slab_count - len(lane.open) - lane.running_count
        slabs = [slab for slab in lane.slabs() if not slab.left_behind]
        match claim(slabs, lane.plan, request.rows, free_count, lane.hint):
            case Join(number):
                slab = next(slab for slab in lane.open if slab.number == number)
            case Full():
                self._end(request, REFUSED)
                return
            case _:
                lane.slab_number += 1
                slab = OpenSlab(lane.slab_number, self.now_ns)
                lane.open.append(slab)
        lane.hint = slab.number
        slab.add(request)

    def _end(self, request: Request, status: str) -> None:
        assert not request.status, f"request {request.number} ended twice, seed {self.seed}"
        request.status, request.ended_ns = status, self.now_ns
        self.ended.append(request)

    # -- batches

    def due(self, devices: Sequence[int]) -> list[Due]:
        """The oldest due slab of each lane that may run on one of these devices."""
        found = []
        for lane in self.lanes.values():
            if not lane.open:
                continue
            there = [device for device in devices if device in lane.curves]
            if not there:
                continue
            match decide(lane.slabs(), lane.plan, self.now_ns):
                case RunSlab(number):
                    found.append(Due(lane, next(slab for slab in lane.open if slab.number == number), there))
                case WaitUntil(at_ns) if not self.now_ns < self._timer_ns <= at_ns:
                    self._timer_ns = at_ns
                    self.at(at_ns, lambda: None)
        return found

    def _dispatch(self) -> None:
        held: set[str] = set()
        while self.idle and (due := [one for one in self.due(self.idle) if one.lane.name not in held]):
            chosen = self.policies.choose(self, due)
            device = self.policies.place(self, chosen)
            if device == HOLD:
                # Asked again when something else happens: a device that is busy becomes idle at the latest.
                held.add(chosen.lane.name)
            else:
                self._start(chosen, device)

    def _start(self, due: Due, device: int) -> None:
        lane, slab = due.lane, due.slab
        lane.was_newest_first |= lane.plan.newest_first
        lane.open.remove(slab)
        lane.standing.sealed(bool(lane.open), self.now_ns)
        lane.plan = lane.plan._replace(newest_first=lane.standing.newest_first)
        waiting = slab.requests
        for request in waiting:
            request.sealed_ns = self.now_ns if request.sealed_ns < 0 else request.sealed_ns
        limit = slab.rows
        if lane.slo_ns:
            waits = [(self.now_ns - request.at_ns, request.rows) for request in waiting]
            limit = rows_to_run(waits, lane.costs[device], lane.slo_ns, lane.meters[device].busy(self.now_ns))
        taken: list[Request] = []
        while waiting and waiting[0].rows <= limit:
            request = waiting.pop(0)
            limit -= request.rows
            is_late = 0 < request.deadline_ns <= self.now_ns
            if is_late or not self.policies.keep(self, lane, request, device):
                self._end(request, EXPIRED)
            else:
                request.started_ns, request.device = self.now_ns, device
                taken.append(request)
        slab.rows = sum(request.rows for request in waiting)
        slab.left_behind = True
        if taken:
            self._run(lane, taken, device, slab)
        elif waiting:
            lane.open.append(slab)

    def _run(self, lane: Lane, taken: Sequence[Request], device: int, slab: OpenSlab) -> None:
        rows = sum(request.rows for request in taken)
        started_ns = self.now_ns
        cost_ns = lane.curves[device](rows, self.chance, started_ns)
        self.idle.remove(device)
        lane.running_count += 1
        self.log.append((started_ns, started_ns + cost_ns, device, lane.name, rows))

        def ended() -> None:
            self.idle.append(device)
            self.idle.sort()
            lane.running_count -= 1
            lane.busy_ns += cost_ns
            lane.costs[device].add(rows, cost_ns, self.now_ns)
            lane.meters[device].add(started_ns, self.now_ns)
            for request in taken:
                self._end(request, DONE)
            if slab.requests:
                lane.open.append(slab)
            if not lane.open:
                lane.standing.slept()
                lane.plan = lane.plan._replace(newest_first=False)

        self.at(started_ns + cost_ns, ended)


# -- what must hold, whatever the policies


def check(world: World) -> None:
    """Everybody got one answer; nothing ran past its deadline; devices did one thing at a time."""
    place = f"seed {world.seed}"
    for request in world.requests:
        assert request.status in (DONE, REFUSED, EXPIRED), f"request {request.number} has no answer, {place}"
        if request.status == DONE:
            assert request.at_ns <= request.started_ns < request.ended_ns, place
            assert not 0 < request.deadline_ns <= request.started_ns, f"request {request.number} ran late, {place}"
        if request.status == EXPIRED:
            assert not request.started_ns, f"request {request.number} ran and expired, {place}"
    for lane in world.lanes.values():
        assert not lane.open and not lane.running_count, place
    ended: dict[int, int] = {}
    for start_ns, end_ns, device, name, rows in world.log:
        assert start_ns >= ended.get(device, 0), f"device {device} ran two batches, {place}"
        assert 1 <= rows <= world.lanes[name].capacity, place
        ended[device] = end_ns


def check_conserved(world: World) -> None:
    """No device was idle while a request that it may run had waited for longer than the lane's queue delay, until its
    batch was taken up.
    """
    starts: dict[int, list[tuple[int, int]]] = {}
    for start_ns, end_ns, device, _, _ in world.log:
        starts.setdefault(device, []).append((start_ns, end_ns))
    for request in world.requests:
        due_ns = request.at_ns + world.lanes[request.lane].max_queue_delay_ns
        if request.sealed_ns <= due_ns:
            continue
        for device in world.lanes[request.lane].curves:
            busy_ns = sum(
                max(0, min(end_ns, request.sealed_ns) - max(start_ns, due_ns))
                for start_ns, end_ns in starts.get(device, ())
            )
            assert busy_ns == request.sealed_ns - due_ns, (
                f"request {request.number} waited until {request.sealed_ns} with device {device} idle, "
                f"seed {world.seed}"
            )


def check_fifo(world: World) -> None:
    """Requests began in the order of their arrival, lane by lane.

    Not where some have more rows than others, since what fits fills the gaps; and not where a latency target cuts
    batches for several devices, since the rest of a batch stays with the device that has it. Nor while a queue stood.
    """
    last: dict[str, int] = {}
    sizes: dict[str, int] = {}
    for request in world.requests:
        lane = world.lanes[request.lane]
        is_cut = lane.slo_ns and len(lane.curves) > 1
        if sizes.setdefault(lane.name, request.rows) != request.rows or is_cut or lane.was_newest_first:
            sizes[lane.name] = 0
        elif request.status == DONE:
            place = f"request {request.number} overtook, seed {world.seed}"
            assert request.started_ns >= last.get(request.lane, 0), place
            last[request.lane] = request.started_ns


def latencies_ns(world: World, lane: str) -> list[int]:
    """Of the requests of a lane that were answered, ascending."""
    return sorted(
        request.ended_ns - request.at_ns
        for request in world.requests
        if request.lane == lane and request.status == DONE
    )


def percentile(ascending: Sequence[int], share: float) -> int:
    return ascending[min(len(ascending) - 1, int(share * len(ascending)))]
