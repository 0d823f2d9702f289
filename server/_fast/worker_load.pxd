"""How a worker keeps up with its sockets, and whom it refuses when it cannot.

Arithmetic on a WorkerLoad, which one worker's event loop thread owns, and on the caller's clocks. It does not know
requests, lanes or the loop. O(1), nothing allocated. The reference, with the rule in words, is
server.batching.crowding.
"""

from libc.stdint cimport uint32_t, uint64_t

cdef enum:
    LEAST_SHARE_NS = 2000000
    SHARE_OF_BUDGET = 50
    SHARE_OF_TURN = 4
    CROWDED_S = 10

cdef struct WorkerLoad:
    uint64_t lag_ns            # the longest turn of the loop of late
    uint64_t crowded_until_ns  # since a prediction last said "late"; 0: not crowded
    uint64_t turn_work_ns      # while crowded: the thread's own time in a turn, in the mean of late
    uint64_t thread_ns         # while crowded: that time at the end of the last turn; 0: it was not asked for yet


cdef inline void predicted_late(WorkerLoad* load, uint64_t now_ns) noexcept nogil:
    load.crowded_until_ns = now_ns + <uint64_t>CROWDED_S * <uint64_t>1000000000


cdef inline void turn_ended(WorkerLoad* load, uint64_t took_ns, uint64_t now_ns, uint64_t thread_ns) noexcept nogil:
    """thread_ns: the thread's own time so far, which counts while the worker is crowded."""
    load.lag_ns = max(took_ns, load.lag_ns - load.lag_ns // 8)
    if load.crowded_until_ns == 0:
        return
    if now_ns > load.crowded_until_ns:
        load.crowded_until_ns = load.turn_work_ns = load.thread_ns = 0
        return
    if load.thread_ns:
        load.turn_work_ns = (3 * load.turn_work_ns + thread_ns - load.thread_ns) // 4
    load.thread_ns = thread_ns


cdef inline bint is_crowded_out(const WorkerLoad* load, uint64_t now_ns, uint64_t budget_ns,
                                uint32_t random) noexcept nogil:
    """Whether a request is refused that has budget_ns from its coming to its deadline. random: the lowest ten bits
    count.
    """
    cdef uint64_t share_ns
    if load.crowded_until_ns == 0 or now_ns > load.crowded_until_ns:
        return False
    share_ns = max(<uint64_t>LEAST_SHARE_NS, budget_ns // SHARE_OF_BUDGET, load.turn_work_ns // SHARE_OF_TURN)
    return (random & 1023) * load.turn_work_ns >= 1024 * share_ns
