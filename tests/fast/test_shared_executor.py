"""What the supervisor does with a shared executor: who is suspected of a death, who waits, who is tried first.

The processes are puppets that say what a real one says; lanes, rings and the loop are real.
"""

from __future__ import annotations

import functools
import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from server._fast.layout import Control
from server.channel import Channel
from server.config import ModelSource, ServeConfig
from server.models.repository import ModelVersion
from server.models.sources import Repository
from server.supervisor.lanes import Lane
from server.supervisor.loop import Loop
from server.supervisor.shared_executor import MAX_LOAD_DEATHS, SharedExecutor
from tests.support.onnx_writer import identity, write_repository

LOADING, READY, FAILED = 0, 1, 3
PATIENCE_NS = 10_000_000_000
FOR_EVER_S = 60

#: What a puppet does with a lane: load it, fail to load it, now or for good, or die of it.
LOADS, LACKS, FAILS, DIES = "loads", "lacks", "fails", "dies"


class Pool:
    """The supervisor and its pool of executors, as far as a shared executor knows them."""

    def __init__(self, versions: list[ModelVersion]) -> None:
        self.loop = Loop()
        self.control = Control.create(1, 0)
        self.bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.executor = SharedExecutor("cpu", self.loop, self.control, self)
        config = ServeConfig(executors="shared")
        self.lanes = {
            version.name: Lane(number, version, config, 1, group="cpu", bells=self.executor.bells)
            for number, version in enumerate(versions)
        }
        self.does = dict.fromkeys(self.lanes, LOADS)
        self.tried: list[str] = []
        self.failed: list[str] = []
        self.over: list[str] = []
        self.is_gone = False
        self.is_broken = False
        self.started: list[list[str]] = []
        self.loop.watch(self.bell, self.on_bell)

    # -- what the executor asks of it

    def shared_executor_main(self, executor: SharedExecutor, lanes: list[Lane], channel: Channel) -> int:
        """A puppet's life. New lanes are known by their number; their segments are mapped since the fork."""
        known = {lane.number: lane for lane in self.lanes.values()}
        if self.is_broken:
            return 70
        waiting = list(lanes)
        held: set[int] = set()
        deadline = time.monotonic() + FOR_EVER_S
        while time.monotonic() < deadline:
            while waiting:
                lane = waiting.pop(0)
                channel.send({"kind": "loading", "lane": lane.number})
                if self.does[lane.name] == DIES:
                    os.kill(os.getpid(), signal.SIGKILL)
                if self.does[lane.name] == FAILS:
                    lane.arena.set_state(FAILED, "it is broken")
                    channel.send({"kind": "failed", "lane": lane.number})
                    continue
                if self.does[lane.name] == LACKS and lane.arena.ready_ns == 0:
                    # Once: the time of the next try is kept where all processes see it.
                    lane.arena.set_state(READY, "")
                    lane.arena.set_state(LOADING, "")
                    channel.send({"kind": "again", "lane": lane.number})
                    continue
                held.add(lane.number)
                lane.arena.set_state(READY, "")
                os.eventfd_write(self.bell, 1)
            message = channel.receive()
            if message is None:
                time.sleep(0.001)
                continue
            document, descriptors = message
            for fd in descriptors:
                os.close(fd)
            if document["kind"] == "end":
                return 0
            if document["kind"] == "drop":
                held.discard(document["lane"])
                channel.send({"kind": "over", "lane": document["lane"]})
            else:
                waiting.append(known[document["lane"]])
        return 1

    def shed_for_shared_executor(self, executor: SharedExecutor) -> None:
        self.loop.shed()

    def may_start_executor(self) -> bool:
        if self.executor.child is None:
            self.started.append(sorted(name for name, lane in self.lanes.items() if self.executor.has(lane)))
        return True

    def try_first(self, lane: Lane) -> None:
        """It always goes well."""
        self.tried.append(lane.name)
        self.executor.put(lane)

    def on_load_failed(self, lane: Lane) -> None:
        self.failed.append(lane.name)

    def on_lane_over(self, lane: Lane) -> None:
        self.over.append(lane.name)

    def on_shared_gone(self) -> None:
        self.is_gone = True

    def ring_everybody(self) -> None:
        pass

    # -- what tests do

    def on_bell(self) -> None:
        os.eventfd_read(self.bell)
        for lane in self.lanes.values():
            self.executor.note_ready(lane, time.monotonic_ns())

    def run_until(self, condition: Callable[[], bool]) -> None:
        give_up_ns = time.monotonic_ns() + PATIENCE_NS

        def look() -> None:
            if condition() or time.monotonic_ns() > give_up_ns:
                self.loop.stop()
            else:
                self.loop.after(1_000_000, look)

        self.loop._is_stopped = False
        look()
        self.loop.run()
        assert condition()

    def states(self, *names: str) -> list[int]:
        return [self.lanes[name].arena.model_state for name in names]

    def ready(self, *names: str) -> Callable[[], bool]:
        """All of them, in a process that lives."""
        return lambda: all(
            state == READY and self.executor.has(self.lanes[name]) and self.executor.child is not None
            for name, state in zip(names, self.states(*names), strict=True)
        )

    def kill(self) -> None:
        """And the executor has seen it."""
        child = self.executor.child
        assert child is not None
        child.kill(signal.SIGKILL)
        self.run_until(lambda: self.executor.child is not child)

    def close(self) -> None:
        self.executor.kill()
        if self.executor.child is not None:
            self.executor.child.reap()
        self.loop.shed()
        for bell in (*self.executor.bells, self.bell):
            os.close(bell)
        if self.executor._channel is not None:
            self.executor._channel.close()
        for lane in self.lanes.values():
            lane.close()
        # It is part of a cycle, and its descriptor is counted.
        del self.control, self.executor._control


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> list[ModelVersion]:
    names = ("a", "b", "c")
    root = write_repository(tmp_path_factory.mktemp("models"), {name: identity("FP32", (-1, 2)) for name in names})
    return Repository((ModelSource(root),)).scan()


