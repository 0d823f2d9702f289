"""Placement: each rule by example, then random hosts in which everything that can change does."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Mapping, Sequence

import pytest

from server.models.answer_time import Estimate, answer, rate, ratio
from server.models.live_load import device_of, from_text, idle, measured, name_of, to_text, unit_of, without
from server.models.placement import (
    GAIN,
    Device,
    Load,
    Model,
    Nothing,
    Put,
    Snapshot,
    decide,
    next_device,
)

GIB = 1 << 30
MS = 1_000_000
CPU = device_of("cpu", 4)
OPENVINO = device_of("openvino:CPU", 4)
GPU = device_of("cuda:0", 4)
SECOND = device_of("cuda:1", 4)
Costs = Mapping[str, Sequence[tuple[int, int]]]
#: Rows to nanoseconds: a GPU that is slow to start and hardly minds rows, a CPU that is the other way round.
ON_GPU = ((1, 2 * MS), (8, 3 * MS))
ON_CPU = ((1, 1 * MS), (8, 8 * MS))
BOTH: Costs = {"cpu": ON_CPU, "cuda:0": ON_GPU}


def model(name: str, *devices: str, rows_per_s: float = 0, run_ns: Costs = BOTH, **others: object) -> Model:
    return Model(name, devices, run_ns, rows_per_s, threads=4)._replace(**others)


def put(snapshot: Snapshot) -> tuple[str, tuple[str, ...]] | None:
    """What is to be done, without the reason."""
    action = decide(snapshot)
    return None if isinstance(action, Nothing) else action[:2]


def settle(snapshot: Snapshot, limit: int = 60) -> tuple[Snapshot, list[Put]]:
    """Does what is decided until nothing is, and what was done."""
    done: list[Put] = []
    while not isinstance(action := decide(snapshot), Nothing):
        assert len(done) < limit, done[-6:]
        done.append(action)
        models = [one._replace(devices=action.devices) if one.name == action.model else one for one in snapshot.models]
        snapshot = snapshot._replace(models=models)
    return snapshot, done


def places(snapshot: Snapshot) -> dict[str, tuple[str, ...]]:
    return {one.name: one.devices for one in snapshot.models}


# -- how long a request takes


@pytest.mark.parametrize(
    ("rows_per_s", "stretch", "expected"),
    [
        # Nobody waits for anybody; a run is under way half of the time; always, and longer; batches of 2 rows; of 8.
        (0, 1, Estimate(1 * MS, 0)),
        (500, 1, Estimate((1 + 0.5 / 1.6) * MS, 0.2)),
        (500, 2, Estimate((1 + 1 / 1.2) * 2 * MS, 0.4)),
        (1500, 1, Estimate((1 + 1 / 0.8) * 4 / 3 * MS, 0.6)),
        (2500, 1, Estimate((1 + 25) * 3.2 * MS, 1.0)),
        (5000, 1, Estimate((1 + 25) * 3.2 * MS, 2.0)),
    ],
)
def test_answers_of_batches_that_grow(rows_per_s: float, stretch: float, expected: Estimate) -> None:
    found = answer(((1, 1 * MS), (4, 2 * MS), (8, 3_200_000)), rows_per_s, stretch)
    assert found == pytest.approx(expected, rel=1e-3)


def test_answers_get_longer_with_the_demand() -> None:
    cells = ((1, 90_000), (8, 300_000), (64, 2_000_000))
    found = [answer(cells, rows_per_s) for rows_per_s in range(0, 60_000, 100)]
    assert all(one.cost <= other.cost for one, other in itertools.pairwise(found))
    assert found[-1].pressure > 1 > found[0].pressure


def test_what_cannot_keep_up_is_worse_than_what_is_slow() -> None:
    fast, slow = answer(((1, MS),), 1100), answer(((1, 50 * MS), (64, 55 * MS)), 1100)
    assert fast.ns < slow.ns and fast.cost > slow.cost
    assert rate(((1, MS), (8, 2 * MS))) == 4000


def test_ratios_are_those_of_sizes_that_both_have() -> None:
    assert ratio(((1, 200), (8, 100)), ((1, 100), (8, 200), (64, 1))) == pytest.approx(1)
    assert ratio(((1, 200),), ((8, 200),)) is None


# -- a model without a place


@pytest.mark.parametrize(
    ("run_ns", "expected"),
    [
        ({"cpu": [(1, 9), (64, 22)], "openvino:CPU": [(1, 72), (64, 58)]}, "cpu"),
        ({"cpu": [(1, 900), (64, 22000)], "openvino:CPU": [(1, 700), (64, 12000)]}, "openvino:CPU"),
        # A tenth is not worth a change; a size that one was not measured with says nothing.
        ({"cpu": [(1, 100), (8, 100)], "openvino:CPU": [(1, 95), (8, 92)]}, "cpu"),
        ({"cpu": [(1, 100)], "openvino:CPU": [(8, 1)]}, "cpu"),
        ({"cpu": [(1, 100)], "openvino:CPU": [(1, 50)], "cuda:0": [(1, 20)]}, "cuda:0"),
        ({"openvino:CPU": [(1, 5)]}, "openvino:CPU"),
        ({"cpu": (), "openvino:CPU": [(1, 5)]}, "openvino:CPU"),
    ],
)
def test_a_new_model_that_nobody_asks_for_yet(run_ns: Costs, expected: str) -> None:
    """Where its runs are the shortest, over all sizes."""
    assert put(Snapshot([CPU, GPU, OPENVINO], [model("a", run_ns=run_ns)])) == ("a", (expected,))


def test_a_new_model_leaves_a_device_that_others_keep_busy() -> None:
    """Alone it is answered on the GPU in half of the time, and beside one that never rests there in as much."""
    run: Costs = {"cpu": ((1, 2 * MS), (8, 16 * MS)), "cuda:0": ((1, 1_100_000), (8, 8_800_000))}
    new = model("new", run_ns=run)
    assert put(Snapshot([CPU, GPU], [new])) == ("new", ("cuda:0",))
    busy = model("busy", "cuda:0", rows_per_s=3000, run_ns={"cuda:0": ON_GPU})
    assert put(Snapshot([CPU, GPU], [new, busy])) == ("new", ("cpu",))
    # One of which no T(b) is known does as much.
    assert put(Snapshot([CPU, GPU], [new, busy._replace(run_ns={}, busy=0.95)])) == ("new", ("cpu",))
    assert put(Snapshot([CPU, GPU], [new, busy._replace(rows_per_s=10)])) == ("new", ("cuda:0",))


def test_a_new_model_that_is_asked_for_goes_where_that_can_be_run() -> None:
    run: Costs = {"cpu": ((1, MS), (8, 2 * MS)), "cuda:0": ((1, 3 * MS), (8, 3 * MS))}
    assert put(Snapshot([CPU, GPU], [model("a", run_ns=run, rows_per_s=10)])) == ("a", ("cpu",))
    slow: Costs = {**run, "cpu": ON_CPU}
    assert put(Snapshot([CPU, GPU], [model("a", run_ns=slow, rows_per_s=2000)])) == ("a", ("cuda:0",))


def test_no_place() -> None:
    huge = model("a", memory_bytes=2 * GIB)
    small = [CPU._replace(free_bytes=GIB)]
    assert put(Snapshot(small, [huge])) is None
    assert put(Snapshot([*small, GPU], [huge])) == ("a", ("cuda:0",))
    assert put(Snapshot([GPU], [model("a", run_ns={"cpu": ON_CPU})])) is None


# -- models that run


def test_a_model_moves_to_where_its_requests_can_be_run_and_back() -> None:
    """One row takes longer there, many take less."""
    run: Costs = {"cpu": ON_CPU, "openvino:CPU": ((1, 2 * MS), (8, 2_500_000))}
    devices = [CPU, OPENVINO]
    assert put(Snapshot(devices, [model("a", "cpu", run_ns=run, rows_per_s=500)])) is None
    assert put(Snapshot(devices, [model("a", "cpu", run_ns=run, rows_per_s=1200)])) == ("a", ("openvino:CPU",))
    for rows_per_s in (3000, 1200, 800):
        assert put(Snapshot(devices, [model("a", "openvino:CPU", run_ns=run, rows_per_s=rows_per_s)])) is None
    assert put(Snapshot(devices, [model("a", "openvino:CPU", run_ns=run, rows_per_s=100)])) == ("a", ("cpu",))
    # Nobody asks: nothing is to be gained.
    assert put(Snapshot(devices, [model("a", "openvino:CPU", run_ns=run)])) is None


def test_a_model_moves_away_from_a_device_that_others_keep_busy() -> None:
    run: Costs = {"cpu": ((1, 2_200_000), (8, 20 * MS)), "cuda:0": ((1, 2 * MS), (8, 16 * MS))}
    light = model("light", "cuda:0", run_ns=run, rows_per_s=20)
    busy = model("busy", "cuda:0", rows_per_s=3000, run_ns={"cuda:0": ON_GPU})
    action = decide(Snapshot([CPU, GPU], [light, busy]))
    assert action[:2] == ("light", ("cpu",)) and action.here is not None and action.there is not None
    assert action.there.ns < GAIN * action.here.ns
    assert put(Snapshot([CPU, GPU], [light, busy._replace(rows_per_s=10)])) is None
    # What a configuration says stays, and so does what has no room elsewhere.
    assert put(Snapshot([CPU, GPU], [light._replace(is_movable=False), busy])) is None
    full = Snapshot([CPU._replace(free_bytes=GIB), GPU], [light._replace(memory_bytes=2 * GIB), busy])
    assert put(full) is None


def test_nobody_moves_at_the_expense_of_many() -> None:
    """A model that would be answered sooner there would make a hundred times as many requests wait."""
    heavy = model("heavy", "cpu", rows_per_s=8, run_ns={"cpu": ((1, 100 * MS),), "cuda:0": ((1, 60 * MS),)})
    many = model("many", "cuda:0", rows_per_s=800, run_ns={"cuda:0": ((1, MS),)})
    assert put(Snapshot([CPU, GPU], [heavy, many])) is None
    assert put(Snapshot([CPU, GPU], [heavy, many._replace(rows_per_s=8)])) == ("heavy", ("cuda:0",))


def test_a_busy_model_spreads_and_comes_back() -> None:
    run: Costs = {"cpu": ON_CPU, "cuda:0": ON_GPU, "cuda:1": ON_GPU}
    devices = [CPU, GPU, SECOND]
    quiet = model("a", "cuda:0", run_ns=run, rows_per_s=2900)
    snapshot, done = settle(Snapshot(devices, [quiet]))
    assert done and places(snapshot) == {"a": ("cuda:0", "cuda:1")}
    # A little less or more moves nothing.
    for rows_per_s in (2600, 3200, 2400):
        snapshot, done = settle(snapshot._replace(models=[snapshot.models[0]._replace(rows_per_s=rows_per_s)]))
        assert done == [], rows_per_s
    snapshot, done = settle(snapshot._replace(models=[snapshot.models[0]._replace(rows_per_s=0)]))
    assert len(places(snapshot)["a"]) == 1


def test_ways_to_use_one_device_are_not_two_devices() -> None:
    run: Costs = {"cpu": ON_CPU, "openvino:CPU": ON_CPU, "cuda:0": ON_CPU, "tensorrt:0": ON_CPU}
    devices = [CPU, OPENVINO, GPU, device_of("tensorrt:0", 4)]
    snapshot, _ = settle(Snapshot(devices, [model("a", "cpu", run_ns=run, rows_per_s=3000)]))
    assert len({unit_of(device) for device in places(snapshot)["a"]}) == len(places(snapshot)["a"]) == 2
    assert [unit_of(one.name) for one in devices] == ["cpu", "cpu", "gpu0", "gpu0"]
    assert unit_of("cuda:1") == "gpu1" and unit_of("openvino:GPU") == "openvino:GPU"


def test_cores_that_are_left_are_no_reason_to_go() -> None:
    """A busy model of two threads leaves two of four processors to another one."""
    run: Costs = {"cpu": ((1, 2 * MS),), "cuda:0": ((1, 2_500_000),)}
    light = model("light", "cpu", run_ns=run, rows_per_s=20, threads=2)
    busy = model("busy", "cpu", rows_per_s=5000, run_ns={"cpu": ON_CPU}, threads=2)
    assert put(Snapshot([CPU, GPU], [light, busy])) is None
    assert put(Snapshot([CPU, GPU], [light._replace(threads=4), busy._replace(threads=4)])) == ("light", ("cuda:0",))


def test_other_programs_are_a_load_too() -> None:
    run: Costs = {"cpu": ((1, 2 * MS),), "cuda:0": ((1, 2_500_000),)}
    mine = model("mine", "cpu", run_ns=run, rows_per_s=20)
    foreign = Model("other programs", ("cpu",), {}, busy=3.5, is_movable=False)
    assert put(Snapshot([CPU, GPU], [mine, foreign])) == ("mine", ("cuda:0",))
    assert put(Snapshot([CPU, GPU], [mine, foreign._replace(busy=0.5)])) is None
    assert put(Snapshot([CPU, GPU], [mine._replace(threads=1), foreign._replace(busy=2.9)])) is None
    assert put(Snapshot([CPU, GPU], [mine._replace(devices=()), foreign])) == ("mine", ("cuda:0",))


# -- the text for an executor


def test_what_an_executor_is_told() -> None:
    busy = model("busy:1", "cuda:0", rows_per_s=3000, memory_bytes=9)
    snapshot = Snapshot([CPU._replace(free_bytes=5), GPU], [model("a:1", "cpu", rows_per_s=70), busy])
    told = from_text(to_text(without(snapshot, "a", 2)))
    assert told == Snapshot([CPU._replace(free_bytes=5), GPU], [busy, Model(name_of("a", 2), (), {}, 70)])
    found = measured(told, {"cpu": ON_CPU, "openvino:CPU": ON_CPU}, threads=3, instances=2)
    assert [device.name for device in found.devices] == ["cpu", "openvino:CPU", "cuda:0"]
    assert {device.lanes for device in found.devices[:2]} == {4} and found.devices[0].free_bytes is None
    assert found.models[-1] == Model("a:2", (), {"cpu": ON_CPU, "openvino:CPU": ON_CPU}, 70, threads=3, instances=2)
    assert without(idle(4), "a", 1) == Snapshot([CPU], (Model("a:1", (), {}),))


# -- which device takes the next batch


@pytest.mark.parametrize(
    ("waited_ns", "loads", "expected"),
    [
        (0, [Load("cpu", 0, 40), Load("gpu", 0, 10)], "gpu"),
        # The fast one is worth a wait of 29, not one of 31.
        (0, [Load("cpu", 0, 40), Load("gpu", 129, 10)], None),
        (0, [Load("cpu", 0, 40), Load("gpu", 131, 10)], "cpu"),
        # Not for ever: by now the slow one would be done.
        (40, [Load("cpu", 0, 40), Load("gpu", 129, 10)], "cpu"),
        (39, [Load("cpu", 0, 40), Load("gpu", 129, 10)], None),
        (0, [Load("cpu", 101, 40), Load("gpu", 105, 10)], None),
        (0, [Load("cpu", 0, 40), Load("new", 0, 0), Load("gpu", 0, 10)], "new"),
        (0, [Load("cpu", 0, 40), Load("new", 999, 0)], "cpu"),
        (0, [Load("b", 0, 10), Load("a", 0, 10)], "a"),
        (0, [], None),
    ],
)
def test_next_device(waited_ns: int, loads: list[Load], expected: str | None) -> None:
    assert next_device(100, waited_ns, loads) == expected


# -- random hosts


def random_devices(chance: random.Random) -> list[Device]:
    processors = chance.choice((1, 4, 32))
    names = ["cpu", "openvino:CPU", *(f"cuda:{unit}" for unit in range(chance.randrange(0, 4)))]
    return [device_of(name, processors, chance.choice((None, 64 * GIB, GIB))) for name in names]


def random_model(chance: random.Random, name: str, devices: Sequence[Device]) -> Model:
    able = [device.name for device in devices if chance.random() < 0.8] or [devices[0].name]
    run_ns: dict[str, Sequence[tuple[int, int]]] = {}
    for device in able:
        one_ns = chance.randrange(50_000, 20 * MS)
        run_ns[device] = ((1, one_ns), (8, int(one_ns * chance.uniform(1.0, 8.0))))
    return Model(
        name,
        (),
        run_ns,
        chance.choice((0, 1, 100, 5000)),
        threads=chance.choice((1, 4)),
        instances=chance.choice((1, 1, 2)),
        memory_bytes=chance.choice((0, GIB // 2, 4 * GIB)),
    )


def check(snapshot: Snapshot, seed: int) -> None:
    """What holds whenever there is nothing to do."""
    room = {device.name: device.free_bytes for device in snapshot.devices}
    for one in snapshot.models:
        assert set(one.devices) <= set(one.run_ns), (seed, one)
        assert len({unit_of(device) for device in one.devices}) == len(one.devices), (seed, one)
        if not one.devices:
            assert all((room[name] or one.memory_bytes) < one.memory_bytes for name in one.run_ns), (seed, one)


@pytest.mark.parametrize("block", range(10))
def test_random_hosts(block: int) -> None:
    """Clients come and go, models too: it comes to rest, and what must hold does."""
    for seed in range(block * 40, block * 40 + 40):
        chance = random.Random(seed)
        devices = random_devices(chance)
        models = [random_model(chance, f"m{index}", devices) for index in range(chance.randrange(1, 9))]
        snapshot = Snapshot(devices, models)
        for _ in range(6):
            snapshot, _ = settle(snapshot)
            check(snapshot, seed)
            snapshot = changed(chance, snapshot)
            shuffled = snapshot._replace(models=chance.sample(list(snapshot.models), len(snapshot.models)))
            assert decide(shuffled) == decide(snapshot), seed


def changed(chance: random.Random, snapshot: Snapshot) -> Snapshot:
    models = list(snapshot.models)
    kind = chance.randrange(3)
    if kind == 0:
        models = [one._replace(rows_per_s=chance.choice((0, 1, 100, 5000, 50_000))) for one in models]
    elif kind == 1 and len(models) > 1:
        models.pop(chance.randrange(len(models)))
    else:
        models.append(random_model(chance, f"n{chance.randrange(10**9)}", snapshot.devices))
    return snapshot._replace(models=models)


def test_load_is_shared() -> None:
    """Models alike on devices alike: each device gets as many as any other, give or take one."""
    devices = [device_of(f"cuda:{unit}", 4) for unit in range(4)]
    run = {device.name: ON_GPU for device in devices}
    models = [Model(f"m{index}", (), run, 400) for index in range(10)]
    snapshot, _ = settle(Snapshot(devices, models))
    counts = Counter(device for homes in places(snapshot).values() for device in homes)
    assert sum(counts.values()) == 10 and max(counts.values()) - min(counts.values()) <= 1
