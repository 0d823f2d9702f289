"""A worker's front end: finds lanes for models, and does once per loop turn what many requests asked for.

Connections and lanes say "due" during a turn of the event loop; at its end every due executor gets one wake-up and
every due connection one write. It does not know protocols. Everything runs on the worker's event loop thread.
"""

from libc.stdint cimport uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp
from posix.time cimport timespec

from server._fast.clock cimport now_ns
from server._fast.cors cimport cors_fields, field_lines
from server._fast.infer_call cimport LaneClient, Responder, Turn
from server._fast.layout cimport Control
from server._fast.outbuf cimport outbuf_free
from server._fast.slice_queue cimport SliceQueue
from server._fast.spare_buffers cimport spare_free, spare_tick
from server._fast.wakeup cimport worker_awake


cdef extern from "<time.h>" nogil:
    int c_nanosleep "nanosleep"(const timespec* time, timespec* left) noexcept

cdef extern from "<malloc.h>" nogil:
    int malloc_trim(size_t pad) noexcept


#: After so long without a turn, how long the last ones took says nothing.
cdef uint64_t LAG_MEMORY_NS = 20000000
#: A turn with so many answers is worth its wake-up.
cdef size_t FULL_TURN = 32
#: How long a worker that refuses rests,
cdef long REST_NS = 2000000
#: and for how long after a refusal it does.
cdef uint64_t REFUSING_NS = 50000000
#: How late a deadline may be noticed; also the least time between two looks.
cdef uint64_t DEADLINE_STEP_NS = 2000000


def version_of(LaneClient lane not None):
    """The version of a lane's model as a number."""
    return int(lane.spec.version)


cdef class Peer(Responder):
    cdef int end_turn(self) except -1:
        return 0

    cdef int check_time(self, uint64_t now) except -1:
        return 0

    cdef int stop(self) except -1:
        return 0


