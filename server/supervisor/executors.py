"""The executor processes, started again with what their predecessor left behind: one for each lane, or for all lanes of
a device (server.supervisor.shared_executor). A lane of these may have a process of its own for a while, which only
tries whether its model can be loaded.
"""

from __future__ import annotations

import functools
import signal
import time
from collections import deque
from typing import Protocol

from server import log
from server._fast.layout import Control
from server.channel import Channel
from server.supervisor.children import Child, start_child
from server.supervisor.lanes import MODEL_FAILED, MODEL_HELD, MODEL_LOADING, MODEL_READY, Lane
from server.supervisor.loop import Loop
from server.supervisor.restart_policy import restart_delay_ns
from server.supervisor.shared_executor import SharedExecutor

#: A worker may have been filling rows when its model failed: they are refused after this.
REFUSE_AGAIN_NS = 1_000_000_000
#: How long to wait when the system has no process or descriptor left for a child.
START_AGAIN_NS = 1_000_000_000
#: After so many deaths of its executor before it was ready a model counts as one that cannot be loaded.
MAX_LOAD_DEATHS = 4
#: Of server.executor.process: the model cannot be loaded, and why is in its arena.
EXIT_LOAD_FAILED = 65
#: How long an executor may take to end.
GRACE_NS = 5_000_000_000


class Owner(Protocol):
    """What the pool needs of the supervisor."""

    def executor_main(self, lane: Lane, is_trial: bool) -> int:
        """Runs in the child."""
        ...

    def shared_executor_main(self, executor: SharedExecutor, lanes: list[Lane], channel: Channel) -> int:
        """Runs in the child."""
        ...

    def shed_for_executor(self, lane: Lane | None) -> None:
        """Closes in the child what no executor needs and, unless None, what is not this lane's."""
        ...

    def may_start_executor(self) -> bool: ...
    def ring_everybody(self) -> None:
        """Wakes whoever may wait for something that died."""
        ...

    def on_lane_failed(self, lane: Lane) -> None:
        """The lane's model cannot be loaded."""
        ...

    def on_lane_over(self, lane: Lane) -> None:
        """The executor of a lane that is over has ended, or has let go of it."""
        ...

    def on_shared_gone(self) -> None:
        """A shared executor has ended and is not needed."""
        ...


