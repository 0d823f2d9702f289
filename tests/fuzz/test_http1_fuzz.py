"""Split invariance of the HTTP/1.1 parsers: however bytes arrive, verdict, values and consumed count are the same.

Inputs are lists of words that requests and chunked bodies are made of, mixed with raw bytes: hypothesis shrinks a
failure to the few words that matter. HEADRACE_STRESS=N tries N * 10,000 examples a property instead of 200.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server._fast.http1 import HeadParser, Http1Error
from server._fast.http1_chunk import ChunkedBody
from tests.reference import http1 as twin
from tests.reference.http1 import Code, Limits
from tests.support.http1_requests import request

EXAMPLES = 10_000 * int(os.environ.get("HEADRACE_STRESS") or 0) or 200
fuzzed = settings(
    max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)

WORDS = [
    *(b"GET", b"POST", b"PRI", b"OPTIONS", b"BREW", b" ", b"/", b"*", b"/a?b", b"http://a", b"HTTP/1.1", b"HTTP/1.0"),
    *(b"HTTP/2.0", b"\r\n", b"\r", b"\n", b":", b": ", b"\t", b",", b"Host", b"a", b"Content-Length", b"5", b"0", b"1"),
    *(b"Transfer-Encoding", b"chunked", b"gzip, chunked", b"Expect", b"100-continue", b"Connection", b"close", b"_"),
    *(b"keep-alive", b"Content_Length", b"traceparent", b"Accept", b"\0", b"\x7f", b"\xe9", b"x" * 15, b"x" * 17),
    *(
        b"Host: a\r\n",
        b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n",
        b"Content-Type",
        b"Inference-Header-Content-Length",
    ),
]
CHUNK_WORDS = [
    *(
        b"0",
        b"1",
        b"5",
        b"a",
        b"F",
        b"10",
        b"0000",
        b"\r\n",
        b"\r",
        b"\n",
        b";",
        b"=",
        b'"',
        b"\\",
        b"x",
        b"hello",
        b" ",
    ),
    *(
        b"1\r\nx\r\n",
        b"5\r\nhello\r\n",
        b"0\r\n",
        b"\r\n\r\n",
        b"A: b\r\n",
        b"A",
        b":",
        b"\0",
        b"\xe9",
        b"\t",
        b";a=b",
        b"g",
    ),
    *(b"7fffffffffffffff", b"8000000000000000", b'1;a="b"\r\nx\r\n'),
]


def texts(words: list[bytes]) -> st.SearchStrategy[bytes]:
    return st.lists(st.sampled_from(words) | st.binary(min_size=1, max_size=3), max_size=30).map(b"".join)


heads = texts(WORDS) | st.integers(0, 2**32).map(request)
begun_heads = texts(WORDS).map(b"GET / HTTP/1.1\r\nHost: a\r\n".__add__)
bodies = texts(CHUNK_WORDS) | st.binary(max_size=60).map(lambda data: b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data))
limits = st.builds(Limits, st.integers(0, 40), st.integers(0, 200), st.integers(0, 6))
cuts = st.lists(st.integers(0, 400), max_size=8)


def parsed(parser: HeadParser, data: bytes) -> object:
    try:
        return parser.parse(data)
    except Http1Error as error:
        return Code(error.code)


def parser_of(limit: Limits) -> HeadParser:
    return HeadParser(limit.max_target_bytes, limit.max_head_bytes, limit.max_fields)


def check_head(data: bytes, places: list[int], limit: Limits) -> None:
    whole = parsed(parser_of(limit), data)
    try:
        expected: object = twin.parse_head(data, limit)
    except twin.Refused as error:
        expected = error.code
    assert whole == expected
    parser = parser_of(limit)
    for end in sorted({min(place, len(data)) for place in places}):
        verdict = parsed(parser, data[:end])
        assert verdict is None or verdict == whole
        assert verdict == parsed(parser_of(limit), data[:end])
    assert parsed(parser, data) == whole


@fuzzed
@given(data=heads, places=cuts)
def test_heads(data: bytes, places: list[int]) -> None:
    check_head(data, places, Limits())


@fuzzed
@given(data=begun_heads, places=cuts)
def test_fields(data: bytes, places: list[int]) -> None:
    check_head(data, places, Limits())


@fuzzed
@given(data=heads | begun_heads, places=cuts, limit=limits)
def test_heads_at_their_limits(data: bytes, places: list[int], limit: Limits) -> None:
    check_head(data, places, limit)


@fuzzed
@given(data=heads)
def test_heads_byte_by_byte(data: bytes) -> None:
    check_head(data, list(range(len(data))), Limits())


def decoded(pieces: list[bytes], max_body_bytes: int) -> object:
    """(data, consumed, whether complete), or (error, consumed); data before an error is not part of the verdict."""
    decoder = ChunkedBody(max_body_bytes)
    data = b""
    try:
        for piece in pieces:
            data += decoder.feed(piece)
    except Http1Error as error:
        return Code(error.code), decoder.consumed_bytes
    return data, decoder.consumed_bytes, decoder.is_done


@fuzzed
@given(source=bodies, places=cuts, max_body_bytes=st.sampled_from([0, 1, 10, 2**63 - 1]))
def test_chunked_bodies(source: bytes, places: list[int], max_body_bytes: int) -> None:
    whole = decoded([source], max_body_bytes)
    try:
        chunks = twin.decode_chunked(source, max_body_bytes)
        expected: object = (bytes(chunks.data), chunks.consumed_bytes, chunks.is_done)
    except twin.Refused as error:
        expected = (error.code, error.at)
    assert whole == expected
    ends = sorted({min(place, len(source)) for place in places} | {len(source)})
    assert decoded([source[begin:end] for begin, end in zip([0, *ends], ends, strict=False)], max_body_bytes) == whole
    assert decoded([bytes([byte]) for byte in source], max_body_bytes) == whole


@fuzzed
@given(source=bodies, capacity=st.integers(1, 7))
def test_chunked_bodies_into_little_room(source: bytes, capacity: int) -> None:
    whole = decoded([source], 2**63 - 1)
    decoder = ChunkedBody()
    data = b""
    verdict: object = None
    for _ in range(len(source) + 2):
        try:
            data += decoder.feed(source[decoder.consumed_bytes :], capacity)
        except Http1Error as error:
            verdict = (Code(error.code), decoder.consumed_bytes)
            break
        verdict = (data, decoder.consumed_bytes, decoder.is_done)
    assert verdict == whole


@fuzzed
@given(source=bodies)
def test_chunked_bodies_in_place(source: bytes) -> None:
    """Each piece onto itself; the data before an error is as it was, whole or not."""
    decoder = ChunkedBody()
    data = b""
    verdict: object = None
    for begin in range(0, len(source), 9):
        memory = bytearray(source[begin : begin + 9])
        try:
            data += memory[: decoder.feed_in_place(memory)]
        except Http1Error as error:
            verdict = (Code(error.code), decoder.consumed_bytes)
            break
    assert (verdict or (data, decoder.consumed_bytes, decoder.is_done)) == decoded([source], 2**63 - 1)
