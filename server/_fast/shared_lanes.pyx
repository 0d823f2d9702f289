"""One instance of an executor that serves several lanes: it waits for any of them and takes the batch of one.

The instance has one bell. Before it sleeps it says so in every lane and looks at every lane again, so whoever
publishes in any of them wakes it (wakeup.pxd); a wake-up says nothing of which lane it is about. Which of the lanes
with a batch that is due goes next is lane_sharing's business, which batch of it slab_ring's. Used by the instance's
thread alone, but for interrupt(). The arenas belong to the LaneExecutors, which it keeps. Looking costs O(slabs) for
each lane.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from server._fast.atomics cimport half_exchange, half_load, half_store, relaxed_store, shared_add
from server._fast.clock cimport now_ns
from server._fast.lane_executor cimport NAP_NS, LaneExecutor, bell_nap, take_due
from server._fast.lane_sharing cimport MAX_SHARED_LANES, Offer, Sharing, slab_deadline
from server._fast.layout cimport MAX_INSTANCES
from server._fast.slab_ring cimport RING_WAIT
from server._fast.slab_run cimport ring_due
from server._fast.standing_queue cimport queue_stands_no_more
from server._fast.wakeup cimport bell_clear, bell_ring, lane_sleep_begin, lane_sleep_end, lane_wake


cdef extern from "<sched.h>" nogil:
    int sched_yield() noexcept

#: wait() has no batch: somebody called interrupt(), or the lane with the number ~code shuts down.
cdef int INTERRUPTED = -1000


cdef class SharedLanes:
    """Instance `instance`; bells: the eventfds of all instances, which every lane has; sharing: that of all of them."""

    def __cinit__(self, Sharing sharing not None, int instance, list bells):
        if not 0 <= instance < len(bells) <= MAX_INSTANCES:
            raise ValueError(f"instance {instance} of {len(bells)}: at most {MAX_INSTANCES}")
        self.sharing = sharing
        self.instance = instance
        for index, bell in enumerate(bells):
            self.bells[<int>index] = bell
        self.bell = self.bells[instance]
        self.executors = {}
        self.present = -1

    def add(self, uint32_t number, LaneExecutor lane not None):
        """From now on batches of this lane are taken. Its next_batch() gives each batch once, and then None."""
        if number >= self.sharing.lane_count or number in self.executors:
            raise ValueError(f"lane {number}: expected 0..{self.sharing.lane_count - 1}, one that is not there yet")
        if lane.bell != self.bell or lane.instance != self.instance:
            raise ValueError(f"lane {number} is of another instance, or has another bell")
        lane.is_shared = True
        lane.is_granted = False
        self.executors[number] = lane
        self.lanes[number].v = lane.v
        self.lanes[number].watch = &lane.watch
        self.lanes[number].batch = &lane.batch
        self.list_numbers()

    def remove(self, uint32_t number):
        """Takes no more batches of the lane; the present one is complete."""
        self.end_turn()
        del self.executors[number]
        self.list_numbers()

    cdef int list_numbers(self) except -1:
        self.count = 0
        for number in sorted(self.executors):
            self.numbers[self.count] = number
            self.count += 1
        return 0

    def interrupt(self):
        """Has next_lane() return None. Any thread."""
        half_store(&self.is_interrupted, 1)
        bell_ring(self.bell)

    def next_lane(self):
        """Waits for a batch: the number of its lane; None after interrupt(); ~number of a lane that shuts down.

        The batch before it is complete. Releases the GIL.
        """
        cdef int code
        self.end_turn()
        with nogil:
            code = self.wait()
        if code == INTERRUPTED:
            return None
        if code >= 0:
            self.present = code
            (<LaneExecutor>self.executors[code]).is_granted = True
        return code

    @property
    def attempts(self):
        """Executors that died with the batch that was taken last."""
        return self.lanes[self.present].batch.attempts if self.present >= 0 else 0

    def end_turn(self):
        """Counts the run time of the batch that was taken last."""
        if self.present >= 0:
            self.sharing.lane_ran(self.present, self.charged_ns, <int64_t>(now_ns() - self.granted_ns))
            self.present = -1

    cdef int wait(self) noexcept nogil:
        cdef Offer due[MAX_SHARED_LANES]
        cdef uint32_t i, count, number
        cdef uint64_t wait_until_ns
        while True:
            if half_load(&self.is_interrupted) and half_exchange(&self.is_interrupted, 0):
                return INTERRUPTED
            for i in range(self.count):
                if half_load(&self.lanes[self.numbers[i]].v.lane.shutdown):
                    return ~<int>self.numbers[i]
            if self.count == 1:
                # Alone it shares with nobody; its run time counts once others come.
                number = self.numbers[0]
                self.charged_ns = 0
                self.granted_ns = now_ns()
                if self.take(&self.lanes[number]) == 0:
                    return number
                self.sleep()
                continue
            count = self.look(due, &wait_until_ns)
            if count == 0:
                self.sleep()
                continue
            self.granted_ns = now_ns()
            number = self.sharing.take_lane(due, count, self.granted_ns, &self.charged_ns)
            if self.take(&self.lanes[number]) == 0:
                self.wake_another(due, count, number)
                return number
            self.sharing.lane_back(number, self.charged_ns)

    cdef int take(self, SharedLane* lane) noexcept nogil:
        return take_due(lane.v, self.instance, lane.watch, lane.batch)

    cdef void wake_another(self, const Offer* due, uint32_t count, uint32_t number) noexcept nogil:
        """Batches of other lanes wait: workers may have woken this instance for each of them, and no other."""
        cdef uint32_t i
        for i in range(count):
            if due[i].lane != number and lane_wake(self.lanes[due[i].lane].v.lane, self.bells):
                return

    cdef uint32_t look(self, Offer* due, uint64_t* wait_until_ns) noexcept nogil:
        """Lanes with a batch that is due, and when the first of the others has one; 0: when it is woken."""
        cdef uint32_t i, slab, number, count = 0
        cdef uint64_t word, due_ns, now = now_ns()
        cdef int code
        wait_until_ns[0] = 0
        for i in range(self.count):
            number = self.numbers[i]
            code = ring_due(self.lanes[number].v, now, &slab, &word, &due_ns)
            if code == 0:
                due[count].lane = number
                due[count].deadline_ns = slab_deadline(self.lanes[number].v, slab, word)
                count += 1
            elif code == RING_WAIT and (wait_until_ns[0] == 0 or due_ns < wait_until_ns[0]):
                wait_until_ns[0] = due_ns
        return count

    cdef void sleep(self) noexcept nogil:
        """Sleeps until there may be work in some lane. Says so first in each and looks again."""
        cdef Offer due[MAX_SHARED_LANES]
        cdef uint32_t i
        cdef uint64_t wait_until_ns, now, nap_ns = NAP_NS
        cdef bint is_over = half_load(&self.is_interrupted) != 0
        now = now_ns()
        for i in range(self.count):
            queue_stands_no_more(self.lanes[self.numbers[i]].v, &self.lanes[self.numbers[i]].watch.standing)
            relaxed_store(&self.lanes[self.numbers[i]].v.lane.beat_ns, now)
            lane_sleep_begin(self.lanes[self.numbers[i]].v.lane, self.instance)
        for i in range(self.count):
            is_over |= half_load(&self.lanes[self.numbers[i]].v.lane.shutdown) != 0
        if self.look(due, &wait_until_ns) == 0 and not is_over:
            now = now_ns()
            if wait_until_ns:
                nap_ns = min(nap_ns, wait_until_ns - now if wait_until_ns > now else 1)
            if bell_nap(self.bell, nap_ns):
                bell_clear(self.bell)
                # A worker that shares this core and has rows to publish gets to do so first: one batch instead of two.
                sched_yield()
            elif wait_until_ns == 0 and self.look(due, &wait_until_ns):
                shared_add(&self.lanes[due[0].lane].v.lane.missed_wakeups, 1)
        for i in range(self.count):
            lane_sleep_end(self.lanes[self.numbers[i]].v.lane, self.instance)
