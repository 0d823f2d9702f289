"""Answers every gRPC method but inference: KServe V2's control calls, health and reflection; TensorFlow Serving's are
in tfs_grpc_handlers.

The contents are those of the REST handlers; here they become messages. The protobuf library is loaded by the first such
call, so a worker that only serves inferences never pays for it. Runs on the event loop and never waits.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from server import errors, log
from server.protocol import messages, settings_messages
from server.worker.handlers import Handlers, Response
from server.worker.memory_handlers import cuda_status, refuse_cuda
from server.worker.repository_handlers import Ended
from server.worker.tfs_grpc_handlers import TfsGrpcHandlers

OK = 0
INVALID_ARGUMENT = 3
NOT_FOUND = 5
RESOURCE_EXHAUSTED = 8
UNIMPLEMENTED = 12
INTERNAL = 13
UNAVAILABLE = 14

_OF_HTTP = {400: INVALID_ARGUMENT, 404: NOT_FOUND, 413: RESOURCE_EXHAUSTED, 429: RESOURCE_EXHAUSTED}
_OF_HTTP |= {501: UNIMPLEMENTED, 503: UNAVAILABLE, 504: 4}

SERVING = 1
NOT_SERVING = 2
SERVICE_UNKNOWN = 3

Metadata = Sequence[tuple[bytes, bytes]]
Answer = tuple[int, str, bytes]


class Replies(Protocol):
    """The other end of a streaming call."""

    def send(self, message: bytes) -> None: ...
    def finish(self, status: int = 0, text: str = "") -> None: ...


class Stream(Protocol):
    """A streaming call that a handler serves."""

    def message(self, data: bytes) -> None: ...
    def half_closed(self) -> None: ...
    def closed(self) -> None: ...


class GrpcHandlers:
    """`handlers` has the contents; `is_serving("")`: whether the server takes work, else whether that model does."""

    def __init__(self, handlers: Handlers, is_serving: Callable[[str], bool | None]) -> None:
        #: TensorFlow Serving's part; also says why a Predict has no model.
        self.tfs = TfsGrpcHandlers(handlers.catalog, handlers.ask)
        self._handlers = handlers
        self._is_serving = is_serving
        self._watches: list[_Watch] = []
        self._unary: dict[str, Callable[[Any, Any], Any]] = {
            "/inference.GRPCInferenceService/ServerLive": self._server_live,
            "/inference.GRPCInferenceService/ServerReady": self._server_ready,
            "/inference.GRPCInferenceService/ModelReady": self._model_ready,
            "/inference.GRPCInferenceService/ServerMetadata": self._server_metadata,
            "/inference.GRPCInferenceService/ModelMetadata": self._model_metadata,
            "/inference.GRPCInferenceService/ModelConfig": self._model_config,
            "/inference.GRPCInferenceService/ModelStatistics": self._model_statistics,
            "/inference.GRPCInferenceService/RepositoryIndex": self._repository_index,
            "/inference.GRPCInferenceService/SystemSharedMemoryStatus": self._memory_status,
            "/inference.GRPCInferenceService/CudaSharedMemoryStatus": self._cuda_status,
            "/inference.GRPCInferenceService/CudaSharedMemoryRegister": lambda request, reply: refuse_cuda(
                request.name
            ),
            "/inference.GRPCInferenceService/CudaSharedMemoryUnregister": lambda request, reply: reply(),
            "/grpc.health.v1.Health/Check": self._health_check,
            **self.tfs.methods,
        }
        self._streams: dict[str, Callable[[Replies], Stream]] = {
            # Of one message and one reply, but the reply waits for all workers, or for a model to load.
            **{
                path: functools.partial(_Change, path, begin)
                for path, begin in (
                    ("/inference.GRPCInferenceService/RepositoryModelLoad", self._load),
                    ("/inference.GRPCInferenceService/RepositoryModelUnload", self._unload),
                    ("/inference.GRPCInferenceService/SystemSharedMemoryRegister", self._register),
                    ("/inference.GRPCInferenceService/SystemSharedMemoryUnregister", self._unregister),
                    *self.tfs.changes.items(),
                )
            },
            "/inference.GRPCInferenceService/LogSettings": functools.partial(
                _Change, "/inference.GRPCInferenceService/LogSettings", self._set_log, reply=self._log_settings
            ),
            "/inference.GRPCInferenceService/TraceSetting": functools.partial(
                _Change, "/inference.GRPCInferenceService/TraceSetting", self._set_trace, reply=self._trace_setting
            ),
            "/grpc.health.v1.Health/Watch": self._watch,
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": lambda replies: _Reflection("v1", replies),
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": lambda replies: _Reflection(
                "v1alpha", replies
            ),
        }

    def is_streaming(self, path: str) -> bool:
        """Whether open() serves this method."""
        return path in self._streams

    def open(self, path: str, metadata: Metadata, replies: Replies) -> Stream:
        """Begins a streaming call."""
        return self._streams[path](replies)

    def unary(self, path: str, metadata: Metadata, message: bytes) -> Answer:
        """One call: (status, text, reply). Never raises."""
        method = messages.method(path)
        if method is None:
            return UNIMPLEMENTED, f"unknown method {path}: see the server's reflection service for those there are", b""
        handler = self._unary.get(path)
        if handler is None:
            return UNIMPLEMENTED, f"the method {path} is not supported", b""
        try:
            request = method.request.FromString(message)
        except Exception:
            return INVALID_ARGUMENT, f"the message is not a {method.request.DESCRIPTOR.full_name}", b""
        try:
            reply = handler(request, method.reply)
            return OK, "", reply.SerializeToString()
        except _Refused as refused:
            return refused.status, refused.text, b""
        except errors.HeadraceError as error:
            return errors.outcome(error).grpc_status, error.text, b""
        except Exception as error:
            log.error("handler_failed", "bug in a gRPC handler", method=path, error=repr(error))
            return INTERNAL, "internal error; the server's log has the cause", b""

    def tick(self) -> None:
        """Once a second: tells watchers of health what changed."""
        self._watches = [watch for watch in self._watches if watch.tick()]

    def stop(self) -> None:
        """The server takes no more work: watchers hear of it, and their calls end, as clients never end them."""
        for watch in self._watches:
            watch.tick()
            watch.end()
        self._watches = []

    def _get(self, path: str) -> Any:
        """The REST answer as a document; raises _Refused for an error."""
        answer = self._handlers.handle("GET", path, "", {}, b"", "http")
        assert isinstance(answer, Response)
        document = json.loads(answer.body)
        if answer.status != 200:
            raise _Refused(_OF_HTTP.get(answer.status, INTERNAL), document.get("error", "not ready"))
        return document

    @staticmethod
    def _model_path(name: str, version: str, tail: str = "") -> str:
        # A name with a slash is no model's name; it must not become another path.
        name = name.replace("/", "%2F")
        return f"/v2/models/{name}" + (f"/versions/{version.replace('/', '%2F')}" if version else "") + tail

    def _server_live(self, request: Any, reply: Any) -> Any:
        return reply(live=True)

    def _server_ready(self, request: Any, reply: Any) -> Any:
        return reply(ready=bool(self._is_serving("")))

    def _model_ready(self, request: Any, reply: Any) -> Any:
        path = self._model_path(request.name, request.version, "/ready")
        # As Triton: a model that is not there is not ready, which is no error.
        answer = self._handlers.handle("GET", path, "", {}, b"", "http")
        assert isinstance(answer, Response)
        return reply(ready=answer.status == 200)

    def _server_metadata(self, request: Any, reply: Any) -> Any:
        return messages.from_document(self._get("/v2"), reply)

    def _model_metadata(self, request: Any, reply: Any) -> Any:
        return messages.from_document(self._get(self._model_path(request.name, request.version)), reply)

    def _model_config(self, request: Any, reply: Any) -> Any:
        return messages.from_document(
            {"config": self._get(self._model_path(request.name, request.version, "/config"))}, reply
        )

    def _model_statistics(self, request: Any, reply: Any) -> Any:
        path = self._model_path(request.name, request.version, "/stats") if request.name else "/v2/models/stats"
        return messages.from_document(self._get(path), reply)

    def _repository_index(self, request: Any, reply: Any) -> Any:
        return reply(models=self._handlers.repository.index(request.ready))

    def _load(self, request: Any, ended: Ended) -> None:
        parameters = {
            name: getattr(value, value.WhichOneof("parameter_choice") or "string_param")
            for name, value in request.parameters.items()
        }
        self._handlers.repository.load(request.model_name, parameters, ended)

    def _unload(self, request: Any, ended: Ended) -> None:
        self._handlers.repository.unload(request.model_name, ended)

    def _memory_status(self, request: Any, reply: Any) -> Any:
        answer = reply()
        for row in self._handlers.memory.status(request.name):
            region = answer.regions[row["name"]]
            region.name, region.key, region.offset, region.byte_size = (
                row["name"],
                row["key"],
                row["offset"],
                row["byte_size"],
            )
        return answer

    def _cuda_status(self, request: Any, reply: Any) -> Any:
        cuda_status(request.name)
        return reply()

    def _register(self, request: Any, ended: Ended) -> None:
        self._handlers.memory.register(request.name, request.key, request.offset, request.byte_size, ended)

    def _unregister(self, request: Any, ended: Ended) -> None:
        self._handlers.memory.unregister(request.name, ended)

    def _set_log(self, request: Any, ended: Ended) -> None:
        self._handlers.settings.set_log(settings_messages.log_changes(request), ended)

    def _log_settings(self, request: Any, reply: Any) -> Any:
        return settings_messages.log_reply(self._handlers.settings.log(), reply)

    def _set_trace(self, request: Any, ended: Ended) -> None:
        self._handlers.settings.set_trace(request.model_name, settings_messages.trace_changes(request), ended)

    def _trace_setting(self, request: Any, reply: Any) -> Any:
        return settings_messages.trace_reply(self._handlers.settings.trace(request.model_name), reply)

    def _health_check(self, request: Any, reply: Any) -> Any:
        serving = self._is_serving(_model_of(request.service))
        if serving is None:
            raise _Refused(NOT_FOUND, f"unknown service {request.service!r}: expected '', a gRPC service or a model")
        return reply(status=SERVING if serving else NOT_SERVING)

    def _watch(self, replies: Replies) -> Stream:
        watch = _Watch(self._is_serving, replies)
        self._watches.append(watch)
        return watch


def _model_of(service: str) -> str:
    """Health is asked of '', of a gRPC service of this server, or of a model by its name."""
    return "" if service in messages.services() else service


class _Refused(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class _Change:
    """A call that changes something for all workers. A client that goes away changes nothing about what it began.

    `reply(request, class of the reply)` says what follows when it is done; else it is an empty message.
    """

    def __init__(
        self,
        path: str,
        begin: Callable[[Any, Ended], None],
        replies: Replies,
        reply: Callable[[Any, Any], Any] | None = None,
    ) -> None:
        method = messages.method(path)
        assert method is not None
        self._method = method
        self._begin = begin
        self._replies = replies
        self._reply = reply
        self._has_message = False

    def message(self, data: bytes) -> None:
        request = self._method.request.FromString(data)
        self._has_message = True
        try:
            self._begin(request, functools.partial(self._ended, request))
        except errors.HeadraceError as error:
            self._ended(request, error)

    def _ended(self, request: Any, error: errors.HeadraceError | None) -> None:
        if error is not None:
            self._replies.finish(errors.outcome(error).grpc_status, error.text)
            return
        reply = self._reply(request, self._method.reply) if self._reply else self._method.reply()
        self._replies.send(reply.SerializeToString())
        self._replies.finish()

    def half_closed(self) -> None:
        if not self._has_message:
            self._replies.finish(INTERNAL, "expected exactly one message, got none")

    def closed(self) -> None:
        pass


class _Watch:
    """grpc.health.v1 Watch: the status now, and then each time that it changes."""

    def __init__(self, is_serving: Callable[[str], bool | None], replies: Replies) -> None:
        self._is_serving = is_serving
        self._replies = replies
        self._service: str | None = None
        self._sent = 0
        self._is_open = True

    def message(self, data: bytes) -> None:
        request = messages.message_class("grpc.health.v1.HealthCheckRequest").FromString(data)
        self._service = request.service
        self.tick()

    def half_closed(self) -> None:
        if self._service is None:
            self._replies.finish(INTERNAL, "expected exactly one message, got none")

    def closed(self) -> None:
        self._is_open = False

    def end(self) -> None:
        """The server stops."""
        if self._is_open:
            self._is_open = False
            self._replies.finish(UNAVAILABLE, "the server is stopping")

    def tick(self) -> bool:
        """Sends the status if it changed; whether the call is still open."""
        if not self._is_open:
            return False
        if self._service is not None:
            serving = self._is_serving(_model_of(self._service))
            status = SERVICE_UNKNOWN if serving is None else SERVING if serving else NOT_SERVING
            if status != self._sent:
                self._sent = status
                reply = messages.message_class("grpc.health.v1.HealthCheckResponse")(status=status)
                self._replies.send(reply.SerializeToString())
        return True


class _Reflection:
    """grpc.reflection: which services there are and what their messages are. `version` is v1 or v1alpha."""

    def __init__(self, version: str, replies: Replies) -> None:
        self._package = f"grpc.reflection.{version}"
        self._replies = replies

    def message(self, data: bytes) -> None:
        request = messages.message_class(f"{self._package}.ServerReflectionRequest").FromString(data)
        reply = messages.message_class(f"{self._package}.ServerReflectionResponse")(
            valid_host=request.host, original_request=request
        )
        kind = request.WhichOneof("message_request")
        try:
            if kind == "list_services":
                for name in messages.services():
                    reply.list_services_response.service.add(name=name)
            elif kind == "file_by_filename":
                files = messages.file_named(request.file_by_filename)
                reply.file_descriptor_response.file_descriptor_proto.extend(files)
            elif kind == "file_containing_symbol":
                files = messages.file_of_symbol(request.file_containing_symbol)
                reply.file_descriptor_response.file_descriptor_proto.extend(files)
            else:
                reply.error_response.error_code = UNIMPLEMENTED
                reply.error_response.error_message = "expected a list of services, a file name or a symbol"
        except KeyError:
            reply.error_response.error_code = NOT_FOUND
            reply.error_response.error_message = "not found"
        self._replies.send(reply.SerializeToString())

    def half_closed(self) -> None:
        self._replies.finish()

    def closed(self) -> None:
        pass
