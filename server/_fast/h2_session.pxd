"""C face of an HTTP/2 connection's framing half: streams in, headers and data out."""

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from server._fast.frontend cimport Frontend, Peer
from server._fast.infer_call cimport InferCall, LaneClient
from server._fast.nghttp2 cimport nghttp2_nv, nghttp2_session
from server._fast.outbuf cimport OutBuf
from server._fast.slab_ring cimport Claim

#: What a stream's headers ask for.
cdef enum StreamRoute:
    ROUTE_NONE = 0
    ROUTE_MODEL_INFER = 1      # /inference.GRPCInferenceService/ModelInfer
    ROUTE_GRPC = 2             # any other gRPC method
    ROUTE_REST = 3

cdef enum ContentCoding:
    CODING_IDENTITY = 0
    CODING_GZIP = 1
    CODING_DEFLATE = 2
    CODING_UNKNOWN = 3

cdef enum:
    TIMEOUT_NONE = -1
    TIMEOUT_INVALID = -2


cdef class H2Stream:
    cdef int32_t id
    cdef int route
    cdef int coding                # of the request's messages: ContentCoding
    cdef int64_t timeout_ns        # TIMEOUT_NONE, TIMEOUT_INVALID or a duration
    cdef int64_t json_bytes        # Inference-Header-Content-Length: -1 absent, -2 malformed
    cdef uint64_t received_ns
    cdef bytes method
    cdef bytes path
    cdef bytes content_type
    cdef list headers              # of every stream but ROUTE_MODEL_INFER: (name, value) in lower case, as bytes
    cdef OutBuf body               # the request's data so far
    cdef size_t body_limit
    cdef InferCall call            # in flight, or None
    cdef object task               # a control call in flight, or None
    cdef OutBuf reply              # data to be sent
    cdef size_t reply_sent
    cdef bint has_response         # response headers are submitted
    cdef bint is_reply_complete    # nothing will be appended to reply
    cdef bint is_deferred          # nghttp2 waits for resume_data
    cdef bint got_end              # END_STREAM was received
    cdef int grpc_status           # trailers to send behind the data; -1 none
    cdef bytes grpc_message


#: A cancelled call whose rows an executor may still be running; it stays charged to its connection until they are free.
cdef class Debt:
    cdef LaneClient lane
    cdef Claim claim


cdef class H2Session(Peer):
    cdef Frontend frontend
    cdef object transport
    cdef object port
    cdef int fd
    cdef nghttp2_session* session
    cdef OutBuf out
    cdef dict streams              # id -> H2Stream
    cdef list debts
    cdef bint is_spilled
    cdef bint is_closing           # GOAWAY is sent; closes when the last stream has ended
    cdef bint got_eof
    cdef bint is_receiving
    cdef bint must_end             # the peer broke a rule: closes as soon as GOAWAY is written
    cdef bint is_warned
    cdef uint64_t active_ns
    cdef uint64_t opened_ns
    cdef uint64_t max_age_ns       # 0: none
    cdef double reset_tokens
    cdef uint64_t reset_refill_ns
    cdef double glitch_tokens
    cdef uint64_t glitch_refill_ns
    cdef uint64_t last_ping_ns
    cdef int ping_strikes
    cdef size_t spilled_bytes
    cdef Py_ssize_t view_bytes
    cdef Py_ssize_t view_stride

    # for the protocol above
    cdef int on_request(self, H2Stream stream) except -1
    cdef int on_data(self, H2Stream stream) except -1
    cdef int on_end(self, H2Stream stream) except -1
    cdef int on_abort(self, H2Stream stream) except -1
    # for its use
    cdef int respond(self, H2Stream stream, nghttp2_nv* headers, size_t count) except -1
    cdef int more(self, H2Stream stream) except -1
    cdef int reset(self, H2Stream stream, uint32_t code) except -1
    # own
    cdef int feed(self, const char* p, size_t n) except -1
    cdef int pump(self) except -1
    cdef int flush(self) except -1
    cdef int drop(self) except -1
    cdef int go_away(self, uint32_t code, const char* text) except -1
    cdef int spend_reset(self) except -1
    cdef int spend_glitch(self) except -1
    cdef int header(self, H2Stream stream, const char* name, size_t name_bytes, const char* value,
                    size_t value_bytes) except -1
    cdef int close_stream(self, H2Stream stream) except -1
    cdef uint32_t charged(self) except? 4294967295
    cdef int ping_received(self) except -1
    cdef int check_stalled(self, uint64_t now) except -1
    cdef int shut(self, const char* text) except -1


cdef nghttp2_nv nv(const char* name, size_t name_bytes, const char* value, size_t value_bytes) noexcept nogil
