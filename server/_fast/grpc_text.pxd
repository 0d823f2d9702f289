"""Small words of gRPC over HTTP/2: message prefixes, varints, statuses, percent-encoding. Inline leaves; O(bytes)."""

from libc.stdint cimport uint8_t, uint64_t

from server._fast.infer_spec cimport (
    INFER_DEADLINE,
    INFER_INVALID_ARGUMENT,
    INFER_NOT_FOUND,
    INFER_NO_MEMORY,
    INFER_RESOURCE_EXHAUSTED,
    INFER_UNAVAILABLE,
    INFER_UNIMPLEMENTED,
)
from server._fast.outbuf cimport OutBuf, outbuf_reserve


cdef inline void read_prefix(const char* p, bint* is_compressed, uint64_t* length) noexcept nogil:
    """The five bytes before a message: a flag and a big-endian length."""
    cdef const uint8_t* u = <const uint8_t*>p
    is_compressed[0] = u[0] != 0
    length[0] = (<uint64_t>u[1] << 24) | (<uint64_t>u[2] << 16) | (<uint64_t>u[3] << 8) | u[4]


cdef inline int put_prefix(OutBuf* b) noexcept nogil:
    """Leaves room for a prefix: 0, or -1 no memory. set_prefix fills it once the message is there."""
    if outbuf_reserve(b, 5) < 0:
        return -1
    b.len += 5
    return 0


cdef inline void set_prefix(OutBuf* b, size_t at, bint is_compressed) noexcept nogil:
    """Fills the prefix at `at`: the message is all that follows it."""
    cdef uint64_t length = b.len - at - 5
    cdef uint8_t* prefix = <uint8_t*>b.data + at
    prefix[0] = is_compressed
    prefix[1] = <uint8_t>(length >> 24)
    prefix[2] = <uint8_t>(length >> 16)
    prefix[3] = <uint8_t>(length >> 8)
    prefix[4] = <uint8_t>length


cdef inline int grpc_status_of(int code) noexcept nogil:
    """The gRPC status of an InferError's code."""
    if code == INFER_INVALID_ARGUMENT:
        return 3
    if code == INFER_NOT_FOUND:
        return 5
    if code == INFER_UNAVAILABLE:
        return 14
    if code == INFER_UNIMPLEMENTED:
        return 12
    if code == INFER_RESOURCE_EXHAUSTED or code == INFER_NO_MEMORY:
        return 8
    if code == INFER_DEADLINE:
        return 4
    return 13


cdef inline bytes percent_encode(bytes text):
    """grpc-message: printable ASCII but '%' as it is, everything else as %XX."""
    return b"".join([bytes([c]) if 0x20 <= c <= 0x7E and c != 0x25 else b"%%%02X" % c for c in text])
