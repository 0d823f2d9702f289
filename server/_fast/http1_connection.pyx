"""An HTTP/1.1 connection of a worker: received bytes to requests, finished calls to replies, in the order of the
requests.

uvloop calls it as a BufferedProtocol: two Python-level calls for each receive, none for each header or request. It
knows framing and limits; what inferences say is rest_codec's, rows are behind LaneClient, everything that is
not an inference behind Frontend.handlers. A complete request is read where it was received, in the front end's shared
buffer; a partial one moves to memory of its own, bounded by the body limit and by the front end's limit for all
connections. Answers due in one loop turn leave in one write. One connection, one event loop thread; O(bytes).
"""

from cpython.buffer cimport PyBuffer_FillInfo
from libc.stdint cimport int64_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport strlen

from server._fast.admission cimport ADMIT, REFUSE_PAST
from server._fast.atomics cimport relaxed_add
from server._fast.clock cimport now_ns
from server._fast.content_coding cimport CODING_IDENTITY, CODING_NESTED, CODING_UNKNOWN, coding_of
from server._fast.cors cimport cors_find
from server._fast.frontend cimport SCRATCH_BYTES, Frontend
from server._fast.h2c_offer cimport h2c_headers, h2c_settings
from server._fast.http1 cimport (
    HTTP_CLOSE, HTTP_ERR_BODY_TOO_LARGE, HTTP_ERR_CODING_NESTED, HTTP_ERR_CONTENT_ENCODING, HTTP_ERR_HTTP2_PREFACE,
    HTTP_ERR_MEDIA_TYPE, HTTP_ERR_OVERLOADED, HTTP_ERR_TIMEOUT, HTTP_GET, HTTP_HEAD, HTTP_POST, HttpSpan,
    http1_error_status, http1_error_text, http1_parse_head, http1_reset,
)
from server._fast.http1_body cimport BODY_DONE, BODY_PAUSED, Http1Body
from server._fast.http1_input cimport (
    CLOSED, LINGER, READ_BODY, READ_CODED, READ_HEAD, READ_ROWS, SKIP_BODY, Http1Input, own_room,
)
from server._fast.http1_output cimport MAX_PIPELINED
from server._fast.http1_reply cimport http1_write_continue, http1_write_error
from server._fast.infer_call cimport InferCall
from server._fast.lane_admission cimport refusal_text
from server._fast.request_timeout cimport (
    REQUEST_TIMEOUT_INVALID,
    REQUEST_TIMEOUT_NONE,
    request_timeout_ns,
    request_timeout_text,
)
from server._fast.rest_codec cimport rest_find, rest_takes_type
from server._fast.slice_queue cimport SLICE_NS
from server._fast.stats cimport REASON_INVALID


cdef const char* RETRY_AFTER = b"Retry-After: 1\r\n"
#: Refused bodies up to this size are read and dropped, so that the connection can go on; longer ones end it.
cdef size_t MAX_SKIPPED_BYTES = 1 << 20
#: A lingering connection reads this much at most, for this long at most.
cdef size_t MAX_LINGER_BYTES = 1 << 20
cdef uint64_t LINGER_NS = 2000000000
#: What is read first where a long body may follow the head: the rest of it comes where it has to be.
cdef size_t FIRST_BULK_BYTES = 1 << 14
#: A body that has not come into its rows by then makes room for others.
cdef uint64_t ROWS_NS = 1000000000
#: The least rate of a body, bytes a second, after a grace of one head time-out.
cdef uint64_t MIN_BODY_RATE = 240
#: A receive so long after the last one, or after a pause, and no turn of the loop before it: the socket was empty.
cdef uint64_t FRESH_NS = 2000000


