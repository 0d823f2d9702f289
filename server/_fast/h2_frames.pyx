"""Frames as libnghttp2 tells of them: the callbacks and options that all HTTP/2 connections share, and their opening.

It knows which frames cost a budget and which begin, fill, end and close a stream; what a stream asks for and how
replies go out, it does not know. A session is its H2Session's, whose pointer each callback gets; one event loop
thread. Callbacks may not raise: an error ends the connection. O(1) a frame besides its bytes.
"""

from libc.stdint cimport int32_t, uint8_t, uint32_t

from server._fast.atomics cimport relaxed_add
from server._fast.h2_keepalive cimport pings_answered
from server._fast.h2_session cimport CONNECTION_WINDOW_BYTES, MAX_QUEUED_FRAMES, STREAM_WINDOW_BYTES, H2Session
from server._fast.h2_skipped cimport skipped_has, skipped_open
from server._fast.h2_stream cimport MAX_HEADER_LIST_BYTES, TIMEOUT_NONE, H2Stream
from server._fast.nghttp2 cimport (
    NGHTTP2_DATA, NGHTTP2_ERR_CALLBACK_FAILURE, NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE, NGHTTP2_FLAG_ACK,
    NGHTTP2_FLAG_END_STREAM, NGHTTP2_FLAG_NONE, NGHTTP2_HCAT_REQUEST, NGHTTP2_HEADERS, NGHTTP2_PING, NGHTTP2_PRIORITY,
    NGHTTP2_PROTOCOL_ERROR, NGHTTP2_REFUSED_STREAM, NGHTTP2_RST_STREAM, NGHTTP2_SETTINGS,
    NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, NGHTTP2_SETTINGS_MAX_FRAME_SIZE,
    NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, nghttp2_frame, nghttp2_frame_hd, nghttp2_option, nghttp2_option_new,
    nghttp2_option_set_max_outbound_ack, nghttp2_option_set_max_settings, nghttp2_option_set_no_auto_window_update,
    nghttp2_session, nghttp2_session_callbacks, nghttp2_session_callbacks_new,
    nghttp2_session_callbacks_set_on_begin_frame_callback, nghttp2_session_callbacks_set_on_begin_headers_callback,
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback, nghttp2_session_callbacks_set_on_frame_recv_callback,
    nghttp2_session_callbacks_set_on_frame_send_callback, nghttp2_session_callbacks_set_on_header_callback,
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback,
    nghttp2_session_callbacks_set_on_stream_close_callback, nghttp2_session_consume_connection,
    nghttp2_session_consume_stream, nghttp2_session_server_new2, nghttp2_session_set_local_window_size,
    nghttp2_settings_entry, nghttp2_submit_rst_stream, nghttp2_submit_settings,
)
from server._fast.outbuf cimport outbuf_write
from server._fast.request_timeout cimport REQUEST_TIMEOUT_NONE
from server._fast.spare_buffers cimport spare_take


cdef int on_begin_frame(nghttp2_session* session, const nghttp2_frame_hd* head, void* user_data) noexcept:
    cdef H2Session self = <H2Session>user_data
    if head.type != NGHTTP2_HEADERS or not skipped_has(&self.skipped, head.stream_id) or self.must_end:
        return 0
    try:
        # nghttp2 would decode the block and say nothing.
        relaxed_add(&self.frontend.page.protocol_errors_total, 1)
        self.go_away(NGHTTP2_PROTOCOL_ERROR, b"HEADERS: stream id below an earlier one")
        return 0
    except Exception:
        return NGHTTP2_ERR_CALLBACK_FAILURE


cdef int on_begin_headers(nghttp2_session* session, const nghttp2_frame* frame, void* user_data) noexcept:
    cdef H2Session self = <H2Session>user_data
    cdef H2Stream stream
    if frame.hd.type != NGHTTP2_HEADERS or frame.headers.cat != NGHTTP2_HCAT_REQUEST:
        return 0
    skipped_open(&self.skipped, frame.hd.stream_id)
    try:
        if self.is_closing or self.charged() >= self.max_streams:
            nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame.hd.stream_id, NGHTTP2_REFUSED_STREAM)
            self.spend_reset()
            return 0
        stream = H2Stream.__new__(H2Stream)
        stream.id = frame.hd.stream_id
        stream.timeout_ns = TIMEOUT_NONE
        stream.rest_timeout_ns = REQUEST_TIMEOUT_NONE
        stream.json_bytes = -1
        stream.grpc_status = -1
        stream.received_ns = self.active_ns
        spare_take(&self.frontend.spares, &stream.body)
        self.streams[stream.id] = stream
        self.recent = stream
        return 0
    except Exception:
        return NGHTTP2_ERR_CALLBACK_FAILURE


cdef int on_header(nghttp2_session* session, const nghttp2_frame* frame, const uint8_t* name, size_t name_bytes,
                   const uint8_t* value, size_t value_bytes, uint8_t flags, void* user_data) noexcept:
    cdef H2Session self = <H2Session>user_data
    cdef H2Stream stream
    try:
        stream = self.find(frame.hd.stream_id)
        if stream is None or frame.hd.type != NGHTTP2_HEADERS or frame.headers.cat != NGHTTP2_HCAT_REQUEST:
            return 0
        if stream.header(<const char*>name, name_bytes, <const char*>value, value_bytes):
            # nghttp2 resets the stream and decodes the rest of the block without telling.
            return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE
        return 0
    except Exception:
        return NGHTTP2_ERR_CALLBACK_FAILURE


