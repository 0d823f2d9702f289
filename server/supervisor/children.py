"""Child processes by fork: what a child must shed, and a handle that sees its death."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
from collections.abc import Callable

from server import log

#: PyInstaller's and Python's own exit status for an unhandled error.
EXIT_CRASHED = 70


class Child:
    """A running child: its pid, and a pidfd that becomes readable when it dies. close() after reap()."""

    def __init__(self, pid: int, pidfd: int, role: str) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.role = role
        #: When it was first seen ready to serve; 0: not yet.
        self.ready_ns = 0

    def reap(self) -> int:
        """Waits for the end; the exit status, negative for a signal. The pid is free for others afterwards."""
        _, status = os.waitpid(self.pid, 0)
        os.close(self.pidfd)
        return os.waitstatus_to_exitcode(status)

    def shed(self) -> None:
        """In another child: closes the handle."""
        os.close(self.pidfd)

    def kill(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)


def start_child(role: str, comm: str, main: Callable[[], int], shed: Callable[[], None]) -> Child:
    """Forks a child that runs `main` and exits with its result; `shed` closes in the child what is not its own.

    The caller must have one thread. The child ignores SIGINT and SIGTERM: those are for the supervisor, which tells its
    children through shared memory. Raises OSError when the system has no process or descriptor left.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        try:
            return Child(pid, os.pidfd_open(pid), role)
        except OSError:
            # Nobody would see its end.
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
    status = EXIT_CRASHED
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
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
