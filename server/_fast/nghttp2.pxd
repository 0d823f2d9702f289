"""The part of libnghttp2's C interface that the HTTP/2 connection uses (libnghttp2 1.52 and later)."""

from libc.stdint cimport int32_t, uint8_t, uint32_t


cdef extern from "<nghttp2/nghttp2.h>":
    ctypedef struct nghttp2_session
    ctypedef struct nghttp2_session_callbacks
    ctypedef struct nghttp2_option

    ctypedef struct nghttp2_nv:
        uint8_t* name
        uint8_t* value
        size_t namelen
        size_t valuelen
        uint8_t flags

    ctypedef struct nghttp2_frame_hd:
        size_t length
        int32_t stream_id
        uint8_t type
        uint8_t flags

    ctypedef struct nghttp2_headers:
        int cat

    ctypedef union nghttp2_frame:
        nghttp2_frame_hd hd
        nghttp2_headers headers

    ctypedef struct nghttp2_settings_entry:
        int32_t settings_id
        uint32_t value

    ctypedef union nghttp2_data_source:
        int fd
        void* ptr

    ctypedef ssize_t (*nghttp2_data_source_read_callback)(
        nghttp2_session* session, int32_t stream_id, uint8_t* buf, size_t length, uint32_t* data_flags,
        nghttp2_data_source* source, void* user_data) noexcept

    ctypedef struct nghttp2_data_provider:
        nghttp2_data_source source
        nghttp2_data_source_read_callback read_callback

    int NGHTTP2_FLAG_END_STREAM
    int NGHTTP2_FLAG_NONE
    int NGHTTP2_FLAG_ACK
    int NGHTTP2_DATA
    int NGHTTP2_HEADERS
    int NGHTTP2_PRIORITY
    int NGHTTP2_RST_STREAM
    int NGHTTP2_SETTINGS
    int NGHTTP2_PING
    int NGHTTP2_WINDOW_UPDATE
    int NGHTTP2_HCAT_REQUEST
    int NGHTTP2_NV_FLAG_NONE
    int NGHTTP2_NV_FLAG_NO_COPY_NAME
    int NGHTTP2_NV_FLAG_NO_COPY_VALUE
    int NGHTTP2_DATA_FLAG_EOF
    int NGHTTP2_DATA_FLAG_NO_END_STREAM
    int NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS
    int NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE
    int NGHTTP2_SETTINGS_MAX_FRAME_SIZE
    int NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE
    int NGHTTP2_NO_ERROR
    int NGHTTP2_PROTOCOL_ERROR
    int NGHTTP2_INTERNAL_ERROR
    int NGHTTP2_REFUSED_STREAM
    int NGHTTP2_CANCEL
    int NGHTTP2_ENHANCE_YOUR_CALM
    int NGHTTP2_ERR_BAD_CLIENT_MAGIC
    int NGHTTP2_ERR_CALLBACK_FAILURE
    int NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE
    int NGHTTP2_ERR_DEFERRED

    int nghttp2_session_callbacks_new(nghttp2_session_callbacks** out) noexcept
    void nghttp2_session_callbacks_del(nghttp2_session_callbacks* callbacks) noexcept
    void nghttp2_session_callbacks_set_on_begin_frame_callback(
        nghttp2_session_callbacks* cbs,
        int (*callback)(nghttp2_session* session, const nghttp2_frame_hd* hd, void* user_data) noexcept)
    void nghttp2_session_callbacks_set_on_begin_headers_callback(
        nghttp2_session_callbacks* callbacks,
        int (*callback)(nghttp2_session*, const nghttp2_frame*, void*) noexcept) noexcept
    void nghttp2_session_callbacks_set_on_header_callback(
        nghttp2_session_callbacks* callbacks,
        int (*callback)(nghttp2_session*, const nghttp2_frame*, const uint8_t*, size_t, const uint8_t*, size_t, uint8_t,
                        void*) noexcept) noexcept
    void nghttp2_session_callbacks_set_on_data_chunk_recv_callback(
        nghttp2_session_callbacks* callbacks,
        int (*callback)(nghttp2_session*, uint8_t, int32_t, const uint8_t*, size_t, void*) noexcept) noexcept
    void nghttp2_session_callbacks_set_on_frame_recv_callback(
        nghttp2_session_callbacks* callbacks,
        int (*callback)(nghttp2_session*, const nghttp2_frame*, void*) noexcept) noexcept
    void nghttp2_session_callbacks_set_on_frame_send_callback(
        nghttp2_session_callbacks* callbacks,
        int (*callback)(nghttp2_session*, const nghttp2_frame*, void*) noexcept) noexcept
    void nghttp2_session_callbacks_set_on_stream_close_callback(
        nghttp2_session_callbacks* callbacks,
        int (*callback)(nghttp2_session*, int32_t, uint32_t, void*) noexcept) noexcept
    void nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(
        nghttp2_session_callbacks* callbacks,
        int (*callback)(nghttp2_session*, const nghttp2_frame*, int, void*) noexcept) noexcept

    int nghttp2_option_new(nghttp2_option** out) noexcept
    void nghttp2_option_del(nghttp2_option* option) noexcept
    void nghttp2_option_set_max_outbound_ack(nghttp2_option* option, size_t value) noexcept
    void nghttp2_option_set_max_settings(nghttp2_option* option, size_t value) noexcept
    void nghttp2_option_set_no_auto_window_update(nghttp2_option* option, int value) noexcept
    void nghttp2_option_set_no_closed_streams(nghttp2_option* option, int value) noexcept
    void nghttp2_option_set_max_send_header_block_length(nghttp2_option* option, size_t value) noexcept

    int nghttp2_session_server_new2(nghttp2_session** out, const nghttp2_session_callbacks* callbacks, void* user_data,
                                    const nghttp2_option* option) noexcept
    int nghttp2_session_upgrade2(nghttp2_session* session, const uint8_t* settings, size_t n, int is_head_request,
                                 void* stream_user_data) noexcept
    void nghttp2_session_del(nghttp2_session* session) noexcept
    ssize_t nghttp2_session_mem_recv(nghttp2_session* session, const uint8_t* data, size_t n) noexcept
    ssize_t nghttp2_session_mem_send(nghttp2_session* session, const uint8_t** data) noexcept
    int nghttp2_session_want_read(nghttp2_session* session) noexcept
    int nghttp2_session_want_write(nghttp2_session* session) noexcept
    size_t nghttp2_session_get_outbound_queue_size(nghttp2_session* session) noexcept
    int nghttp2_session_terminate_session(nghttp2_session* session, uint32_t error_code) noexcept
    int nghttp2_session_set_stream_user_data(nghttp2_session* session, int32_t stream_id, void* data) noexcept
    void* nghttp2_session_get_stream_user_data(nghttp2_session* session, int32_t stream_id) noexcept
    int nghttp2_session_set_local_window_size(nghttp2_session* session, uint8_t flags, int32_t stream_id,
                                              int32_t size) noexcept
    int32_t nghttp2_session_get_last_proc_stream_id(nghttp2_session* session) noexcept
    int nghttp2_session_consume_connection(nghttp2_session* session, size_t size) noexcept
    int nghttp2_session_consume_stream(nghttp2_session* session, int32_t stream_id, size_t size) noexcept
    int nghttp2_session_resume_data(nghttp2_session* session, int32_t stream_id) noexcept
    int nghttp2_submit_settings(nghttp2_session* session, uint8_t flags, const nghttp2_settings_entry* entries,
                                size_t count) noexcept
    int nghttp2_submit_response(nghttp2_session* session, int32_t stream_id, const nghttp2_nv* headers, size_t count,
                                const nghttp2_data_provider* provider) noexcept
    int nghttp2_submit_trailer(nghttp2_session* session, int32_t stream_id, const nghttp2_nv* headers,
                               size_t count) noexcept
    int nghttp2_submit_rst_stream(nghttp2_session* session, uint8_t flags, int32_t stream_id,
                                  uint32_t error_code) noexcept
    int nghttp2_submit_shutdown_notice(nghttp2_session* session) noexcept
    int nghttp2_submit_goaway(nghttp2_session* session, uint8_t flags, int32_t last_stream_id, uint32_t error_code,
                              const uint8_t* data, size_t n) noexcept
    const char* nghttp2_strerror(int code) noexcept
