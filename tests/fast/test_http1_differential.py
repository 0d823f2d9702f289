"""Requests against h11 (the RFC in plain Python) and llhttp (node's parser, through httptools).

Three rules, checked on generated requests: what both refuse, we refuse; where we and another accept, method, target,
body, tracked fields and the place of the next request agree; where we refuse and another accepts, the class stands in
STRICTER with its reason. LOOSER lists the two places where we accept and another does not.

HEADRACE_STRESS=N checks N * 10^5 requests instead of 3,000.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import h11
import httptools
import pytest

from server._fast.http1 import Http1Error, parse_head
from server._fast.http1_chunk import decode_chunked
from tests.reference.http1 import Code
from tests.support.http1_requests import request

if TYPE_CHECKING:
    from server._fast.http1 import Head

COUNT = 100_000 * int(os.environ.get("HEADRACE_STRESS") or 0) or 3_000

TRACKED = {
    "host": b"host",
    "content_type": b"content-type",
    "content_encoding": b"content-encoding",
    "accept": b"accept",
    "accept_encoding": b"accept-encoding",
    "authorization": b"authorization",
    "request_id": b"x-request-id",
    "timeout": b"x-request-timeout",
}


@dataclass
class Message:
    """A request that was read to its end."""

    method: str = ""
    target: bytes = b""
    body: bytes = b""
    #: the first value of each field, blanks around it removed
    fields: dict[bytes, bytes] = field(default_factory=dict)
    #: what lies behind the request
    rest: bytes = b""


class IncompleteError(Exception):
    """The parser waits for more bytes."""


class OtherRefusedError(Exception):
    """h11 or llhttp refuses; str() is its reason."""


class AbstainsError(Exception):
    """llhttp read "Upgrade", which we ignore as RFC 9110 7.8 allows, and leaves the rest to another protocol."""


def read_ours(data: bytes) -> tuple[Head, Message]:
    head = parse_head(data)
    if head is None:
        raise IncompleteError
    rest = data[head["head_bytes"] :]
    if head["chunked"]:
        decoded = decode_chunked([rest])
        if decoded is None:
            raise IncompleteError
        body, used = decoded
    else:
        used = max(0, head["content_length"])
        if len(rest) < used:
            raise IncompleteError
        body = rest[:used]
    return head, Message(head["method"], head["target"], body, {}, rest[used:])


def read_h11(data: bytes) -> Message:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    message = Message()
    try:
        connection.receive_data(data)
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                raise IncompleteError
            if isinstance(event, h11.Request):
                message.method, message.target = event.method.decode(), event.target
                for name, value in event.headers:
                    message.fields.setdefault(name, value)
            elif isinstance(event, h11.Data):
                message.body += event.data
            else:
                raise AssertionError(f"unexpected event {event!r}")
    except h11.RemoteProtocolError as error:
        raise OtherRefusedError(str(error)) from None
    message.rest = bytes(connection.trailing_data[0])
    return message


class Listener:
    """httptools' callbacks for the first message of a connection."""

    def __init__(self) -> None:
        self.message = Message()
        self.is_done = False
        self.is_in_body = False

    def on_url(self, url: bytes) -> None:
        self.message.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.is_in_body:
            self.message.fields.setdefault(name.lower(), value.strip(b" \t"))

    def on_headers_complete(self) -> None:
        self.is_in_body = True

    def on_body(self, body: bytes) -> None:
        self.message.body += body

    def on_message_complete(self) -> None:
        self.is_done = True


def read_llhttp(data: bytes) -> Message:
    """Fed byte by byte: it reports no place, so the next request starts where the first was reported complete."""
    listener = Listener()
    parser = httptools.HttpRequestParser(listener)
    for at in range(len(data)):
        try:
            parser.feed_data(data[at : at + 1])
        except httptools.HttpParserUpgrade:
            raise AbstainsError from None
        except httptools.HttpParserError as error:
            raise OtherRefusedError(str(error)) from None
        if listener.is_done:
            listener.message.method = parser.get_method().decode()
            listener.message.rest = data[at + 1 :]
            return listener.message
    raise IncompleteError


