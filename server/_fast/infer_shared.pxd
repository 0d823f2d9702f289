"""Tensors of a request in clients' shared memory: regions found by name, inputs copied out of them, outputs into them.

What a client can still change is looked at once, when it is copied; what is checked afterwards is the copy. The regions
are descriptors: a request that names one keeps its ClientRegion, so unregistering it meanwhile is harmless. Knows no
protocol; names come as the request wrote them. infer_shared_find runs on the event loop's thread, the rest anywhere;
O(regions named) and O(bytes).
"""

from libc.stdint cimport uint64_t

from server._fast.infer_spec cimport InferError, InferRequest, InputRef, ModelSpec, ReplyTensor


# Finds every region that the request names and checks the ranges: the ClientRegions, to be kept as long as the
# request's SharedRefs are used; or None and Triton's text. `regions`: name -> ClientRegion.
cdef list infer_shared_find(dict regions, InferRequest* request, const ModelSpec* model, InferError* err)
# The next n bytes of an input; `done` of it have been read and are counted on: 0, or -1 and a text when the object has
# become too short or what came is no tensor of the input's datatype. BYTES come whole, in one call.
cdef int infer_shared_read(
    const InputRef* source, uint64_t* done, char* dst, uint64_t n, InferError* err
) noexcept nogil
# Writes the outputs that are asked for in shared memory: 0, or -1 and a text.
cdef int infer_shared_write(
    const ReplyTensor* tensors, int count, const ModelSpec* model, InferError* err
) noexcept nogil
