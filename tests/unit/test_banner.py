"""The start-up table: golden texts, the line to paste, and texts from hostile files."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace

import pytest

from server.demo.files import example_request
from server.supervisor.banner import Address, Banner, BannerModel, Tensor, example_body, render, try_line, url

HTTP = Address("http", "127.0.0.1", 8000)
IMAGE = Tensor("image", "FP32", (-1, 64))
DIGITS = BannerModel(
    name="digits",
    version=1,
    inputs=(IMAGE,),
    outputs=(Tensor("probabilities", "FP32", (-1, 10)), Tensor("label", "INT64", (-1,))),
    batched=True,
    max_batch_size=64,
    max_queue_delay_us=2000,
    why="axis 'batch' is free on every input and output",
    load_ms=41.4,
    example=example_request(),
)
SPEECH = BannerModel(
    name="speech",
    version=12,
    inputs=(Tensor("a", "FP32", (-1, -1)), Tensor("b", "INT8", (2,)), Tensor("c", "BOOL", ()), Tensor("d", "BF16", ())),
    outputs=(Tensor("y", "FP16", (-1,)),),
    why="served one request at a time: input 'c' is a scalar",
    status="LOADING",
)
BROKEN = BannerModel(name="broken", version=3, status="UNAVAILABLE", why="model.onnx is empty")


def banner(*models: BannerModel) -> Banner:
    return Banner(
        version="1.2.3",
        runtime="onnxruntime 1.32.0 (CPU)",
        models=models,
        addresses=(HTTP, Address("metrics", "127.0.0.1", 8002)),
        worker_count=2,
        ready_s=0.912,
    )


def test_golden() -> None:
    lines = render(banner(DIGITS, SPEECH, BROKEN), colour=False).splitlines()
    assert lines[0] == "headrace 1.2.3  ·  onnxruntime 1.32.0 (CPU)  ·  telemetry off"
    table = lines[1:5]
    digits_outputs = "probabilities f32[-1,10], label i64[-1]"
    assert [re.split(r" {2,}", line) for line in table] == [
        ["model", "version", "device", "inputs", "outputs", "batching", "status"],
        ["digits", "1", "cpu", "image f32[-1,64]", digits_outputs, "auto ≤64, 2 ms", "READY (41 ms)"],
        ["speech", "12", "cpu", "a f32[-1,-1], b i8[2], c bool[], +1 more", "y f16[-1]", "one at a time", "LOADING"],
        ["broken", "3", "cpu", "-", "-", "-", "UNAVAILABLE"],
    ]
    words = ("status", "READY", "LOADING", "UNAVAILABLE")
    assert len({line.index(word) for line, word in zip(table, words, strict=True)}) == 1
    assert lines[5:10] == [
        "why      digits: axis 'batch' is free on every input and output",
        "why      speech: served one request at a time: input 'c' is a scalar",
        "why      broken: model.onnx is empty",
        "http     http://127.0.0.1:8000        metrics  http://127.0.0.1:8002/metrics",
        "ready    in 0.91 s with 2 workers; stop with Ctrl-C",
    ]
    assert lines[10].startswith('try it   curl -s http://127.0.0.1:8000/v2/models/digits/infer -d \'{"inputs"')
    assert len(lines) == 11


def test_the_line_works_when_pasted() -> None:
    last = render(banner(DIGITS), colour=True).splitlines()[-1]
    command, silent, target, flag, body = shlex.split(last.removeprefix("try it"))
    assert (command, silent, flag) == ("curl", "-s", "-d")
    assert target == "http://127.0.0.1:8000/v2/models/digits/infer"
    (tensor,) = json.loads(body)["inputs"]
    assert (tensor["name"], tensor["shape"], len(tensor["data"])) == ("image", [1, 64], 64)
    assert len(last) < 400


def test_colour_is_the_only_difference() -> None:
    plain, coloured = (render(banner(DIGITS, SPEECH, BROKEN), colour=colour) for colour in (False, True))
    assert "\x1b" not in plain and "\x1b[32mREADY (41 ms)\x1b[0m" in coloured and "\x1b[31mUNAVAILABLE" in coloured
    assert re.sub(r"\x1b\[\d*m", "", coloured) == plain


@pytest.mark.parametrize("colour", [False, True])
def test_scripts_find_the_addresses(colour: bool) -> None:
    found = re.findall(r"\b(http|metrics)\s+http://([\w.]+):(\d+)", render(banner(DIGITS), colour=colour))
    assert found == [("http", "127.0.0.1", "8000"), ("metrics", "127.0.0.1", "8002")]


def test_further_addresses_have_a_line_of_their_own() -> None:
    addresses = (
        HTTP,
        Address("grpc", "0.0.0.0", 8001),
        Address("rest-api", "::", 8501),
        Address("tfs-grpc", "::1", 8500),
        Address("uds:/run/a", path="/run/a\x1b[2J"),
    )
    lines = render(replace(banner(DIGITS), addresses=addresses), colour=False).splitlines()
    assert lines[4:6] == [
        "http     http://127.0.0.1:8000        grpc  127.0.0.1:8001",
        "also     rest-api  http://[::1]:8501        tfs-grpc  [::1]:8500        unix:/run/a\\x1b[2J",
    ]


def test_a_socket_alone() -> None:
    lines = render(replace(banner(DIGITS), addresses=(Address("http", path="/run/a b"),)), colour=False).splitlines()
    assert lines[4] == "http     unix:/run/a b"
    assert lines[-1].startswith("try it   curl -s --unix-socket '/run/a b' http://localhost/v2/models/digits/infer -d ")


def test_equal_reasons_share_a_line() -> None:
    other = BannerModel(name="other", version=1, inputs=(IMAGE,), why=DIGITS.why)
    assert f"why      digits, other: {DIGITS.why}" in render(banner(DIGITS, other), colour=False)


def test_nothing_ready_has_nothing_to_try() -> None:
    text = render(banner(BROKEN), colour=False)
    assert "try it" not in text and "1 workers" not in text


def test_hostile_texts_cannot_drive_the_terminal() -> None:
    evil = BannerModel(
        name="a\x1b[2J", version=1, inputs=(Tensor("x\r\n\u202e", "FP32", (-1,)),), why="\x07", status="READY"
    )
    text = render(banner(evil), colour=False)
    assert not set(text) & {"\x1b", "\r", "\x07", "\u202e"}


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("fe80::1", "http://[fe80::1]:80"),
        ("example.com", "http://example.com:80"),
    ],
)
def test_url(host: str, shown: str) -> None:
    assert url(host, 80) == shown


def test_example_of_every_datatype() -> None:
    first = [Tensor("f", "FP32", (-1, 2)), Tensor("b", "BOOL", (-1,))]
    tensors = [*first, Tensor("s", "BYTES", (2,)), Tensor("n", "INT8", ())]
    body = example_body(tensors)
    assert body is not None
    assert [item["data"] for item in json.loads(body)["inputs"]] == [[0, 0], [False], ["", ""], [0]]
    assert [item["shape"] for item in json.loads(body)["inputs"]] == [[1, 2], [1], [2], []]


def test_free_axes_besides_the_first_get_a_length() -> None:
    body = example_body([Tensor("x", "INT64", (-1, -1))])
    assert body is not None and json.loads(body)["inputs"][0]["shape"] == [1, 8]


def test_a_name_with_quotes_survives_json_and_shell() -> None:
    model = BannerModel(name="m", version=1, inputs=(Tensor('it\'s "x"', "FP32", (-1, 1)),))
    *_, body = shlex.split(try_line(model, Address("http", "h", 1)))
    assert json.loads(body)["inputs"][0]["name"] == 'it\'s "x"'


@pytest.mark.parametrize("shape", [(-1, 3, 224, 224), (1 << 62, 1 << 62)])
def test_large_inputs_get_a_command_instead(shape: tuple[int, ...]) -> None:
    model = BannerModel(name="resnet", version=1, inputs=(Tensor("x", "FP32", shape),))
    assert try_line(model, Address("http", "h", 1)) == "headrace infer resnet --random --url http://h:1"
