"""The executor of a device: one process with the lanes of all its models, which come and go while it runs.

What its death does to them. Each lane's batches are due again, as after the death of an executor of its own. A lane
that it died with (its model was being loaded, or one of its batches ran) is suspected: it waits as long as a model with
such a past would wait for an executor of its own, while the others are served at once. And a model that was being
loaded is loaded in a process of its own first, as every model is that comes while others are served: what ends that
process ends nobody else. Only after it went well there is it loaded here; if the process dies all the same, again and
again, the model counts as one that cannot be loaded.

Loading is told one at a time (server.executor.shared_process), so there is never more than one model that a death in
loading can be about.
"""

from __future__ import annotations

import functools
import os
import signal
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from server import log
from server._fast.layout import Control
from server.channel import Channel, ChannelClosed, Document, pair
from server.models.plan_document import to_document
from server.supervisor.children import Child, start_child
from server.supervisor.lanes import MODEL_FAILED, MODEL_READY, Lane, plan_values
from server.supervisor.loop import Loop
from server.supervisor.restart_policy import restart_delay_ns

#: Of layout.h.
MAX_INSTANCES = 32
#: Of slab_ring.pxd.
SLAB_RUNNING = 4
#: After so many deaths of the process while it loaded a model this one counts as one that cannot be loaded.
MAX_LOAD_DEATHS = 4
START_AGAIN_NS = 1_000_000_000
FLUSH_AGAIN_NS = 10_000_000
#: How long lanes may take to end.
GRACE_NS = 5_000_000_000


class Owner(Protocol):
    """What a shared executor needs of the pool."""

    def shared_executor_main(self, executor: SharedExecutor, lanes: list[Lane], channel: Channel) -> int:
        """Runs in the child."""
        ...

    def shed_for_shared_executor(self, executor: SharedExecutor) -> None:
        """Closes in the child what no executor needs."""
        ...

    def may_start_executor(self) -> bool: ...
    def try_first(self, lane: Lane) -> None:
        """Loads the lane's model in a process of its own; put() follows if that went well."""
        ...

    def on_load_failed(self, lane: Lane) -> None:
        """Why stands in the arena. The lane is not the executor's any more."""
        ...

    def on_lane_over(self, lane: Lane) -> None: ...
    def on_shared_gone(self) -> None:
        """The process has ended and is not needed."""
        ...

    def refuse_waiting(self, lane: Lane) -> None:
        """The lane is held back: answers the requests that wait in it."""
        ...

    def ring_everybody(self) -> None: ...


