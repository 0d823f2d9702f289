"""What HTTP/2 streams ask for: gRPC inference on the fast path, other gRPC methods through the handlers, or REST.

It knows gRPC's message framing, compression and statuses; frames are below (h2_session), REST is beside (http2_rest),
what inference methods and their messages are is grpc_codec's, models are behind LaneClient. One connection, one event
loop thread. O(bytes); an inference allocates its stream and its call.
"""

from libc.stdint cimport uint64_t
from libc.string cimport memmove

from server._fast.content_coding cimport CODING_DONE, deflate_whole, inflate_whole
from server._fast.grpc_codec cimport (
    grpc_find,
    grpc_is_streamed,
    grpc_path,
    grpc_refusal,
    grpc_reply,
    grpc_submit,
)
from server._fast.grpc_text cimport grpc_status_of, percent_encode, put_prefix, read_prefix, set_prefix
from server._fast.h2_stream cimport (
    CODING_GZIP,
    CODING_IDENTITY,
    CODING_UNKNOWN,
    ROUTE_GRPC,
    ROUTE_GRPC_INFER,
    ROUTE_GRPC_STREAM_INFER,
    ROUTE_REST,
    TIMEOUT_INVALID,
    H2Stream,
    nv,
)
from server._fast.http2_rest cimport Http2Rest
from server._fast.infer_call cimport InferCall, LaneClient
from server._fast.infer_spec cimport INFER_DEADLINE, InferError
from server._fast.nghttp2 cimport nghttp2_nv
from server._fast.outbuf cimport OutBuf, outbuf_free, outbuf_write
from server._fast.spare_buffers cimport spare_take

cdef enum:
    PREFIX_BYTES = 5

#: gRPC statuses.
cdef int GRPC_OK = 0
cdef int GRPC_INVALID_ARGUMENT = 3
cdef int GRPC_DEADLINE_EXCEEDED = 4
cdef int GRPC_RESOURCE_EXHAUSTED = 8
cdef int GRPC_UNIMPLEMENTED = 12
cdef int GRPC_INTERNAL = 13
cdef int GRPC_UNAVAILABLE = 14


