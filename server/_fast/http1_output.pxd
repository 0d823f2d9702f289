"""C face of the answering half of an HTTP/1.1 connection."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from server._fast.infer_spec cimport InferError
from server._fast.outbuf cimport OutBuf
from server._fast.peer_output cimport PeerOutput

cdef enum:
    MAX_PIPELINED = 16


#: A request that waits for its answer or for its turn to be answered.
cdef struct Slot:
    int persistence
    bint is_head_request
    bint is_done
    int coding         # ContentCoding that its answer may have
    int cors           # 1 + index of its origin, if that may call this server; else 0
    OutBuf held        # its answer, while an earlier one is not ready


cdef class Http1Output(PeerOutput):
    cdef Slot slots[16]
    cdef uint32_t first_slot
    cdef uint32_t slot_count
    cdef uint32_t unsent_count     # answers in `out` that no turn has sent yet
    cdef bint must_close           # after the answers that are due

    cdef int take_slot(self, int persistence, bint is_head_request) except -1
    cdef OutBuf* slot_buffer(self, int slot) noexcept
    cdef int slot_done(self, int slot) except -1
    cdef int write_reply(self, int slot, int status, int content_type, const char* body, size_t n, int64_t json_bytes,
                         const char* extra, size_t extra_bytes) except -1
    cdef int write_error(self, int slot, int status, const char* text, size_t n, const char* extra) except -1
    cdef int write_refusal(self, int slot, const InferError* error) except -1
    cdef int flush(self) except -1
