"""Log and trace settings as messages of KServe V2's gRPC protocol, from and to their documents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def log_changes(request: Any) -> dict[str, Any]:
    """The document that a LogSettingsRequest stands for; a setting without a value is null."""
    found: dict[str, Any] = {}
    for name, value in request.settings.items():
        kind = value.WhichOneof("parameter_choice")
        found[name] = None if kind is None else getattr(value, kind)
    return found


def log_reply(document: Mapping[str, Any], reply: Any) -> Any:
    """A LogSettingsResponse."""
    answer = reply()
    for name, value in document.items():
        kind = "bool_param" if isinstance(value, bool) else "uint32_param" if isinstance(value, int) else "string_param"
        setattr(answer.settings[name], kind, value)
    return answer


def trace_changes(request: Any) -> dict[str, Any]:
    """The document that a TraceSettingRequest stands for; a setting without a value is null."""
    found: dict[str, Any] = {}
    for name, value in request.settings.items():
        texts = list(value.value)
        found[name] = None if not texts else texts if name == "trace_level" or len(texts) > 1 else texts[0]
    return found


def trace_reply(document: Mapping[str, Any], reply: Any) -> Any:
    """A TraceSettingResponse."""
    answer = reply()
    for name, value in document.items():
        answer.settings[name].value.extend(value if isinstance(value, list) else [value])
    return answer
