"""C face of a connection's way out: bytes due, the socket, the transport behind it."""

from libc.stdint cimport uint64_t

from server._fast.frontend cimport Frontend, Peer
from server._fast.outbuf cimport OutBuf


cdef class PeerOutput(Peer):
    cdef Frontend frontend
    cdef object transport
    cdef int fd                    # -1: nothing can be sent any more
    cdef OutBuf out
    cdef bint is_spilled           # the kernel's buffer is full: uvloop holds bytes
    cdef uint64_t active_ns        # when bytes last went in or out

    # The transport is there: from now on bytes can be sent.
    cdef int attach(self, object transport) except -1
    # Sends what is due; what the kernel does not take goes to the transport.
    cdef int send_out(self) except -1
    # Gives memory back that a large reply took.
    cdef void trim_out(self) noexcept
    # Ends the connection at once; whatever is due is lost.
    cdef int drop(self) except -1
