"""REST over HTTP/2: the same routes, handlers and inferences as over HTTP/1.1.

It knows REST's headers and statuses; frames are below (h2_session), what inferences say is rest_codec's, everything
that is no inference the handlers'. One connection, one event loop thread. O(bytes); an inference allocates its stream
and its call.
"""

from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memset, strchr, strlen

from server._fast.clock cimport now_ns
from server._fast.content_coding cimport (
    CODING_DAMAGED,
    CODING_DONE,
    CODING_IDENTITY,
    CODING_MORE,
    CODING_NESTED,
    CODING_NO_MEMORY,
    CODING_PAUSED,
    CODING_UNKNOWN,
    coding_name,
    inflate_begin,
    inflate_end,
    inflate_some,
)
from server._fast.cors cimport cors_fields, cors_find, cors_preflight_fields
from server._fast.h2_frames cimport h2_frames_open
from server._fast.h2_session cimport H2Session
from server._fast.h2_stream cimport ROUTE_REST, TIMEOUT_NONE, H2Stream, nv
from server._fast.http1_error cimport (
    HTTP_ERR_BODY_TOO_LARGE,
    HTTP_ERR_CODED_BODY,
    HTTP_ERR_CODING_NESTED,
    HTTP_ERR_CONTENT_ENCODING,
    http1_error_status,
    http1_error_text,
)
from server._fast.infer_call cimport InferCall, LaneClient
from server._fast.infer_spec cimport INFER_DEADLINE, INFER_INVALID_ARGUMENT, InferError, infer_fail
from server._fast.nghttp2 cimport nghttp2_nv, nghttp2_session_get_outbound_queue_size, nghttp2_session_upgrade2
from server._fast.outbuf cimport OutBuf, outbuf_free, outbuf_write
from server._fast.reply_packing cimport MIN_PACKED_BYTES, Packing
from server._fast.request_timeout cimport REQUEST_TIMEOUT_INVALID, REQUEST_TIMEOUT_NONE, request_timeout_text
from server._fast.rest_codec cimport rest_find, rest_reply, rest_submit
from server._fast.slice_queue cimport SLICE_NS
from server._fast.stats cimport REASON_INVALID

cdef const char* SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
cdef bytes JSON_CONTENT = b"application/json"
cdef bytes OCTET_CONTENT = b"application/octet-stream"
cdef bytes TOO_LARGE_BODY = b'{"error":"request body is larger than the limit of this server, see --max-body-bytes"}'
cdef bytes OVERLOADED_BODY = b'{"error":"too many unfinished requests, try again later"}'
cdef tuple RETRY_LATER = (("Retry-After", "1"),)
cdef tuple ACCEPTED_CODINGS = (("Accept-Encoding", "gzip, deflate"),)


