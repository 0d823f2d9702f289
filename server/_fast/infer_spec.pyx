"""Request memory, validation with Triton's texts, and the Python class that owns a ModelSpec.

The contract is in infer_spec.pxd. Validation assumes nothing about who filled the InferRequest: ranks beyond the limit,
negative dims and overflowing products are refused here for every protocol. No function but the class allocates after
infer_request_alloc. Any thread, one per InferRequest; O(inputs * rank).
"""

import json
import math
import struct

from libc.stdint cimport INT64_MAX, int64_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memset


cdef extern from "bytes_form.h" nogil:
    enum: BYTES_CUT_LENGTH, BYTES_CUT_ELEMENT
    int bytes_next(const char** p, const char* end, Span* element) noexcept
    int64_t bytes_count(const char** p, const char* end, int64_t most) noexcept


class InferRefused(ValueError):
    """See infer_spec.pyi."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


cdef int raise_infer_error(const InferError* err) except -1:
    raise InferRefused(err.code, (<bytes>err.text[: err.n]).decode("utf-8", "replace"))


# ---- request memory

cdef int infer_request_alloc(InferRequest* r, const ModelSpec* spec) noexcept nogil:
    cdef size_t shared_bytes = (<size_t>spec.n_inputs + <size_t>spec.n_outputs) * sizeof(SharedRef)
    memset(r, 0, sizeof(InferRequest))
    r.inputs = <InputRef*>calloc(1, (<size_t>spec.n_inputs + 1) * sizeof(InputRef) + shared_bytes)
    r.outputs = <OutputRef*>calloc(<size_t>spec.n_outputs + 1, sizeof(OutputRef))
    if r.inputs == NULL or r.outputs == NULL:
        infer_request_free(r)
        return -1
    infer_request_reset(r, spec)
    return 0


cdef void infer_request_free(InferRequest* r) noexcept nogil:
    free(r.inputs)
    free(r.outputs)
    memset(r, 0, sizeof(InferRequest))


cdef void infer_request_reset(InferRequest* r, const ModelSpec* spec) noexcept nogil:
    cdef int i
    cdef InputRef* inputs = r.inputs
    cdef OutputRef* outputs = r.outputs
    memset(r, 0, sizeof(InferRequest))
    r.inputs = inputs
    r.outputs = outputs
    for i in range(spec.n_inputs):
        inputs[i].spec_index = -1


cdef SharedRef* infer_request_share(InferRequest* r, const ModelSpec* spec) noexcept nogil:
    cdef SharedRef* shared = infer_request_shared(r, spec) + r.shared_count
    r.shared_count += 1
    memset(shared, 0, sizeof(SharedRef))
    shared.fd = -1
    return shared


cdef int infer_find_tensor(const TensorSpec* tensors, int count, Span name) noexcept nogil:
    cdef int i
    for i in range(count):
        if tensors[i].name.n == name.n and memcmp(tensors[i].name.p, name.p, name.n) == 0:
            return i
    return -1


cdef int clip(Span text) noexcept nogil:
    """A precision for %.*s: long names are cut."""
    return <int>text.n if text.n < 128 else 128


cdef int infer_fail_unexpected(InferError* err, bint is_output, Span name, const ModelSpec* spec) noexcept nogil:
    cdef const TensorSpec* tensors = spec.outputs if is_output else spec.inputs
    cdef int count = spec.n_outputs if is_output else spec.n_inputs
    cdef const char* kind = b"output" if is_output else b"input"
    cdef char known[160]
    cdef int n = 0
    cdef int i = 0
    known[0] = 0
    # As many names as there is room for, none of them cut.
    while i < count and <size_t>n + tensors[i].name.n + 24 < sizeof(known):
        n += snprintf(
            known + n, sizeof(known) - <size_t>n, b"%s'%.*s'", <const char*>b", " if i else <const char*>b"",
            <int>tensors[i].name.n, tensors[i].name.p,
        )
        i += 1
    if i < count:
        snprintf(
            known + n, sizeof(known) - <size_t>n, b"%s%d more", <const char*>b" and " if i else <const char*>b"",
            count - i,
        )
    return infer_fail(
        err, INFER_INVALID_ARGUMENT, b"unexpected inference %s '%.*s' for model '%.*s'; its %ss: %s", kind,
        clip(name), name.p, clip(spec.name), spec.name.p, kind, known,
    )


# ---- validation


cdef void append(char* text, size_t size, const char* format, Span name) noexcept nogil:
    """Appends one name; what does not fit is dropped."""
    cdef size_t n = 0
    while n < size and text[n] != 0:
        n += 1
    if n + 1 < size:
        snprintf(text + n, size - n, format, clip(name), name.p)


cdef void shape_text(const int64_t* dims, int rank, char* text, size_t size) noexcept nogil:
    """[2,64], as Triton writes shapes; a request's dims behind the eighth are "..."."""
    cdef int i
    cdef int n = snprintf(text, size, "[")
    for i in range(rank if rank <= INFER_MAX_RANK else INFER_MAX_RANK):
        n += snprintf(text + n, size - <size_t>n, "%s%lld", b"" if i == 0 else b",", <long long>dims[i])
    snprintf(text + n, size - <size_t>n, "%s", b",...]" if rank > INFER_MAX_RANK else b"]")


