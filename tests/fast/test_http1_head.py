"""Request heads: every case whole, byte by byte, at every split, with bytes behind and against a guard page."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from server._fast.http1 import METHODS, HeadParser, Http1Error, error_table, parse_head
from tests.reference import http1 as twin
from tests.reference.http1 import Code
from tests.support.guard_page import GuardedMemory
from tests.support.http1_requests import request

#: HEADRACE_STRESS=N generates N * 10^5 requests instead of 3,000.
COUNT = 100_000 * int(os.environ.get("HEADRACE_STRESS") or 0) or 3_000

Outcome = dict[str, object] | Code | None


def get(*lines: bytes) -> bytes:
    return b"\r\n".join([b"GET / HTTP/1.1", b"Host: a", *lines, b"", b""])


def line(request_line: bytes) -> bytes:
    return request_line + b"\r\nHost: a\r\n\r\n"


TYPICAL = (
    b"POST /v2/models/m/infer?trace=1 HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nUser-Agent: python-requests/2.31.0\r\n"
    b"Accept-Encoding: gzip, deflate\r\nAccept: */*\r\nConnection: keep-alive\r\nContent-Type: application/json\r\n"
    b"Content-Length: 1234\r\nInference-Header-Content-Length: 98\r\nX-Request-Id: r-1\r\n"
    b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nAuthorization: Bearer t\r\n"
    b"X-Request-Timeout: 250ms\r\nContent-Encoding: identity\r\n\r\n"
)

#: name -> (head, what it must say)
ACCEPTED: dict[str, tuple[bytes, dict[str, object]]] = {
    "smallest": (get(), {"method": "GET", "path": b"/", "host": b"a", "keep_alive": 1, "has_body": False}),
    "typical": (
        TYPICAL,
        {
            "method": "POST",
            "target": b"/v2/models/m/infer?trace=1",
            "path": b"/v2/models/m/infer",
            "query": b"trace=1",
            "host": b"127.0.0.1:8000",
            "accept_encoding": b"gzip, deflate",
            "accept": b"*/*",
            "content_type": b"application/json",
            "content_length": 1234,
            "inference_header_length": 98,
            "request_id": b"r-1",
            "traceparent": b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "authorization": b"Bearer t",
            "timeout": b"250ms",
            "content_encoding": b"identity",
            "field_count": 13,
            "has_body": True,
        },
    ),
    "one empty line before": (b"\r\n" + get(), {"path": b"/", "host": b"a", "head_bytes": 29}),
    "empty query": (line(b"GET /a? HTTP/1.1"), {"path": b"/a", "query": b""}),
    "second question mark": (line(b"GET /a?b?c HTTP/1.1"), {"path": b"/a", "query": b"b?c"}),
    "absolute form": (line(b"GET http://A/p?q HTTP/1.1"), {"path": b"/p", "query": b"q", "authority": b"A"}),
    "absolute form, no path": (line(b"GET https://a HTTP/1.1"), {"path": b"", "query": None, "authority": b"a"}),
    "absolute form, query only": (line(b"GET HTTP://a?q HTTP/1.1"), {"path": b"", "query": b"q", "authority": b"a"}),
    "asterisk form": (line(b"OPTIONS * HTTP/1.1"), {"method": "OPTIONS", "path": b"*"}),
    "HTTP/1.0 without Host": (b"GET / HTTP/1.0\r\n\r\n", {"minor_version": 0, "keep_alive": 0, "host": None}),
    "HTTP/1.0 kept": (b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", {"keep_alive": 2}),
    "close": (get(b"Connection: close"), {"keep_alive": 0}),
    "close in a list": (get(b"Connection: upgrade ,\tClose"), {"keep_alive": 0}),
    "close and keep-alive": (get(b"Connection: close", b"Connection: keep-alive"), {"keep_alive": 0}),
    "connection of other options": (get(b"Connection: closed, keep-alivex, ,"), {"keep_alive": 1}),
    "names in any case": (get(b"cONTENT-lENGTH: 5", b"CONTENT-TYPE: a"), {"content_length": 5, "content_type": b"a"}),
    "blanks around the value": (get(b"Accept: \t a b \t "), {"accept": b"a b"}),
    "no blank before the value": (get(b"Accept:a"), {"accept": b"a"}),
    "empty value": (get(b"Accept:", b"Content-Type: "), {"accept": b"", "content_type": b""}),
    "value of high bytes": (get("X: é".encode("latin-1"), b"Y: \xff"), {"field_count": 3}),
    "name of all token bytes": (get(b"!#$%&'*+-.^_`|~09azAZ: v"), {"field_count": 2}),
    "chunked": (get(b"Transfer-Encoding: Chunked"), {"chunked": True, "has_body": True, "content_length": -1}),
    "no body declared": (get(b"Content-Length: 0"), {"content_length": 0, "has_body": False}),
    "largest length": (get(b"Content-Length: 9223372036854775807"), {"content_length": 2**63 - 1}),
    "expect": (get(b"Expect: 100-Continue", b"Content-Length: 1"), {"expect_continue": True}),
    "empty expect": (get(b"Expect:"), {"expect_continue": False}),
    "expect of HTTP/1.0": (b"PUT / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n", {"expect_continue": False}),
    "expect of HTTP/1.0 that closes": (
        b"PUT / HTTP/1.0\r\nConnection: close\r\nExpect: 100-continue\r\n\r\n",
        {"expect_continue": False, "keep_alive": 0},
    ),
    "first of two preferences": (
        get(b"Accept: a", b"Accept: b", b"X-Request-Id: 1", b"X-Request-Id: 2"),
        {"accept": b"a"},
    ),
    "two traceparents are none": (get(b"traceparent: a", b"traceparent: b", b"traceparent: c"), {"traceparent": None}),
    "inference length 0": (get(b"Inference-Header-Content-Length: 0"), {"inference_header_length": 0}),
    "inference length twice": (get(*[b"Inference-Header-Content-Length: 7"] * 2), {"inference_header_length": -2}),
    "inference length 2^31": (get(b"Inference-Header-Content-Length: 2147483648"), {"inference_header_length": -2}),
    "inference length signed": (get(b"Inference-Header-Content-Length: -1"), {"inference_header_length": -2}),
    "inference length empty": (get(b"Inference-Header-Content-Length:"), {"inference_header_length": -2}),
    "host of an address": (b"GET / HTTP/1.1\r\nHost: [::1]:8000\r\n\r\n", {"host": b"[::1]:8000"}),
    "host with an empty port": (b"GET / HTTP/1.1\r\nHost: a:\r\n\r\n", {"host": b"a:"}),
    "an offer of HTTP/2": (
        get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk"),
        {"wants_h2c": True, "http2_settings": b"AAMAAABk"},
    ),
    "an offer of HTTP/2 among others": (
        get(b"Upgrade: a,  H2C", b"HTTP2-Settings:", b"Connection: http2-settings", b"Connection: a, UPGRADE"),
        {"wants_h2c": True, "http2_settings": b""},
    ),
    "an offer of HTTP/2 with settings twice": (
        get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", *[b"HTTP2-Settings: AAMAAABk"] * 2),
        {"wants_h2c": False, "http2_settings": None},
    ),
    "an offer of HTTP/2 that Connection does not name": (
        get(b"Connection: HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk"),
        {"wants_h2c": False},
    ),
    "origin": (get(b"Origin: https://a"), {"origin": b"https://a"}),
    "origin twice": (get(b"Origin: https://a", b"Origin: https://a", b"Origin: https://a"), {"origin": None}),
    "underscore in another name": (get(b"Content_Type: a", b"Transfer-Encodinx: a"), {"content_type": None}),
    "names one letter off": (
        get(b"Content-Lengtj: x", b"Hosu: ,", b"Expecu: x", b"Uransfer-Encoding: x", b"Contenu-Length: x"),
        {"content_length": -1, "host": b"a"},
    ),
    **{
        f"method {name}": (line(f"{name} /x HTTP/1.1".encode()), {"method": name})
        for name in METHODS
        if name is not None
    },
}

#: name -> (head, status, error); most rows are rows of the table of required answers
REFUSED: dict[str, tuple[bytes, int, Code]] = {
    # request line
    "two empty lines before": (b"\r\n\r\n" + get(), 400, Code.REQUEST_LINE),
    "blank before the method": (b" " + get(), 400, Code.REQUEST_LINE),
    "empty method": (b" / HTTP/1.1\r\n\r\n", 400, Code.REQUEST_LINE),
    "method that is no token": (line(b"GE(T / HTTP/1.1"), 400, Code.REQUEST_LINE),
    "colon after the method": (b"GET: / HTTP/1.1\r\n\r\n", 400, Code.REQUEST_LINE),
    "TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01", 400, Code.REQUEST_LINE),
    "unknown method": (line(b"BREW / HTTP/1.1"), 501, Code.METHOD),
    "lower-case method": (line(b"get / HTTP/1.1"), 501, Code.METHOD),
    "CONNECT": (line(b"CONNECT a:443 HTTP/1.1"), 501, Code.METHOD),
    "TRACE": (line(b"TRACE / HTTP/1.1"), 501, Code.METHOD),
    "endless method": (b"G" * 33, 501, Code.METHOD),
    "no target": (line(b"GET  HTTP/1.1"), 400, Code.REQUEST_LINE),
    "no version": (b"GET /\r\n\r\n", 400, Code.REQUEST_LINE),
    "tab between the parts": (line(b"GET\t/ HTTP/1.1"), 400, Code.REQUEST_LINE),
    "two spaces before the version": (line(b"GET /  HTTP/1.1"), 400, Code.VERSION),
    "relative target": (line(b"GET x HTTP/1.1"), 400, Code.TARGET),
    "asterisk of another method": (line(b"GET * HTTP/1.1"), 400, Code.TARGET),
    "asterisk and more": (line(b"OPTIONS */ HTTP/1.1"), 400, Code.TARGET),
    "fragment": (line(b"GET /a#b HTTP/1.1"), 400, Code.TARGET),
    "high byte in the target": (line(b"GET /\xc3\xa9 HTTP/1.1"), 400, Code.TARGET),
    "NUL in the target": (line(b"GET /\0 HTTP/1.1"), 400, Code.TARGET),
    "tab in the target": (line(b"GET /\t HTTP/1.1"), 400, Code.TARGET),
    "another scheme": (line(b"GET ftp://a/ HTTP/1.1"), 400, Code.TARGET),
    "absolute form without host": (line(b"GET http:///p HTTP/1.1"), 400, Code.TARGET),
    "absolute form with a user": (line(b"GET http://u@a/ HTTP/1.1"), 400, Code.TARGET),
    "version without minor": (line(b"GET / HTTP/1"), 400, Code.VERSION),
    "version of two digits": (line(b"GET / HTTP/01.1"), 400, Code.VERSION),
    "version with more digits": (line(b"GET / HTTP/1.10"), 400, Code.VERSION),
    "lower-case version": (line(b"GET / http/1.1"), 400, Code.VERSION),
    "another protocol": (line(b"GET / RTSP/1.1"), 400, Code.VERSION),
    "blank after the version": (line(b"GET / HTTP/1.1 "), 400, Code.VERSION),
    "HTTP/0.9": (line(b"GET / HTTP/0.9"), 400, Code.VERSION),
    "HTTP/2.0": (line(b"GET / HTTP/2.0"), 505, Code.VERSION_UNSUPPORTED),
    "HTTP/1.2": (line(b"GET / HTTP/1.2"), 505, Code.VERSION_UNSUPPORTED),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, Code.HTTP2_PREFACE),
    "PRI in HTTP/1.1": (line(b"PRI * HTTP/1.1"), 501, Code.METHOD),
    # line ends
    "bare LF before": (b"\n" + get(), 400, Code.LINE_END),
    "bare CR before": (b"\rGET / HTTP/1.1\r\n\r\n", 400, Code.LINE_END),
    "bare LF after the request line": (b"GET / HTTP/1.1\n", 400, Code.LINE_END),
    "bare CR after the request line": (b"GET / HTTP/1.1\rHost: a\r\n\r\n", 400, Code.LINE_END),
    "bare LF after a field": (b"GET / HTTP/1.1\r\nHost: a\n", 400, Code.LINE_END),
    "bare LF after a name": (b"GET / HTTP/1.1\r\nHost\n", 400, Code.LINE_END),
    "bare LF for the empty line": (b"GET / HTTP/1.1\r\nHost: a\r\n\n", 400, Code.LINE_END),
    "bare CR for the empty line": (b"GET / HTTP/1.1\r\nHost: a\r\n\rx", 400, Code.LINE_END),
    "bare CR in a value": (get(b"A: b\rc: d"), 400, Code.LINE_END),
    "two CR": (get(b"A: b\r"), 400, Code.LINE_END),
    # fields
    "blank before the first field": (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400, Code.FIELD_FOLDED),
    "folded field": (get(b"A: b", b" c"), 400, Code.FIELD_FOLDED),
    "field folded with a tab": (get(b"A: b", b"\tc"), 400, Code.FIELD_FOLDED),
    "blank before the colon": (get(b"A : b"), 400, Code.FIELD_NAME),
    "tab before the colon": (get(b"A\t: b"), 400, Code.FIELD_NAME),
    "blank in a name": (get(b"A B: c"), 400, Code.FIELD_NAME),
    "empty name": (get(b": b"), 400, Code.FIELD_NAME),
    "no colon": (get(b"A"), 400, Code.FIELD_NAME),
    "NUL in a name": (get(b"A\0: b"), 400, Code.FIELD_NAME),
    "high byte in a name": (get(b"A\xe9: b"), 400, Code.FIELD_NAME),
    "quote in a name": (get(b'A": b'), 400, Code.FIELD_NAME),
    "NUL in a value": (get(b"A: b\0c"), 400, Code.FIELD_VALUE),
    "vertical tab in a value": (get(b"A: \x0b"), 400, Code.FIELD_VALUE),
    "form feed in a value": (get(b"A: \x0c"), 400, Code.FIELD_VALUE),
    "escape in a value": (get(b"A: \x1b[0m"), 400, Code.FIELD_VALUE),
    "DEL in a value": (get(b"A: \x7f"), 400, Code.FIELD_VALUE),
    **{
        f"two of {name.decode()}": (get(name + b": a", name + b": a"), 400, Code.FIELD_DUPLICATE)
        for name in (b"Content-Type", b"Content-Encoding", b"Authorization", b"X-Request-Timeout")
    },
    # host
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400, Code.HOST_MISSING),
    "two hosts": (get(b"Host: a"), 400, Code.HOST),
    "two hosts of HTTP/1.0": (b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", 400, Code.HOST),
    "another host in the target": (line(b"GET http://b/ HTTP/1.1"), 400, Code.HOST_MISMATCH),
    "longer host in the target": (line(b"GET http://a:80/ HTTP/1.1"), 400, Code.HOST_MISMATCH),
    "host that folds alike": (b"GET http://a-/ HTTP/1.1\r\nHost: a\x5f\r\n\r\n", 400, Code.HOST_MISMATCH),
    **{
        f"host {value!r}": (b"GET / HTTP/1.1\r\nHost: " + value + b"\r\n\r\n", 400, Code.HOST)
        for value in (
            *(b"", b"a,b", b"a b", b"a/", b"u@a", b":80", b"a:b", b"a:80:80", b"a:65536", b"a:123456", b"a%20b"),
            *(b"[", b"[]", b"[1", b"[::1", b"[::g]", b"[::1]a", b"[::1]:x", b"a[::1]", b"\xe9", b"http://a", b"a\tb"),
        )
    },
    # framing
    **{
        f"length {value!r}": (get(b"Content-Length: " + value), 400, Code.CONTENT_LENGTH)
        for value in (
            *(b"", b"+1", b"-1", b"1_0", b"0x1", b"0o1", b"1 1", b"1,1", b"1, 1", b"1.0", b"1e1", b"a", b"01", b"00"),
            *(b"9223372036854775808", b"18446744073709551616", b"9" * 20, b"\xb2", b"1;", b'"1"'),
        )
    },
    "two equal lengths": (get(b"Content-Length: 1", b"Content-Length: 1"), 400, Code.CONTENT_LENGTH),
    "two lengths": (get(b"Content-Length: 1", b"content-length: 2"), 400, Code.CONTENT_LENGTH),
    **{
        f"coding {value!r}": (get(b"Transfer-Encoding: " + value), 400, Code.TRANSFER_ENCODING)
        for value in (
            *(b"", b"identity", b"xchunked", b"chunkedx", b"chunke", b"chunked,chunked", b"chunked, gzip", b"gzip"),
            *(b",chunked", b"chunked,", b", ,chunked", b'"chunked"', b"chunked;q=1", b"chun ked", b"chunked chunked"),
            *(b"gzip, chunked, chunked", b"g zip, chunked", b"chunked\xa0", b"c\xc4\xb1unked", b"gzip;a, chunked"),
        )
    },
    "coding with VT": (get(b"Transfer-Encoding: \x0bchunked"), 400, Code.FIELD_VALUE),
    "coding with FF": (get(b"Transfer-Encoding: chunked\x0c"), 400, Code.FIELD_VALUE),
    "coding with NUL": (get(b"Transfer-Encoding: chunked\0"), 400, Code.FIELD_VALUE),
    "folded coding": (get(b"Transfer-Encoding:", b" chunked"), 400, Code.TRANSFER_ENCODING),
    "two codings": (get(*[b"Transfer-Encoding: chunked"] * 2), 400, Code.TRANSFER_ENCODING),
    "coding in HTTP/1.0": (b"PUT / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400, Code.TRANSFER_ENCODING),
    "unknown coding before": (get(b"Transfer-Encoding: gzip, chunked"), 501, Code.TRANSFER_CODING_UNKNOWN),
    "identity before": (get(b"Transfer-Encoding: identity,\tchunked"), 501, Code.TRANSFER_CODING_UNKNOWN),
    "length and coding": (
        get(b"Content-Length: 1", b"Transfer-Encoding: chunked"),
        400,
        Code.LENGTH_AND_CODING,
    ),
    "coding and length 0": (
        get(b"Transfer-Encoding: chunked", b"Content-Length: 0"),
        400,
        Code.LENGTH_AND_CODING,
    ),
    "underscore length": (get(b"Content_Length: 1"), 400, Code.UNDERSCORE_TWIN),
    "underscore coding": (get(b"TRANSFER_encoding: chunked"), 400, Code.UNDERSCORE_TWIN),
    "unknown expectation": (get(b"Expect: 200-ok"), 417, Code.EXPECT),
    "list of expectations": (get(b"Expect: 100-continue, 100-continue"), 417, Code.EXPECT),
}

CASES = {name: head for name, (head, _) in ACCEPTED.items()} | {name: head for name, (head, _, _) in REFUSED.items()}


@pytest.fixture(scope="module")
def guarded() -> Iterator[GuardedMemory]:
    memory = GuardedMemory(4096)
    yield memory
    memory.close()


def fast(data: bytes | bytearray | memoryview, parser: HeadParser | None = None) -> Outcome:
    try:
        head = (parser or HeadParser()).parse(data)
    except Http1Error as error:
        return Code(error.code)
    return None if head is None else dict(head)


def slow(data: bytes) -> Outcome:
    try:
        return twin.parse_head(data)
    except twin.Refused as error:
        return error.code


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(name: str) -> None:
    data, expected = ACCEPTED[name]
    head = parse_head(data)
    assert head is not None
    assert {key: value for key, value in head.items() if key in expected} == expected
    assert head["head_bytes"] == len(data)
    assert dict(head) == slow(data)


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    data, status, code = REFUSED[name]
    with pytest.raises(Http1Error) as caught:
        parse_head(data)
    assert (Code(caught.value.code), caught.value.status) == (code, status)
    assert slow(data) == code


@pytest.mark.parametrize("name", CASES)
def test_every_prefix_is_judged_alike(name: str) -> None:
    """Each prefix by itself, and one parser that is given one more byte each time."""
    data = CASES[name]
    growing = HeadParser()
    for end in range(len(data) + 1):
        expected = slow(data[:end])
        assert fast(data[:end]) == expected
        assert fast(data[:end], growing) == expected
        if expected is not None:
            break


@pytest.mark.parametrize("name", CASES)
def test_every_split(name: str) -> None:
    data = CASES[name]
    whole = fast(data)
    for split in range(len(data)):
        parser = HeadParser()
        first = fast(data[:split], parser)
        assert first is None or first == whole
        assert fast(bytearray(data), parser) == whole


@pytest.mark.parametrize("behind", [b"\0", b"\r\n\r\n", b"GET / HTTP/1.1\r\nHost: b\r\n\r\n", b"x" * 40])
def test_bytes_behind_change_nothing(behind: bytes) -> None:
    for name, (data, _) in ACCEPTED.items():
        assert fast(data + behind) == fast(data), name


@pytest.mark.parametrize("name", CASES)
def test_reads_nothing_outside(name: str, guarded: GuardedMemory) -> None:
    data = CASES[name]
    for end in range(len(data) + 1):
        expected = fast(data[:end])
        with guarded.at_end(data[:end]) as view:
            assert fast(view) == expected
        with guarded.at_begin(data[:end]) as view:
            assert fast(view) == expected


def test_an_error_stays() -> None:
    parser = HeadParser()
    assert fast(b"GET / HTTP/3.0", parser) == Code.VERSION_UNSUPPORTED
    assert fast(get(), parser) == Code.VERSION_UNSUPPORTED


@pytest.mark.parametrize("begun", [b"GET /aaaa", b"GET / HTTP/1.1\r\nHost: a\r\nAaaa", b"GET / HTTP/1.1\r\nHost: aaaa"])
def test_a_byte_is_looked_at_once(begun: bytes) -> None:
    """What was read is not read again: a head that trickles in costs no more than one that comes at once."""
    parser = HeadParser()
    assert fast(begun, parser) is None
    damaged = begun[:-3] + b"\0" + begun[-2:]
    assert fast(damaged, parser) is None
    assert fast(damaged) in (Code.TARGET, Code.FIELD_NAME, Code.FIELD_VALUE)


def test_a_finished_head_stays() -> None:
    parser = HeadParser()
    head = fast(get(), parser)
    assert isinstance(head, dict)
    assert fast(get() + b"more", parser) == head


@pytest.mark.parametrize("position", range(len(b"PUT /a?b HTTP/1.1\r\nHost: a\r\nAb: c d\r\n\r\n")))
def test_every_byte_at_every_place(position: int) -> None:
    data = bytearray(b"PUT /a?b HTTP/1.1\r\nHost: a\r\nAb: c d\r\n\r\n")
    for byte in range(256):
        data[position] = byte
        assert fast(bytes(data)) == slow(bytes(data)), bytes(data)


@pytest.mark.parametrize("length", [*range(1, 40), 100])
def test_every_byte_ends_runs_of_every_length(length: int) -> None:
    """Names, values and targets around the 16 bytes that are looked at together."""
    run = b"a" * (length - 1)
    for byte in range(256):
        wrong = run + bytes([byte])
        for data in (b"GET /%b HTTP/1.0\r\n\r\n" % wrong, b"GET / HTTP/1.0\r\n%b:v\r\nA:%b\r\n\r\n" % (wrong, wrong)):
            assert fast(data) == slow(data), data


def test_generated_requests() -> None:
    for seed in range(COUNT):
        data = request(seed)
        assert fast(data) == slow(data), f"request({seed})"


def test_limits_are_exact() -> None:
    for size in (0, 1, 2, 15, 16, 17, 8192):
        limits = twin.Limits(max_target_bytes=size)
        for target_bytes in {max(1, size - 1), max(1, size), size + 1, size + 2}:
            data = line(b"GET /%b HTTP/1.1" % (b"a" * (target_bytes - 1)))
            expected = Code.TARGET_TOO_LONG if target_bytes > size else slow(data)
            assert fast(data, HeadParser(max_target_bytes=size)) == expected
            if size < 100:
                assert compare_prefixes(data, limits) == expected
    data = get(b"A: b", b"C: " + b"d" * 30)
    for size in range(len(data) + 2):
        expected = Code.HEAD_TOO_LARGE if size < len(data) else slow(data)
        assert compare_prefixes(data, twin.Limits(max_head_bytes=size)) == expected
    for count in (0, 1, 2, 3):
        expected = Code.TOO_MANY_FIELDS if count < 3 else slow(data)
        assert compare_prefixes(data, twin.Limits(max_fields=count)) == expected


def compare_prefixes(data: bytes, limits: twin.Limits) -> Outcome:
    """Feeds byte by byte and compares with the twin at each; the verdict at the end."""
    parser = HeadParser(limits.max_target_bytes, limits.max_head_bytes, limits.max_fields)
    verdict: Outcome = None
    for end in range(len(data) + 1):
        try:
            expected: Outcome = twin.parse_head(data[:end], limits)
        except twin.Refused as error:
            expected = error.code
        verdict = fast(data[:end], parser)
        assert verdict == expected, (end, limits)
        if verdict is not None:
            break
    return verdict


def test_default_limits() -> None:
    def head_of(size: int) -> bytes:
        return get(b"A: " + b"b" * (size - len(get(b"A: "))))

    assert len(head_of(32768)) == 32768
    assert isinstance(fast(head_of(32768)), dict)
    assert fast(head_of(32769)) == Code.HEAD_TOO_LARGE
    assert fast(head_of(40000)[:32768]) == Code.HEAD_TOO_LARGE
    assert isinstance(fast(get(*[b"A: b"] * 99)), dict)
    assert fast(get(*[b"A: b"] * 100)) == Code.TOO_MANY_FIELDS
    assert isinstance(fast(line(b"GET /" + b"a" * 8191 + b" HTTP/1.1")), dict)
    assert fast(b"GET /" + b"a" * 8192) == Code.TARGET_TOO_LONG


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"GET / HTTP/1.1\n", Code.LINE_END),
        (b"GET / HTTP/1.1\r\nHost: a\n", Code.LINE_END),
        (b"\x16", Code.REQUEST_LINE),
        (b"BREW ", Code.METHOD),
        (b"GET /\x80", Code.TARGET),
        (b"GET / X", Code.VERSION),
        (b"GET / HTTP/2.0", Code.VERSION_UNSUPPORTED),
        (b"GET / HTTP/1.1\r\nHost ", Code.FIELD_NAME),
        (b"GET / HTTP/1.1\r\nA: b\r\n ", Code.FIELD_FOLDED),
        (b"GET / HTTP/1.1\r\nA: \0", Code.FIELD_VALUE),
        (b"GET / HTTP/1.1\r\nContent-Length: x\r\n", Code.CONTENT_LENGTH),
    ],
)
def test_refused_at_the_first_wrong_byte(data: bytes, code: Code) -> None:
    """A client that broke the rules is not waited for."""
    assert fast(data[:-1]) is None
    assert fast(data) == code


def test_error_table_is_complete() -> None:
    table = error_table()
    assert set(table) == {code.value for code in Code}
    for code in Code:
        status, text = table[code]
        assert status == twin.STATUS.get(code, 400), code.name
        assert text != "internal error"
        assert not set(text) & set('"\\'), "no character that JSON escapes"
        assert text.isascii()
        assert text.isprintable()
    assert len({text for _, text in table.values()}) == len(table)


@pytest.mark.parametrize("code", [0, len(Code) + 1, 1000])
def test_a_number_that_is_no_error(code: int) -> None:
    assert (Http1Error(code).status, Http1Error(code).text) == (500, "internal error")
