"""C face of replies that are compressed."""

from libc.stdint cimport int64_t

from server._fast.content_coding cimport Deflater
from server._fast.outbuf cimport OutBuf
from server._fast.slice_queue cimport SliceQueue

cdef enum:
    #: Replies that fit an Ethernet frame anyway are sent as they are: 11 us would save no packet.
    MIN_PACKED_BYTES = 1400


cdef class Packing:
    cdef int coding
    cdef int content_type          # the user's, as what follows
    cdef int64_t json_bytes
    cdef Deflater deflater
    cdef OutBuf body               # what is left to be compressed, if it takes more than one slice
    cdef size_t body_used
    cdef OutBuf packed

    # Compresses body: calls finish() now if one slice is enough, else takes the buffer, leaves an empty one, and goes
    # on in the queue.
    cdef int pack(self, OutBuf* body, int coding, SliceQueue slices) except -1
    # For subclasses: whether anybody still waits for it; `packed` is complete; finish() raised.
    cdef bint is_wanted(self) noexcept
    cdef int finish(self) except -1
    cdef int failed(self, object error) except -1
