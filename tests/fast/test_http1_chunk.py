"""Chunked bodies: every case whole, in bytes, at every split, with bytes behind, in place and against a guard page."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from server._fast.http1 import Http1Error
from server._fast.http1_chunk import ChunkedBody, decode_chunked
from tests.reference import http1 as twin
from tests.reference.http1 import Code
from tests.support.guard_page import GuardedMemory
from tests.support.http1_requests import request

#: HEADRACE_STRESS=N generates N * 10^5 requests instead of 3,000.
COUNT = 100_000 * int(os.environ.get("HEADRACE_STRESS") or 0) or 3_000

#: (data so far, source bytes used, whether the end was read), or (error, place of the wrong byte)
Outcome = tuple[bytes, int, bool] | tuple[Code, int]

ACCEPTED: dict[str, tuple[bytes, bytes]] = {
    "empty": (b"0\r\n\r\n", b""),
    "one": (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
    "two": (b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", b"hello world"),
    "data that looks like framing": (b"7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n", b"\r\n0\r\n\r\n"),
    "digits of both cases": (b"a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", b"0123456789" * 2),
    "leading zeros": (b"0000000000000005\r\nhello\r\n0000\r\n\r\n", b"hello"),
    "extension": (b"1;a\r\nx\r\n0;b=c\r\n\r\n", b"x"),
    "extensions": (b"1;a;b=c;d\r\nx\r\n0\r\n\r\n", b"x"),
    "quoted extension": (b'1;a="b;c \\" \\\\ d";e\r\nx\r\n0;f=""\r\n\r\n', b"x"),
    "longest extension": (b"1;" + b"a" * 256 + b"\r\nx\r\n0\r\n\r\n", b"x"),
    "trailers are dropped": (b"1\r\nx\r\n0\r\nA: b\r\nContent-Length: 5\r\nHost:\t c\xe9 \r\n\r\n", b"x"),
}

REFUSED: dict[str, tuple[bytes, Code]] = {
    "no size": (b"\r\nhello", Code.CHUNK_SIZE),
    "0x": (b"0x5\r\nhello", Code.CHUNK_SIZE),
    "plus": (b"+5\r\nhello", Code.CHUNK_SIZE),
    "minus": (b"-5\r\nhello", Code.CHUNK_SIZE),
    "underscore": (b"1_0\r\nhello", Code.CHUNK_SIZE),
    "blank before": (b" 5\r\nhello", Code.CHUNK_SIZE),
    "blank behind": (b"5 \r\nhello", Code.CHUNK_SIZE),
    "tab behind": (b"5\t\r\nhello", Code.CHUNK_SIZE),
    "blank before the extension": (b"5 ;a\r\nhello", Code.CHUNK_SIZE),
    "NUL": (b"5\0\r\n", Code.CHUNK_SIZE),
    "letter": (b"g\r\n", Code.CHUNK_SIZE),
    "17 digits": (b"00000000000000005\r\nhello", Code.CHUNK_SIZE),
    "2^63": (b"8000000000000000\r\n", Code.CHUNK_SIZE),
    "2^64": (b"10000000000000000\r\n", Code.CHUNK_SIZE),
    "bare LF after the size": (b"5\nhello", Code.LINE_END),
    "bare CR after the size": (b"5\rhello", Code.LINE_END),
    "two CR after the size": (b"5\r\r\nhello", Code.LINE_END),
    "data too long": (b"5\r\nhello!\r\n0\r\n\r\n", Code.CHUNK_END),
    "bare LF after the data": (b"5\r\nhello\n0\r\n\r\n", Code.CHUNK_END),
    "bare CR after the data": (b"5\r\nhello\r0\r\n\r\n", Code.CHUNK_END),
    "no line end after the data": (b"5\r\nhello0\r\n\r\n", Code.CHUNK_END),
    "bare semicolon": (b"5;\r\nhello", Code.CHUNK_EXTENSION),
    "second semicolon bare": (b"5;a;\r\nhello", Code.CHUNK_EXTENSION),
    "two semicolons": (b"5;;a\r\nhello", Code.CHUNK_EXTENSION),
    "extension without name": (b"5;=a\r\nhello", Code.CHUNK_EXTENSION),
    "extension without value": (b"5;a=\r\nhello", Code.CHUNK_EXTENSION),
    "extension with two values": (b"5;a=b=c\r\nhello", Code.CHUNK_EXTENSION),
    "blank in an extension": (b"5; a\r\nhello", Code.CHUNK_EXTENSION),
    "control byte in an extension": (b"5;a\x01\r\nhello", Code.CHUNK_EXTENSION),
    "bare LF in an extension": (b"5;a\nhello", Code.LINE_END),
    "bare CR in an extension": (b"5;a\rb\r\nhello", Code.LINE_END),
    "LF in a quoted extension": (b'5;a="\n"\r\nhello', Code.LINE_END),
    "CR in a quoted extension": (b'5;a="\r\n"\r\nhello', Code.CHUNK_EXTENSION),
    "tab in a quoted extension": (b'5;a="\t"\r\nhello', Code.CHUNK_EXTENSION),
    "high byte in a quoted extension": (b'5;a="\xe9"\r\nhello', Code.CHUNK_EXTENSION),
    "open quote": (b'5;a="\\"\r\nhello', Code.CHUNK_EXTENSION),
    "text behind the quote": (b'5;a="b"c\r\nhello', Code.CHUNK_EXTENSION),
    "quote in a name": (b'5;"a"\r\nhello', Code.CHUNK_EXTENSION),
    "extension of 257 bytes": (b"1;" + b"a" * 257 + b"\r\n", Code.CHUNK_EXTENSION),
    "trailer without colon": (b"0\r\nA\r\n\r\n", Code.TRAILER),
    "trailer without name": (b"0\r\n: a\r\n\r\n", Code.TRAILER),
    "blank before the trailer's colon": (b"0\r\nA : b\r\n\r\n", Code.TRAILER),
    "folded trailer": (b"0\r\nA: b\r\n c\r\n\r\n", Code.TRAILER),
    "NUL in a trailer": (b"0\r\nA: \0\r\n\r\n", Code.TRAILER),
    "bare LF after a trailer": (b"0\r\nA: b\n\r\n", Code.LINE_END),
    "bare LF after a trailer's name": (b"0\r\nA\n\r\n", Code.LINE_END),
    "bare CR after a trailer": (b"0\r\nA: b\rC: d\r\n\r\n", Code.LINE_END),
    "bare LF at the end": (b"0\r\n\n", Code.LINE_END),
    "bare CR at the end": (b"0\r\n\rGET", Code.LINE_END),
}

CASES = {name: data for name, (data, _) in ACCEPTED.items()} | {name: data for name, (data, _) in REFUSED.items()}


@pytest.fixture(scope="module")
def guarded() -> Iterator[GuardedMemory]:
    memory = GuardedMemory(4096)
    yield memory
    memory.close()


def fast(*pieces: bytes | memoryview) -> Outcome:
    decoder = ChunkedBody()
    data = b""
    try:
        for piece in pieces:
            data += decoder.feed(piece)
    except Http1Error as error:
        return Code(error.code), decoder.consumed_bytes
    return data, decoder.consumed_bytes, decoder.is_done


def slow(source: bytes) -> Outcome:
    try:
        chunks = twin.decode_chunked(source)
    except twin.Refused as error:
        return error.code, error.at
    return bytes(chunks.data), chunks.consumed_bytes, chunks.is_done


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(name: str) -> None:
    source, data = ACCEPTED[name]
    assert decode_chunked([source]) == (data, len(source))
    assert fast(source) == slow(source) == (data, len(source), True)


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    source, code = REFUSED[name]
    with pytest.raises(Http1Error) as caught:
        decode_chunked([source])
    assert (Code(caught.value.code), caught.value.status) == (code, 400)
    assert fast(source) == slow(source)


@pytest.mark.parametrize("name", CASES)
def test_however_it_is_cut(name: str) -> None:
    source = CASES[name]
    whole = fast(source)
    assert fast(*[source[at : at + 1] for at in range(len(source))]) == whole
    for split in range(len(source) + 1):
        assert fast(source[:split], source[split:]) == whole
        assert fast(source[:split], b"", source[split:]) == whole
        assert fast(source[:split]) == slow(source[:split])


@pytest.mark.parametrize("behind", [b"\0", b"0\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"])
def test_bytes_behind_are_left(behind: bytes) -> None:
    for name, (source, data) in ACCEPTED.items():
        assert fast(source + behind) == (data, len(source), True), name
        assert fast(source, behind) == (data, len(source), True), name


@pytest.mark.parametrize("name", CASES)
def test_in_place(name: str) -> None:
    source, outcome = CASES[name], fast(CASES[name])
    decoder = ChunkedBody()
    memory = bytearray(source)
    try:
        length = decoder.feed_in_place(memory)
    except Http1Error as error:
        assert (Code(error.code), decoder.consumed_bytes) == outcome
        return
    assert (bytes(memory[:length]), decoder.consumed_bytes, decoder.is_done) == outcome


@pytest.mark.parametrize("name", CASES)
def test_reads_nothing_outside(name: str, guarded: GuardedMemory) -> None:
    source = CASES[name]
    for end in range(len(source) + 1):
        expected = fast(source[:end])
        with guarded.at_end(source[:end]) as view:
            assert fast(view) == expected
        with guarded.at_begin(source[:end]) as view:
            assert fast(view) == expected


@pytest.mark.parametrize("name", ACCEPTED)
@pytest.mark.parametrize("capacity", [0, 1, 3])
def test_a_full_destination_stops_it(name: str, capacity: int) -> None:
    source, expected = ACCEPTED[name]
    decoder = ChunkedBody()
    data = b""
    for _ in range(len(source) + 1):
        piece = decoder.feed(source[decoder.consumed_bytes :], capacity)
        assert len(piece) <= capacity
        data += piece
    assert (data == expected) == decoder.is_done == (capacity > 0 or not expected)


def test_an_error_stays() -> None:
    decoder = ChunkedBody()
    with pytest.raises(Http1Error):
        decoder.feed(b"g")
    with pytest.raises(Http1Error):
        decoder.feed(b"0\r\n\r\n")
    assert decoder.consumed_bytes == 0


@pytest.mark.parametrize("position", range(len(b'1;a="\\b"\r\nx\r\n0;c=d\r\nE: f\r\n\r\n')))
def test_every_byte_at_every_place(position: int) -> None:
    source = bytearray(b'1;a="\\b"\r\nx\r\n0;c=d\r\nE: f\r\n\r\n')
    for byte in range(256):
        source[position] = byte
        assert fast(bytes(source)) == slow(bytes(source)), bytes(source)


def test_generated_bodies() -> None:
    for seed in range(COUNT):
        source = request(seed).partition(b"\r\n\r\n")[2]
        assert fast(source) == slow(source), f"request({seed})"


def test_body_limit_is_checked_before_the_data() -> None:
    def announce(size: int) -> ChunkedBody:
        decoder = ChunkedBody(10)
        decoder.feed(b"4\r\n1234\r\n%x\r\n" % size)
        return decoder

    assert announce(6).feed(b"567890\r\n0\r\n\r\n") == b"567890"
    with pytest.raises(Http1Error) as caught:
        announce(7)
    assert (Code(caught.value.code), caught.value.status) == (Code.BODY_TOO_LARGE, 413)
    with pytest.raises(Http1Error):
        announce(2**63 - 1)


def test_number_of_chunks() -> None:
    """65,536 chunks pass, the next is refused at the end of its size line."""
    source = b"5\r\nhello\r\n" * 65536
    assert fast(source + b"0\r\n\r\n") == (b"hello" * 65536, len(source) + 5, True)
    assert fast(source + b"1\r") == (b"hello" * 65536, len(source) + 2, False)
    assert fast(source + b"1\r\n") == (Code.TOO_MANY_CHUNKS, len(source) + 2)


def test_extensions_in_all() -> None:
    source = b"1;" + b"a" * 256 + b"\r\nx\r\n"
    assert fast(source * 64 + b"0\r\n\r\n")[0] == b"x" * 64
    refused = source * 64 + b"1;a"
    assert fast(refused) == slow(refused) == (Code.CHUNK_EXTENSION, len(refused) - 1)


def test_framing_may_cost_eight_times_the_data() -> None:
    """Chunks of one byte with sizes of 13 digits cost 17 bytes of framing each; judged from 64 KiB of it on."""
    thin = b"0000000000001\r\nx\r\n"
    refused = thin * 4000
    code, at = fast(refused)[:2]
    assert code == Code.CHUNK_OVERHEAD
    # the framing of n chunks and of the next size line, the last byte of which is the wrong one
    count = (65536 - 15) // 17 + 1
    assert at == count * 18 + 14
    assert fast(refused) == slow(refused)
    fair = b"00000000000000a\r\n0123456789\r\n"
    assert fast(fair * 5000 + b"0\r\n\r\n")[2:] == (True,)
    # eight times is the limit, not above it: chunks of 8 framing bytes, the last of them after the size line
    even = b"0001\r\nx\r\n" * 10_000
    assert fast(b"00" + even)[1:] == (len(even) + 2, False)
    assert fast(b"000" + even)[0] == Code.CHUNK_OVERHEAD
    # a chunk that pays for what came before is let through
    assert fast(thin * (count - 1) + b"ffff\r\n")[2:] == (False,)


def test_trailer_limits() -> None:
    for fields in (b"A: b\r\n" * 100, b"A: " + b"b" * (8192 - 5) + b"\r\n"):
        source = b"0\r\n" + fields
        expected = Code.TRAILERS_TOO_LARGE
        if len(fields) < 8192:
            assert fast(source + b"\r\n")[2:] == (True,)
        assert fast(source + b"A: b\r\n\r\n") == slow(source + b"A: b\r\n\r\n") == (expected, len(source))
    long = b"0\r\nA: " + b"b" * 9000
    assert fast(long) == slow(long) == (Code.TRAILERS_TOO_LARGE, 3 + 8192)


def test_large_body_in_uneven_pieces() -> None:
    data = bytes(range(256)) * 1024
    source = b"".join(
        b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (data[at : at + 4099] for at in range(0, len(data), 4099))
    )
    source += b"0\r\n\r\n"
    pieces = [source[at : at + 1361] for at in range(0, len(source), 1361)]
    assert decode_chunked(pieces) == (data, len(source))
    assert decode_chunked(pieces[:-1]) is None
