"""HTTP/1.1 request heads and chunked bodies, read one byte at a time: the slow, obvious twin of server/_fast/http1*.

A reader hands out one byte after the other; running out of them ends the parse with None, whatever rule was being read.
That is all there is to resumption here, so a test may compare any prefix with the fast parser.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum


class Code(IntEnum):
    """HttpError of http1_error.pxd, by the same names."""

    REQUEST_LINE = 1
    METHOD = 2
    TARGET = 3
    TARGET_TOO_LONG = 4
    VERSION = 5
    VERSION_UNSUPPORTED = 6
    HTTP2_PREFACE = 7
    LINE_END = 8
    FIELD_NAME = 9
    FIELD_FOLDED = 10
    FIELD_VALUE = 11
    FIELD_DUPLICATE = 12
    HEAD_TOO_LARGE = 13
    TOO_MANY_FIELDS = 14
    HOST = 15
    HOST_MISSING = 16
    HOST_MISMATCH = 17
    CONTENT_LENGTH = 18
    TRANSFER_ENCODING = 19
    TRANSFER_CODING_UNKNOWN = 20
    LENGTH_AND_CODING = 21
    UNDERSCORE_TWIN = 22
    EXPECT = 23
    CHUNK_SIZE = 24
    CHUNK_EXTENSION = 25
    CHUNK_END = 26
    CHUNK_OVERHEAD = 27
    TOO_MANY_CHUNKS = 28
    TRAILER = 29
    TRAILERS_TOO_LARGE = 30
    BODY_TOO_LARGE = 31
    TIMEOUT = 32
    LENGTH_REQUIRED = 33
    CONTENT_ENCODING = 34
    MEDIA_TYPE = 35
    INFERENCE_HEADER_LENGTH = 36
    OVERLOADED = 37
    CODED_BODY = 38
    CODING_NESTED = 39


#: Statuses other than 400.
STATUS = {
    Code.METHOD: 501,
    Code.TARGET_TOO_LONG: 414,
    Code.VERSION_UNSUPPORTED: 505,
    Code.HTTP2_PREFACE: 505,
    Code.HEAD_TOO_LARGE: 431,
    Code.TOO_MANY_FIELDS: 431,
    Code.TRANSFER_CODING_UNKNOWN: 501,
    Code.EXPECT: 417,
    Code.TRAILERS_TOO_LARGE: 431,
    Code.BODY_TOO_LARGE: 413,
    Code.TIMEOUT: 408,
    Code.LENGTH_REQUIRED: 411,
    Code.CONTENT_ENCODING: 415,
    Code.MEDIA_TYPE: 415,
    Code.OVERLOADED: 503,
}

ALNUM = (string.ascii_letters + string.digits).encode()
TOKEN = ALNUM + b"!#$%&'*+-.^_`|~"
TARGET = bytes(c for c in range(0x21, 0x7F) if c != ord("#"))
TEXT = bytes(c for c in range(0x20, 0x100) if c != 0x7F) + b"\t"
HOST_NAME = ALNUM + b"-._~"
HEX = string.hexdigits.encode()
QUOTED = bytes(range(0x20, 0x7F))
METHODS = (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH")
MAX_METHOD_BYTES = 32
MAX_INT32 = 2**31 - 1
MAX_INT64 = 2**63 - 1

MAX_CHUNKS = 65536
MAX_CHUNK_EXTENSION_BYTES = 256
MAX_ALL_EXTENSION_BYTES = 16384
MAX_TRAILER_BYTES = 8192
MAX_TRAILER_FIELDS = 100
FRAMING_ALLOWANCE_BYTES = 65536
MAX_FRAMING_RATIO = 8


class Refused(Exception):
    """The message breaks the rules; `at` is the first wrong byte."""

    def __init__(self, code: Code, at: int) -> None:
        super().__init__(f"{code.name} at {at}")
        self.code = code
        self.status = STATUS.get(code, 400)
        self.at = at


class NeedMoreError(Exception):
    """The bytes ended before the message did."""


@dataclass
class Reader:
    """A cursor. Reading at `limit`, or past the end, ends the parse."""

    data: bytes
    limit: int = MAX_INT64
    at: int = 0

    def peek(self) -> int:
        if self.at >= self.limit:
            raise self.refuse(Code.HEAD_TOO_LARGE)
        if self.at >= len(self.data):
            raise NeedMoreError
        return self.data[self.at]

    def next(self) -> int:
        byte = self.peek()
        self.at += 1
        return byte

    def refuse(self, code: Code) -> Refused:
        return Refused(code, self.at)

    def expect(self, byte: bytes, code: Code) -> None:
        if self.peek() != ord(byte):
            raise self.refuse(code)
        self.at += 1

    def run_of(self, allowed: bytes, most: int | None = None, too_long: Code | None = None) -> bytes:
        """The longest run of allowed bytes; one more than `most` of them is an error."""
        run = bytearray()
        while self.peek() in allowed:
            if most is not None and len(run) == most:
                assert too_long is not None
                raise self.refuse(too_long)
            run.append(self.next())
        return bytes(run)


@dataclass
class Limits:
    max_target_bytes: int = 8192
    max_head_bytes: int = 32768
    max_fields: int = 100


def parse_head(data: bytes, limits: Limits | None = None) -> dict[str, object] | None:
    """The head as the fast parser reports it, None if more bytes are needed; raises Refused."""
    limits = limits or Limits()
    try:
        return read_head(Reader(bytes(data), limits.max_head_bytes), limits)
    except NeedMoreError:
        return None


@dataclass
class Fields:
    """What the header lines said so far."""

    minor_version: int
    count: int = 0
    first: dict[bytes, bytes] = field(default_factory=dict)
    times: dict[bytes, int] = field(default_factory=dict)
    options: set[bytes] = field(default_factory=set)
    protocols: set[bytes] = field(default_factory=set)
    content_length: int = -1
    inference_header_length: int = -1
    chunked: bool = False
    expect_continue: bool = False

    def once_or_none(self, name: bytes) -> bytes | None:
        return self.first[name] if self.times.get(name) == 1 else None


def read_head(reader: Reader, limits: Limits) -> dict[str, object]:
    if reader.peek() == ord("\r"):
        reader.next()
        reader.expect(b"\n", Code.LINE_END)
    elif reader.peek() == ord("\n"):
        raise reader.refuse(Code.LINE_END)
    method = read_method(reader)
    target = reader.run_of(TARGET, limits.max_target_bytes, Code.TARGET_TOO_LONG)
    if reader.peek() in b"\r\n" or not target:
        raise reader.refuse(Code.REQUEST_LINE if reader.peek() in b" \r\n" else Code.TARGET)
    if reader.peek() != ord(" "):
        raise reader.refuse(Code.TARGET)
    authority, path, query = split_target(method, target, reader)
    reader.next()
    fields = Fields(read_version(reader, method))
    while read_field(reader, fields, limits):
        pass
    check_whole(fields, authority, reader)
    close, keep = b"close" in fields.options, b"keep-alive" in fields.options
    return {
        "method": method.decode(),
        "minor_version": fields.minor_version,
        "keep_alive": 0 if close else 1 if fields.minor_version == 1 else 2 if keep else 0,
        "chunked": fields.chunked,
        "expect_continue": fields.expect_continue and fields.minor_version == 1,
        "has_body": fields.chunked or fields.content_length > 0,
        "wants_h2c": (
            fields.minor_version == 1
            and b"h2c" in fields.protocols
            and {b"upgrade", b"http2-settings"} <= fields.options
            and fields.once_or_none(b"http2-settings") is not None
        ),
        "field_count": fields.count,
        "head_bytes": reader.at,
        "content_length": fields.content_length,
        "inference_header_length": fields.inference_header_length,
        "target": target,
        "path": path,
        "query": query,
        "authority": authority,
        "host": fields.first.get(b"host"),
        "content_type": fields.first.get(b"content-type"),
        "content_encoding": fields.first.get(b"content-encoding"),
        "accept": fields.first.get(b"accept"),
        "accept_encoding": fields.first.get(b"accept-encoding"),
        "authorization": fields.first.get(b"authorization"),
        "traceparent": fields.once_or_none(b"traceparent"),
        "origin": fields.once_or_none(b"origin"),
        "http2_settings": fields.once_or_none(b"http2-settings"),
        "request_id": fields.first.get(b"x-request-id"),
        "timeout": fields.first.get(b"x-request-timeout"),
    }


def read_method(reader: Reader) -> bytes:
    method = reader.run_of(TOKEN, MAX_METHOD_BYTES, Code.METHOD)
    if not method or reader.peek() != ord(" "):
        raise reader.refuse(Code.REQUEST_LINE)
    if method not in METHODS and method != b"PRI":
        raise reader.refuse(Code.METHOD)
    reader.next()
    return method


def split_target(method: bytes, target: bytes, reader: Reader) -> tuple[bytes | None, bytes, bytes | None]:
    """(authority, path, query) of RFC 9112 section 3.2; authority-form belongs to CONNECT, which is not implemented."""
    if target.startswith(b"*"):
        if target != b"*" or method not in (b"OPTIONS", b"PRI"):
            raise reader.refuse(Code.TARGET)
        return None, target, None
    authority = None
    rest = target
    if not target.startswith(b"/"):
        scheme, separator, rest = target.partition(b"://")
        if not separator or scheme.lower() not in (b"http", b"https"):
            raise reader.refuse(Code.TARGET)
        authority = rest.partition(b"?")[0].partition(b"/")[0]
        rest = rest[len(authority) :]
        if not is_host(authority):
            raise reader.refuse(Code.TARGET)
    path, mark, query = rest.partition(b"?")
    return authority, path, query if mark else None


def read_version(reader: Reader, method: bytes) -> int:
    for letter in "HTTP/":
        reader.expect(letter.encode(), Code.VERSION)
    if reader.peek() not in string.digits.encode():
        raise reader.refuse(Code.VERSION)
    major = chr(reader.next())
    reader.expect(b".", Code.VERSION)
    if reader.peek() not in string.digits.encode():
        raise reader.refuse(Code.VERSION)
    minor = chr(reader.next())
    if major == "0":
        raise reader.refuse(Code.VERSION)
    if method == b"PRI" and (major, minor) == ("2", "0"):
        raise reader.refuse(Code.HTTP2_PREFACE)
    if (major, minor) not in (("1", "0"), ("1", "1")):
        raise reader.refuse(Code.VERSION_UNSUPPORTED)
    if method == b"PRI":
        raise reader.refuse(Code.METHOD)
    reader.expect(b"\r", Code.LINE_END if reader.peek() == ord("\n") else Code.VERSION)
    reader.expect(b"\n", Code.LINE_END)
    return int(minor)


def read_field(reader: Reader, fields: Fields, limits: Limits) -> bool:
    """One line; False for the empty line."""
    if reader.peek() == ord("\r"):
        reader.next()
        reader.expect(b"\n", Code.LINE_END)
        return False
    if reader.peek() in b" \t":
        raise reader.refuse(Code.FIELD_FOLDED)
    name = reader.run_of(TOKEN)
    if reader.peek() == ord("\n"):
        raise reader.refuse(Code.LINE_END)
    if not name or reader.peek() != ord(":"):
        raise reader.refuse(Code.FIELD_NAME)
    reader.next()
    value = reader.run_of(TEXT).strip(b" \t")
    if reader.peek() == ord("\n"):
        raise reader.refuse(Code.LINE_END)
    reader.expect(b"\r", Code.FIELD_VALUE)
    reader.expect(b"\n", Code.LINE_END)
    fields.count += 1
    if fields.count > limits.max_fields:
        raise reader.refuse(Code.TOO_MANY_FIELDS)
    on_field(reader, fields, name.lower(), value)
    return True


def on_field(reader: Reader, fields: Fields, name: bytes, value: bytes) -> None:
    fields.first.setdefault(name, value)
    fields.times[name] = fields.times.get(name, 0) + 1
    again = fields.times[name] > 1
    if name in (b"content_length", b"transfer_encoding"):
        raise reader.refuse(Code.UNDERSCORE_TWIN)
    if again and name in (b"content-type", b"content-encoding", b"authorization", b"x-request-timeout"):
        raise reader.refuse(Code.FIELD_DUPLICATE)
    if name == b"host" and (again or not is_host(value)):
        raise reader.refuse(Code.HOST)
    if name == b"content-length":
        fields.content_length = number(value, MAX_INT64)
        if again or fields.content_length < 0:
            raise reader.refuse(Code.CONTENT_LENGTH)
    if name == b"inference-header-content-length":
        size = number(value, MAX_INT32)
        fields.inference_header_length = -2 if again or size < 0 else size
    if name == b"transfer-encoding":
        fields.chunked = True
        check_transfer_encoding(reader, value, again or fields.minor_version == 0)
    if name == b"expect" and value:
        if value.lower() != b"100-continue":
            raise reader.refuse(Code.EXPECT)
        fields.expect_continue = True
    if name == b"connection":
        fields.options |= {option.strip(b" \t").lower() for option in value.split(b",")}
    if name == b"upgrade":
        fields.protocols |= {protocol.strip(b" \t").lower() for protocol in value.split(b",")}


def check_transfer_encoding(reader: Reader, value: bytes, is_out_of_place: bool) -> None:
    codings = [coding.strip(b" \t").lower() for coding in value.split(b",")]
    well_formed = all(coding and not coding.strip(TOKEN) for coding in codings)
    if is_out_of_place or not well_formed or codings[-1] != b"chunked" or b"chunked" in codings[:-1]:
        raise reader.refuse(Code.TRANSFER_ENCODING)
    if len(codings) > 1:
        raise reader.refuse(Code.TRANSFER_CODING_UNKNOWN)


def check_whole(fields: Fields, authority: bytes | None, reader: Reader) -> None:
    if fields.chunked and fields.content_length >= 0:
        raise reader.refuse(Code.LENGTH_AND_CODING)
    host = fields.first.get(b"host")
    if host is None and fields.minor_version == 1:
        raise reader.refuse(Code.HOST_MISSING)
    if host is not None and authority is not None and host.lower() != authority.lower():
        raise reader.refuse(Code.HOST_MISMATCH)


def number(text: bytes, most: int) -> int:
    """A decimal number without sign or leading zeros; -1 for anything else."""
    if not text or text.strip(b"0123456789") or (len(text) > 1 and text.startswith(b"0")):
        return -1
    return int(text) if int(text) <= most else -1


def is_host(text: bytes) -> bool:
    if text.startswith(b"["):
        inside, bracket, rest = text[1:].partition(b"]")
        good = len(inside) >= 2 and bracket == b"]" and not inside.strip(HEX + b":.")
    else:
        name, colon, port = text.partition(b":")
        rest = colon + port
        good = bool(name) and not name.strip(HOST_NAME)
    if not rest:
        return good
    port = rest[1:]
    digits_only = not port.strip(b"0123456789") and len(port) <= 5
    return good and rest.startswith(b":") and digits_only and (not port or int(port) <= 65535)


@dataclass
class Chunks:
    """What a chunked body was so far."""

    data: bytearray = field(default_factory=bytearray)
    consumed_bytes: int = 0
    is_done: bool = False


def decode_chunked(source: bytes, max_body_bytes: int = MAX_INT64) -> Chunks:
    """The data in `source`, complete or not; raises Refused."""
    reader = Reader(bytes(source))
    chunks = Chunks()
    try:
        read_chunks(reader, chunks, max_body_bytes)
        chunks.is_done = True
    except NeedMoreError:
        pass
    chunks.consumed_bytes = reader.at
    return chunks


def read_chunks(reader: Reader, chunks: Chunks, max_body_bytes: int) -> None:
    count = 0
    extension_bytes = 0
    while True:
        size = read_chunk_size(reader)
        extension_bytes += read_extensions(reader, MAX_ALL_EXTENSION_BYTES - extension_bytes)
        reader.expect(b"\r", Code.LINE_END if reader.peek() == ord("\n") else Code.CHUNK_EXTENSION)
        # limits are judged at the end of the size line: its last byte is the wrong one
        if reader.peek() != ord("\n"):
            raise reader.refuse(Code.LINE_END)
        if size == 0:
            reader.next()
            break
        count += 1
        framing_bytes = reader.at + 1 - len(chunks.data)
        if count > MAX_CHUNKS:
            raise reader.refuse(Code.TOO_MANY_CHUNKS)
        if len(chunks.data) + size > max_body_bytes:
            raise reader.refuse(Code.BODY_TOO_LARGE)
        too_thin = framing_bytes > MAX_FRAMING_RATIO * (len(chunks.data) + size)
        if framing_bytes > FRAMING_ALLOWANCE_BYTES and too_thin:
            raise reader.refuse(Code.CHUNK_OVERHEAD)
        reader.next()
        for _ in range(size):
            chunks.data.append(reader.next())
        reader.expect(b"\r", Code.CHUNK_END)
        reader.expect(b"\n", Code.CHUNK_END)
    read_trailers(reader)


def read_chunk_size(reader: Reader) -> int:
    digits = b""
    while reader.peek() in HEX:
        longer = digits + bytes([reader.peek()])
        if len(longer) > 16 or int(longer, 16) > MAX_INT64:
            raise reader.refuse(Code.CHUNK_SIZE)
        digits = longer
        reader.next()
    if not digits or reader.peek() not in b";\r\n":
        raise reader.refuse(Code.CHUNK_SIZE)
    if reader.peek() == ord("\n"):
        raise reader.refuse(Code.LINE_END)
    return int(digits, 16)


def read_extensions(reader: Reader, allowance: int) -> int:
    """chunk-ext of RFC 9112 section 7.1.1, without blanks: how many bytes follow the first ';'."""
    begin = reader.at + 1
    most = min(MAX_CHUNK_EXTENSION_BYTES, allowance)

    def take(is_allowed: Callable[[int], bool]) -> int:
        if reader.peek() == ord("\n"):
            raise reader.refuse(Code.LINE_END)
        if reader.peek() == ord("\r") or reader.at - begin >= most or not is_allowed(reader.peek()):
            raise reader.refuse(Code.CHUNK_EXTENSION)
        return reader.next()

    def take_token(then: bytes) -> None:
        take(lambda byte: byte in TOKEN)
        while reader.peek() not in then + b"\r":
            take(lambda byte: byte in TOKEN)

    if reader.peek() != ord(";"):
        return 0
    reader.next()
    while True:
        take_token(then=b";=")
        if reader.peek() == ord("="):
            take(lambda byte: True)
            if reader.peek() == ord('"'):
                take_quoted(take)
            else:
                take_token(then=b";")
        if reader.peek() == ord("\r"):
            return reader.at - begin
        take(lambda byte: byte == ord(";"))


def take_quoted(take: Callable[[Callable[[int], bool]], int]) -> None:
    take(lambda byte: byte == ord('"'))
    while (byte := take(lambda byte: byte in QUOTED)) != ord('"'):
        if byte == ord("\\"):
            take(lambda byte: byte in QUOTED)


def read_trailers(reader: Reader) -> None:
    begin = reader.at
    count = 0

    def check_size() -> None:
        reader.peek()
        if reader.at - begin >= MAX_TRAILER_BYTES:
            raise reader.refuse(Code.TRAILERS_TOO_LARGE)

    def take(byte: bytes, otherwise: Code) -> None:
        check_size()
        reader.expect(byte, Code.LINE_END if reader.peek() == ord("\n") else otherwise)

    while True:
        check_size()
        if reader.peek() == ord("\r"):
            reader.next()
            # the last line feed belongs to no trailer, it is not weighed
            reader.expect(b"\n", Code.LINE_END)
            return
        if reader.peek() == ord("\n"):
            raise reader.refuse(Code.LINE_END)
        count += 1
        if count > MAX_TRAILER_FIELDS:
            raise reader.refuse(Code.TRAILERS_TOO_LARGE)
        name_begin = reader.at
        while reader.peek() in TOKEN:
            check_size()
            reader.next()
        if reader.at == name_begin:
            raise reader.refuse(Code.TRAILER)
        take(b":", Code.TRAILER)
        while reader.peek() in TEXT:
            check_size()
            reader.next()
        take(b"\r", Code.TRAILER)
        take(b"\n", Code.LINE_END)
