"""Inference over REST: which protocol a path belongs to, how its body is read and how its reply is written.

What HTTP/1.1 and HTTP/2 connections share, and the one place that knows all REST inference protocols: KServe V2, and
TensorFlow Serving's predict call, which is KServe V1's too. It does not know framing, headers' syntax or sockets.
Bodies are borrowed until the call returns; what an index has to copy lies in the front end's scratch, which is kept up
to KEEP_GATHERED_BYTES. A worker's event loop thread only; O(bytes), and O(models) to find a lane. Nothing here is a
Python-level call.
"""

from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcmp

from server._fast.frontend cimport Frontend
from server._fast.http1_error cimport HTTP_ERR_INFERENCE_HEADER_LENGTH, http1_error_text
from server._fast.infer_call cimport InferCall, LaneClient
from server._fast.infer_json_index cimport infer_json_index, infer_raw_index
from server._fast.infer_json_reply cimport infer_json_reply
from server._fast.infer_shared cimport infer_shared_find
from server._fast.infer_spec cimport INFER_INTERNAL, INFER_INVALID_ARGUMENT, InferError, Span, infer_fail
from server._fast.outbuf cimport OutBuf, outbuf_free
from server._fast.stats cimport REASON_INVALID
from server._fast.tfs_json_explain cimport tfs_json_explain
from server._fast.tfs_json_index cimport tfs_json_index
from server._fast.tfs_json_reply cimport tfs_json_reply
from server._fast.tfs_path cimport tfs_name_is, tfs_predict_path

#: Scratch above this is given back as soon as the request is read.
cdef size_t KEEP_GATHERED_BYTES = 1 << 18


cdef LaneClient rest_find(Frontend frontend, const char* path, size_t n, int* form):
    form[0] = REST_V2
    if n >= 18 and memcmp(path, b"/v2/models/", 11) == 0:
        return find_v2(frontend, path, n)
    form[0] = REST_TFS
    return find_tfs(frontend, path, n)


cdef LaneClient find_v2(Frontend frontend, const char* path, size_t n):
    """The lane of /v2/models/NAME[/versions/VERSION]/infer, or None. n >= 18."""
    cdef const char* name = path + 11
    cdef const char* end = path + n - 6
    cdef const char* at = name
    cdef const char* version = NULL
    cdef size_t version_bytes = 0
    if memcmp(end, b"/infer", 6) != 0:
        return None
    while at < end and at[0] != c'/':
        at += 1
    if at < end:
        if end - at < 11 or memcmp(at, b"/versions/", 10) != 0:
            return None
        version = at + 10
        version_bytes = end - version
    return frontend.find_lane(name, at - name, version, version_bytes)


cdef LaneClient find_tfs(Frontend frontend, const char* path, size_t n):
    """The lane of /v1/models/NAME[/versions/VERSION | /labels/LABEL]:predict, or None.

    Version 0, unless there is one, is any: OpenVINO Model Server's clients so call the default version.
    """
    cdef Span name, version, label
    cdef LaneClient lane, found = None, other = None
    if tfs_predict_path(path, n, &name, &version, &label) < 0:
        return None
    if label.n:
        return find_labelled(frontend, name, label)
    for lane in frontend.lanes:
        if not tfs_name_is(name, lane.model.name):
            continue
        if version.n == 0 or tfs_name_is(version, lane.model.version):
            if lane.is_accepting():
                return lane
            if found is None:
                found = lane
        elif other is None or (lane.is_accepting() and not other.is_accepting()):
            other = lane
    if found is None and version.n == 1 and version.p[0] == c'0':
        return other
    return found


cdef LaneClient find_labelled(Frontend frontend, Span name, Span label):
    cdef Span known_name, known_label
    cdef bytes model, text, version
    for (model, text), version in frontend.labels.items():
        known_name.p = model
        known_name.n = len(model)
        known_label.p = text
        known_label.n = len(text)
        if tfs_name_is(name, known_name) and tfs_name_is(label, known_label):
            return frontend.find_lane(model, len(model), version, len(version))
    return None


cdef int rest_index(Frontend frontend, LaneClient lane, int* form, const char* body, size_t n, int64_t header_bytes,
                    InferError* err) noexcept nogil:
    cdef int code
    if form[0] != REST_V2:
        code = tfs_json_index(body, n, lane.model, &frontend.gathered, &lane.request, err)
        if code >= 0:
            form[0] = code
        return code
    if header_bytes == -2 or header_bytes > <int64_t>n:
        return infer_fail(err, INFER_INVALID_ARGUMENT, "%s", http1_error_text(HTTP_ERR_INFERENCE_HEADER_LENGTH))
    if header_bytes == 0:
        return infer_raw_index(body, n, lane.model, &lane.request, err)
    return infer_json_index(body, n if header_bytes < 0 else header_bytes, n, lane.model, &lane.request, err)


cdef int rest_submit(Frontend frontend, LaneClient lane, InferCall call, const char* body, size_t n,
                     int64_t header_bytes, uint64_t now, InferError* err) except -2:
    cdef int code = rest_index(frontend, lane, &call.form, body, n, header_bytes, err)
    if code >= 0 and lane.request.shared_count:
        call.regions = infer_shared_find(frontend.regions, &lane.request, lane.model, err)
        code = -1 if call.regions is None else 0
    if code < 0:
        lane.refused(REASON_INVALID)
    else:
        code = lane.submit(call, now, err)
        if code < 0 and call.form != REST_V2:
            tfs_json_explain(body, lane.model, &lane.request, call.form, err)
    if frontend.gathered.cap > KEEP_GATHERED_BYTES:
        outbuf_free(&frontend.gathered)
    if code < 0:
        call.responder = None
        return -1
    return 0


cdef int rest_reply(InferCall call, OutBuf* b, size_t* json_bytes, InferError* err) noexcept:
    cdef LaneClient lane = call.lane
    if lane.reply_tensors(call) == 0:
        if call.form != REST_V2:
            if tfs_json_reply(b, lane.model, lane.replies, call.request.n_outputs, call.form, err) < 0:
                return -1
            json_bytes[0] = b.len
            return 0
        return infer_json_reply(b, lane.model, &call.request, lane.replies, call.request.n_outputs, json_bytes, err)
    return infer_fail(err, INFER_INTERNAL, "out of memory for the reply")