@pytest.fixture
def pool(versions: list[ModelVersion]) -> Iterator[Pool]:
    made = Pool(versions)
    yield made
    made.close()


def put(pool: Pool, *names: str) -> None:
    for name in names:
        pool.executor.put(pool.lanes[name])


def running_batch(lane: Lane) -> None:
    """A batch of the lane that somebody runs."""
    claim = lane.ring.claim(0, 1)
    assert claim is not None
    lane.ring.publish(0, claim)
    batch = lane.ring.seal(0, time.monotonic_ns())
    assert isinstance(batch, dict) and lane.ring.take(0, batch) is not None


def test_what_is_there_at_first_is_loaded_in_one_process(pool: Pool) -> None:
    put(pool, "a", "b", "c")
    pool.run_until(pool.ready("a", "b", "c"))
    assert (pool.started, pool.tried, pool.failed) == ([["a", "b", "c"]], [], [])
    child = pool.executor.child
    assert child is not None
    assert {lane.arena.executor_pid for lane in pool.lanes.values()} == {child.pid}


def test_what_comes_later_is_told(pool: Pool) -> None:
    put(pool, "a")
    assert not pool.executor.is_serving_others(pool.lanes["b"])
    pool.run_until(pool.ready("a"))
    assert pool.executor.is_serving_others(pool.lanes["b"])
    assert not pool.executor.is_serving_others(pool.lanes["a"])
    put(pool, "b")
    pool.run_until(pool.ready("a", "b"))
    assert pool.started == [["a"]]


def test_a_model_that_fails_to_load_is_refused_alone(pool: Pool) -> None:
    pool.does["b"] = FAILS
    put(pool, "a", "b", "c")
    pool.run_until(lambda: pool.ready("a", "c")() and pool.failed == ["b"])
    assert len(pool.started) == 1 and not pool.executor.has(pool.lanes["b"])


def test_a_model_that_lacks_something_now_is_loaded_again(pool: Pool) -> None:
    pool.does["b"] = LACKS
    put(pool, "a", "b")
    pool.run_until(pool.ready("a", "b"))
    assert (len(pool.started), pool.failed, pool.control.restarts) == (1, [], (0, 0))


def test_a_death_of_nobody_starts_all_again(pool: Pool) -> None:
    put(pool, "a", "b")
    pool.run_until(pool.ready("a", "b"))
    pool.kill()
    pool.run_until(pool.ready("a", "b"))
    assert (pool.started, pool.tried) == ([["a", "b"], ["a", "b"]], [])
    assert pool.control.restarts == (0, 1)


