"""Which devices a model's instances run on, and which of several devices takes the next batch: pure functions.

`decide(snapshot)` gives one action; the caller does it and asks again with the world as it then is, until there is
nothing to do. The rules, in their order:

1. What runs on a device that is broken or gone, or belongs to a model that is not wanted, ends.
2. Every model gets an instance: on the device where a request would be answered soonest, its speed and what others make
   it do considered, among those with room. Where nothing has room, an instance that a model has in addition to others
   gives way; if there is none, the model is refused with the figures.
3. A model that is busier than BUSY gets another instance, where that helps and nobody is pushed over the edge.
4. A model that would stay below CALM without its least useful instance loses that one.

Between BUSY and CALM nothing happens, so that a load at the edge does not make instances come and go. Weights count
once for each device, however many instances a model has there. Equal choices are made by name: the same snapshot gives
the same action always. No clock, no I/O.

`--device fastest` asks `fastest`. `next_device` is the reference for server/_fast/device_turns, which instances of a
model on several devices ask before they take a batch. Where instances are is what configurations and `--device` say:
`decide`, which would move them with the load, is proved in simulated worlds (tests/fast/test_placement_worlds.py), and
nobody asks it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

#: A model whose instances run this share of the time gets another one.
BUSY = 0.8
#: It loses one when the others would run less than this share of the time.
CALM = 0.5
#: A device that takes so much longer for one row is no help to a model that has a faster one.
SLOWER_LIMIT = 8
#: How full a device may become by what is put there for speed.
FULL = 0.95


class Device(NamedTuple):
    """`memory_bytes` is what models may use of it; `lanes` batches run at a time without slowing each other."""

    name: str
    memory_bytes: int
    lanes: int = 1
    is_healthy: bool = True


class Model(NamedTuple):
    """`run_ns`: device -> T(b) as (rows, nanoseconds) in ascending order, () where it was not measured yet; on devices
    that are missing there it cannot run. `rows_per_s` is what clients ask for at the moment.
    """

    name: str
    memory_bytes: int
    run_ns: Mapping[str, Sequence[tuple[int, int]]]
    rows_per_s: float = 0.0
    max_instances: int = 1

    def one_ns(self, device: str) -> int:
        """T(1); 0: not measured."""
        cells = self.run_ns.get(device, ())
        return cells[0][1] if cells else 0

    def rate(self, device: str) -> float:
        """Rows per second of one instance at the batch size that gives most; 0: not measured."""
        return max((rows * 1e9 / ns for rows, ns in self.run_ns.get(device, ()) if ns > 0), default=0.0)


class Instance(NamedTuple):
    model: str
    device: str


class Snapshot(NamedTuple):
    """Everything that the rules look at. Devices stand in the order of preference where nothing is measured.

    `refused` are models that were found to have no place; whoever frees memory takes them out again.
    """

    devices: Sequence[Device]
    models: Sequence[Model]
    instances: Sequence[Instance] = ()
    refused: frozenset[str] = frozenset()


class Start(NamedTuple):
    model: str
    device: str


class Stop(NamedTuple):
    model: str
    device: str


class Refuse(NamedTuple):
    """There is no place for the model; the reason is for people."""

    model: str
    reason: str


class Nothing(NamedTuple):
    """All is as it should be."""


Action = Start | Stop | Refuse | Nothing


def decide(snapshot: Snapshot) -> Action:
    """The next thing to do. O((models + instances) * devices)."""
    view = _View(snapshot)
    return (
        next(_misplaced(view), None)
        or next(_homeless(view), None)
        or next(_too_busy(view), None)
        or next(_too_calm(view), None)
        or Nothing()
    )


class _View:
    """A snapshot with what follows from it."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.devices = {device.name: device for device in snapshot.devices if device.is_healthy}
        self.order = {device.name: index for index, device in enumerate(snapshot.devices)}
        self.models = {model.name: model for model in sorted(snapshot.models)}
        self.counts: dict[Instance, int] = {}
        for instance in snapshot.instances:
            self.counts[instance] = self.counts.get(instance, 0) + 1
        self.free_bytes = {device.name: device.memory_bytes for device in self.devices.values()}
        for instance in self.counts:
            if instance.device in self.free_bytes and instance.model in self.models:
                self.free_bytes[instance.device] -= self.models[instance.model].memory_bytes

    def places(self, model: Model) -> list[str]:
        """The device of each of its instances."""
        return sorted(
            instance.device
            for instance, count in self.counts.items()
            if instance.model == model.name and instance.device in self.devices
            for _ in range(count)
        )

    def use(self, model: Model, places: Sequence[str]) -> float:
        """The share of the time that its instances run, if it had them at these places; 0 while nothing is measured."""
        rate = sum(model.rate(device) for device in places)
        return model.rows_per_s / rate if rate else 0.0

    def load(self, device: str, without: str = "") -> float:
        """The share of the device's time that is taken by all models but one."""
        total = 0.0
        for instance, count in self.counts.items():
            if instance.device == device and instance.model in self.models and instance.model != without:
                model = self.models[instance.model]
                total += count * min(1.0, self.use(model, self.places(model)))
        return total / max(1, self.devices[device].lanes)

    def load_with(self, model: Model, device: str) -> float:
        """load(), if the model had one more instance there."""
        places = [*self.places(model), device]
        own = places.count(device) * min(1.0, self.use(model, places))
        return self.load(device, without=model.name) + own / max(1, self.devices[device].lanes)

    def has_room(self, model: Model, device: str) -> bool:
        return Instance(model.name, device) in self.counts or self.free_bytes[device] >= model.memory_bytes

    def answer_ns(self, model: Model, device: str) -> tuple[bool, float, int, str]:
        """How long a request would take there, as a key to sort by: what was not measured comes last, in its order."""
        one_ns = model.one_ns(device)
        idle = 1.0 - max(self.load_with(model, device), self.use(model, [*self.places(model), device]))
        # A device that is full already is no place as long as another is not, however fast it is.
        ns = one_ns / idle if idle > 1.0 - FULL else one_ns / (1.0 - FULL) * (2.0 - FULL - idle) * 1e6
        return (not one_ns, ns, self.order[device], device)