cdef int fail_missing(const InferRequest* r, const ModelSpec* spec, InferError* err) noexcept nogil:
    cdef char got[160]
    cdef char missing[160]
    cdef int i
    got[0] = 0
    missing[0] = 0
    for i in range(spec.n_inputs):
        if r.inputs[i].spec_index >= 0:
            append(got, sizeof(got), b"'%.*s'" if got[0] == 0 else b",'%.*s'", spec.inputs[i].name)
        else:
            append(missing, sizeof(missing), b"'%.*s'" if missing[0] == 0 else b",'%.*s'", spec.inputs[i].name)
    return infer_fail(
        err, INFER_INVALID_ARGUMENT,
        b"expected %d inputs but got %d inputs for model '%.*s'. Got input(s) [%s], but missing required input(s) "
        b"[%s]. "
        b"Please provide all required input(s).",
        spec.n_inputs, r.n_inputs, clip(spec.name), spec.name.p, got, missing,
    )


cdef int fail_shape(
    const InputRef* given, const TensorSpec* want, const ModelSpec* spec, InferError* err
) noexcept nogil:
    cdef char expected[256]
    cdef char got[256]
    shape_text(want.dims, want.rank, expected, sizeof(expected))
    shape_text(given.dims, given.rank, got, sizeof(got))
    return infer_fail(
        err, INFER_INVALID_ARGUMENT, b"unexpected shape for input '%.*s' for model '%.*s'. Expected %s, got %s",
        clip(want.name), want.name.p, clip(spec.name), spec.name.p, expected, got,
    )


cdef int fail_overflow(const InputRef* given, const TensorSpec* want, InferError* err) noexcept nogil:
    cdef char got[256]
    shape_text(given.dims, given.rank, got, sizeof(got))
    return infer_fail(
        err, INFER_INVALID_ARGUMENT,
        b"invalid shape for input '%.*s': shape %s causes total element count to exceed maximum size of %lld",
        clip(want.name), want.name.p, got, <long long>INT64_MAX,
    )


cdef int check_batch(InferRequest* r, const ModelSpec* spec, InferError* err) noexcept nogil:
    cdef int i, axis
    cdef bint is_counted = False
    r.rows = 1
    if not spec.batched:
        return 0
    for i in range(spec.n_inputs):
        axis = spec.inputs[i].batch_axis
        if axis < 0:
            continue
        if r.inputs[i].rank == 0:
            return infer_fail(
                err, INFER_INVALID_ARGUMENT, b"input '%.*s' has no shape but model requires batch dimension for '%.*s'",
                clip(spec.inputs[i].name), spec.inputs[i].name.p, clip(spec.name), spec.name.p,
            )
        if axis > 0 and r.inputs[i].rank != spec.inputs[i].rank:
            return fail_shape(&r.inputs[i], &spec.inputs[i], spec, err)
        if not is_counted:
            r.rows = r.inputs[i].dims[axis]
            is_counted = True
        elif r.inputs[i].dims[axis] != r.rows:
            return infer_fail(
                err, INFER_INVALID_ARGUMENT, b"input '%.*s' batch size does not match other inputs for '%.*s'",
                clip(spec.inputs[i].name), spec.inputs[i].name.p, clip(spec.name), spec.name.p,
            )
    if is_counted and r.rows == 0:
        return infer_fail(
            err, INFER_INVALID_ARGUMENT, b"inference request batch-size must be >= 1 for '%.*s'",
            clip(spec.name), spec.name.p,
        )
    return 0


