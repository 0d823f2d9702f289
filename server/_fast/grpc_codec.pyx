"""Inference over gRPC: which protocol a method is of, how its messages name a model, are read and are answered.

The one place that knows all gRPC inference protocols: KServe V2 (ModelInfer, ModelStreamInfer) and TensorFlow Serving
(Predict). It does not know message prefixes, compression, statuses' numbers or HTTP/2. Messages are borrowed until the
call returns. A worker's event loop thread only; O(bytes), and O(models) to find a lane. Nothing here is a Python-level
call but the refusal of a model that is not there.
"""

import json

from libc.stdint cimport int64_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memcmp, strlen

from server._fast.frontend cimport Frontend
from server._fast.infer_call cimport InferCall, LaneClient
from server._fast.infer_shared cimport infer_shared_find
from server._fast.infer_spec cimport (
    INFER_DEADLINE,
    INFER_INTERNAL,
    INFER_INVALID_ARGUMENT,
    INFER_NOT_FOUND,
    INFER_RESOURCE_EXHAUSTED,
    INFER_UNAVAILABLE,
    INFER_UNIMPLEMENTED,
    InferError,
    Span,
    infer_fail,
)
from server._fast.infer_wire cimport infer_wire_index, infer_wire_model
from server._fast.infer_wire_reply cimport infer_wire_reply, infer_wire_stream_error
from server._fast.outbuf cimport OutBuf
from server._fast.stats cimport REASON_INVALID
from server._fast.tensor_proto cimport TfsModel, tfs_predict_index, tfs_predict_model
from server._fast.tensor_proto_reply cimport tfs_predict_reply

cdef const char* PATHS[GRPC_FORM_COUNT]
PATHS[GRPC_NO_INFERENCE] = b""
PATHS[GRPC_V2_INFER] = b"/inference.GRPCInferenceService/ModelInfer"
PATHS[GRPC_V2_STREAM_INFER] = b"/inference.GRPCInferenceService/ModelStreamInfer"
PATHS[GRPC_TFS_PREDICT] = b"/tensorflow.serving.PredictionService/Predict"

cdef size_t PATH_BYTES[GRPC_FORM_COUNT]
cdef int _form
for _form in range(GRPC_FORM_COUNT):
    PATH_BYTES[_form] = strlen(PATHS[_form])

#: The refusals of the handlers, by HTTP status.
cdef dict CODE_OF_HTTP = {
    400: INFER_INVALID_ARGUMENT,
    404: INFER_NOT_FOUND,
    413: INFER_RESOURCE_EXHAUSTED,
    429: INFER_RESOURCE_EXHAUSTED,
    501: INFER_UNIMPLEMENTED,
    503: INFER_UNAVAILABLE,
    504: INFER_DEADLINE,
}


cdef int grpc_form(const char* path, size_t n) noexcept nogil:
    cdef int form
    for form in range(GRPC_NO_INFERENCE + 1, GRPC_FORM_COUNT):
        if n == PATH_BYTES[form] and memcmp(path, PATHS[form], n) == 0:
            return form
    return GRPC_NO_INFERENCE


cdef bytes grpc_path(int form):
    return PATHS[form]


# ---- models

cdef LaneClient grpc_find(Frontend frontend, int form, const char* message, size_t n, InferError* err):
    if form == GRPC_TFS_PREDICT:
        return find_tfs(frontend, message, n, err)
    return find_v2(frontend, message, n, err)


cdef LaneClient find_v2(Frontend frontend, const char* message, size_t n, InferError* err):
    cdef LaneClient lane
    cdef Span name, version
    if infer_wire_model(message, n, &name, &version, err) < 0:
        return None
    lane = frontend.find_lane(name.p, name.n, version.p, version.n)
    if lane is not None and lane.is_accepting():
        return lane
    answer = frontend.handlers.refuse_infer(
        name.p[: name.n].decode("utf-8", "replace"),
        version.p[: version.n].decode("utf-8", "replace") if version.n else None,
    )
    refuse(err, answer[0], json.loads(answer[1])["error"])
    return None


cdef LaneClient find_tfs(Frontend frontend, const char* message, size_t n, InferError* err):
    """By name, and by version or label if there is one."""
    cdef LaneClient lane = None
    cdef bytes version
    cdef TfsModel model
    cdef char digits[24]
    cdef size_t digit_count = 0
    if tfs_predict_model(message, n, &model, err) < 0:
        return None
    if model.has_version:
        digit_count = snprintf(digits, sizeof(digits), "%lld", <long long>model.version)
    if model.label.n == 0:
        lane = frontend.find_lane(model.name.p, model.name.n, digits, digit_count)
        if lane is None and model.version == 0:
            # no such version: what OpenVINO Model Server's clients call the default one
            lane = frontend.find_lane(model.name.p, model.name.n, digits, 0)
    else:
        version = frontend.labels.get((model.name.p[:model.name.n], model.label.p[:model.label.n]))
        if version is not None:
            lane = frontend.find_lane(model.name.p, model.name.n, version, len(version))
    if lane is not None and lane.is_accepting():
        return lane
    name = model.name.p[:model.name.n].decode() if model.given else None
    http_status, text = frontend.handlers.grpc.tfs.refusal(
        name, model.version if model.has_version else None, model.label.p[:model.label.n].decode())
    refuse(err, http_status, text)
    return None


cdef int refuse(InferError* err, int http_status, str text) except 0:
    """What the handlers say about a model that has no lane, or none that accepts."""
    said = text.encode()
    return infer_fail(err, CODE_OF_HTTP.get(http_status, INFER_INTERNAL), "%.*s", <int>len(said), <const char*>said)


# ---- messages

cdef int grpc_submit(Frontend frontend, LaneClient lane, InferCall call, const char* message, size_t n,
                     int64_t timeout_ns, uint64_t now, InferError* err) except -2:
    cdef int code
    if call.form == GRPC_TFS_PREDICT:
        code = tfs_predict_index(message, n, lane.model, &lane.request, err)
    else:
        code = infer_wire_index(message, n, lane.model, &lane.request, err)
    if code >= 0 and lane.request.shared_count:
        call.regions = infer_shared_find(frontend.regions, &lane.request, lane.model, err)
        code = -1 if call.regions is None else 0
    if code < 0:
        lane.refused(REASON_INVALID)
    else:
        call.timeout_ns = timeout_ns if timeout_ns > 0 else -1
        code = lane.submit(call, now, err)
    if code < 0:
        call.responder = None
        return -1
    return 0


cdef int grpc_reply(Frontend frontend, InferCall call, OutBuf* b) noexcept:
    cdef LaneClient lane = call.lane
    if lane.reply_tensors(call) < 0:
        return -1
    if call.form == GRPC_TFS_PREDICT:
        return tfs_predict_reply(
            b, lane.model, lane.replies, call.request.n_outputs, frontend.has_tensor_content_replies)
    return infer_wire_reply(
        b, lane.model, &call.request, lane.replies, call.request.n_outputs, grpc_is_streamed(call.form))


cdef int grpc_refusal(int form, OutBuf* b, const InferError* err) noexcept nogil:
    cdef Span said, nobody
    said.p = <const char*>err.text
    said.n = err.n
    nobody.p = NULL
    nobody.n = 0
    return infer_wire_stream_error(b, said, nobody)
