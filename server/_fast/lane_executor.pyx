"""An executor instance's side of a lane: wait for a batch, hand it to the runner, complete it, wake the workers.

It knows the ring's words and the bells; it does not know models or tensors' meaning. One LaneExecutor per instance,
used by that instance's thread alone; next_batch and complete release the GIL. The arena and the control segment own
the memory. A batch costs O(rows); a wake-up costs one system call here and at most one per worker.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy
from posix.time cimport timespec

from server._fast.atomics cimport (
    relaxed_load,
    relaxed_load_half,
    relaxed_store,
    relaxed_store_half,
    shared_add,
    word_load,
)
from server._fast.batch_cap cimport capped
from server._fast.clock cimport now_ns
from server._fast.cost_table cimport cost_add
from server._fast.device_turns cimport DeviceTurns
from server._fast.layout cimport (
    FAILURE_TEXT_BYTES,
    MAX_OWNERS,
    Arena,
    ArenaView,
    Control,
    RowFailure,
    RowMeta,
    StatsBlock,
)
from server._fast.quarantine cimport quarantine_add, row_digest
from server._fast.slab_ring cimport (
    FAILURE_POISON,
    POISON_ATTEMPTS,
    RING_EMPTY,
    RING_UNPUBLISHED,
    RING_WAIT,
    ROW_ORPHAN,
    ROW_RUNNING,
    row_at,
    row_attempts,
    row_index,
    row_owner,
    row_state,
)
from server._fast.slab_run cimport (
    ring_complete,
    ring_due,
    ring_finish_row,
    ring_put_back,
    ring_seal,
    ring_take,
    ring_take_alone,
)
from server._fast.slo_cut cimport busy_add, busy_share, slo_rows
from server._fast.standing_queue cimport queue_stands_no_more, queue_watch
from server._fast.stats cimport stats_batch
from server._fast.wakeup cimport POLLIN, bell_clear, c_ppoll, lane_sleep_begin, lane_sleep_end, pollfd, worker_wake


cdef extern from "<time.h>" nogil:
    int c_nanosleep "nanosleep"(const timespec* time, timespec* left) noexcept

cdef extern from "<sched.h>" nogil:
    int sched_yield() noexcept

#: How often an instance lets a worker run that is filling a row of its sealed slab before it sleeps.
cdef int YIELDS = 16
#: After so many tries, eight of them a quarter of a millisecond long, the rows that are there run without the one that
#: is not.
cdef int PATIENCE = 24
#: How long an input that ended two executors by itself is refused.
cdef uint64_t QUARANTINE_NS = 600000000000
cdef bytes POISON_TEXT = b"this input ended the executor process twice; it is refused for ten minutes"


cdef void sleep_unpublished() noexcept nogil:
    """A claimed row is still being filled by a process that does not run: let it, for a moment.

    Without a word to the wakers: a wake-up is for an instance that can take what was published.
    """
    cdef timespec moment
    moment.tv_sec = 0
    moment.tv_nsec = 250000
    c_nanosleep(&moment, NULL)


cdef bint bell_nap(int bell, uint64_t nap_ns) noexcept nogil:
    cdef pollfd waiting
    cdef timespec limit
    waiting.fd = bell
    waiting.events = POLLIN
    limit.tv_sec = nap_ns // 1000000000
    limit.tv_nsec = nap_ns % 1000000000
    return c_ppoll(&waiting, 1, &limit, NULL) == 1


cdef int take_due(ArenaView* v, int instance, LaneWatch* watch, Batch* batch) noexcept nogil:
    cdef int tries = 0, code = ring_seal(v, instance, now_ns(), batch)
    cdef uint64_t now
    if code < 0:
        return code
    now = now_ns()
    queue_watch(v, &watch.standing, now)
    if v.cost.slo_ns and batch.attempts == 0:
        batch.row_limit = slo_rows(v, batch, busy_share(&watch.busy, now), now)
    batch.row_limit = capped(v, batch.row_limit)
    while ring_take(v, instance, now_ns(), tries >= PATIENCE, batch) == RING_UNPUBLISHED:
        tries += 1
        if tries <= YIELDS:
            sched_yield()
        else:
            sleep_unpublished()
    return 0


cdef class LaneExecutor:
    """Instance `instance` of the executor of one arena.

    bells: the eventfds of the workers, by worker id; bell: this instance's own. turns: of a model that runs on several
    devices.
    """

    def __cinit__(self, Arena arena not None, Control control not None, int instance, int bell, list worker_bells,
                  DeviceTurns turns=None):
        if len(worker_bells) > MAX_OWNERS:
            raise ValueError(f"{len(worker_bells)} workers: at most {MAX_OWNERS}")
        self.arena = arena
        self.control = control
        self.v = &arena.view
        self.instance = instance
        self.bell = bell
        self.turns = turns
        self.has_turns = turns is not None
        if turns is not None and not 0 <= instance < <int>turns.instance_count:
            raise ValueError(f"instance {instance} of {turns.instance_count} on several devices")
        for index, fd in enumerate(worker_bells):
            self.worker_bells[<int>index] = fd

    def next_batch(self):
        """Waits for a batch: (slab, rows, live rows, attempts), or None when the lane shuts down.

        live < rows: some rows were cancelled, expired or belong to the dead; live_rows() says which to run. attempts
        >= 1: an executor died with this slab, run its rows one by one through take_alone().
        """
        cdef int code
        if self.is_shared:
            # What was granted, and then the turn of this lane is over.
            code = 0 if self.is_granted else -1
            self.is_granted = False
        else:
            with nogil:
                code = self.wait()
        if code < 0:
            return None
        return self.batch.slab, self.batch.row_count, self.batch.live_count, self.batch.attempts

    cdef int wait(self) noexcept nogil:
        if self.has_turns:
            self.turns.turn_looks(self.instance)
        while not relaxed_load_half(&self.v.lane.shutdown):
            if self.has_turns:
                if self.take_turn() == 0:
                    return 0
            elif take_due(self.v, self.instance, &self.watch, &self.batch) == 0:
                return 0
            self.sleep()
        return -1

    cdef int take_turn(self) noexcept nogil:
        """take_due, unless the batch is left to another device."""
        cdef uint64_t now = now_ns(), word, due_ns
        cdef uint32_t slab
        cdef int code = ring_due(self.v, now, &slab, &word, &due_ns)
        if code < 0:
            return code
        if self.turns.turn_hold(self.v, self.instance, slab, word, now):
            return RING_WAIT
        code = take_due(self.v, self.instance, &self.watch, &self.batch)
        if code == 0:
            self.turns.turn_begins(self.instance, self.batch.live_count, now_ns())
        return code

    cdef void count_late(self, uint64_t run_start_ns, uint64_t now) noexcept nogil:
        """Rows of the batch that ran for nobody: begun after their deadline (never, or the batcher is wrong), or ended
        after it.
        """
        cdef StatsBlock* stats = &self.v.stats[self.v.header.owner_count]
        cdef uint64_t deadline_ns, late = 0, outlived = 0
        cdef uint32_t row, state
        if relaxed_load(&self.v.slabs[self.batch.slab].deadline_ns) == 0:
            return
        for row in range(self.batch.row_count):
            state = row_state(word_load(row_at(self.v, self.batch.slab, row)))
            deadline_ns = relaxed_load(&self.v.meta[row_index(self.v, self.batch.slab, row)].deadline_ns)
            if deadline_ns and (state == ROW_RUNNING or state == ROW_ORPHAN):
                late += deadline_ns < run_start_ns
                outlived += deadline_ns < now
        if outlived:
            shared_add(&stats.late_count, late)
            shared_add(&stats.outlived_count, outlived)

    cdef void sleep(self) noexcept nogil:
        """Sleeps until there may be work. Says so first and looks again, so that no wake-up is lost."""
        cdef uint64_t now = now_ns(), word, due_ns, turn_ns, nap_ns = NAP_NS
        cdef uint32_t slab
        cdef int code
        relaxed_store(&self.v.lane.beat_ns, now)
        queue_stands_no_more(self.v, &self.watch.standing)
        lane_sleep_begin(self.v.lane, self.instance)
        code = ring_due(self.v, now, &slab, &word, &due_ns)
        if self.has_turns and code == 0:
            turn_ns = self.turns.turn_hold(self.v, self.instance, slab, word, now)
            if turn_ns:
                # Another batch may be due before this one may be taken here.
                due_ns = turn_ns if due_ns == 0 else min(due_ns, turn_ns)
                code = RING_WAIT
        if code != 0 and not relaxed_load_half(&self.v.lane.shutdown):
            if code == RING_WAIT and due_ns - now < nap_ns:
                nap_ns = due_ns - now
            if bell_nap(self.bell, nap_ns):
                bell_clear(self.bell)
                # A worker that shares this core and has rows to publish gets to do so first: one batch instead of two.
                sched_yield()
            elif code == RING_EMPTY and ring_due(self.v, now_ns(), &slab, &word, &due_ns) != RING_EMPTY:
                shared_add(&self.v.lane.missed_wakeups, 1)
        lane_sleep_end(self.v.lane, self.instance)

    cdef void step(self) noexcept nogil:
        """Says that the instance gets on with the slab: else the supervisor takes it for stuck one day."""
        cdef uint64_t* steps = &self.v.slabs[self.batch.slab].steps
        relaxed_store(steps, relaxed_load(steps) + 1)

    def live_rows(self):
        """The rows of the present batch that are running, ascending."""
        cdef uint32_t row
        rows = []
        for row in range(self.batch.row_count):
            if row_state(word_load(row_at(self.v, self.batch.slab, row))) == ROW_RUNNING:
                rows.append(row)
        return rows

    def requests(self):
        """(first row, rows) of each claim of the present batch that runs as a whole, ascending.

        Running rows of a claim of which others do not run (its worker was stopped half-way) wait for a later pass.
        """
        cdef uint32_t row = 0, last, end
        found = []
        while row < self.batch.row_count:
            if row_state(word_load(row_at(self.v, self.batch.slab, row))) != ROW_RUNNING:
                row += 1
                continue
            first, count = self.request_of(row)
            end = first + count
            last = row
            while last < end and row_state(word_load(row_at(self.v, self.batch.slab, last))) == ROW_RUNNING:
                last += 1
            if first == row and last == end:
                found.append((first, count))
            else:
                for row in range(row, last):
                    ring_put_back(self.v, self.batch.slab, row)
            row = last
        return found

    def request_of(self, uint32_t row):
        """(first row, rows) of the claim that a published row belongs to."""
        cdef RowMeta* meta = &self.v.meta[row_index(self.v, self.batch.slab, row)]
        return relaxed_load_half(&meta.claim_first), relaxed_load_half(&meta.claim_rows)

    def put_back(self, uint32_t first_row, uint32_t row_count):
        """Running rows wait for a pass after workers have read the outputs that lie in the slab."""
        cdef uint32_t row
        relaxed_store_half(&self.v.slabs[self.batch.slab].crowded, 1)
        for row in range(first_row, first_row + row_count):
            ring_put_back(self.v, self.batch.slab, row)

    @property
    def output_room(self):
        """Shaped mode: bytes that are left for outputs in the present batch's slab."""
        return self.v.header.output_bytes - relaxed_load(&self.v.slabs[self.batch.slab].output_used)

    def reserve(self, uint64_t size):
        """Takes so much of the room for outputs: the offset in the slab's data. At most output_room."""
        cdef uint64_t used = relaxed_load(&self.v.slabs[self.batch.slab].output_used)
        size = (size + 63) // 64 * 64
        if size > self.v.header.output_bytes - used:
            raise ValueError(f"{size} bytes of outputs: {self.v.header.output_bytes - used} are left")
        relaxed_store(&self.v.slabs[self.batch.slab].output_used, used + size)
        return self.v.header.input_bytes + used

    def take_alone(self, uint32_t row):
        """Takes one row to be run alone: True run it; False it is gone, or it killed two executors alone and fails
        now.
        """
        cdef int code
        cdef uint64_t now = now_ns()
        if row_attempts(word_load(row_at(self.v, self.batch.slab, row))) >= POISON_ATTEMPTS:
            # Before the row fails: its worker may look at any moment.
            self.set_failure(row, FAILURE_POISON, POISON_TEXT)
        code = ring_take_alone(self.v, &self.batch, row)
        if code < 0:
            quarantine_add(self.v, row_digest(self.v, self.batch.slab, row), now, now + QUARANTINE_NS)
            self.wake_owner(row)
        return code > 0

    def fail(self, uint32_t row, int code, str text):
        """Fails one running row with a text for its client."""
        self.step()
        self.set_failure(row, code, text.encode("utf-8", "replace"))
        ring_finish_row(self.v, self.batch.slab, row, code)

    def finish_alone(self, uint32_t row):
        """Ends a row that was taken alone and wakes its worker at once."""
        self.step()
        ring_finish_row(self.v, self.batch.slab, row, 0)
        self.wake_owner(row)

    cdef int wake_owner(self, uint32_t row) except -1:
        cdef uint32_t owner = row_owner(word_load(row_at(self.v, self.batch.slab, row)))
        if owner < self.control.header.worker_count:
            worker_wake(&self.control.pages[owner], self.worker_bells[owner])
        return 0

    cdef int set_failure(self, uint32_t row, int code, bytes text) except -1:
        cdef RowFailure* failure = &self.v.failures[<uint64_t>self.batch.slab * self.v.row_capacity + row]
        cdef size_t n = min(len(text), FAILURE_TEXT_BYTES)
        # A character that does not fit goes as a whole: the reply has to stay UTF-8.
        while 0 < n < <size_t>len(text) and text[n] & 0xC0 == 0x80:
            n -= 1
        memcpy(failure.text, <const char*>text, n)
        failure.bytes = n
        failure.code = code
        return 0

    def run_begins(self):
        """Marks the start of the model run; returns the time in ns."""
        self.step()
        cdef uint64_t now = now_ns()
        relaxed_store(&self.v.slabs[self.batch.slab].run_start_ns, now)
        return now

    def ran(self, uint64_t run_start_ns, uint32_t row_count):
        """Counts one run of several for the present batch, which is then completed with ran_rows 0."""
        cdef uint64_t now = now_ns()
        self.step()
        stats_batch(&self.v.stats[self.v.header.owner_count], row_count, now - run_start_ns)
        cost_add(self.v, row_count, now - run_start_ns, now)
        if self.has_turns:
            self.turns.turn_ran(self.instance, row_count, now - run_start_ns, now)
        busy_add(&self.watch.busy, run_start_ns, now)

    def complete(self, uint64_t run_start_ns, uint32_t ran_rows, bint is_one_run=True):
        """Ends the present batch: its running rows are done, their workers awake. ran_rows 0: nothing to count.

        is_one_run: it took no second try and no refusal, so that its time says what so many rows cost.
        """
        cdef uint64_t owners, now
        cdef int owner = 0
        with nogil:
            now = now_ns()
            relaxed_store(&self.v.slabs[self.batch.slab].run_end_ns, now)
            if ran_rows:
                self.count_late(run_start_ns, now)
                stats_batch(&self.v.stats[self.v.header.owner_count], ran_rows, now - run_start_ns)
                busy_add(&self.watch.busy, run_start_ns, now)
                if is_one_run:
                    cost_add(self.v, ran_rows, now - run_start_ns, now)
            if self.has_turns:
                if ran_rows and is_one_run:
                    self.turns.turn_ran(self.instance, ran_rows, now - run_start_ns, now)
                # Before anybody hears of it: who asks again at once finds it free.
                self.turns.turn_ends(self.instance, now)
            owners = ring_complete(self.v, self.instance, &self.batch)
            while owners:
                if owners & 1 and owner < <int>self.control.header.worker_count:
                    worker_wake(&self.control.pages[owner], self.worker_bells[owner])
                owners >>= 1
                owner += 1