cdef class Http1Connection(Http1Input):
    """`port` is "http" or "metrics" and only passed on to the handlers."""

    def __cinit__(self, Frontend frontend not None, str port not None):
        http1_reset(&self.head)

    # -- what the transport calls

    def connection_made(self, transport):
        self.attach(transport)
        self.active_ns = now_ns()
        self.is_fresh = True
        self.frontend.peers.add(self)
        self.frontend.page.connections_open = len(self.frontend.peers)
        relaxed_add(&self.frontend.page.connections_total, 1)

    def connection_lost(self, exc):
        cdef InferCall call
        cdef int i
        self.drop_body()
        self.drop_rows()
        self.state = CLOSED
        self.fd = -1
        for i in range(MAX_PIPELINED):
            call = self.calls[i]
            if call is not None:
                self.calls[i] = None
                call.lane.cancel(call)
        self.drop_own()
        self.lane = None
        self.transport = None
        self.frontend.peer_gone(self)

    def eof_received(self):
        """The client sends nothing more but may still read: answers that are due go out, then the connection closes."""
        self.got_eof = True
        cdef bint is_sending = self.slot_count or self.out.len or self.is_spilled
        return is_sending or self.is_blocked or self.is_decoding

    def get_buffer(self, Py_ssize_t hint):
        return self

    def __getbuffer__(self, Py_buffer* view, int flags):
        cdef char* at = self.frontend.scratch
        cdef size_t n = SCRATCH_BYTES
        if self.state == READ_ROWS:
            at = self.rows.rows + self.rows.got_bytes
            n = self.rows.size_bytes - self.rows.got_bytes
        elif self.own_bytes:
            if self.own_capacity - self.own_bytes < 4096:
                # By what has come, not by what was announced: a promise of bytes must not use up what all may hold.
                self.keep(NULL, 0, max(self.own_capacity + SCRATCH_BYTES, min(self.need_bytes, 2 * self.own_capacity)))
            at = self.own + self.own_bytes
            n = self.own_capacity - self.own_bytes
        elif self.is_bulk and self.state == READ_HEAD:
            n = FIRST_BULK_BYTES
        self.asked_bytes = n
        PyBuffer_FillInfo(view, self, at, n, 0, flags)

    def buffer_updated(self, Py_ssize_t received):
        cdef const char* p = self.frontend.scratch
        cdef size_t n = received
        relaxed_add(&self.frontend.page.bytes_in_total, received)
        if not self.is_lingering:
            self.active_ns = now_ns()
        if self.state == READ_ROWS:
            self.rows.got_bytes += n
            if self.rows.got_bytes == self.rows.size_bytes:
                self.end_rows()
            return
        self.note_arrival(n)
        if self.own_bytes:
            self.own_bytes += n
            p = self.own
            n = self.own_bytes
        self.consume_all(p, n)

    cdef int note_arrival(self, size_t received) noexcept:
        """When what was just received came, at the earliest: requests' time runs while they wait in the socket, since
        reading was paused, or since the last receive did not empty it.
        """
        self.arrival_ns = self.active_ns
        # What waited is read in the next turn; what comes later has not waited.
        if self.backlog_ns and self.active_ns - self.resumed_ns < 2 * self.frontend.lag_ns + FRESH_NS:
            self.arrival_ns = self.backlog_ns
        self.backlog_ns = 0
        if received == self.asked_bytes:
            self.backlog_ns = self.arrival_ns
            self.resumed_ns = self.active_ns
        return 0

    # -- bytes to requests

    cdef int consume_all(self, const char* p, size_t n) except -1:
        """Reads requests out of p[0:n] and keeps what is left of it for later."""
        cdef size_t used = self.consume(p, n)
        if self.fd < 0:
            return 0
        if used == n:
            return self.drop_own()
        if self.state != READ_BODY:
            return self.keep(p + used, n - used, n - used)
        if p == self.frontend.scratch and self.begin_rows(p + used, n - used):
            return 0
        return self.keep(p + used, n - used, own_room(4 * (n - used), self.need_bytes))

    cdef Py_ssize_t consume(self, const char* p, size_t n) except -1:
        """Takes as many whole requests as there are, as far as answers may wait; how many bytes were used up."""
        cdef size_t used = 0
        cdef Py_ssize_t step
        while used < n:
            if self.state == READ_HEAD:
                if self.must_close:
                    # Behind the last request that is answered: read away, or closing would reset the connection.
                    self.must_linger = True
                    self.state = LINGER
                    continue
                if self.slot_count + self.unsent_count >= MAX_PIPELINED or self.is_spilled:
                    self.is_blocked = True
                    self.pause()
                    break
                step = self.read_head(p + used, n - used)
            elif self.state == READ_BODY:
                if n - used < self.need_bytes:
                    if self.frontend.held_bytes > self.frontend.max_held_bytes:
                        self.fail(HTTP_ERR_OVERLOADED)
                        return n
                    break
                step = self.need_bytes
                self.answer(p + used, p + used + self.head.head_bytes, self.need_bytes - self.head.head_bytes)
                self.next_request()
            elif self.state == READ_CODED:
                step = 0
                # A first slice is every request's right; what remains waits for its turn among all that wait.
                if self.body.was_paused and self.frontend.slices.waiting:
                    self.is_decoding = True
                    self.pause()
                else:
                    step = self.read_coded(p + used, n - used)
                if self.is_decoding:
                    self.frontend.slices.add(self.decode_more)
                    return used + step
            elif self.state == SKIP_BODY:
                step = min(self.need_bytes, n - used)
                self.need_bytes -= step
                self.body_bytes_seen += step
                if self.need_bytes == 0:
                    self.next_request()
            else:
                self.body_bytes_seen += n - used
                if self.state == LINGER and self.body_bytes_seen > MAX_LINGER_BYTES:
                    if self.is_lingering:
                        self.drop()
                    else:
                        self.pause()
                return n
            if step < 0:
                return used if step == -1 else n
            used += step
        return used

    cdef int next_request(self) except -1:
        self.lane = None
        self.request_ns = 0
        self.cors = 0
        self.need_bytes = 0
        self.body_bytes_seen = 0
        self.wants_continue = False
        http1_reset(&self.head)
        if self.state != LINGER and self.state != CLOSED:
            self.state = READ_HEAD
        return 0

    cdef Py_ssize_t read_head(self, const char* p, size_t n) except -2:
        """Parses a head: how many bytes are used up (0 when the body follows in the same place), -1 more is needed."""
        cdef int code = http1_parse_head(&self.head, p, n, &self.frontend.limits)
        if self.request_ns == 0:
            self.request_ns = self.arrival_ns
        if code == 0:
            return -1
        if code < 0:
            if code == -HTTP_ERR_HTTP2_PREFACE and self.is_fresh and self.frontend.http2 is not None:
                self.hand_over(self.frontend.http2(self.frontend, self.port), p, n)
            else:
                self.fail(-code)
            return n
        self.is_fresh = False
        relaxed_add(&self.frontend.page.requests_total, 1)
        if self.head.origin.off and self.frontend.cors_origins:
            self.cors = cors_find(self.frontend.cors_origins, p + self.head.origin.off, self.head.origin.len)
        if self.head.wants_h2c and self.upgrade(p, n):
            return n
        if self.begin_body(p, n) < 0:
            return n if self.state == LINGER else code
        if self.state == READ_CODED:
            # The body keeps a copy of the head.
            return self.head.head_bytes
        self.need_bytes = self.head.head_bytes + (self.head.content_length if self.head.content_length > 0 else 0)
        if n >= self.need_bytes:
            self.answer(p, p + self.head.head_bytes, self.need_bytes - self.head.head_bytes)
            n = self.need_bytes
            self.next_request()
            return n
        self.state = READ_BODY
        return 0

    cdef int hand_over(self, object successor, const char* p, size_t n) except -1:
        """Another protocol takes the transport and what was received."""
        transport, self.transport = self.transport, None
        self.fd = -1
        self.state = CLOSED
        self.frontend.peers.discard(self)
        transport.set_protocol(successor)
        successor.connection_made(transport)
        successor.receive(p[:n])
        return self.drop_own()

    cdef bint upgrade(self, const char* p, size_t n) except -1:
        """The client offers HTTP/2 (RFC 7540 section 3.2). Taken if nothing of HTTP/1.1 is left to do: no body to read,
        no earlier answer to write; else the request is answered as if nothing had been offered.
        """
        cdef HttpSpan offer
        if self.frontend.http2 is None or self.head.has_body or self.slot_count or self.out.len or self.is_spilled:
            return False
        if self.must_close or self.head.keep_alive == HTTP_CLOSE:
            return False
        offer = self.head.http2_settings
        settings = h2c_settings(p[offer.off:offer.off + offer.len])
        if settings is None:
            return False
        successor = self.frontend.http2(self.frontend, self.port)
        if not successor.upgrade(settings, h2c_headers(&self.head, p), self.head.method == HTTP_HEAD):
            return False
        self.hand_over(successor, p + self.head.head_bytes, n - self.head.head_bytes)
        successor.answer_upgraded()
        return True

    cdef int begin_body(self, const char* p, size_t n) except -2:
        """Decides from the head whether the body is wanted: 0, or -1 when the request was refused."""
        cdef uint64_t expected = self.head.content_length if self.head.content_length > 0 else 0
        cdef int coding = CODING_IDENTITY
        self.lane = None
        if self.head.method == HTTP_POST and self.port == "http":
            self.lane = rest_find(self.frontend, p + self.head.path.off, self.head.path.len, &self.form)
        if expected > self.frontend.max_body_bytes:
            self.fail(HTTP_ERR_BODY_TOO_LARGE)
            return -1
        if self.head.content_encoding.off:
            coding = coding_of(p + self.head.content_encoding.off, self.head.content_encoding.len)
            if coding == CODING_UNKNOWN:
                return self.refuse(HTTP_ERR_CONTENT_ENCODING, b"Accept-Encoding: gzip, deflate\r\n")
            if coding == CODING_NESTED:
                return self.refuse(HTTP_ERR_CODING_NESTED, NULL)
        if self.lane is not None:
            if not self.lane.is_accepting():
                self.lane = None
            elif self.read_timeout(p) < 0 or self.admit() < 0:
                return -1
            elif not rest_takes_type(self.form, p + self.head.content_type.off, self.head.content_type.len):
                self.lane.refused(REASON_INVALID)
                return self.refuse(HTTP_ERR_MEDIA_TYPE, NULL)
        if self.head.has_body and n < self.head.head_bytes + max(expected, <uint64_t>1):
            if self.frontend.held_bytes + expected > self.frontend.max_held_bytes:
                return self.refuse(HTTP_ERR_OVERLOADED, RETRY_AFTER)
            if self.head.expect_continue:
                self.wants_continue = True
                self.send_continue()
        if self.head.chunked or (coding != CODING_IDENTITY and expected):
            if self.body is None:
                self.body = Http1Body.__new__(Http1Body)
            self.body.begin(
                p, self.head.head_bytes, -1 if self.head.chunked else <int64_t>expected, coding,
                self.frontend.max_body_bytes)
            self.state = READ_CODED
        return 0

    cdef int read_timeout(self, const char* p) except -2:
        """X-Request-Timeout: 0, or -1 when it cannot be read and the request was refused."""
        self.timeout_ns = REQUEST_TIMEOUT_NONE
        if self.head.timeout.off:
            self.timeout_ns = request_timeout_ns(p + self.head.timeout.off, self.head.timeout.len)
            if self.timeout_ns == REQUEST_TIMEOUT_INVALID:
                self.lane.refused(REASON_INVALID)
                return self.refuse_head(400, request_timeout_text(), NULL)
        return 0

    cdef int admit(self) except -2:
        """Whether the request can be answered in time: 0, or -1 when it was refused. It costs a look and a write."""
        cdef int code
        cdef char line[32]
        self.lane.make_room()
        code = self.lane.admit(self.request_ns, self.timeout_ns, self.frontend.lag_ns)
        if code == ADMIT:
            return 0
        if code == REFUSE_PAST:
            # Says nothing about the lane's load, and anybody can ask for it.
            return self.refuse_head(504, refusal_text(code), NULL)
        self.frontend.refused_count += 1
        snprintf(line, sizeof(line), b"Retry-After: %d\r\n", self.lane.retry_after_s())
        return self.refuse_head(503, refusal_text(code), line)

    cdef int send_continue(self) except -1:
        """Asks for the body, as soon as no earlier answer is outstanding."""
        if self.wants_continue and self.slot_count == 0:
            self.wants_continue = False
            # The client may have waited for this: its time begins now.
            self.request_ns = now_ns()
            if http1_write_continue(&self.out) < 0:
                raise MemoryError()
            self.frontend.peer_due(self)
        return 0

    cdef Py_ssize_t read_coded(self, const char* p, size_t n) except -2:
        """Decodes p[0:n], as far as a slice goes; how many bytes were used up, all of them after an error."""
        cdef size_t used = 0
        cdef size_t held = self.body.held_bytes()
        cdef int code = self.body.feed(p, n, &used, now_ns() + SLICE_NS)
        self.body_bytes_seen += used
        self.frontend.held_bytes += self.body.held_bytes() - held
        if code < 0:
            self.fail(-code)
            return n
        if code == BODY_DONE:
            self.answer(
                self.body.decoded.data, self.body.decoded.data + self.head.head_bytes,
                self.body.decoded.len - self.head.head_bytes)
            self.drop_body()
            self.next_request()
        elif self.frontend.held_bytes > self.frontend.max_held_bytes:
            self.fail(HTTP_ERR_OVERLOADED)
            return n
        elif code == BODY_PAUSED:
            self.is_decoding = True
            self.pause()
        return used

    def decode_more(self):
        """A slice of a long body; whether there is more of it."""
        cdef Py_ssize_t used
        if self.fd < 0 or not self.is_decoding:
            return False
        self.is_decoding = False
        try:
            used = self.read_coded(self.own, self.own_bytes)
            if self.fd < 0:
                return False
            if not self.is_decoding:
                self.resume()
            if <size_t>used == self.own_bytes:
                self.drop_own()
            elif self.is_decoding:
                self.keep(self.own + used, self.own_bytes - used, self.own_bytes - used)
            else:
                self.consume_all(self.own + used, self.own_bytes - used)
        except Exception as error:
            self.frontend.peer_failed(self, error)
            return False
        return self.is_decoding

    cdef int drop_body(self) except -1:
        """Forgets the body that is being decoded or was just answered, if there is one."""
        if self.body is not None and self.body.is_open:
            self.frontend.held_bytes -= self.body.held_bytes()
            self.frontend.is_trim_due = True
            self.body.end()
            self.is_decoding = False
        return 0

    # -- refusals

    cdef int refuse(self, int error, const char* extra) except -2:
        """Refuses a request from its head with the words of a HttpError."""
        return self.refuse_head(http1_error_status(error), http1_error_text(error), extra)

    cdef int refuse_head(self, int status, const char* message, const char* extra) except -2:
        """Answers before the body is read; a short body is skipped, a long or chunked one ends the connection. -1."""
        cdef size_t rest = self.head.content_length if self.head.content_length > 0 else 0
        if self.head.chunked or rest > MAX_SKIPPED_BYTES or (self.head.expect_continue and rest):
            self.head.keep_alive = HTTP_CLOSE
            self.must_linger = True
        self.write_error(self.next_slot(), status, message, strlen(message), extra)
        if self.must_close and rest:
            self.must_linger = True
        if self.must_linger:
            self.state = LINGER
        elif rest:
            self.state = SKIP_BODY
            self.need_bytes = rest
        else:
            self.next_request()
        return -1

    cdef int fail(self, int error) except -1:
        """The request is broken, so where the next one starts is not certain: answers and closes."""
        cdef int slot
        relaxed_add(&self.frontend.page.protocol_errors_total, 1)
        self.drop_body()
        self.drop_rows()
        self.head.keep_alive = HTTP_CLOSE
        self.head.method = HTTP_GET
        slot = self.next_slot()
        if http1_write_error(self.slot_buffer(slot), error) < 0:
            raise MemoryError()
        self.must_close = True
        self.must_linger = True
        self.state = LINGER
        self.body_bytes_seen = 0
        return self.slot_done(slot)

    # -- answers to the socket

    cdef int end_turn(self) except -1:
        """Once per loop turn in which something became due: one write, then requests that had to wait."""
        if self.fd < 0:
            return 0
        self.flush()
        if self.fd < 0:
            return 0
        # What is spilled must be gone first: closing now would lose what waits behind it.
        if self.slot_count == 0 and self.out.len == 0 and not self.is_spilled:
            if self.must_close or (self.got_eof and not self.is_blocked and not self.is_decoding):
                return self.begin_close()
            self.send_continue()
            self.flush()
        if self.is_blocked and self.slot_count < MAX_PIPELINED and not self.is_spilled:
            self.is_blocked = False
            self.resume()
            if self.own_bytes:
                self.consume_all(self.own, self.own_bytes)
        return 0

    cdef int begin_close(self) except -1:
        """All answers are written: closes, after a while of reading if bytes may still come that nobody wants."""
        if not self.must_linger or self.got_eof:
            self.transport.close()
        elif not self.is_lingering:
            # close() with unread bytes would reset the connection and could take the answer with it
            self.is_lingering = True
            self.active_ns = now_ns()
            self.transport.write_eof()
            self.resume()
        return 0

    cdef int pause(self) except -1:
        if not self.is_paused:
            self.is_paused = True
            if self.backlog_ns == 0:
                self.backlog_ns = now_ns()
            self.transport.pause_reading()
        return 0

    cdef int resume(self) except -1:
        if self.is_paused and not self.got_eof:
            self.is_paused = False
            self.resumed_ns = now_ns()
            self.transport.resume_reading()
        return 0

    # -- time and the end

    cdef int check_time(self, uint64_t now) except -1:
        """Once a second: what a client owes and does not send ends the connection."""
        cdef uint64_t age
        if self.fd < 0:
            return 0
        if self.state == READ_ROWS and now - self.rows.begun_ns > ROWS_NS:
            self.copy_rows()
        if self.is_lingering:
            if now - self.active_ns > LINGER_NS:
                self.drop()
            return 0
        if self.is_spilled:
            left = self.transport.get_write_buffer_size()
            if left != self.spilled_bytes:
                self.spilled_bytes = left
                self.active_ns = now
            elif now - self.active_ns > self.frontend.send_timeout_ns:
                self.drop()
            return 0
        if self.slot_count or self.is_decoding or self.state == LINGER:
            self.active_ns = now
            return 0
        if self.request_ns == 0:
            if now - self.active_ns > self.frontend.idle_timeout_ns:
                self.transport.close()
            return 0
        age = now - self.request_ns
        if age <= self.frontend.head_timeout_ns:
            return 0
        if self.state == READ_HEAD:
            return self.fail(HTTP_ERR_TIMEOUT)
        if self.received_of_request() * 1000000000 < (age - self.frontend.head_timeout_ns) * MIN_BODY_RATE:
            if self.state != SKIP_BODY:
                return self.fail(HTTP_ERR_TIMEOUT)
            # It was refused and has its answer: another one would be taken for the next request's.
            self.transport.close()
        return 0

    cdef uint64_t received_of_request(self) noexcept:
        if self.state == READ_ROWS:
            return self.own_bytes + self.rows.got_bytes
        return self.own_bytes if self.state == READ_BODY else self.body_bytes_seen

    cdef int stop(self) except -1:
        """The server stops: closes now if nothing is being read or answered, else after the last answer."""
        if self.fd < 0:
            return 0
        if self.slot_count or self.out.len or self.is_spilled:
            self.must_close = True
        elif self.request_ns == 0 or self.frontend.control.header.stopping > 1:
            self.transport.close()
        return 0