cdef int check_wire_count(
    const InputRef* given, const TensorSpec* want, const ModelSpec* spec, InferError* err
) noexcept nogil:
    """Typed contents, or those in shared memory, are complete; in a TensorProto the last value stands for the rest."""
    cdef int64_t width = <int64_t>dtype_width_bytes(want.dtype)
    if given.wire_source == WIRE_SOURCE_SHARED:
        if given.shared.byte_size == given.byte_count:
            return 0
        return infer_fail(
            err, INFER_INVALID_ARGUMENT,
            b"input byte size mismatch for input '%.*s' for model '%.*s'. Expected %zu, got %llu",
            clip(want.name), want.name.p, clip(spec.name), spec.name.p, given.byte_count,
            <unsigned long long>given.shared.byte_size,
        )
    if given.wire_count == given.element_count:
        return 0
    if given.wire_source == WIRE_SOURCE_TENSOR_PROTO and given.wire_count < given.element_count:
        return 0
    return infer_fail(
        err, INFER_INVALID_ARGUMENT,
        b"input byte size mismatch for input '%.*s' for model '%.*s'. Expected %lld, got %lld",
        clip(want.name), want.name.p, clip(spec.name), spec.name.p,
        <long long>(given.element_count * width), <long long>(given.wire_count * width),
    )


cdef int check_bytes_form(
    InputRef* given, const TensorSpec* want, const ModelSpec* spec, InferError* err
) noexcept nogil:
    """A binary BYTES tensor: one pass over the lengths."""
    cdef const char* p = given.bytes.p
    cdef const char* end = p + given.bytes.n
    cdef Span element
    cdef int64_t count = bytes_count(&p, end, given.element_count)
    cdef int status = 0
    if count == given.element_count:
        status = bytes_next(&p, end, &element)
        if status == 0:
            given.byte_count = given.bytes.n
            return 0
    if count == BYTES_CUT_LENGTH or status == BYTES_CUT_LENGTH:
        return infer_fail(
            err, INFER_INVALID_ARGUMENT,
            b"incomplete string length indicator for inference input '%.*s' for model '%.*s', expecting 4 bytes but "
            b"only %zu bytes available",
            clip(want.name), want.name.p, clip(spec.name), spec.name.p, <size_t>(end - p),
        )
    if count == BYTES_CUT_ELEMENT or status == BYTES_CUT_ELEMENT:
        bytes_next(&p, end, &element)
        return infer_fail(
            err, INFER_INVALID_ARGUMENT,
            b"incomplete string data for inference input '%.*s' for model '%.*s', expecting string of length %zu but "
            b"only %zu bytes available",
            clip(want.name), want.name.p, clip(spec.name), spec.name.p, element.n, <size_t>(end - p) - 4,
        )
    return fail_string_count(given, want, spec, count + status, err)


cdef int fail_string_count(
    const InputRef* given, const TensorSpec* want, const ModelSpec* spec, int64_t got, InferError* err
) noexcept nogil:
    if got > given.element_count:
        return infer_fail(
            err, INFER_INVALID_ARGUMENT,
            b"unexpected number of string elements %lld for inference input '%.*s' for model '%.*s', expecting %lld",
            <long long>got, clip(want.name), want.name.p, clip(spec.name), spec.name.p, <long long>given.element_count,
        )
    return infer_fail(
        err, INFER_INVALID_ARGUMENT,
        b"expected %lld string elements for inference input '%.*s' for model '%.*s', got %lld",
        <long long>given.element_count, clip(want.name), want.name.p, clip(spec.name), spec.name.p, <long long>got,
    )


cdef int check_strings(InputRef* given, const TensorSpec* want, const ModelSpec* spec, InferError* err) noexcept nogil:
    """The byte count of BYTES: elements that the protocol's reader has counted, or a binary tensor."""
    cdef int64_t count = given.element_count
    cdef int64_t missing = count - given.wire_count
    if given.is_binary:
        return check_bytes_form(given, want, spec, err)
    if given.wire_source == WIRE_SOURCE_SHARED:
        # Its elements are counted where they are copied to: here the client can still change them.
        given.byte_count = given.shared.byte_size
        return 0
    if missing < 0 or (missing > 0 and given.wire_source != WIRE_SOURCE_TENSOR_PROTO):
        return fail_string_count(given, want, spec, given.wire_count, err)
    if <uint64_t>count > (<uint64_t>INT64_MAX - given.content_bytes) // (4 + <uint64_t>given.last_bytes):
        return fail_overflow(given, want, err)
    given.byte_count = given.content_bytes + 4 * <size_t>count + <size_t>missing * given.last_bytes
    return 0