cdef class Http2Connection(Http2Rest):
    """gRPC and REST, both on every port but the one for metrics, which has no inference."""

    # -- requests

    cdef int on_request(self, H2Stream stream) except -1:
        if stream.is_grpc:
            if stream.route != ROUTE_GRPC_INFER:
                stream.route = ROUTE_GRPC_STREAM_INFER if grpc_is_streamed(stream.form) else ROUTE_GRPC
            if self.port != "http":
                return self.fail(stream, GRPC_UNIMPLEMENTED, b"this port serves metrics only")
            if stream.method is not None:
                return self.fail(stream, GRPC_INTERNAL, b"gRPC calls use the method POST")
            if stream.timeout_ns == TIMEOUT_INVALID:
                return self.fail(
                    stream, GRPC_INVALID_ARGUMENT, b"malformed grpc-timeout: expected 1 to 8 digits and a unit")
            if stream.timeout_ns == 0:
                return self.fail(stream, GRPC_DEADLINE_EXCEEDED, b"the deadline had passed when the call arrived")
            if stream.coding == CODING_UNKNOWN:
                return self.fail(
                    stream, GRPC_UNIMPLEMENTED, b"grpc-encoding is not supported: expected identity, gzip or deflate")
            if stream.route == ROUTE_GRPC and self.frontend.handlers.grpc.is_streaming(stream.path.decode("latin-1")):
                stream.task = self.frontend.handlers.grpc.open(
                    stream.path.decode("latin-1"), stream.headers or [], StreamReplies(self, stream.id))
            return 0
        if stream.route == ROUTE_GRPC_INFER:
            stream.path = grpc_path(stream.form)
        return self.begin_rest(stream)

    cdef int on_data(self, H2Stream stream) except -1:
        """Limits are checked as soon as five bytes say how long the message is."""
        cdef uint64_t length
        cdef bint is_compressed
        if stream.route == ROUTE_REST:
            return self.check_rest(stream)
        if stream.body.len - stream.body_used >= PREFIX_BYTES:
            read_prefix(stream.body.data + stream.body_used, &is_compressed, &length)
            if length > self.frontend.max_body_bytes:
                text = f"message of {length} bytes: the limit is {self.frontend.max_body_bytes}, see --max-body-bytes"
                return self.fail(stream, GRPC_RESOURCE_EXHAUSTED, text.encode())
            self.widen(stream, length)
        if self.frontend.held_bytes > self.frontend.max_held_bytes:
            return self.fail(stream, GRPC_RESOURCE_EXHAUSTED, b"too many unfinished requests, try again later")
        if stream.route == ROUTE_GRPC_STREAM_INFER:
            return self.next_in_stream(stream)
        if stream.task is not None:
            return self.answer_grpc(stream)
        return 0

    cdef int on_end(self, H2Stream stream) except -1:
        cdef const char* message = NULL
        cdef size_t n = 0
        cdef int code
        if stream.route == ROUTE_REST:
            return self.answer_rest(stream)
        if stream.route == ROUTE_GRPC_STREAM_INFER:
            return self.next_in_stream(stream)
        if stream.task is not None:
            return self.answer_grpc(stream)
        code = self.take_message(stream, &message, &n)
        if code < 0:
            return 0
        if code == 0 or n + PREFIX_BYTES != stream.body.len and stream.plain is None:
            return self.fail(
                stream, GRPC_INTERNAL,
                b"expected exactly one message in a unary call, got " + (b"none" if code == 0 else b"more"))
        if stream.route == ROUTE_GRPC_INFER:
            return self.infer(stream, message, n)
        return self.answer_grpc(stream)

    cdef int on_abort(self, H2Stream stream) except -1:
        task, stream.task = stream.task, None
        if task is not None:
            task.closed()
        return 0

    cdef int stop(self) except -1:
        cdef H2Stream stream
        Http2Rest.stop(self)
        for stream in list(self.streams.values()):
            if stream.route == ROUTE_GRPC_STREAM_INFER:
                # Its client may have nothing to ask for a long time, and never ends it.
                self.next_in_stream(stream)
        return 0

    cdef int on_drained(self, H2Stream stream) except -1:
        return self.next_in_stream(stream) if stream.route == ROUTE_GRPC_STREAM_INFER else self.answer_grpc(stream)

    cdef int take_message(self, H2Stream stream, const char** message, size_t* n) except -2:
        """The first message of the body: 1 and where it lies (decompressed in stream.plain), 0 it is not complete,
        -1 the stream failed."""
        cdef bint is_compressed
        cdef uint64_t length
        stream.plain = None
        if stream.body.len - stream.body_used < PREFIX_BYTES:
            return 0
        read_prefix(stream.body.data + stream.body_used, &is_compressed, &length)
        if stream.body.len - stream.body_used < PREFIX_BYTES + length:
            return 0
        message[0] = stream.body.data + stream.body_used + PREFIX_BYTES
        n[0] = length
        if not is_compressed:
            return 1
        if stream.coding == CODING_IDENTITY:
            self.fail(stream, GRPC_INTERNAL, b"the message is marked as compressed, but grpc-encoding is identity")
            return -1
        if self.unpack(stream, message[0], length) < 0:
            self.fail(stream, GRPC_INTERNAL, b"the compressed message cannot be read, or is larger than the limit")
            return -1
        message[0] = <const char*>stream.plain
        n[0] = len(stream.plain)
        return 1

    cdef int unpack(self, H2Stream stream, const char* p, size_t n) except -2:
        """Decompresses a message into stream.plain: 0, or -1 when it cannot be."""
        cdef OutBuf plain = OutBuf(NULL, 0, 0)
        try:
            if inflate_whole(p, n, stream.coding, &plain, self.frontend.max_body_bytes) != CODING_DONE:
                return -1
            stream.plain = plain.data[:plain.len]
            return 0
        finally:
            outbuf_free(&plain)

    cdef int pack(self, H2Stream stream, size_t at) except -1:
        """Compresses what lies in stream.reply from `at` on."""
        cdef OutBuf* b = &stream.reply
        cdef OutBuf packed = OutBuf(NULL, 0, 0)
        try:
            if deflate_whole(b.data + at, b.len - at, stream.coding, &packed) != CODING_DONE:
                raise MemoryError()
            b.len = at
            if outbuf_write(b, packed.data, packed.len) < 0:
                raise MemoryError()
            stream.is_reply_packed = True
            return 0
        finally:
            outbuf_free(&packed)

    cdef int drop_body(self, H2Stream stream, size_t n) except -1:
        """The first n bytes of the body are used up. Amortised O(n): only a lesser half is ever moved."""
        self.frontend.held_bytes -= n
        stream.body_used += n
        if 2 * stream.body_used >= stream.body.len:
            stream.body.len -= stream.body_used
            if stream.body.len:
                memmove(stream.body.data, stream.body.data + stream.body_used, stream.body.len)
            stream.body_used = 0
        return self.give_back(stream, n)

    # -- inference

    cdef int infer(self, H2Stream stream, const char* message, size_t n) except -1:
        """Reads an inference request and sets it in flight, or refuses it."""
        cdef InferError* error = &self.frontend.error
        cdef LaneClient lane = grpc_find(self.frontend, stream.form, message, n, error)
        cdef InferCall call
        if lane is None:
            return self.refuse_infer(stream, error)
        lane.make_room()
        if lane.admit_or_fail(stream.received_ns, stream.timeout_ns, self.frontend.lag_ns, error) < 0:
            self.frontend.refused_count += error.code != INFER_DEADLINE
            return self.refuse_infer(stream, error)
        call = InferCall.__new__(InferCall)
        call.responder = self
        call.tag = stream.id
        call.form = stream.form
        call.received_ns = stream.received_ns
        if grpc_submit(self.frontend, lane, call, message, n, stream.timeout_ns, self.active_ns, error) < 0:
            return self.refuse_infer(stream, error)
        stream.call = call
        if stream.route == ROUTE_GRPC_INFER:
            # Its rows are filled: the next request comes into the same bytes, which are still in the cache.
            self.frontend.held_bytes -= stream.give_body(&self.frontend.spares)
        return 0

    cdef int refuse_infer(self, H2Stream stream, const InferError* error) except -1:
        cdef size_t at
        if stream.route == ROUTE_GRPC_INFER or (b"triton_grpc_error", b"true") in (stream.headers or ()):
            self.pushback_s = error.retry_after_s
            return self.fail(stream, grpc_status_of(error.code), (<const char*>error.text)[:error.n])
        # one request of a stream: the stream goes on
        at = stream.reply.len
        if put_prefix(&stream.reply) < 0 or grpc_refusal(stream.form, &stream.reply, error) < 0:
            raise MemoryError()
        set_prefix(&stream.reply, at, 0)
        return self.start_grpc(stream)

    cdef int next_in_stream(self, H2Stream stream) except -1:
        """ModelStreamInfer: one call after the other, replies in order, to the end of the client's messages."""
        cdef const char* message = NULL
        cdef size_t n = 0, used
        cdef int code
        while stream.call is None and not stream.is_reply_complete:
            if self.hold_up(stream):
                return 0
            code = self.take_message(stream, &message, &n)
            if code < 0:
                return 0
            if code == 0:
                self.give_back(stream, stream.owed_bytes)
                if stream.got_end:
                    if stream.body.len:
                        return self.fail(stream, GRPC_INTERNAL, b"the stream ended inside a message")
                    stream.is_reply_complete = True
                    stream.grpc_status = GRPC_OK
                    return self.start_grpc(stream)
                if self.frontend.is_stopping and stream.body.len == stream.body_used:
                    return self.fail(stream, GRPC_UNAVAILABLE, b"the server is stopping")
                return 0
            used = PREFIX_BYTES + length_on_wire(stream)
            stream.received_ns = self.active_ns
            self.infer(stream, message, n)
            self.drop_body(stream, used)
        return 0

    cdef str protocol_of(self, InferCall call):
        cdef H2Stream stream = self.streams.get(call.tag)
        # A stream that its client has reset is not known any more.
        return "" if stream is None else "http" if stream.route == ROUTE_REST else "grpc"

    cdef int deliver(self, InferCall call) except -1:
        """A call is finished: its reply goes into its stream, while its rows can still be read."""
        cdef H2Stream stream = self.streams.get(call.tag)
        if stream is None:
            return 0
        stream.call = None
        if call.error != NULL and call.error.code == INFER_DEADLINE:
            self.charge(call)
        if stream.route == ROUTE_REST:
            return self.deliver_rest(stream, call)
        if call.error != NULL:
            self.refuse_infer(stream, call.error)
        else:
            self.reply_message(stream, call)
        if stream.route == ROUTE_GRPC_STREAM_INFER:
            return self.next_in_stream(stream)
        return 0

    cdef void broken(self) noexcept:
        try:
            self.drop()
        except Exception:
            self.transport = None

    cdef int reply_message(self, H2Stream stream, InferCall call) except -1:
        """Appends the reply of an inference, and starts or goes on sending."""
        cdef OutBuf* b = &stream.reply
        cdef size_t at = b.len
        spare_take(&self.frontend.spares, b)
        if put_prefix(b) < 0 or grpc_reply(self.frontend, call, b) < 0:
            return self.fail(stream, GRPC_RESOURCE_EXHAUSTED, b"out of memory for the reply")
        if stream.plain is not None:
            # The client compresses: so does the server, in the coding that both know.
            self.pack(stream, at + PREFIX_BYTES)
        set_prefix(b, at, stream.plain is not None)
        if stream.route == ROUTE_GRPC_INFER:
            stream.is_reply_complete = True
            stream.grpc_status = GRPC_OK
        return self.start_grpc(stream)

    cdef int start_grpc(self, H2Stream stream) except -1:
        """Sends the response's headers if they are not sent, and what stream.reply holds."""
        cdef nghttp2_nv headers[3]
        cdef size_t count = 2
        if stream.has_response:
            return self.more(stream)
        headers[0] = nv(b":status", 7, b"200", 3)
        headers[1] = nv(b"content-type", 12, b"application/grpc", 16)
        if stream.is_reply_packed:
            headers[2] = nv(b"grpc-encoding", 13, b"gzip" if stream.coding == CODING_GZIP else b"deflate",
                            4 if stream.coding == CODING_GZIP else 7)
            count = 3
        return self.respond(stream, headers, count)

    cdef int fail(self, H2Stream stream, int status, bytes text) except -1:
        """Ends a gRPC call with a status: in the headers if nothing was sent, else in the trailers."""
        cdef nghttp2_nv headers[6]
        cdef size_t count = 4
        cdef bytes pushback
        cdef int pushback_s = self.pushback_s
        self.pushback_s = 0
        if stream.is_reply_complete:
            return 0
        message = percent_encode(text)
        stream.is_reply_complete = True
        if stream.has_response:
            stream.grpc_status = status
            stream.grpc_message = message
            return self.more(stream)
        digits = str(status).encode()
        headers[0] = nv(b":status", 7, b"200", 3)
        headers[1] = nv(b"content-type", 12, b"application/grpc", 16)
        headers[2] = nv(b"grpc-status", 11, <const char*>digits, len(digits))
        headers[3] = nv(b"grpc-message", 12, <const char*>message, len(message))
        if stream.coding == CODING_UNKNOWN:
            headers[4] = nv(b"grpc-accept-encoding", 20, b"identity,gzip,deflate", 21)
            count = 5
        elif pushback_s:
            # What a gRPC client's retries wait for.
            pushback = b"%d" % (1000 * pushback_s)
            headers[4] = nv(b"grpc-retry-pushback-ms", 22, <const char*>pushback, len(pushback))
            count = 5
        stream.reply.len = 0
        return self.respond(stream, headers, count)

    # -- everything else

    cdef int answer_grpc(self, H2Stream stream) except -1:
        """Methods that Python answers: one message, or as many as a stream brings."""
        cdef const char* message = NULL
        cdef size_t n = 0
        cdef int code
        while not stream.is_reply_complete:
            if self.hold_up(stream):
                return 0
            code = self.take_message(stream, &message, &n)
            if code < 0:
                return 0
            if code == 0:
                self.give_back(stream, stream.owed_bytes)
                if stream.task is not None and stream.got_end:
                    stream.task.half_closed()
                return 0
            if stream.task is not None:
                payload = message[:n]
                self.drop_body(stream, PREFIX_BYTES + length_on_wire(stream))
                try:
                    stream.task.message(payload)
                except Exception:
                    # protobuf's DecodeError: only this stream is wrong, not its connection
                    return self.fail(stream, GRPC_INVALID_ARGUMENT, b"the message cannot be read")
                continue
            status, text, reply = self.frontend.handlers.grpc.unary(
                stream.path.decode("latin-1"), stream.headers or [], message[:n])
            if status:
                return self.fail(stream, status, text.encode())
            self.send_message(stream.id, reply, GRPC_OK)
        return 0

    def send_message(self, int stream_id, bytes message, int status):
        """Appends a message to a gRPC reply; status >= 0 also ends it. Nothing happens if the stream has gone."""
        cdef H2Stream stream = self.streams.get(stream_id)
        cdef size_t at
        if stream is None or stream.is_reply_complete:
            return
        if message is not None:
            at = stream.reply.len
            if put_prefix(&stream.reply) < 0 or outbuf_write(&stream.reply, <const char*>message, len(message)) < 0:
                raise MemoryError()
            set_prefix(&stream.reply, at, 0)
        if status >= 0:
            stream.is_reply_complete = True
            stream.grpc_status = status
        self.start_grpc(stream)

    def fail_stream(self, int stream_id, int status, str text):
        """Ends a gRPC call with a status other than OK."""
        cdef H2Stream stream = self.streams.get(stream_id)
        if stream is not None:
            self.fail(stream, status, text.encode())


cdef uint64_t length_on_wire(H2Stream stream) noexcept:
    """Of the first message of the body, which is complete."""
    cdef bint is_compressed
    cdef uint64_t length
    read_prefix(stream.body.data + stream.body_used, &is_compressed, &length)
    return length


cdef class StreamReplies:
    """What a Python handler of a streaming method answers through."""

    cdef Http2Connection connection
    cdef int stream_id

    def __cinit__(self, Http2Connection connection, int stream_id):
        self.connection = connection
        self.stream_id = stream_id

    def send(self, bytes message not None):
        """One message to the client."""
        self.connection.send_message(self.stream_id, message, -1)

    def finish(self, int status=0, str text=""):
        """Ends the call."""
        if status:
            self.connection.fail_stream(self.stream_id, status, text)
        else:
            self.connection.send_message(self.stream_id, None, 0)
