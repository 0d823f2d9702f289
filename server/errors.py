"""The one tree of errors, and the one table of what each class means to a client.

A raised error carries its text and nothing about transports: `outcome()` gives the HTTP status, the gRPC status, the
reason under which the statistics count it, and the level at which it is logged. Errors below the Cython line are codes;
`from_code()` turns the code of an `InferError` (server/_fast/infer_spec.pxd) into the class of the same meaning.

Texts are for the user of the server: what was expected, what came, what to do where that is not obvious. They name no
paths of the host, no addresses and no rows.
"""

from __future__ import annotations

from typing import NamedTuple

# gRPC status codes (grpc/grpc doc/statuscodes.md).
GRPC_CANCELLED = 1
GRPC_INVALID_ARGUMENT = 3
GRPC_DEADLINE_EXCEEDED = 4
GRPC_NOT_FOUND = 5
GRPC_ALREADY_EXISTS = 6
GRPC_RESOURCE_EXHAUSTED = 8
GRPC_UNIMPLEMENTED = 12
GRPC_INTERNAL = 13
GRPC_UNAVAILABLE = 14

#: Why a request failed, as statistics and metrics count it; no other value appears in a label.
FAILURE_REASONS = ("REJECTED", "CANCELED", "TIMEOUT", "INVALID", "INTERNAL", "OTHER")


class HeadraceError(Exception):
    """Root of every error the server raises on purpose; `text` is what the client or the operator reads."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class RequestError(HeadraceError):
    """The request cannot be answered as asked; sending it again unchanged will not help."""


class InvalidArgumentError(RequestError):
    """The request's contents do not fit the model or the protocol."""


class UnknownModelError(RequestError):
    """No model, or no such version of it, is in the repository."""


class AlreadyExistsError(RequestError):
    """Something of this name is there already; it stays as it is."""


class UnknownPathError(RequestError):
    """No route has this path."""


class MethodNotAllowedError(RequestError):
    """The path exists, but not for this method; `allow` holds the methods that it has."""

    def __init__(self, text: str, allow: tuple[str, ...] = ()) -> None:
        super().__init__(text)
        self.allow = allow


class PayloadTooLargeError(RequestError):
    """The body, or the tensor it describes, exceeds a limit."""


class UnsupportedMediaTypeError(RequestError):
    """The body has a content type or coding that is not read here."""


class NotSupportedError(RequestError):
    """A known feature of the protocol that this server does not have."""


class CanceledError(RequestError):
    """The client went away before its answer was ready."""


class PeerProtocolError(HeadraceError):
    """The peer broke the transport's framing; the connection closes after the answer."""


class MalformedMessageError(PeerProtocolError):
    """A message that the protocol's grammar does not allow."""


class HeadTooLargeError(PeerProtocolError):
    """The header section exceeds its limit of bytes or fields."""


class SlowPeerError(PeerProtocolError):
    """The peer did not send its message in time."""


class CapacityError(HeadraceError):
    """The server cannot take the request now; `retry_after_s` (None: unknown) says when to try again."""

    def __init__(self, text: str, retry_after_s: int | None = 1) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


class QueueFullError(CapacityError):
    """Every row of the model's ring is taken."""


class QuotaExceededError(CapacityError):
    """This client has more in flight than it may."""


class ModelNotReadyError(CapacityError):
    """The model is known but not loaded (yet)."""


class DrainingError(CapacityError):
    """The server is shutting down."""


class DeadlineExceededError(CapacityError):
    """The request's own deadline passed before its answer was ready."""


class OutOfMemoryError(CapacityError):
    """The model finds no memory for this request, even by itself."""


class ConfigurationError(HeadraceError):
    """Start-up: a setting or file is wrong. `file` and `key` name where (either may be empty)."""

    def __init__(self, text: str, *, file: str = "", key: str = "") -> None:
        place = ": ".join(part for part in (file, key) if part)
        super().__init__(f"{place}: {text}" if place else text)
        self.file = file
        self.key = key


class InternalError(HeadraceError):
    """Ours to answer for: a bug, a failing model, a dead executor."""


class UnexpectedError(InternalError):
    """A state that the code holds to be impossible."""


class InferenceFailedError(InternalError):
    """The model raised an error while it ran."""