OTHERS = {"h11": read_h11, "llhttp": read_llhttp}


def send(
    lines: bytes, body: bytes = b"", request_line: bytes = b"POST / HTTP/1.1", host: bytes = b"Host: a\r\n"
) -> bytes:
    return request_line + b"\r\n" + host + lines + b"\r\n" + body


def chunked(body: bytes) -> bytes:
    return send(b"Transfer-Encoding: chunked\r\n", body)


LINE = b"Host: a\r\n\r\n"

#: Where we refuse and another accepts: (class, who accepts, why we do not, a request that shows it)
STRICTER: list[tuple[Code, set[str], str, bytes]] = [
    (
        Code.REQUEST_LINE,
        {"llhttp"},
        "HTTP/0.9 has no version and no fields: nothing of ours speaks it, and its answer has no framing",
        b"GET /\r\n" + LINE,
    ),
    (
        Code.REQUEST_LINE,
        {"llhttp"},
        "one empty line before a request is forgiven (RFC 9112 2.2 asks for one), not any number",
        b"\r\n\r\nGET / HTTP/1.1\r\n" + LINE,
    ),
    (Code.METHOD, {"h11"}, "a method nobody implements is answered 501 at once", b"BREW / HTTP/1.1\r\n" + LINE),
    (Code.METHOD, {"h11", "llhttp"}, "TRACE reflects credentials; not implemented", b"TRACE / HTTP/1.1\r\n" + LINE),
    (Code.TARGET, {"h11", "llhttp"}, "a fragment is never sent (RFC 9112 3.2)", b"GET /#a HTTP/1.1\r\n" + LINE),
    (Code.TARGET, {"h11", "llhttp"}, "'*' belongs to OPTIONS (RFC 9112 3.2.4)", b"GET * HTTP/1.1\r\n" + LINE),
    (Code.TARGET, {"h11"}, "a target starts with '/' or is an URL", b"GET a HTTP/1.1\r\n" + LINE),
    (Code.TARGET, {"h11", "llhttp"}, "we serve http and https only", b"GET ftp://a/ HTTP/1.1\r\n" + LINE),
    (
        Code.TARGET,
        {"h11", "llhttp"},
        "RFC 9110 4.2.4: userinfo in a URL is an error",
        b"GET http://u@a/ HTTP/1.1\r\n" + LINE,
    ),
    (Code.VERSION, {"h11", "llhttp"}, "0.9 with a version is neither old nor new", b"GET / HTTP/0.9\r\n" + LINE),
    (Code.VERSION, {"llhttp"}, "one space between the parts (RFC 9112 3)", b"GET /  HTTP/1.1\r\n" + LINE),
    (Code.VERSION_UNSUPPORTED, {"h11", "llhttp"}, "HTTP/2 has other framing: 505", b"GET / HTTP/2.0\r\n" + LINE),
    (Code.VERSION_UNSUPPORTED, {"h11"}, "no HTTP/1.2 exists", b"GET / HTTP/1.2\r\n" + LINE),
    (Code.LINE_END, {"h11"}, "a bare LF ends lines for some and not for others: smuggling", b"GET / HTTP/1.1\n" + LINE),
    (Code.LINE_END, {"llhttp"}, "the same before the request line", b"\nGET / HTTP/1.1\r\n" + LINE),
    (Code.FIELD_FOLDED, {"h11"}, "obs-fold, as RFC 9112 5.2 lets a server choose", send(b"A: b\r\n c\r\n")),
    (Code.FIELD_VALUE, {"h11"}, "control bytes: DEL", send(b"A: \x7f\r\n")),
    (Code.FIELD_DUPLICATE, {"h11", "llhttp"}, "which of the two holds?", send(b"Content-Type: a\r\n" * 2)),
    (Code.HOST, {"h11", "llhttp"}, "a host is a host (RFC 9112 3.2)", send(b"", host=b"Host: a/b\r\n")),
    (Code.HOST, {"h11", "llhttp"}, "nor a list of hosts", send(b"", host=b"Host: a,b\r\n")),
    (Code.HOST, {"h11", "llhttp"}, "nor nothing", send(b"", host=b"Host:\r\n")),
    (Code.HOST, {"llhttp"}, "nor two", send(b"Host: b\r\n")),
    (Code.HOST_MISSING, {"llhttp"}, "HTTP/1.1 requires it", send(b"", host=b"")),
    (
        Code.HOST_MISMATCH,
        {"h11", "llhttp"},
        "two names for one request: a proxy and we could route by different ones",
        b"GET http://b/ HTTP/1.1\r\n" + LINE,
    ),
    (Code.CONTENT_LENGTH, {"h11", "llhttp"}, "octal to some", send(b"Content-Length: 01\r\n", b"x")),
    (Code.CONTENT_LENGTH, {"h11"}, "a list, even of equal numbers", send(b"Content-Length: 1, 1\r\n", b"x")),
    (Code.CONTENT_LENGTH, {"h11"}, "twice, even equal", send(b"Content-Length: 1\r\n" * 2, b"x")),
    (
        Code.TRANSFER_ENCODING,
        {"h11", "llhttp"},
        "an HTTP/1.0 peer that sends a coding has been passed something it did not understand (RFC 9112 6.1)",
        send(b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", b"POST / HTTP/1.0"),
    ),
    (
        Code.TRANSFER_ENCODING,
        {"llhttp"},
        "a second line, whatever the first said",
        send(b"Transfer-Encoding: a\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    ),
    (
        Code.TRANSFER_CODING_UNKNOWN,
        {"llhttp"},
        "a coding we cannot undo is not passed on as data",
        send(b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"),
    ),
    (
        Code.LENGTH_AND_CODING,
        {"h11"},
        "RFC 9112 6.3 lets the coding win; a proxy may think otherwise",
        send(b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    ),
    (Code.UNDERSCORE_TWIN, {"h11", "llhttp"}, "CGI-like hops take '_' for '-'", send(b"Content_Length: 1\r\n")),
    (Code.EXPECT, {"h11", "llhttp"}, "417 (RFC 9110 10.1.1)", send(b"Expect: x\r\n")),
    (Code.CHUNK_SIZE, {"h11"}, "blanks behind the size", chunked(b"1 \r\nx\r\n0\r\n\r\n")),
    (
        Code.CHUNK_SIZE,
        {"h11", "llhttp"},
        "2^63 and more turns negative in signed hands",
        chunked(b"8000000000000000\r\n"),
    ),
    (Code.CHUNK_SIZE, {"h11", "llhttp"}, "more than 16 digits", chunked(b"00000000000000001\r\nx\r\n0\r\n\r\n")),
    (Code.CHUNK_EXTENSION, {"h11"}, "control bytes", chunked(b"1;a\x01\r\nx\r\n0\r\n\r\n")),
    (Code.CHUNK_EXTENSION, {"h11", "llhttp"}, "any length", chunked(b"1;" + b"a" * 300 + b"\r\nx\r\n0\r\n\r\n")),
    (Code.TOO_MANY_CHUNKS, {"h11", "llhttp"}, "a limit", chunked(b"1\r\nx\r\n" * 65537 + b"0\r\n\r\n")),
    (
        Code.CHUNK_OVERHEAD,
        {"h11", "llhttp"},
        "a limit",
        chunked(b"0000000000001\r\nx\r\n" * 4000 + b"0\r\n\r\n"),
    ),
    (Code.TRAILERS_TOO_LARGE, {"h11", "llhttp"}, "a limit", chunked(b"0\r\n" + b"A: b\r\n" * 101 + b"\r\n")),
    (Code.TOO_MANY_FIELDS, {"h11", "llhttp"}, "a limit", send(b"A: b\r\n" * 100)),
    (Code.HEAD_TOO_LARGE, {"h11", "llhttp"}, "a limit", send(b"A: " + b"b" * 32768 + b"\r\n")),
    (Code.TARGET_TOO_LONG, {"h11", "llhttp"}, "a limit", b"GET /" + b"a" * 8192 + b" HTTP/1.1\r\n" + LINE),
]
#: Where we accept and another refuses: (who, its words, why we accept, a request that shows it)
LOOSER: list[tuple[str, str, str, bytes]] = [
    (
        "h11",
        "no request line received",
        "RFC 9112 2.2: a server SHOULD ignore an empty line before the request line",
        b"\r\nGET / HTTP/1.1\r\n" + LINE,
    ),
    (
        "llhttp",
        "Content-Length can't be present with Transfer-Encoding",
        "a trailer of that name: trailers are dropped unread, so none can change the framing",
        chunked(b"0\r\nContent-Length: 3\r\n\r\n"),
    ),
]

MAY_REFUSE = {name: {code for code, who, _, _ in STRICTER if name in who} for name in OTHERS}
MAY_ACCEPT = {(who, words) for who, words, _, _ in LOOSER}


@pytest.mark.parametrize("row", range(len(STRICTER)))
def test_stricter(row: int) -> None:
    """Each row of the table is true: we refuse so, and just these parsers do not refuse."""
    code, who, _, data = STRICTER[row]
    with pytest.raises(Http1Error) as caught:
        read_ours(data)
    assert Code(caught.value.code) == code
    accepting = set()
    for name, read in OTHERS.items():
        try:
            read(data)
        except OtherRefusedError:
            continue
        except IncompleteError:
            pass
        accepting.add(name)
    assert accepting == who


@pytest.mark.parametrize("row", range(len(LOOSER)))
def test_looser(row: int) -> None:
    who, words, _, data = LOOSER[row]
    read_ours(data)
    for name, read in OTHERS.items():
        if name != who:
            read(data)
    with pytest.raises(OtherRefusedError, match=words):
        OTHERS[who](data)


def compare(data: bytes) -> str:
    """Checks the rules on one request; how we judged it."""
    try:
        head, ours = read_ours(data)
    except Http1Error as error:
        check_refusal(data, Code(error.code))
        return "refused"
    except IncompleteError:
        for read in OTHERS.values():
            with pytest.raises((IncompleteError, OtherRefusedError, AbstainsError)):
                read(data)
        return "incomplete"
    refusing = []
    for name, read in OTHERS.items():
        try:
            theirs = read(data)
        except OtherRefusedError as error:
            refusing.append((name, str(error)))
            continue
        except AbstainsError:
            continue
        check_agreement(head, ours, theirs)
    assert len(refusing) < 2, "both others refuse what we accept"
    assert set(refusing) <= MAY_ACCEPT
    return "accepted"


def check_refusal(data: bytes, code: Code) -> None:
    for name, read in OTHERS.items():
        if code in MAY_REFUSE[name]:
            continue
        with pytest.raises((IncompleteError, OtherRefusedError, AbstainsError)):
            read(data)


def check_agreement(head: Head, ours: Message, theirs: Message) -> None:
    assert (ours.method, ours.target, ours.body, ours.rest) == (
        theirs.method,
        theirs.target,
        theirs.body,
        theirs.rest,
    )
    for key, name in TRACKED.items():
        assert head[key] == theirs.fields.get(name)  # type: ignore[literal-required]
    length = theirs.fields.get(b"content-length")
    assert head["content_length"] == (-1 if length is None else int(length))


def test_generated_requests() -> None:
    judged = {"accepted": 0, "refused": 0, "incomplete": 0}
    for seed in range(COUNT):
        data = request(seed)
        try:
            judged[compare(data)] += 1
        except BaseException:
            print(f"request({seed}) = {data!r}")
            raise
    # a generator of which one verdict takes all would test nothing
    assert judged["accepted"] > COUNT * 0.4
    assert judged["refused"] > COUNT * 0.2
