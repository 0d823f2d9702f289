"""BYTES elements of a request, in whatever form they came, as the bytes that stand in a slab.

JSON strings, protobuf's bytes fields, a whole body that is one element; a binary tensor already has the slab's form
(bytes_form.h) and is not for here. Whoever indexed the request has checked and measured the elements, so writing cannot
fail and fills exactly InputRef.byte_count bytes. Borrows the request, allocates nothing, any thread; O(bytes).
"""

from libc.stdint cimport int64_t

from server._fast.infer_spec cimport InferError, InputRef, Span


# Counts the strings of a JSON array and their bytes together: 0, or -1 and a text.
cdef int infer_strings_measure(Span json_data, int64_t* count, size_t* bytes, InferError* err) noexcept nogil
# Writes all elements of an input that is not binary.
cdef void infer_strings_fill(const InputRef* source, char* dst) noexcept nogil
