"""The framing half of an HTTP/2 connection: libnghttp2 on a uvloop transport, with the limits that libnghttp2 lacks.

It knows streams, windows and budgets; gRPC and REST are above it, and h2_frames, which opens nghttp2's session, tells
it of the frames that came. What they make due leaves in one write at the end of the loop turn. Work is charged to its
connection until it is done: a reset stream whose rows still run counts as open. One connection, one event loop thread.
O(bytes).
"""

from cpython.buffer cimport PyBuffer_FillInfo
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

from server._fast.atomics cimport relaxed_add, word_load
from server._fast.clock cimport now_ns
from server._fast.frontend cimport SCRATCH_BYTES, Frontend
from server._fast.h2_budget cimport bucket_fill, bucket_take
from server._fast.h2_keepalive cimport age_begin, age_is_grace_over, age_is_over, pings_take
from server._fast.h2_stream cimport ROUTE_GRPC_STREAM_INFER, H2Stream, read_reply
from server._fast.infer_call cimport InferCall
from server._fast.nghttp2 cimport (
    NGHTTP2_CANCEL, NGHTTP2_ENHANCE_YOUR_CALM, NGHTTP2_ERR_BAD_CLIENT_MAGIC, NGHTTP2_FLAG_NONE, NGHTTP2_INTERNAL_ERROR,
    NGHTTP2_NO_ERROR, nghttp2_data_provider, nghttp2_nv, nghttp2_session_consume_stream, nghttp2_session_del,
    nghttp2_session_get_last_proc_stream_id, nghttp2_session_get_outbound_queue_size, nghttp2_session_mem_recv,
    nghttp2_session_mem_send, nghttp2_session_resume_data, nghttp2_session_set_local_window_size,
    nghttp2_session_want_read, nghttp2_session_want_write, nghttp2_submit_goaway, nghttp2_submit_response,
    nghttp2_submit_rst_stream, nghttp2_submit_shutdown_notice,
)
from server._fast.outbuf cimport outbuf_free, outbuf_write
from server._fast.slab_ring cimport ROW_FREE, row_at, row_state, word_generation
from server._fast.spare_buffers cimport spare_give, spare_reserve

#: Resets, by either side: a burst, and then so many a second. So that it is always this budget that ends a flood, with
#: its own code, the burst is smaller than the one of nghttp2 (1000, filled up by the second) by more than two seconds
#: bring.
cdef double RESET_BURST = 900.0
cdef double RESETS_PER_S = 33.0
#: Resets that one turn of the loop takes from a connection, and how much of what was received is looked at first.
cdef int RESETS_A_TURN = 32
cdef size_t FIRST_PIECE_BYTES = 2048
#: Frames that ask for nothing: pings, settings, priorities, empty data, violations that end only a stream.
cdef double GLITCH_BURST = 2000.0
cdef double GLITCHES_PER_S = 200.0
#: A stream with more of its reply unsent than this reads no further message.
cdef size_t MAX_WAITING_BYTES = 1 << 18


cdef class Debt:
    pass


