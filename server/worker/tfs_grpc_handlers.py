"""Answers TensorFlow Serving's gRPC methods but Predict of a ready model, which runs in the worker's C code.

Contents and texts are those of its REST API (server/protocol/tfs.py), here as messages. Sources: TensorFlow Serving
`get_model_metadata_impl.cc`, `get_model_status_impl.cc`, `model_service_impl.cc`, `classifier.cc`, `regressor.cc`,
`server_core.cc`. Differences on purpose: a model that is known but not loaded is UNAVAILABLE, not NOT_FOUND, as the
call is worth repeating, and a metadata field that is not supported is named where TensorFlow Serving prints "%s".
Handlers raise errors of server.errors; they run on the event loop and never wait.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from server import errors
from server.protocol import messages, tfs, tfs_config, tfs_control, tfs_routes
from server.protocol.served import Catalog
from server.worker.repository_handlers import Ask, Ended, then

SIGNATURE_DEF = "signature_def"
_PREDICTION = "/tensorflow.serving.PredictionService"
_MODEL = "/tensorflow.serving.ModelService"
_ANY_PREFIX = "type.googleapis.com/"


class TfsGrpcHandlers:
    """`catalog`: what is served; `ask` tells the supervisor of a new configuration."""

    def __init__(self, catalog: Catalog, ask: Ask) -> None:
        self._catalog = catalog
        self._ask = ask
        #: Path -> handler(request, class of the reply).
        self.methods: dict[str, Callable[[Any, Any], Any]] = {
            f"{_PREDICTION}/GetModelMetadata": self._metadata,
            f"{_PREDICTION}/Classify": self._classify,
            f"{_PREDICTION}/Regress": self._regress,
            f"{_PREDICTION}/MultiInference": self._multi_inference,
            f"{_MODEL}/GetModelStatus": self._status,
        }
        #: Path of a method whose reply waits for all workers -> begin(request, ended).
        self.changes: dict[str, Callable[[Any, Ended], None]] = {
            f"{_MODEL}/HandleReloadConfigRequest": self._reload_config,
        }

    def refusal(self, name: str | None, version: int | None, label: str) -> tuple[int, str]:
        """Why a Predict cannot run that names this model (None: it names none): (HTTP status, text)."""
        try:
            match = _match(tfs_routes.PREDICT, name, version, label)
            tfs_control.answer(match, self._catalog)
        except errors.HeadraceError as error:
            return errors.outcome(error).http_status, error.text
        raise AssertionError("tfs_control answers no prediction")

    def _metadata(self, request: Any, reply: Any) -> Any:
        spec = _spec(request)
        if not request.metadata_field:
            raise errors.InvalidArgumentError("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != SIGNATURE_DEF:
                raise errors.InvalidArgumentError(
                    f"Metadata field {field} is not supported: expected {SIGNATURE_DEF!r}"
                )
        document = json.loads(tfs_control.answer(_match_of(tfs_routes.METADATA, spec), self._catalog))
        signatures = messages.from_document(
            document["metadata"][SIGNATURE_DEF], messages.message_class("tensorflow.serving.SignatureDefMap")
        )
        answer = reply()
        answer.model_spec.name = document["model_spec"]["name"]
        answer.model_spec.version.value = int(document["model_spec"]["version"])
        packed = answer.metadata[SIGNATURE_DEF]
        packed.type_url = _ANY_PREFIX + signatures.DESCRIPTOR.full_name
        packed.value = signatures.SerializeToString(deterministic=True)
        return answer

    def _status(self, request: Any, reply: Any) -> Any:
        """A label is not looked at, as in TensorFlow Serving: all versions."""
        spec = _spec(request)
        version = str(spec.version.value) if spec.HasField("version") else None
        match = tfs_routes.TfsMatch(tfs_routes.STATUS, spec.name, version)
        return messages.from_document(json.loads(tfs_control.answer(match, self._catalog, kserve=False)), reply)

    def _classify(self, request: Any, reply: Any) -> Any:
        raise self._wrong_method(request, tfs_routes.CLASSIFY)

    def _regress(self, request: Any, reply: Any) -> Any:
        raise self._wrong_method(request, tfs_routes.REGRESS)

    def _wrong_method(self, request: Any, kind: str) -> errors.HeadraceError:
        """No model here has a signature of these methods; what is asked before that is asked first."""
        spec = _spec(request)
        text = tfs.method_text(kind)
        if spec.signature_name not in ("", tfs.SIGNATURE):
            text = f"No signature was found with the name: {spec.signature_name}"
        try:
            tfs_control.answer(_match_of(kind, spec), self._catalog)
        except errors.InvalidArgumentError as error:
            return errors.InvalidArgumentError(text) if error.text == tfs.method_text(kind) else error
        except errors.HeadraceError as error:
            return error
        raise AssertionError("tfs_control answers no such call")

    def _multi_inference(self, request: Any, reply: Any) -> Any:
        raise errors.NotSupportedError(
            "MultiInference is not supported: no model has classification or regression signatures; use Predict"
        )

    def _reload_config(self, request: Any, ended: Ended) -> None:
        """The models of the list take the place of all others."""
        if request.config.WhichOneof("config") != "model_config_list":
            ended(
                errors.InvalidArgumentError(
                    "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is "
                    "currently supported"
                )
            )
            return
        try:
            sources = tfs_config.sources_of(request.config)
        except errors.InvalidArgumentError as error:
            ended(error)
            return
        self._ask("model configure", {"name": "", "sources": tfs_config.to_rows(sources)}, then(ended))


def _spec(request: Any) -> Any:
    if not request.HasField("model_spec"):
        raise errors.InvalidArgumentError("Missing ModelSpec")
    return request.model_spec


def _match_of(kind: str, spec: Any) -> tfs_routes.TfsMatch:
    """What a ModelSpec asks for."""
    return _match(kind, spec.name, spec.version.value if spec.HasField("version") else None, spec.version_label)


def _match(kind: str, name: str | None, version: int | None, label: str) -> tfs_routes.TfsMatch:
    if name is None:
        raise errors.InvalidArgumentError("Missing ModelSpec")
    if not name:
        raise errors.InvalidArgumentError("ModelSpec has no name specified.")
    return tfs_routes.TfsMatch(kind, name, None if version is None else str(version), label or None)
