"""Which device of a model takes the batch that is due, among instances that are threads of one process.

An instance that is idle leaves a batch alone as long as another device would answer it sooner, and takes it once the
batch has waited for as long as it would have run here. The rule is next_device; its reference is
server.models.placement.next_device.

It knows instances, their devices, when each is expected to end, and T(b) of each device, learnt as cost_table has it;
it does not know models, sessions or what a batch holds. Nothing is handed from one instance to another: a batch that is
left alone stays due in the arena, whoever looks there next decides anew. So nothing can get lost here, and nothing has
to be cleaned up when the process dies. Who leaves a batch alone sleeps no longer than until the time at which it may
take it; where an idle device is the better one, one of its instances is woken if it sleeps (if it does not, it is about
to look).

The memory is the object's, which all LaneExecutors of the model hold. Each instance writes its own line, any of them a
device's cost table (a lost update is a sample that was not there); stores are relaxed: a number that is old for a
moment makes a decision that is taken again. O(instances + COST_CELLS) a decision, nothing allocated.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from server._fast.atomics cimport relaxed_load, relaxed_load_half, relaxed_store, shared_add, word_cas, word_load
from server._fast.cost_table cimport cost_add, cost_learn, cost_of
from server._fast.layout cimport COST_DRIFT_ONE, Arena, ArenaView, CostTable
from server._fast.slab_ring cimport slab_claimed
from server._fast.wakeup cimport bell_ring

#: A device counts as measured after so many runs: the first ones may have had something to set up.
cdef uint64_t TRUSTED_RUNS = 4
#: What a device has learnt that has not run for so long no longer counts: it may be free of what made it slow, and
#: nobody would find out.
cdef uint64_t STALE_NS = 10000000000


cdef int next_device(uint64_t now_ns, uint64_t waited_ns, const DeviceLoad* loads, uint32_t count) noexcept nogil:
    cdef uint32_t i
    cdef int here = -1
    cdef uint64_t answer_ns, best_ns
    for i in range(count):
        if loads[i].free_ns > now_ns:
            continue
        if loads[i].run_ns == 0:
            # It has to run somewhere before anybody knows how long it takes there.
            return i
        if here < 0 or loads[i].run_ns < loads[here].run_ns:
            here = i
    if here < 0 or waited_ns >= loads[here].run_ns:
        return here
    best_ns = loads[here].run_ns
    for i in range(count):
        if loads[i].run_ns and loads[i].free_ns > now_ns:
            answer_ns = loads[i].free_ns - now_ns + loads[i].run_ns
            if answer_ns < best_ns:
                best_ns = answer_ns
    return here if loads[here].run_ns <= best_ns else -1


cdef class DeviceTurns:
    """devices: that of each instance, as a number from 0; bells: the instances' eventfds."""

    def __cinit__(self, Arena arena not None, list devices, list bells):
        cdef uint32_t instance, device, k
        cdef CostTable* like = arena.view.cost
        if not 1 <= len(devices) <= TURN_INSTANCES or len(bells) != len(devices):
            raise ValueError(f"{len(devices)} instances, {len(bells)} bells: as many, at most {TURN_INSTANCES}")
        if sorted(set(devices)) != list(range(max(devices) + 1)) or max(devices) >= TURN_DEVICES:
            raise ValueError(f"devices {devices}: expected numbers from 0 without gaps, below {TURN_DEVICES}")
        memset(self.instances, 0, sizeof(self.instances))
        memset(self.tables, 0, sizeof(self.tables))
        memset(self.views, 0, sizeof(self.views))
        memset(self.members, 0, sizeof(self.members))
        memset(self.ran_ns, 0, sizeof(self.ran_ns))
        self.held_total = 0
        self.instance_count = len(devices)
        self.device_count = max(devices) + 1
        for instance in range(self.instance_count):
            device = devices[instance]
            self.device_of[instance] = device
            self.bells[instance] = bells[instance]
            self.members[device] |= <uint64_t>1 << instance
        for device in range(self.device_count):
            self.tables[device].drift = COST_DRIFT_ONE
            self.tables[device].cell_count = like.cell_count
            for k in range(like.cell_count):
                self.tables[device].cells[k].rows = like.cells[k].rows
            self.views[device].cost = &self.tables[device]

    cdef int check(self, uint32_t device) except -1:
        if device >= self.device_count:
            raise ValueError(f"device {device}: there are {self.device_count}")
        return 0

    cdef uint64_t run_ns(self, uint32_t device, uint32_t rows) noexcept nogil:
        """0: not measured."""
        if relaxed_load(&self.tables[device].run_count) < TRUSTED_RUNS:
            return 0
        return cost_of(&self.views[device], rows)

    cdef void forget(self, uint32_t device) noexcept nogil:
        """Back to what the warm-up has shown."""
        cdef CostTable* t = &self.tables[device]
        cdef uint32_t k
        cdef uint64_t base_ns
        for k in range(t.cell_count):
            if relaxed_load_half(&t.cells[k].count):
                base_ns = relaxed_load(&t.cells[k].base_ns)
                relaxed_store(&t.cells[k].mean_ns, base_ns)
                relaxed_store(&t.cells[k].deviation_ns, base_ns // 8)
        relaxed_store(&t.drift, COST_DRIFT_ONE)

    cdef bint wake_one(self, ArenaView* v, uint32_t device) noexcept nogil:
        """Wakes an instance of the device, if one sleeps."""
        cdef uint64_t sleepers, found
        cdef int instance
        while True:
            sleepers = word_load(&v.lane.sleepers)
            found = sleepers & self.members[device]
            if found == 0:
                return False
            instance = 0
            while not (found >> instance) & 1:
                instance += 1
            if word_cas(&v.lane.sleepers, sleepers, sleepers & ~(<uint64_t>1 << instance)):
                bell_ring(self.bells[instance])
                return True

    cdef uint64_t turn_hold(self, ArenaView* v, uint32_t instance, uint32_t slab, uint64_t word,
                            uint64_t now_ns) noexcept nogil:
        """0: the idle instance takes the slab that is due; else the time, not before which it looks again, unless
        something happens. A queue delay is no wait: it was wanted.
        """
        cdef uint64_t since_ns = relaxed_load(&v.slabs[slab].opened_ns) + v.lane.max_queue_delay_ns
        return self.turn_wait(v, instance, slab_claimed(word), since_ns, now_ns)

    cdef uint64_t turn_wait(self, ArenaView* v, uint32_t instance, uint32_t rows, uint64_t since_ns,
                            uint64_t now_ns) noexcept nogil:
        cdef DeviceLoad loads[TURN_DEVICES]
        cdef uint32_t i, own = self.device_of[instance]
        cdef uint64_t free_ns, here_ns, waited_ns = now_ns - since_ns if now_ns > since_ns else 0
        cdef int chosen
        for i in range(self.device_count):
            if now_ns > relaxed_load(&self.ran_ns[i]) + STALE_NS:
                relaxed_store(&self.ran_ns[i], now_ns)
                self.forget(i)
            loads[i].free_ns = <uint64_t>-1
            loads[i].run_ns = self.run_ns(i, rows)
        for i in range(self.instance_count):
            free_ns = relaxed_load(&self.instances[i].busy_until_ns)
            if free_ns and free_ns <= now_ns:
                # What takes longer than expected is expected to end now.
                free_ns = now_ns + 1
            if free_ns < loads[self.device_of[i]].free_ns:
                loads[self.device_of[i]].free_ns = free_ns
        chosen = next_device(now_ns, waited_ns, loads, self.device_count)
        if chosen == <int>own:
            return 0
        here_ns = loads[own].run_ns
        if (chosen < 0 or not self.wake_one(v, chosen)) and waited_ns >= here_ns:
            return 0
        shared_add(&self.held_total, 1)
        # Who was woken has it, unless something is in its way; then this one does.
        return now_ns + (here_ns - waited_ns if here_ns > waited_ns else here_ns + 1)

    cdef void turn_begins(self, uint32_t instance, uint32_t rows, uint64_t now_ns) noexcept nogil:
        """It has taken a batch."""
        relaxed_store(&self.instances[instance].busy_until_ns,
                      now_ns + self.run_ns(self.device_of[instance], rows if rows else 1))

    cdef void turn_ends(self, uint32_t instance, uint64_t now_ns) noexcept nogil:
        """It has run it, and looks for another at once."""
        relaxed_store(&self.instances[instance].busy_until_ns, now_ns)

    cdef void turn_looks(self, uint32_t instance) noexcept nogil:
        """It looks for a batch."""
        relaxed_store(&self.instances[instance].busy_until_ns, 0)

    cdef void turn_ran(self, uint32_t instance, uint32_t rows, uint64_t ns, uint64_t now_ns) noexcept nogil:
        """A run of so many rows took so long, without others in between."""
        relaxed_store(&self.ran_ns[self.device_of[instance]], now_ns)
        cost_add(&self.views[self.device_of[instance]], rows, ns, now_ns)

    def learn(self, uint32_t device, uint32_t rows, uint64_t ns, uint64_t deviation_ns, uint32_t count,
              uint64_t now_ns):
        self.check(device)
        if rows == 0 or cost_learn(&self.views[device], rows, ns, deviation_ns, count, now_ns) < 0:
            raise ValueError(f"{count} runs of {rows} rows: expected a size of the lane's cost table and a run")

    def of(self, uint32_t device, uint64_t rows):
        self.check(device)
        return cost_of(&self.views[device], rows)

    def run_count(self, uint32_t device):
        self.check(device)
        return relaxed_load(&self.tables[device].run_count)

    @property
    def held_count(self):
        return relaxed_load(&self.held_total)

    def wait(self, Arena arena not None, uint32_t instance, uint32_t rows, uint64_t since_ns, uint64_t now_ns):
        return self.turn_wait(&arena.view, instance, rows, since_ns, now_ns)

    def ran(self, uint32_t instance, uint32_t rows, uint64_t ns, uint64_t now_ns):
        self.turn_ran(instance, rows, ns, now_ns)

    def begins(self, uint32_t instance, uint32_t rows, uint64_t now_ns):
        self.turn_begins(instance, rows, now_ns)

    def ends(self, uint32_t instance, uint64_t now_ns):
        self.turn_ends(instance, now_ns)

    def looks(self, uint32_t instance):
        self.turn_looks(instance)


def choose(uint64_t now_ns, uint64_t waited_ns, list loads):
    cdef DeviceLoad found[TURN_DEVICES]
    cdef uint32_t i
    if len(loads) > TURN_DEVICES:
        raise ValueError(f"{len(loads)} devices: at most {TURN_DEVICES}")
    for i in range(<uint32_t>len(loads)):
        found[i].free_ns, found[i].run_ns = loads[i]
    return next_device(now_ns, waited_ns, found, len(loads))
