"""C face of HTTP/2 connections: gRPC and REST over the framing of h2_session."""

from libc.stdint cimport int64_t

from server._fast.h2_session cimport H2Session
from server._fast.h2_stream cimport H2Stream
from server._fast.infer_call cimport InferCall, LaneClient
from server._fast.infer_spec cimport InferError


cdef class Http2Connection(H2Session):
    cdef int take_message(self, H2Stream stream, const char** message, size_t* n) except -2
    cdef int infer(self, H2Stream stream, const char* message, size_t n) except -1
    cdef int submit(self, H2Stream stream, LaneClient lane) except -1
    cdef int refuse_infer(self, H2Stream stream, const InferError* error) except -1
    cdef int next_in_stream(self, H2Stream stream) except -1
    cdef int drop_body(self, H2Stream stream, size_t n) except -1
    cdef int reply_message(self, H2Stream stream, bint is_streamed, InferCall call) except -1
    cdef int reply_rest(self, H2Stream stream, InferCall call) except -1
    cdef int start_grpc(self, H2Stream stream) except -1
    cdef int fail(self, H2Stream stream, int status, bytes text) except -1
    cdef int answer_rest(self, H2Stream stream) except -1
    cdef int answer_grpc(self, H2Stream stream) except -1
    cdef int write_rest(self, H2Stream stream, int status, bytes content_type, const char* body, size_t n,
                        int64_t json_bytes, object extra) except -1
