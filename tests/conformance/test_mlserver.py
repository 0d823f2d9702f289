"""MLServer's batch client, unmodified: `mlserver infer` with tensors as JSON and, --binary-data, as bytes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support import clients
from tests.support.server import Server

pytestmark = pytest.mark.slow
COUNT = 40


def line(at: int) -> dict[str, Any]:
    """One request of the model `typed`: a row per datatype, all but FP16, which the client cannot write."""
    data = {
        "bool": [at % 2 == 0] * 8,
        "bytes": [f"row {at} é {column}" for column in range(8)],
        **{f"fp{bits}": [at + column / 8 for column in range(8)] for bits in (32, 64)},
        **{f"uint{bits}": [at + column for column in range(8)] for bits in (8, 16, 32, 64)},
        **{f"int{bits}": [at - column for column in range(8)] for bits in (8, 16, 32, 64)},
    }
    inputs = [{"name": name, "shape": [1, 8], "datatype": name.upper(), "data": row} for name, row in data.items()]
    return {"id": f"request-{at}", "inputs": inputs}


def infer(server: Server, tmp_path: Path, requests: list[dict[str, Any]], *flags: str) -> list[dict[str, Any]]:
    """The lines of the client's output file, in the order of the requests."""
    source, target = tmp_path / "requests", tmp_path / "replies"
    source.write_text("".join(json.dumps(one) + "\n" for one in requests))
    command = [str(clients.environment("mlserver") / "bin" / "mlserver"), "infer", *flags, "-m", "typed"]
    command += ["-u", f"{server.host}:{server.port}", "-i", str(source), "-o", str(target), "-r", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    replies = [json.loads(one) for one in target.read_text().splitlines()]
    return sorted(replies, key=lambda one: int(one["parameters"]["batch_index"]))


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
@pytest.mark.parametrize("batch", [1, 7])
def test_replies_are_those_of_the_requests(field_server: Server, tmp_path: Path, binary: bool, batch: int) -> None:
    requests = [line(at) for at in range(COUNT)]
    flags = ["-w", "4", "-s", str(batch), *(["--binary-data"] if binary else [])]
    replies = infer(field_server, tmp_path, requests, *flags)
    assert [one["id"] for one in replies] == [one["id"] for one in requests]
    for sent, got in zip(requests, replies, strict=True):
        assert got["model_name"] == "typed" and got["model_version"] == "1"
        values = {output["name"]: output["data"] for output in got["outputs"]}
        assert values == {f"{one['name']}_out": one["data"] for one in sent["inputs"]}


def test_what_the_server_refuses_is_written_down(field_server: Server, tmp_path: Path) -> None:
    wrong = line(0)
    wrong["inputs"] = wrong["inputs"][:1]
    (reply,) = infer(field_server, tmp_path, [wrong])
    assert "expected 12 inputs" in reply["error"]["msg"], reply
