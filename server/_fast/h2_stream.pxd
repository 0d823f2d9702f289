"""C face of HTTP/2 streams."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from server._fast.content_coding cimport CODING_DEFLATE, CODING_GZIP, CODING_IDENTITY, CODING_UNKNOWN
from server._fast.infer_call cimport InferCall
from server._fast.nghttp2 cimport nghttp2_data_source, nghttp2_nv, nghttp2_session
from server._fast.outbuf cimport OutBuf
from server._fast.spare_buffers cimport SpareBuffers

#: What a stream's headers ask for.
cdef enum StreamRoute:
    ROUTE_NONE = 0
    ROUTE_GRPC_INFER = 1         # an inference, one message each way
    ROUTE_GRPC_STREAM_INFER = 2  # any number of inferences
    ROUTE_GRPC = 3               # any other gRPC method
    ROUTE_REST = 4

cdef enum:
    TIMEOUT_NONE = -1
    TIMEOUT_INVALID = -2
    MAX_HEADER_LIST_BYTES = 32768


cdef class H2Stream:
    cdef int32_t id
    cdef int route
    cdef int form                  # which inference its path is: GRPC_*
    cdef int coding                # of the request's messages: grpc-encoding as a ContentCoding
    cdef int content_coding        # of the request's body, REST
    cdef int accepted_coding       # what its reply may have, REST
    cdef bint is_working           # its body or reply is in the front end's slices
    cdef int64_t timeout_ns        # TIMEOUT_NONE, TIMEOUT_INVALID or a duration
    cdef int64_t rest_timeout_ns   # X-Request-Timeout: a RequestTimeout or a duration
    cdef int64_t json_bytes        # Inference-Header-Content-Length: -1 absent, -2 malformed
    cdef uint64_t received_ns
    cdef bytes method
    cdef bytes path
    cdef bint is_grpc              # content-type: application/grpc, whatever follows
    cdef list headers              # of every stream but ROUTE_GRPC_INFER: (name, value) in lower case, as bytes
    cdef size_t header_bytes       # of the header list, as SETTINGS_MAX_HEADER_LIST_SIZE counts
    cdef OutBuf body               # the request's data so far
    cdef size_t body_used          # of body: messages that were read already
    cdef size_t owed_bytes         # of body: not given back to the client's window while the stream is busy
    cdef bint is_held_up           # the client takes no replies: its next messages wait
    cdef bytes plain               # the present message, if it came compressed
    cdef bint is_window_large
    cdef bint is_reply_packed      # messages of the reply are compressed in the request's coding
    cdef InferCall call            # in flight, or None
    cdef object task               # a control call in flight, or None
    cdef OutBuf reply              # data to be sent
    cdef size_t reply_sent
    cdef uint64_t moved_bytes      # of the reply, that nghttp2 ever took
    cdef uint64_t seen_bytes       # moved_bytes when check_time last saw it grow, at seen_ns
    cdef uint64_t seen_ns
    cdef bint has_response         # response headers are submitted
    cdef bint is_reply_complete    # nothing will be appended to reply
    cdef bint is_deferred          # nghttp2 waits for resume_data
    cdef bint got_end              # END_STREAM was received
    cdef int grpc_status           # trailers to send behind the data; -1 none
    cdef bytes grpc_message

    cdef size_t give_body(self, SpareBuffers* spares) noexcept nogil
    cdef int header(self, const char* name, size_t name_bytes, const char* value, size_t value_bytes) except -1


# nghttp2's data source: source.ptr is the H2Stream.
cdef ssize_t read_reply(nghttp2_session* session, int32_t stream_id, uint8_t* buf, size_t length, uint32_t* data_flags,
                        nghttp2_data_source* source, void* user_data) noexcept
cdef nghttp2_nv nv(const char* name, size_t name_bytes, const char* value, size_t value_bytes) noexcept nogil
