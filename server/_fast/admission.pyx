"""What stands in a lane before a request that comes now, and whether answers come too late all the same.

It knows slab words and the costs of runs; it does not know requests, protocols or clocks. The arena's words are read as
they are at that moment, without a lock: a prediction may be a row off. A LanePressure belongs to one worker's thread.
O(slabs) a look, nothing allocated. The rule itself stands in admission.pxd, the reference is server.batching.admission.
"""

from libc.math cimport sqrt
from libc.stdint cimport uint32_t, uint64_t

from server._fast.atomics cimport relaxed_load, relaxed_load_half, word_load
from server._fast.cost_table cimport cost_of
from server._fast.layout cimport Arena, ArenaView, SlabHeader
from server._fast.slab_ring cimport SLAB_OPEN, SLAB_RUNNING, SLAB_SEALED, slab_claimed, slab_state

#: How long answers may be slow before the lane is under pressure: CoDel's interval.
cdef uint64_t INTERVAL_NS = 100000000


cdef void admission_look(ArenaView* v, uint32_t level, uint32_t rows, uint64_t now_ns, LaneLoad* out) noexcept nogil:
    cdef SlabHeader* header
    cdef uint64_t word, end_ns, left_ns = <uint64_t>-1, deadline_ns
    cdef uint32_t slab, state, slab_level, running = 0
    out.waiting_rows = 0
    out.open_deadline_ns = 0
    for slab in range(v.slab_count):
        header = &v.slabs[slab]
        word = word_load(&header.word)
        state = slab_state(word)
        if state == SLAB_RUNNING:
            running += 1
            end_ns = relaxed_load(&header.run_start_ns) + cost_of(v, relaxed_load_half(&header.run_rows))
            # A run that is overdue will take as long again: who knows what holds it up.
            left_ns = min(left_ns, end_ns - now_ns if end_ns > now_ns else now_ns - end_ns)
        elif state == SLAB_OPEN or state == SLAB_SEALED:
            slab_level = relaxed_load_half(&header.level) if v.level_count > 1 else level
            if slab_level > level:
                continue
            out.waiting_rows += slab_claimed(word)
            deadline_ns = relaxed_load(&header.deadline_ns)
            if state == SLAB_OPEN and slab_level == level and deadline_ns and (
                out.open_deadline_ns == 0 or deadline_ns < out.open_deadline_ns
            ):
                out.open_deadline_ns = deadline_ns
    out.run_left_ns = left_ns if running >= v.header.instance_count else 0
    out.work_ns = cost_of(v, out.waiting_rows + rows)
    if v.header.instance_count > 1 and out.waiting_rows:
        # Others run beside it, but what was asked about takes its own time.
        out.work_ns = max(cost_of(v, rows), out.work_ns // v.header.instance_count)


cdef void admission_answered(LanePressure* pressure, uint64_t took_ns, uint64_t budget_ns,
                             uint64_t now_ns) noexcept nogil:
    """CoDel's control law on the margin: one quick answer in an interval says that the queue does not stand, and all is
    forgotten; while there is none the margin grows, faster and faster.
    """
    if took_ns * 4 < budget_ns * 3:
        pressure.above_until_ns = 0
        pressure.level = 0
    elif pressure.above_until_ns == 0:
        pressure.above_until_ns = now_ns + INTERVAL_NS
    elif now_ns > pressure.above_until_ns:
        pressure.level += 1
        pressure.above_until_ns = now_ns + <uint64_t>(INTERVAL_NS / sqrt(pressure.level + 1))


def look(Arena arena not None, uint32_t rows, uint64_t now_ns, object level=None):
    """(ns until an instance is free, ns of work with `rows` more, earliest deadline of open slabs, rows that wait), of
    what goes before a request of this priority level (from 0; the last where none is said).
    """
    cdef LaneLoad load
    cdef uint32_t last = arena.view.level_count - 1
    admission_look(&arena.view, last if level is None else <uint32_t>level, rows, now_ns, &load)
    return load.run_left_ns, load.work_ns, load.open_deadline_ns, load.waiting_rows


def decide(uint64_t run_left_ns, uint64_t work_ns, uint64_t open_deadline_ns, uint32_t waiting_rows, uint64_t now_ns,
           uint64_t deadline_ns, uint64_t margin_ns):
    """The rule on given numbers: an AdmissionCode."""
    cdef LaneLoad load
    load.run_left_ns = run_left_ns
    load.work_ns = work_ns
    load.open_deadline_ns = open_deadline_ns
    load.waiting_rows = waiting_rows
    return admission_decide(&load, now_ns, deadline_ns, margin_ns)


def margin(uint64_t budget_ns, uint64_t lag_ns, uint32_t level):
    return admission_margin(budget_ns, lag_ns, level)


def retry_after_s(uint64_t wait_ns, uint32_t random):
    return admission_retry_after_s(wait_ns, random)


def levels(list answers not None):
    """The pressure after each of (took, budget, now) in ns."""
    cdef LanePressure pressure
    pressure.above_until_ns = 0
    pressure.level = 0
    result = []
    for took_ns, budget_ns, now_ns in answers:
        admission_answered(&pressure, took_ns, budget_ns, now_ns)
        result.append(pressure.level)
    return result
