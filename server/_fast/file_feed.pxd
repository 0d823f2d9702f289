"""C face of filling a pipe from a file."""


# Writes the file `source` to the pipe `output`: 0 at the end of the file or when nobody reads any more, else the errno.
cdef int fill(int source, int output, bint may_splice) noexcept nogil
