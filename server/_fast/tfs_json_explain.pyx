"""TensorFlow Serving's texts for predict bodies: a walk over one value that stops where it is wrong.

The contract is in tfs_json_explain.pxd. The walk keeps one length per level (at most eight levels, as tensors have) and
reads each number through the same readers that fill the rows, so both refuse the same. No memory of its own, no state
between calls, any thread; O(text bytes).
"""

from libc.stdint cimport int64_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memcmp, memcpy, strlen

from server._fast.infer_json_fill cimport infer_json_fill_next
from server._fast.infer_json_reader cimport (
    JsonScan,
    json_enter,
    json_more,
    json_peek,
    json_scalar,
    json_skip,
    json_start,
    json_string,
)
from server._fast.infer_spec cimport (
    DTYPE_BF16,
    DTYPE_BOOL,
    DTYPE_BYTES,
    DTYPE_FP16,
    DTYPE_FP32,
    DTYPE_FP64,
    INFER_INVALID_ARGUMENT,
    INFER_MAX_RANK,
    InferError,
    InferRequest,
    ModelSpec,
    Span,
    infer_fail,
)
from server._fast.tfs_strings cimport is_b64, put_string, read_b64


cdef enum:
    QUOTED_BYTES = QUOTE_BYTES - 4
    #: A value is looked at this far for its end, to be quoted.
    LOOK_BYTES = 4096

#: TensorFlow's names, by Datatype.
cdef const char** TYPE_NAMES = [
    b"invalid", b"bool", b"uint8", b"uint16", b"uint32", b"uint64", b"int8", b"int16", b"int32", b"int64", b"half",
    b"float", b"double", b"string", b"bfloat16",
]


# ---- texts

cdef void tfs_quote(const JsonScan* s, const char* p, char* out) noexcept nogil:
    cdef JsonScan scan = s[0]
    cdef int n = 0
    cdef int most
    scan.p = p
    if scan.end - p > LOOK_BYTES:
        scan.end = p + LOOK_BYTES
    if json_skip(&scan) < 0:
        scan.p = scan.end
    most = QUOTED_BYTES if scan.p - p > QUOTED_BYTES else <int>(scan.p - p)
    while n < most:
        out[n] = p[n] if p[n] >= 32 and p[n] < 127 else b"?"
        n += 1
    if scan.p - p > QUOTED_BYTES:
        memcpy(out + n, b"...", 3)
        n += 3
    out[n] = 0


cdef const char* kind(char first) noexcept nogil:
    """RapidJSON's name for the type of a value, by its first byte."""
    if first == b"{":
        return b"Object"
    if first == b"[":
        return b"Array"
    if first == b'"':
        return b"String"
    if first == b"t":
        return b"True"
    if first == b"f":
        return b"False"
    if first == b"n":
        return b"Null"
    return b"Number"


cdef int tfs_fail_parse(const JsonScan* s, InferError* err) noexcept nogil:
    cdef size_t at = <size_t>(s.p - s.begin)
    cdef unsigned char found
    if s.p == s.end:
        return infer_fail(
            err, INFER_INVALID_ARGUMENT, b"JSON Parse error: Expected %s, got the end at offset: %zu", s.expected, at
        )
    found = <unsigned char>s.p[0]
    if found > 32 and found < 127:
        return infer_fail(
            err, INFER_INVALID_ARGUMENT, b"JSON Parse error: Expected %s, got '%c' at offset: %zu", s.expected,
            <int>found, at
        )
    return infer_fail(
        err, INFER_INVALID_ARGUMENT, b"JSON Parse error: Expected %s, got byte 0x%02x at offset: %zu", s.expected,
        <int>found, at
    )


cdef int tfs_fail_value(const JsonScan* s, const char* p, const char* what, InferError* err) noexcept nogil:
    cdef char text[QUOTE_BYTES]
    tfs_quote(s, p, text)
    return infer_fail(err, INFER_INVALID_ARGUMENT, b"JSON Value: %s %s", text, what)


cdef int tfs_fail_type(const JsonScan* s, const char* p, int dtype, InferError* err) noexcept nogil:
    cdef char text[QUOTE_BYTES]
    tfs_quote(s, p, text)
    return infer_fail(
        err, INFER_INVALID_ARGUMENT, b"JSON Value: %s Type: %s is not of expected type: %s", text, kind(p[0]),
        TYPE_NAMES[dtype]
    )


