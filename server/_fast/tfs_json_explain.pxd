"""Why a predict body is refused, in TensorFlow Serving's words.

The readers of tfs_json_index and of the rows only find that something is wrong, fast; this walks the text once more,
value by value, and says what. It never runs for a request that is served. Borrows the text, allocates nothing, does
not recurse, any thread; O(bytes). Texts are those of TensorFlow Serving's json_tensor.cc; a JSON value that is quoted
in one is cut after 64 bytes.
"""

from libc.stdint cimport int64_t, uint64_t

from server._fast.infer_json_reader cimport JsonScan
from server._fast.infer_spec cimport InferError, InferRequest, ModelSpec


cdef extern from "infer_types.h" nogil:
    ctypedef struct FillCursor:
        const char* p
        const char* end
        int64_t element_count
        int dtype
        int depth
        int after_value
        int may_close


#: What an index returns and a reply is written in.
cdef enum TfsForm:
    TFS_ROW = 1          # `instances`: the first axis of every tensor counts the instances
    TFS_ROW_SINGLE = 2   # `instances` with one element, for a model without batch axis: the element is the tensor
    TFS_COLUMN = 3       # `inputs`


cdef enum:
    QUOTE_BYTES = 68


cdef struct TensorWalk:
    int dtype
    int rank              # of the value, learned from its first elements
    int64_t element_count
    int64_t dims[8]
    uint64_t string_bytes  # BYTES: what the elements take in a slab
    char* strings          # where they are written to; NULL: nowhere


cdef inline void tfs_walk_begin(TensorWalk* w, int dtype) noexcept nogil:
    w.dtype = dtype
    w.string_bytes = 0
    w.strings = NULL


cdef inline int tfs_clip(size_t n) noexcept nogil:
    """A precision for %.*s: long names are cut."""
    return <int>n if n < 128 else 128


cdef inline void tfs_cursor_at(FillCursor* c, const char* p, const char* end, int dtype) noexcept nogil:
    """A cursor that reads one element at p, as if it stood in a list."""
    c.p = p
    c.end = end
    c.element_count = 0
    c.dtype = dtype
    c.depth = 1
    c.after_value = 0
    c.may_close = 0


# The value at p, printable, cut and ended by a NUL, into out[QUOTE_BYTES].
cdef void tfs_quote(const JsonScan* s, const char* p, char* out) noexcept nogil
# "JSON Parse error: ...": the scanner stands where it failed.
cdef int tfs_fail_parse(const JsonScan* s, InferError* err) noexcept nogil
# "JSON Value: {...} WHAT", with the value at p.
cdef int tfs_fail_value(const JsonScan* s, const char* p, const char* what, InferError* err) noexcept nogil
# The value at the cursor is no `dtype`.
cdef int tfs_fail_type(const JsonScan* s, const char* p, int dtype, InferError* err) noexcept nogil
# Puts `element K [key: NAME] of 'instances'` before a text that is not about JSON's grammar; name NULL
# when the instances are no objects.
cdef void tfs_name_element(int64_t element, const char* name, size_t name_bytes, InferError* err) noexcept nogil
# Walks one value behind tfs_walk_begin: 0 and its shape in w, or -1 and a text.
cdef int tfs_walk_value(JsonScan* s, TensorWalk* w, InferError* err) noexcept nogil
# Compares an instance's value with the first instance's: 0, or -1 and a text.
cdef int tfs_same_shape(const TensorWalk* first, const TensorWalk* other, InferError* err) noexcept nogil
# Walks the elements of an `instances` array that are no objects: 0, or -1 and a text.
cdef int tfs_walk_instances(JsonScan* s, int dtype, InferError* err) noexcept nogil
# After the elements of an indexed request could not be read: replaces the text in err if the walk finds the reason.
cdef void tfs_json_explain(
    const char* buf, const ModelSpec* spec, const InferRequest* request, int form, InferError* err
) noexcept nogil
