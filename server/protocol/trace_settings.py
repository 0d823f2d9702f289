"""The settings of KServe V2's trace extension, as Triton has them: of the server, and of models that have their own.

A model follows the server in all that it does not set itself. Traces are lines of the log: what names a file cannot be
set. Source: Triton's `extension_trace.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from server import errors

OFF = "OFF"
TIMESTAMPS = "TIMESTAMPS"
MAX_COUNT = (1 << 31) - 1
NAMES = ("trace_file", "trace_level", "trace_rate", "trace_count", "log_frequency", "trace_mode")
_FIXED = {
    "trace_file": ("", "trace file location can not be updated through network protocol: traces go to the log"),
    "trace_mode": ("triton", "other modes of tracing are not supported"),
}
#: name -> least value.
_NUMBERS = {"trace_rate": 1, "trace_count": -1, "log_frequency": 0}

#: What a client has set, by name; a name that is not there follows the server, or is as at the start.
Own = Mapping[str, Any]


class Setting(NamedTuple):
    """`trace_rate`: one of so many requests is traced; `trace_count`: so many, -1 without end; `log_frequency`: lines
    are written when a worker has so many, 0 at once.
    """

    trace_level: str = OFF
    trace_rate: int = 1000
    trace_count: int = -1
    log_frequency: int = 0

    def of(self, own: Own) -> Setting:
        """This one where `own` says nothing else."""
        return self._replace(**own)


def document(setting: Setting, left_count: int) -> dict[str, Any]:
    """GET /v2/trace/setting; `left_count`: traces that may still be written, -1 for any number."""
    return {
        "trace_file": "",
        "trace_level": [setting.trace_level],
        "trace_rate": str(setting.trace_rate),
        "trace_count": str(left_count),
        "log_frequency": str(setting.log_frequency),
        "trace_mode": "triton",
    }


def changes(wanted: Mapping[str, object]) -> dict[str, Any]:
    """What a request asks to change; None for what it resets. Raises InvalidArgumentError."""
    found: dict[str, Any] = {}
    for name, value in wanted.items():
        if name not in NAMES:
            raise errors.InvalidArgumentError(f"unknown trace setting '{name[:64]}': expected {', '.join(NAMES)}")
        if name in _FIXED:
            kept, text = _FIXED[name]
            if value is not None and value != kept:
                raise errors.InvalidArgumentError(f"'{name}' stays '{kept}': {text}")
        elif value is None:
            found[name] = None
        elif name == "trace_level":
            found[name] = _level(value)
        else:
            found[name] = _number(name, value)
    return found


def _level(value: object) -> str:
    levels = [value] if isinstance(value, str) else value
    if not isinstance(levels, list) or len(levels) != 1 or levels[0] not in (OFF, TIMESTAMPS):
        raise errors.InvalidArgumentError(f'\'trace_level\': expected ["{OFF}"] or ["{TIMESTAMPS}"]')
    return str(levels[0])


def _number(name: str, value: object) -> int:
    least = _NUMBERS[name]
    if isinstance(value, str) and len(value) <= 10 and value.isascii() and value.removeprefix("-").isdigit():
        value = int(value)
    elif isinstance(value, float) and value.is_integer():
        # JSON knows one kind of number.
        value = int(value)
    if type(value) is not int or not least <= value <= MAX_COUNT:
        raise errors.InvalidArgumentError(
            f"unable to parse '{name}': expected a whole number of {least} to {MAX_COUNT}, in quotes or not"
        )
    return value


def updated(own: Own, changed: Mapping[str, Any]) -> dict[str, Any]:
    """What is set after a request's changes."""
    return {name: value for name, value in {**own, **changed}.items() if value is not None}
