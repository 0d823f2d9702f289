"""Giving way while a model loads, and being as before afterwards, threads that were started meanwhile included."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from server import yielding
from tests.support.faults import wait_until


def of_threads(what: Callable[[int], int]) -> set[int]:
    """Of all threads that are there: a timer's may end meanwhile."""
    found = set()
    for name in os.listdir("/proc/self/task"):
        with contextlib.suppress(ProcessLookupError):
            found.add(what(int(name)))
    return found


def classes() -> set[int]:
    """The scheduling classes of all threads."""
    return of_threads(os.sched_getscheduler)


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


@pytest.fixture
def _privileged() -> None:
    if not yielding.may_come_back():
        pytest.skip("this process may not leave the idle class")


def nices() -> set[int]:
    """How nice all threads are."""
    return of_threads(lambda thread: os.getpriority(os.PRIO_PROCESS, thread))


@pytest.mark.usefixtures("_privileged")
def test_who_has_left_the_idle_class_is_nicer_until_the_end(pool: threading.Thread) -> None:
    before = nices()
    yielding.begin(0.01)
    pool.start()
    wait_until(lambda: classes() == {os.SCHED_OTHER}, "everybody out of the idle class")
    assert os.getpriority(os.PRIO_PROCESS, 0) == min(19, max(before) + yielding.NICE)
    yielding.end()
    assert nices() == before


@pytest.mark.usefixtures("_privileged")
def test_aside_is_the_idle_class_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    with yielding.aside():
        with yielding.aside():
            inside = os.sched_getscheduler(0)
        assert inside == os.sched_getscheduler(0) == os.SCHED_IDLE
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
    monkeypatch.setattr(yielding, "BUSY_NS", -1)
    with yielding.aside():
        assert os.sched_getscheduler(0) == os.SCHED_OTHER, "the core is busy"


@pytest.mark.usefixtures("_privileged")
@pytest.mark.parametrize("gives_way", [False, True])
def test_a_child_that_is_forked_aside_serves_when_it_says_so(*, gives_way: bool) -> None:
    with yielding.aside():
        child = os.fork()
        if not child:
            if gives_way:
                yielding.begin()
            is_right = not gives_way or os.sched_getscheduler(0) == os.SCHED_IDLE
            yielding.end()
            os._exit(0 if is_right and classes() == {os.SCHED_OTHER} else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.usefixtures("_privileged")
def test_who_was_put_into_another_class_stays_there() -> None:
    found: list[int] = []

    def run() -> None:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        yielding.begin()
        with yielding.aside():
            found.append(os.sched_getscheduler(0))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [os.SCHED_BATCH]


@pytest.mark.usefixtures("_privileged")
def test_a_block_in_the_background_of_a_process_that_serves(pool: threading.Thread) -> None:
    before = nices()
    with yielding.in_background():
        assert os.getpriority(os.PRIO_PROCESS, 0) == min(19, max(before) + yielding.NICE)
        assert os.sched_getscheduler(0) == os.SCHED_OTHER
        pool.start()
    assert nices() == before


def test_without_the_right_to_come_back_nobody_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yielding, "may_come_back", lambda: False)
    yielding.begin()
    assert classes() == {os.SCHED_OTHER}


LEAVE = """
import os, threading
from server import yielding

threading.Thread(target=threading.Event().wait, daemon=True).start()
before = os.getpriority(os.PRIO_PROCESS, 0)
yielding.leave()
print({os.getpriority(os.PRIO_PROCESS, int(thread)) - before for thread in os.listdir("/proc/self/task")}, flush=True)
os._exit(0)
"""


def test_who_leaves_is_nicer_with_all_its_threads() -> None:
    done = subprocess.run([sys.executable, "-c", LEAVE], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{{{min(yielding.NICE, 19 - os.getpriority(os.PRIO_PROCESS, 0))}}}"
