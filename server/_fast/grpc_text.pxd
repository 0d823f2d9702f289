"""Small words of gRPC over HTTP/2: message prefixes, varints, statuses, percent-encoding. Inline leaves; O(bytes)."""

from libc.stdint cimport uint8_t, uint64_t

from server._fast.infer_spec cimport (
    INFER_DEADLINE,
    INFER_INVALID_ARGUMENT,
    INFER_NOT_FOUND,
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


cdef inline int put_prefix(OutBuf* b, uint64_t length) noexcept nogil:
    """Appends the prefix of an uncompressed message and reserves its bytes: 0, or -1 no memory."""
    cdef uint8_t* at
    if outbuf_reserve(b, length + 5) < 0:
        return -1
    at = <uint8_t*>b.data + b.len
    at[0] = 0
    at[1] = <uint8_t>(length >> 24)
    at[2] = <uint8_t>(length >> 16)
    at[3] = <uint8_t>(length >> 8)
    at[4] = <uint8_t>length
    b.len += 5
    return 0


cdef inline size_t varint_bytes(uint64_t value) noexcept nogil:
    cdef size_t n = 1
    while value >= 128:
        value >>= 7
        n += 1
    return n


cdef inline int write_varint(OutBuf* b, uint64_t value) noexcept nogil:
    if outbuf_reserve(b, 10) < 0:
        return -1
    while value >= 128:
        b.data[b.len] = <char>(<uint8_t>(value & 127) | 128)
        b.len += 1
        value >>= 7
    b.data[b.len] = <char>value
    b.len += 1
    return 0


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
    if code == INFER_RESOURCE_EXHAUSTED:
        return 8
    if code == INFER_DEADLINE:
        return 4
    return 13


cdef inline bytes percent_encode(bytes text):
    """grpc-message: printable ASCII but '%' as it is, everything else as %XX."""
    return b"".join([bytes([c]) if 0x20 <= c <= 0x7E and c != 0x25 else b"%%%02X" % c for c in text])