class ExecutorLostError(InternalError):
    """The executor died with the request, more often than a request is run again."""


class Outcome(NamedTuple):
    """What one error class means: statuses to answer with, the statistics' reason, the level to log at."""

    http_status: int
    grpc_status: int
    reason: str
    level: str


OUTCOMES: dict[type[HeadraceError], Outcome] = {
    InvalidArgumentError: Outcome(400, GRPC_INVALID_ARGUMENT, "INVALID", "debug"),
    UnknownModelError: Outcome(404, GRPC_NOT_FOUND, "INVALID", "debug"),
    AlreadyExistsError: Outcome(400, GRPC_ALREADY_EXISTS, "INVALID", "debug"),
    UnknownPathError: Outcome(404, GRPC_UNIMPLEMENTED, "INVALID", "debug"),
    MethodNotAllowedError: Outcome(405, GRPC_UNIMPLEMENTED, "INVALID", "debug"),
    PayloadTooLargeError: Outcome(413, GRPC_RESOURCE_EXHAUSTED, "INVALID", "debug"),
    UnsupportedMediaTypeError: Outcome(415, GRPC_UNIMPLEMENTED, "INVALID", "debug"),
    NotSupportedError: Outcome(501, GRPC_UNIMPLEMENTED, "INVALID", "debug"),
    CanceledError: Outcome(499, GRPC_CANCELLED, "CANCELED", "debug"),
    MalformedMessageError: Outcome(400, GRPC_INTERNAL, "INVALID", "info"),
    HeadTooLargeError: Outcome(431, GRPC_RESOURCE_EXHAUSTED, "INVALID", "info"),
    SlowPeerError: Outcome(408, GRPC_CANCELLED, "TIMEOUT", "info"),
    QueueFullError: Outcome(503, GRPC_UNAVAILABLE, "REJECTED", "debug"),
    QuotaExceededError: Outcome(429, GRPC_RESOURCE_EXHAUSTED, "REJECTED", "debug"),
    ModelNotReadyError: Outcome(503, GRPC_UNAVAILABLE, "REJECTED", "debug"),
    DrainingError: Outcome(503, GRPC_UNAVAILABLE, "REJECTED", "debug"),
    DeadlineExceededError: Outcome(504, GRPC_DEADLINE_EXCEEDED, "TIMEOUT", "debug"),
    OutOfMemoryError: Outcome(503, GRPC_RESOURCE_EXHAUSTED, "INTERNAL", "warning"),
    ConfigurationError: Outcome(500, GRPC_INTERNAL, "OTHER", "error"),
    UnexpectedError: Outcome(500, GRPC_INTERNAL, "INTERNAL", "error"),
    InferenceFailedError: Outcome(500, GRPC_INTERNAL, "INTERNAL", "warning"),
    ExecutorLostError: Outcome(500, GRPC_INTERNAL, "INTERNAL", "error"),
}

#: An exception that is not of the tree, or a class of it without a row, is a bug of ours.
UNEXPECTED = OUTCOMES[UnexpectedError]

#: enum of InferError.code (server/_fast/infer_spec.pxd) -> the class of the same meaning. RESOURCE_EXHAUSTED comes from
#: a request that is larger than a limit, or than the memory that is left; a full queue is UNAVAILABLE, as at Triton.
INFER_ERRORS: dict[int, type[HeadraceError]] = {
    1: InvalidArgumentError,
    2: UnknownModelError,
    3: QueueFullError,
    4: NotSupportedError,
    5: UnexpectedError,
    6: PayloadTooLargeError,
    7: DeadlineExceededError,
    8: AlreadyExistsError,
    9: OutOfMemoryError,
}


def outcome(error: BaseException | type[BaseException]) -> Outcome:
    """The table's row for an error or its class; a class without a row has its nearest ancestor's."""
    cls = error if isinstance(error, type) else type(error)
    for ancestor in cls.__mro__:
        row = OUTCOMES.get(ancestor)
        if row is not None:
            return row
    return UNEXPECTED


def from_code(code: int, text: str) -> HeadraceError:
    """The error of an `InferError.code`; an unknown code is a bug of ours and says so."""
    cls = INFER_ERRORS.get(code)
    if cls is None:
        return UnexpectedError(f"unknown inference error code {code}: {text}")
    return cls(text)
