"""KServe V2's model repository extension: what there is, load, unload; transport-neutral.

The supervisor does the work and answers when every worker acts accordingly, which takes as long as a model takes to
load: load and unload report through a callback. Source of texts and states: Triton's `extension_model_repository.md`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from server import errors
from server.models.model_config import MAX_CONFIG_BYTES
from server.protocol.served import READY, ServedModel

#: A request to the supervisor: (call, arguments, done(InferErrorCode or 0, text)).
Ask = Callable[[str, dict[str, Any], Callable[[int, str], None]], None]
#: Told how it ended: None, or the error for the client.
Ended = Callable[[errors.HeadraceError | None], None]


class RepositoryHandlers:
    """`repository` gives every version that is known, loaded or not."""

    def __init__(
        self,
        repository: Callable[[], Sequence[ServedModel]],
        ask: Ask,
        refusals: Callable[[], Mapping[tuple[str, str], str]] = dict,
    ) -> None:
        """refusals: why the present files of a version are not served, where those before them are."""
        self._repository = repository
        self._refusals = refusals
        self._ask = ask

    def index(self, only_ready: bool) -> list[dict[str, str]]:
        """One row for each version, by name and version. A READY one has a reason where changed files were refused."""
        rows = []
        refusals = self._refusals()
        for model in sorted(self._repository(), key=lambda model: (model.name, int(model.version))):
            state = model.state()
            if only_ready and state != READY:
                continue
            reason = model.reason() if state != READY else ""
            if state == READY and (refused := refusals.get((model.name, model.version))):
                reason = f"its changed files are not served: {refused}"
            rows.append({"name": model.name, "version": model.version, "state": state, "reason": reason})
        return rows

    def load(self, model: str, parameters: Mapping[str, object], ended: Ended) -> None:
        """Loads a model, or its files anew where they have changed. Parameter `config`: a ModelConfig in JSON that
        takes the place of config.pbtxt until the next load of this model.
        """
        for name in parameters:
            if name != "config":
                what = "files are taken from the repository only" if name.startswith("file:") else "expected 'config'"
                ended(errors.NotSupportedError(f"load parameter '{name[:64]}' is not supported: {what}"))
                return
        arguments: dict[str, Any] = {"name": model}
        if "config" in parameters:
            try:
                arguments["config"] = _config_of(model, parameters["config"])
            except errors.InvalidArgumentError as error:
                ended(error)
                return
        self._ask("model load", arguments, then(ended))

    def unload(self, model: str, ended: Ended) -> None:
        """Unloads a model: requests in flight are still answered."""
        self._ask("model unload", {"name": model}, then(ended))


def _config_of(model: str, text: object) -> dict[str, Any]:
    """The parameter `config`: the text of a JSON object. The error begins as Triton's."""
    refused = f"failed to load '{model[:128]}', load parameter 'config': expected the JSON text of a ModelConfig"
    if not isinstance(text, str) or len(text) > MAX_CONFIG_BYTES:
        raise errors.InvalidArgumentError(f"{refused}, at most {MAX_CONFIG_BYTES} bytes")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise errors.InvalidArgumentError(refused)
    return document


def then(ended: Ended) -> Callable[[int, str], None]:
    """What an Ask calls, for what a handler calls."""
    return lambda code, text: ended(errors.from_code(code, text) if code else None)


def parameters_of(body: bytes) -> dict[str, Any]:
    """The `parameters` of a load or unload request's body, which may be empty."""
    document = document_of(body)
    parameters = document.get("parameters", {})
    if not isinstance(parameters, dict):
        raise errors.InvalidArgumentError("'parameters': expected an object")
    return parameters


def document_of(body: bytes) -> dict[str, Any]:
    """A request's body as a JSON object; an empty body is an empty object."""
    if not body.strip():
        return {}
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise errors.InvalidArgumentError("failed to parse the request JSON buffer: expected a JSON object") from None
    if not isinstance(document, dict):
        raise errors.InvalidArgumentError("expected a JSON object, or no body")
    return document
