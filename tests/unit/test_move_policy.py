"""When models move, on a clock of the test's own; and what is asked of a model by its counters."""

from __future__ import annotations

import pytest

from server.models.live_load import device_of
from server.models.placement import Model, Put, Snapshot
from server.supervisor.demand import Counters, Demand, demand, others
from server.supervisor.move_policy import FAILED_REST_NS, FORGET_NS, LOOK_NS, MAX_REST_NS, REST_NS, MovePolicy

MS = 1_000_000
RUN = {"cpu": ((1, MS), (8, 8 * MS)), "openvino:CPU": ((1, 2 * MS), (8, 2_500_000))}
DEVICES = [device_of(name, 4) for name in RUN]
QUIET, BUSY, TOO_BUSY = 100.0, 900.0, 1100.0
THERE = ("openvino:CPU",)


def world(rows_per_s: float, *devices: str, name: str = "a:1") -> Snapshot:
    return Snapshot(DEVICES, [Model(name, devices or ("cpu",), RUN, rows_per_s)])


class Clock:
    def __init__(self) -> None:
        self.policy = MovePolicy()
        self.now_ns = 0

    def look(self, snapshot: Snapshot, after_ns: int = LOOK_NS) -> Put | None:
        self.now_ns += after_ns
        return self.policy.look(self.now_ns, snapshot)

    def moved(self) -> None:
        self.policy.on_moved(self.now_ns, "a:1")


def test_a_demand_of_one_look_moves_nothing() -> None:
    clock = Clock()
    for _ in range(5):
        assert clock.look(world(BUSY)) is None
        assert clock.look(world(QUIET)) is None
    assert clock.look(world(BUSY)) is None
    put = clock.look(world(BUSY))
    assert put is not None and put[:2] == ("a:1", THERE)


def test_an_overload_does_at_once() -> None:
    put = Clock().look(world(TOO_BUSY))
    assert put is not None and put.devices == THERE and put.here is not None and put.here.pressure > 1


def test_it_has_to_find_the_same_twice() -> None:
    """Not once that one model is to go and once that another is."""
    clock = Clock()
    assert clock.look(world(BUSY)) is None
    assert clock.look(world(BUSY, name="b:1")) is None
    assert clock.look(world(BUSY, name="b:1")) is not None


def test_who_has_moved_rests_ever_longer() -> None:
    clock = Clock()
    places, rests_ns = [("cpu",), THERE], []
    for turn in range(7):
        asked = world(QUIET if turn % 2 else TOO_BUSY, *places[turn % 2])
        begun_ns = clock.now_ns
        while clock.look(asked) is None:
            assert clock.now_ns - begun_ns < 2 * MAX_REST_NS
        rests_ns.append(clock.now_ns - begun_ns)
        clock.moved()
    # An overload is seen in the first look after the rest, else it takes a second.
    assert [ns // REST_NS for ns in rests_ns] == [0, 1, 2, 4, 8, 16, 32]


def test_what_was_long_ago_does_not_count() -> None:
    clock = Clock()
    for _ in range(3):
        clock.moved()
    assert clock.look(world(TOO_BUSY), 2 * REST_NS) is None
    assert clock.look(world(QUIET), FORGET_NS + 1) is None
    clock.moved()
    assert clock.look(world(TOO_BUSY), REST_NS) is not None


def test_who_could_not_be_loaded_there_is_left_alone() -> None:
    clock = Clock()
    assert clock.look(world(TOO_BUSY)) is not None
    clock.policy.on_failed(clock.now_ns, "a:1")
    assert clock.look(world(TOO_BUSY), FAILED_REST_NS - 1) is None
    assert clock.look(world(TOO_BUSY), 1) is not None


def test_another_model_of_the_name_is_another_model() -> None:
    """One that was unloaded meanwhile has no past."""
    clock = Clock()
    clock.moved()
    assert clock.look(Snapshot(DEVICES, [])) is None
    assert clock.look(world(TOO_BUSY)) is not None


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (Counters(10, 10, 0, 0), Demand()),
        (Counters(510, 110, 0, 10**9), Demand(250, 0.5)),
        # As many rows in each refused request as in the others; one in each where none was answered.
        (Counters(510, 110, 20, 10**9), Demand(300, 0.5)),
        (Counters(10, 10, 20, 0), Demand(10, 0)),
    ],
)
def test_demand(after: Counters, expected: Demand) -> None:
    assert demand(Counters(10, 10, 0, 0), after, 2 * 10**9) == expected
    assert demand(after, after, 0) == Demand()


@pytest.mark.parametrize(
    ("busy_s", "own_busy", "usable_count", "lane_count", "expected"),
    [
        (0.0, 0.0, 4, 4, 0.0),
        (6.0, 1.0, 4, 4, 2.0),
        # Runs that waited for a processor did not compute.
        (2.0, 3.0, 4, 4, 0.0),
        (8.0, 0.0, 4, 4, 4.0),
        # A quota of 2 of 4 processors: others have the other two first.
        (4.0, 0.0, 4, 2, 0.0),
        (6.0, 0.0, 4, 2, 1.0),
        (6.0, 1.0, 4, 2, 0.0),
    ],
)
def test_other_programs(busy_s: float, own_busy: float, usable_count: int, lane_count: int, expected: float) -> None:
    """In two seconds."""
    assert others(round(busy_s * 1e9), own_busy, 2 * 10**9, usable_count, lane_count) == expected
    assert others(1, 0.0, 0, 4, 4) == 0.0
