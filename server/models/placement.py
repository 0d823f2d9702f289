"""Which devices a model runs on, and which of several devices takes the next batch: pure functions.

`decide(snapshot)` is what `--device fastest` asks: the executor of a model that is loaded, with what it has measured
and what the others ask of the devices at that moment, and the supervisor every few seconds, with the demand as it then
is. It gives one action, the list of devices that one model is to have; whoever does it asks again with the world as it
has become. The rules:

1. A model without a place gets the device on which its requests are answered soonest. While nobody asks for it, that is
   the one with the shortest runs over all sizes; the first device keeps it unless another is clearly better.
2. A model that is asked for gets another device, or one more, where that answers its requests in GAIN of the time, and
   the requests of all models together no later.
3. A model on several devices loses one without which its requests take hardly longer (KEEP).

Between GAIN and KEEP nothing happens, so a load at the edge moves nothing; and since every change of the second kind
shortens what all requests take together, a steady load comes to rest. Devices that are two ways to use one piece of
hardware share its load, and a model has only one of them. Equal choices are made by name: the same snapshot gives the
same action always. No clock, no I/O.

`next_device` is the reference for server/_fast/device_turns, which instances of a model on several devices ask before
they take a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from server.models.answer_time import Cells, Estimate, answer, rate, ratio

#: A model moves where its requests take at most this share of the time that they take now.
GAIN = 0.7
#: It does without a device if its requests then take at most so much longer.
KEEP = 1.1
#: So many of the models that gain most are weighed against what the others lose.
MAX_WEIGHED = 8
#: The preferred device gets a new model unless another takes at most this share of the time.
MARGIN = 0.9


class Device(NamedTuple):
    """`unit`: the hardware that computes, which several devices may be ways to use; `lanes`: what it does at a time
    without slowing it (processors; 1 of a GPU); `free_bytes`: memory for models, None where only trying shows it.
    """

    name: str
    unit: str
    lanes: int = 1
    free_bytes: int | None = None


class Model(NamedTuple):
    """`devices`: where it runs, () before it has a place; `run_ns`: device -> T(b) as measured there alone; on devices
    that are missing there it cannot run. `instances` on each device; each takes `threads` of a device's lanes, as far
    as it has so many.

    Not `is_movable`: it is here for the load that it makes. `busy` is how many of its runs are in progress on the
    average, for models of which no T(b) is known.
    """

    name: str
    devices: tuple[str, ...]
    run_ns: Mapping[str, Cells]
    rows_per_s: float = 0.0
    busy: float = 0.0
    threads: int = 1
    instances: int = 1
    memory_bytes: int = 0
    is_movable: bool = True


class Snapshot(NamedTuple):
    """Everything that the rules look at. Devices stand in the order of preference."""

    devices: Sequence[Device]
    models: Sequence[Model]


class Put(NamedTuple):
    """The model shall run on these devices and no others. `here` and `there`: what a request takes now and then;
    None: it has no place now, or nobody asks for it.
    """

    model: str
    devices: tuple[str, ...]
    here: Estimate | None = None
    there: Estimate | None = None


class Nothing(NamedTuple):
    """All is as it should be."""


Action = Put | Nothing


def decide(snapshot: Snapshot) -> Action:
    """The next thing to do. O(models * devices)."""
    view = _View(snapshot)
    return next(_homeless(view), None) or next(_better_elsewhere(view), None) or next(_spare(view), None) or Nothing()


class _View:
    """A snapshot with what follows from it."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.devices = {device.name: device for device in snapshot.devices}
        self.models = sorted(snapshot.models, key=lambda model: model.name)
        #: Of each unit: the lanes that are taken, on the average.
        self.taken = dict.fromkeys((device.unit for device in snapshot.devices), 0.0)
        for model in self.models:
            for unit, lanes in self.taken_by(model, model.devices).items():
                self.taken[unit] += lanes

    def able(self, model: Model) -> list[str]:
        """Devices on which it can run, in the order of preference."""
        return [name for name in self.devices if model.run_ns.get(name)]

    def width(self, model: Model, device: str) -> int:
        """The lanes that a run of it takes."""
        return min(model.threads, self.devices[device].lanes)

    def shares(self, model: Model, devices: Sequence[str]) -> dict[str, float]:
        """About how its rows are shared out over devices, when all of them are needed: by their speed."""
        rates = {device: rate(cells) if (cells := model.run_ns.get(device)) else 0.0 for device in devices}
        total = sum(rates.values())
        return {device: one / total if total else 1 / len(devices) for device, one in rates.items()}

    def taken_by(self, model: Model, devices: Sequence[str]) -> dict[str, float]:
        """The lanes that it takes of each unit, if it runs there: a run is in progress for a part of the time."""
        found: dict[str, float] = {}
        for device, share in self.shares(model, devices).items():
            if device not in self.devices:
                continue
            cells = model.run_ns.get(device)
            runs = model.busy * share
            if cells:
                runs = min(model.instances, model.rows_per_s * share * cells[0][1] / cells[0][0] / 1e9)
            unit = self.devices[device].unit
            found[unit] = found.get(unit, 0.0) + runs * self.width(model, device)
        return found

    def stretch(self, model: Model, device: str, own_runs: float = 1.0) -> float:
        """How much longer its runs take there for what is done beside them."""
        unit, lanes = self.devices[device].unit, self.devices[device].lanes
        others = self.taken[unit] - self.taken_by(model, model.devices).get(unit, 0.0)
        return max(1.0, (self.width(model, device) * max(1.0, own_runs) + others) / lanes)

    def answer(self, model: Model, devices: Sequence[str]) -> Estimate:
        """What its requests take, if it runs there; it can."""
        alone = [self._on(model, device, model.rows_per_s) for device in devices]
        # Slower devices wait until the fastest is not enough: server/_fast/device_turns.
        best = min(alone, key=lambda one: one.cost)
        if len(devices) == 1:
            return best
        rates = {device: rate(model.run_ns[device]) / self.stretch(model, device) for device in devices}
        shares = {device: one / sum(rates.values()) for device, one in rates.items()}
        parts = [(share, self._on(model, device, model.rows_per_s * share)) for device, share in shares.items()]
        together = Estimate(sum(share * one.ns for share, one in parts), max(one.pressure for _, one in parts))
        return min(best, together, key=lambda one: one.cost)

    def _on(self, model: Model, device: str, rows_per_s: float) -> Estimate:
        cells = model.run_ns[device]
        runs = min(model.instances, rows_per_s * cells[0][1] / cells[0][0] / 1e9)
        return answer(cells, rows_per_s / model.instances, self.stretch(model, device, runs))

    def has_room(self, model: Model, devices: Sequence[str]) -> bool:
        """For all of it: what it has now stays until the other serves."""
        return all(
            free is None or model.memory_bytes <= free for free in (self.devices[name].free_bytes for name in devices)
        )

    def total(self) -> float:
        """What the requests of a second take together."""
        return sum(
            model.rows_per_s * self.answer(model, model.devices).cost
            for model in self.models
            if model.rows_per_s and model.devices and all(model.run_ns.get(device) for device in model.devices)
        )

    def with_place(self, model: Model, devices: tuple[str, ...]) -> _View:
        moved = model._replace(devices=devices)
        models = [moved if one.name == model.name else one for one in self.models]
        return _View(self.snapshot._replace(models=models))


