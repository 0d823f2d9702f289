"""What a worker answers to a request of TensorFlow Serving's REST API or KServe V1 that is no running prediction.

Errors are raised as those of server.errors, with TensorFlow Serving's texts; the caller turns them into answers. Three
answers differ on purpose: a model that is known but not loaded is 503, not 404, as the request is worth repeating;
GET /v1/models is KServe V1's list, not an error; and version 0 of a model that has none is its default version, as
OpenVINO Model Server's clients say it.
"""

from __future__ import annotations

from server import errors
from server.protocol import tfs, tfs_routes
from server.protocol.served import READY, UNAVAILABLE, Catalog, ServedModel


def answer(match: tfs_routes.TfsMatch, catalog: Catalog, *, kserve: bool = True, retry_after_s: int = 1) -> bytes:
    """The body of a 200, JSON; or an error of the tree. `kserve`: as in tfs.model_status."""
    if match.kind == tfs_routes.MALFORMED:
        raise errors.InvalidArgumentError(match.text)
    if match.version == "0" and catalog.find(match.model, "0") is None:
        match = match._replace(version=None)
    if match.kind == tfs_routes.LIST:
        return tfs.model_list(catalog.models())
    if match.label is not None:
        version = catalog.labelled(match.model, match.label)
        if version is None:
            raise errors.InvalidArgumentError(tfs.unknown_label_text(match.label))
        match = match._replace(version=version, label=None)
    if match.kind == tfs_routes.STATUS:
        return tfs.model_status(_versions(match, catalog), kserve=kserve)
    model = catalog.find(match.model, match.version)
    if model is None:
        raise errors.UnknownModelError(tfs.unknown_servable_text(match.model, match.version))
    if match.kind == tfs_routes.METADATA:
        if not model.outputs:
            raise _not_ready(model, match, retry_after_s)
        return tfs.metadata(model)
    if model.state() != READY:
        raise _not_ready(model, match, retry_after_s)
    if match.kind != tfs_routes.PREDICT:
        raise errors.InvalidArgumentError(tfs.method_text(match.kind))
    # A ready model's predictions run in the worker's C code: this one was not ready a moment ago.
    text = f"model '{model.name}' version {model.version} became ready only now: send the request again"
    raise errors.ModelNotReadyError(text, retry_after_s)


def _not_ready(model: ServedModel, match: tfs_routes.TfsMatch, retry_after_s: int) -> errors.ModelNotReadyError:
    """Waiting helps unless the model could not be loaded."""
    text = tfs.not_ready_text(model, match.version)
    return errors.ModelNotReadyError(text, None if model.state() == UNAVAILABLE else retry_after_s)


def _versions(match: tfs_routes.TfsMatch, catalog: Catalog) -> list[ServedModel]:
    found = [
        model for model in catalog.models() if model.name == match.model and match.version in (None, model.version)
    ]
    if not found:
        raise errors.UnknownModelError(tfs.unknown_status_text(match.model, match.version))
    return found