def _misplaced(view: _View) -> Iterator[Action]:
    for instance in sorted(view.counts):
        model = view.models.get(instance.model)
        if model is None or instance.device not in view.devices or instance.device not in model.run_ns:
            yield Stop(*instance)


def _homeless(view: _View) -> Iterator[Action]:
    homeless = [
        model for model in view.models.values() if model.name not in view.snapshot.refused and not view.places(model)
    ]
    # Large models first: they have fewer places.
    for model in sorted(homeless, key=lambda model: (-model.memory_bytes, model.name)):
        able = [device for device in view.devices if device in model.run_ns]
        there = [device for device in able if view.has_room(model, device)]
        if there:
            yield Start(model.name, min(there, key=lambda device: view.answer_ns(model, device)))
            continue
        yield _spare(view, model, able) or Refuse(model.name, _no_room(view, model, able))


def _spare(view: _View, model: Model, able: Sequence[str]) -> Stop | None:
    """An instance whose end makes room, or a part of it, where that is enough in the end."""
    for device in sorted(able, key=lambda device: view.order[device]):
        found = [
            other
            for other in view.models.values()
            if device in view.places(other) and set(view.places(other)) != {device}
        ]
        gain = sum(other.memory_bytes for other in found)
        if found and view.free_bytes[device] + gain >= model.memory_bytes:
            largest = max(found, key=lambda other: (other.memory_bytes, other.name))
            return Stop(largest.name, device)
    return None


def _no_room(view: _View, model: Model, able: Sequence[str]) -> str:
    if not able:
        return "there is no device that can run it"
    best = max(able, key=lambda device: (view.free_bytes[device], device))
    return (
        f"it needs {_size(model.memory_bytes)} of memory, {best} has {_size(max(0, view.free_bytes[best]))} left of "
        f"{_size(view.devices[best].memory_bytes)}; unload another model, or give the server more memory"
    )


def _too_busy(view: _View) -> Iterator[Action]:
    for model in sorted(view.models.values(), key=lambda model: (-view.use(model, view.places(model)), model.name)):
        places = view.places(model)
        if not places or len(places) >= model.max_instances or view.use(model, places) <= BUSY:
            continue
        fastest_ns = min((model.one_ns(device) for device in places if model.one_ns(device)), default=0)
        able = [
            device
            for device in view.devices
            if device in model.run_ns
            and view.has_room(model, device)
            and places.count(device) < view.devices[device].lanes
            and (not fastest_ns or model.one_ns(device) <= SLOWER_LIMIT * fastest_ns)
            and view.load_with(model, device) <= FULL
        ]
        if able:
            yield Start(model.name, min(able, key=lambda device: view.answer_ns(model, device)))


def _too_calm(view: _View) -> Iterator[Action]:
    for model in view.models.values():
        places = view.places(model)
        if len(places) < 2:
            continue
        # The slowest goes; the first of several equal ones is the last in the order of preference.
        least = min(set(places), key=lambda device: (model.rate(device), -view.order[device]))
        rest = list(places)
        rest.remove(least)
        if view.use(model, rest) < CALM:
            yield Stop(model.name, least)


def _size(count: int) -> str:
    return f"{count / (1 << 20):.0f} MiB" if count < 10 << 30 else f"{count / (1 << 30):.0f} GiB"


class Load(NamedTuple):
    """A device as the next batch sees it. `free_ns`: when it ends what it does; `run_ns`: what this batch takes there,
    0: not measured.
    """

    device: str
    free_ns: int
    run_ns: int


def next_device(now_ns: int, waited_ns: int, loads: Sequence[Load]) -> str | None:
    """Which idle device takes a batch that has waited for so long; None: a busy one would answer it sooner.

    A fast device is worth waiting for as long as that is shorter than running on a slow one. What was held back for as
    long as the idle device would have taken goes there: others may have been served on the fast one meanwhile.
    """
    idle = [load for load in loads if load.free_ns <= now_ns]
    unknown = [load for load in idle if not load.run_ns]
    if not idle:
        return None
    if unknown:
        # It has to run somewhere before anybody knows how long it takes there.
        return min(unknown).device
    here = min(idle, key=lambda load: (load.run_ns, load.device))
    if waited_ns >= here.run_ns:
        return here.device
    sooner = [load for load in loads if load.run_ns and load.free_ns > now_ns]
    best_ns = min((load.free_ns - now_ns + load.run_ns for load in sooner), default=here.run_ns)
    return here.device if here.run_ns <= best_ns else None


def fastest(run_ns: Mapping[str, Sequence[tuple[int, int]]], preferred: str, margin: float = 0.9) -> str:
    """The device on which batches take the shortest time, the mean over the measured sizes being geometric.

    `preferred` stays unless another takes less than `margin` of its time: a device that is hardly faster is not worth
    what it brings along. Sizes that only one of them was measured with do not count.
    """
    base = dict(run_ns.get(preferred, ()))
    best, best_ratio = preferred, margin
    for device in sorted(run_ns):
        cells = [(ns, base[rows]) for rows, ns in run_ns[device] if rows in base and ns > 0 and base[rows] > 0]
        if device == preferred or not cells:
            continue
        product = 1.0
        for ns, base_ns in cells:
            product *= (ns / base_ns) ** (1.0 / len(cells))
        if product < best_ratio:
            best, best_ratio = device, product
    return best
