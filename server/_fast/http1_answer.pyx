"""What an HTTP/1.1 connection answers: requests to calls, finished calls to replies, everything else to the handlers.

What inferences say is rest_codec's, rows are behind LaneClient, everything that is not an inference behind
Frontend.handlers. It does not know how requests are read nor when bytes are sent. Replies are compressed if the client
asks for it, a slice in each turn of the loop. One connection, one event loop thread; O(bytes).
"""

from libc.stdint cimport int64_t
from libc.string cimport memcmp, strlen

from server._fast.content_coding cimport CODING_GZIP, coding_chosen
from server._fast.cors cimport cors_preflight_fields, field_lines
from server._fast.frontend cimport Frontend
from server._fast.http1 cimport HTTP_GET, HTTP_HEAD, HTTP_OPTIONS, HttpSpan
from server._fast.http1_output cimport MAX_PIPELINED
from server._fast.http1_reply cimport HTTP_CONTENT_JSON, HTTP_CONTENT_NONE, HTTP_CONTENT_OCTET
from server._fast.infer_call cimport InferCall
from server._fast.infer_spec cimport InferError
from server._fast.outbuf cimport outbuf_free
from server._fast.reply_packing cimport MIN_PACKED_BYTES, Packing
from server._fast.rest_codec cimport rest_find, rest_reply, rest_submit


cdef const char* LIVE_PATH = b"/v2/health/live"
cdef const char* LIVE_BODY = b'{"live":true}'
cdef const char* GZIP_LINES = b"Content-Encoding: gzip\r\nVary: Accept-Encoding\r\n"
cdef const char* DEFLATE_LINES = b"Content-Encoding: deflate\r\nVary: Accept-Encoding\r\n"
#: A formatting buffer above this is given back.
cdef size_t KEEP_BODY_BYTES = 1 << 22
#: Methods by HttpMethod, for the handlers.
cdef tuple METHODS = ("", "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")


