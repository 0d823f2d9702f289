"""C face of a worker's front end: its lanes, its connections, and what is due at the end of a loop turn."""

from libc.stdint cimport uint32_t, uint64_t

from server._fast.http1 cimport HttpLimits
from server._fast.infer_call cimport LaneClient, Responder, Turn
from server._fast.infer_spec cimport InferError
from server._fast.layout cimport Control, WorkerPage
from server._fast.outbuf cimport OutBuf
from server._fast.slice_queue cimport SliceQueue
from server._fast.spare_buffers cimport SpareBuffers

cdef enum:
    SCRATCH_BYTES = 262144


cdef class Peer(Responder):
    """A connection, of whatever protocol."""

    cdef bint is_due               # in the front end's list for the end of this turn
    cdef int end_turn(self) except -1
    cdef int check_time(self, uint64_t now) except -1
    cdef int stop(self) except -1


cdef class Frontend(Turn):
    cdef readonly Control control
    cdef readonly list lanes       # that requests reach, the highest version first
    cdef list served               # those, and retired ones that have not answered their last request
    cdef object on_drained
    cdef public dict labels        # (model, label) -> version: what TensorFlow Serving's clients may ask for
    cdef readonly dict regions     # name -> ClientRegion: shared memory that requests may name
    cdef readonly object handlers
    cdef object http2              # makes the connection that takes over when a client opens with HTTP/2, or None
    cdef readonly set peers
    cdef object loop
    cdef object end_turn_call
    cdef object on_stopped
    cdef WorkerPage* page
    cdef uint32_t owner
    cdef int bell
    cdef HttpLimits limits
    cdef char* scratch             # where every connection without a partial request receives
    cdef OutBuf gathered           # tensors that lie scattered in a request's body, while it is read
    cdef OutBuf body               # where a reply's body is formatted before its length is known
    cdef InferError error          # the refusal being written
    cdef list due_peers
    cdef list due_lanes
    cdef bint turn_scheduled
    cdef uint64_t turn_began_ns
    cdef uint64_t refusing_until_ns  # how long turns rest after a refusal; 0: they do not
    cdef uint64_t timer_ns         # when on_deadline() is due; 0: it is not
    cdef object timer
    cdef object deadline_call
    cdef readonly bint is_stopping
    cdef uint64_t max_body_bytes
    cdef uint64_t held_bytes       # by partial requests of all connections
    cdef uint64_t max_held_bytes
    cdef uint64_t head_timeout_ns
    cdef uint64_t idle_timeout_ns
    cdef uint64_t send_timeout_ns
    cdef public bint has_tensor_content_replies
    cdef SliceQueue slices         # compression that takes longer than a turn of the loop may
    cdef list cors_origins         # b"https://a.example", or b"*" alone; empty: no cross-origin requests
    cdef list cors_lines           # by origin: header lines of every answer to it
    cdef SpareBuffers spares       # of streams that have ended
    cdef bint is_trim_due          # large buffers were freed: the heap may have pages to give back

    cdef int peer_due(self, Peer peer) except -1
    cdef int schedule(self) except -1
    cdef void rest(self, size_t peer_count) noexcept
    cdef int peer_failed(self, Peer peer, object error) except -1
    cdef LaneClient find_lane(self, const char* name, size_t name_bytes, const char* version, size_t version_bytes)
