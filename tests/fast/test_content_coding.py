"""Content codings against Python's zlib: whole, in pieces, at every split, damaged everywhere, too large."""

from __future__ import annotations

import gzip
import zlib
from random import Random

import pytest

from server._fast.content_coding import coding_named, coding_preferred, deflate, inflate

CODINGS = ("gzip", "deflate")
WINDOW_BITS = {"gzip": 31, "deflate": 15}
LIMIT = 1 << 20


def packed(data: bytes, coding: str, level: int = 6) -> bytes:
    encoder = zlib.compressobj(level, zlib.DEFLATED, WINDOW_BITS[coding])
    return encoder.compress(data) + encoder.flush()


def texts() -> list[bytes]:
    random = Random(1)
    return [
        b"",
        b"x",
        b'{"inputs":[]}' * 3,
        random.randbytes(300),
        bytes(70_000),
        b",".join(b"%.6f" % random.random() for _ in range(20_000)),
        random.randbytes(200_000),
    ]


def twin(data: bytes, coding: str, limit: int) -> bytes | str:
    """What the standard library says: the bytes, or why not."""
    decoder = zlib.decompressobj(WINDOW_BITS[coding])
    try:
        plain = decoder.decompress(data, limit + 1)
    except zlib.error:
        return "damaged"
    if len(plain) > limit:
        return "too large"
    if decoder.unused_data:
        return "damaged"
    return plain if decoder.eof else "truncated"


def fast(pieces: list[bytes], coding: str, limit: int = LIMIT) -> bytes | str:
    try:
        return inflate(pieces, coding, limit)[0]
    except ValueError as error:
        return str(error)


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("level", [0, 1, 9])
@pytest.mark.parametrize("index", range(len(texts())))
def test_both_ways(coding: str, level: int, index: int) -> None:
    text = texts()[index]
    data = packed(text, coding, level)
    assert fast([data], coding) == text
    assert fast([data[at : at + 1000] for at in range(0, len(data), 1000)], coding) == text
    assert twin(deflate(text, coding)[0], coding, LIMIT) == text


@pytest.mark.parametrize("coding", CODINGS)
def test_every_split_and_byte_by_byte(coding: str) -> None:
    text = texts()[3] + b"a" * 300
    data = packed(text, coding)
    for at in range(len(data) + 1):
        assert fast([data[:at], data[at:]], coding) == text
        assert fast([data[:at]], coding) == (text if at == len(data) else "truncated")
    assert fast([data[at : at + 1] for at in range(len(data))], coding) == text


@pytest.mark.parametrize("coding", CODINGS)
def test_damage_at_every_byte(coding: str) -> None:
    """As the standard library finds; a length or a check sum that is wrong is never passed on."""
    text = b'{"data":[1.5,2.5,3.5]}' * 4
    data = packed(text, coding)
    for at in range(len(data)):
        for bit in range(8):
            bad = data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
            assert fast([bad], coding) == twin(bad, coding, LIMIT), (at, bit)


@pytest.mark.parametrize("coding", CODINGS)
def test_bytes_behind_the_end(coding: str) -> None:
    data = packed(b"hello", coding)
    for rest in (b"\0", b"x", data, b"\r\n"):
        assert fast([data + rest], coding) == "damaged"
        assert fast([data, rest], coding) == "damaged"


def test_the_other_coding_and_raw_deflate_are_damage() -> None:
    raw = zlib.compress(b"hello")[2:-4]
    assert fast([packed(b"hello", "gzip")], "deflate") == "damaged"
    assert fast([packed(b"hello", "deflate")], "gzip") == "damaged"
    assert fast([raw], "deflate") == "damaged"
    assert fast([packed(packed(b"hello", "gzip"), "gzip")], "gzip") == packed(b"hello", "gzip")


