"""Large request bodies that are received straight into the rows they are for: one copy less for each byte.

It knows rows and what a binary inference request looks like; it does not know sockets, clocks or answers. A body comes
into a slab that its worker has reserved, which no batch waits for and nobody else sees: whoever sends slowly holds up
no one. How long that may last is the connection's to say, which then copies what is there and gives the slab up. Only
the plainest case is taken, rows of one fixed-size input that ends the body; everything else goes the ordinary way. The
memory is the arena's. One connection, one event loop thread; O(1) beside reading the request's JSON head twice.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from server._fast.frontend cimport Frontend
from server._fast.infer_call cimport LaneClient
from server._fast.infer_claim cimport row_data
from server._fast.infer_spec cimport InferError, InputRef
from server._fast.layout cimport MODE_ROWS
from server._fast.rest_codec cimport REST_V2, rest_index
from server._fast.slab_reserve cimport ring_give_up_reserved, ring_reserve


cdef class RowBody:
    cdef bint begin(self, Frontend frontend, LaneClient lane, int form, const char* p, size_t n, size_t total_bytes,
                    int64_t header_bytes, uint64_t now) except -1:
        cdef InferError ignored
        cdef InputRef* tensor
        cdef size_t head_bytes = header_bytes if header_bytes > 0 else 0
        self.end()
        if form != REST_V2 or header_bytes < 0 or head_bytes > n or total_bytes - n < LEAST_ROW_BYTES:
            return False
        if lane.v.mode != MODE_ROWS or lane.model.n_inputs != 1 or lane.is_retired:
            return False
        # Nothing of a tensor is looked at here: that its bytes are not there yet does not matter. A request that is
        # refused is refused when it is complete.
        ignored.code = 0
        if rest_index(frontend, lane, &form, p, total_bytes, header_bytes, &ignored) < 0 or lane.request.shared_count:
            return False
        tensor = &lane.request.inputs[0]
        if not tensor.is_binary or tensor.bytes.n == 0 or tensor.bytes.p + tensor.bytes.n != p + total_bytes:
            return False
        head_bytes = tensor.bytes.p - p
        if head_bytes > n or lane.request.rows < 1 or lane.request.rows > lane.v.row_capacity:
            return False
        if tensor.bytes.n != <size_t>lane.request.rows * lane.v.tensors[0].row_bytes:
            return False
        if ring_reserve(lane.v, lane.owner, now, &self.claim) < 0:
            return False
        self.claim.row_count = <uint32_t>lane.request.rows
        self.lane = lane
        self.rows = row_data(lane.v, &lane.v.tensors[0], &self.claim)
        self.head_bytes = head_bytes
        self.size_bytes = tensor.bytes.n
        self.got_bytes = n - head_bytes
        self.begun_ns = now
        memcpy(self.rows, p + head_bytes, self.got_bytes)
        return True

    cdef void pass_on(self) noexcept:
        self.lane.reserved = self.claim

    cdef void end(self) noexcept:
        if self.lane is None:
            return
        self.lane.reserved.row_count = 0
        # Does nothing to a slab that was opened.
        ring_give_up_reserved(self.lane.v, self.lane.owner, &self.claim)
        self.lane = None
