"""Giving way while a model loads, and being as before afterwards, threads that were started meanwhile included."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import threading
from collections.abc import Iterator

import pytest

from server import yielding
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


@pytest.fixture(autouse=True)
def _ended() -> Iterator[None]:
    yield
    yielding.end()


def test_everything_is_as_before_afterwards(pool: threading.Thread) -> None:
    before = os.sched_getscheduler(0)
    yielding.begin()
    inside = os.sched_getscheduler(0)
    pool.start()
    yielding.end()
    assert inside in (os.SCHED_IDLE, before)
    assert classes() == {before}


def test_the_end_of_what_did_not_begin() -> None:
    before = classes()
    yielding.end()
    assert classes() == before


def test_the_idle_class_is_left_in_time(pool: threading.Thread) -> None:
    if not yielding.may_come_back():
        pytest.skip("this process may not leave the idle class")
    yielding.begin(0.05)
    assert os.sched_getscheduler(0) == os.SCHED_IDLE
    pool.start()
    wait_until(lambda: classes() == {os.SCHED_OTHER}, "everybody out of the idle class")


def slice_ns() -> int:
    """Of the calling thread, as the kernel says it."""
    attributes = ctypes.create_string_buffer(48)
    number = {"x86_64": 315, "aarch64": 275}[platform.machine()]
    assert ctypes.CDLL(None, use_errno=True).syscall(number, 0, attributes, len(attributes), 0) == 0
    return int.from_bytes(attributes.raw[24:32], sys.byteorder)


def test_a_slice_is_long_until_the_end() -> None:
    """In a thread of its own, whose slice goes with it."""
    found: list[int] = []

    def run() -> None:
        found.append(slice_ns())
        yielding.stand_back()
        found.append(slice_ns())
        yielding.end()
        found.append(slice_ns())

    if not yielding.set_slice(0, 0):
        pytest.skip("this kernel does not let threads choose their slices")
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    before, inside, after = found
    if inside == before:
        pytest.skip("this kernel knows no slices of threads")
    assert inside == yielding.SLICE_NS > before == after


def test_without_the_right_to_come_back_nobody_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yielding, "may_come_back", lambda: False)
    yielding.begin()
    assert classes() == {os.SCHED_OTHER}


def test_a_slice_that_the_kernel_does_not_know_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yielding, "_SYSTEM_CALLS", {})
    assert yielding.set_slice(0, yielding.SLICE_NS) is False
    yielding.begin()
    yielding.end()
