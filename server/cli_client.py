"""A V2 client for the command line: one request a connection, and a sysexit for everything that can go wrong."""

from __future__ import annotations

import http.client
import json
import os
from typing import Any
from urllib.parse import quote, urlsplit

from server.cli_parser import CommandError
from server.log import escape

DEFAULT_URL = "http://127.0.0.1:8000"
MAX_SHOWN_ERROR_CHARS = 500


class Client:
    """Asks one server; every method raises CommandError with the exit code that the failure stands for."""

    def __init__(self, url: str, timeout_s: float = 30.0) -> None:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        try:
            port = parts.port or 80
        except ValueError:
            port = -1
        if parts.scheme != "http" or not parts.hostname or port < 0 or parts.query or parts.username:
            raise CommandError(f"expected a URL like {DEFAULT_URL}, got {url!r}", os.EX_USAGE)
        self.url = url.rstrip("/")
        self._host, self._port, self._timeout_s = parts.hostname, port, timeout_s
        self._prefix = parts.path.rstrip("/")

    def metadata(self, model: str) -> dict[str, Any]:
        """GET /v2/models/MODEL."""
        return self._ask("GET", f"/v2/models/{quote(model, safe='')}", None)

    def infer(self, model: str, body: str) -> dict[str, Any]:
        """POST /v2/models/MODEL/infer."""
        return self._ask("POST", f"/v2/models/{quote(model, safe='')}/infer", body.encode())

    def _ask(self, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)
        try:
            connection.request(method, self._prefix + path, body, {"Content-Type": "application/json"} if body else {})
            response = connection.getresponse()
            status, answer = response.status, response.read()
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
        try:
            document = json.loads(answer)
        except ValueError:
            document = None
        if status != 200 or not isinstance(document, dict):
            raise _failure(status, answer, document)
        return document


def _failure(status: int, answer: bytes, document: Any) -> CommandError:
    said = document.get("error") if isinstance(document, dict) else None
    text = escape(str(said or answer[:MAX_SHOWN_ERROR_CHARS].decode("utf-8", "replace")))[:MAX_SHOWN_ERROR_CHARS]
    if status == 404:
        return CommandError(f"not found (404): {text}", os.EX_NOINPUT)
    if status in (429, 503, 504):
        return CommandError(f"the server cannot answer now ({status}): {text}: try again", os.EX_TEMPFAIL)
    if 400 <= status < 500:
        return CommandError(f"the server refused the request ({status}): {text}", os.EX_DATAERR)
    if status == 200:
        return CommandError(f"expected a JSON object, got {text!r}: is this a V2 server?", os.EX_UNAVAILABLE)
    return CommandError(f"the inference failed ({status}): {text}", 1)
