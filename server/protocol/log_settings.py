"""The settings of KServe V2's logging extension, as Triton has them: what may be set, and the word that says it.

The word lies in shared memory, where every process of the server looks before it writes a line (server/log.py). What
names a file cannot be set: no call of an API writes one. Source: Triton's `extension_logging.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from server import errors, log

_BOOLEANS = {"log_info": log.INFO_BIT, "log_warning": log.WARNING_BIT, "log_error": log.ERROR_BIT}
_VERBOSE = "log_verbose_level"
#: What cannot be changed while the server runs, and why.
_FIXED = {
    "log_file": ("", "log file location can not be updated through network protocol: lines go to standard error"),
    "log_format": ("ISO8601", "the format of lines is an option of the server: --log-format"),
}
NAMES = ("log_file", "log_info", "log_warning", "log_error", _VERBOSE, "log_format")


def document(word: int) -> dict[str, Any]:
    """GET /v2/logging."""
    booleans = {name: bool(word & bit) for name, bit in _BOOLEANS.items()}
    return {"log_file": "", **booleans, _VERBOSE: log.verbosity(word), "log_format": "ISO8601"}


def changes(wanted: Mapping[str, object]) -> dict[str, Any]:
    """What a request asks to change; null leaves a setting as it is. Raises InvalidArgumentError."""
    found: dict[str, Any] = {}
    for name, value in wanted.items():
        if name not in NAMES:
            raise errors.InvalidArgumentError(f"unknown log setting '{name[:64]}': expected {', '.join(NAMES)}")
        if value is None:
            continue
        if name in _FIXED:
            kept, text = _FIXED[name]
            if value != kept:
                raise errors.InvalidArgumentError(f"'{name}' stays '{kept}': {text}")
        elif name == _VERBOSE:
            if isinstance(value, float) and value.is_integer():
                # JSON knows one kind of number.
                value = int(value)
            if type(value) is not int or not 0 <= value <= log.MAX_VERBOSITY:
                raise errors.InvalidArgumentError(
                    f"'{name}': expected a whole number of 0 to {log.MAX_VERBOSITY}, 0 for no debug lines"
                )
            found[name] = value
        elif type(value) is not bool:
            raise errors.InvalidArgumentError(f"'{name}': expected true or false")
        else:
            found[name] = value
    return found


def applied(word: int, changed: Mapping[str, Any]) -> int:
    """The word after these changes."""
    for name, bit in _BOOLEANS.items():
        if name in changed:
            word = word | bit if changed[name] else word & ~bit
    return log.with_verbosity(word, changed.get(_VERBOSE, log.verbosity(word)))
