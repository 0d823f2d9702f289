"""A connection's way out, whatever it speaks: bytes that are due go to the socket directly, the rest to uvloop.

It does not know what the bytes say nor when they are due. uvloop is asked to say "paused" as soon as it holds a byte,
so `is_spilled` tells whether the kernel still takes some. One connection, one event loop thread; the object owns its
buffer. One system call for what is due.
"""

from server._fast.atomics cimport relaxed_add
from server._fast.clock cimport now_ns
from server._fast.frontend cimport Frontend, Peer
from server._fast.outbuf cimport outbuf_free
from server._fast.sockets cimport send_some


#: Memory above this is given back when the connection has nothing to send.
cdef size_t KEEP_OUT_BYTES = 1 << 18


cdef class PeerOutput(Peer):
    """See peer_output.pyi."""

    def __cinit__(self, Frontend frontend not None, *args, **more):
        self.frontend = frontend
        self.fd = -1

    def __dealloc__(self):
        outbuf_free(&self.out)

    cdef int attach(self, object transport) except -1:
        self.transport = transport
        self.fd = transport.get_extra_info("socket").fileno()
        transport.set_write_buffer_limits(0, 0)
        return 0

    def pause_writing(self):
        self.is_spilled = True

    def resume_writing(self):
        self.is_spilled = False
        self.frontend.is_trim_due = True
        self.active_ns = now_ns()
        if self.fd >= 0:
            self.frontend.peer_due(self)

    cdef int send_out(self) except -1:
        cdef ssize_t sent = send_some(self.fd, self.out.data, self.out.len)
        if sent < 0:
            return self.drop()
        relaxed_add(&self.frontend.page.bytes_out_total, self.out.len)
        if <size_t>sent < self.out.len:
            self.transport.write(self.out.data[sent:self.out.len])
        self.out.len = 0
        return 0

    cdef void trim_out(self) noexcept:
        if self.out.cap > KEEP_OUT_BYTES and self.out.len == 0:
            outbuf_free(&self.out)

    cdef int drop(self) except -1:
        self.fd = -1
        self.out.len = 0
        if self.transport is not None:
            self.transport.abort()
        return 0
