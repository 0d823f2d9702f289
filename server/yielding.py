"""Who does not serve gives way to those who do: the supervisor always, an executor until its model is loaded.

A thread that wakes up takes the core at once from one in the idle class and, since Linux 6.12, from one with a longer
slice; else it may have to wait until the other has used up its own, which the kernel notices every few milliseconds,
and requests of models that are served on the same core would show it. So an executor loads in the idle class where it
may take that back afterwards (a privilege), but for IDLE_S at the most: on a machine without a moment to spare it
would never end. Else, and after that, it runs in long slices, which any thread may ask for with sched_setattr(2); its
share of the core stays what it was.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import platform
import struct
import threading
from collections.abc import Iterator

#: The longest that the kernel takes.
SLICE_NS = 100_000_000
IDLE_S = 3.0
_SYSTEM_CALLS = {"x86_64": 314, "aarch64": 274}
#: struct sched_attr: size, policy, flags, nice, priority, runtime, deadline, period.
_ATTRIBUTES = struct.Struct("=IIQiIQQQ")
_PLAIN = os.sched_param(0)
#: Ends the stay in the idle class.
_timer: threading.Timer | None = None


def set_slice(thread: int, slice_ns: int) -> bool:
    """For a thread of this process, 0 being the calling one; 0 ns: the kernel's own choice. Whether it was taken."""
    number = _SYSTEM_CALLS.get(platform.machine())
    if number is None or os.sched_getscheduler(thread) != os.SCHED_OTHER:
        return False
    nice = os.getpriority(os.PRIO_PROCESS, thread)
    attributes = _ATTRIBUTES.pack(_ATTRIBUTES.size, os.SCHED_OTHER, 0, nice, 0, slice_ns, 0, 0)
    return bool(ctypes.CDLL(None).syscall(number, thread, attributes, 0) == 0)


@functools.cache
def may_come_back() -> bool:
    """Whether a thread of this process, or of one that it forks, may leave the idle class again. Asked once."""
    found: list[bool] = []

    def probe() -> None:
        try:
            os.sched_setscheduler(0, os.SCHED_IDLE, _PLAIN)
            os.sched_setscheduler(0, os.SCHED_OTHER, _PLAIN)
            found.append(True)
        except OSError:
            pass

    thread = threading.Thread(target=probe)
    thread.start()
    thread.join()
    return bool(found)


def _everybody(slice_ns: int) -> None:
    """All threads of this process leave the idle class and get this slice."""
    for name in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):
            if os.sched_getscheduler(int(name)) == os.SCHED_IDLE:
                os.sched_setscheduler(int(name), os.SCHED_OTHER, _PLAIN)
            set_slice(int(name), slice_ns)


def stand_back() -> None:
    """The calling thread gives way in its own class, for good; its children do until they say end()."""
    set_slice(0, SLICE_NS)
    # They need not find that out each by itself.
    may_come_back()


def begin(idle_s: float = IDLE_S) -> None:
    """This process and the threads that it starts give way until end(). Leaves alone who was given another class."""
    global _timer
    if os.sched_getscheduler(0) != os.SCHED_OTHER:
        return
    set_slice(0, SLICE_NS)
    if not may_come_back():
        return
    # The class first: what starts a thread takes its time, too.
    os.sched_setscheduler(0, os.SCHED_IDLE, _PLAIN)
    _timer = threading.Timer(idle_s, _everybody, (SLICE_NS,))
    _timer.daemon = True
    _timer.start()


def end() -> None:
    """All threads of this process are as they were before begin() or stand_back()."""
    global _timer
    if _timer is not None:
        _timer.cancel()
        _timer.join()
        _timer = None
    _everybody(0)


@contextlib.contextmanager
def in_long_slices() -> Iterator[None]:
    """For a block in a thread of a process that serves meanwhile. Not in the idle class: who holds what the serving
    threads wait for, the interpreter's lock above all, has to come on.
    """
    set_slice(0, SLICE_NS)
    try:
        yield
    finally:
        # Threads that the block started have its slice.
        _everybody(0)