cdef int check_counts(InputRef* given, const TensorSpec* want, const ModelSpec* spec, InferError* err) noexcept nogil:
    """Element and byte counts, each multiplication checked; the contents are long enough for them."""
    cdef int64_t width = <int64_t>dtype_width_bytes(want.dtype)
    cdef int64_t count = 1
    cdef int i
    for i in range(given.rank):
        if given.dims[i] == 0:
            count = 0
    if count:
        for i in range(given.rank):
            if count > INT64_MAX // given.dims[i]:
                return fail_overflow(given, want, err)
            count *= given.dims[i]
    given.element_count = count
    if want.dtype == DTYPE_BYTES:
        return check_strings(given, want, spec, err)
    if count > INT64_MAX // width:
        return fail_overflow(given, want, err)
    given.byte_count = <size_t>(count * width)
    if given.is_binary:
        if given.bytes.n != given.byte_count:
            return infer_fail(
                err, INFER_INVALID_ARGUMENT,
                b"input byte size mismatch for input '%.*s' for model '%.*s'. Expected %zu, got %zu",
                clip(want.name), want.name.p, clip(spec.name), spec.name.p, given.byte_count, given.bytes.n,
            )
    elif given.wire_source != WIRE_SOURCE_NONE:
        return check_wire_count(given, want, spec, err)
    elif count > 0 and <size_t>count > (given.json_data.n - 1) // 2:
        # n elements take at least 2n + 1 bytes of text: refused before anything is claimed for them.
        return infer_fail(
            err, INFER_INVALID_ARGUMENT,
            b"input '%.*s': Unable to parse 'data': Shape does not match true shape of 'data' field: the shape asks "
            b"for %lld elements, which 'data' of %zu bytes cannot hold",
            clip(want.name), want.name.p, <long long>count, given.json_data.n,
        )
    return 0


cdef int check_input(InputRef* given, const TensorSpec* want, const ModelSpec* spec, InferError* err) noexcept nogil:
    cdef int i
    cdef const char* named
    cdef int named_bytes
    if given.dtype != want.dtype:
        named = given.datatype.p
        named_bytes = clip(given.datatype)
        if given.dtype != DTYPE_INVALID or named == NULL:
            named = dtype_name(given.dtype)
            named_bytes = 16
        return infer_fail(
            err, INFER_INVALID_ARGUMENT, b"inference input '%.*s' data-type is '%.*s', but model '%.*s' expects '%s'",
            clip(want.name), want.name.p, named_bytes, named, clip(spec.name), spec.name.p, dtype_name(want.dtype),
        )
    if given.rank != want.rank:
        return fail_shape(given, want, spec, err)
    for i in range(given.rank):
        if given.dims[i] < 0 or (want.dims[i] >= 0 and want.dims[i] != given.dims[i]):
            return fail_shape(given, want, spec, err)
    return check_counts(given, want, spec, err)


cdef int infer_validate(InferRequest* r, const ModelSpec* spec, InferError* err) noexcept nogil:
    cdef int i
    if r.n_inputs != spec.n_inputs:
        return fail_missing(r, spec, err)
    if check_batch(r, spec, err) < 0:
        return -1
    for i in range(spec.n_inputs):
        if check_input(&r.inputs[i], &spec.inputs[i], spec, err) < 0:
            return -1
    if r.n_outputs == 0:
        r.n_outputs = spec.n_outputs
        for i in range(spec.n_outputs):
            r.outputs[i].spec_index = i
            r.outputs[i].binary = r.binary_output_default
            r.outputs[i].class_count = 0
            r.outputs[i].shared = NULL
    return 0


# ---- Python face

