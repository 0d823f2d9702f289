"""C face of an HTTP/2 connection's framing half: streams in, headers and data out."""

from libc.stdint cimport int32_t, uint32_t, uint64_t

from server._fast.h2_budget cimport Bucket
from server._fast.h2_keepalive cimport Age, Pings
from server._fast.h2_skipped cimport Skipped
from server._fast.h2_stream cimport H2Stream
from server._fast.infer_call cimport InferCall, LaneClient
from server._fast.nghttp2 cimport nghttp2_nv, nghttp2_session
from server._fast.peer_output cimport PeerOutput
from server._fast.slab_ring cimport Claim

cdef enum:
    STREAM_WINDOW_BYTES = 65536
    CONNECTION_WINDOW_BYTES = 1048576
    #: A stream whose message says that it is larger may fill this much before the application looks at it.
    LARGE_WINDOW_BYTES = 8388608
    MAX_QUEUED_FRAMES = 1000

#: A cancelled call whose rows an executor may still be running; it stays charged to its connection until they are free.
cdef class Debt:
    cdef LaneClient lane
    cdef Claim claim


cdef class H2Session(PeerOutput):
    cdef object port
    cdef nghttp2_session* session
    cdef dict streams              # id -> H2Stream
    cdef H2Stream recent           # of the last frame: the next one is mostly of the same stream
    cdef list debts
    cdef list held_up              # streams whose client takes no replies
    cdef bint is_closing           # GOAWAY is sent; closes when the last stream has ended
    cdef bint got_eof
    cdef bint is_receiving
    cdef bint must_end             # the peer broke a rule: closes as soon as GOAWAY is written
    cdef bint is_warned
    cdef Age age
    cdef Pings pings
    cdef uint32_t max_streams
    cdef Skipped skipped
    cdef Bucket resets
    cdef int resets_in_turn        # of the loop
    cdef bytes unread              # what a turn of the loop had no time for: reading is paused; None: nothing
    cdef Bucket glitches
    cdef size_t spilled_bytes

    # for the protocol above
    cdef int on_request(self, H2Stream stream) except -1
    cdef int on_data(self, H2Stream stream) except -1
    cdef int on_end(self, H2Stream stream) except -1
    cdef int on_abort(self, H2Stream stream) except -1
    cdef int on_drained(self, H2Stream stream) except -1
    # for its use
    cdef int respond(self, H2Stream stream, nghttp2_nv* headers, size_t count) except -1
    cdef int widen(self, H2Stream stream, uint64_t message_bytes) except -1
    cdef int more(self, H2Stream stream) except -1
    cdef bint is_busy(self, H2Stream stream) noexcept
    cdef bint has_calls(self) except -1
    cdef int give_back(self, H2Stream stream, size_t n) except -1
    cdef bint hold_up(self, H2Stream stream) except -1
    cdef int go_on(self) except -1
    cdef int reset(self, H2Stream stream, uint32_t code) except -1
    # own
    cdef H2Stream find(self, int32_t stream_id)
    cdef int feed(self, const char* p, size_t n) except -1
    cdef int take(self, const char* p, size_t n) except -1
    cdef int pump(self) except -1
    cdef int flush(self) except -1
    cdef int go_away(self, uint32_t code, const char* text) except -1
    cdef int spend_reset(self) except -1
    cdef int spend_glitch(self) except -1
    cdef int close_stream(self, H2Stream stream) except -1
    # Its rows are charged to this connection until an executor has given them back.
    cdef int charge(self, InferCall call) except -1
    cdef uint32_t charged(self) except? 4294967295
    cdef int ping_received(self) except -1
    cdef int check_stalled(self, uint64_t now) except -1
    cdef int shut(self, const char* text, uint64_t now) except -1
