"""C face of the way in: a request's rows claimed in the slabs of its lane, and its inputs written into them."""

from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint32_t, uint64_t

from server._fast.infer_spec cimport InferError, InferRequest, ModelSpec
from server._fast.layout cimport ArenaView, TensorLayout
from server._fast.slab_ring cimport Claim


#: Rows of one call in one slab; a link in that slab's list of pending parts.
cdef struct Part:
    Part* next
    PyObject* call
    Claim claim

#: A call's parts: `one` is the memory for a call that needs no more than one, others are malloc'ed.
cdef struct PartList:
    Part* parts
    uint32_t part_count
    Part* one


cdef inline char* row_data(ArenaView* v, const TensorLayout* tensor, const Claim* claim) noexcept nogil:
    """Rows mode: where a tensor of the claimed rows lies."""
    return v.data + claim.slab * v.data_stride + tensor.slab_offset + claim.first_row * tensor.row_bytes


# 0, or -1 and the refusal; what is in `out` then is to be cancelled. row_dims: room for dims in shaped mode,
# [inputs][MAX_RANK].
cdef int infer_claim(ArenaView* v, const ModelSpec* model, const InferRequest* request, uint32_t owner, uint64_t at_ns,
                     int64_t* row_dims, PartList* out, InferError* err) noexcept nogil
# Takes rows that were filled while they came (row_body): 0, or -1 and the refusal; `out` as for infer_claim.
cdef int infer_claim_reserved(ArenaView* v, const ModelSpec* model, uint32_t owner, uint64_t at_ns,
                              const Claim* reserved, PartList* out, InferError* err) noexcept nogil
# Writes every input into the claimed rows: 0, or -1 and the refusal.
cdef int infer_fill(ArenaView* v, const ModelSpec* model, const InferRequest* request, const Part* parts,
                    uint32_t part_count, InferError* err) noexcept nogil