cdef class Spec:
    """See infer_spec.pyi."""

    def __cinit__(self, str name, str version, bint batched, int max_batch, inputs, outputs, labels=None,
                  batch_axes=None):
        self._keep = []
        self.c = <ModelSpec*>calloc(1, sizeof(ModelSpec))
        if self.c == NULL:
            raise MemoryError
        if max_batch < 1:
            raise ValueError(f"model {name!r}: expected max_batch of at least 1, got {max_batch}")
        self.name = name
        self.version = version
        self.c.name = self._text(name.encode())
        self.c.version = self._text(version.encode())
        head = json.dumps({"model_name": name, "model_version": version}, ensure_ascii=False, separators=(",", ":"))
        self.c.json_head = self._text(f'{head.strip("{}")},"outputs":['.encode())
        self.c.batched = batched
        self.c.max_batch = max_batch
        self.c.n_inputs = self._tensors(&self.c.inputs, inputs, "input", batch_axes or {})
        self.c.n_outputs = self._tensors(&self.c.outputs, outputs, "output", batch_axes or {})
        self._labels(labels or {})

    def __dealloc__(self):
        if self.c != NULL:
            free(self.c.inputs)
            free(self.c.outputs)
            free(self.c)

    cdef Span _text(self, bytes text):
        cdef Span span
        self._keep.append(text)
        span.p = text
        span.n = <size_t>len(text)
        return span

    cdef int _labels(self, object labels) except -1:
        """The classes' names of some outputs."""
        cdef Span* made
        cdef TensorSpec* output
        cdef int i
        for name, texts in labels.items():
            for i in range(self.c.n_outputs):
                output = &self.c.outputs[i]
                if output.name.p[: output.name.n] == name.encode():
                    break
            else:
                raise ValueError(f"model {self.name!r}: labels for {name!r}, which is not an output")
            room = bytearray(len(texts) * sizeof(Span) + 1)
            self._keep.append(room)
            made = <Span*><char*>room
            for i, text in enumerate(texts):
                made[i] = self._text(text.encode())
            output.labels = made
            output.label_count = len(texts)
        return 0

    cdef int _tensors(self, TensorSpec** at, object tensors, str kind, object batch_axes) except -1:
        cdef list rows = list(tensors)
        cdef TensorSpec* made = <TensorSpec*>calloc(<size_t>len(rows) + 1, sizeof(TensorSpec))
        cdef TensorSpec* tensor
        if made == NULL:
            raise MemoryError
        at[0] = made
        seen = set()
        for index, (name, datatype, dims) in enumerate(rows):
            tensor = &made[index]
            where = f"model {self.name!r}, {kind} {name!r}"
            if name in seen:
                raise ValueError(f"{where}: the name stands there twice")
            seen.add(name)
            wanted = datatype.encode()
            tensor.dtype = dtype_from_name(wanted, <size_t>len(wanted))
            if tensor.dtype == DTYPE_INVALID:
                raise ValueError(f"{where}: unknown datatype {datatype!r}")
            dims = tuple(dims)
            if len(dims) > INFER_MAX_RANK:
                raise ValueError(f"{where}: expected at most {INFER_MAX_RANK} dimensions, got {len(dims)}")
            if any(dim < -1 for dim in dims):
                raise ValueError(f"{where}: expected dimensions of at least -1 (-1: free), got {dims}")
            tensor.batch_axis = batch_axes.get(name, 0) if self.c.batched else -1
            if tensor.batch_axis == 0 and dims[:1] != (-1,):
                raise ValueError(f"{where}: expected -1 as the first dimension of a batched model, got {dims}")
            if tensor.batch_axis > 0 and dims[tensor.batch_axis : tensor.batch_axis + 1] != (-1,):
                raise ValueError(f"{where}: expected -1 as its batch axis {tensor.batch_axis}, got {dims}")
            per_row = [dim for axis, dim in enumerate(dims) if axis != tensor.batch_axis]
            fixed = math.prod(dim for dim in per_row if dim >= 0)
            if fixed >= 1 << 40:
                raise ValueError(f"{where}: {dims} are too many elements")
            tensor.row_elements = -1 if -1 in per_row else fixed
            tensor.name = self._text(name.encode())
            tensor.json_name = self._text(json.dumps(name, ensure_ascii=False).encode())
            tensor.rank = len(dims)
            tensor.dims = <const int64_t*>self._text(struct.pack(f"<{len(dims)}q", *dims)).p
        return <int>len(rows)
