"""Who loads a model, or ends, gives way to those who serve: the supervisor while it looks for it, its executor until it
is ready and again when it has served its last batch.

A thread that wakes up may have to wait until the one that runs has used up its slice, which the kernel notices every
few milliseconds, and requests of models that are served on the same core would show it. It takes the core at once from
a thread in the idle class, and mostly from one that is nicer by NICE; slices of another length change nothing (ADR 20).
On a core without a moment to spare the idle class never gets on: the supervisor leaves it where that shows, an executor
after IDLE_S, and is nicer from then on.

All of that only where a thread may take it back afterwards, which is a privilege (CAP_SYS_NICE).
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
from collections.abc import Iterator

#: So much nicer: a twentieth of a core where others want all of it.
NICE = 10
IDLE_S = 3.0
_PLAIN = os.sched_param(0)
#: A thread of the idle class that waits so long for its core has to leave it.
BUSY_NS = 4_000_000
#: The niceness of those who serve, as soon as somebody has another one.
_serving_nice: int | None = None
#: Whether this process, or the one that forked it, is within aside().
_is_aside = False
#: Ends the stay in the idle class.
_timer: threading.Timer | None = None


@functools.cache
def may_come_back() -> bool:
    """Whether a thread of this process, or of one that it forks, may leave the idle class again, and be less nice.
    Asked once.
    """
    found: list[bool] = []

    def probe() -> None:
        try:
            os.sched_setscheduler(0, os.SCHED_IDLE, _PLAIN)
            os.sched_setscheduler(0, os.SCHED_OTHER, _PLAIN)
            _be_nicer()
            _everybody_serves([str(threading.get_native_id())])
            found.append(True)
        except OSError:
            pass

    thread = threading.Thread(target=probe)
    thread.start()
    thread.join()
    return bool(found)


def _be_nicer() -> None:
    """The calling thread, once."""
    global _serving_nice
    if _serving_nice is None:
        _serving_nice = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, 0, min(19, _serving_nice + NICE))


def _leave_idle(threads: list[str]) -> None:
    for name in threads:
        with contextlib.suppress(ProcessLookupError):
            if os.sched_getscheduler(int(name)) == os.SCHED_IDLE:
                os.sched_setscheduler(int(name), os.SCHED_OTHER, _PLAIN)


def _everybody_serves(threads: list[str]) -> None:
    """These threads are in no idle class and as nice as those who serve."""
    _leave_idle(threads)
    for name in threads:
        with contextlib.suppress(ProcessLookupError):
            if _serving_nice is not None and os.getpriority(os.PRIO_PROCESS, int(name)) != _serving_nice:
                os.setpriority(os.PRIO_PROCESS, int(name), _serving_nice)


def _threads() -> list[str]:
    return os.listdir("/proc/self/task")


@contextlib.contextmanager
def aside() -> Iterator[None]:
    """For a block in a process of one thread, in the idle class unless its core is busy; what it forks gives way until
    it says end().
    """
    global _is_aside
    if _is_aside or os.sched_getscheduler(0) != os.SCHED_OTHER or not may_come_back():
        yield
        return
    _is_aside = True
    os.sched_setscheduler(0, os.SCHED_IDLE, _PLAIN)
    asked_ns = time.monotonic_ns()
    os.sched_yield()
    if time.monotonic_ns() - asked_ns > BUSY_NS:
        os.sched_setscheduler(0, os.SCHED_OTHER, _PLAIN)
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, _PLAIN)
        _is_aside = False


def begin(idle_s: float = IDLE_S) -> None:
    """This process and the threads that it starts give way until end(). Leaves alone who was given another class."""
    global _timer
    if not (_is_aside or os.sched_getscheduler(0) == os.SCHED_OTHER) or not may_come_back():
        return
    # The class first: what starts a thread takes its time, too.
    os.sched_setscheduler(0, os.SCHED_IDLE, _PLAIN)
    _be_nicer()
    _timer = threading.Timer(idle_s, lambda: _leave_idle(_threads()))
    _timer.daemon = True
    _timer.start()


def end() -> None:
    """All threads of this process serve from now on."""
    global _timer, _is_aside
    if _timer is not None:
        _timer.cancel()
        _timer.join()
        _timer = None
    if _is_aside or _serving_nice is not None:
        _everybody_serves(_threads())
    _is_aside = False


def leave() -> None:
    """For a process that ends: others go before it while its memory is taken apart. Nobody needs a privilege for that.
    Not the idle class: on a core without a moment to spare the memory would not come back.
    """
    own = os.getpriority(os.PRIO_PROCESS, 0)
    for name in _threads():
        with contextlib.suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, int(name), min(19, own + NICE))


@contextlib.contextmanager
def in_background() -> Iterator[None]:
    """For a block in a thread of a process that serves meanwhile. Not in the idle class: who holds what the serving
    threads wait for, the interpreter's lock above all, has to come on.
    """
    if may_come_back():
        _be_nicer()
    try:
        yield
    finally:
        # Threads that the block started are as nice as it was.
        end()
