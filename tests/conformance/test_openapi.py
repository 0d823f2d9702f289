"""GET /openapi.json: other software reads it, and finds that the server does what it says."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import clients
from tests.support.server import Server, running

pytestmark = pytest.mark.slow

CONFIG = Path(__file__).with_name("schemathesis.toml")
MAX_EXAMPLES = 5


@pytest.fixture(scope="module")
def own_server() -> Iterator[Server]:
    """Not the shared one: what schemathesis changes is changed for all."""
    with running("--workers", "1", "--allow-client-shm", "--log-level", "error") as server:
        yield server


def schemathesis(*arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [clients.python("schemathesis"), *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def test_the_document_is_valid(server: Server, tmp_path: Path) -> None:
    """Of the models of the zoo, of every kind and datatype."""
    document = tmp_path / "openapi.json"
    document.write_bytes(server.get("/openapi.json").body)
    done = schemathesis("-m", "openapi_spec_validator", document, folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_server_does_what_the_document_says(own_server: Server, tmp_path: Path) -> None:
    done = schemathesis(
        *("-m", "schemathesis.cli", "--config-file", CONFIG, "run", f"{own_server.url}/openapi.json"),
        *("--max-examples", str(MAX_EXAMPLES), "--seed", "1", "--no-color", "--warnings", "off"),
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stdout[-12000:] + done.stderr[-2000:]
    assert "Selected: 38/38" in done.stdout
    assert own_server.get("/v2/health/ready").status == 200
