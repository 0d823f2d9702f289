"""Giving way while a model loads, and being as before afterwards, threads that were started meanwhile included."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from server.executor import yielding
from tests.support.faults import wait_until


def classes() -> set[int]:
    """The scheduling classes of all threads."""
    return {os.sched_getscheduler(int(name)) for name in os.listdir("/proc/self/task")}


@pytest.fixture
def pool() -> Iterator[threading.Thread]:
    """A thread that a block starts and that stays, as ONNX Runtime's do."""
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    yield thread
    over.set()
    thread.join()


def test_everything_is_as_before_afterwards(pool: threading.Thread) -> None:
    before = os.sched_getscheduler(0)
    with yielding.yielding():
        inside = os.sched_getscheduler(0)
        pool.start()
    assert inside in (os.SCHED_IDLE, before)
    assert classes() == {before}


def test_an_error_leaves_nothing_behind() -> None:
    with pytest.raises(KeyError), yielding.yielding():
        raise KeyError
    assert classes() == {os.SCHED_OTHER}


def test_the_idle_class_is_left_in_time(pool: threading.Thread) -> None:
    if not yielding.may_come_back():
        pytest.skip("this process may not leave the idle class")
    with yielding.yielding(0.05):
        assert os.sched_getscheduler(0) == os.SCHED_IDLE
        pool.start()
        wait_until(lambda: classes() == {os.SCHED_OTHER}, "everybody out of the idle class")


def test_without_the_right_to_come_back_nobody_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yielding, "may_come_back", lambda: False)
    with yielding.yielding():
        assert classes() == {os.SCHED_OTHER}


def test_a_slice_that_the_kernel_does_not_know_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yielding, "_SYSTEM_CALLS", {})
    assert yielding.set_slice(0, yielding.SLICE_NS) is False
    with yielding.yielding():
        pass
