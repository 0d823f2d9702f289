"""A V2 client for the command line: one request a connection, and a sysexit for everything that can go wrong."""

from __future__ import annotations

import http.client
import json
import os
import socket
from typing import Any
from urllib.parse import quote, urlsplit

from server.cli_parser import CommandError, Parser
from server.log import escape

DEFAULT_URL = "http://127.0.0.1:8000"
MAX_SHOWN_ERROR_CHARS = 500


def add_server_options(parser: Parser, timeout_s: float) -> None:
    """--url, --timeout and --json of a command that asks a server."""
    url = os.environ.get("HEADRACE_URL", DEFAULT_URL)
    parser.add_argument(
        "--url", default=url, help=f"the server, or unix:PATH of its socket (default: {DEFAULT_URL}) [HEADRACE_URL]"
    )
    parser.add_argument(
        "--timeout", metavar="S", type=float, default=timeout_s, help=f"longest wait (default: {timeout_s:g})"
    )
    parser.add_argument("--json", action="store_true", help="as JSON")


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix-domain socket."""

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Client:
    """Asks one server; every method raises CommandError with the exit code that the failure stands for."""

    def __init__(self, url: str, timeout_s: float = 30.0) -> None:
        """`url`: http://HOST:PORT, HOST:PORT, or unix:PATH."""
        self._timeout_s = timeout_s
        self._socket_path = ""
        if url.startswith("unix:"):
            self.url, self._prefix = url, ""
            self._socket_path = "/" + url[7:].lstrip("/") if url.startswith("unix://") else url[5:]
            if not self._socket_path:
                raise CommandError(f"expected a URL like unix:/run/headrace.sock, got {url!r}", os.EX_USAGE)
            return
        parts = urlsplit(url if "//" in url else f"http://{url}")
        try:
            port = parts.port or 80
        except ValueError:
            port = -1
        if parts.scheme != "http" or not parts.hostname or port < 0 or parts.query or parts.username:
            raise CommandError(f"expected a URL like {DEFAULT_URL}, got {url!r}", os.EX_USAGE)
        self.url = url.rstrip("/")
        self._host, self._port = parts.hostname, port
        self._prefix = parts.path.rstrip("/")

    def metadata(self, model: str) -> dict[str, Any]:
        """GET /v2/models/MODEL."""
        return self._ask("GET", f"/v2/models/{quote(model, safe='')}", None)

    def infer(self, model: str, body: str) -> dict[str, Any]:
        """POST /v2/models/MODEL/infer."""
        return self._ask("POST", f"/v2/models/{quote(model, safe='')}/infer", body.encode())

    def statistics(self) -> dict[str, Any]:
        """GET /v2/models/stats."""
        return self._ask("GET", "/v2/models/stats", None)

    def configuration(self, model: str, version: str) -> dict[str, Any]:
        """GET /v2/models/MODEL/versions/VERSION/config; {} for one that has gone meanwhile."""
        try:
            return self._ask(
                "GET", f"/v2/models/{quote(model, safe='')}/versions/{quote(version, safe='')}/config", None
            )
        except CommandError:
            return {}

    def repository_index(self) -> list[dict[str, Any]]:
        """POST /v2/repository/index: every version that is known, with state and reason."""
        status, answer = self._talk("POST", "/v2/repository/index", b"{}")
        document = _parsed(answer)
        if status != 200 or not isinstance(document, list):
            raise _failure(status, answer, document)
        return [row for row in document if isinstance(row, dict)]

    def load(self, model: str, parameters: dict[str, str]) -> None:
        """POST /v2/repository/models/MODEL/load; returns when every worker serves it."""
        self._change(model, "load", json.dumps({"parameters": parameters} if parameters else {}).encode())

    def unload(self, model: str) -> None:
        """POST /v2/repository/models/MODEL/unload."""
        self._change(model, "unload", b"{}")

    def _change(self, model: str, call: str, body: bytes) -> None:
        status, answer = self._talk("POST", f"/v2/repository/models/{quote(model, safe='')}/{call}", body)
        if status != 200:
            raise _refusal(status, answer, _parsed(answer))

    def _ask(self, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        status, answer = self._talk(method, path, body)
        document = _parsed(answer)
        if status != 200 or not isinstance(document, dict):
            raise _failure(status, answer, document)
        return document

    def _connection(self) -> http.client.HTTPConnection:
        if self._socket_path:
            return _UnixConnection(self._socket_path, self._timeout_s)
        return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)

    def _talk(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        connection = self._connection()
        try:
            connection.request(method, self._prefix + path, body, {"Content-Type": "application/json"} if body else {})
            response = connection.getresponse()
            return response.status, response.read()
        except TimeoutError:
            raise CommandError(f"{self.url}: no answer within {self._timeout_s:g} s", os.EX_TEMPFAIL) from None
        except (OSError, http.client.HTTPException) as error:
            text = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise CommandError(
                f"{self.url} cannot be reached ({text}): start a server with `headrace serve`, or give --url",
                os.EX_UNAVAILABLE,
            ) from None
        finally:
            connection.close()


def _parsed(answer: bytes) -> Any:
    try:
        return json.loads(answer)
    except ValueError:
        return None


def _said(answer: bytes, document: Any) -> str:
    said = document.get("error") if isinstance(document, dict) else None
    return escape(str(said or answer[:MAX_SHOWN_ERROR_CHARS].decode("utf-8", "replace")))[:MAX_SHOWN_ERROR_CHARS]


def _refusal(status: int, answer: bytes, document: Any) -> CommandError:
    """A load or unload that did not come about."""
    text = _said(answer, document)
    if "--model-control-mode" in text:
        return CommandError(f"refused ({status}): {text}", os.EX_CONFIG)
    if status == 404 or "no such model" in text or "failed to poll from model repository" in text:
        return CommandError(f"not found ({status}): {text}", os.EX_NOINPUT)
    if 400 <= status < 500:
        return CommandError(f"refused ({status}): {text}", os.EX_DATAERR)
    return CommandError(f"the server could not do it ({status}): {text}", os.EX_TEMPFAIL if status == 503 else 1)


def _failure(status: int, answer: bytes, document: Any) -> CommandError:
    text = _said(answer, document)
    if status == 404:
        return CommandError(f"not found (404): {text}", os.EX_NOINPUT)
    if status in (429, 503, 504):
        return CommandError(f"the server cannot answer now ({status}): {text}: try again", os.EX_TEMPFAIL)
    if 400 <= status < 500:
        return CommandError(f"the server refused the request ({status}): {text}", os.EX_DATAERR)
    if status == 200:
        return CommandError(f"expected a JSON object, got {text!r}: is this a V2 server?", os.EX_UNAVAILABLE)
    return CommandError(f"the inference failed ({status}): {text}", 1)