class SharedExecutor:
    """The process of a device, `group` being its short name, and the lanes that are in it or wait for it."""

    def __init__(self, group: str, loop: Loop, control: Control, owner: Owner) -> None:
        self.group = group
        #: Doorbells of all instances that there may be; each lane has copies of its first ones.
        self.bells = [os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) for _ in range(MAX_INSTANCES)]
        self._loop = loop
        self._control = control
        self._owner = owner
        self._lanes: dict[int, Lane] = {}
        self._child: Child | None = None
        self._channel: Channel | None = None
        self._is_start_due = False
        #: How long the last processes served, and by number of a lane how long it did in those that died with it.
        self._served_ns: deque[int] = deque(maxlen=32)
        self._blamed_ns: dict[int, deque[int]] = {}
        self._load_deaths: dict[int, int] = {}
        #: The process has been told to end.
        self._is_ending = False
        #: The process has begun to load a model.
        self._has_begun = False
        #: The lane whose model the process loads, or has loaded last, and since when.
        self._loading: tuple[int, int] | None = None

    @property
    def child(self) -> Child | None:
        """The process, if it lives."""
        return self._child

    def has(self, lane: Lane) -> bool:
        return lane.number in self._lanes

    def is_serving_others(self, lane: Lane) -> bool:
        """Whether another model than the lane's would suffer if the process died."""
        others = (other for other in self._lanes.values() if other is not lane)
        return any(other.was_ready or other.arena.model_state == MODEL_READY for other in others)

    def loading_since_ns(self, lane: Lane) -> int:
        """When the process began to load the lane's model; 0: it does not."""
        return self._loading[1] if self._loading is not None and self._loading_lane() is lane else 0

    def _loading_lane(self) -> Lane | None:
        lane = self._lanes.get(self._loading[0]) if self._loading is not None else None
        return lane if lane is not None and lane.arena.model_state != MODEL_READY else None

    # -- lanes that come and go

    def put(self, lane: Lane) -> None:
        """The lane is this process's from now on."""
        if lane.is_over:
            return
        self._lanes[lane.number] = lane
        if self._child is None:
            self._start_after(0)
        if self._child is None or self._is_ending:
            return
        lane.arena.executor_pid = self._child.pid
        lane.restart()
        document = {"kind": "lane", "lane": lane.number, "plan": to_document(plan_values(lane))}
        self._send(document, (lane.arena.fd,), functools.partial(self._put_again, lane, self._child))

    def _put_again(self, lane: Lane, child: Child) -> None:
        # A process that was started meanwhile has it from the start.
        if self._child is child and self.has(lane):
            self.put(lane)

    def end(self, lane: Lane) -> bool:
        """Tells the process to let go of a lane that is over; owner.on_lane_over follows. Whether it has the lane."""
        self._blamed_ns.pop(lane.number, None)
        self._load_deaths.pop(lane.number, None)
        if not self.has(lane):
            return False
        if self._child is None:
            del self._lanes[lane.number]
            return False
        lane.arena.shut_down()
        lane.ring_instances()
        drop: Document = {"kind": "drop", "lane": lane.number}
        self._send(drop, (), lambda: None)
        if all(other.is_over for other in self._lanes.values()):
            if self._loading_lane() is not None:
                # It would load to the end before it looks.
                self._child.kill(signal.SIGKILL)
            else:
                self._loop.after(GRACE_NS, functools.partial(self._kill_if_over, self._child))
        return True

    def _kill_if_over(self, child: Child) -> None:
        if all(lane.is_over for lane in self._lanes.values()):
            child.kill(signal.SIGKILL)

    def note_ready(self, lane: Lane, now_ns: int) -> None:
        """The lane's model may have become ready."""
        if self._child is None or not self.has(lane) or lane.arena.model_state != MODEL_READY:
            return
        lane.was_ready = True
        self._load_deaths.pop(lane.number, None)
        self._child.ready_ns = self._child.ready_ns or now_ns

    # -- the process

    def _start_after(self, delay_ns: int) -> None:
        if not self._is_start_due:
            self._is_start_due = True
            self._loop.after(delay_ns, self._start)

    def _start(self) -> None:
        self._is_start_due = False
        if self._child is not None or not self._lanes or not self._owner.may_start_executor():
            return
        lanes = list(self._lanes.values())
        ends: list[Channel] = []
        try:
            ours, theirs = ends = list(pair())

            def shed() -> None:
                ours.close()
                self._owner.shed_for_shared_executor(self)

            child = start_child(
                f"executor-{self.group}",
                f"headrace-e-{self.group}"[:15],
                lambda: self._owner.shared_executor_main(self, lanes, theirs),
                shed,
                gives_way=True,
            )
        except OSError as error:
            for end in ends:
                end.close()
            log.error(
                "child_not_started",
                child=f"executor-{self.group}",
                reason=error.strerror,
                again_in_ms=START_AGAIN_NS // 10**6,
            )
            self._start_after(START_AGAIN_NS)
            return
        theirs.close()
        self._child, self._channel, self._loading = child, ours, None
        self._has_begun = self._is_ending = False
        for lane in lanes:
            lane.arena.executor_pid = child.pid
            lane.restart()
        self._loop.watch(child.pidfd, self._on_death)
        self._loop.watch(ours.fileno(), self._on_readable)

    def shed(self) -> None:
        """In another child: closes what is this executor's."""
        if self._child is not None:
            self._child.shed()
        if self._channel is not None:
            self._channel.close()
        for bell in self.bells:
            os.close(bell)

    def kill(self) -> None:
        if self._child is not None:
            self._child.kill(signal.SIGKILL)

    def _send(self, document: Document, descriptors: tuple[int, ...], again: Callable[[], None]) -> None:
        assert self._channel is not None
        try:
            self._channel.send(document, descriptors)
        except OSError as error:
            log.error("executor_not_told", executor=self.group, reason=error.strerror)
            self._loop.after(START_AGAIN_NS, again)
            return
        self._flush()

    def _flush(self) -> None:
        if self._channel is not None and not self._channel.flush():
            self._loop.after(FLUSH_AGAIN_NS, self._flush)

    def _on_readable(self) -> None:
        channel = self._channel
        if channel is None:
            # Its process died at once: that and this were seen in one round of the loop.
            return
        try:
            while self._channel is channel and (message := channel.receive()) is not None:
                self._on_message(message[0])
        except ChannelClosed:
            # Dead; what it said last has been read.
            self._loop.unwatch(channel.fileno())

    def _on_message(self, document: Document) -> None:
        lane = self._lanes.get(document["lane"])
        kind = document["kind"]
        if kind == "loading":
            self._loading = (document["lane"], time.monotonic_ns())
            self._has_begun = True
            return
        self._loading = None
        if lane is None:
            return
        del self._lanes[lane.number]
        lane.arena.executor_pid = 0
        if not self._lanes:
            # Its memory goes back as a whole.
            self._is_ending = True
            self._send({"kind": "end"}, (), lambda: None)
        if lane.is_over:
            self._owner.on_lane_over(lane)
        elif kind == "again":
            delay_ns = self._delay_ns(lane, 0)
            self._await_restart(lane, "memory ran out while it was loaded", delay_ns)
            self._put_later(lane, delay_ns, self.put)
        else:
            self._owner.on_load_failed(lane)

    def _delay_ns(self, lane: Lane, life_ns: int) -> int:
        """How long a lane waits after a life that ended with it."""
        lives_ns = self._blamed_ns.setdefault(lane.number, deque(maxlen=32))
        lives_ns.append(life_ns)
        return restart_delay_ns(lives_ns)

    def _put_later(self, lane: Lane, delay_ns: int, again: Callable[[Lane], None]) -> None:
        log.info("lane_held_back", model=lane.name, version=lane.version, again_in_ms=delay_ns // 10**6)
        self._loop.after(delay_ns, functools.partial(again, lane))

    # -- deaths

    def _on_death(self) -> None:
        child, channel = self._child, self._channel
        assert child is not None and channel is not None
        self._on_readable()
        self._loop.unwatch(channel.fileno())
        self._loop.unwatch(child.pidfd)
        channel.close()
        status = child.reap()
        now_ns = time.monotonic_ns()
        for lane in self._lanes.values():
            self.note_ready(lane, now_ns)
        self._child = self._channel = None
        for lane in [lane for lane in self._lanes.values() if lane.is_over]:
            del self._lanes[lane.number]
            self._owner.on_lane_over(lane)
        if not self._lanes:
            self._owner.on_shared_gone()
            return
        if self._is_ending:
            # Those that came meanwhile.
            self._start_after(0)
            return
        died_loading = self._died_loading()
        suspects = died_loading or self._died_running()
        lives_ns = {
            lane.number: now_ns - lane.arena.ready_ns for lane in suspects if lane.arena.model_state == MODEL_READY
        }
        recovered = 0
        for lane in self._lanes.values():
            lane.arena.executor_pid = 0
            recovered += lane.ring.recover_executor()
        self._served_ns.append(now_ns - child.ready_ns if child.ready_ns else 0)
        delay_ns = 0 if suspects else restart_delay_ns(self._served_ns)
        why = f"its executor ended with status {status}"
        for lane in self._lanes.values():
            self._await_restart(lane, why, delay_ns)
        self._owner.ring_everybody()
        log.error(
            "executor_died",
            pid_dead=child.pid,
            executor=self.group,
            models=sorted(lane.name for lane in self._lanes.values()),
            suspected=sorted(lane.name for lane in suspects),
            status=status,
            batches_kept=recovered,
            restart_in_ms=delay_ns // 10**6,
            **({"stack": child.stack} if child.stack else {}),
        )
        if child.is_aborted:
            self._control.count_stuck(False)
        else:
            self._control.count_restart(False)
        for lane in suspects:
            self._hold_back(lane, why, lives_ns.get(lane.number, 0), was_loading=lane in died_loading)
        self._start_after(delay_ns)

    def _await_restart(self, lane: Lane, why: str, delay_ns: int) -> None:
        """Says of a lane that was served how long it is not."""
        is_due = lane.was_ready and lane.arena.model_state != MODEL_FAILED
        if is_due and not lane.await_restart(why, delay_ns):
            self._owner.refuse_waiting(lane)

    def _died_loading(self) -> list[Lane]:
        """The lane whose model the process was loading; if it came to none, all that were never loaded."""
        if not self._has_begun:
            return [lane for lane in self._lanes.values() if not lane.was_ready]
        lane = self._loading_lane()
        return [] if lane is None else [lane]

    def _died_running(self) -> list[Lane]:
        """Lanes of which batches ran; none: it was something from outside."""
        return [
            lane
            for lane in self._lanes.values()
            if any(lane.ring.slab(slab)[0] == SLAB_RUNNING for slab in range(lane.arena.slab_count))
        ]

    def _hold_back(self, lane: Lane, why: str, life_ns: int, *, was_loading: bool) -> None:
        """A suspect waits before it is with the others again, and is first tried if it was being loaded."""
        if was_loading:
            deaths = self._load_deaths[lane.number] = self._load_deaths.get(lane.number, 0) + 1
            if deaths >= MAX_LOAD_DEATHS and lane.arena.model_state != MODEL_FAILED:
                reason = f"the executor of all models died {deaths} times while it loaded this one"
                lane.arena.set_state(MODEL_FAILED, reason)
            if lane.arena.model_state == MODEL_FAILED:
                del self._lanes[lane.number]
                self._owner.on_load_failed(lane)
                return
        delay_ns = self._delay_ns(lane, life_ns)
        if not was_loading and delay_ns == 0:
            return
        self._await_restart(lane, why, delay_ns)
        del self._lanes[lane.number]
        self._put_later(lane, delay_ns, self._owner.try_first if was_loading else self.put)
