"""JSON array text to packed little-endian elements, straight into a tensor's rows.

Knows neither names nor shapes: flat or nested, the array must hold as many elements as are asked for. The destination
belongs to the caller and may be partly written when a refusal comes. Allocates nothing; any thread, one per cursor.
O(text bytes). An integer that does not fit its datatype is refused, a float rounds once (to nearest, ties to even),
NaN, Infinity and -Infinity are floats, BOOL takes true, false, 0 and 1. The numbers themselves are in numbers.h, the
array in number_arrays.h.
"""

from libc.stdint cimport int64_t

from server._fast.infer_spec cimport InferError, Span


cdef extern from "infer_types.h" nogil:
    ctypedef struct FillCursor:
        const char* p
        int64_t element_count


# Exactly element_count elements at dst: 0, or -1 and a text.
cdef int infer_json_fill(Span data, int dtype, int64_t element_count, char* dst, InferError* err) noexcept nogil
# The same in parts, for a request split over slabs: begin, next for each part, end checks that nothing is left.
cdef void infer_json_fill_begin(FillCursor* c, Span data, int dtype) noexcept nogil
cdef int infer_json_fill_next(FillCursor* c, int64_t element_count, char* dst, InferError* err) noexcept nogil
cdef int infer_json_fill_end(FillCursor* c, InferError* err) noexcept nogil