cdef int fail_lossy(const JsonScan* s, const char* p, int dtype, InferError* err) noexcept nogil:
    cdef char text[QUOTE_BYTES]
    tfs_quote(s, p, text)
    return infer_fail(
        err, INFER_INVALID_ARGUMENT, b"Cannot convert JSON value: %s to %s without loss of precision.", text,
        TYPE_NAMES[dtype]
    )


cdef void tfs_name_element(int64_t element, const char* name, size_t name_bytes, InferError* err) noexcept nogil:
    cdef InferError inner
    if memcmp(err.text, b"JSON Parse error", 16) == 0:
        return
    inner.n = strlen(err.text)
    memcpy(inner.text, err.text, inner.n + 1)
    if name == NULL:
        infer_fail(
            err, err.code, b"Failed to process element: %lld of 'instances' list. Error: INVALID_ARGUMENT: %s",
            <long long>element, inner.text
        )
    else:
        infer_fail(
            err, err.code,
            b"Failed to process element: %lld key: %.*s of 'instances' list. Error: INVALID_ARGUMENT: %s",
            <long long>element, tfs_clip(name_bytes), name, inner.text
        )


cdef void shape_text(const int64_t* dims, int rank, char* text, size_t size) noexcept nogil:
    cdef int i
    cdef int n = snprintf(text, size, "[")
    for i in range(rank):
        n += snprintf(text + n, size - <size_t>n, "%s%lld", b"" if i == 0 else b",", <long long>dims[i])
    snprintf(text + n, size - <size_t>n, "]")


cdef int tfs_same_shape(const TensorWalk* first, const TensorWalk* other, InferError* err) noexcept nogil:
    cdef char expected[200]
    cdef char got[200]
    cdef int i
    if first.element_count != other.element_count:
        return infer_fail(
            err, INFER_INVALID_ARGUMENT, b"Expecting tensor size: %lld but got: %lld", <long long>first.element_count,
            <long long>other.element_count
        )
    if first.rank == other.rank:
        for i in range(first.rank):
            if first.dims[i] != other.dims[i]:
                break
        else:
            return 0
    shape_text(first.dims, first.rank, expected, sizeof(expected))
    shape_text(other.dims, other.rank, got, sizeof(got))
    return infer_fail(err, INFER_INVALID_ARGUMENT, b"Expecting shape %s but got: %s", expected, got)


# ---- the walk

cdef int read_string(JsonScan* s, TensorWalk* w, InferError* err) noexcept nogil:
    """The same of BYTES; writes the element if it is asked to."""
    cdef const char* p = s.p
    cdef Span text
    cdef int escaped = 0
    cdef int64_t n = -1
    cdef JsonScan object_scan = s[0]
    if json_peek(s) == b'"':
        if json_string(s, &text, &escaped) < 0:
            return tfs_fail_parse(s, err)
        n = put_string(text, 0, w.strings)
    elif p != s.end and p[0] == b"{":
        if json_skip(s) < 0:
            return tfs_fail_parse(s, err)
        if read_b64(&object_scan, &text) == 1:
            n = put_string(text, 1, w.strings)
        if n < 0:
            return tfs_fail_value(s, p, b"not formatted correctly for base64 data", err)
    else:
        return tfs_fail_parse(s, err) if json_scalar(s) < 0 else tfs_fail_type(s, p, w.dtype, err)
    w.string_bytes += <uint64_t>n
    if w.strings != NULL:
        w.strings += n
    return 0


cdef int read_element(JsonScan* s, TensorWalk* w, InferError* err) noexcept nogil:
    """Checks the scalar or object at the cursor and moves behind it."""
    cdef int dtype = w.dtype
    cdef FillCursor cursor
    cdef InferError unread
    cdef char bits[8]
    cdef const char* p = s.p
    cdef char first = json_peek(s)    # 0 at the end, where json_scalar refuses
    if dtype == DTYPE_BYTES:
        return read_string(s, w, err)
    if first == b"{":
        if json_skip(s) < 0:
            return tfs_fail_parse(s, err)
        return tfs_fail_type(s, p, dtype, err)
    tfs_cursor_at(&cursor, p, s.end, dtype)
    if json_scalar(s) < 0:
        return tfs_fail_parse(s, err)
    if first == b'"' or first == b"n" or (first == b"t" or first == b"f") != (dtype == DTYPE_BOOL):
        return tfs_fail_type(s, p, dtype, err)
    if infer_json_fill_next(&cursor, 1, bits, &unread) == 0:
        return 0
    if dtype in (DTYPE_FP16, DTYPE_FP32, DTYPE_FP64, DTYPE_BF16):
        return fail_lossy(s, p, dtype, err)
    return tfs_fail_type(s, p, dtype, err)