cdef class Http2Rest(H2Session):
    """The streams of a connection that are no gRPC calls."""

    def __cinit__(self):
        h2_frames_open(self)

    def upgrade(self, bytes settings not None, list headers not None, bint is_head):
        cdef H2Stream stream
        cdef size_t queued = nghttp2_session_get_outbound_queue_size(self.session)
        if nghttp2_session_upgrade2(
            self.session, <const uint8_t*><const char*>settings, len(settings), is_head, NULL
        ) != 0 or nghttp2_session_get_outbound_queue_size(self.session) != queued:
            # Settings that a frame may not have queue a GOAWAY: the client is better off where it is.
            return False
        stream = H2Stream.__new__(H2Stream)
        stream.id = 1
        self.skipped.last = 1
        stream.timeout_ns = TIMEOUT_NONE
        stream.rest_timeout_ns = REQUEST_TIMEOUT_NONE
        stream.json_bytes = -1
        stream.grpc_status = -1
        stream.received_ns = now_ns()
        for name, value in headers:
            stream.header(<const char*>name, len(name), <const char*>value, len(value))
        self.streams[1] = stream
        outbuf_write(&self.out, SWITCHING, strlen(SWITCHING))
        return True

    def answer_upgraded(self):
        cdef H2Stream stream = self.streams.get(1)
        if stream is None or self.fd < 0:
            return
        self.on_request(stream)
        stream.got_end = True
        if not stream.is_reply_complete:
            self.on_end(stream)

    cdef int begin_rest(self, H2Stream stream) except -1:
        stream.route = ROUTE_REST
        if stream.path is None:
            stream.path = b"/"
        if stream.method is None and self.port == "http":
            return self.admit_rest(stream)
        return 0

    cdef int admit_rest(self, H2Stream stream) except -1:
        """An inference that cannot be answered in time is refused before its body comes."""
        cdef InferError* error = &self.frontend.error
        cdef const char* path = stream.path
        cdef const char* end = strchr(path, c'?')
        cdef int form = 0
        cdef LaneClient lane = rest_find(
            self.frontend, path, end - path if end != NULL else <size_t>len(stream.path), &form)
        if lane is None or not lane.is_accepting():
            return 0
        if stream.rest_timeout_ns == REQUEST_TIMEOUT_INVALID:
            lane.refused(REASON_INVALID)
            infer_fail(error, INFER_INVALID_ARGUMENT, "%s", request_timeout_text())
            return self.refuse_rest(stream, error)
        lane.make_room()
        if lane.admit_or_fail(stream.received_ns, stream.rest_timeout_ns, self.frontend.lag_ns, error) < 0:
            self.frontend.refused_count += error.code != INFER_DEADLINE
            return self.refuse_rest(stream, error)
        return 0

    cdef int check_rest(self, H2Stream stream) except -1:
        if stream.body.len > self.frontend.max_body_bytes:
            return self.write_rest(stream, 413, JSON_CONTENT, TOO_LARGE_BODY, len(TOO_LARGE_BODY), -1, ())
        if self.frontend.held_bytes > self.frontend.max_held_bytes:
            return self.write_rest(stream, 503, JSON_CONTENT, OVERLOADED_BODY, len(OVERLOADED_BODY), -1, RETRY_LATER)
        return 0

    cdef int answer_rest(self, H2Stream stream) except -1:
        cdef RestUnpacking unpacking
        cdef int code
        if stream.content_coding == CODING_IDENTITY or stream.body.len == 0:
            return self.answer_plain(stream)
        if stream.content_coding == CODING_UNKNOWN:
            return self.refuse_body(stream, HTTP_ERR_CONTENT_ENCODING)
        if stream.content_coding == CODING_NESTED:
            return self.refuse_body(stream, HTTP_ERR_CODING_NESTED)
        unpacking = RestUnpacking.__new__(RestUnpacking)
        unpacking.connection = self
        unpacking.stream = stream
        if inflate_begin(&unpacking.inflater, stream.content_coding) < 0:
            raise MemoryError()
        code = unpacking.inflate()
        if code != CODING_PAUSED:
            return unpacking.finish(code)
        stream.is_working = True
        return self.frontend.slices.add(unpacking.go_on)

    cdef int answer_plain(self, H2Stream stream) except -1:
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
        if method == "OPTIONS" and self.cors_of(stream):
            return self.write_rest(stream, 200, JSON_CONTENT, NULL, 0, -1, cors_preflight_fields())
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
        call.timeout_ns = stream.rest_timeout_ns
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
        cdef RestPacking packing
        body.len = 0
        if rest_reply(call, body, &json_bytes, &self.frontend.error) < 0:
            return self.refuse_rest(stream, &self.frontend.error)
        if stream.accepted_coding != CODING_IDENTITY and body.len >= MIN_PACKED_BYTES:
            packing = RestPacking.__new__(RestPacking)
            packing.connection = self
            packing.stream = stream
            packing.json_bytes = -1 if json_bytes == body.len else json_bytes
            stream.is_working = True
            return packing.pack(body, stream.accepted_coding, self.frontend.slices)
        if json_bytes == body.len:
            return self.write_rest(stream, 200, JSON_CONTENT, body.data, body.len, -1, ())
        return self.write_rest(stream, 200, OCTET_CONTENT, body.data, body.len, json_bytes, ())

    cdef int write_control(self, H2Stream stream, object answer) except -1:
        return self.write_rest(
            stream, answer[0], answer[2].encode("latin-1"), answer[1], len(answer[1]), -1, answer[3])

    cdef int refuse_rest(self, H2Stream stream, const InferError* error) except -1:
        text = (<const char*>error.text)[:error.n]
        answer = self.frontend.handlers.refusal(error.code, text.decode("utf-8", "replace"))
        extra = (("Retry-After", str(error.retry_after_s)),) if error.retry_after_s else answer[3]
        return self.write_rest(stream, answer[0], JSON_CONTENT, answer[1], len(answer[1]), -1, extra)

    cdef int refuse_body(self, H2Stream stream, int error) except -1:
        """The body cannot be read: in the words of a HttpError."""
        body = b'{"error":"' + http1_error_text(error) + b'"}'
        extra = ACCEPTED_CODINGS if error == HTTP_ERR_CONTENT_ENCODING else ()
        return self.write_rest(stream, http1_error_status(error), JSON_CONTENT, body, len(body), -1, extra)

    cdef int cors_of(self, H2Stream stream) except -1:
        """1 + index of the request's origin, if that may call this server; else 0."""
        if self.frontend.cors_origins:
            for name, value in stream.headers or ():
                if name == b"origin":
                    return cors_find(self.frontend.cors_origins, <const char*>value, len(value))
        return 0

    cdef int write_rest(self, H2Stream stream, int status, bytes content_type, const char* body, size_t n,
                        int64_t json_bytes, tuple extra) except -1:
        """The whole answer. json_bytes >= 0: how much of a body with binary tensors is JSON."""
        cdef nghttp2_nv headers[12]
        cdef size_t count = 3
        cdef int cors = self.cors_of(stream)
        if stream.is_reply_complete:
            return 0
        if cors:
            extra += cors_fields(self.frontend.cors_origins[cors - 1])
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
        if stream.method != b"HEAD" and n and outbuf_write(&stream.reply, body, n) < 0:
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


