"""Thread bodies that drive the ring's C functions without the GIL, for ThreadSanitizer and for counting.

A worker claims, fills row payloads, publishes, cancels at random, waits, compares each answer with its input and
releases. An executor instance seals, takes, computes every output of the batch and completes, as the real one does over
a slab. All payload accesses are plain: only the words order them. Built outside release builds only. The arena owns the
memory; one WorkerBody or InstanceBody per thread; Crowd is shared by all of them and outlives them.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset

from server._fast.atomics cimport half_add, half_exchange, half_load, half_store, relaxed_store_half, word_load
from server._fast.clock cimport now_ns
from server._fast.layout cimport MAX_RANK, MODE_SHAPED, Arena, ArenaView, TensorShape, input_shape, output_shape
from server._fast.row_shapes cimport RowShapes, shaped_row, shapes_measure
from server._fast.slab_ring cimport (
    ALONE_ATTEMPTS,
    FAILURE_DEADLINE,
    FAILURE_MODEL,
    FAILURE_POISON,
    RING_UNPUBLISHED,
    ROW_DONE,
    ROW_RUNNING,
    Batch,
    Claim,
    ring_cancel,
    ring_claim,
    ring_finished,
    ring_publish,
    ring_recycle,
    ring_release,
    row_at,
    row_code,
    row_state,
)
from server._fast.slab_run cimport ring_complete, ring_finish_row, ring_put_back, ring_seal, ring_take, ring_take_alone


cdef extern from "<sched.h>" nogil:
    int sched_yield() noexcept

cdef enum:
    MAX_HELD = 8       # claims a worker has in flight
    MAX_CLAIM_ROWS = 4
    DEADLINE_NS = 1    # already over whenever an instance looks: its clock starts at 2

#: A thread that found nothing to do for so long waits for a row or a slab that is lost.
cdef uint64_t PATIENCE_NS = 20000000000

cdef struct Held:
    Claim claim
    uint64_t tag
    bint expires

cdef struct Tally:
    uint64_t operations  # calls that moved a word: claim, publish, cancel, release, seal, take, complete
    uint64_t claims      # each ends as one of the six below
    uint64_t full
    uint64_t answered
    uint64_t failed
    uint64_t expired
    uint64_t poisoned
    uint64_t cancelled
    uint64_t dropped     # the worker died with them
    uint64_t wrong
    uint64_t batches
    uint64_t rows
    uint64_t put_back    # rows that were computed and have to wait for room


cdef inline uint64_t random_next(uint64_t* state) noexcept nogil:
    state[0] ^= state[0] << 13
    state[0] ^= state[0] >> 7
    state[0] ^= state[0] << 17
    return state[0]


cdef inline uint64_t mixed(uint64_t value) noexcept nogil:
    value = (value ^ (value >> 31)) * <uint64_t>0x9E3779B97F4A7C15
    return value ^ (value >> 29)


def answer(uint64_t value):
    """What an instance makes of one input word."""
    return mixed(value)


cdef inline uint64_t* payload(ArenaView* v, uint32_t slab, uint32_t row, uint32_t tensor) noexcept nogil:
    cdef uint64_t offset = v.tensors[tensor].slab_offset + row * v.tensors[tensor].row_bytes
    if v.mode == MODE_SHAPED and tensor == 0:
        return <uint64_t*>shaped_row(v, slab, 0, row)
    if v.mode == MODE_SHAPED:
        offset = output_shape(v, slab, row, 0).offset
    return <uint64_t*>(v.data + slab * v.data_stride + offset)


cdef inline uint32_t words_of(ArenaView* v, uint32_t slab) noexcept nogil:
    """A row's, of input and output alike."""
    if v.mode == MODE_SHAPED:
        return <uint32_t>(input_shape(v, slab, 0).bytes // 8)
    return <uint32_t>(v.tensors[0].row_bytes // 8)


cdef inline void place_output(ArenaView* v, uint32_t slab, uint32_t row) noexcept nogil:
    """Shaped mode: says where the row's output is going to lie."""
    cdef TensorShape* output = output_shape(v, slab, row, 0)
    output.bytes = input_shape(v, slab, 0).bytes
    output.offset = v.header.input_bytes + row * output.bytes


cdef class Crowd:
    """What the threads of one run share. Tensor 0 is the input, tensor 1 the output, of equally many 64-bit words. In
    shaped mode a claim's rows have one of a few lengths."""

    cdef readonly Arena arena
    cdef ArenaView* v
    cdef uint32_t workers_left
    cdef uint32_t crash
    cdef uint32_t stall

    def __cinit__(self, Arena arena not None, int workers):
        self.arena = arena
        self.v = &arena.view
        self.workers_left = workers

    @property
    def finished(self):
        """Whether every worker said leave()."""
        return half_load(&self.workers_left) == 0

    @property
    def crashed(self):
        """Whether the executor died; clear_crash() before its successor starts."""
        return half_load(&self.crash) != 0

    @property
    def stalled(self):
        """Whether a thread gave up waiting, and all others with it: something is lost."""
        return half_load(&self.stall) != 0

    cdef bint idle(self, uint64_t* since_ns) noexcept nogil:
        """Lets others run; whether to give up. `since_ns`: when the caller last moved something, 0 for just now."""
        cdef uint64_t now = now_ns()
        if since_ns[0] == 0:
            since_ns[0] = now
        elif now - since_ns[0] > PATIENCE_NS:
            half_store(&self.stall, 1)
        sched_yield()
        return half_load(&self.stall) != 0

    def clear_crash(self):
        half_store(&self.crash, 0)

    def leave(self):
        """A worker will claim no more: instances stop when the last one left and the ring is empty."""
        half_add(&self.workers_left, <uint32_t>-1)


cdef class WorkerBody:
    """Worker `owner`: run() until it has done `operations`, or until it dies.

    one_in_cancel, one_in_expire: how often a claim is given up, or published with a deadline that is over. early:
    publishes before it fills, a bug on purpose.
    """

    cdef Crowd crowd
    cdef uint32_t owner
    cdef uint64_t seed, sequence
    cdef uint32_t one_in_cancel, one_in_expire
    cdef bint early
    cdef Held held[MAX_HELD]
    cdef int held_count
    cdef Tally tally

    def __cinit__(self, Crowd crowd not None, uint32_t owner, uint64_t seed, uint32_t one_in_cancel=32,
                  uint32_t one_in_expire=64, bint early=False):
        self.crowd = crowd
        self.owner = owner
        self.seed = seed | 1
        self.sequence = <uint64_t>(owner + 1) << 48
        self.one_in_cancel = one_in_cancel
        self.one_in_expire = one_in_expire
        self.early = early
        memset(&self.tally, 0, sizeof(self.tally))

    def run(self, uint64_t operations, uint64_t dies_after=0):
        """True when done with nothing in flight; False when it died at `dies_after` operations, claims in flight."""
        cdef bint done
        with nogil:
            done = self.work(operations, dies_after)
        if not done:
            self.tally.dropped += self.held_count
            self.held_count = 0
        return bool(done)

    @property
    def tally(self):
        return self.tally

    cdef bint work(self, uint64_t operations, uint64_t dies_after) noexcept nogil:
        cdef bint moved
        cdef uint64_t since_ns = 0
        while self.tally.operations < operations or self.held_count:
            if dies_after and self.tally.operations >= dies_after:
                return False
            moved = False
            if self.tally.operations < operations and self.held_count < MAX_HELD and random_next(&self.seed) % 4:
                moved = self.ask()
            if self.held_count and self.poll(random_next(&self.seed) % self.held_count):
                moved = True
            if moved:
                since_ns = 0
            elif self.crowd.idle(&since_ns):
                return True
        return True

    cdef bint ask(self) noexcept nogil:
        cdef Held* held = &self.held[self.held_count]
        cdef uint32_t rows = 1, most = min(<uint32_t>MAX_CLAIM_ROWS, self.crowd.v.row_capacity)
        if random_next(&self.seed) % 4 == 0:
            rows = 1 + random_next(&self.seed) % most
        if not self.claim(rows, held):
            self.tally.full += 1
            return False
        self.tally.operations += 1
        self.tally.claims += 1
        held.tag = self.sequence
        held.expires = random_next(&self.seed) % self.one_in_expire == 0
        self.sequence += rows << 8
        if self.early:
            self.publish(held)
        self.fill(held)
        if random_next(&self.seed) % 8 == 0:
            sched_yield()
        if random_next(&self.seed) % self.one_in_cancel == 0 and not self.early:
            self.cancel(held)
            return True
        if not self.early:
            self.publish(held)
        self.held_count += 1
        return True

    cdef bint claim(self, uint32_t rows, Held* held) noexcept nogil:
        cdef RowShapes shapes
        cdef int64_t dims[MAX_RANK]
        cdef uint32_t level = 0
        if self.crowd.v.level_count > 1:
            level = random_next(&self.seed) % self.crowd.v.level_count
        if self.crowd.v.mode != MODE_SHAPED:
            return ring_claim(self.crowd.v, self.owner, level, rows, NULL, 1, &held.claim) == 0
        dims[1] = 1 + random_next(&self.seed) % 3 * 8
        shapes_measure(self.crowd.v, dims, &shapes)
        # Hashes that collide: it is the dims that decide.
        shapes.signature &= 1
        if ring_claim(self.crowd.v, self.owner, level, min(rows, shapes.capacity), &shapes, 1, &held.claim) < 0:
            return False
        self.tally.wrong += words_of(self.crowd.v, held.claim.slab) != <uint64_t>dims[1]
        return True

    cdef void fill(self, Held* held) noexcept nogil:
        cdef uint32_t row, word, words = words_of(self.crowd.v, held.claim.slab)
        cdef uint64_t* to
        for row in range(held.claim.row_count):
            to = payload(self.crowd.v, held.claim.slab, held.claim.first_row + row, 0)
            for word in range(words):
                to[word] = held.tag + (<uint64_t>row << 8) + word

    cdef void publish(self, Held* held) noexcept nogil:
        ring_publish(self.crowd.v, self.owner, &held.claim, 1, DEADLINE_NS if held.expires else 0)
        self.tally.operations += 1

    cdef void cancel(self, Held* held) noexcept nogil:
        ring_cancel(self.crowd.v, self.owner, &held.claim)
        self.tally.operations += 1
        self.tally.cancelled += 1

    cdef bint poll(self, uint32_t index) noexcept nogil:
        cdef Held* held = &self.held[index]
        cdef uint64_t failed
        if not ring_finished(self.crowd.v, self.owner, &held.claim, &failed):
            if random_next(&self.seed) % (self.one_in_cancel * 64):
                return False
            self.cancel(held)
        else:
            self.check(held, failed)
            ring_release(self.crowd.v, self.owner, &held.claim)
            ring_recycle(self.crowd.v, held.claim.slab)
            self.tally.operations += 1
        self.held_count -= 1
        held[0] = self.held[self.held_count]
        return True

    cdef void check(self, Held* held, uint64_t failed) noexcept nogil:
        """One answer per claim: a failure that has a reason, or outputs that belong to the inputs, row by row."""
        cdef uint32_t row, word, words = words_of(self.crowd.v, held.claim.slab)
        cdef uint64_t* answer_words
        if failed:
            if row_code(failed) == FAILURE_DEADLINE and held.expires:
                self.tally.expired += 1
            elif row_code(failed) == FAILURE_MODEL:
                self.tally.failed += 1
            elif row_code(failed) == FAILURE_POISON:
                self.tally.poisoned += 1
            else:
                self.tally.wrong += 1
        else:
            self.tally.answered += 1
            self.tally.wrong += held.expires
        for row in range(held.claim.row_count):
            if row_state(word_load(row_at(self.crowd.v, held.claim.slab, held.claim.first_row + row))) != ROW_DONE:
                continue
            answer_words = payload(self.crowd.v, held.claim.slab, held.claim.first_row + row, 1)
            for word in range(words):
                if answer_words[word] != mixed(held.tag + (<uint64_t>row << 8) + word):
                    self.tally.wrong += 1


cdef class InstanceBody:
    """Instance `instance` of the executor: run() until all workers left and nothing is due, or until the executor dies.

    one_in_fail: how often a row is refused by the model.
    """

    cdef Crowd crowd
    cdef uint32_t instance
    cdef uint64_t seed
    cdef uint32_t one_in_fail
    cdef Tally tally

    def __cinit__(self, Crowd crowd not None, uint32_t instance, uint64_t seed, uint32_t one_in_fail=64):
        self.crowd = crowd
        self.instance = instance
        self.seed = seed | 1
        self.one_in_fail = one_in_fail
        memset(&self.tally, 0, sizeof(self.tally))

    def run(self, uint64_t dies_after=0):
        """True when nothing is left to do; False when the executor died: at the `dies_after`-th step of a batch here,
        or in another instance.
        """
        cdef bint done
        with nogil:
            done = self.work(dies_after)
        return bool(done)

    @property
    def tally(self):
        return self.tally

    cdef bint dies(self, uint64_t* steps_left) noexcept nogil:
        """Whether the executor is dead at this step; the instance that dies takes the others with it."""
        if steps_left[0]:
            steps_left[0] -= 1
            if steps_left[0] == 0:
                half_exchange(&self.crowd.crash, 1)
        return half_load(&self.crowd.crash) != 0

    cdef bint work(self, uint64_t dies_after) noexcept nogil:
        cdef ArenaView* v = self.crowd.v
        cdef Batch batch
        cdef bint last
        cdef uint64_t steps = dies_after, since_ns = 0
        while True:
            if half_load(&self.crowd.crash):
                return False
            last = half_load(&self.crowd.workers_left) == 0
            if ring_seal(v, self.instance, 2, &batch) < 0:
                if last or self.crowd.idle(&since_ns):
                    return True
                continue
            since_ns = 0
            self.tally.operations += 1
            if random_next(&self.seed) % 4 == 0:
                batch.row_limit = 1 + random_next(&self.seed) % 4
            while ring_take(v, self.instance, 2, random_next(&self.seed) % 4 == 0, &batch) == RING_UNPUBLISHED:
                if self.crowd.idle(&since_ns):
                    return True
                if half_load(&self.crowd.crash):
                    return False
            since_ns = 0
            self.tally.operations += 1
            if self.dies(&steps) or not self.compute(&batch, &steps):
                return False
            ring_complete(v, self.instance, &batch)
            self.tally.operations += 1
            self.tally.batches += 1
            self.tally.rows += batch.live_count

    cdef bint compute(self, const Batch* batch, uint64_t* steps) noexcept nogil:
        """A slab of which every row runs for the first time is computed whole. Else only its running rows are, since
        outputs of others may be being read and inputs of others written.
        """
        cdef ArenaView* v = self.crowd.v
        cdef uint32_t row
        cdef bint whole = batch.attempts == 0 and batch.live_count == batch.row_count
        for row in range(batch.row_count):
            if batch.attempts >= ALONE_ATTEMPTS and ring_take_alone(v, batch, row) <= 0:
                continue
            if whole or row_state(word_load(row_at(v, batch.slab, row))) == ROW_RUNNING:
                self.compute_row(batch.slab, row)
        for row in range(batch.row_count):
            if self.dies(steps):
                return False
            if random_next(&self.seed) % self.one_in_fail == 0:
                if row_state(word_load(row_at(v, batch.slab, row))) == ROW_RUNNING:
                    ring_finish_row(v, batch.slab, row, FAILURE_MODEL)
            elif v.mode == MODE_SHAPED and random_next(&self.seed) % 16 == 0:
                relaxed_store_half(&v.slabs[batch.slab].crowded, 1)
                ring_put_back(v, batch.slab, row)
                self.tally.put_back += 1
            elif random_next(&self.seed) % 4 == 0:
                if row_state(word_load(row_at(v, batch.slab, row))) == ROW_RUNNING:
                    ring_finish_row(v, batch.slab, row, 0)
        return True

    cdef void compute_row(self, uint32_t slab, uint32_t row) noexcept nogil:
        if self.crowd.v.mode == MODE_SHAPED:
            place_output(self.crowd.v, slab, row)
        cdef uint64_t* source = payload(self.crowd.v, slab, row, 0)
        cdef uint64_t* target = payload(self.crowd.v, slab, row, 1)
        cdef uint32_t word, words = words_of(self.crowd.v, slab)
        for word in range(words):
            target[word] = mixed(source[word])