cdef int close_list(TensorWalk* w, int level, int64_t size, InferError* err) noexcept nogil:
    """A list at `level` has ended: the first of its level says how long the others must be."""
    if w.dims[level] < 0:
        w.dims[level] = size
    elif w.dims[level] != size:
        return infer_fail(
            err, INFER_INVALID_ARGUMENT, b"Encountered list at unexpected size: %lld at level: %d expected size: %lld",
            <long long>size, level, <long long>w.dims[level]
        )
    return 0


cdef int tfs_walk_value(JsonScan* s, TensorWalk* w, InferError* err) noexcept nogil:
    cdef int64_t sizes[8]
    cdef int level = 0
    cdef int known = 0    # whether the rank is
    cdef int entered
    w.rank = 0
    w.element_count = 0
    while True:
        if json_peek(s) == b"[":
            if level == INFER_MAX_RANK or (known and level >= w.rank):
                return infer_fail(
                    err, INFER_INVALID_ARGUMENT, b"Encountered list at unexpected level: %d expected < %d", level,
                    w.rank if known else <int>INFER_MAX_RANK
                )
            entered = json_enter(s, b"[")
            if entered < 0:
                return tfs_fail_parse(s, err)
            if not known:
                w.dims[level] = -1
            if entered:
                sizes[level] = 0
                level += 1
                continue
            if not known:
                known = 1
                w.rank = level + 1
            if close_list(w, level, 0, err) < 0:
                return -1
        else:
            if not known:
                known = 1
                w.rank = level
            if level != w.rank:
                return fail_level(s, level, w.rank, err)
            if read_element(s, w, err) < 0:
                return -1
            w.element_count += 1
        while level:
            sizes[level - 1] += 1
            entered = json_more(s, b"[")
            if entered < 0:
                return tfs_fail_parse(s, err)
            if entered:
                break
            level -= 1
            if close_list(w, level, sizes[level], err) < 0:
                return -1
        else:
            return 0


cdef int fail_level(JsonScan* s, int level, int rank, InferError* err) noexcept nogil:
    cdef char text[QUOTE_BYTES]
    tfs_quote(s, s.p, text)
    return infer_fail(
        err, INFER_INVALID_ARGUMENT,
        b"JSON Value: %s found at incorrect level: %d in the JSON DOM. Expected at level: %d",
        text, level + 1, rank
    )


cdef int tfs_walk_instances(JsonScan* s, int dtype, InferError* err) noexcept nogil:
    cdef TensorWalk first
    cdef TensorWalk other
    cdef int64_t element = 0
    cdef int entered = json_enter(s, b"[")
    tfs_walk_begin(&first, dtype)
    tfs_walk_begin(&other, dtype)
    while entered > 0:
        if element and json_peek(s) == b"{" and not (dtype == DTYPE_BYTES and is_b64(s)):
            return infer_fail(
                err, INFER_INVALID_ARGUMENT, b"Expecting value/list but got object at item %lld of input list",
                <long long>element
            )
        if tfs_walk_value(s, &other, err) < 0:
            tfs_name_element(element, NULL, 0, err)
            return -1
        if element == 0:
            first = other
        elif tfs_same_shape(&first, &other, err) < 0:
            tfs_name_element(element, NULL, 0, err)
            return -1
        element += 1
        entered = json_more(s, b"[")
    return tfs_fail_parse(s, err) if entered < 0 else 0


cdef void tfs_json_explain(
    const char* buf, const ModelSpec* spec, const InferRequest* request, int form, InferError* err
) noexcept nogil:
    cdef JsonScan scan
    cdef TensorWalk walk
    cdef int i
    if err.code != INFER_INVALID_ARGUMENT:
        return
    for i in range(spec.n_inputs):
        if request.inputs[i].is_binary:
            continue
        json_start(&scan, buf, 0)
        scan.p = request.inputs[i].json_data.p
        scan.end = scan.p + request.inputs[i].json_data.n
        if form == TFS_COLUMN:
            tfs_walk_begin(&walk, spec.inputs[i].dtype)
            if tfs_walk_value(&scan, &walk, err) < 0:
                return
        elif tfs_walk_instances(&scan, spec.inputs[i].dtype, err) < 0:
            return
