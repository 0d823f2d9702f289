"""Rows moved apart in place, the gaps filled. The contract is in row_padding.pxd.

What is contiguous before and after is a chunk. A chunk never moves towards the front, so they move from the last
to the first, and what lies between a chunk and the one behind it is padding. No memory of its own; any thread;
O(bytes).
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove, memset


cdef void fill_gap(char* at, uint64_t size, const char* value, uint64_t item_bytes) noexcept nogil:
    """`size` bytes of one element after the other: doubled until they are there."""
    cdef uint64_t i, done = item_bytes
    cdef bint is_one_byte = True
    if size == 0:
        return
    for i in range(1, item_bytes):
        if value[i] != value[0]:
            is_one_byte = False
    if is_one_byte:
        memset(at, value[0], size)
        return
    memcpy(at, value, item_bytes)
    while done < size:
        memcpy(at + done, at, min(done, size - done))
        done += min(done, size - done)


cdef void padding_spread(char* data, uint64_t item_bytes, uint64_t row_count, uint32_t rank, const int64_t* given,
                         const int64_t* padded, const char* value) noexcept nogil:
    cdef uint32_t axis, split = 0
    cdef uint64_t chunk_bytes = item_bytes, stride = item_bytes, chunk_count = row_count, row_bytes
    cdef uint64_t chunk, left, at, scale
    cdef char* end
    for axis in range(1, rank):
        if given[axis] != padded[axis]:
            split = axis
    if split == 0:
        return
    for axis in range(split, rank):
        chunk_bytes *= given[axis]
        stride *= padded[axis]
    row_bytes = stride
    for axis in range(1, split):
        chunk_count *= given[axis]
        row_bytes *= padded[axis]
    end = data + row_count * row_bytes
    chunk = chunk_count
    while chunk > 0:
        chunk -= 1
        # Where the chunk goes: its indexes, from the innermost to the row.
        left, at, scale = chunk, 0, stride
        axis = split
        while axis > 1:
            axis -= 1
            at += left % given[axis] * scale
            left //= given[axis]
            scale *= padded[axis]
        at += left * row_bytes
        if at != chunk * chunk_bytes:
            memmove(data + at, data + chunk * chunk_bytes, chunk_bytes)
        fill_gap(data + at + chunk_bytes, <uint64_t>(end - (data + at + chunk_bytes)), value, item_bytes)
        end = data + at
    fill_gap(data, <uint64_t>(end - data), value, item_bytes)


def spread(unsigned char[::1] data not None, int row_count, given not None, padded not None, bytes value not None):
    """See row_padding.pyi."""
    cdef int64_t old[8]
    cdef int64_t new[8]
    cdef int axis, rank = len(given) + 1
    cdef uint64_t size = <uint64_t>row_count * len(value)
    if len(padded) != len(given) or rank > 8 or any(a < b for a, b in zip(padded, given)):
        raise ValueError(f"rows of {given} cannot become rows of {padded}")
    for axis in range(1, rank):
        old[axis] = given[axis - 1]
        new[axis] = padded[axis - 1]
        size *= <uint64_t>new[axis]
    if size != <uint64_t>data.shape[0]:
        raise ValueError(f"expected {size} bytes for {row_count} rows of {padded}, got {data.shape[0]}")
    if size:
        padding_spread(<char*>&data[0], len(value), row_count, rank, old, new, <const char*>value)
