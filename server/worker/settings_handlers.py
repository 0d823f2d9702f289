"""KServe V2's logging and trace extensions: settings that act while the server serves; transport-neutral.

The supervisor changes them and answers when the change acts in every process. Sources: Triton's `extension_logging.md`
and `extension_trace.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from server import errors
from server.protocol import log_settings, trace_settings, v2
from server.protocol.served import Catalog
from server.worker.repository_handlers import Ask, Ended, then


class SettingsHandlers:
    """`log_word` gives the word of server/log.py, `traces` the trace settings of a model or ("") of the server."""

    def __init__(
        self, catalog: Catalog, log_word: Callable[[], int], traces: Callable[[str], dict[str, Any]], ask: Ask
    ) -> None:
        self._catalog = catalog
        self._log_word = log_word
        self._traces = traces
        self._ask = ask

    def log(self) -> dict[str, Any]:
        return log_settings.document(self._log_word())

    def set_log(self, wanted: Mapping[str, object], ended: Ended) -> None:
        self._change("setting log", {"changes": log_settings.changes(wanted)}, ended)

    def trace(self, model: str = "") -> dict[str, Any]:
        """Raises UnknownModelError."""
        self._check(model)
        return self._traces(model)

    def set_trace(self, model: str, wanted: Mapping[str, object], ended: Ended) -> None:
        """Of a model, or without a name of the server. Raises UnknownModelError, InvalidArgumentError."""
        self._check(model)
        self._change("setting trace", {"model": model, "changes": trace_settings.changes(wanted)}, ended)

    def _check(self, model: str) -> None:
        if model and self._catalog.find(model, None) is None:
            raise errors.UnknownModelError(v2.unknown_model_text(model, None, self._catalog.models()))

    def _change(self, call: str, arguments: dict[str, Any], ended: Ended) -> None:
        if arguments["changes"]:
            self._ask(call, arguments, then(ended))
        else:
            ended(None)


def no_traces(model: str) -> dict[str, Any]:
    """Of a process without lanes."""
    return trace_settings.document(trace_settings.Setting(), -1)