cdef class H2Session(PeerOutput):
    """
    Base of Http2Connection. `port` is passed on to the handlers. After about max_age_ns the client is told to
    reconnect, and after grace_ns more the connection is cut; 0 is never, for both. min_ping_ns: see h2_keepalive.pxd.
    """

    def __cinit__(self, Frontend frontend not None, str port not None, uint64_t max_age_ns=0, uint64_t grace_ns=0,
                  uint32_t max_streams=100, uint64_t min_ping_ns=10000000000):
        self.port = port
        self.age.max_ns = max_age_ns
        self.age.grace_ns = grace_ns
        self.pings.min_ns = min_ping_ns
        self.max_streams = max_streams
        self.streams = {}
        self.debts = []
        self.held_up = []
        bucket_fill(&self.resets, RESET_BURST, RESETS_PER_S, 0)
        bucket_fill(&self.glitches, GLITCH_BURST, GLITCHES_PER_S, 0)

    def __dealloc__(self):
        if self.session != NULL:
            nghttp2_session_del(self.session)
        outbuf_free(&self.out)

    # -- the protocol above

    cdef int on_request(self, H2Stream stream) except -1:
        return 0

    cdef int on_data(self, H2Stream stream) except -1:
        return 0

    cdef int on_end(self, H2Stream stream) except -1:
        return 0

    cdef int on_abort(self, H2Stream stream) except -1:
        return 0

    cdef int on_drained(self, H2Stream stream) except -1:
        return 0

    # -- what the transport calls

    def connection_made(self, transport):
        self.attach(transport)
        self.active_ns = now_ns()
        age_begin(&self.age, self.active_ns)
        self.frontend.peers.add(self)
        self.frontend.page.connections_open = len(self.frontend.peers)
        self.frontend.peer_due(self)

    def connection_lost(self, exc):
        cdef H2Stream stream
        self.fd = -1
        self.held_up = []
        streams, self.streams = self.streams, {}
        self.recent = None
        for stream in streams.values():
            self.close_stream(stream)
        self.transport = None
        self.frontend.peer_gone(self)

    def eof_received(self):
        """The client sends nothing more: what is in flight is answered as far as windows allow, then this closes."""
        self.got_eof = True
        self.frontend.peer_due(self)
        return bool(self.streams) or self.out.len > 0 or self.is_spilled

    def get_buffer(self, Py_ssize_t hint):
        return self

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, self.frontend.scratch, SCRATCH_BYTES, 0, flags)

    def buffer_updated(self, Py_ssize_t received):
        self.feed(self.frontend.scratch, received)

    def receive(self, bytes data not None):
        """What was received before this protocol took the transport."""
        self.feed(<const char*>data, len(data))

    # -- bytes in

    cdef int feed(self, const char* p, size_t n) except -1:
        """Received bytes."""
        if self.fd < 0:
            return 0
        relaxed_add(&self.frontend.page.bytes_in_total, n)
        if self.unread is not None:
            self.unread += p[:n]
            return 0
        self.take(p, n)
        if self.unread is not None and self.fd >= 0:
            self.transport.pause_reading()
            self.frontend.slices.add(self.take_more)
        return 0

    def take_more(self):
        """A slice of what was received at once; whether there is more of it."""
        unread, self.unread = self.unread, None
        if self.fd < 0:
            return False
        try:
            self.take(<const char*>unread, len(unread))
            if self.fd >= 0 and self.unread is None:
                self.transport.resume_reading()
        except Exception as error:
            self.frontend.peer_failed(self, error)
            return False
        return self.fd >= 0 and self.unread is not None

    cdef int take(self, const char* p, size_t n) except -1:
        """Reads frames, as many as a turn of the loop may take; the callbacks run inside.

        Calls that are reset at once cost a client nothing: in pieces, so that a burst of them does not hold everybody
        else up until the budget ends it.
        """
        cdef ssize_t used = 0
        cdef size_t at = 0, piece = FIRST_PIECE_BYTES
        self.active_ns = now_ns()
        self.resets_in_turn = 0
        while at < n and used >= 0 and self.fd >= 0:
            if self.resets_in_turn > RESETS_A_TURN:
                self.unread = p[at:n]
                break
            piece = min(piece, n - at)
            self.is_receiving = True
            used = nghttp2_session_mem_recv(self.session, <const uint8_t*>p + at, piece)
            self.is_receiving = False
            at += piece
            piece *= 2
        if self.fd < 0:
            return 0
        if used < 0 or nghttp2_session_get_outbound_queue_size(self.session) > MAX_QUEUED_FRAMES:
            # What nghttp2 queued about it (GOAWAY) still goes out; about floods that it ends by itself it says nothing.
            if not self.is_closing and used != NGHTTP2_ERR_BAD_CLIENT_MAGIC:
                self.go_away(NGHTTP2_ENHANCE_YOUR_CALM, b"too many frames")
            relaxed_add(&self.frontend.page.protocol_errors_total, 1)
            self.pump()
            self.flush()
            return self.drop()
        return self.frontend.peer_due(self)

    cdef H2Stream find(self, int32_t stream_id):
        """The open stream of this number, or None. Frames of a request follow each other: O(1) without a look-up."""
        cdef H2Stream stream = self.recent
        if stream is not None and stream.id == stream_id:
            return stream
        stream = self.streams.get(stream_id)
        if stream is not None:
            self.recent = stream
        return stream

    cdef int close_stream(self, H2Stream stream) except -1:
        """The stream is over, answered or not: what it still has in flight is cancelled."""
        cdef InferCall call = stream.call
        self.frontend.held_bytes -= stream.give_body(&self.frontend.spares)
        spare_give(&self.frontend.spares, &stream.reply)
        stream.reply_sent = 0
        stream.owed_bytes = 0
        stream.is_reply_complete = True
        if call is not None:
            stream.call = None
            if call.in_flight:
                self.charge(call)
                call.lane.cancel(call)
        self.on_abort(stream)
        if self.is_closing and not self.streams:
            self.frontend.peer_due(self)
        return 0

    cdef int charge(self, InferCall call) except -1:
        cdef Debt debt = Debt.__new__(Debt)
        debt.lane = call.lane
        debt.claim = call.parts[0].claim
        self.debts.append(debt)
        return 0

    cdef uint32_t charged(self) except? 4294967295:
        """Open streams, and cancelled ones whose rows an executor has not given back."""
        cdef Debt debt
        cdef uint64_t word
        if self.debts:
            kept = []
            for debt in self.debts:
                word = word_load(row_at(debt.lane.v, debt.claim.slab, debt.claim.first_row))
                if word_generation(word) == debt.claim.generation and row_state(word) != ROW_FREE:
                    kept.append(debt)
            self.debts = kept
        return <uint32_t>(len(self.streams) + len(self.debts))

    # -- budgets

    cdef int spend_reset(self) except -1:
        self.resets_in_turn += 1
        if not bucket_take(&self.resets, self.active_ns) and not self.is_closing:
            return self.go_away(NGHTTP2_ENHANCE_YOUR_CALM, b"too many stream resets")
        return 0

    cdef int spend_glitch(self) except -1:
        if not bucket_take(&self.glitches, self.active_ns) and not self.is_closing:
            return self.go_away(NGHTTP2_ENHANCE_YOUR_CALM, b"too many frames without work")
        return 0

    cdef int ping_received(self) except -1:
        self.spend_glitch()
        if not pings_take(&self.pings, self.active_ns, bool(self.streams)) and not self.is_closing:
            self.go_away(NGHTTP2_ENHANCE_YOUR_CALM, b"too_many_pings")
        return 0

    cdef int go_away(self, uint32_t code, const char* text) except -1:
        """No further stream is taken; the connection closes when the open ones have ended, or at once for an error."""
        cdef size_t n = len(text)
        self.is_closing = True
        nghttp2_submit_goaway(self.session, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(self.session),
                              code, <const uint8_t*>text, n)
        if code != <uint32_t>NGHTTP2_NO_ERROR:
            self.must_end = True
        return self.frontend.peer_due(self)

    # -- replies

    cdef int respond(self, H2Stream stream, nghttp2_nv* headers, size_t count) except -1:
        """Submits the response's headers; its data is stream.reply, appended to until is_reply_complete."""
        cdef nghttp2_data_provider provider
        cdef nghttp2_data_provider* data = &provider
        provider.source.ptr = <void*>stream
        provider.read_callback = read_reply
        stream.has_response = True
        if stream.is_reply_complete and stream.reply.len == 0 and stream.grpc_status < 0:
            data = NULL
        if nghttp2_submit_response(self.session, stream.id, headers, count, data) != 0:
            return self.reset(stream, NGHTTP2_INTERNAL_ERROR)
        return self.frontend.peer_due(self)

    cdef int widen(self, H2Stream stream, uint64_t message_bytes) except -1:
        """The stream's message is this long: its window grows if it is larger than the initial one."""
        if message_bytes > STREAM_WINDOW_BYTES and not stream.is_window_large:
            stream.is_window_large = True
            if spare_reserve(&self.frontend.spares, &stream.body, stream.body_used + message_bytes + 5) < 0:
                raise MemoryError()
            nghttp2_session_set_local_window_size(self.session, NGHTTP2_FLAG_NONE, stream.id, LARGE_WINDOW_BYTES)
            # One stream may use what the connection allows; more of them share it.
            nghttp2_session_set_local_window_size(self.session, NGHTTP2_FLAG_NONE, 0, LARGE_WINDOW_BYTES)
        return 0

    cdef int more(self, H2Stream stream) except -1:
        """Data was appended to stream.reply, or it is complete now."""
        if stream.is_deferred:
            stream.is_deferred = False
            nghttp2_session_resume_data(self.session, stream.id)
        return self.frontend.peer_due(self)

    cdef bint is_busy(self, H2Stream stream) noexcept:
        """Whether further messages of the stream wait for an answer, or for the client to take answers."""
        return stream.call is not None or stream.is_held_up

    cdef bint has_calls(self) except -1:
        """Whether work for any stream is in flight. O(streams)."""
        cdef H2Stream stream
        for stream in self.streams.values():
            if stream.call is not None or stream.is_working:
                return True
        return False

    cdef int give_back(self, H2Stream stream, size_t n) except -1:
        """The client may send as much again, up to what is owed."""
        n = min(n, stream.owed_bytes)
        if n:
            stream.owed_bytes -= n
            nghttp2_session_consume_stream(self.session, stream.id, n)
            self.frontend.peer_due(self)
        return 0

    cdef bint hold_up(self, H2Stream stream) except -1:
        """Whether so much of the reply waits that the stream's next message has to; on_drained() is told later."""
        if stream.reply.len - stream.reply_sent <= MAX_WAITING_BYTES:
            return False
        if not stream.is_held_up:
            stream.is_held_up = True
            self.held_up.append(stream)
        return True

    cdef int go_on(self) except -1:
        """Streams whose replies were taken read on."""
        cdef H2Stream stream
        streams, self.held_up = self.held_up, []
        for stream in streams:
            if stream.is_reply_complete:
                stream.is_held_up = False
            elif stream.reply.len - stream.reply_sent > MAX_WAITING_BYTES:
                self.held_up.append(stream)
            else:
                stream.is_held_up = False
                self.on_drained(stream)
        return 0

    cdef int reset(self, H2Stream stream, uint32_t code) except -1:
        stream.is_reply_complete = True
        nghttp2_submit_rst_stream(self.session, NGHTTP2_FLAG_NONE, stream.id, code)
        return self.frontend.peer_due(self)

    cdef int end_turn(self) except -1:
        if self.fd < 0:
            return 0
        if not self.is_spilled:
            self.pump()
            self.flush()
        if self.fd < 0 or self.is_spilled:
            return 0
        if self.held_up:
            self.go_on()
        if self.got_eof and not self.is_due and not self.has_calls():
            # Streams that are not complete never will be, and no window will open for what is blocked.
            self.must_end = True
        if not self.streams and (self.is_closing or self.got_eof):
            self.must_end = True
        if self.must_end or not (
            nghttp2_session_want_read(self.session) or nghttp2_session_want_write(self.session)
        ):
            self.transport.close()
        return 0

    cdef int pump(self) except -1:
        """Moves the frames that nghttp2 has ready into the out buffer."""
        cdef const uint8_t* data = NULL
        cdef ssize_t n
        while self.out.len < SCRATCH_BYTES:
            n = nghttp2_session_mem_send(self.session, &data)
            if n < 0:
                return self.drop()
            if n == 0:
                return 0
            if outbuf_write(&self.out, <const char*>data, n) < 0:
                raise MemoryError()
        return 0

    cdef int flush(self) except -1:
        """Sends what is due; nghttp2 keeps what the transport does not take at once."""
        while self.out.len and not self.is_spilled and self.fd >= 0:
            self.send_out()
            if not self.is_spilled:
                self.pump()
        self.trim_out()
        return 0

    # -- time and the end

    cdef int check_time(self, uint64_t now) except -1:
        if self.fd < 0:
            return 0
        if self.is_spilled:
            left = self.transport.get_write_buffer_size()
            if left != self.spilled_bytes:
                self.spilled_bytes = left
                self.active_ns = now
            elif now - self.active_ns > self.frontend.send_timeout_ns:
                self.drop()
            return 0
        if not self.streams and now - self.active_ns > self.frontend.idle_timeout_ns:
            if not self.is_closing:
                self.go_away(NGHTTP2_NO_ERROR, b"idle")
        elif age_is_over(&self.age, now) and not self.is_closing:
            self.shut(b"max_age", now)
        elif age_is_grace_over(&self.age, now):
            self.drop()
        elif self.streams:
            self.check_stalled(now)
        return 0

    cdef int check_stalled(self, uint64_t now) except -1:
        """Streams whose client neither sends nor takes anything are reset; the connection may live.

        A reply that waits is timed by itself: pings and other streams of its client are no progress.
        """
        cdef H2Stream stream
        cdef bint is_waiting
        for stream in list(self.streams.values()):
            is_waiting = stream.has_response and stream.reply.len > stream.reply_sent
            if not is_waiting or stream.seen_ns == 0 or stream.moved_bytes != stream.seen_bytes:
                stream.seen_bytes = stream.moved_bytes
                stream.seen_ns = now
            elif now - stream.seen_ns > self.frontend.send_timeout_ns:
                self.reset(stream, NGHTTP2_CANCEL)
                continue
            if stream.call is not None or stream.task is not None:
                continue
            if stream.route == ROUTE_GRPC_STREAM_INFER and stream.body.len == stream.body_used and not is_waiting:
                # Between two requests of a stream a client may take its time.
                continue
            if now - self.active_ns > self.frontend.send_timeout_ns and (stream.has_response or not stream.got_end):
                self.reset(stream, NGHTTP2_CANCEL)
        return 0

    cdef int shut(self, const char* text, uint64_t now) except -1:
        """Two-step GOAWAY: a warning, so that streams on their way are still taken, and a second later the real one."""
        if not self.is_warned:
            self.is_warned = True
            nghttp2_submit_shutdown_notice(self.session)
            return self.frontend.peer_due(self)
        self.age.closed_ns = now
        return self.go_away(NGHTTP2_NO_ERROR, text)

    cdef int stop(self) except -1:
        """The server stops: streams that are open are answered."""
        if self.fd < 0:
            return 0
        if not self.is_closing:
            nghttp2_submit_shutdown_notice(self.session)
            self.go_away(NGHTTP2_NO_ERROR, b"server is stopping")
        return 0
