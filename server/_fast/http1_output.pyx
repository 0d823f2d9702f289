"""The answering half of an HTTP/1.1 connection: answers in the order of the requests, one write per loop turn.

Each request takes a slot; an answer that is ready before an earlier one is held in its slot. It does not know how
requests are read.
One connection, one event loop thread; the object owns its buffers. O(bytes).
"""

from libc.stdint cimport int64_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy, strlen

from server._fast.content_coding cimport CODING_IDENTITY
from server._fast.http1 cimport HTTP_CLOSE
from server._fast.http1_reply cimport HTTP_CONTENT_JSON, http1_write_head
from server._fast.infer_spec cimport (
    INFER_DEADLINE,
    INFER_INVALID_ARGUMENT,
    INFER_NOT_FOUND,
    INFER_NO_MEMORY,
    INFER_RESOURCE_EXHAUSTED,
    INFER_UNAVAILABLE,
    INFER_UNIMPLEMENTED,
    InferError,
)
from server._fast.outbuf cimport OutBuf, outbuf_free, outbuf_reserve, outbuf_write
from server._fast.peer_output cimport PeerOutput


cdef int error_status(int code) noexcept nogil:
    if code == INFER_INVALID_ARGUMENT:
        return 400
    if code == INFER_NOT_FOUND:
        return 404
    if code == INFER_UNAVAILABLE or code == INFER_NO_MEMORY:
        return 503
    if code == INFER_UNIMPLEMENTED:
        return 501
    if code == INFER_RESOURCE_EXHAUSTED:
        return 413
    if code == INFER_DEADLINE:
        return 504
    return 500


cdef int write_error_body(OutBuf* b, const char* text, size_t n) noexcept nogil:
    """{"error":"..."} with the text escaped for JSON."""
    cdef size_t i
    cdef unsigned char c
    cdef char* at
    if outbuf_reserve(b, 6 * n + 16) < 0:
        return -1
    at = b.data + b.len
    memcpy(at, b'{"error":"', 10)
    at += 10
    for i in range(n):
        c = text[i]
        if c == c'"' or c == c'\\':
            at[0] = c'\\'
            at[1] = c
            at += 2
        elif c < 0x20:
            memcpy(at, b"\\u00", 4)
            at[4] = b"0123456789abcdef"[c >> 4]
            at[5] = b"0123456789abcdef"[c & 15]
            at += 6
        else:
            at[0] = c
            at += 1
    memcpy(at, b'"}', 2)
    b.len = at + 2 - b.data
    return 0


cdef class Http1Output(PeerOutput):
    """Base of Http1Connection."""

    def __dealloc__(self):
        cdef int i
        for i in range(MAX_PIPELINED):
            outbuf_free(&self.slots[i].held)

    cdef int take_slot(self, int persistence, bint is_head_request) except -1:
        """A place in the order of answers, for a request that was just read. The caller saw that there is room."""
        cdef int slot = (self.first_slot + self.slot_count) % MAX_PIPELINED
        self.slot_count += 1
        self.slots[slot].is_done = False
        self.slots[slot].is_head_request = is_head_request
        self.slots[slot].persistence = persistence
        self.slots[slot].coding = CODING_IDENTITY
        self.slots[slot].cors = 0
        # From the signal on every answer is a connection's last: clients go elsewhere while this server still listens.
        if persistence == HTTP_CLOSE or self.frontend.is_stopping or self.frontend.control.header.draining:
            self.slots[slot].persistence = HTTP_CLOSE
            self.must_close = True
        return slot

    cdef OutBuf* slot_buffer(self, int slot) noexcept:
        return &self.out if slot == <int>self.first_slot else &self.slots[slot].held

    cdef int slot_done(self, int slot) except -1:
        """The slot's answer is written: lets it and every finished one behind it go."""
        cdef OutBuf* held
        self.slots[slot].is_done = True
        if slot != <int>self.first_slot:
            return 0
        while self.slot_count and self.slots[self.first_slot].is_done:
            held = &self.slots[self.first_slot].held
            if held.len:
                if outbuf_write(&self.out, held.data, held.len) < 0:
                    raise MemoryError()
                outbuf_free(held)
            self.first_slot = (self.first_slot + 1) % MAX_PIPELINED
            self.slot_count -= 1
            self.unsent_count += 1
        return self.frontend.peer_due(self)

    cdef int write_reply(self, int slot, int status, int content_type, const char* body, size_t n, int64_t json_bytes,
                         const char* extra, size_t extra_bytes) except -1:
        cdef OutBuf* b = self.slot_buffer(slot)
        cdef int persistence = self.slots[slot].persistence
        cdef bytes lines
        if self.slots[slot].cors:
            lines = self.frontend.cors_lines[self.slots[slot].cors - 1]
            if extra_bytes:
                lines = extra[:extra_bytes] + lines
            extra = <const char*>lines
            extra_bytes = len(lines)
        if http1_write_head(b, status, content_type, n, persistence, json_bytes, extra, extra_bytes) < 0:
            raise MemoryError()
        if not self.slots[slot].is_head_request and outbuf_write(b, body, n) < 0:
            raise MemoryError()
        return self.slot_done(slot)

    cdef int write_error(self, int slot, int status, const char* text, size_t n, const char* extra) except -1:
        """{"error": text}; `extra` are whole header lines, NUL terminated, or NULL."""
        cdef OutBuf* body = &self.frontend.body
        body.len = 0
        if write_error_body(body, text, n) < 0:
            raise MemoryError()
        return self.write_reply(
            slot, status, HTTP_CONTENT_JSON, body.data, body.len, -1, extra, strlen(extra) if extra else 0)

    cdef int write_refusal(self, int slot, const InferError* error) except -1:
        """The answer to an inference that cannot be given."""
        cdef int status = error_status(error.code)
        cdef int after_s = error.retry_after_s if error.retry_after_s > 0 else 1
        cdef char line[32]
        snprintf(line, sizeof(line), b"Retry-After: %d\r\n", after_s)
        return self.write_error(slot, status, error.text, error.n, line if status == 503 else NULL)

    cdef int flush(self) except -1:
        if self.is_spilled:
            return 0
        self.unsent_count = 0
        if self.out.len:
            self.send_out()
            self.trim_out()
        return 0
