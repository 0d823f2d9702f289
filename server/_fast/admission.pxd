"""C face of admission: whether a request can still be answered in time, from what stands in the lane before it.

A prediction reads the slab words: how long the present run still takes, how many rows wait, and what running those and
the asked ones costs. It is made when a request's head is read, so that a refusal costs neither a parse nor a row.
Everything here is arithmetic on the caller's numbers and loads from the arena; nothing is kept but a LanePressure,
which its one owner (a worker's LaneClient) passes in. Any thread may look. O(slabs).

The reference is server.batching.admission, to the nanosecond.
"""

from libc.stdint cimport uint32_t, uint64_t

from server._fast.layout cimport ArenaView


cdef enum AdmissionCode:
    ADMIT = 0
    REFUSE_FULL = 1        # no row is free
    REFUSE_PREDICTED = 2   # it would be answered after its deadline, or make others late that can still be in time
    REFUSE_PAST = 3        # its deadline has passed

#: A request without a deadline is refused when it would wait longer than this.
cdef enum:
    PATIENCE_S = 60

#: What stands before a request that comes now.
cdef struct LaneLoad:
    uint64_t run_left_ns       # until an instance is free
    uint64_t work_ns           # what the rows that wait take, and those that were asked about
    uint64_t open_deadline_ns  # the earliest deadline of rows in open slabs of the level; 0: none has one
    uint32_t waiting_rows

#: Whether answers come too late in spite of the prediction.
cdef struct LanePressure:
    uint64_t above_until_ns    # 0: an answer was quick a moment ago
    uint32_t level


cdef inline uint64_t admission_margin(uint64_t budget_ns, uint64_t lag_ns, uint32_t level) noexcept nogil:
    """What is left between the predicted end and the deadline: the loop's lag on the way in and out, and a part of the
    budget that grows while answers are late.
    """
    return 2 * lag_ns + budget_ns * (2 + (level if level < 8 else 8)) // 16


cdef inline int admission_decide(const LaneLoad* load, uint64_t now_ns, uint64_t deadline_ns,
                                 uint64_t margin_ns) noexcept nogil:
    """The rule: refuse who would be late, or would make the rows late that it would run with. An idle lane takes
    whatever comes: only so can it find out that it is not as slow as it was.
    """
    cdef uint64_t end_ns = now_ns + load.run_left_ns + load.work_ns
    if deadline_ns == 0:
        return REFUSE_PREDICTED if end_ns - now_ns > <uint64_t>PATIENCE_S * <uint64_t>1000000000 else ADMIT
    if deadline_ns <= now_ns:
        return REFUSE_PAST
    if load.waiting_rows == 0 and load.run_left_ns == 0:
        return ADMIT
    if end_ns + margin_ns > deadline_ns:
        return REFUSE_PREDICTED
    # Rows that hurry four times as much do not shut the lane for those that have time.
    if (
        load.open_deadline_ns > now_ns
        and end_ns + margin_ns > load.open_deadline_ns
        and deadline_ns - now_ns <= 4 * (load.open_deadline_ns - now_ns)
    ):
        return REFUSE_PREDICTED
    return ADMIT


cdef inline uint32_t admission_retry_after_s(uint64_t wait_ns, uint32_t random) noexcept nogil:
    """When to come again: the time that the lane needs for what it has, and up to as much again, so that those who are
    sent away together do not come back together. 1 to 30.
    """
    cdef uint64_t most_ns = 30000000000
    cdef uint64_t spread_ns = wait_ns if wait_ns < most_ns else most_ns
    cdef uint64_t whole = (spread_ns + spread_ns * (random & 1023) // 1024 + 999999999) // <uint64_t>1000000000
    return <uint32_t>(1 if whole < 1 else (30 if whole > 30 else whole))


# What stands before `rows` more rows of a priority level (from 0): rows of lower levels do not.
cdef void admission_look(ArenaView* v, uint32_t level, uint32_t rows, uint64_t now_ns, LaneLoad* out) noexcept nogil
# An answer left, or its deadline passed, so long after the request came; budget_ns: to its deadline.
cdef void admission_answered(LanePressure* pressure, uint64_t took_ns, uint64_t budget_ns,
                             uint64_t now_ns) noexcept nogil
