"""Parsers for the texts of flags and environment variables.

Each takes the text and returns a value, or raises ValueError that says what was expected and what came.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

Value = int | float | str | bool | tuple[str, ...]

#: A port that is not opened.
OFF = -1
#: GET /metrics is answered on the inference ports; there is no port of its own.
SAME = -2
#: Devices that stand for a choice: the best there is, the same without falling back, the one that a model was measured
#: to be fastest on; and the one that is always there.
AUTO, STRICT, FASTEST, CPU = "auto", "strict", "fastest", "cpu"
#: Of --model-control-mode: what is there at start; what is found as time goes by; what requests say.
NONE, POLL, EXPLICIT = "none", "poll", "explicit"
#: Of --load-model.
ALL_MODELS = "*"
#: A model runs on no more devices at once.
MAX_DEVICES = 8
#: sun_path of Linux holds 108 bytes, the last of them zero.
MAX_SOCKET_PATH_BYTES = 107

_TRUE = ("1", "true", "yes", "on")
_FALSE = ("0", "false", "no", "off")
_ORIGIN = re.compile(r"https?://[A-Za-z0-9._~\[\]:-]+", re.ASCII)
_DEVICE_FORMS = "auto, strict, fastest, cpu, cuda, cuda:N, tensorrt, tensorrt:N, openvino, openvino:CPU, GPU or NPU"
_LIST_FORMS = ", or several of the devices between commas"
_DEVICE = re.compile(r"(cuda|tensorrt)(:\d{1,3})?|openvino(:(CPU|GPU|NPU)(\.\d)?)?", re.ASCII)
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)


def whole(low: int, high: int) -> Callable[[str], int]:
    """A parser for a whole number between two bounds, both included."""

    def parse(text: str) -> int:
        digits = text.strip()
        if digits.isascii() and digits.isdigit() and len(digits) <= 19 and low <= int(digits) <= high:
            return int(digits)
        raise ValueError(f"expected a whole number from {low} to {high}, got {text!r}")

    return parse


def seconds(high: float, low: float = 0.0) -> Callable[[str], float]:
    """A parser for a time in seconds, from 0 (or `low`; 0 always passes); a fraction is allowed."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if value == 0.0 or low <= value <= high:
            return value
        bounds = f"0, or from {low:g}" if low else "from 0"
        raise ValueError(f"expected seconds {bounds} to {high:g}, got {text!r}")

    return parse


def milliseconds(high: float) -> Callable[[str], float]:
    """A parser for a time in milliseconds, 0 or from 0.001; a fraction is allowed."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if value == 0.0 or 0.001 <= value <= high:
            return value
        raise ValueError(f"expected milliseconds, 0 or from 0.001 to {high:.0f}, got {text!r}")

    return parse


def one_of(*choices: str) -> Callable[[str], str]:
    """A parser for a word out of a few."""

    def parse(text: str) -> str:
        if text in choices:
            return text
        raise ValueError(f"expected one of {', '.join(choices)}, got {text!r}")

    return parse


def port(**words: int) -> Callable[[str], int]:
    """A parser for a port, or one of a few words that stand for a value, such as off."""

    def parse(text: str) -> int:
        if text in words:
            return words[text]
        try:
            return whole(0, 65535)(text)
        except ValueError as error:
            others = "".join(f" or {word}" for word in words)
            raise ValueError(str(error).replace(" to 65535,", f" to 65535{others},")) from None

    return parse


def switch(text: str) -> bool:
    """On or off, as the environment says it: 1 or 0."""
    word = text.strip().lower()
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise ValueError(f"expected 1 or 0, got {text!r}")


def words(each: Callable[[str], str]) -> Callable[[str], tuple[str, ...]]:
    """A parser for several values between commas; `each` checks one."""

    def parse(text: str) -> tuple[str, ...]:
        return tuple(each(part.strip()) for part in text.split(",") if part.strip())

    return parse


def host(text: str) -> str:
    if text and text.isprintable() and not any(char in text for char in " /@?#"):
        return text
    raise ValueError(f"expected a host name or an address without a port, got {text!r}")


def server_name(text: str) -> str:
    if 1 <= len(text) <= 128 and text.isascii() and text.isprintable():
        return text
    raise ValueError(f"expected 1 to 128 printable ASCII characters, got {text!r}")


def socket_path(text: str) -> str:
    """A path for a Unix-domain socket; the system's limit counts bytes."""
    count = len(str(Path(text)).encode("utf-8", "surrogateescape"))
    if not text or "\0" in text or text.endswith("/"):
        raise ValueError(f"expected the path of a socket, got {text!r}")
    if count > MAX_SOCKET_PATH_BYTES:
        raise ValueError(
            f"expected the path of a socket with at most {MAX_SOCKET_PATH_BYTES} bytes (a limit of the system), "
            f"got {count}: {text!r}; use a shorter or a relative path"
        )
    return text


def origin(text: str) -> str:
    if text == "*" or _ORIGIN.fullmatch(text):
        return text
    raise ValueError(f"expected * or an origin such as https://example.org, got {text!r}")


def model_name(text: str) -> str:
    if text == ALL_MODELS or _MODEL_NAME.fullmatch(text):
        return text
    raise ValueError(f"expected the name of a model (A-Z a-z 0-9 . _ -) or *, got {text!r}")


def device(text: str) -> str:
    """What models run on, one device or a list of several; what the words mean is server/models/providers.py."""
    found = devices_of(text)
    for one in found:
        if one != CPU and not _DEVICE.fullmatch(one) and (len(found) > 1 or one not in (AUTO, STRICT, FASTEST)):
            raise ValueError(f"expected {_DEVICE_FORMS}{_LIST_FORMS}, got {text!r}")
    if len({_whole_name(one) for one in found}) < len(found):
        raise ValueError(f"expected each device once (--instances is how often it runs each model), got {text!r}")
    if len(found) > MAX_DEVICES:
        raise ValueError(f"expected at most {MAX_DEVICES} devices, got {len(found)}")
    return ",".join(found)


def devices_of(text: str) -> tuple[str, ...]:
    """The devices of a list."""
    return tuple(one.strip() for one in text.split(","))


def _whole_name(device: str) -> str:
    kind, _, where = device.partition(":")
    return f"{kind}:{where or ('CPU' if kind == 'openvino' else '0')}"
