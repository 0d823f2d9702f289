"""Tensors of a request in clients' shared memory.

The contract is in infer_shared.pxd. Copies go between the object and the slab directly, by pread and pwrite. Nothing is
allocated but the list of the regions, for requests that name one. Texts are those of Triton's shared_memory_manager.cc
and http_server.cc.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memset

from server._fast.client_region cimport ClientRegion, region_read, region_write
from server._fast.infer_spec cimport (
    DTYPE_BOOL,
    DTYPE_BYTES,
    INFER_INVALID_ARGUMENT,
    WIRE_SOURCE_SHARED,
    InferError,
    InferRequest,
    InputRef,
    ModelSpec,
    ReplyTensor,
    SharedRef,
    Span,
    dtype_from_name,
    infer_fail,
    infer_request_shared,
    raise_infer_error,
)


cdef extern from "bytes_form.h" nogil:
    int bytes_next(const char** p, const char* end, Span* element) noexcept
    int64_t bytes_count(const char** p, const char* end, int64_t most) noexcept


cdef extern from "json_scan.h" nogil:
    size_t json_unescape(Span text, char* out, size_t capacity) noexcept


cdef enum:
    NAME_BYTES = 1024      # more than a registered name can have


cdef inline int clip(Span text) noexcept nogil:
    """A precision for %.*s: long names are cut."""
    return <int>text.n if text.n < 128 else 128


# ---- names

cdef list infer_shared_find(dict regions, InferRequest* request, const ModelSpec* model, InferError* err):
    cdef list found = []
    cdef ClientRegion region
    cdef int i
    for i in range(request.shared_count):
        region = find(regions, &infer_request_shared(request, model)[i], err)
        if region is None:
            return None
        found.append(region)
    return found


cdef ClientRegion find(dict regions, SharedRef* shared, InferError* err):
    cdef char plain[NAME_BYTES]
    cdef Span name = shared.region
    cdef ClientRegion region = None
    if shared.escaped:
        name.n = json_unescape(shared.region, plain, NAME_BYTES)
        name.p = plain
    if name.n < NAME_BYTES:
        region = regions.get(PyBytes_FromStringAndSize(name.p, <Py_ssize_t>name.n))
    if region is None:
        infer_fail(
            err, INFER_INVALID_ARGUMENT, b"Unable to find shared memory region: '%.*s'", clip(name), name.p)
        return None
    if not region.has(shared.offset, shared.byte_size):
        infer_fail(
            err, INFER_INVALID_ARGUMENT,
            b"Invalid offset for shared memory region: '%.*s'" if shared.offset > region.byte_size
            else b"Invalid offset + byte size for shared memory region: '%.*s'", clip(name), name.p)
        return None
    shared.fd = region.fd
    shared.start = region.offset + shared.offset
    shared.region.p = region.name
    shared.region.n = <size_t>len(region.name)
    shared.escaped = 0
    shared.json_region.p = region.json_name
    shared.json_region.n = <size_t>len(region.json_name)
    return region


# ---- inputs

cdef int check_elements(const InputRef* source, const char* p, uint64_t n, InferError* err) noexcept nogil:
    """BYTES as they were copied: exactly as many elements as the shape asks for, and nothing behind them."""
    cdef const char* end = p + n
    cdef Span element
    cdef int64_t count = bytes_count(&p, end, source.element_count)
    if count == source.element_count and p == end:
        return 0
    if count >= 0:
        count += bytes_next(&p, end, &element) > 0
    if count < 0 or (count == source.element_count and p != end):
        return infer_fail(
            err, INFER_INVALID_ARGUMENT,
            b"incomplete string in shared memory region '%.*s' at byte %llu of %llu",
            clip(source.shared.region), source.shared.region.p, <unsigned long long>(n - <uint64_t>(end - p)),
            <unsigned long long>n)
    return infer_fail(
        err, INFER_INVALID_ARGUMENT, b"expected %lld string elements in shared memory region '%.*s', got %s%lld",
        <long long>source.element_count, clip(source.shared.region), source.shared.region.p,
        b"at least " if count > source.element_count else b"", <long long>count)


cdef int infer_shared_read(
    const InputRef* source, uint64_t* done, char* dst, uint64_t n, InferError* err
) noexcept nogil:
    cdef uint64_t i
    cdef unsigned char high = 0
    if region_read(source.shared.fd, source.shared.start + done[0], dst, n) < 0:
        return infer_fail(
            err, INFER_INVALID_ARGUMENT,
            b"unable to read %llu bytes of shared memory region '%.*s': its object has become shorter than when it was "
            b"registered", <unsigned long long>source.byte_count, clip(source.shared.region), source.shared.region.p)
    done[0] += n
    if source.dtype == DTYPE_BYTES:
        return check_elements(source, dst, n, err)
    if source.dtype == DTYPE_BOOL:
        for i in range(n):
            high |= <unsigned char>dst[i] & <unsigned char>0xFE
        if high:
            return infer_fail(err, INFER_INVALID_ARGUMENT, b"BOOL elements are bytes 0 or 1, got another value")
    return 0


# ---- outputs

cdef int write_tensor(const ReplyTensor* tensor, Span output, InferError* err) noexcept nogil:
    cdef const SharedRef* shared = tensor.shared
    cdef uint64_t n = 0
    cdef uint64_t at = shared.start
    cdef int i
    for i in range(tensor.n_segments):
        n += tensor.segments[i].n
    if n > shared.byte_size:
        return infer_fail(
            err, INFER_INVALID_ARGUMENT,
            b"shared memory size specified with the request for output '%.*s' (%llu bytes) should be at least %llu "
            b"bytes to hold the results", clip(output), output.p, <unsigned long long>shared.byte_size,
            <unsigned long long>n)
    for i in range(tensor.n_segments):
        if tensor.segments[i].n and region_write(shared.fd, at, tensor.segments[i].p, tensor.segments[i].n) < 0:
            return infer_fail(
                err, INFER_INVALID_ARGUMENT,
                b"unable to write output '%.*s' to shared memory region '%.*s': its object has become shorter than "
                b"when it was registered, or there is no memory for it", clip(output), output.p,
                clip(shared.region), shared.region.p)
        at += tensor.segments[i].n
    return 0


cdef int infer_shared_write(
    const ReplyTensor* tensors, int count, const ModelSpec* model, InferError* err
) noexcept nogil:
    cdef int i
    for i in range(count):
        if tensors[i].shared != NULL:
            if write_tensor(&tensors[i], model.outputs[tensors[i].spec_index].name, err) < 0:
                return -1
    return 0


# ---- Python face

def read(ClientRegion region not None, uint64_t offset, uint64_t byte_size, str datatype, int64_t element_count):
    """See infer_shared.pyi."""
    cdef InputRef source
    cdef SharedRef shared
    cdef InferError err
    cdef uint64_t done = 0
    cdef bytes name = datatype.encode()
    cdef bytearray room = bytearray(byte_size)
    cdef char[:] view = room
    cdef char* dst = NULL
    cdef int status
    memset(&source, 0, sizeof(source))
    memset(&shared, 0, sizeof(shared))
    shared.region.p = region.name
    shared.region.n = <size_t>len(region.name)
    shared.fd = region.fd
    shared.start = region.offset + offset
    source.dtype = dtype_from_name(name, <size_t>len(name))
    source.wire_source = WIRE_SOURCE_SHARED
    source.shared = &shared
    source.element_count = element_count
    source.byte_count = byte_size
    if byte_size:
        dst = &view[0]
    with nogil:
        status = infer_shared_read(&source, &done, dst, byte_size, &err)
    if status < 0:
        raise_infer_error(&err)
    return bytes(room)