cdef class Frontend(Turn):
    """
    loop: the worker's event loop; bell: this worker's eventfd; handlers: answers what is not an inference;
    on_stopped: called once, when stop() was called and the last connection has gone. Times in ns, sizes in bytes.
    """

    def __cinit__(self, object loop, Control control not None, int owner, int bell, *, uint64_t max_body_bytes,
                  uint64_t max_held_bytes, uint64_t head_timeout_ns, uint64_t idle_timeout_ns,
                  uint64_t send_timeout_ns=30000000000,
                  uint64_t max_head_bytes=32768, uint64_t max_target_bytes=8192, uint64_t max_fields=100,
                  object cors_origins=()):
        self.loop = loop
        self.control = control
        self.owner = owner
        self.bell = bell
        self.page = &control.pages[owner]
        self.lanes = []
        self.served = []
        self.peers = set()
        self.regions = {}
        self.labels = {}
        self.due_peers = []
        self.due_lanes = []
        self.limits.max_head_bytes = max_head_bytes
        self.limits.max_target_bytes = max_target_bytes
        self.limits.max_fields = max_fields
        self.max_body_bytes = max_body_bytes
        self.max_held_bytes = max_held_bytes
        self.head_timeout_ns = head_timeout_ns
        self.idle_timeout_ns = idle_timeout_ns
        self.send_timeout_ns = send_timeout_ns
        self.slices = SliceQueue(loop)
        self.cors_origins = [origin.encode("latin-1") for origin in cors_origins]
        self.cors_lines = [field_lines(cors_fields(origin)) for origin in self.cors_origins]
        self.scratch = <char*>malloc(SCRATCH_BYTES)
        if self.scratch == NULL:
            raise MemoryError()
        self.end_turn_call = self.end_turn
        self.deadline_call = self.on_deadline

    def __dealloc__(self):
        free(self.scratch)
        outbuf_free(&self.body)
        outbuf_free(&self.gathered)
        spare_free(&self.spares)

    def start(self, object handlers, object on_stopped, object http2=None, object on_drained=None):
        """Begins to serve: `handlers` answers control requests; http2(frontend, port) makes HTTP/2 connections;
        on_drained(lane) is told when a retired lane has answered its last request.
        """
        self.handlers = handlers
        self.on_drained = on_drained
        self.http2 = http2
        self.on_stopped = on_stopped
        self.page.connections_open = 0

    def add_lane(self, LaneClient lane not None):
        """A model version that requests can reach from now on. Of two lanes of one version the later one goes first."""
        self.served.append(lane)
        self.lanes = sorted([lane, *self.lanes], key=version_of, reverse=True)

    def retire_lane(self, LaneClient lane not None):
        """No new request reaches the lane; on_drained(lane) follows, in a later turn, when it has answered its last."""
        lane.is_retired = True
        self.lanes = [other for other in self.lanes if other is not lane]
        self.loop.call_soon(self.drain_lanes)

    def drain_lanes(self):
        """Lets go of retired lanes that nobody waits for."""
        cdef LaneClient lane
        for lane in list(self.served):
            if lane.is_retired and lane.pending_count == 0:
                self.served.remove(lane)
                self.on_drained(lane)

    cdef LaneClient find_lane(self, const char* name, size_t name_bytes, const char* version, size_t version_bytes):
        """The lane of a model, of this version if version_bytes is not 0; None when there is none.

        The highest version that accepts requests; the highest of all if none does.
        """
        cdef LaneClient lane, found = None
        for lane in self.lanes:
            if lane.model.name.n != name_bytes or memcmp(lane.model.name.p, name, name_bytes) != 0:
                continue
            if version_bytes == 0 or (
                lane.model.version.n == version_bytes and memcmp(lane.model.version.p, version, version_bytes) == 0
            ):
                if lane.is_accepting():
                    return lane
                if found is None:
                    found = lane
        return found

    # -- the end of a turn

    cdef int lane_due(self, LaneClient lane) except -1:
        self.due_lanes.append(lane)
        return self.schedule()

    cdef int peer_due(self, Peer peer) except -1:
        """The peer has bytes to write: end_turn() will be called once."""
        if not peer.is_due:
            peer.is_due = True
            self.due_peers.append(peer)
        return self.schedule()

    cdef int schedule(self) except -1:
        cdef uint64_t now
        if not self.turn_scheduled:
            self.turn_scheduled = True
            now = now_ns()
            if now - self.turn_began_ns > self.lag_ns + LAG_MEMORY_NS:
                # It is long ago that a turn took so long.
                self.lag_ns = 0
            self.turn_began_ns = now
            self.loop.call_soon(self.end_turn_call)
        return 0

    cdef int deadline_due(self, uint64_t deadline_ns) except -1:
        """Has calls expired at this time, or a little later: on_deadline() looks at most every 2 ms."""
        cdef uint64_t now
        if self.timer_ns and self.timer_ns <= deadline_ns + DEADLINE_STEP_NS:
            return 0
        if self.timer is not None:
            self.timer.cancel()
        now = now_ns()
        self.timer_ns = max(deadline_ns, now + DEADLINE_STEP_NS)
        self.timer = self.loop.call_later((self.timer_ns - now) * 1e-9, self.deadline_call)
        return 0

    def on_deadline(self):
        """The first deadline of a call in flight has come: answers those that are over."""
        cdef uint64_t now
        cdef LaneClient lane
        self.timer_ns = 0
        self.timer = None
        for lane in self.served:
            now = now_ns()
            if lane.first_deadline_ns and lane.first_deadline_ns <= now:
                # What is finished is delivered, late as it may be.
                lane.collect()
                lane.expire(now)
            if lane.first_deadline_ns:
                self.deadline_due(lane.first_deadline_ns)
        if len(self.served) > len(self.lanes):
            self.drain_lanes()

    def end_turn(self):
        """Wakes executors, then writes replies: models run while the kernel takes the bytes."""
        cdef LaneClient lane
        cdef Peer peer
        cdef size_t peer_count = len(self.due_peers)
        self.turn_scheduled = False
        if self.due_lanes:
            lanes, self.due_lanes = self.due_lanes, []
            for lane in lanes:
                lane.wake()
        if self.due_peers:
            peers, self.due_peers = self.due_peers, []
            for peer in peers:
                peer.is_due = False
                try:
                    peer.end_turn()
                except Exception as error:
                    self.peer_failed(peer, error)
        if self.refused_count or self.refusing_until_ns:
            self.rest(peer_count)
        # The longest turn of late: it is how long bytes may have waited in a socket, and how long answers may.
        self.lag_ns = max(now_ns() - self.turn_began_ns, self.lag_ns - self.lag_ns // 8)

    cdef void rest(self, size_t peer_count) noexcept:
        """After a turn that did little, while requests are refused: leaves the core to the executors for a moment, so
        that the next requests come together. What is admitted meanwhile waits for the present run anyway, and waking
        up for each of them costs more than refusing them.
        """
        cdef timespec moment
        cdef uint64_t now = now_ns()
        if self.refused_count:
            self.refused_count = 0
            self.refusing_until_ns = now + REFUSING_NS
        elif now > self.refusing_until_ns:
            self.refusing_until_ns = 0
            return
        if peer_count < FULL_TURN:
            moment.tv_sec = 0
            moment.tv_nsec = REST_NS
            c_nanosleep(&moment, NULL)

    cdef int peer_failed(self, Peer peer, object error) except -1:
        """A bug, or memory is out: this connection ends, the others that were due still get their turn."""
        peer.broken()
        self.loop.call_exception_handler({"message": "a connection failed", "exception": error, "protocol": peer})
        return 0

    def on_bell(self):
        """The worker's eventfd is readable: deliver what is finished; hurry after a second signal."""
        cdef LaneClient lane
        worker_awake(self.page, self.bell)
        for lane in self.served:
            lane.collect()
        if len(self.served) > len(self.lanes):
            self.drain_lanes()
        if self.is_stopping and self.control.header.stopping > 1:
            self.hurry()

    def on_tick(self):
        """Once a second: time-outs of connections, and completions whose bell was lost with its sender."""
        cdef uint64_t now = now_ns()
        cdef Peer peer
        cdef LaneClient lane
        self.page.heartbeat_ns = now
        for lane in self.served:
            lane.collect()
        self.drain_lanes()
        for peer in list(self.peers):
            try:
                peer.check_time(now)
            except Exception as error:
                self.peer_failed(peer, error)
        if spare_tick(&self.spares):
            self.is_trim_due = True
        if self.is_trim_due:
            # Freed buffers lie between live ones: without this the process would keep the most it ever needed.
            self.is_trim_due = False
            malloc_trim(0)

    # -- the end

    def stop(self):
        """Closes idle connections and every other one after its last reply; then on_stopped()."""
        cdef Peer peer
        self.is_stopping = True
        for peer in list(self.peers):
            peer.stop()
        self.peer_gone(None)

    def hurry(self):
        """A second signal: connections in the middle of a request are dropped."""
        cdef Peer peer
        for peer in list(self.peers):
            peer.stop()

    def peer_gone(self, peer):
        self.peers.discard(peer)
        self.is_trim_due = True
        self.page.connections_open = len(self.peers)
        if self.is_stopping and not self.peers and self.on_stopped is not None:
            on_stopped, self.on_stopped = self.on_stopped, None
            on_stopped()