@pytest.mark.parametrize("coding", CODINGS)
def test_the_limit_is_exact(coding: str) -> None:
    for size in (0, 1, 65_535, 65_536, 65_537, 200_000):
        data = packed(bytes(size), coding)
        assert fast([data], coding, size) == bytes(size)
        if size:
            assert fast([data], coding, size - 1) == "too large"


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("limit", [0, 1000, 65_536, 100_000, 999_999])
def test_a_bomb_takes_no_more_memory_than_the_limit(coding: str, limit: int) -> None:
    bomb = packed(bytes(8 << 20), coding, 9)
    assert len(bomb) < 10_000
    assert fast([bomb], coding, limit) == "too large"
    plain, memory_bytes, _ = inflate([packed(bytes(limit), coding)], coding, limit)
    assert len(plain) == limit
    assert memory_bytes <= limit + 65_536


@pytest.mark.parametrize("coding", CODINGS)
def test_random_streams(coding: str) -> None:
    random = Random(7)
    for _ in range(300):
        text = random.choice([random.randbytes, lambda n: b"ab" * (n // 2)])(random.randrange(3000))
        data = bytearray(packed(text, coding, random.randrange(10)))
        for _ in range(random.randrange(3)):
            data[random.randrange(len(data))] = random.randrange(256)
        if random.random() < 0.2:
            del data[random.randrange(len(data)) :]
        cuts = sorted(random.randrange(len(data) + 1) for _ in range(random.randrange(5)))
        pieces = [bytes(data[a:b]) for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        limit = random.choice([LIMIT, 1000])
        assert fast(pieces, coding, limit) == twin(bytes(data), coding, limit)


def test_slices_change_nothing_but_the_pauses() -> None:
    text = texts()[5] * 4
    plain, _, pauses = inflate([packed(text, "gzip")], "gzip", LIMIT, slice_ns=1)
    assert plain == text
    assert pauses > 5
    data, pauses = deflate(text, "gzip", slice_ns=1)
    assert gzip.decompress(data) == text
    assert pauses > 5
    assert data == deflate(text, "gzip")[0]


@pytest.mark.parametrize(
    ("field", "coding"),
    [
        (b"", "identity"),
        (b"identity", "identity"),
        (b"gzip", "gzip"),
        (b"GZip", "gzip"),
        (b"x-gzip", "gzip"),
        (b"deflate", "deflate"),
        (b" gzip\t", "gzip"),
        (b"identity, gzip,", "gzip"),
        (b"gzip, gzip", "nested"),
        (b"deflate,gzip", "nested"),
        (b"br", "unknown"),
        (b"gzip, br", "unknown"),
        (b"gzip gzip", "unknown"),
        (b"gzip;q=1", "unknown"),
        (b"zip", "unknown"),
    ],
)
def test_what_content_encoding_names(field: bytes, coding: str) -> None:
    assert coding_named(field) == coding


@pytest.mark.parametrize(
    ("field", "coding"),
    [
        (b"", "identity"),
        (b"gzip", "gzip"),
        (b"gzip, deflate", "gzip"),
        (b"deflate, gzip", "deflate"),
        (b"gzip, deflate, br, zstd", "gzip"),
        (b"br", "identity"),
        (b"*", "identity"),
        (b"identity, gzip", "identity"),
        (b"identity;q=0.5, gzip", "gzip"),
        (b"gzip;q=0.5, deflate;q=0.8", "deflate"),
        (b"gzip;q=0.5, deflate; q=0.501", "deflate"),
        (b"gzip ;q=0.9,\tdeflate;Q=0.8", "gzip"),
        (b"gzip;q=0", "identity"),
        (b"gzip;q=0.000, deflate;q=0.001", "deflate"),
        (b"gzip;q=0, *;q=1", "identity"),
        (b"gzip;q=1.000", "gzip"),
        (b"gzip;q=1.001", "identity"),
        (b"gzip;q=2", "identity"),
        (b"gzip;q=", "identity"),
        (b"gzip;q=0.5555", "identity"),
        (b"gzip;q=-1", "identity"),
        (b"gzip;level=1", "identity"),
        (b",,gzip", "gzip"),
        (b"gzipped", "identity"),
    ],
)
def test_what_accept_encoding_prefers(field: bytes, coding: str) -> None:
    assert coding_preferred(field) == coding
