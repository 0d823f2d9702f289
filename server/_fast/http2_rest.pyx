"""REST over HTTP/2: the same routes, handlers and inferences as over HTTP/1.1.

It knows REST's headers and statuses; frames are below (h2_session), what inferences say is rest_codec's, everything
that is no inference the handlers'. One connection, one event loop thread. O(bytes); an inference allocates its stream
and its call.
"""

from libc.stdint cimport int64_t

from server._fast.h2_session cimport H2Session
from server._fast.h2_stream cimport (
    CODING_GZIP,
    CODING_IDENTITY,
    CODING_UNKNOWN,
    ROUTE_REST,
    H2Stream,
    nv,
)
from server._fast.infer_call cimport InferCall, LaneClient
from server._fast.infer_spec cimport InferError
from server._fast.nghttp2 cimport nghttp2_nv
from server._fast.outbuf cimport OutBuf, outbuf_write
from server._fast.rest_codec cimport rest_find, rest_reply, rest_submit
from server._fast.zlib_coding cimport zlib_inflate

cdef bytes JSON_CONTENT = b"application/json"
cdef bytes OCTET_CONTENT = b"application/octet-stream"
cdef bytes TOO_LARGE_BODY = b'{"error":"request body is larger than the limit of this server"}'
cdef bytes OVERLOADED_BODY = b'{"error":"too many unfinished requests, try again later"}'
cdef bytes BAD_CODING_BODY = b'{"error":"the content coding is unknown, or the body cannot be decoded"}'
cdef tuple RETRY_LATER = (("Retry-After", "1"),)


cdef class Http2Rest(H2Session):
    """The streams of a connection that are no gRPC calls."""

    cdef int begin_rest(self, H2Stream stream) except -1:
        stream.route = ROUTE_REST
        if stream.path is None:
            stream.path = b"/"
        return 0

    cdef int check_rest(self, H2Stream stream) except -1:
        if stream.body.len > self.frontend.max_body_bytes:
            return self.write_rest(stream, 413, JSON_CONTENT, TOO_LARGE_BODY, len(TOO_LARGE_BODY), -1, ())
        if self.frontend.held_bytes > self.frontend.max_held_bytes:
            return self.write_rest(stream, 503, JSON_CONTENT, OVERLOADED_BODY, len(OVERLOADED_BODY), -1, RETRY_LATER)
        return 0

    cdef int answer_rest(self, H2Stream stream) except -1:
        cdef LaneClient lane = None
        cdef InferCall call
        cdef InferError* error = &self.frontend.error
        cdef const char* body = stream.body.data
        cdef size_t n = stream.body.len
        cdef int form = 0
        path, _, query = stream.path.partition(b"?")
        method = "POST" if stream.method is None else stream.method.decode("latin-1")
        if method == "POST" and self.port == "http":
            lane = rest_find(self.frontend, <const char*>path, len(path), &form)
        if stream.coding != CODING_IDENTITY:
            if stream.coding != CODING_UNKNOWN:
                stream.plain = zlib_inflate(body[:n], stream.coding == CODING_GZIP, self.frontend.max_body_bytes)
            if stream.plain is None:
                return self.write_rest(stream, 415, JSON_CONTENT, BAD_CODING_BODY, len(BAD_CODING_BODY), -1, ())
            body = <const char*>stream.plain
            n = len(stream.plain)
        if lane is None or not lane.is_accepting():
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in stream.headers or ()}
            answer = self.frontend.handlers.handle(
                method, path.decode("latin-1"), query.decode("latin-1"), headers, body[:n] if n else b"", self.port)
            if len(answer) == 1:
                answer.begin(LateRestAnswer(self, stream.id))
                return 0
            return self.write_control(stream, answer)
        call = InferCall.__new__(InferCall)
        call.responder = self
        call.tag = stream.id
        call.form = form
        call.received_ns = stream.received_ns
        if rest_submit(self.frontend, lane, call, body, n, stream.json_bytes, self.active_ns, error) < 0:
            return self.refuse_rest(stream, error)
        stream.call = call
        return 0

    cdef int deliver_rest(self, H2Stream stream, InferCall call) except -1:
        if call.error != NULL:
            return self.refuse_rest(stream, call.error)
        return self.reply_rest(stream, call)

    cdef int reply_rest(self, H2Stream stream, InferCall call) except -1:
        cdef OutBuf* body = &self.frontend.body
        cdef size_t json_bytes = 0
        body.len = 0
        if rest_reply(call, body, &json_bytes, &self.frontend.error) < 0:
            return self.refuse_rest(stream, &self.frontend.error)
        if json_bytes == body.len:
            return self.write_rest(stream, 200, JSON_CONTENT, body.data, body.len, -1, ())
        return self.write_rest(stream, 200, OCTET_CONTENT, body.data, body.len, json_bytes, ())

    cdef int write_control(self, H2Stream stream, object answer) except -1:
        return self.write_rest(
            stream, answer[0], answer[2].encode("latin-1"), answer[1], len(answer[1]), -1, answer[3])

    cdef int refuse_rest(self, H2Stream stream, const InferError* error) except -1:
        text = (<const char*>error.text)[:error.n]
        answer = self.frontend.handlers.refusal(error.code, text.decode("utf-8", "replace"))
        return self.write_rest(stream, answer[0], JSON_CONTENT, answer[1], len(answer[1]), -1, answer[3])

    cdef int write_rest(self, H2Stream stream, int status, bytes content_type, const char* body, size_t n,
                        int64_t json_bytes, object extra) except -1:
        """The whole answer. json_bytes >= 0: how much of a body with binary tensors is JSON."""
        cdef nghttp2_nv headers[12]
        cdef size_t count = 3
        if stream.is_reply_complete:
            return 0
        code = str(status).encode()
        length = str(n).encode()
        json_length = str(json_bytes).encode()
        kept = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in extra[:8]]
        headers[0] = nv(b":status", 7, <const char*>code, len(code))
        headers[1] = nv(b"content-type", 12, <const char*>content_type, len(content_type))
        headers[2] = nv(b"content-length", 14, <const char*>length, len(length))
        if json_bytes >= 0:
            headers[3] = nv(b"inference-header-content-length", 31, <const char*>json_length, len(json_length))
            count = 4
        for name, value in kept:
            headers[count] = nv(<const char*>name, len(name), <const char*>value, len(value))
            count += 1
        if stream.method != b"HEAD" and outbuf_write(&stream.reply, body, n) < 0:
            raise MemoryError()
        stream.is_reply_complete = True
        return self.respond(stream, headers, count)


cdef class LateRestAnswer:
    """Where a handler that answers later puts its response."""

    cdef Http2Rest connection
    cdef int stream_id

    def __cinit__(self, Http2Rest connection, int stream_id):
        self.connection = connection
        self.stream_id = stream_id

    def __call__(self, answer):
        """The response; nothing happens if the stream has gone."""
        cdef H2Stream stream = self.connection.streams.get(self.stream_id)
        if stream is not None:
            self.connection.write_control(stream, answer)
