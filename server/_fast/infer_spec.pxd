"""What a model takes and what a request asks for, as plain C structs; protocol-neutral.

Knows nothing of JSON, HTTP, gRPC or slabs: a protocol module fills an InferRequest, infer_validate checks it against
the ModelSpec with the texts that Triton's clients match. A Spec object owns its ModelSpec and all memory that it points
to, immutable after construction and readable from any thread. Spans of an InferRequest borrow from the request's bytes;
its two arrays belong to it (infer_request_alloc once per connection or worker and model, then no allocation). O(inputs
* rank).
"""

from libc.stdint cimport int64_t, uint64_t


cdef extern from "infer_types.h" nogil:
    enum: DTYPE_INVALID, DTYPE_BOOL, DTYPE_UINT8, DTYPE_UINT16, DTYPE_UINT32, DTYPE_UINT64, DTYPE_INT8, DTYPE_INT16
    enum: DTYPE_INT32, DTYPE_INT64, DTYPE_FP16, DTYPE_FP32, DTYPE_FP64, DTYPE_BYTES, DTYPE_BF16, DTYPE_COUNT
    enum: INFER_OK, INFER_INVALID_ARGUMENT, INFER_NOT_FOUND, INFER_UNAVAILABLE, INFER_UNIMPLEMENTED, INFER_INTERNAL
    enum: INFER_RESOURCE_EXHAUSTED, INFER_DEADLINE, INFER_NO_MEMORY
    enum: INFER_MAX_RANK
    enum: INFER_ERROR_BYTES

    # Bytes that somebody else owns; never NUL-terminated.
    ctypedef struct Span:
        const char* p
        size_t n

    # Where the elements of an input that is neither JSON nor bytes are (wire_elements.h).
    enum: WIRE_SOURCE_NONE, WIRE_SOURCE_CONTENTS, WIRE_SOURCE_TENSOR_PROTO, WIRE_SOURCE_ELEMENT, WIRE_SOURCE_SHARED

    ctypedef struct InferError:
        int code
        int retry_after_s
        size_t n
        char text[512]

    size_t dtype_width_bytes(int dtype) noexcept
    const char* dtype_name(int dtype) noexcept
    int dtype_from_name(const char* p, size_t n) noexcept
    # Fills the error from a printf format and returns -1.
    int infer_fail(InferError* err, int code, const char* format, ...) noexcept
    void infer_error_name_input(InferError* err, Span name) noexcept


cdef struct TensorSpec:
    Span name
    int dtype
    int rank
    const int64_t* dims   # -1: free
    Span json_name        # the name as a JSON string, quotes included
    const Span* labels    # of the classes of an output; NULL: it has none
    int64_t label_count
    int batch_axis        # which of the dims counts rows in a batched model; -1: none, all rows share the tensor
    int64_t row_elements  # product of the dims (behind the batch axis when batched); -1 when one of them is free


cdef struct ModelSpec:
    Span name
    Span version
    int batched           # 1: tensors have a batch axis, the first unless batch_axis says otherwise, where dims has -1
    int max_batch         # rows of a server-side slab; longer requests are split by the caller
    int n_inputs
    int n_outputs
    TensorSpec* inputs
    TensorSpec* outputs
    Span json_head        # `"model_name":"M","model_version":"1","outputs":[` for replies


# A tensor in a client's shared memory. A reader notes what the request says; infer_shared_find, before anything is
# claimed, what that means. From then on the spans are the region's, which whoever uses them keeps alive.
cdef struct SharedRef:
    Span region           # its name, as the request wrote it
    int escaped           # the name is a JSON string's contents with escapes
    uint64_t offset       # in the region
    uint64_t byte_size
    int fd                # found: the object
    uint64_t start        # found: where in the object
    Span json_region      # found: the name as a JSON string, quotes included