def _homeless(view: _View) -> Iterator[Put]:
    for model in view.models:
        able = [name for name in view.able(model) if view.has_room(model, (name,))]
        if model.devices or not able:
            continue
        best, best_cost = able[0], MARGIN
        for device in able[1:]:
            cost = _cost(view, model, device, able[0])
            if cost is not None and cost <= best_cost:
                best, best_cost = device, cost
        there = view.answer(model, (best,)) if model.rows_per_s else None
        yield Put(model.name, (best,), None, there)


def _cost(view: _View, model: Model, device: str, base: str) -> float | None:
    """What a request takes there, in terms of what it takes on another device."""
    if model.rows_per_s:
        return view.answer(model, (device,)).cost / view.answer(model, (base,)).cost
    times = ratio(model.run_ns[device], model.run_ns[base])
    return None if times is None else times * view.stretch(model, device) / view.stretch(model, base)


def _candidates(view: _View, model: Model) -> Iterator[tuple[str, ...]]:
    """Other lists of devices for a model: another one, or one more beside those that it has."""
    units = {view.devices[device].unit for device in model.devices}
    for device in view.able(model):
        if device in model.devices:
            continue
        yield (device,)
        if view.devices[device].unit not in units:
            yield (*model.devices, device)


def _is_settled(view: _View, model: Model) -> bool:
    """Whether it runs where the rules know what it does, and is asked for."""
    able = view.able(model)
    return model.is_movable and model.rows_per_s > 0 and bool(model.devices) and set(model.devices) <= set(able)


def _better_elsewhere(view: _View) -> Iterator[Put]:
    found: list[tuple[float, Put]] = []
    for model in filter(lambda one: _is_settled(view, one), view.models):
        here = view.answer(model, model.devices)
        for devices in _candidates(view, model):
            there = view.answer(model, devices)
            # A second device takes memory, which has to be worth it.
            gain = there.cost / here.cost * KEEP ** (len(devices) - 1)
            if gain <= GAIN and view.has_room(model, devices):
                found.append((gain, Put(model.name, devices, here, there)))
    if not found:
        return
    total = view.total()
    models = {model.name: model for model in view.models}
    for _, place in sorted(found, key=lambda one: (one[0], one[1].model, one[1].devices))[:MAX_WEIGHED]:
        if view.with_place(models[place.model], place.devices).total() <= total:
            yield place


def _spare(view: _View) -> Iterator[Put]:
    for model in view.models:
        if len(model.devices) < 2 or not model.is_movable or not set(model.devices) <= set(view.able(model)):
            continue
        here = view.answer(model, model.devices)
        for least in sorted(model.devices, key=lambda device: (rate(model.run_ns[device]), device)):
            rest = tuple(device for device in model.devices if device != least)
            there = view.answer(model, rest)
            if there.cost <= KEEP * here.cost and view.has_room(model, rest):
                yield Put(model.name, rest, here, there)


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
