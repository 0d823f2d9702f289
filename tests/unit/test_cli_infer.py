"""`infer` and `example` with a server made of a table: what is asked, what is printed, how each failure ends."""

from __future__ import annotations

import http.client
import importlib
import io
import json
import runpy
import shlex
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server import cli
from server.cli_table import answer_lines, bar
from server.demo.files import example_request

ROOT = Path(__file__).resolve().parents[2]
DIGITS = {
    "name": "digits",
    "versions": ["1"],
    "platform": "onnxruntime_onnx",
    "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 64]}],
    "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]}],
}
ANSWER = {
    "model_name": "digits",
    "model_version": "1",
    "outputs": [
        {"name": "label", "datatype": "INT64", "shape": [1], "data": [7]},
        {
            "name": "probabilities",
            "datatype": "FP32",
            "shape": [1, 10],
            "data": [0.0, 0.0, 0.001, 0.002, 0.0, 0.0, 0.0, 0.99, 0.0, 0.007],
        },
    ],
}


class FakeServer:
    """Takes the place of http.client.HTTPConnection; `routes` maps (method, path) to (status, body)."""

    def __init__(self) -> None:
        self.routes: dict[tuple[str, str], tuple[int, bytes]] = {}
        self.asked: list[dict[str, Any]] = []
        self.error: Exception | None = None
        self._answer = (0, b"")

    def model(self, metadata: dict[str, Any], answer: dict[str, Any]) -> None:
        path = f"/v2/models/{metadata['name']}"
        self.routes["GET", path] = (200, json.dumps(metadata).encode())
        self.routes["POST", f"{path}/infer"] = (200, json.dumps(answer).encode())

    def __call__(self, host: str, port: int, timeout: float) -> FakeServer:
        self.address = (host, port)
        return self

    def request(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> None:
        if self.error is not None:
            raise self.error
        if body is not None:
            assert headers == {"Content-Type": "application/json"}
            self.asked.append(json.loads(body))
        self._answer = self.routes.get((method, path), (404, b'{"error":"Request for unknown model"}'))

    def getresponse(self) -> FakeServer:
        return self

    @property
    def status(self) -> int:
        return self._answer[0]

    def read(self) -> bytes:
        return self._answer[1]

    def close(self) -> None:
        pass


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    # It derives a class of the one that is replaced.
    importlib.import_module("server.cli_client")
    server = FakeServer()
    server.model(DIGITS, ANSWER)
    monkeypatch.setattr(http.client, "HTTPConnection", server)
    monkeypatch.delenv("HEADRACE_URL", raising=False)
    return server


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def model(*inputs: tuple[str, str, list[int]]) -> dict[str, Any]:
    tensors = [{"name": name, "datatype": dtype, "shape": shape} for name, dtype, shape in inputs]
    return {"name": "m", "versions": ["1"], "platform": "", "inputs": tensors, "outputs": []}


def save(path: Path, array: np.ndarray) -> str:
    np.save(path, array)
    return str(path)


def test_picture_in_table_out(fake: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "infer", "digits", "--file", str(ROOT / "samples" / "7.png"))
    assert (code, err) == (0, "")
    (tensor,) = fake.asked[0]["inputs"]
    assert (tensor["name"], tensor["shape"], tensor["datatype"]) == ("image", [1, 64], "FP32")
    held_out = json.loads((ROOT / "samples" / "heldout.json").read_text())
    image = [value / 15 for value in tensor["data"]]
    assert held_out["labels"][held_out["images"].index(image)] == 7
    lines = out.splitlines()
    assert lines[0].startswith("digits version 1, ") and lines[0].endswith(" ms")
    assert lines[1:3] == ["label  INT64 [1]  7", "probabilities  FP32 [1,10]"]
    assert lines[3] == "  7  0.9900  " + bar(0.99, unicode=True)
    assert lines[4].split()[:2] == ["9", "0.0070"]
    assert fake.address == ("127.0.0.1", 8000)


def test_scale_and_invert(fake: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    picture = str(ROOT / "samples" / "7.png")
    run(capsys, "infer", "digits", "--file", picture)
    run(capsys, "infer", "digits", "--file", picture, "--scale", "0.5", "--invert")
    plain, changed = (asked["inputs"][0]["data"] for asked in fake.asked)
    assert changed == [(255 - value) * 0.5 for value in plain]


def test_the_answer_as_it_came(fake: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "infer", "digits", "--random", "--json")
    assert code == 0
    assert json.loads(out) == ANSWER


def test_random_is_repeatable(fake: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in ("1", "1", "2"):
        run(capsys, "infer", "digits", "--random", "--rows", "3", "--seed", seed)
    first, again, other = (asked["inputs"][0] for asked in fake.asked)
    assert first == again != other
    assert (first["shape"], len(first["data"])) == ([3, 64], 192)
    assert all(0 <= value < 1 for value in first["data"])


def test_random_of_every_kind(fake: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    fake.model(model(("a", "BOOL", [2]), ("b", "INT8", [-1, -1]), ("c", "BF16", [])), ANSWER)
    assert run(capsys, "infer", "m", "--random")[0] == 0
    a, b, c = fake.asked[0]["inputs"]
    assert {type(value) for value in a["data"]} == {bool}
    assert b["shape"] == [1, 8] and all(value in range(10) for value in b["data"])
    assert c["shape"] == [] and len(c["data"]) == 1
    fake.model(model(("s", "BYTES", [1])), ANSWER)
    assert run(capsys, "infer", "m", "--random")[0] == 64


@pytest.mark.parametrize(
    ("shape", "array_shape", "sent"),
    [
        ([-1, 64], (64,), [1, 64]),
        ([-1, 64], (5, 64), [5, 64]),
        ([-1, 64], (8, 8), [1, 64]),
        ([-1, 3, 2, 2], (3, 2, 2), [1, 3, 2, 2]),
        ([-1, 3, 2, 2], (24,), [2, 3, 2, 2]),
        ([2, -1], (2, 7), [2, 7]),
        ([], (), []),
        ([3], (3,), [3]),
    ],
)
def test_arrays_are_fitted(
    fake: FakeServer,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    shape: list[int],
    array_shape: tuple[int, ...],
    sent: list[int],
) -> None:
    fake.model(model(("x", "FP32", shape)), ANSWER)
    array = np.arange(np.prod(array_shape), dtype=np.float32).reshape(array_shape)
    assert run(capsys, "infer", "m", "--file", save(tmp_path / "x.npy", array))[0] == 0
    (tmp_path / "x.json").write_text(json.dumps(array.tolist()))
    assert run(capsys, "infer", "m", "--file", str(tmp_path / "x.json"))[0] == 0
    assert fake.asked[0] == fake.asked[1]
    (tensor,) = fake.asked[0]["inputs"]
    assert (tensor["shape"], tensor["data"]) == (sent, array.ravel().tolist())


@pytest.mark.parametrize(
    ("shape", "array_shape"), [([-1, 64], (63,)), ([-1, 3, 2, 2], (2, 2, 3)), ([2, 2], (2, 3)), ([-1, -1, 2], (3, 7))]
)
def test_arrays_that_do_not_fit(
    fake: FakeServer,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    shape: list[int],
    array_shape: tuple[int, ...],
) -> None:
    fake.model(model(("x", "FP32", shape)), ANSWER)
    code, _, err = run(capsys, "infer", "m", "--file", save(tmp_path / "x.npy", np.zeros(array_shape)))
    assert code == 65
    assert f"input 'x' takes shape {shape}, the file has {list(array_shape)}" in err


@pytest.mark.parametrize(
    ("shape", "sent"),
    [
        ([-1, 8, 8], [1, 8, 8]),
        ([-1, 1, 8, 8], [1, 1, 8, 8]),
        ([8, 8], [8, 8]),
        ([-1, 3, -1, -1], [1, 3, 8, 8]),
        ([-1, 8, 8, 3], [1, 8, 8, 3]),
        ([1, 192], [1, 192]),
    ],
)
def test_pictures_are_fitted(
    fake: FakeServer, capsys: pytest.CaptureFixture[str], shape: list[int], sent: list[int]
) -> None:
    fake.model(model(("x", "UINT8", shape)), ANSWER)
    assert run(capsys, "infer", "m", "--file", str(ROOT / "samples" / "3.png"))[0] == 0
    (tensor,) = fake.asked[0]["inputs"]
    assert tensor["shape"] == sent
    assert len(tensor["data"]) == np.prod(sent)
    assert {type(value) for value in tensor["data"]} == {int}


def test_one_file_for_each_input(fake: FakeServer, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    fake.model(model(("a", "INT32", [-1, 2]), ("b", "INT32", [-1, 2])), ANSWER)
    one, two = (save(tmp_path / f"{n}.npy", np.full((1, 2), n, np.int32)) for n in (1, 2))
    assert run(capsys, "infer", "m", "--file", f"b={two}", "--file", f"a={one}")[0] == 0
    assert {part["name"]: part["data"] for part in fake.asked[0]["inputs"]} == {"a": [1, 1], "b": [2, 2]}
    code, _, err = run(capsys, "infer", "m", "--file", f"a={one}")
    assert code == 64 and "--file a=FILE --file b=FILE" in err
    code, _, err = run(capsys, "infer", "m", "--file", one)
    assert code == 64 and "INPUT one of a, b" in err


def test_a_named_file_may_be_the_only_one(fake: FakeServer, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(json.dumps([[0.5] * 64]))
    for argument in (f"image={file}", str(file)):
        assert run(capsys, "infer", "digits", "--file", argument)[0] == 0
    named, plain = fake.asked
    assert named == plain and named["inputs"][0]["data"] == [0.5] * 64


def test_a_whole_request(fake: FakeServer, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "request.json"
    path.write_text(example_request())
    assert run(capsys, "infer", "digits", "--file", str(path))[0] == 0
    assert fake.asked == [json.loads(example_request())]


@pytest.mark.parametrize(
    ("name", "content", "code", "said"),
    [
        ("missing.png", None, 66, "No such file"),
        ("x.png", b"GIF89a", 65, "signature"),
        ("x.npy", b"junk", 65, "signature"),
        ("x.json", b"{]", 65, "is not JSON"),
        ("x.json", b"[[1,2],[3]]", 65, "nested arrays of equal lengths"),
        ("x.json", b'["a"]', 65, "nested arrays"),
        ("x.json", b"{}", 65, 'an object with "inputs"'),
        ("x.txt", b"1", 65, "expected a .png, .npy or .json file"),
    ],
)
def test_bad_files(
    fake: FakeServer,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    name: str,
    content: bytes | None,
    code: int,
    said: str,
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    found, out, err = run(capsys, "infer", "digits", "--file", str(path))
    assert (found, out) == (code, "")
    assert said in err and err.count("\n") == 1
    assert not fake.asked


@pytest.mark.parametrize(
    ("status", "body", "code", "said"),
    [
        (400, b'{"error":"unexpected shape"}', 65, "refused the request (400): unexpected shape"),
        (404, b'{"error":"Request for unknown model: \'x\' is not found"}', 66, "not found (404): Request for unknown"),
        (413, b"too large", 65, "(413): too large"),
        (429, b"{}", 75, "try again"),
        (503, b'{"error":"queue full"}', 75, "cannot answer now (503): queue full: try again"),
        (504, b'{"error":"deadline"}', 75, "(504)"),
        (500, b'{"error":"model \\u001b[2Jfailed"}', 1, "failed (500): model \\x1b[2Jfailed"),
        (200, b"<html>", 69, "is this a V2 server?"),
    ],
)
def test_refusals_of_the_server(
    fake: FakeServer, capsys: pytest.CaptureFixture[str], status: int, body: bytes, code: int, said: str
) -> None:
    fake.routes["POST", "/v2/models/digits/infer"] = (status, body)
    found, out, err = run(capsys, "infer", "digits", "--random")
    assert (found, out) == (code, "")
    assert said in err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConnectionRefusedError(111, "Connection refused"), 69, "start a server with `headrace serve`"),
        (TimeoutError(), 75, "no answer within 30 s"),
        (http.client.RemoteDisconnected("closed"), 69, "cannot be reached (closed)"),
        (OSError(-2, "Name or service not known"), 69, "Name or service not known"),
    ],
)
def test_no_server(
    fake: FakeServer, capsys: pytest.CaptureFixture[str], error: Exception, code: int, said: str
) -> None:
    fake.error = error
    found, out, err = run(capsys, "infer", "digits", "--random")
    assert (found, out) == (code, "")
    assert said in err and err.count("\n") == 1


def test_where_the_server_is(
    fake: FakeServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_URL", "http://[::1]:9000/")
    assert run(capsys, "infer", "digits", "--random")[0] == 0
    assert fake.address == ("::1", 9000)
    assert run(capsys, "infer", "digits", "--random", "--url", "example.com:81")[0] == 0
    assert fake.address == ("example.com", 81)


def test_example_needs_no_server_for_the_demo(fake: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    online = run(capsys, "example", "digits")
    fake.error = ConnectionRefusedError(111, "Connection refused")
    assert run(capsys, "example", "digits") == online
    words = shlex.split(online[1])
    assert words[:3] == ["curl", "-s", "http://127.0.0.1:8000/v2/models/digits/infer"]
    assert words[-1] == example_request()
    assert run(capsys, "example", "digits", "--lang", "json")[1] == example_request() + "\n"
    assert run(capsys, "example", "other")[0] == 69


def test_example_for_another_model(fake: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    fake.model(model(("it's", "BOOL", [-1, 2])), ANSWER)
    code, out, _ = run(capsys, "example", "m")
    assert code == 0
    (tensor,) = json.loads(shlex.split(out)[-1])["inputs"]
    assert tensor == {"name": "it's", "shape": [1, 2], "datatype": "BOOL", "data": [False, False]}
    fake.model(model(("x", "FP32", [-1, 3, 512, 512])), ANSWER)
    assert run(capsys, "example", "m")[0] == 65


def test_the_python_example_runs(
    fake: FakeServer, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.model(model(("it's", "BOOL", [-1, 2])), ANSWER)
    _, out, _ = run(capsys, "example", "m", "--lang", "python")
    (tmp_path / "client.py").write_text(out)
    sent: list[urllib.request.Request] = []

    def open_url(request: urllib.request.Request, timeout: float) -> io.BytesIO:
        sent.append(request)
        return io.BytesIO(json.dumps(ANSWER).encode())

    monkeypatch.setattr(urllib.request, "urlopen", open_url)
    runpy.run_path(str(tmp_path / "client.py"))
    assert sent[0].full_url == "http://127.0.0.1:8000/v2/models/m/infer"
    assert isinstance(sent[0].data, bytes)
    assert json.loads(sent[0].data)["inputs"][0]["data"] == [False, False]
    assert "label [1] [7]" in capsys.readouterr().out


def test_tables() -> None:
    def lines(dtype: str, shape: list[int], data: object, unicode: bool = False) -> list[str]:
        return answer_lines(
            {"outputs": [{"name": "y", "datatype": dtype, "shape": shape, "data": data}]}, unicode=unicode
        )

    assert lines("FP32", [1, 2], [0.25, 0.75]) == ["y  FP32 [1,2]", "  1  0.7500  " + "#" * 18, "  0  0.2500  ######"]
    assert lines("FP32", [2, 2], [1.0, 0.0, 0.5, 0.5])[1::3] == ["  row 0", "  row 1"]
    assert len(lines("FP32", [20, 2], [0.5, 0.5] * 20)) == 1 + 8 * 3 + 1
    assert lines("FP32", [1, 2], [0.25, 0.25]) == ["y  FP32 [1,2]  0.25, 0.25"]
    assert lines("INT64", [2], [0, 1]) == ["y  INT64 [2]  0, 1"]
    assert lines("FP32", [1, 12], list(range(12))) == ["y  FP32 [1,12]  0, 1, 2, 3, 4, 5, 6, 7, ... (12 values)"]
    assert lines("FP32", [0, 2], []) == ["y  FP32 [0,2]"]
    assert lines("FP32", [1, 2], [float("nan"), 1.0]) == ["y  FP32 [1,2]  nan, 1"]
    assert lines("BYTES", [1], ["\x1b[2J"]) == ["y  BYTES [1]  \\x1b[2J"]
    assert lines("FP32", [2, 2], None) == ["y  FP32 [2,2]  None"]
    assert bar(0.0, unicode=True) == "" and bar(1.0, unicode=True) == "█" * 24
    assert bar(1 / 48, unicode=True) == "▌" and bar(7.0, unicode=False) == "#" * 24
