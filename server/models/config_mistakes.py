"""What protobuf's parser says of a config.pbtxt that it cannot read, with the field and with what was expected."""

from __future__ import annotations

import re

from server.models.config_text import field_at
from server.protocol import messages

#: What the parser says of a value, and what it expected.
_OF_VALUES = (
    (re.compile(r"Couldn't parse integer: (?P<got>.*)"), "a whole number"),
    (re.compile(r"Couldn't parse float: (?P<got>.*)"), "a number"),
    (re.compile(r"Value out of range: (?P<got>.*)"), "a number that the field has room for"),
    (re.compile(r"Expected string but found: '(?P<got>.*)'"), 'a text in quotes, such as "text"'),
    (re.compile(r'Enum type "(?P<enum>.*)" has no value named (?P<got>.*)\.'), ""),
    (re.compile(r'Expected "\{"\.'), "a message in braces"),
)


def explained(text: str, line: int, column: int, reason: str) -> str:
    """For the parser's `reason` at a line and a column, both from 1."""
    if text.lstrip().startswith("{"):
        return "expected protobuf text, such as `max_batch_size: 8`; got JSON"
    for pattern, expected in _OF_VALUES:
        if found := pattern.fullmatch(reason):
            groups = found.groupdict()
            if "enum" in groups:
                names = messages.enum_names(groups["enum"])
                alike = [name for name in names if name.endswith(f"_{groups['got'].upper()}")]
                expected = " or ".join(alike) or f"one of {', '.join(names)}"
            where = field_at(text, line, column)
            return f"{where}: expected {expected}" + (f", got {groups['got']}" if "got" in groups else "")
    return reason
