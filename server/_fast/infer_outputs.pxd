"""C face of the way out: a finished call's outputs as they lie in the slabs, or the text of its failure."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from server._fast.infer_claim cimport Part
from server._fast.infer_spec cimport InferError, InferRequest, ModelSpec, ReplyTensor, Segment
from server._fast.layout cimport ArenaView


#: Memory for the segments of one reply, kept from call to call.
cdef struct SegmentPool:
    Segment* segments
    uint64_t capacity


# Shaped mode: whether the parts' outputs make one tensor each: 0, or -1 and why not.
cdef int infer_outputs_check(ArenaView* v, const ModelSpec* model, const InferRequest* request, const Part* parts,
                             uint32_t part_count, InferError* err) noexcept nogil
# Fills `replies` with the outputs that the request asked for: 0, or -1 no memory.
cdef int infer_outputs(ArenaView* v, const ModelSpec* model, const InferRequest* request, const Part* parts,
                       uint32_t part_count, ReplyTensor* replies, SegmentPool* pool) noexcept nogil
# Why a part's row failed; `failed_word` is the row's word.
cdef void infer_failure(ArenaView* v, const ModelSpec* model, const Part* part, uint64_t failed_word,
                        InferError* err) noexcept nogil