cdef struct InputRef:
    int spec_index        # -1: the request has not named this input
    int dtype             # DTYPE_INVALID when the request names a datatype nobody knows; see `datatype`
    int rank              # may exceed INFER_MAX_RANK: then only the first dims are here and validation refuses
    int64_t dims[8]
    int64_t element_count
    size_t byte_count     # what the elements take in a slab
    Span json_data        # text of the `data` value
    int is_binary
    Span bytes            # contents when is_binary
    int wire_source       # when not is_binary: 0 for json_data, else WIRE_SOURCE_*: repeated values inside `wire`
    Span wire             # the protobuf message around them; WIRE_SOURCE_ELEMENT: the one element itself
    int64_t wire_count    # how many there are; BYTES: also of strings in json_data
    size_t content_bytes  # BYTES, not is_binary: the elements' bytes together, their lengths not counted
    size_t last_bytes     # BYTES of a TensorProto: of the last element, which stands for all that are missing
    int position          # which input of a protobuf request this is, of those with contents in it
    SharedRef* shared     # WIRE_SOURCE_SHARED only
    Span datatype         # as the request wrote it, for the error text


cdef struct OutputRef:
    int spec_index
    int binary
    int64_t class_count   # at most that many classes instead of the values (infer_classes); 0: the values
    SharedRef* shared     # where the client wants the bytes; NULL: in the reply


cdef struct InferRequest:
    Span id               # JSON: a string's contents, still escaped; protobuf: the text. n == 0: absent or empty
    int has_id
    int n_inputs          # named by the request
    InputRef* inputs      # in spec order: inputs[i].spec_index == i after validation
    int n_outputs
    int shared_count      # tensors in shared memory, see infer_request_shared
    OutputRef* outputs    # as requested; all of the model's in its order when none is
    int binary_output_default
    int64_t timeout_us    # 0: absent
    uint64_t priority
    int64_t rows          # what the batch axes of all inputs count when batched, else 1


# Rows of one output tensor; n counts bytes.
cdef struct Segment:
    const char* p
    size_t n


# One output of a reply. The segments' bytes, in order, are the tensor.
cdef struct ReplyTensor:
    int spec_index
    int dtype
    int rank
    int64_t dims[8]
    int binary
    const SharedRef* shared   # the bytes are there already, and not in the reply; NULL: they are not
    int n_segments
    Segment* segments


# 0, or -1 when memory is out. An InferRequest must be zeroed or freed before.
cdef int infer_request_alloc(InferRequest* r, const ModelSpec* spec) noexcept nogil
cdef void infer_request_free(InferRequest* r) noexcept nogil
# Forgets the last request, keeps the memory.
cdef void infer_request_reset(InferRequest* r, const ModelSpec* spec) noexcept nogil
# Room for one more tensor in shared memory; at most one is taken for each input and output.
cdef SharedRef* infer_request_share(InferRequest* r, const ModelSpec* spec) noexcept nogil


cdef inline SharedRef* infer_request_shared(const InferRequest* r, const ModelSpec* spec) noexcept nogil:
    """The tensors in shared memory: they lie behind the inputs."""
    return <SharedRef*>(r.inputs + spec.n_inputs + 1)


# The index of the named tensor, or -1.
cdef int infer_find_tensor(const TensorSpec* tensors, int count, Span name) noexcept nogil
# A request names a tensor that the model does not have: says so, and which it has.
cdef int infer_fail_unexpected(InferError* err, bint is_output, Span name, const ModelSpec* spec) noexcept nogil
# Whether all inputs are there with the right datatypes and shapes; sets rows, element and byte counts, the default
# outputs.
# 0, or -1 and a text.
cdef int infer_validate(InferRequest* r, const ModelSpec* spec, InferError* err) noexcept nogil


cdef class Spec:
    cdef ModelSpec* c
    cdef readonly str name
    cdef readonly str version
    cdef list _keep
    cdef Span _text(self, bytes text)
    cdef int _labels(self, object labels) except -1
    cdef int _tensors(self, TensorSpec** at, object tensors, str kind, object batch_axes) except -1


# Raises InferRefused.
cdef int raise_infer_error(const InferError* err) except -1
