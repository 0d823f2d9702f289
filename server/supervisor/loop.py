"""The supervisor's event loop: descriptors to watch, timers, signals. One thread, no callbacks from anywhere else."""

from __future__ import annotations

import contextlib
import functools
import os
import selectors
import signal
import time
from collections import deque
from collections.abc import Callable

#: Without timers the loop looks around this often.
IDLE_NS = 60_000_000_000


class Loop:
    """`run` calls back until `stop`. Callbacks may watch, unwatch and set timers."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[int, Callable[[], None]]] = []
        self._signals: deque[int] = deque()
        self._on_signal: Callable[[int], None] = lambda number: None
        self._signal_pipe: tuple[int, int] | None = None
        self._is_stopped = False

    def watch(self, fd: int, readable: Callable[[], object]) -> None:
        """Calls `readable` whenever the descriptor has something to read."""
        self._selector.register(fd, selectors.EVENT_READ, readable)

    def unwatch(self, fd: int) -> None:
        """Nothing happens if it is not watched."""
        with contextlib.suppress(KeyError):
            self._selector.unregister(fd)

    def after(self, delay_ns: int, action: Callable[[], None]) -> None:
        """Calls `action` once, when the time has passed."""
        self._timers.append((time.monotonic_ns() + delay_ns, action))

    def watch_signals(self, numbers: tuple[signal.Signals, ...], action: Callable[[int], None]) -> None:
        """Calls `action` with each signal that arrives, from the loop and not from a handler."""
        read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in numbers:
            signal.signal(number, lambda number, _frame: self._signals.append(number))
        self._on_signal = action
        self._signal_pipe = (read, write)
        self.watch(read, functools.partial(os.read, read, 4096))

    def run(self) -> None:
        """Until stop()."""
        while not self._is_stopped:
            now_ns = time.monotonic_ns()
            timeout_ns = min((due for due, _ in self._timers), default=now_ns + IDLE_NS) - now_ns
            for key, _ in self._selector.select(max(0, timeout_ns) / 1e9):
                # What came before it in this round may have ended it: a death closes the channel beside it.
                if self._selector.get_map().get(key.fd) is key:
                    key.data()
            now_ns = time.monotonic_ns()
            due = [action for at, action in self._timers if at <= now_ns]
            self._timers = [timer for timer in self._timers if timer[0] > now_ns]
            for action in due:
                action()
            while self._signals:
                self._on_signal(self._signals.popleft())

    def stop(self) -> None:
        """run() returns after the present round."""
        self._is_stopped = True

    def shed(self) -> None:
        """In a child: closes what belongs to the parent's loop."""
        self._selector.close()
        if self._signal_pipe is not None:
            os.close(self._signal_pipe[0])
            os.close(self._signal_pipe[1])
