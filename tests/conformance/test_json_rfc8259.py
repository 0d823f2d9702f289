"""RFC 8259, production by production: what must be read (y), what must not (n), and where a reader may choose (i).

The vectors are ours, written from the grammar; the three classes are those of JSONTestSuite. The scanner under test is
the one that reads infer requests. Where it leaves the RFC or chooses, the reason stands beside the vector.
"""

from __future__ import annotations

import json

import pytest

from server._fast.infer_json_index import check_json
from server._fast.infer_spec import InferRefused
from tests.reference import infer_json as reference

ACCEPT: dict[str, list[bytes]] = {
    "2 ws around every structural character": [
        b" \t\n\r[ \t\n\r1 \t\n\r, \t\n\r2 \t\n\r] \t\n\r",
        b' { "a" : 1 , "b" : [ ] } ',
        b"\n\n\nnull\n",
    ],
    "3 literal names": [b"true", b"false", b"null", b"[true,false,null]"],
    "2 any value at the top": [b"1", b'"x"', b"[]", b"{}", b"-0", b'""'],
    "4 objects": [
        b"{}",
        b'{"":0}',
        b'{"a":{"a":{"a":{}}}}',
        b'{"a":1,"b":"2","c":[3],"d":{"e":null}}',
        b'{"a\\u0000b":1}',
        b'{"a":1,"a":2}',  # "SHOULD be unique"; the members that this server reads must be
        b'{"\\ud83d\\ude00":1}',
    ],
    "5 arrays": [
        b"[]",
        b"[[]]",
        b"[[],[]]",
        b"[1,[2,[3,[4]]]]",
        b'[1,"a",{},[],true,null]',
        b"[" + b"1," * 999 + b"1]",
    ],
    "6 numbers": [
        b"0",
        b"-0",
        b"-1",
        b"10",
        b"1234567890",
        b"0.0",
        b"-0.5",
        b"1.25",
        b"0e0",
        b"0E+1",
        b"1e10",
        b"1E-10",
        b"1.5e+10",
        b"1e00",
        b"1e0001",
        b"0.00000000000000000000001",
        b"[0,-0,0.0]",
    ],
    "7 strings": [
        b'""',
        b'"a"',
        b'"\\"\\\\\\/\\b\\f\\n\\r\\t"',
        b'"\\u0041\\u00e9\\u4e2d"',
        b'"\\uABCD\\uabcd"',
        b'"\\u0000"',
        b'"\x7f"',
        b'" \xc2\x80 \xdf\xbf"',
        b'"\xe0\xa0\x80\xef\xbf\xbf"',
        b'"\xed\x9f\xbf\xee\x80\x80"',
        b'"\xf0\x90\x80\x80\xf4\x8f\xbf\xbf"',
        b'"\xe2\x80\xa8\xe2\x80\xa9"',  # line and paragraph separator: no controls in JSON
        b'"\\ud800\\udc00\\udbff\\udfff"',
        b'"' + b"x" * 1000 + b'"',
        b'"' + b"0123456789abcde\\n" * 20 + b'"',
    ],
}

