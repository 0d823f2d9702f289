"""Long work on the event loop, in slices: one slice in each turn of the loop, whoever waits longest.

Compression takes longer than anything else a worker does for a request: 64 MiB of output are 200 ms. A request does its
first slice at once, which is all that most of them need; what remains waits here, so that however many such requests
there are, between two turns of the loop they take one slice together. It does not know what the work is. One event loop
thread; O(1) and one Python-level call for a slice.
"""

from collections import deque


cdef class SliceQueue:
    def __cinit__(self, object loop):
        self.loop = loop
        self.waiting = deque()
        self.run_call = self.run

    def __len__(self):
        return len(self.waiting)

    cdef int add(self, object work) except -1:
        self.waiting.append(work)
        if len(self.waiting) == 1:
            self.loop.call_soon(self.run_call)
        return 0

    def put(self, work):
        self.add(work)

    def run(self):
        # The first one stays in its place meanwhile: an add() from inside must not schedule a second run.
        work = self.waiting[0]
        try:
            is_unfinished = work()
        finally:
            self.waiting.popleft()
            if self.waiting:
                self.loop.call_soon(self.run_call)
        if is_unfinished:
            self.add(work)
