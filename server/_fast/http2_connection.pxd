"""C face of HTTP/2 connections: gRPC beside REST, over the framing of h2_session."""

from server._fast.h2_stream cimport H2Stream
from server._fast.http2_rest cimport Http2Rest
from server._fast.infer_call cimport InferCall
from server._fast.infer_spec cimport InferError


cdef class Http2Connection(Http2Rest):
    cdef int pushback_s            # of the refusal being written: when the call may come again; 0: not said
    cdef int take_message(self, H2Stream stream, const char** message, size_t* n) except -2
    cdef int infer(self, H2Stream stream, const char* message, size_t n) except -1
    cdef int refuse_infer(self, H2Stream stream, const InferError* error) except -1
    cdef int next_in_stream(self, H2Stream stream) except -1
    cdef int unpack(self, H2Stream stream, const char* p, size_t n) except -2
    cdef int pack(self, H2Stream stream, size_t at) except -1
    cdef int drop_body(self, H2Stream stream, size_t n) except -1
    cdef int reply_message(self, H2Stream stream, InferCall call) except -1
    cdef int start_grpc(self, H2Stream stream) except -1
    cdef int fail(self, H2Stream stream, int status, bytes text) except -1
    cdef int answer_grpc(self, H2Stream stream) except -1