REFUSE: dict[str, list[bytes]] = {
    "2 nothing, or white space alone": [b"", b" ", b"\n"],
    "2 no other white space": [b"\x0b1", b"[1\x0c]", b"\xc2\xa01", b"\xe2\x80\xa81", b"[\x001]", b"1\x00", b"[1\x1f]"],
    "2 more than one value": [b"1 2", b"[] []", b"{}{}", b"[]]", b"{}}", b"nullnull", b'""""', b"1,", b",1"],
    "3 literal names": [b"True", b"TRUE", b"tru", b"truer", b"nul", b"nulll", b"undefined", b"fals", b"n", b"None"],
    "4 objects": [
        b"{",
        b"}",
        b"{,}",
        b'{"a"}',
        b'{"a":}',
        b'{"a":1,}',
        b'{,"a":1}',
        b'{"a" 1}',
        b'{"a":1 "b":2}',
        b'{"a":1;"b":2}',
        b"{a:1}",
        b"{'a':1}",
        b"{1:1}",
        b"{null:1}",
        b"{[]:1}",
        b'{"a"::1}',
        b'{"a":1,,"b":2}',
        b'{"a":1]',
        b'{"a":[}',
        b"{:1}",
        b'{"a":1',
        b'{"a"',
        b'{"a":',
        b'{"a":1,',
        b'{"a":1 /* */}',
    ],
    "5 arrays": [
        b"[",
        b"]",
        b"[,]",
        b"[1,]",
        b"[,1]",
        b"[1,,2]",
        b"[1 2]",
        b"[1;2]",
        b"[1:2]",
        b"[1}",
        b"[[1]",
        b"[1]]",
        b"[1",
        b"[1,",
        b"[1,\n",
        b'["a',
        b"[#1]",
        b"[1]//",
        b"[*]",
        b"[\xff]",
    ],
    "6 numbers": [
        b"00",
        b"01",
        b"-01",
        b"-",
        b"+1",
        b"--1",
        b"- 1",
        b"1.",
        b".1",
        b"-.1",
        b"1..2",
        b"1.2.3",
        b"1.e1",
        b"1e",
        b"1e+",
        b"1eE2",
        b"1e1.5",
        b"1e+-1",
        b"0x1",
        b"0b1",
        b"1a",
        b"1_000",
        b"1,000",
        b"1e1e1",
        b"\xef\xbc\x91",
        b"inf",
        b"nan",
        b"-nan",
        b"-NaN",
        b"+Infinity",
        b"Inf",
        b"1/2",
        b"0e",
        b"012.5",
        b"2.e+3",
    ],
    "7 strings": [
        b'"',
        b'"a',
        b"'a'",
        b"a",
        b'"\\"',
        b'"\\',
        b'"\\x41"',
        b'"\\a"',
        b'"\\\'"',
        b'"\\0"',
        b'"\\u"',
        b'"\\u1"',
        b'"\\u123"',
        b'"\\u123g"',
        b'"\\u 123"',
        b'"\\u+123"',
        b'"\\U0041"',
        b'"\x00"',
        b'"\x1f"',
        b'"a\nb"',
        b'"a\tb"',
        b'"\\\n"',
        b'"\\\xc3\xa9"',
    ],
    "8.1 UTF-8 (RFC 3629)": [
        b'"\x80"',
        b'"\xbf"',
        b'"\xc0\x80"',  # overlong
        b'"\xc1\xbf"',
        b'"\xc2"',
        b'"\xc2a"',
        b'"\xe0\x9f\xbf"',
        b'"\xe1\x80"',
        b'"\xe1\x80a"',
        b'"\xed\xa0\x80"',  # a surrogate
        b'"\xed\xbf\xbf"',
        b'"\xf0\x8f\xbf\xbf"',
        b'"\xf1\x80\x80"',
        b'"\xf4\x90\x80\x80"',  # above U+10FFFF
        b'"\xf5\x80\x80\x80"',
        b'"\xf8\x88\x80\x80\x80"',
        b'"\xfe"',
        b'"\xff"',
        "[1]".encode("utf-16-le"),
        "[1]".encode("utf-16"),
        "[1]".encode("utf-32-be"),
    ],
}

