"""Repeated protobuf numbers to tensor rows: typed contents of KServe V2, *_val fields of TensorFlow's TensorProto.

Whoever indexed the request (infer_wire, tensor_proto) has checked the wire format and counted the elements; here they
are read, packed or one by one, from every occurrence of the message around them, as merging would put them together.
The destination belongs to the caller and may be partly written when a refusal comes. Allocates nothing; any thread,
one per cursor; O(message bytes). A number that does not fit its datatype is refused.
"""

from libc.stdint cimport int64_t

from server._fast.infer_spec cimport InferError, InferRequest, InputRef, ModelSpec
from server._fast.proto_scan cimport ProtoScan


cdef struct WireCursor:
    ProtoScan outer        # the message in which the repeated numbers' message stands, maybe more than once
    ProtoScan inner        # that message, one occurrence of it
    const char* run        # encoded elements not read yet
    const char* run_end
    unsigned inner_number  # field of `outer` that is the message
    unsigned number        # field of `inner` that holds the elements
    int wire               # of one element
    int dtype
    int repeat_last        # behind the last element it stands for all others; zeros when there is none
    int64_t element_count  # read so far
    char last[8]           # the last element, as written


# `source` is an input whose wire_source is not WIRE_SOURCE_NONE.
cdef void infer_wire_fill_begin(WireCursor* c, const InputRef* source) noexcept nogil
# The next element_count elements at dst: 0, or -1 and a text. May be called for each part of a request split over
# slabs.
cdef int infer_wire_fill_next(WireCursor* c, int64_t element_count, char* dst, InferError* err) noexcept nogil
# Checks that nothing is left: 0, or -1 and a text.
cdef int infer_wire_fill_end(WireCursor* c, InferError* err) noexcept nogil

# For the Python faces: the request as plain objects, typed contents in parts of that many rows (empty: all in one).
cdef dict request_as_dict(const InferRequest* r, const ModelSpec* spec, const char* base, row_counts)
