"""C face of REST over HTTP/2: what a connection does with the streams that are no gRPC calls."""

from libc.stdint cimport int64_t

from server._fast.content_coding cimport Inflater
from server._fast.h2_session cimport H2Session
from server._fast.h2_stream cimport H2Stream
from server._fast.infer_call cimport InferCall
from server._fast.infer_spec cimport InferError
from server._fast.outbuf cimport OutBuf
from server._fast.reply_packing cimport Packing


cdef class Http2Rest(H2Session):
    # The stream's headers are read: it is REST from now on.
    cdef int begin_rest(self, H2Stream stream) except -1
    cdef int admit_rest(self, H2Stream stream) except -1
    # More of its body came: limits.
    cdef int check_rest(self, H2Stream stream) except -1
    # The request is complete, as it came; then, as it was before the client compressed it.
    cdef int answer_rest(self, H2Stream stream) except -1
    cdef int answer_plain(self, H2Stream stream) except -1
    # Its inference is finished, while its rows can still be read.
    cdef int deliver_rest(self, H2Stream stream, InferCall call) except -1

    cdef int reply_rest(self, H2Stream stream, InferCall call) except -1
    cdef int write_control(self, H2Stream stream, object answer) except -1
    cdef int refuse_rest(self, H2Stream stream, const InferError* error) except -1
    cdef int refuse_body(self, H2Stream stream, int error) except -1
    cdef int cors_of(self, H2Stream stream) except -1
    cdef int write_rest(self, H2Stream stream, int status, bytes content_type, const char* body, size_t n,
                        int64_t json_bytes, tuple extra) except -1


cdef class RestPacking(Packing):
    cdef Http2Rest connection
    cdef H2Stream stream


#: A request's body that is being inflated.
cdef class RestUnpacking:
    cdef Http2Rest connection
    cdef H2Stream stream
    cdef Inflater inflater
    cdef size_t used               # of the stream's body
    cdef OutBuf plain
    # A slice: a CodingResult.
    cdef int inflate(self) except? -1000
    # Ends the work with the result that is no pause.
    cdef int finish(self, int code) except -1
