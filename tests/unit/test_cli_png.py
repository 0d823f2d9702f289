"""The PNG decoder: every filter and colour type against pixels laid out by hand, and broken files by name."""

from __future__ import annotations

import itertools
import json
import random
import struct
import zlib
from pathlib import Path

import pytest

from server.cli_png import ImageError, decode

SAMPLES = Path(__file__).resolve().parents[2] / "samples"


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    width: int,
    height: int,
    colour: int,
    scanlines: bytes,
    *,
    depth: int = 8,
    interlace: int = 0,
    extra: bytes = b"",
    pieces: int = 1,
) -> bytes:
    data = zlib.compress(scanlines)
    cuts = [len(data) * piece // pieces for piece in range(pieces + 1)]
    idat = b"".join(chunk(b"IDAT", data[start:end]) for start, end in itertools.pairwise(cuts))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace))
    return b"\x89PNG\r\n\x1a\n" + head + extra + idat + chunk(b"IEND", b"")


def paeth(left: int, above: int, corner: int) -> int:
    """Section 9.4, in the words of the standard."""
    estimate = left + above - corner
    guesses = [(abs(estimate - value), rank, value) for rank, value in enumerate((left, above, corner))]
    return min(guesses)[2]


def filtered(pixels: bytes, stride: int, step: int, kinds: list[int]) -> bytes:
    """The encoder's side: each line with the filter named for it."""
    out = bytearray()
    above = bytes(stride)
    for number, kind in enumerate(kinds):
        line = pixels[number * stride : (number + 1) * stride]
        out.append(kind)
        for index, value in enumerate(line):
            left = line[index - step] if index >= step else 0
            corner = above[index - step] if index >= step else 0
            up = above[index]
            guess = [0, left, up, (left + up) // 2, paeth(left, up, corner)][kind]
            out.append((value - guess) & 0xFF)
        above = line
    return bytes(out)


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3)])
@pytest.mark.parametrize("kind", range(5))
def test_every_filter(colour: int, channels: int, kind: int) -> None:
    rng = random.Random(kind)
    width, height = 7, 5
    pixels = rng.randbytes(width * height * channels)
    kinds = [kind] + [rng.randrange(5) for _ in range(height - 2)] + [kind]
    lines = filtered(pixels, width * channels, channels, kinds)
    image = decode(png(width, height, colour, lines, pieces=3))
    assert (image.width, image.height, image.channels, image.pixels) == (width, height, channels, pixels)


def test_transparency_is_put_on_black() -> None:
    grey = decode(png(3, 1, 4, b"\0" + bytes([200, 255, 200, 0, 200, 128])))
    assert (grey.channels, grey.pixels) == (1, bytes([200, 0, 100]))
    colour = decode(png(2, 1, 6, b"\0" + bytes([10, 20, 30, 255, 10, 20, 30, 0])))
    assert (colour.channels, colour.pixels) == (3, bytes([10, 20, 30, 0, 0, 0]))


def test_palette() -> None:
    palette = chunk(b"PLTE", bytes([1, 2, 3, 4, 5, 6]))
    image = decode(png(3, 1, 3, b"\0\1\0\1", extra=palette))
    assert (image.channels, image.pixels) == (3, bytes([4, 5, 6, 1, 2, 3, 4, 5, 6]))
    with pytest.raises(ImageError, match="expected a palette for 3 colours, it has 2"):
        decode(png(1, 1, 3, b"\0\2", extra=palette))


def test_chunks_that_nobody_needs_are_skipped() -> None:
    text = chunk(b"tEXt", b"Comment\0hello")
    assert decode(png(1, 1, 0, b"\0\x07", extra=text)).pixels == b"\x07"


GOOD = png(2, 2, 0, b"\0\1\2\0\3\4")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "signature"),
        (b"GIF89a", "signature"),
        (GOOD[:8], "truncated"),
        (GOOD[:-1], "truncated"),
        (GOOD[:40], "truncated"),
        (GOOD[:20] + b"\xff" + GOOD[21:], "checksum"),
        (GOOD[:8] + GOOD[33:], "IHDR"),
        (png(2, 2, 0, b"\0\1\2\0\3"), "expected 6 bytes of pixel data, got 5"),
        (png(2, 2, 0, b"\0\1\2\0\3\4\5"), "more than 6"),
        (png(2, 2, 0, bytes(1 << 22)), "more than 6"),
        (png(2, 2, 0, b"\0\1\2\5\3\4"), "line 1 has filter 5"),
        (png(2, 2, 0, b"", depth=16), "it is 16 bits a channel"),
        (png(2, 2, 0, b"", depth=1), "it is 1 bits a channel"),
        (png(2, 2, 0, b"", interlace=1), "it is interlaced"),
        (png(2, 2, 5, b""), "colour type 5"),
        (png(0, 2, 0, b""), "0x2 pixels"),
        (png(1 << 31, 1 << 31, 2, b""), "expected 1 to"),
        (GOOD.replace(chunk(b"IDAT", zlib.compress(b"\0\1\2\0\3\4")), chunk(b"IDAT", b"junk")), "damaged"),
    ],
)
def test_broken_files(data: bytes, said: str) -> None:
    with pytest.raises(ImageError, match=said):
        decode(data)


def test_flipped_bits_raise_nothing_else() -> None:
    rng = random.Random(3)
    for _ in range(300):
        damaged = bytearray(GOOD)
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        try:
            decode(bytes(damaged))
        except ImageError as error:
            assert str(error)


@pytest.mark.parametrize("digit", range(10))
def test_samples_are_held_out_digits(digit: int) -> None:
    """A sample's pixels are 15 times the data set's values, 0..16, of one held-out image of that label."""
    image = decode((SAMPLES / f"{digit}.png").read_bytes())
    assert (image.width, image.height, image.channels) == (8, 8, 1)
    held_out = json.loads((SAMPLES / "heldout.json").read_text())
    values = [value // 15 for value in image.pixels]
    assert [value * 15 for value in values] == list(image.pixels)
    assert held_out["labels"][held_out["images"].index(values)] == digit
