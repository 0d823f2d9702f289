"""proto_scan.h for Cython: the contract stands there."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from server._fast.infer_spec cimport Span


cdef extern from "proto_scan.h" nogil:
    enum: PROTO_MALFORMED, PROTO_VARINT_MAX_BYTES
    enum: WIRE_VARINT, WIRE_FIXED64, WIRE_BYTES, WIRE_GROUP, WIRE_END, WIRE_FIXED32

    ctypedef struct ProtoScan:
        const char* p
        const char* end
        int depth
        int skipped

    ctypedef struct ProtoField:
        uint32_t number
        int wire
        uint64_t value
        Span bytes

    void proto_start(ProtoScan* s, const char* p, size_t n, int depth) noexcept
    int proto_varint(const char** p, const char* end, int max_bytes, uint64_t* value) noexcept
    int proto_next(ProtoScan* s, ProtoField* f) noexcept
    int proto_text(const ProtoField* f, Span* out) noexcept
    int proto_text_is(Span text, const char* plain, size_t n) noexcept
    int64_t proto_count_elements(const ProtoField* f, int wire) noexcept
    size_t proto_varint_bytes(uint64_t value) noexcept
    size_t proto_bytes_field_bytes(size_t n) noexcept
    char* proto_put_varint(char* dst, uint64_t value) noexcept
    char* proto_put_head(char* dst, int number, size_t n) noexcept
    char* proto_put_bytes(char* dst, int number, const char* p, size_t n) noexcept
