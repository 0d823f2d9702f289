"""Places in a row's life where a test makes a process die; compiled to nothing in release builds (failpoint.h)."""

cdef extern from "failpoint.h" nogil:
    void failpoint(int point) noexcept
    int failpoint_arm(int point, int hits) noexcept


#: Failpoints, in the order of a row's life. Tests enumerate range(1, FAILPOINT_COUNT).
cdef enum Failpoint:
    FP_OPENING = 1
    FP_OPENED = 2
    FP_CLAIMED = 3
    FP_STAMPING = 4
    FP_PUBLISHING = 5
    FP_PUBLISHED = 6
    FP_SEALED = 7
    FP_RUNNING = 8
    FP_TAKING = 9
    FP_FINISHING = 10
    FP_FINISHED = 11
    FP_DONE = 12
    FP_RELEASING = 13
    FP_RELEASED = 14
    FP_RECYCLED = 15
    FP_CANCELLING = 16
    FP_COUNT = 17