#: Where the RFC lets the reader choose: (text, accepted, why).
CHOICES: list[tuple[bytes, bool, str]] = [
    (b"\xef\xbb\xbf[]", False, "8.1: a byte order mark MUST NOT be sent; readers MAY ignore it. Triton refuses it"),
    (b'"\\ud800"', False, "8.2: half a surrogate pair is unpredictable elsewhere"),
    (b'"\\udc00"', False, "8.2"),
    (b'"\\ud800x"', False, "8.2"),
    (b'"\\ud800\\n"', False, "8.2"),
    (b'"\\ud800\\u0041"', False, "8.2"),
    (b'"\\udc00\\ud800"', False, "8.2"),
    (b'"\\ud800\\ud800\\udc00"', False, "8.2"),
    (b'{"\\ud800":1}', False, "8.2"),
    (b"[" * 100 + b"]" * 100, True, "9: depth is limited to 100"),
    (b"[" * 101 + b"]" * 101, False, "9"),
    (b'{"a":' * 100 + b"1" + b"}" * 100, True, "9"),
    (b'{"a":' * 101 + b"1" + b"}" * 101, False, "9"),
    (b'[{"a":' * 50 + b"1" + b"}]" * 50, True, "9"),
    (b"[" * 1_000_000, False, "9: without recursion"),
    (b'{"a":' * 200_000, False, "9"),
    (b"1" * 100_000, True, "6: no limit where the number is not used"),
    (b"1e99999999999", True, "6: the same; a tensor element of this size is refused"),
    (b"-1e-99999999999", True, "6"),
    (b'"\xef\xbf\xbe\xf4\x8f\xbf\xbf"', True, "8.2: noncharacters are characters"),
]

#: What is not JSON but is read: the clients of the inference protocols write it.
BEYOND = [b"NaN", b"Infinity", b"-Infinity", b"[NaN,Infinity,-Infinity]", b'{"a":NaN}']

ACCEPTED = [(rule, text) for rule, texts in ACCEPT.items() for text in texts]
REFUSED = [(rule, text) for rule, texts in REFUSE.items() for text in texts]


def accepts(text: bytes) -> bool:
    try:
        check_json(text)
    except InferRefused as error:
        assert error.code == 1
        assert error.text.startswith("invalid JSON: expected ")
        return False
    return True


@pytest.mark.parametrize(("rule", "text"), ACCEPTED)
def test_must_be_accepted(rule: str, text: bytes) -> None:
    check_json(text)
    json.loads(text)


@pytest.mark.parametrize(("rule", "text"), REFUSED)
def test_must_be_refused(rule: str, text: bytes) -> None:
    assert not accepts(text)
    with pytest.raises(reference.Refused):
        reference.parse(text)


@pytest.mark.parametrize(("text", "accepted", "why"), CHOICES, ids=range(len(CHOICES)))
def test_choices(text: bytes, accepted: bool, why: str) -> None:
    assert accepts(text) is accepted, why


@pytest.mark.parametrize("text", BEYOND)
def test_beyond_json(text: bytes) -> None:
    check_json(text)


@pytest.mark.parametrize("wrap", [b"[%b]", b'{"k":%b}', b'[0,{"k":[%b,0]}]', b" \n%b\t"])
def test_the_same_inside_of_containers(wrap: bytes) -> None:
    """A vector keeps its class as a member. Texts of several values, or cut short, are something else inside."""
    for _, text in ACCEPTED:
        check_json(wrap.replace(b"%b", text))
    for rule, text in REFUSED:
        if not rule.startswith(("2", "5")) and text not in (b"1,000", b"}"):
            assert not accepts(wrap.replace(b"%b", text)), text


def test_no_prefix_of_a_container_is_whole() -> None:
    for _, text in ACCEPTED:
        text = text.strip()
        if text[:1] in b'[{"':
            for size in range(len(text)):
                assert not accepts(text[:size])


TEMPLATES = [b"%b", b'"%b"', b'"\\%b"', b"[%b]", b"[1%b]", b"[1%b2]", b'{"a"%b1}', b'{"a":1%b}', b"-%b", b"1e%b1"]


@pytest.mark.parametrize("byte", range(256))
def test_every_byte_in_every_place(byte: int) -> None:
    """At the top, in a string, behind an escape, in an array, in a number: as the standard library judges it."""
    for template in TEMPLATES:
        text = template.replace(b"%b", bytes([byte]))
        try:
            reference.parse(text)
        except reference.Refused:
            assert not accepts(text), text
        else:
            check_json(text)
