"""Answers everything that is not an inference: health, metadata, configuration, statistics, metrics, errors.

Called by a worker for each request that its C code does not answer itself, so also for an inference that cannot run:
unknown model, model not ready. Runs on the event loop and never waits; nothing here is per inference.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from server import errors, log
from server.observe import metrics, statistics
from server.observe.snapshot import Snapshot
from server.protocol import openapi, routes, tfs, tfs_control, tfs_routes, v2
from server.protocol.served import READY, UNAVAILABLE, Catalog, ServedModel, ServerInfo
from server.worker.memory_handlers import MemoryHandlers, cuda_status, no_regions, refuse_cuda
from server.worker.repository_handlers import Ask, Ended, RepositoryHandlers, document_of, parameters_of
from server.worker.settings_handlers import SettingsHandlers, no_traces

JSON = "application/json"
METRICS_ELSEWHERE = (
    "Not Found: metrics are on a port of their own, 8002 or what --metrics-port says; same puts them here"
)


class Response(NamedTuple):
    """An answer without its framing: the caller adds the lengths, and leaves the body out for HEAD."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()


class Pending(NamedTuple):
    """An answer that comes later: begin(answer) is called once, and answer(Response) once after that."""

    begin: Callable[[Callable[[Response], None]], None]


class Handlers:
    """`catalog` and `info` describe what is served; `snapshot` reads the counters of all processes when called;
    `readiness` gives "" when the server takes work, else why not (draining, a model that is not ready).
    """

    def __init__(
        self,
        catalog: Catalog,
        info: ServerInfo,
        snapshot: Callable[[], Snapshot],
        readiness: Callable[[], str],
        ask: Ask | None = None,
        regions: Callable[[str], list[dict[str, Any]]] = no_regions,
        *,
        log_word: Callable[[], int] = lambda: log.word_of("info"),
        traces: Callable[[str], dict[str, Any]] = no_traces,
        retry_after_s: int = 1,
        has_metrics: bool = False,
        kserve_v1_status: bool = True,
    ) -> None:
        """has_metrics: GET /metrics is answered on every port; kserve_v1_status: as in tfs.model_status."""
        self._catalog = catalog
        #: Requests to the supervisor.
        self.ask = ask or _refuse_change
        self._info = info
        self._snapshot = snapshot
        self._readiness = readiness
        self._retry_after_s = retry_after_s
        self.repository = RepositoryHandlers(catalog.repository, self.ask, catalog.refusals)
        self.memory = MemoryHandlers(regions, self.ask)
        self.settings = SettingsHandlers(catalog, log_word, traces, self.ask)
        self._has_metrics = has_metrics
        self._kserve_v1_status = kserve_v1_status
        #: What answers gRPC's control calls; set by the process, which has more to tell them.
        self.grpc: Any = None
        self._answers: dict[str, Callable[[routes.Match, Mapping[str, str], bytes], Response | Pending]] = {
            "server_metadata": self._server_metadata,
            "kserve_alive": self._kserve_alive,
            "server_live": self._server_live,
            "server_ready": self._server_ready,
            "model_metadata": self._model_metadata,
            "model_ready": self._model_ready,
            "model_config": self._model_config,
            "model_statistics": self._model_statistics,
            "statistics": self._statistics,
            "metrics": self._metrics,
            "infer": self._infer,
            "repository_index": self._repository_index,
            "repository_load": self._repository_load,
            "repository_unload": self._repository_unload,
            "memory_status": self._memory_status,
            "memory_register": self._memory_register,
            "memory_unregister": self._memory_unregister,
            "cuda_memory_status": lambda match, headers, body: Response(
                200, json.dumps(cuda_status(match.region)).encode()
            ),
            "cuda_memory_register": lambda match, headers, body: refuse_cuda(match.region),
            "cuda_memory_unregister": lambda match, headers, body: Response(200, b""),
            "log_settings": self._log_settings,
            "set_log": self._set_log,
            "trace_setting": self._trace_setting,
            "set_trace": self._set_trace,
            "openapi": self._openapi,
            routes.NOT_SUPPORTED: self._not_supported,
            routes.NOT_FOUND: self._not_found,
            routes.METHOD_NOT_ALLOWED: self._method_not_allowed,
        }

    @property
    def catalog(self) -> Catalog:
        """What is served, for protocols with handlers of their own."""
        return self._catalog

    def handle(
        self, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes, port: str
    ) -> Response | Pending:
        """Answer one request; never raises. `headers` has lower-case names; `port` is "http" or "metrics"."""
        if self._has_metrics and path in routes.METRICS_PATHS:
            port = routes.METRICS_PORT
        elif port == routes.HTTP_PORT and path in routes.METRICS_PATHS:
            return Response(404, v2.error_body(METRICS_ELSEWHERE))
        match = routes.resolve(port, method, path)
        try:
            if port == routes.HTTP_PORT and (tfs_match := tfs_routes.parse(method, path)) is not None:
                kserve, retry_after_s = self._kserve_v1_status, self._retry_after_s
                return Response(
                    200, tfs_control.answer(tfs_match, self._catalog, kserve=kserve, retry_after_s=retry_after_s)
                )
            return self._answers[match.handler](match, headers, body)
        except errors.HeadraceError as error:
            return self.error(error)
        except Exception as error:
            log.error("handler_failed", "bug in a handler", handler=match.handler, error=repr(error))
            return Response(500, v2.error_body("internal error; the server's log has the cause"))

    def error(self, error: errors.HeadraceError) -> Response:
        """The answer that an error of the tree stands for."""
        headers: tuple[tuple[str, str], ...] = ()
        if isinstance(error, errors.CapacityError) and error.retry_after_s is not None:
            headers = (("Retry-After", str(error.retry_after_s)),)
        elif isinstance(error, errors.MethodNotAllowedError):
            headers = (("Allow", ", ".join(error.allow)),)
        return Response(errors.outcome(error).http_status, v2.error_body(error.text), JSON, headers)

    def refusal(self, code: int, text: str) -> Response:
        """The answer for the code of an InferError."""
        return self.error(errors.from_code(code, text))

    def _find(self, match: routes.Match) -> ServedModel:
        model = self._catalog.find(match.model, match.version)
        if model is None:
            known = self._catalog.models(), self._catalog.repository()
            raise errors.UnknownModelError(v2.unknown_model_text(match.model, match.version, *known))
        return model

    def _find_described(self, match: routes.Match) -> ServedModel:
        """A model whose inputs and outputs are known: one that could not be read has none to describe."""
        model = self._find(match)
        if not model.outputs:
            raise self._not_ready(model, v2.not_ready_text(model))
        return model

    def _server_metadata(self, match: routes.Match, headers: Mapping[str, str], body: bytes) -> Response:
        return Response(200, v2.server_metadata(self._info))

    def _kserve_alive(self, match: routes.Match, headers: Mapping[str, str], body: bytes) -> Response:
        return Response(200, tfs.ALIVE_BODY)

    def _server_live(self, match: routes.Match, headers: Mapping[str, str], body: bytes) -> Response:
        return Response(200, v2.LIVE_BODY)

    def _server_ready(self, match: routes.Match, headers: Mapping[str, str], body: bytes) -> Response:
        reason = self._readiness()
        if reason:
            return Response(503, v2.not_ready_body(reason), JSON, self._retry_after())
        return Response(200, v2.READY_BODY)

    def _model_metadata(self, match: routes.Match, headers: Mapping[str, str], body: bytes) -> Response:
        model = self._find_described(match)
        if match.version is not None:
            versions = [model.version]
        else:
            versions = [one.version for one in self._catalog.models() if one.name == model.name]
        return Response(200, v2.model_metadata(model, sorted(versions, key=int)))

    def _model_ready(self, match: routes.Match, headers: Mapping[str, str], body: bytes) -> Response:
        model = self._find(match)
        if model.state() != READY:
            return Response(503, v2.model_ready(model), JSON, self._retry_after())
        return Response(200, v2.model_ready(model))

    def _model_config(self, match: routes.Match, headers: Mapping[str, str], body: bytes) -> Response:
        return Response(200, v2.model_config(self._find_described(match)))

    def _model_statistics(self, match: routes.Match, headers: Mapping[str, str], body: bytes) -> Response:
        name = self._find(match).name
        models = [
            one
            for one in self._catalog.models()
            if one.name == name and (match.version is None or one.version == match.version)
        ]
        return Response(200, statistics.document(models, self._snapshot()))

    def _statistics(self, match: routes.Match, headers: Mapping[str, str], body: bytes) -> Response:
        return Response(200, statistics.document(self._catalog.models(), self._snapshot()))

    def _metrics(self, match: routes.Match, headers: Mapping[str, str], body: bytes) -> Response:
        openmetrics = metrics.wants_openmetrics(headers.get("accept", ""))
        text = metrics.exposition(self._info, self._catalog.models(), self._snapshot(), openmetrics=openmetrics)
        return Response(200, text, metrics.OPENMETRICS if openmetrics else metrics.PROMETHEUS)

    def _infer(self, match: routes.Match, headers: Mapping[str, str], body: bytes) -> Response:
        # A ready model's inference runs in the worker's C code: this one is not ready, or was not a moment ago.
        model = self._find(match)
        text = v2.not_ready_text(model)
        if model.state() == READY:
            text = f"model '{model.name}' version {model.version} became ready only now: send the request again"
        raise self._not_ready(model, text)

    def refuse_infer(self, model: str, version: str | None) -> Response:
        """Why a model, by any name that a client may write, takes no inference request now."""
        try:
            return self._infer(routes.Match("infer", model, version), {}, b"")
        except errors.HeadraceError as error:
            return self.error(error)

    def _not_ready(self, model: ServedModel, text: str) -> errors.ModelNotReadyError:
        # A model that is unavailable does not come back by itself: with Retry-After, clients would try for ever.
        return errors.ModelNotReadyError(text, None if model.state() == UNAVAILABLE else self._retry_after_s)

    def _repository_index(self, match: routes.Match, headers: Mapping[str, str], body: bytes) -> Response:
        only_ready = document_of(body).get("ready", False)
        if not isinstance(only_ready, bool):
            raise errors.InvalidArgumentError("Invalid value for 'ready': expected a boolean")
        return Response(200, json.dumps(self.repository.index(only_ready)).encode())

    def _repository_load(self, match: routes.Match, headers: Mapping[str, str], body: bytes) -> Pending:
        parameters = parameters_of(body)
        return self._later(functools.partial(self.repository.load, match.model, parameters))

    def _repository_unload(self, match: routes.Match, headers: Mapping[str, str], body: bytes) -> Pending:
        parameters_of(body)
        return self._later(functools.partial(self.repository.unload, match.model))

    def _memory_status(self, match: routes.Match, headers: Mapping[str, str], body: bytes) -> Response:
        return Response(200, json.dumps(self.memory.status(match.region)).encode())

    def _memory_register(self, match: routes.Match, headers: Mapping[str, str], body: bytes) -> Pending:
        wanted = document_of(body)
        return self._later(
            functools.partial(
                self.memory.register,
                match.region,
                wanted.get("key"),
                wanted.get("offset", 0),
                wanted.get("byte_size"),
            )
        )

    def _memory_unregister(self, match: routes.Match, headers: Mapping[str, str], body: bytes) -> Pending:
        return self._later(functools.partial(self.memory.unregister, match.region))

    def _log_settings(self, match: routes.Match, headers: Mapping[str, str], body: bytes) -> Response:
        return Response(200, v2.dumps(self.settings.log()))

    def _set_log(self, match: routes.Match, headers: Mapping[str, str], body: bytes) -> Pending:
        wanted = document_of(body)
        return self._later(functools.partial(self.settings.set_log, wanted), lambda: v2.dumps(self.settings.log()))

    def _trace_setting(self, match: routes.Match, headers: Mapping[str, str], body: bytes) -> Response:
        return Response(200, v2.dumps(self.settings.trace(match.model)))

    def _set_trace(self, match: routes.Match, headers: Mapping[str, str], body: bytes) -> Pending:
        return self._later(
            functools.partial(self.settings.set_trace, match.model, document_of(body)),
            lambda: v2.dumps(self.settings.trace(match.model)),
        )

    def _openapi(self, match: routes.Match, headers: Mapping[str, str], body: bytes) -> Response:
        return Response(200, v2.dumps(openapi.document(self._info, self._catalog.models())))

    def _later(self, change: Callable[[Ended], None], content: Callable[[], bytes] = bytes) -> Pending:
        """200 with `content` (none: an empty body) when the change is done, or its error."""

        def ended(answer: Callable[[Response], None], error: errors.HeadraceError | None) -> None:
            answer(Response(200, content()) if error is None else self.error(error))

        def begin(answer: Callable[[Response], None]) -> None:
            try:
                change(functools.partial(ended, answer))
            except errors.HeadraceError as error:
                answer(self.error(error))

        return Pending(begin)

    def _not_supported(self, match: routes.Match, headers: Mapping[str, str], body: bytes) -> Response:
        raise errors.NotSupportedError(match.text)

    def _not_found(self, match: routes.Match, headers: Mapping[str, str], body: bytes) -> Response:
        return Response(404, v2.error_body(v2.NOT_FOUND))

    def _method_not_allowed(self, match: routes.Match, headers: Mapping[str, str], body: bytes) -> Response:
        allowed = ", ".join(match.allow)
        body = v2.error_body(f"Method Not Allowed: this path takes {allowed}")
        return Response(405, body, JSON, (("Allow", allowed),))

    def _retry_after(self) -> tuple[tuple[str, str], ...]:
        return (("Retry-After", str(self._retry_after_s)),)


def _refuse_change(call: str, arguments: dict[str, Any], done: Callable[[int, str], None]) -> None:
    """Where there is no supervisor to ask."""
    done(3, f"{call} is not possible: the models of this process are fixed")
