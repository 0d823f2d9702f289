"""How what a worker asked the supervisor for on behalf of a client ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from server.channel import Document

#: InferErrorCode of infer_types.h.
INVALID_ARGUMENT = 1
NOT_FOUND = 2
UNAVAILABLE = 3
UNIMPLEMENTED = 4
INTERNAL = 5
RESOURCE_EXHAUSTED = 6
ALREADY_EXISTS = 8


class Answer(NamedTuple):
    """How a request for a change ended: code 0, or an InferErrorCode and a text for the client."""

    code: int = 0
    text: str = ""


Done = Callable[[Answer], None]


def answer_document(ask: int, answer: Answer) -> Document:
    """The message that tells a worker how its request ended."""
    return {"kind": "answer", "ask": ask, "code": answer.code, "text": answer.text}
