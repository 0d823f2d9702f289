"""Placement: each rule by example, then random hosts in which everything that can change does."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence

import pytest

from server.models.placement import (
    FULL,
    Action,
    Device,
    Instance,
    Load,
    Model,
    Nothing,
    Refuse,
    Snapshot,
    Start,
    Stop,
    decide,
    fastest,
    next_device,
)

GIB = 1 << 30
GPU = Device("cuda:0", 8 * GIB)
CPU = Device("cpu", 16 * GIB, lanes=2)
#: Rows to nanoseconds: a GPU that is slow to start and hardly minds rows, a CPU that is the other way round.
ON_GPU = ((1, 1_000_000), (8, 1_200_000))
ON_CPU = ((1, 4_000_000), (8, 24_000_000))


Costs = Mapping[str, Sequence[tuple[int, int]]]
BOTH: Costs = {"cuda:0": ON_GPU, "cpu": ON_CPU}
ONLY_GPU: Costs = {"cuda:0": ON_GPU}


def model(name: str, gib: float = 1, rows_per_s: float = 0, most: int = 1, run_ns: Costs = BOTH) -> Model:
    return Model(name, int(gib * GIB), run_ns, rows_per_s, most)


def settle(snapshot: Snapshot, limit: int = 400) -> tuple[Snapshot, list[Action]]:
    """Does what is decided until nothing is, and what was done; memory is counted anew after every step."""
    done: list[Action] = []
    while not isinstance(action := decide(snapshot), Nothing):
        assert len(done) < limit, done[-6:]
        done.append(action)
        instances = list(snapshot.instances)
        match action:
            case Start(name, device):
                instances.append(Instance(name, device))
            case Stop(name, device):
                instances.remove(Instance(name, device))
            case Refuse(name, reason):
                assert reason
                snapshot = snapshot._replace(refused=snapshot.refused | {name})
        snapshot = snapshot._replace(instances=tuple(instances))
        if isinstance(action, Start):
            check_memory(snapshot)
    return snapshot, done


def check_memory(snapshot: Snapshot) -> None:
    sizes = {one.name: one.memory_bytes for one in snapshot.models}
    for device in snapshot.devices:
        used = sum(sizes.get(name, 0) for name, where in set(snapshot.instances) if where == device.name)
        assert used <= device.memory_bytes, (device, snapshot.instances)


def places(snapshot: Snapshot) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, device in sorted(snapshot.instances):
        found.setdefault(name, []).append(device)
    return found


def test_the_faster_device_first_until_it_is_full() -> None:
    models = [model(name, gib=3) for name in "abc"]
    settled, _ = settle(Snapshot([GPU, CPU], models))
    assert places(settled) == {"a": ["cuda:0"], "b": ["cuda:0"], "c": ["cpu"]}


def test_the_faster_device_first_until_it_is_busy() -> None:
    """A GPU runs 6667 rows a second of this model: two that ask for 4000 each do not go there together."""
    run: Costs = {"cuda:0": ON_GPU, "cpu": ((1, 1_100_000), (8, 1_300_000))}
    models = [model(name, rows_per_s=4000, run_ns=run) for name in "ab"]
    devices = [GPU, CPU._replace(lanes=1)]
    settled, _ = settle(Snapshot(devices, models))
    assert places(settled) == {"a": ["cuda:0"], "b": ["cpu"]}
    idle, _ = settle(Snapshot(devices, [one._replace(rows_per_s=10) for one in models]))
    assert places(idle) == {"a": ["cuda:0"], "b": ["cuda:0"]}


def test_what_is_not_measured_goes_where_it_is_preferred() -> None:
    settled, _ = settle(Snapshot([GPU, CPU], [model("a", run_ns={"cuda:0": (), "cpu": ()})]))
    assert places(settled) == {"a": ["cuda:0"]}


def test_what_was_measured_as_slower_is_not_chosen_for_its_name() -> None:
    slow = ((1, 70_000), (64, 58_000))
    run: Costs = {"openvino": slow, "cpu": ((1, 9_000),)}
    settled, _ = settle(Snapshot([Device("openvino", GIB), CPU], [model("a", run_ns=run)]))
    assert places(settled) == {"a": ["cpu"]}


def test_a_broken_device_is_left_and_used_again() -> None:
    snapshot = Snapshot([GPU, CPU], [model("a")], [Instance("a", "cuda:0")])
    broken, done = settle(snapshot._replace(devices=[GPU._replace(is_healthy=False), CPU]))
    assert done == [Stop("a", "cuda:0"), Start("a", "cpu")]
    # Nothing moves for speed alone: a model that serves stays where it is.
    assert settle(broken._replace(devices=[GPU, CPU]))[1] == []


@pytest.mark.parametrize(
    ("devices", "one", "text"),
    [
        ([CPU], model("a", gib=17), "it needs 17 GiB of memory, cpu has 16 GiB left of 16 GiB; unload"),
        ([CPU], model("a", run_ns=ONLY_GPU), "there is no device that can run it"),
        ([GPU._replace(is_healthy=False)], model("a"), "there is no device that can run it"),
        ([], model("a"), "there is no device that can run it"),
    ],
)
def test_no_place(devices: list[Device], one: Model, text: str) -> None:
    settled, done = settle(Snapshot(devices, [one, model("small", gib=0, run_ns={"cpu": ON_CPU})]))
    refusals = [action for action in done if isinstance(action, Refuse) and action.model == "a"]
    assert len(refusals) == 1 and refusals[0].reason.startswith(text)
    assert "a" not in places(settled)


def test_one_refused_model_does_not_keep_others_out() -> None:
    settled, done = settle(Snapshot([CPU], [model("huge", gib=20), model("small")]))
    assert [type(action).__name__ for action in done] == ["Refuse", "Start"]
    assert places(settled) == {"small": ["cpu"]}


def test_a_replica_gives_way_to_a_model_without_a_place() -> None:
    busy = model("busy", gib=6, rows_per_s=6000, most=2)
    both = [Instance("busy", "cuda:0"), Instance("busy", "cpu")]
    only_there = model("new", gib=5, run_ns=ONLY_GPU)
    settled, done = settle(Snapshot([GPU, CPU], [busy, only_there], both))
    assert done == [Stop("busy", "cuda:0"), Start("new", "cuda:0")]
    assert places(settled) == {"busy": ["cpu"], "new": ["cuda:0"]}


def test_a_busy_model_spreads_and_comes_back() -> None:
    two = [GPU, Device("cuda:1", 8 * GIB), CPU]
    run: Costs = {"cuda:0": ON_GPU, "cuda:1": ON_GPU, "cpu": ON_CPU}
    quiet = model("a", rows_per_s=100, most=4, run_ns=run)
    snapshot, _ = settle(Snapshot(two, [quiet]))
    assert places(snapshot) == {"a": ["cuda:0"]}
    snapshot, done = settle(snapshot._replace(models=[quiet._replace(rows_per_s=6000)]))
    assert done == [Start("a", "cuda:1")]
    # Between the two thresholds nothing comes or goes.
    for rate in (5000, 6500, 9000, 4000):
        snapshot, done = settle(snapshot._replace(models=[quiet._replace(rows_per_s=rate)]))
        assert done == []
    snapshot, done = settle(snapshot._replace(models=[quiet._replace(rows_per_s=3000)]))
    assert done == [Stop("a", "cuda:1")]


def test_a_device_that_is_much_slower_is_no_help() -> None:
    run: Costs = {"cuda:0": ON_GPU, "cpu": ((1, 9_000_000), (8, 72_000_000))}
    slow = model("a", rows_per_s=9000, most=4, run_ns=run)
    assert settle(Snapshot([GPU, CPU], [slow]))[1] == [Start("a", "cuda:0")]


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


@pytest.mark.parametrize(
    ("run_ns", "expected"),
    [
        ({"cpu": [(1, 9), (64, 22)], "openvino": [(1, 72), (64, 58)]}, "cpu"),
        ({"cpu": [(1, 900), (64, 22000)], "openvino": [(1, 700), (64, 12000)]}, "openvino"),
        # A tenth is not worth a change; a size that one was not measured with says nothing.
        ({"cpu": [(1, 100), (8, 100)], "openvino": [(1, 95), (8, 92)]}, "cpu"),
        ({"cpu": [(1, 100)], "openvino": [(8, 1)]}, "cpu"),
        ({"cpu": [(1, 100)], "openvino": [(1, 50)], "cuda:0": [(1, 20)]}, "cuda:0"),
        ({"openvino": [(1, 5)]}, "cpu"),
        ({"cpu": [(1, 0)], "openvino": [(1, 5)]}, "cpu"),
    ],
)
def test_fastest(run_ns: Mapping[str, Sequence[tuple[int, int]]], expected: str) -> None:
    assert fastest(run_ns, "cpu") == expected


# -- random hosts


def random_devices(chance: random.Random) -> list[Device]:
    found = [Device("cpu", chance.randrange(2, 64) * GIB, lanes=chance.choice((1, 2, 8)))]
    found += [Device(f"cuda:{unit}", chance.choice((4, 8, 24, 80)) * GIB) for unit in range(chance.randrange(0, 4))]
    found += [Device("npu:0", 2 * GIB)] if chance.random() < 0.3 else []
    chance.shuffle(found)
    return found


def random_model(chance: random.Random, name: str, devices: Sequence[Device]) -> Model:
    able = [device.name for device in devices if chance.random() < 0.8] or [devices[0].name]
    run_ns: dict[str, Sequence[tuple[int, int]]] = {}
    for device in able:
        one_ns = chance.randrange(50_000, 20_000_000)
        grown = chance.uniform(1.0, 8.0)
        run_ns[device] = ((1, one_ns), (8, int(one_ns * grown))) if chance.random() < 0.9 else ()
    size = chance.choice((0.1, 0.5, 1, 4, 12, 40))
    return Model(name, int(size * GIB), run_ns, chance.choice((0, 1, 100, 5000)), chance.randrange(1, 5))


def check(snapshot: Snapshot, seed: int) -> None:
    """What holds whenever there is nothing to do."""
    where = places(snapshot)
    healthy = {device.name: device for device in snapshot.devices if device.is_healthy}
    sizes = {one.name: one.memory_bytes for one in snapshot.models}
    check_memory(snapshot)
    for one in snapshot.models:
        homes = where.get(one.name, [])
        assert set(homes) <= set(one.run_ns) & set(healthy), (seed, one, homes)
        assert (one.name in snapshot.refused) != bool(homes), (seed, one, homes)
        assert len(homes) <= max(1, one.max_instances) or one.max_instances == 0, (seed, one, homes)
        if homes:
            continue
        # Refused: no device would hold it, even without what others have in addition.
        for name in set(one.run_ns) & set(healthy):
            needed = sum(sizes[other] for other, homes in where.items() if set(homes) == {name})
            assert needed + one.memory_bytes > healthy[name].memory_bytes, (seed, one, name)
    assert set(where) <= set(sizes)


@pytest.mark.parametrize("block", range(10))
def test_random_hosts(block: int) -> None:
    """Devices break and come back, clients come and go, models too: it settles, and what must hold does."""
    for seed in range(block * 60, block * 60 + 60):
        chance = random.Random(seed)
        devices = random_devices(chance)
        models = [random_model(chance, f"m{index}", devices) for index in range(chance.randrange(1, 10))]
        snapshot = Snapshot(devices, models)
        for _ in range(8):
            snapshot = settled_for_good(snapshot)
            check(snapshot, seed)
            shuffled = snapshot._replace(
                models=chance.sample(list(snapshot.models), len(snapshot.models)),
                instances=chance.sample(list(snapshot.instances), len(snapshot.instances)),
            )
            snapshot = changed(chance, snapshot)
            same = shuffled._replace(
                devices=snapshot.devices,
                models=chance.sample(list(snapshot.models), len(snapshot.models)),
                refused=snapshot.refused,
            )
            assert decide(same) == decide(snapshot), seed


def settled_for_good(snapshot: Snapshot) -> Snapshot:
    """Refused models are looked at again, as others have moved meanwhile."""
    for _ in range(10):
        before, (snapshot, _) = snapshot.instances, settle(snapshot._replace(refused=frozenset()))
        if sorted(before) == sorted(snapshot.instances):
            return snapshot
    raise AssertionError("it does not settle")


def changed(chance: random.Random, snapshot: Snapshot) -> Snapshot:
    devices, models = list(snapshot.devices), list(snapshot.models)
    at = chance.randrange(len(devices))
    kind = chance.randrange(4)
    if kind == 0:
        devices[at] = devices[at]._replace(is_healthy=not devices[at].is_healthy)
    elif kind == 1:
        models = [one._replace(rows_per_s=chance.choice((0, 1, 100, 5000, 50_000))) for one in models]
    elif kind == 2 and len(models) > 1:
        models.pop(chance.randrange(len(models)))
    else:
        models.append(random_model(chance, f"n{chance.randrange(10**9)}", devices))
    return snapshot._replace(devices=devices, models=models, refused=frozenset())


def test_load_is_shared() -> None:
    """Models alike on devices alike: each device gets as many as any other, give or take one."""
    devices = [Device(f"cuda:{unit}", 80 * GIB) for unit in range(4)]
    run = {device.name: ON_GPU for device in devices}
    models = [Model(f"m{index}", GIB, run, 1500) for index in range(10)]
    settled, done = settle(Snapshot(devices, models))
    counts = Counter(device for homes in places(settled).values() for device in homes)
    assert len(done) == 10 and max(counts.values()) - min(counts.values()) <= 1
    assert all(count * 1500 / (8e9 / 1_200_000) <= FULL for count in counts.values())
