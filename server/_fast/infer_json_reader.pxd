"""Leaves of the infer request's reader: json_scan.h for Cython, refusals with their texts, keys, scalars.

A Reader is one pass over one body; everything in it borrows. Functions return >= 0, or -1 with the error filled. Knows
the protocol's words for an error, not its members (those are in infer_json_index.pyx). Any thread, one per Reader.
"""

from libc.stdint cimport uint64_t

from server._fast.infer_spec cimport (
    INFER_INVALID_ARGUMENT,
    InferError,
    InferRequest,
    ModelSpec,
    Span,
    infer_fail,
    infer_fail_unexpected,
)
from server._fast.tensor_bytes cimport BinarySections


cdef extern from "json_scan.h" nogil:
    ctypedef struct JsonScan:
        const char* p
        const char* end
        const char* begin
        const char* expected
        int depth

    void json_start(JsonScan* s, const char* p, size_t n) noexcept
    char json_peek(JsonScan* s) noexcept
    int json_enter(JsonScan* s, char open) noexcept
    int json_more(JsonScan* s, char open) noexcept
    int json_key(JsonScan* s, Span* key, int* escaped) noexcept
    int json_string(JsonScan* s, Span* text, int* escaped) noexcept
    int json_skip(JsonScan* s) noexcept
    int json_scalar(JsonScan* s) noexcept
    int json_word(JsonScan* s, const char* word, size_t n) noexcept
    int json_array_extent(JsonScan* s, Span* text) noexcept
    int json_text_is(Span text, int escaped, const char* plain, size_t n) noexcept
    int json_same_text(Span a, Span b) noexcept
    size_t json_unescape(Span text, char* out, size_t capacity) noexcept


cdef enum:
    UNKNOWN_KEYS = 64
    NAME_BYTES = 128


cdef struct Text:
    Span raw
    int escaped


# Which keys of one object have been seen: a bit per known key, the spans of the others.
cdef struct Keys:
    unsigned known
    int unknown_count
    Span unknown[64]


cdef struct Reader:
    JsonScan scan
    const ModelSpec* spec
    InferRequest* request
    InferError* err
    BinarySections sections


# ---- refusals

cdef inline int fail_json(Reader* r) noexcept nogil:
    """What the scanner expected, and where."""
    cdef JsonScan* s = &r.scan
    cdef unsigned char found
    cdef size_t at = <size_t>(s.p - s.begin)
    if s.p == s.end:
        return infer_fail(
            r.err, INFER_INVALID_ARGUMENT, b"invalid JSON: expected %s at byte %zu, got the end", s.expected, at,
        )
    found = <unsigned char>s.p[0]
    if found > 32 and found < 127:
        return infer_fail(
            r.err, INFER_INVALID_ARGUMENT,
            b"invalid JSON: expected %s at byte %zu, got '%c'", s.expected, at, <int>found
        )
    return infer_fail(
        r.err, INFER_INVALID_ARGUMENT,
        b"invalid JSON: expected %s at byte %zu, got byte 0x%02x", s.expected, at, <int>found
    )


cdef inline int fail_value(Reader* r, const char* key, const char* expected) noexcept nogil:
    """The value at the cursor is not what `key` takes."""
    cdef char got[40]
    cdef int n = 0
    cdef const char* p = r.scan.p
    while n < 40 and p + n != r.scan.end and p[n] != b"," and p[n] != b"}" and p[n] != b"]" and p[n] != b"\n":
        got[n] = p[n] if p[n] >= 32 and p[n] < 127 else b"?"
        n += 1
    return infer_fail(
        r.err, INFER_INVALID_ARGUMENT, b"Unable to parse '%s': expected %s, got '%.*s'", key, expected, n, got,
    )


cdef inline int fail_named(Reader* r, int code, const char* format, const Text* name) noexcept nogil:
    """A format with one %.*s for a name of the request."""
    cdef char plain[NAME_BYTES]
    cdef size_t n = json_unescape(name.raw, plain, sizeof(plain))
    return infer_fail(r.err, code, format, <int>n, plain)


