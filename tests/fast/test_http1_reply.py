"""Response heads: exact bytes, and what clients we did not write make of them."""

from __future__ import annotations

import json

import h11
import pytest

from server._fast.http1 import error_table
from server._fast.http1_reply import write_continue, write_error, write_head

JSON, OCTET, TEXT, PROMETHEUS, OPENMETRICS, HTML = range(1, 7)
CLOSE, KEEP, KEEP_1_0 = range(3)

TYPES = {
    0: None,
    JSON: b"application/json",
    OCTET: b"application/octet-stream",
    TEXT: b"text/plain; charset=utf-8",
    PROMETHEUS: b"text/plain; version=0.0.4; charset=utf-8",
    OPENMETRICS: b"application/openmetrics-text; version=1.0.0; charset=utf-8",
    HTML: b"text/html; charset=utf-8",
    99: None,
}

REASONS = {
    200: "OK",
    201: "Created",
    202: "Accepted",
    204: "No Content",
    304: "Not Modified",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    408: "Request Timeout",
    409: "Conflict",
    411: "Length Required",
    412: "Precondition Failed",
    413: "Content Too Large",
    414: "URI Too Long",
    415: "Unsupported Media Type",
    417: "Expectation Failed",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    499: "Client Closed Request",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    505: "HTTP Version Not Supported",
    299: "Unknown",
}


def read_back(data: bytes) -> tuple[h11.Response, bytes]:
    """What h11's client makes of a whole response, and the bytes behind its head."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    event = client.next_event()
    assert isinstance(event, h11.Response)
    return event, data[data.index(b"\r\n\r\n") + 4 :]


def test_hot_path_bytes() -> None:
    assert write_head(200, JSON, 27, KEEP) == (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 27\r\n\r\n"
    )
    assert write_head(200, OCTET, 300, KEEP, 120) == (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: 300\r\n"
        b"Inference-Header-Content-Length: 120\r\n\r\n"
    )


@pytest.mark.parametrize("status", REASONS)
def test_reasons(status: int) -> None:
    response, _ = read_back(write_head(status, JSON, 0, KEEP))
    assert (response.status_code, response.reason.decode()) == (status, REASONS[status])


@pytest.mark.parametrize("status", [-1, 0, 99, 1000, 2**31 - 1])
def test_a_number_that_is_no_status(status: int) -> None:
    assert write_head(status, JSON, 0, KEEP).startswith(b"HTTP/1.1 500 Internal Server Error\r\n")


@pytest.mark.parametrize("content_type", TYPES)
@pytest.mark.parametrize("status", [200, 503])
def test_content_types(status: int, content_type: int) -> None:
    response, _ = read_back(write_head(status, content_type, 3, KEEP))
    assert dict(response.headers).get(b"content-type") == TYPES[content_type]
    assert dict(response.headers)[b"content-length"] == b"3"


@pytest.mark.parametrize("number", [0, 1, 9, 10, 99, 100, 12345, 2**31, 2**63 - 1])
def test_numbers(number: int) -> None:
    for status in (200, 404):
        response, _ = read_back(write_head(status, JSON, number, KEEP, number))
        headers = dict(response.headers)
        assert headers[b"content-length"] == headers[b"inference-header-content-length"] == str(number).encode()


@pytest.mark.parametrize(("persistence", "said"), [(CLOSE, b"close"), (KEEP, None), (KEEP_1_0, b"keep-alive")])
def test_persistence(persistence: int, said: bytes | None) -> None:
    for status in (200, 503):
        response, _ = read_back(write_head(status, JSON, 0, persistence))
        assert dict(response.headers).get(b"connection") == said


def test_no_length_and_no_type() -> None:
    assert write_head(204, 0, -1, KEEP) == b"HTTP/1.1 204 No Content\r\n\r\n"
    assert b"Content-Length" not in write_head(200, JSON, -1, KEEP)


def test_extra_lines() -> None:
    response, _ = read_back(write_head(405, JSON, 0, KEEP, -1, b"Allow: GET, HEAD\r\nRetry-After: 1\r\n"))
    assert dict(response.headers)[b"allow"] == b"GET, HEAD"
    assert dict(response.headers)[b"retry-after"] == b"1"
    large = b"X: " + b"a" * 100_000 + b"\r\n"
    assert write_head(200, JSON, 0, KEEP, -1, large).endswith(large + b"\r\n")


def test_longest_head_fits_its_reservation() -> None:
    """The longest parts together, with extra lines that fill the buffer's first sizes up to the last byte."""
    longest = (431, OPENMETRICS, 2**63 - 1, KEEP_1_0, 2**63 - 1)
    head = write_head(*longest)
    assert len(head) <= 512
    for room in (4096, 8192):
        for extra_bytes in range(room - 600, room + 1):
            extra = b"X: " + b"a" * (extra_bytes - 5) + b"\r\n"
            assert write_head(*longest, extra) == head[:-2] + extra + b"\r\n"


def test_continue() -> None:
    assert write_continue() == b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.mark.parametrize("code", error_table())
def test_errors(code: int) -> None:
    status, text = error_table()[code]
    response, body = read_back(write_error(code))
    headers = dict(response.headers)
    assert response.status_code == status
    assert response.reason.decode() == REASONS[status]
    assert json.loads(body) == {"error": text}
    assert headers[b"content-length"] == str(len(body)).encode()
    assert headers[b"connection"] == b"close"
    assert write_error(-code) == write_error(code)