cdef int on_data_chunk(nghttp2_session* session, uint8_t flags, int32_t stream_id, const uint8_t* data, size_t n,
                       void* user_data) noexcept:
    cdef H2Session self = <H2Session>user_data
    cdef H2Stream stream
    try:
        nghttp2_session_consume_connection(session, n)
        stream = self.find(stream_id)
        if stream is None or stream.is_reply_complete:
            nghttp2_session_consume_stream(session, stream_id, n)
            return 0
        if self.is_busy(stream):
            # What waits behind a message that is being answered fills the stream's window, not our memory.
            stream.owed_bytes += n
        else:
            nghttp2_session_consume_stream(session, stream_id, n)
        if outbuf_write(&stream.body, <const char*>data, n) < 0:
            return NGHTTP2_ERR_CALLBACK_FAILURE
        self.frontend.held_bytes += n
        self.on_data(stream)
        return 0
    except Exception:
        return NGHTTP2_ERR_CALLBACK_FAILURE


cdef int on_frame(nghttp2_session* session, const nghttp2_frame* frame, void* user_data) noexcept:
    cdef H2Session self = <H2Session>user_data
    cdef H2Stream stream
    cdef int kind = frame.hd.type
    try:
        if kind == NGHTTP2_HEADERS or kind == NGHTTP2_DATA:
            stream = self.find(frame.hd.stream_id)
            if stream is not None:
                if kind == NGHTTP2_HEADERS and frame.headers.cat == NGHTTP2_HCAT_REQUEST:
                    relaxed_add(&self.frontend.page.requests_total, 1)
                    self.on_request(stream)
                if frame.hd.flags & NGHTTP2_FLAG_END_STREAM:
                    stream.got_end = True
                    if not stream.is_reply_complete:
                        self.on_end(stream)
            if kind == NGHTTP2_DATA and frame.hd.length == 0 and not frame.hd.flags & NGHTTP2_FLAG_END_STREAM:
                self.spend_glitch()
        elif kind == NGHTTP2_RST_STREAM:
            self.spend_reset()
        elif kind == NGHTTP2_PING and not frame.hd.flags & NGHTTP2_FLAG_ACK:
            self.ping_received()
        elif kind == NGHTTP2_PRIORITY or (kind == NGHTTP2_SETTINGS and not frame.hd.flags & NGHTTP2_FLAG_ACK):
            self.spend_glitch()
        return 0
    except Exception:
        return NGHTTP2_ERR_CALLBACK_FAILURE


cdef int on_frame_send(nghttp2_session* session, const nghttp2_frame* frame, void* user_data) noexcept:
    cdef H2Session self = <H2Session>user_data
    if frame.hd.type == NGHTTP2_RST_STREAM:
        try:
            # Violations that make this side reset a stream cost the peer the same (MadeYouReset).
            self.spend_reset()
        except Exception:
            return NGHTTP2_ERR_CALLBACK_FAILURE
    elif frame.hd.type == NGHTTP2_HEADERS or frame.hd.type == NGHTTP2_DATA:
        pings_answered(&self.pings)
    return 0


cdef int on_invalid_frame(nghttp2_session* session, const nghttp2_frame* frame, int code, void* user_data) noexcept:
    cdef H2Session self = <H2Session>user_data
    try:
        relaxed_add(&self.frontend.page.protocol_errors_total, 1)
        self.spend_glitch()
        return 0
    except Exception:
        return NGHTTP2_ERR_CALLBACK_FAILURE


cdef int on_stream_close(nghttp2_session* session, int32_t stream_id, uint32_t code, void* user_data) noexcept:
    cdef H2Session self = <H2Session>user_data
    try:
        stream = self.streams.pop(stream_id, None)
        if stream is not None:
            if self.recent is stream:
                self.recent = None
            self.close_stream(stream)
        return 0
    except Exception:
        return NGHTTP2_ERR_CALLBACK_FAILURE


cdef uint32_t MAX_FRAME_BYTES = 1 << 18
cdef nghttp2_session_callbacks* callbacks = NULL
cdef nghttp2_option* options = NULL


cdef int prepare() except -1:
    """The callbacks and options that all sessions share."""
    global callbacks, options
    if callbacks != NULL:
        return 0
    if nghttp2_session_callbacks_new(&callbacks) != 0 or nghttp2_option_new(&options) != 0:
        raise MemoryError()
    nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks, on_begin_frame)
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers)
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header)
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data_chunk)
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame)
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_send)
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(callbacks, on_invalid_frame)
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close)
    nghttp2_option_set_max_outbound_ack(options, MAX_QUEUED_FRAMES)
    nghttp2_option_set_max_settings(options, 32)
    nghttp2_option_set_no_auto_window_update(options, 1)
    return 0


cdef int h2_frames_open(H2Session self) except -1:
    """Makes the connection's nghttp2 session and queues this side's SETTINGS."""
    cdef nghttp2_settings_entry settings[4]
    prepare()
    if nghttp2_session_server_new2(&self.session, callbacks, <void*>self, options) != 0:
        raise MemoryError()
    settings[0].settings_id = NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS
    settings[0].value = self.max_streams
    settings[1].settings_id = NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE
    settings[1].value = STREAM_WINDOW_BYTES
    settings[2].settings_id = NGHTTP2_SETTINGS_MAX_FRAME_SIZE
    settings[2].value = MAX_FRAME_BYTES
    settings[3].settings_id = NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE
    settings[3].value = MAX_HEADER_LIST_BYTES
    nghttp2_submit_settings(self.session, NGHTTP2_FLAG_NONE, settings, 4)
    nghttp2_session_set_local_window_size(self.session, NGHTTP2_FLAG_NONE, 0, CONNECTION_WINDOW_BYTES)
    return 0