cdef class Http1Answer(Http1Output):
    """Base of Http1Connection. `port` is "http" or "metrics" and only passed on to the handlers."""

    def __cinit__(self, Frontend frontend not None, str port not None):
        self.port = port
        self.calls = [None] * MAX_PIPELINED

    cdef int answer(self, const char* p, const char* body, size_t n) except -1:
        cdef bytes lines
        if self.lane is not None and self.lane.is_retired:
            # It was replaced while the body came.
            self.lane = rest_find(self.frontend, p + self.head.path.off, self.head.path.len, &self.form)
        if self.lane is not None:
            return self.answer_inference(p, body, n)
        if (
            self.head.path.len == 15
            and self.head.method == HTTP_GET
            and memcmp(p + self.head.path.off, LIVE_PATH, 15) == 0
        ):
            return self.write_reply(self.next_slot(), 200, HTTP_CONTENT_JSON, LIVE_BODY, 13, -1, NULL, 0)
        if self.head.method == HTTP_OPTIONS and self.cors:
            lines = field_lines(cors_preflight_fields())
            return self.write_reply(
                self.next_slot(), 200, HTTP_CONTENT_NONE, NULL, 0, -1, <const char*>lines, len(lines))
        return self.answer_control(p, body, n)

    cdef int next_slot(self) except -1:
        cdef int slot = self.take_slot(self.head.keep_alive, self.head.method == HTTP_HEAD)
        self.slots[slot].cors = self.cors
        return slot

    cdef int answer_inference(self, const char* p, const char* body, size_t n) except -1:
        cdef InferError* error = &self.frontend.error
        cdef InferCall call = InferCall.__new__(InferCall)
        call.responder = self
        call.tag = self.next_slot()
        call.form = self.form
        call.received_ns = self.active_ns
        call.arrived_ns = self.request_ns
        call.timeout_ns = self.timeout_ns
        if self.head.accept_encoding.off:
            self.slots[call.tag].coding = coding_chosen(
                p + self.head.accept_encoding.off, self.head.accept_encoding.len)
        if rest_submit(
            self.frontend, self.lane, call, body, n, self.head.inference_header_length, self.active_ns, error
        ) < 0:
            return self.write_refusal(call.tag, error)
        self.calls[call.tag] = call
        return 0

    cdef int answer_control(self, const char* p, const char* body, size_t n) except -1:
        """Everything that is not an inference that may run: Python answers, at once."""
        cdef int slot = self.next_slot()
        headers = {}
        if self.head.accept.off:
            headers["accept"] = text(p, self.head.accept)
        path = text(p, self.head.path) or "/"
        response = self.frontend.handlers.handle(
            METHODS[self.head.method], path, text(p, self.head.query), headers, body[:n], self.port
        )
        if len(response) == 1:
            response.begin(LateAnswer(self, slot))
            return 0
        return self.write_control(slot, response)

    cdef int write_control(self, int slot, object response) except -1:
        cdef bytes extra, content
        status, content, content_type, extra_headers = response
        lines = [f"Content-Type: {content_type}\r\n"] if content_type else []
        lines += [f"{name}: {value}\r\n" for name, value in extra_headers]
        extra = "".join(lines).encode("latin-1")
        self.write_reply(slot, status, HTTP_CONTENT_NONE, content, len(content), -1, extra, len(extra))
        # One in a loop turn: some of these cost a millisecond for 33 bytes, and others wait for this thread too.
        self.unsent_count = MAX_PIPELINED
        return 0

    cdef void broken(self) noexcept:
        """An answer could not be written for want of memory: the connection cannot go on."""
        try:
            self.drop()
        except Exception:
            self.transport = None

    cdef str protocol_of(self, InferCall call):
        return "http"

    cdef int deliver(self, InferCall call) except -1:
        """A call is finished: formats its reply. The rows it is read from are freed when this returns."""
        cdef Frontend f = self.frontend
        cdef size_t json_bytes = 0
        cdef int slot = call.tag
        cdef int content_type = HTTP_CONTENT_JSON
        cdef int64_t announced = -1
        cdef Http1Packing packing
        self.calls[slot] = None
        if call.error != NULL:
            return self.write_refusal(slot, call.error)
        f.body.len = 0
        if rest_reply(call, &f.body, &json_bytes, &f.error) < 0:
            return self.write_refusal(slot, &f.error)
        if json_bytes != f.body.len:
            content_type = HTTP_CONTENT_OCTET
            announced = json_bytes
        if self.slots[slot].coding and f.body.len >= MIN_PACKED_BYTES:
            packing = Http1Packing.__new__(Http1Packing)
            packing.connection = self
            packing.slot = slot
            packing.content_type = content_type
            packing.json_bytes = announced
            packing.pack(&f.body, self.slots[slot].coding, f.slices)
        else:
            self.write_reply(slot, 200, content_type, f.body.data, f.body.len, announced, NULL, 0)
        if f.body.cap > KEEP_BODY_BYTES:
            outbuf_free(&f.body)
        return 0


cdef class Http1Packing(Packing):
    """A reply that is being compressed, and the slot that waits for it."""

    cdef bint is_wanted(self) noexcept:
        return self.connection.fd >= 0

    cdef int finish(self) except -1:
        cdef const char* lines = GZIP_LINES if self.coding == CODING_GZIP else DEFLATE_LINES
        self.connection.frontend.is_trim_due = True
        # The length of the JSON part counts what the client reads, not what is sent.
        return self.connection.write_reply(
            self.slot, 200, self.content_type, self.packed.data, self.packed.len, self.json_bytes, lines, strlen(lines))

    cdef int failed(self, object error) except -1:
        return self.connection.frontend.peer_failed(self.connection, error)


cdef class LateAnswer:
    """Where a handler that answers later puts its response."""

    cdef Http1Answer connection
    cdef int slot

    def __cinit__(self, Http1Answer connection, int slot):
        self.connection = connection
        self.slot = slot

    def __call__(self, response):
        """The response; nothing happens if the connection has gone."""
        if self.connection.fd >= 0:
            self.connection.write_control(self.slot, response)


cdef str text(const char* p, HttpSpan span):
    return p[span.off:span.off + span.len].decode("latin-1")