cdef class RestPacking(Packing):
    """A reply that is being compressed, and the stream that waits for it."""

    cdef bint is_wanted(self) noexcept:
        return self.connection.fd >= 0 and not self.stream.is_reply_complete

    cdef int finish(self) except -1:
        content_type = JSON_CONTENT if self.json_bytes < 0 else OCTET_CONTENT
        coding = (<bytes>coding_name(self.coding)).decode()
        self.stream.is_working = False
        self.connection.frontend.is_trim_due = True
        # The length of the JSON part counts what the client reads, not what is sent.
        return self.connection.write_rest(
            self.stream, 200, content_type, self.packed.data, self.packed.len, self.json_bytes,
            (("Content-Encoding", coding), ("Vary", "Accept-Encoding")))

    cdef int failed(self, object error) except -1:
        return self.connection.frontend.peer_failed(self.connection, error)


cdef class RestUnpacking:
    """A request's body that is being inflated, and the stream that it belongs to."""

    def __cinit__(self):
        memset(&self.inflater, 0, sizeof(self.inflater))

    def __dealloc__(self):
        inflate_end(&self.inflater)
        outbuf_free(&self.plain)

    cdef int inflate(self) except? -1000:
        cdef H2Stream stream = self.stream
        cdef size_t used = 0
        cdef size_t before = self.plain.len
        cdef int code = inflate_some(
            &self.inflater, stream.body.data + self.used, stream.body.len - self.used, &used, &self.plain,
            self.connection.frontend.max_body_bytes, now_ns() + SLICE_NS)
        self.used += used
        self.connection.frontend.held_bytes += self.plain.len - before
        return code

    def go_on(self):
        """A slice; whether there is more of it."""
        cdef int code = CODING_MORE
        try:
            if self.connection.fd >= 0 and not self.stream.is_reply_complete:
                code = self.inflate()
                if code == CODING_PAUSED:
                    self.connection.check_rest(self.stream)
                    if not self.stream.is_reply_complete:
                        return True
            self.finish(code)
        except Exception as error:
            self.connection.frontend.peer_failed(self.connection, error)
        return False

    cdef int finish(self, int code) except -1:
        cdef H2Stream stream = self.stream
        stream.is_working = False
        self.connection.frontend.held_bytes -= self.plain.len
        if self.connection.fd < 0 or stream.is_reply_complete:
            return 0
        if code == CODING_NO_MEMORY:
            raise MemoryError()
        if code == CODING_DONE:
            self.connection.frontend.held_bytes += self.plain.len - stream.body.len
            outbuf_free(&stream.body)
            stream.body = self.plain
            self.plain = OutBuf(NULL, 0, 0)
            return self.connection.answer_plain(stream)
        return self.connection.refuse_body(
            stream, HTTP_ERR_CODED_BODY if code == CODING_MORE or code == CODING_DAMAGED else HTTP_ERR_BODY_TOO_LARGE)
