"""C face of the Python view of a ring."""

from server._fast.layout cimport Arena


cdef class Ring:
    cdef readonly Arena arena
