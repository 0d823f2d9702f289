"""Child processes by fork: what a child must shed, and a handle that sees its death."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import re
import signal
import sys
import time
from collections.abc import Callable

from server import log, yielding

#: PyInstaller's and Python's own exit status for an unhandled error.
EXIT_CRASHED = 70


#: What is kept of the stacks of a child that crashed.
MAX_STACK_BYTES = 16384
_FRAME = re.compile(r'  File "(?:[^"]*/)?([^"/]*)", line (\d+) in (.*)')


class Child:
    """A running child: its pid, and a pidfd that becomes readable when it dies."""

    def __init__(self, pid: int, pidfd: int, role: str, stack_fd: int) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.role = role
        self.started_ns = time.monotonic_ns()
        #: When it was first seen ready to serve; 0: not yet.
        self.ready_ns = 0
        #: It has been told to end for standing still.
        self.is_aborted = False
        #: After reap(): where each of its threads was when it crashed or was aborted, else empty.
        self.stack = ""
        self._stack_fd = stack_fd

    def reap(self) -> int:
        """Waits for the end; the exit status, negative for a signal. The pid is free for others afterwards."""
        _, status = os.waitpid(self.pid, 0)
        self.stack = short_stack(os.pread(self._stack_fd, MAX_STACK_BYTES, 0).decode("utf-8", "replace"))
        self.shed()
        self.pidfd = -1
        return os.waitstatus_to_exitcode(status)

    def shed(self) -> None:
        """In another child: closes the handles."""
        os.close(self.pidfd)
        os.close(self._stack_fd)

    def kill(self, number: int) -> None:
        """Nothing happens if it has been reaped."""
        if self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, number)


def short_stack(text: str) -> str:
    """faulthandler's text on one line: `run onnx_backend.py:101 < serve runner.py:66`, threads apart by `|`."""
    threads: list[list[str]] = []
    for line in text.splitlines():
        frame = _FRAME.match(line)
        if frame is None:
            threads.append([])
        elif threads:
            threads[-1].append(f"{frame[3]} {frame[1]}:{frame[2]}")
    return " | ".join(" < ".join(thread) for thread in threads if thread)


def start_child(
    role: str, comm: str, main: Callable[[], int], shed: Callable[[], None], *, gives_way: bool = False
) -> Child:
    """Forks a child that runs `main` and exits with its result; `shed` closes in the child what is not its own.
    gives_way: until the child calls yielding.end(), those who serve go before it.

    The caller must have one thread. The child ignores SIGINT and SIGTERM: those are for the supervisor, which tells its
    children through shared memory. Raises OSError when the system has no process or descriptor left.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    stack_fd = os.memfd_create("headrace-stack", os.MFD_CLOEXEC)
    try:
        pid = os.fork()
    except OSError:
        os.close(stack_fd)
        raise
    if pid:
        try:
            return Child(pid, os.pidfd_open(pid), role, stack_fd)
        except OSError:
            os.close(stack_fd)
            # Nobody would see its end.
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
    status = EXIT_CRASHED
    try:
        if gives_way:
            yielding.begin()
        else:
            yielding.end()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        # Where it was when it crashed, or when it was aborted for standing still: its parent reads that.
        faulthandler.enable(stack_fd)
        shed()
        with contextlib.suppress(OSError), open("/proc/self/comm", "w") as name:
            name.write(comm)
        log.current().role = role
        gc.freeze()
        status = main()
    except BaseException:
        import traceback

        log.error("crashed", traceback=traceback.format_exc())
    finally:
        # Never back into the supervisor's frames, its buffers or its exit handlers.
        os._exit(status)
