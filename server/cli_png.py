"""A PNG decoder for small pictures: 8 bits a channel, grey, RGB or palette, with or without alpha, not interlaced.

Source: the PNG specification (second edition), sections 5 chunks, 9 filtering, 11 critical chunks. Standard library
only. Every length comes from the file, so each is bounded before anything is allocated.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_PIXEL_BYTES = 64 << 20

#: Colour type -> (channels in the file, what it is).
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


class ImageError(ValueError):
    """The file is no PNG, or one of a kind that is not read."""


@dataclass(frozen=True, slots=True)
class Image:
    """Pixels row by row from the top, channels interleaved: 1 (grey) or 3 (RGB). Transparency is put on black."""

    width: int
    height: int
    channels: int
    pixels: bytes


def decode(data: bytes) -> Image:
    """The picture in a PNG file; raises ImageError."""
    if not data.startswith(SIGNATURE):
        raise ImageError("expected a PNG file: it does not begin with PNG's signature")
    chunks = _chunks(data)
    if not chunks or chunks[0][0] != b"IHDR" or len(chunks[0][1]) != 13:
        raise ImageError("expected IHDR of 13 bytes as the first chunk")
    width, height, depth, colour, compression, filtering, interlace = struct.unpack(">IIBBBBB", chunks[0][1])
    if colour not in _CHANNELS or compression or filtering:
        raise ImageError(f"colour type {colour}, compression {compression}, filter method {filtering} do not exist")
    if depth != 8 or interlace:
        found = "interlaced" if interlace else f"{depth} bits a channel"
        raise ImageError(f"expected 8 bits a channel, not interlaced, it is {found}: save it again as a plain PNG")
    channels = _CHANNELS[colour]
    stride = width * channels
    if width == 0 or height == 0 or stride * height > MAX_PIXEL_BYTES:
        raise ImageError(f"expected 1 to {MAX_PIXEL_BYTES} bytes of pixels, it has {width}x{height} pixels")
    raw = _inflate(b"".join(body for kind, body in chunks if kind == b"IDAT"), (stride + 1) * height)
    samples = _unfilter(raw, height, stride, channels)
    if colour == 3:
        return Image(width, height, 3, _from_palette(samples, chunks))
    if colour in (4, 6):
        return Image(width, height, channels - 1, _on_black(samples, channels))
    return Image(width, height, channels, samples)


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    found = []
    position = len(SIGNATURE)
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        end = position + 8 + length
        if end + 4 > len(data):
            break
        kind = data[position + 4 : position + 8]
        (stored,) = struct.unpack_from(">I", data, end)
        if zlib.crc32(data[position + 4 : end]) != stored:
            raise ImageError(f"chunk {kind!r} at byte {position} is damaged: its checksum is wrong")
        found.append((kind, data[position + 8 : end]))
        position = end + 4
        if kind == b"IEND":
            return found
    raise ImageError("the file is truncated: expected an IEND chunk at its end")


def _inflate(data: bytes, expected_bytes: int) -> bytes:
    decompressor = zlib.decompressobj()
    try:
        # One byte more than expected tells a bomb from an honest picture without unpacking it.
        raw = decompressor.decompress(data, expected_bytes + 1)
    except zlib.error as error:
        raise ImageError(f"the pixel data is damaged: {error}") from None
    if len(raw) != expected_bytes:
        came = f"more than {expected_bytes}" if len(raw) > expected_bytes else str(len(raw))
        raise ImageError(f"expected {expected_bytes} bytes of pixel data, got {came}")
    return raw


def _unfilter(raw: bytes, height: int, stride: int, step: int) -> bytes:
    """Undoes the filter of each line; `step` is the distance to the same channel of the pixel on the left."""
    out = bytearray()
    above = bytearray(stride)
    for line_number in range(height):
        start = line_number * (stride + 1)
        kind = raw[start]
        line = bytearray(raw[start + 1 : start + 1 + stride])
        if kind == 1:
            for i in range(step, stride):
                line[i] = line[i] + line[i - step] & 0xFF
        elif kind == 2:
            for i in range(stride):
                line[i] = line[i] + above[i] & 0xFF
        elif kind == 3:
            for i in range(stride):
                left = line[i - step] if i >= step else 0
                line[i] = line[i] + (left + above[i] >> 1) & 0xFF
        elif kind == 4:
            for i in range(stride):
                left, corner = (line[i - step], above[i - step]) if i >= step else (0, 0)
                line[i] = line[i] + _paeth(left, above[i], corner) & 0xFF
        elif kind:
            raise ImageError(f"line {line_number} has filter {kind}, expected 0 to 4")
        out += line
        above = line
    return bytes(out)


def _paeth(left: int, above: int, corner: int) -> int:
    estimate = left + above - corner
    to_left, to_above, to_corner = abs(estimate - left), abs(estimate - above), abs(estimate - corner)
    if to_left <= to_above and to_left <= to_corner:
        return left
    return above if to_above <= to_corner else corner


def _from_palette(samples: bytes, chunks: list[tuple[bytes, bytes]]) -> bytes:
    palette = next((body for kind, body in chunks if kind == b"PLTE"), b"")
    if len(palette) % 3 or not samples or max(samples) >= len(palette) // 3:
        raise ImageError(f"expected a palette for {max(samples, default=0) + 1} colours, it has {len(palette) // 3}")
    colours = [palette[index : index + 3] for index in range(0, len(palette), 3)]
    return b"".join([colours[sample] for sample in samples])


def _on_black(samples: bytes, channels: int) -> bytes:
    alpha = samples[channels - 1 :: channels]
    out = bytearray(len(alpha) * (channels - 1))
    for channel in range(channels - 1):
        own = samples[channel::channels]
        mixed = ((value * cover + 127) // 255 for value, cover in zip(own, alpha, strict=True))
        out[channel :: channels - 1] = bytes(mixed)
    return bytes(out)
