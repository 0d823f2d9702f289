"""Random HTTP/1.1 requests: most of them right or nearly so, each from its own seed.

A request is built from parts that clients send, then damaged in zero to three places: parts that parsers are known to
disagree on (hardening tables of gunicorn, http-garden, Http11Probe) are drawn more often than random bytes.
"""

from __future__ import annotations

from random import Random

METHODS = [b"GET", b"POST", b"PUT", b"DELETE", b"HEAD", b"OPTIONS", b"PATCH"]
TARGETS = [
    *(b"/", b"/v2/health/ready", b"/v2/models/m/infer", b"/a?b=c&d", b"/a?", b"/%20", b"/a//b/../c", b"/a|b{c}"),
    *(b"http://a/x", b"http://a", b"*", b"/x y", b"/#a", b"/\xe9", b"x", b"", b"//a", b"/?" + b"q" * 40),
]
VERSIONS = [
    *(b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.2", b"http/1.1", b"HTTP/1.1 ", b"HTTP/1", b"HTTP/01.1", b"HTTP/0.9"),
    *(b"HTTP/1.1\t", b"HTTP/1.10", b"HTTPS/1.1", b"", b"HTTP/11"),
]
FIELDS = [
    *(b"User-Agent: python-requests/2.31.0", b"Accept: */*", b"Accept-Encoding: gzip, deflate", b"X-Request-Id: 1"),
    *(b"Connection: keep-alive", b"Connection: close", b"Content-Type: application/json", b"X-Empty:", b"X:\t v \t"),
    *(b"Inference-Header-Content-Length: 5", b"Authorization: Bearer abc", b"traceparent: 00-1-2-01", b"X: \xe9"),
    *(b"Expect: 100-continue", b"Cookie: a=b; c=d", b"If-None-Match: *"),
]
BAD_FIELDS = [
    *(
        b"A : b",
        b" A: b",
        b"\tA: b",
        b"A",
        b": b",
        b"A: b\0",
        b"A: \x0b",
        b"A: \x7f",
        b"A\x00: b",
        b"A: b\rC: d",
        b"A\r",
    ),
    *(b"A(: b", b"A: b\n", b"Host: a", b"Host: b", b"Host:", b"host: a,b", b"Content_Length: 3", b"Expect: x"),
    *(b"Content-Type: a", b"Content-Length: 3, 3", b"Content-Length: +3", b"Content-Length:", b"Content-Length: 0x3"),
    *(b"Content-Length: 3", b"Content-Length: 4", b"Content-Length: 03", b"Content-Length: 3 ", b"Content-Length: 3_"),
    *(b"Content-Length: -1", b"Content-Length: 99999999999999999999", b"Content-Length : 3", b"Content-Length: 3 3"),
    *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: Chunked ", b"Transfer-Encoding: gzip, chunked", b"\xe9: b"),
    *(b"Transfer-Encoding:", b"Transfer-Encoding: identity", b"Transfer-Encoding: chunked, chunked", b"TE: chunked"),
    *(b"Transfer-Encoding: xchunked", b"Transfer-Encoding: \x0bchunked", b"Transfer-Encoding : chunked", b""),
    *(b"Transfer_Encoding: chunked", b"Transfer-Encoding: chunked, gzip", b"Transfer-Encoding: chunked;a=b"),
    *(b"Upgrade: websocket", b"Connection: upgrade", b"Connection: close, keep-alive", b"Trailer: X"),
]
BAD_SIZES = [
    *(
        b"0x3",
        b"+3",
        b"-3",
        b" 3",
        b"3 ",
        b"3\t",
        b"3;a",
        b"3;a=b",
        b'3;a="b"',
        b"3;",
        b"3 ;a",
        b"3; a",
        b"03",
        b"3;a\x01",
    ),
    *(b"0" * 15 + b"3", b"0" * 16 + b"3", b"", b"g", b"2", b"4", b"ffffffffffffffff", b"3;a\n", b"3\n", b"3\r", b"3_"),
]
TRAILERS = [
    *(b"A: b\r\n", b"Content-Length: 3\r\n", b"A : b\r\n", b"A\r\n", b" A: b\r\n", b"A: b\n", b"A: \0\r\n", b": b\r\n"),
]
BYTES = [*b'\0\t\n\r \x0b\x7f:;,/x0\xe9"#_']


def _chunked(random: Random, data: bytes) -> bytes:
    out = b""
    while data:
        size = random.randint(1, len(data))
        shown = random.choice(BAD_SIZES) if random.random() < 0.06 else b"%x" % size
        end = random.choice([b"", b"\n", b"\r", b"\r\n\r\n", b"x\r\n"]) if random.random() < 0.02 else b"\r\n"
        out += shown + b"\r\n" + data[:size] + end
        data = data[size:]
    out += (b"0" if random.random() < 0.95 else random.choice(BAD_SIZES)) + b"\r\n"
    if random.random() < 0.15:
        out += random.choice(TRAILERS)
    return out + b"\r\n"


def request(seed: int) -> bytes:
    """One request with its body, maybe broken; the same bytes for the same seed."""
    random = Random(seed)
    method = random.choice(METHODS)
    target = random.choice(TARGETS[:7]) if random.random() < 0.9 else random.choice(TARGETS)
    version = b"HTTP/1.1" if random.random() < 0.93 else random.choice(VERSIONS)
    if random.random() < 0.02:
        method = random.choice(
            [b"BREW", b"get", b"", b"GE(T", b" GET", b"\r\nGET", b"\r\n\r\nGET", b"\nGET", b"CONNECT"]
        )
    fields = [b"Host: a"] if random.random() < 0.97 else []
    fields += random.sample(FIELDS, random.randint(0, 6))
    body = b""
    data = bytes(random.choices(b"abc\r\n0", k=random.randint(0, 20)))
    framing = random.random()
    if framing < 0.35:
        fields.append(b"Content-Length: %d" % len(data))
        body = data
    elif framing < 0.75:
        fields.append(b"Transfer-Encoding: chunked")
        body = _chunked(random, data)
    while random.random() < 0.25:
        fields.append(random.choice(BAD_FIELDS))
    random.shuffle(fields)
    end = b"\r\n" if random.random() < 0.98 else b"\n"
    out = method + b" " + target + b" " + version + end + b"".join(each + b"\r\n" for each in fields) + b"\r\n" + body
    return _damaged(random, out) if random.random() < 0.2 else out


def _damaged(random: Random, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(random.randint(1, 2)):
        at = random.randrange(len(out))
        kind = random.random()
        if kind < 0.4:
            out[at] = random.choice(BYTES)
        elif kind < 0.7:
            out.insert(at, random.choice(BYTES))
        elif kind < 0.95 or len(out) < 2:
            del out[at]
        else:
            out[at] = random.randrange(256)
        if not out:
            break
    return bytes(out)
