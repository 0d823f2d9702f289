"""Triton's classification extension: instead of an output's values the best of them, as "value:index[:label]".

The output becomes BYTES of shape [rows, k] for a batched model, each row by itself, else [k]; k is what the request
asked for, or fewer where there are fewer values. Protocol-neutral: a reader calls infer_classes_ask, a writer puts
infer_classes_begin before its work and writes what it made. Memory of a reply is in its ClassReply, until
infer_classes_end. Any thread; O(values * log(k)).
"""

from libc.stdint cimport uint64_t

from server._fast.infer_spec cimport InferError, InferRequest, ModelSpec, OutputRef, ReplyTensor, Segment, TensorSpec
from server._fast.outbuf cimport OutBuf


cdef struct ClassReply:
    ReplyTensor* tensors
    Segment* segments
    OutBuf text


# Notes that a request wants class_count classes of an output: 0, or -1 and Triton's text for a datatype without scores.
cdef int infer_classes_ask(
    OutputRef* at, const TensorSpec* output, uint64_t class_count, InferError* err
) noexcept nogil
# c.tensors are the `count` tensors of the request's outputs, classes in place of values: 0, or -1 when memory is out.
cdef int infer_classes_begin(
    ClassReply* c, const ModelSpec* spec, const InferRequest* request, const ReplyTensor* tensors, int count
) noexcept nogil
cdef void infer_classes_end(ClassReply* c) noexcept nogil


cdef inline bint infer_classes_wanted(const InferRequest* request) noexcept nogil:
    cdef int i
    for i in range(request.n_outputs):
        if request.outputs[i].class_count:
            return True
    return False
