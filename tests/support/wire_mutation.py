"""Protobuf messages, nearly: mutations of encoded messages that know the wire format, and some that do not.

Every mutation is a function of a random.Random, so a seed names a message. Messages may come out malformed: what a
reader does with them is the test.
"""

from __future__ import annotations

import random
from collections.abc import Callable

Field = tuple[bytes, int, bytes]  # tag, wire type, encoded value (of LEN fields: contents without the length)

VARINT, FIXED64, LEN, GROUP, END, FIXED32 = range(6)


def varint(value: int, pad: int = 0) -> bytes:
    """`pad`: so many bytes more than needed."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    for _ in range(pad):
        out[-1] |= 0x80
        out.append(0)
    return bytes(out)


def tag(number: int, wire: int) -> bytes:
    return varint(number << 3 | wire)


def field(number: int, contents: bytes) -> bytes:
    return tag(number, LEN) + varint(len(contents)) + contents


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
    raise IndexError


def split(message: bytes) -> list[Field] | None:
    """The fields of a message; None when it is none, or holds groups."""
    fields: list[Field] = []
    at = 0
    try:
        while at < len(message):
            begin = at
            key, at = read_varint(message, at)
            wire = key & 7
            encoded_tag = message[begin:at]
            if wire == VARINT:
                begin = at
                _, at = read_varint(message, at)
            elif wire in (FIXED64, FIXED32):
                begin, at = at, at + (8 if wire == FIXED64 else 4)
            elif wire == LEN:
                size, begin = read_varint(message, at)
                at = begin + size
            else:
                return None
            if at > len(message) or key < 8:
                return None
            fields.append((encoded_tag, wire, message[begin:at]))
    except IndexError:
        return None
    return fields


def join(fields: list[Field]) -> bytes:
    return b"".join(
        encoded_tag + (varint(len(value)) if wire == LEN else b"") + value for encoded_tag, wire, value in fields
    )


# ---- mutations of fields


def reorder(fields: list[Field], r: random.Random) -> None:
    r.shuffle(fields)


def duplicate(fields: list[Field], r: random.Random) -> None:
    if fields:
        fields.insert(r.randint(0, len(fields)), r.choice(fields))


def drop(fields: list[Field], r: random.Random) -> None:
    if fields:
        del fields[r.randrange(len(fields))]


def unknown_field(fields: list[Field], r: random.Random) -> None:
    """Of any number, those of the schema included, and any wire type."""
    number = r.choice([1, 2, 3, 4, 5, 6, 7, 8, 10, 13, 15, 16, 17, 18, 99, 1 << 20, (1 << 29) - 1])
    wire = r.choice([VARINT, FIXED64, LEN, LEN, FIXED32])
    value = {
        VARINT: varint(r.getrandbits(r.choice([1, 7, 8, 31, 32, 63, 64]))),
        FIXED64: r.randbytes(8),
        FIXED32: r.randbytes(4),
        LEN: r.randbytes(r.randrange(12)),
    }[wire]
    fields.insert(r.randint(0, len(fields)), (tag(number, wire), wire, value))


def group(fields: list[Field], r: random.Random) -> None:
    """A group with something inside, sometimes not closed, or closed with another number."""
    number = r.choice([1, 5, 9, 99])
    inner = r.choice([b"", b"\x08\x01", field(3, b"abc"), tag(4, GROUP) + tag(4, END), b"\x07", b"\x00"])
    end = tag(number, END) if r.random() < 0.7 else r.choice([b"", tag(number + 1, END)])
    fields.insert(r.randint(0, len(fields)), (tag(number, GROUP), GROUP, inner + end))


def other_number(fields: list[Field], r: random.Random) -> None:
    if fields:
        at = r.randrange(len(fields))
        _, wire, value = fields[at]
        fields[at] = (tag(r.randrange(1, 19), wire), wire, value)


def long_tag(fields: list[Field], r: random.Random) -> None:
    if fields:
        at = r.randrange(len(fields))
        encoded_tag, wire, value = fields[at]
        pad = r.randint(1, 5)
        key, _ = read_varint(encoded_tag, 0)
        fields[at] = (varint(key, pad), wire, value)


def unpack(fields: list[Field], r: random.Random) -> None:
    """A packed field as single ones, or the other way round, or cut in two."""
    packed = [at for at, (_, wire, value) in enumerate(fields) if wire == LEN and value]
    if not packed:
        return
    at = r.choice(packed)
    encoded_tag, _, value = fields[at]
    number = read_varint(encoded_tag, 0)[0] >> 3
    if r.random() < 0.3:
        cut = r.randint(0, len(value))
        fields[at : at + 1] = [(encoded_tag, LEN, value[:cut]), (encoded_tag, LEN, value[cut:])]
        return
    wire = r.choice([VARINT, VARINT, FIXED32, FIXED64])
    single: list[Field] = []
    begin = 0
    try:
        while begin < len(value):
            end = read_varint(value, begin)[1] if wire == VARINT else begin + (4 if wire == FIXED32 else 8)
            single.append((tag(number, wire), wire, value[begin:end]))
            begin = end
    except IndexError:
        return
    fields[at : at + 1] = single


def long_varint(fields: list[Field], r: random.Random) -> None:
    """A varint with more bytes than it needs, or more than there may be, or other high bits."""
    found = [at for at, (_, wire, _) in enumerate(fields) if wire == VARINT]
    if found:
        at = r.choice(found)
        encoded_tag, wire, value = fields[at]
        number, _ = read_varint(value, 0)
        pad = r.randint(1, 11 - len(value)) if len(value) < 11 else 0
        changed = bytearray(varint(number & (2**63 - 1), pad))
        if len(changed) == 10 and r.random() < 0.5:
            changed[-1] = r.choice([1, 2, 0x7F])
        fields[at] = (encoded_tag, wire, bytes(changed))


FIELD_MUTATIONS: list[Callable[[list[Field], random.Random], None]] = [
    reorder,
    reorder,
    duplicate,
    duplicate,
    drop,
    unknown_field,
    unknown_field,
    group,
    other_number,
    long_tag,
    unpack,
    unpack,
    long_varint,
]


# ---- mutations of bytes


def flip(data: bytearray, r: random.Random) -> None:
    if data:
        data[r.randrange(len(data))] ^= 1 << r.randrange(8)


def replace(data: bytearray, r: random.Random) -> None:
    if data:
        data[r.randrange(len(data))] = r.choice([0, 1, 0x7F, 0x80, 0xFF, r.randrange(256)])


def truncate(data: bytearray, r: random.Random) -> None:
    del data[r.randint(0, len(data)) :]


def insert(data: bytearray, r: random.Random) -> None:
    at = r.randint(0, len(data))
    data[at:at] = r.randbytes(r.randint(1, 4))


def repeat(data: bytearray, r: random.Random) -> None:
    begin = r.randint(0, len(data))
    data[r.randint(0, len(data)) :] += data[begin : begin + r.randint(1, 12)]


BYTE_MUTATIONS: list[Callable[[bytearray, random.Random], None]] = [flip, flip, replace, truncate, insert, repeat]


def mutate_once(message: bytes, r: random.Random, byte_share: float) -> bytes:
    if r.random() < byte_share:
        data = bytearray(message)
        r.choice(BYTE_MUTATIONS)(data, r)
        return bytes(data)
    fields = split(message)
    if fields is None:
        return message
    inner = [at for at, (_, wire, value) in enumerate(fields) if wire == LEN and value]
    if inner and r.random() < 0.6:
        at = r.choice(inner)
        encoded_tag, wire, value = fields[at]
        fields[at] = (encoded_tag, wire, mutate_once(value, r, byte_share))
    else:
        r.choice(FIELD_MUTATIONS)(fields, r)
    return join(fields)


def mutate(message: bytes, r: random.Random) -> bytes:
    """One to four mutations, most of them of fields, lengths around them kept right."""
    for _ in range(r.choice([1, 1, 1, 2, 3, 4])):
        message = mutate_once(message, r, 0.15)
    return message
