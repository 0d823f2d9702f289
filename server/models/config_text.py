"""Where the fields of a protobuf text file stand: path of a field -> line, for errors that name both.

The protobuf library reads the values and forgets the lines. This scan runs on text that the library has accepted, up to
the place of its first error at least, so it knows the shape of the notation and no field names. O(text).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_TOKEN = re.compile(r"#[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|[\[\]{}<>:,;]|[\w.+-]+")


_INDEX = re.compile(r"\[\d+\]$")


@dataclass
class _Frame:
    """A message that is open."""

    path: str
    counts: dict[str, int] = field(default_factory=dict)
    name: str = ""
    line: int = 0
    has_colon: bool = False
    list_name: str = ""

    def occurs(self, name: str) -> str:
        index = self.counts.get(name, 0)
        self.counts[name] = index + 1
        return f"{self.path}{name}[{index}]" if index else self.path + name


class _Walk:
    """Takes the tokens one by one; notes the line of each field that it passes."""

    def __init__(self) -> None:
        self.lines: dict[str, int] = {}
        self._stack = [_Frame("")]

    @property
    def here(self) -> str:
        """The path of the field whose value comes next."""
        frame = self._stack[-1]
        name = frame.list_name or frame.name
        index = frame.counts.get(name, 0)
        return f"{frame.path}{name}[{index}]" if index and not frame.list_name else frame.path + name

    def take(self, token: str, line: int) -> None:
        lines, stack, frame = self.lines, self._stack, self._stack[-1]
        if token in "{<":
            path = frame.occurs(frame.list_name or frame.name)
            lines[path] = line if frame.list_name else frame.line
            frame.has_colon = False
            stack.append(_Frame(path + "."))
        elif token in "}>":
            if len(stack) > 1:
                stack.pop()
        elif token == "[":
            frame.list_name = frame.name
            lines.setdefault(frame.path + frame.name, frame.line)
            frame.has_colon = False
        elif token == "]":
            frame.list_name = ""
        elif token == ":":
            frame.has_colon = True
        elif frame.list_name or token[0] in "#,;":
            return
        elif frame.has_colon:
            lines.setdefault(frame.occurs(frame.name), frame.line)
            frame.has_colon = False
            if frame.name == "key" and len(stack) > 1:
                own = frame.path.removesuffix(".")
                lines[f"{_INDEX.sub('', own)}{{{token[1:-1]}}}"] = lines[own]
        elif token[0] not in "\"'":
            frame.name, frame.line = token, line


def lines_of(text: str) -> dict[str, int]:
    """`input[1].reshape.shape` -> line, a field's second occurrence with [1] and so on; entries of a map also by their
    key: `parameters{x}`.
    """
    walk = _Walk()
    line, at = 1, 0
    for match in _TOKEN.finditer(text):
        line += text.count("\n", at, match.start())
        at = match.start()
        walk.take(match.group(), line)
    return walk.lines


def field_at(text: str, line: int, column: int) -> str:
    """The path of the field whose value stands at a line and a column, both from 1; "" if none does."""
    offset = sum(len(one) + 1 for one in text.split("\n")[: line - 1]) + column - 1
    walk = _Walk()
    for match in _TOKEN.finditer(text):
        if match.start() >= offset:
            break
        walk.take(match.group(), line)
    return walk.here


def line_of(lines: dict[str, int], path: str) -> int | None:
    """The line of a field, or of the nearest message around it that has one."""
    path = path.replace("[0]", "")
    while path:
        found = lines.get(path)
        if found:
            return found
        path = path.rpartition(".")[0]
    return None
