"""Predict instances that are objects: values scattered over the body, gathered into one block per input.

Knows nothing of the body around them. Borrows the body; the blocks lie in the reader's scratch, which belongs to the
caller. Any thread, one per TfsReader; O(bytes of the instances).
"""

from server._fast.tfs_json_reader cimport TfsReader


# The scanner is at the first element of `instances`, an object, and ends behind the array: 0, or -1 and a text. All
# inputs are binary, with the number of instances as their first dimension.
cdef int tfs_gather(TfsReader* t) noexcept nogil