class Executors:
    """All executors of a server, by the number of their lane."""

    def __init__(self, loop: Loop, control: Control, owner: Owner) -> None:
        self._loop = loop
        self._control = control
        self._owner = owner
        self._children: dict[int, Child] = {}
        #: How long the last executors of a lane served.
        self._served_ns: dict[int, deque[int]] = {}
        #: By the short name of their device.
        self._shared: dict[str, SharedExecutor] = {}

    def __len__(self) -> int:
        return len(self._children) + sum(one.child is not None for one in self._shared.values())

    def shared(self, group: str) -> SharedExecutor:
        """The executor of a device, which may have no process yet."""
        if group not in self._shared:
            self._shared[group] = SharedExecutor(group, self._loop, self._control, self)
        return self._shared[group]

    def _shared_of(self, lane: Lane) -> SharedExecutor | None:
        return None if lane.group is None else self._shared[lane.group]

    def start(self, lane: Lane) -> None:
        """Sees to it that an executor loads and serves the lane."""
        shared = self._shared_of(lane)
        if shared is None or shared.is_serving_others(lane):
            self.try_first(lane)
        else:
            shared.put(lane)

    def try_first(self, lane: Lane) -> None:
        """Starts a process for the lane, again and again while the system has none left: its executor, or one that
        only tries what the shared executor is to do.
        """
        if lane.is_over or not self._owner.may_start_executor():
            return
        lane.restart()

        def shed() -> None:
            self.shed()
            self._owner.shed_for_executor(lane)

        try:
            child = start_child(
                f"executor-{lane.name}",
                f"headrace-e{lane.number}",
                functools.partial(self._owner.executor_main, lane, lane.group is not None),
                shed,
                gives_way=True,
            )
        except OSError as error:
            # The children that live serve on.
            log.error(
                "child_not_started",
                child=f"executor-{lane.name}",
                reason=error.strerror,
                again_in_ms=START_AGAIN_NS // 10**6,
            )
            self._loop.after(START_AGAIN_NS, functools.partial(self.try_first, lane))
            return
        self._children[lane.number] = child
        lane.arena.executor_pid = child.pid
        self._loop.watch(child.pidfd, functools.partial(self._on_death, lane))

    def child_of(self, lane: Lane) -> Child | None:
        """The process that has the lane, if one lives."""
        shared = self._shared_of(lane)
        if shared is not None and shared.has(lane):
            return shared.child
        return self._children.get(lane.number)

    def loading_since_ns(self, lane: Lane) -> int:
        """When a process began to load the lane's model, if one does or may; else 0."""
        shared = self._shared_of(lane)
        if shared is not None and shared.has(lane):
            return shared.loading_since_ns(lane)
        child = self._children.get(lane.number)
        return 0 if child is None else child.started_ns

    def shed(self) -> None:
        """In another child: closes the executors' handles."""
        for child in self._children.values():
            child.shed()
        for shared in self._shared.values():
            shared.shed()

    def note_ready(self, lane: Lane, now_ns: int) -> None:
        """The lane's model may have become ready."""
        if (shared := self._shared_of(lane)) is not None:
            shared.note_ready(lane, now_ns)
            return
        child = self._children.get(lane.number)
        if child is not None and child.ready_ns == 0 and lane.arena.model_state == MODEL_READY:
            child.ready_ns = now_ns
            lane.was_ready = True

    def end(self, lane: Lane) -> None:
        """Tells the executor of a lane that is over to end; owner.on_lane_over follows."""
        lane.is_over = True
        child = self._children.get(lane.number)
        if child is None:
            shared = self._shared_of(lane)
            if shared is None or not shared.end(lane):
                self._owner.on_lane_over(lane)
            return
        lane.arena.shut_down()
        lane.ring_instances()
        if lane.arena.model_state == MODEL_LOADING:
            # It would load to the end before it looks.
            child.kill(signal.SIGKILL)
        else:
            self._loop.after(GRACE_NS, functools.partial(self._kill, lane.number, child))

    def _kill(self, number: int, child: Child) -> None:
        if self._children.get(number) is child:
            child.kill(signal.SIGKILL)

    def kill_all(self) -> None:
        for child in self._children.values():
            child.kill(signal.SIGKILL)
        for shared in self._shared.values():
            shared.kill()

    # -- what shared executors ask of the pool

    def shared_executor_main(self, executor: SharedExecutor, lanes: list[Lane], channel: Channel) -> int:
        return self._owner.shared_executor_main(executor, lanes, channel)

    def shed_for_shared_executor(self, executor: SharedExecutor) -> None:
        for child in self._children.values():
            child.shed()
        for shared in self._shared.values():
            if shared is not executor:
                shared.shed()
        self._owner.shed_for_executor(None)

    def may_start_executor(self) -> bool:
        return self._owner.may_start_executor()

    def ring_everybody(self) -> None:
        self._owner.ring_everybody()

    def on_lane_over(self, lane: Lane) -> None:
        self._served_ns.pop(lane.number, None)
        self._owner.on_lane_over(lane)

    def on_shared_gone(self) -> None:
        self._owner.on_shared_gone()

    def on_load_failed(self, lane: Lane) -> None:
        """The lane's model cannot be loaded; why stands in its arena."""
        log.error("model_failed", model=lane.name, version=lane.version, reason=lane.arena.model_reason)
        self.refuse_waiting(lane)
        self._owner.on_lane_failed(lane)

    # -- deaths

    def _on_death(self, lane: Lane) -> None:
        self.note_ready(lane, time.monotonic_ns())
        child = self._children.pop(lane.number)
        self._loop.unwatch(child.pidfd)
        status = child.reap()
        lane.arena.executor_pid = 0
        if lane.is_over:
            self._served_ns.pop(lane.number, None)
            self._owner.on_lane_over(lane)
            return
        if status == 0 and (shared := self._shared_of(lane)) is not None:
            # It went well: now where others are served meanwhile.
            shared.put(lane)
            return
        recovered = lane.ring.recover_executor()
        served = self._served_ns.setdefault(lane.number, deque(maxlen=32))
        served.append(time.monotonic_ns() - child.ready_ns if child.ready_ns else 0)
        is_final = lane.arena.model_state == MODEL_FAILED and (status == EXIT_LOAD_FAILED or child.is_aborted)
        if not lane.was_ready and len(served) >= MAX_LOAD_DEATHS and not is_final:
            reason = f"its executor died {len(served)} times while it loaded, the last time with status {status}"
            lane.arena.set_state(MODEL_FAILED, reason)
            # One that the server started with is tried further, ever more seldom: nothing serves in its place.
            is_final = not lane.is_initial
        if lane.arena.model_state == MODEL_FAILED:
            self.on_load_failed(lane)
            if is_final:
                return
        delay_ns = restart_delay_ns(served)
        if lane.was_ready and not lane.await_restart(f"its executor ended with status {status}", delay_ns):
            self.refuse_waiting(lane)
        self._owner.ring_everybody()
        log.error(
            "executor_died",
            pid_dead=child.pid,
            model=lane.name,
            status=status,
            batches_kept=recovered,
            restart_in_ms=delay_ns // 10**6,
            **({"stack": child.stack} if child.stack else {}),
        )
        if child.is_aborted:
            self._control.count_stuck(False)
        else:
            self._control.count_restart(False)
        self._loop.after(delay_ns, functools.partial(self.try_first, lane))

    def refuse_waiting(self, lane: Lane) -> None:
        """Its model does not serve, not soon at least: answers what was accepted while it did."""
        self._refuse_waiting(lane)
        self._loop.after(REFUSE_AGAIN_NS, functools.partial(self._refuse_waiting, lane))

    def _refuse_waiting(self, lane: Lane) -> None:
        if lane.is_over or lane.arena.model_state not in (MODEL_FAILED, MODEL_HELD):
            return
        lane.refuse_waiting()
        self._owner.ring_everybody()
