"""Which of an executor's lanes an idle instance runs next: server.batching.sharing on C structs.

It knows numbers of lanes, run times and deadlines; it does not know where batches come from or who runs them. All
instances of a process share one Sharing, which owns its memory; a lock makes choosing and counting one step, and is
held for O(lanes) without a system call in between. What is counted is gone with the process: its successor starts anew.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from server._fast.atomics cimport relaxed_load, word_load
from server._fast.layout cimport ArenaView
from server._fast.slab_ring cimport ROW_READY, row_at, row_index, row_state, slab_claimed


#: How far deadlines may put a lane ahead of its share.
cdef int64_t LOAN_NS = 100000000


cdef uint64_t slab_deadline(ArenaView* v, uint32_t slab, uint64_t word) noexcept nogil:
    cdef uint64_t earliest = 0, deadline_ns
    cdef uint32_t row
    for row in range(slab_claimed(word)):
        if row_state(word_load(row_at(v, slab, row))) == ROW_READY:
            deadline_ns = relaxed_load(&v.meta[row_index(v, slab, row)].deadline_ns)
            if deadline_ns and (earliest == 0 or deadline_ns < earliest):
                earliest = deadline_ns
    return earliest


cdef class Sharing:
    """The books of `lane_count` lanes."""

    def __cinit__(self, uint32_t lane_count):
        if not 1 <= lane_count <= MAX_SHARED_LANES:
            raise ValueError(f"{lane_count} lanes: expected 1 to {MAX_SHARED_LANES}")
        self.lane_count = lane_count
        if pthread_mutex_init(&self.lock, NULL) != 0:
            raise MemoryError()

    def __dealloc__(self):
        pthread_mutex_destroy(&self.lock)

    cdef uint32_t take_lane(self, const Offer* due, uint32_t count, uint64_t now_ns,
                            int64_t* charged_ns) noexcept nogil:
        """Chooses of `count` lanes, 1 at least, and charges the chosen one what it is likely to take."""
        cdef uint32_t i, lane, longest = 0, fair = 0, urgent = count
        cdef int64_t slowest_ns, second_ns = 0, least_ns, end_ns, other_ns
        cdef LaneShare* share
        pthread_mutex_lock(&self.lock)
        for i in range(count):
            share = &self.shares[due[i].lane]
            share.served_ns = max(share.served_ns, self.clock_ns)
            if i and share.run_ns > self.shares[due[longest].lane].run_ns:
                second_ns = self.shares[due[longest].lane].run_ns
                longest = i
            elif i:
                second_ns = max(second_ns, share.run_ns)
            if share.served_ns < self.shares[due[fair].lane].served_ns or (
                share.served_ns == self.shares[due[fair].lane].served_ns and due[i].lane < due[fair].lane
            ):
                fair = i
        slowest_ns = self.shares[due[longest].lane].run_ns
        least_ns = self.shares[due[fair].lane].served_ns
        self.clock_ns = least_ns
        for i in range(count):
            share = &self.shares[due[i].lane]
            end_ns = <int64_t>now_ns + share.run_ns
            other_ns = second_ns if i == longest else slowest_ns
            if share.served_ns - least_ns <= LOAN_NS and (
                end_ns <= <int64_t>due[i].deadline_ns < end_ns + other_ns
            ) and (urgent == count or self.goes_before(&due[i], &due[urgent])):
                urgent = i
        lane = due[fair if urgent == count else urgent].lane
        charged_ns[0] = self.shares[lane].run_ns
        self.shares[lane].served_ns += charged_ns[0]
        pthread_mutex_unlock(&self.lock)
        return lane

    cdef bint goes_before(self, const Offer* a, const Offer* b) noexcept nogil:
        cdef int64_t a_ns = self.shares[a.lane].served_ns, b_ns = self.shares[b.lane].served_ns
        if a.deadline_ns != b.deadline_ns:
            return a.deadline_ns < b.deadline_ns
        return a_ns < b_ns or (a_ns == b_ns and a.lane < b.lane)

    cdef void lane_ran(self, uint32_t lane, int64_t charged_ns, int64_t ns) noexcept nogil:
        cdef LaneShare* share = &self.shares[lane]
        pthread_mutex_lock(&self.lock)
        share.served_ns += ns - charged_ns
        share.run_ns = share.run_ns + ((ns - share.run_ns) >> 3) if share.run_ns else ns
        pthread_mutex_unlock(&self.lock)

    cdef void lane_back(self, uint32_t lane, int64_t charged_ns) noexcept nogil:
        pthread_mutex_lock(&self.lock)
        self.shares[lane].served_ns -= charged_ns
        pthread_mutex_unlock(&self.lock)

    def take(self, list due, uint64_t now_ns):
        """(lane, charged ns) of lanes with a batch that is due: (lane, deadline ns or 0)."""
        cdef Offer offers[MAX_SHARED_LANES]
        cdef uint32_t count = 0
        cdef int64_t charged_ns
        if not 1 <= len(due) <= <Py_ssize_t>self.lane_count:
            raise ValueError(f"{len(due)} lanes: expected 1 to {self.lane_count}")
        for lane, deadline_ns in due:
            if not 0 <= lane < self.lane_count:
                raise IndexError(f"lane {lane}: expected 0..{self.lane_count - 1}")
            offers[count].lane = lane
            offers[count].deadline_ns = deadline_ns
            count += 1
        lane = self.take_lane(offers, count, now_ns, &charged_ns)
        return lane, charged_ns

    def ran(self, uint32_t lane, int64_t charged_ns, int64_t ns):
        self.check(lane)
        self.lane_ran(lane, charged_ns, ns)

    def back(self, uint32_t lane, int64_t charged_ns):
        self.check(lane)
        self.lane_back(lane, charged_ns)

    def clear(self, uint32_t lane):
        self.check(lane)
        pthread_mutex_lock(&self.lock)
        self.shares[lane].served_ns = 0
        self.shares[lane].run_ns = 0
        pthread_mutex_unlock(&self.lock)

    def served_ns(self, uint32_t lane):
        self.check(lane)
        return self.shares[lane].served_ns

    cdef int check(self, uint32_t lane) except -1:
        if lane >= self.lane_count:
            raise IndexError(f"lane {lane}: expected 0..{self.lane_count - 1}")
        return 0