cdef inline int fail_unexpected(Reader* r, bint is_output, const Text* name) noexcept nogil:
    cdef char plain[NAME_BYTES]
    cdef Span got
    got.p = plain
    got.n = json_unescape(name.raw, plain, sizeof(plain))
    return infer_fail_unexpected(r.err, is_output, got, r.spec)


# ---- keys

cdef inline int key_is(const Text* key, const char* plain, size_t n) noexcept nogil:
    return json_text_is(key.raw, key.escaped, plain, n)


cdef inline int next_key(Reader* r, Text* key) noexcept nogil:
    if json_key(&r.scan, &key.raw, &key.escaped) < 0:
        return fail_json(r)
    return 0


cdef inline int enter(Reader* r, const char* key, char open) noexcept nogil:
    """1 at the first member, 0 for an empty container, -1."""
    cdef int entered
    if json_peek(&r.scan) != open:
        return fail_value(r, key, b"an object" if open == b"{" else b"an array")
    entered = json_enter(&r.scan, open)
    return entered if entered >= 0 else fail_json(r)


cdef inline int more(Reader* r, char open) noexcept nogil:
    cdef int result = json_more(&r.scan, open)
    return result if result >= 0 else fail_json(r)


cdef inline int note_known(Reader* r, Keys* keys, unsigned bit, const Text* key) noexcept nogil:
    if keys.known & bit:
        return fail_named(r, INFER_INVALID_ARGUMENT, b"invalid JSON: the key '%.*s' stands twice in one object", key)
    keys.known |= bit
    return 0


cdef inline int note_unknown(Reader* r, Keys* keys, const Text* key) noexcept nogil:
    cdef int i
    for i in range(keys.unknown_count):
        if json_same_text(keys.unknown[i], key.raw):
            return fail_named(
                r, INFER_INVALID_ARGUMENT, b"invalid JSON: the key '%.*s' stands twice in one object", key,
            )
    if keys.unknown_count == UNKNOWN_KEYS:
        return infer_fail(
            r.err, INFER_INVALID_ARGUMENT,
            b"one object has more than %d keys that this server does not know", UNKNOWN_KEYS
        )
    keys.unknown[keys.unknown_count] = key.raw
    keys.unknown_count += 1
    return 0


cdef inline int skip_unknown(Reader* r, Keys* keys, const Text* key) noexcept nogil:
    if note_unknown(r, keys, key) < 0:
        return -1
    if json_skip(&r.scan) < 0:
        return fail_json(r)
    return 0


# ---- scalars

cdef inline int read_text(Reader* r, const char* key, Text* out) noexcept nogil:
    if json_peek(&r.scan) != b'"':
        return fail_value(r, key, b"a string")
    if json_string(&r.scan, &out.raw, &out.escaped) < 0:
        return fail_json(r)
    return 0


cdef inline int read_bool(Reader* r, const char* key, int* out) noexcept nogil:
    json_peek(&r.scan)
    if json_word(&r.scan, b"true", 4):
        out[0] = 1
    elif json_word(&r.scan, b"false", 5):
        out[0] = 0
    else:
        return fail_value(r, key, b"true or false")
    return 0


cdef inline int read_count(Reader* r, const char* key, uint64_t most, uint64_t* out) noexcept nogil:
    """An integer of [0, most]."""
    cdef uint64_t value = 0
    cdef unsigned digit
    cdef const char* p
    json_peek(&r.scan)
    p = r.scan.p
    while p != r.scan.end:
        digit = <unsigned>(<unsigned char>p[0]) - 48
        if digit > 9:
            break
        if value > (most - digit) // 10 or (value == 0 and p != r.scan.p):
            return fail_value(r, key, b"a non-negative integer in range")
        value = value * 10 + digit
        p += 1
    if p == r.scan.p or (p != r.scan.end and (p[0] == b"." or p[0] == b"e" or p[0] == b"E")):
        return fail_value(r, key, b"a non-negative integer")
    out[0] = value
    r.scan.p = p
    return 0