def test_a_model_that_ends_the_process_when_it_loads_is_given_up(pool: Pool) -> None:
    """Although it can be loaded in a process of its own. The others are there again each time."""
    pool.does["b"] = DIES
    put(pool, "a", "b", "c")
    pool.run_until(lambda: pool.failed == ["b"])
    pool.run_until(pool.ready("a", "c"))
    assert pool.tried == ["b"] * (MAX_LOAD_DEATHS - 1)
    assert pool.control.restarts == (0, MAX_LOAD_DEATHS)
    assert "while it loaded this one" in pool.lanes["b"].arena.model_reason
    # It waits behind the others: they never wait for it.
    assert all({"a", "c"} <= set(names) for names in pool.started)


def test_a_process_that_does_not_come_to_loading_is_given_up(pool: Pool) -> None:
    pool.is_broken = True
    put(pool, "a", "b")
    pool.run_until(lambda: sorted(pool.failed) == ["a", "b"])
    assert sorted(pool.tried) == sorted(["a", "b"] * (MAX_LOAD_DEATHS - 1))
    assert pool.executor.child is None


def test_a_model_that_the_process_dies_with_again_and_again_waits_alone(pool: Pool) -> None:
    put(pool, "a", "b")
    for turn in range(3):
        pool.run_until(pool.ready("a", "b"))
        running_batch(pool.lanes["b"])
        pool.kill()
        # The first early death is forgiven: it is in the next process from the start.
        assert pool.executor.has(pool.lanes["b"]) == (turn == 0)
        pool.run_until(pool.ready("a"))
        assert not pool.lanes["b"].ring.held(), "its batches wait"
    pool.run_until(pool.ready("a", "b"))
    assert pool.started == [["a", "b"], ["a", "b"], ["a"], ["a"]]
    assert pool.tried == []


def test_lanes_that_end_and_the_process_with_the_last(pool: Pool) -> None:
    put(pool, "a", "b")
    pool.run_until(pool.ready("a", "b"))
    for name in ("a", "b"):
        pool.lanes[name].is_over = True
        assert pool.executor.end(pool.lanes[name])
        pool.run_until(functools.partial(pool.over.__contains__, name))
    pool.run_until(lambda: pool.is_gone)
    assert pool.executor.child is None and pool.control.restarts == (0, 0)
    # One that comes now has a new process.
    put(pool, "c")
    pool.run_until(pool.ready("c"))
    assert pool.started == [["a", "b"], ["c"]]


def test_a_lane_that_comes_while_the_process_ends_has_the_next_one(pool: Pool) -> None:
    put(pool, "a")
    pool.run_until(pool.ready("a"))
    pool.lanes["a"].is_over = True
    assert pool.executor.end(pool.lanes["a"])
    pool.run_until(lambda: pool.over == ["a"])
    put(pool, "b")
    pool.run_until(pool.ready("b"))
    assert pool.started == [["a"], ["b"]] and pool.control.restarts == (0, 0)


def test_a_death_while_a_lane_ends(pool: Pool) -> None:
    put(pool, "a", "b")
    pool.run_until(pool.ready("a", "b"))
    child = pool.executor.child
    assert child is not None
    os.kill(child.pid, signal.SIGSTOP)
    pool.lanes["a"].is_over = True
    assert pool.executor.end(pool.lanes["a"])
    child.kill(signal.SIGKILL)
    pool.run_until(lambda: pool.over == ["a"])
    pool.run_until(pool.ready("b"))
    assert pool.started == [["a", "b"], ["b"]]


def test_a_lane_that_waits_alone_and_ends(pool: Pool) -> None:
    put(pool, "a", "b")
    pool.run_until(pool.ready("a", "b"))
    for _ in range(2):
        running_batch(pool.lanes["b"])
        pool.kill()
        pool.run_until(pool.ready("a"))
    assert not pool.executor.has(pool.lanes["b"])
    pool.lanes["b"].is_over = True
    assert not pool.executor.end(pool.lanes["b"])
    pool.run_until(lambda: len(pool.loop._timers) <= 1)
    assert not pool.executor.has(pool.lanes["b"])
