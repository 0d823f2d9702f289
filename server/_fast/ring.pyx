"""The slab ring of an arena for Python: the supervisor and tests. Workers and executors call the C functions.

It adds nothing to slab_ring but objects: claims are tuples, batches dicts. Any thread; one call is one C function.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from server._fast.atomics cimport relaxed_load, relaxed_load_half, relaxed_store_half, word_load
from server._fast.layout cimport (
    MAX_INSTANCES,
    MAX_PADS,
    MAX_RANK,
    MODE_ROWS,
    MODE_SHAPED,
    OWNER_NONE,
    Arena,
    ArenaView,
    row_extents,
)
from server._fast.queue_levels cimport level_is_full, level_of, level_stale_after, level_times
from server._fast.ring_recovery cimport ring_reap_owner, ring_recover_executor
from server._fast.row_padding cimport padding_round
from server._fast.row_shapes cimport RowShapes, shapes_measure
from server._fast.slab_reserve cimport ring_give_up_reserved, ring_open_reserved, ring_reserve
from server._fast.slab_ring cimport (
    RING_TOO_LARGE,
    RING_UNPUBLISHED,
    RING_WAIT,
    SLAB_FREE,
    SLAB_OPENING,
    SLAB_RUNNING,
    SLAB_SEALED,
    Batch,
    Claim,
    ring_cancel,
    ring_claim,
    ring_finished,
    ring_has_room,
    ring_publish,
    ring_recycle,
    ring_release,
    row_at,
    row_attempts,
    row_code,
    row_owner,
    row_state,
    slab_claimed,
    slab_owner,
    slab_state,
    word_generation,
)
from server._fast.slab_run cimport ring_complete, ring_finish_row, ring_put_back, ring_seal, ring_take, ring_take_alone
from server._fast.wakeup cimport lane_wake


cdef class Ring:
    """The ring of one arena."""

    def __cinit__(self, Arena arena not None):
        self.arena = arena

    def claim(self, uint32_t owner, uint32_t row_count=1, object shapes=None, uint64_t now_ns=0, object signature=None,
              uint32_t level=0):
        cdef Claim claim
        cdef RowShapes measured
        cdef RowShapes* wanted = NULL
        cdef int64_t dims[16 * MAX_RANK]
        cdef int64_t extents[MAX_PADS]
        cdef uint32_t capacity = self.arena.view.row_capacity
        cdef int code
        if (shapes is not None) != (self.arena.view.mode == MODE_SHAPED):
            raise ValueError("row shapes go with an arena in shaped mode, and only with one")
        if shapes is not None:
            if len(shapes) != self.arena.view.header.input_count or len(shapes) > 16:
                raise ValueError(f"row shapes of {len(shapes)} inputs: the arena has other inputs, or over 16")
            for tensor, shape in enumerate(shapes):
                if len(shape) + 1 != self.arena.view.tensors[<int>tensor].rank:
                    raise ValueError(f"input {tensor}: {len(shape)} dimensions of a row are not the arena's")
                for axis, dim in enumerate(shape):
                    dims[<int>tensor * MAX_RANK + <int>axis + 1] = dim
            if self.arena.view.padding != NULL and padding_round(&self.arena.view, dims, extents) >= 0:
                raise ValueError(f"rows of {shapes}: lengths of one group differ")
            if not shapes_measure(&self.arena.view, dims, &measured):
                raise ValueError(f"rows of {shapes} do not fit into a slab")
            if self.arena.view.padding != NULL:
                measured.spare_elements = relaxed_load(&self.arena.view.padding.overhead_elements) // row_count
            if signature is not None:
                measured.signature = signature
            wanted = &measured
            capacity = measured.capacity
        with nogil:
            code = ring_claim(&self.arena.view, owner, level, row_count, wanted, now_ns, &claim)
        if code == RING_TOO_LARGE:
            raise ValueError(f"{row_count} rows: a slab holds 1 to {capacity}")
        if code < 0:
            return None
        if self.arena.view.padding != NULL:
            for row in range(claim.first_row, claim.first_row + row_count):
                memcpy(row_extents(&self.arena.view, claim.slab, row), extents,
                       self.arena.view.padding.group_count * sizeof(int64_t))
        return claim.slab, claim.first_row, claim.row_count, claim.generation

    def reserve(self, uint32_t owner, uint64_t now_ns=0):
        cdef Claim claim
        if self.arena.view.mode != MODE_ROWS:
            raise ValueError("slabs are reserved in an arena in rows mode only")
        if ring_reserve(&self.arena.view, owner, now_ns, &claim) < 0:
            return None
        return claim.slab, claim.first_row, claim.row_count, claim.generation

    def open_reserved(self, uint32_t owner, tuple claim, uint32_t row_count, uint64_t now_ns=0):
        cdef Claim c = as_claim(claim)
        if not 0 < row_count <= self.arena.view.row_capacity:
            raise ValueError(f"{row_count} rows: a slab holds 1 to {self.arena.view.row_capacity}")
        c.row_count = row_count
        ring_open_reserved(&self.arena.view, owner, now_ns, &c)
        return c.slab, c.first_row, c.row_count, c.generation

    def give_up_reserved(self, uint32_t owner, tuple claim):
        cdef Claim c = as_claim(claim)
        ring_give_up_reserved(&self.arena.view, owner, &c)

    def level_of(self, uint64_t priority):
        return level_of(&self.arena.view, priority)

    def level_times(self, uint32_t level, int64_t timeout_us, uint64_t now_ns):
        cdef uint64_t deadline_ns, stale_ns
        level_times(&self.arena.view, level, timeout_us, now_ns, &deadline_ns, &stale_ns)
        return deadline_ns, stale_ns

    def level_is_full(self, uint32_t level):
        return level_is_full(&self.arena.view, level)

    def stale_after(self, uint32_t slab, uint64_t stale_ns):
        level_stale_after(&self.arena.view, slab, stale_ns)

    def has_room(self):
        return ring_has_room(&self.arena.view)

    def publish(self, uint32_t owner, tuple claim, uint64_t now_ns=0, uint64_t deadline_ns=0):
        cdef Claim c = as_claim(claim)
        ring_publish(&self.arena.view, owner, &c, now_ns, deadline_ns)

    def wake(self, list bells):
        cdef int fds[MAX_INSTANCES]
        if len(bells) != <Py_ssize_t>self.arena.view.header.instance_count:
            raise ValueError(f"{len(bells)} bells: the arena has {self.arena.view.header.instance_count} instances")
        for instance, bell in enumerate(bells):
            fds[<int>instance] = bell
        return bool(lane_wake(self.arena.view.lane, fds))

    def cancel(self, uint32_t owner, tuple claim):
        cdef Claim c = as_claim(claim)
        return ring_cancel(&self.arena.view, owner, &c)

    def finished(self, uint32_t owner, tuple claim):
        cdef Claim c = as_claim(claim)
        cdef uint64_t failed
        if not ring_finished(&self.arena.view, owner, &c, &failed):
            return None
        return row_code(failed)

    def release(self, uint32_t owner, tuple claim):
        cdef Claim c = as_claim(claim)
        ring_release(&self.arena.view, owner, &c)
        return ring_recycle(&self.arena.view, c.slab)

    def seal(self, uint32_t instance, uint64_t now_ns=0):
        cdef Batch batch
        cdef int code = ring_seal(&self.arena.view, instance, now_ns, &batch)
        if code == RING_WAIT:
            return batch.wait_until_ns
        return None if code < 0 else batch

    def take(self, uint32_t instance, dict batch, uint64_t now_ns=0, bint partial=False):
        cdef Batch b = batch
        if ring_take(&self.arena.view, instance, now_ns, partial, &b) == RING_UNPUBLISHED:
            return None
        return b

    def take_alone(self, dict batch, uint32_t row):
        cdef Batch b = batch
        return ring_take_alone(&self.arena.view, &b, row)

    def put_back(self, uint32_t slab, uint32_t row):
        ring_put_back(&self.arena.view, slab, row)

    def crowd(self, uint32_t slab):
        relaxed_store_half(&self.arena.view.slabs[slab].crowded, 1)

    def finish_row(self, uint32_t slab, uint32_t row, uint32_t code=0):
        ring_finish_row(&self.arena.view, slab, row, code)

    def complete(self, uint32_t instance, dict batch):
        cdef Batch b = batch
        return ring_complete(&self.arena.view, instance, &b)

    def reap_owner(self, uint32_t owner):
        return ring_reap_owner(&self.arena.view, owner)

    def recover_executor(self):
        return ring_recover_executor(&self.arena.view)

    def slab(self, uint32_t slab):
        """(state, owner, claimed rows, generation, attempts) of a slab."""
        cdef uint64_t w = word_load(&self.arena.view.slabs[slab].word)
        return (slab_state(w), slab_owner(w), slab_claimed(w), word_generation(w),
                relaxed_load_half(&self.arena.view.slabs[slab].attempts))

    def row(self, uint32_t slab, uint32_t row):
        """(state, owner, attempts, failure code, generation) of a row."""
        cdef uint64_t w = word_load(row_at(&self.arena.view, slab, row))
        return row_state(w), row_owner(w), row_attempts(w), row_code(w), word_generation(w)

    def row_counts(self):
        """Rows by state, over all slabs that are not free: index is the row state."""
        counts = [0] * 9
        cdef uint32_t slab, row
        cdef uint64_t w
        for slab in range(self.arena.view.slab_count):
            w = word_load(&self.arena.view.slabs[slab].word)
            if slab_state(w) in (SLAB_FREE, SLAB_OPENING):
                continue
            for row in range(slab_claimed(w)):
                counts[row_state(word_load(row_at(&self.arena.view, slab, row)))] += 1
        return counts

    def held(self):
        """(slab, generation, steps) of each slab that an instance has, sealed or running."""
        cdef uint32_t slab
        cdef uint64_t w
        found = []
        for slab in range(self.arena.view.slab_count):
            w = word_load(&self.arena.view.slabs[slab].word)
            if slab_state(w) in (SLAB_SEALED, SLAB_RUNNING) and slab_owner(w) != OWNER_NONE:
                found.append((slab, word_generation(w), relaxed_load(&self.arena.view.slabs[slab].steps)))
        return found

    def beat(self):
        """(when an instance without work looked last, runs up to now): changes while the executor is well and idle."""
        cdef ArenaView* v = &self.arena.view
        return relaxed_load(&v.lane.beat_ns), relaxed_load(&v.stats[v.header.owner_count].execution_count)

    def free_slabs(self):
        """How many slabs are free."""
        cdef uint32_t slab
        cdef int free_count = 0
        for slab in range(self.arena.view.slab_count):
            free_count += slab_state(word_load(&self.arena.view.slabs[slab].word)) == SLAB_FREE
        return free_count


cdef Claim as_claim(tuple claim):
    cdef Claim c
    c.slab, c.first_row, c.row_count, c.generation = claim
    return c
