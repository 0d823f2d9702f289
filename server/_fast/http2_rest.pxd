"""C face of REST over HTTP/2: what a connection does with the streams that are no gRPC calls."""

from libc.stdint cimport int64_t

from server._fast.h2_session cimport H2Session
from server._fast.h2_stream cimport H2Stream
from server._fast.infer_call cimport InferCall
from server._fast.infer_spec cimport InferError


cdef class Http2Rest(H2Session):
    # The stream's headers are read: it is REST from now on.
    cdef int begin_rest(self, H2Stream stream) except -1
    # More of its body came: limits.
    cdef int check_rest(self, H2Stream stream) except -1
    # The request is complete.
    cdef int answer_rest(self, H2Stream stream) except -1
    # Its inference is finished, while its rows can still be read.
    cdef int deliver_rest(self, H2Stream stream, InferCall call) except -1

    cdef int reply_rest(self, H2Stream stream, InferCall call) except -1
    cdef int write_control(self, H2Stream stream, object answer) except -1
    cdef int refuse_rest(self, H2Stream stream, const InferError* error) except -1
    cdef int write_rest(self, H2Stream stream, int status, bytes content_type, const char* body, size_t n,
                        int64_t json_bytes, object extra) except -1
