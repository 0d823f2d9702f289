"""C face of an HTTP/2 connection's frames."""

from server._fast.h2_session cimport H2Session


cdef int h2_frames_open(H2Session self) except -1
