"""config.pbtxt and ModelConfig in JSON, mutated: each is taken or refused in words, and nothing else happens."""

from __future__ import annotations

import os
import random
from pathlib import Path

from server.models import config_fit, onnx_file
from server.models.model_config import ModelConfigError, Parsed, parse_document, parse_text
from tests.support import onnx_writer, triton_repository

COUNT = 400 * int(os.environ.get("HEADRACE_STRESS") or 1)
SEEDS = (
    triton_repository.densenet_config(8, 3),
    triton_repository.simple_config("simple", "TYPE_FP32"),
    triton_repository.BATCHED,
    triton_repository.STRINGS,
    triton_repository.SCALARS,
    "sequence_batching { }\noptimization { execution_accelerators { cpu_execution_accelerator { name: 'openvino' } } }",
)
VALUES = (None, True, -1, 0, 3, 1 << 70, 1.5, "", "x", "-1", [], [1, "a"], {}, {"name": "x"}, [[{}]], float("nan"))


def mutated(text: str, rng: random.Random) -> str:
    for _ in range(rng.randint(1, 4)):
        at, end = sorted(rng.choices(range(len(text) + 1), k=2))
        end = min(end, at + rng.choice((0, 1, 1, 8)))
        piece = rng.choice(
            ("", "{", "}", "[", "]", "<", ">", ":", ",", '"', "'", "#", "-", "0", "99", "\n", "key", text[:40])
        )
        text = text[:at] + piece + text[end:]
    return text


def test_text(tmp_path: Path) -> None:
    rng = random.Random(20)
    (tmp_path / "model.onnx").write_bytes(onnx_writer.identity())
    model = onnx_file.read_model(tmp_path / "model.onnx")
    refused = 0
    for _ in range(COUNT):
        text = mutated(rng.choice(SEEDS), rng)
        try:
            config_fit.fit(parse_text(text, "simple"), model)
        except ModelConfigError as error:
            assert str(error).startswith("config.pbtxt")
            refused += 1
    assert refused > COUNT // 2


def test_documents() -> None:
    rng = random.Random(21)
    names = [
        *("name", "max_batch_size", "input", "output", "version_policy", "instance_group", "dynamic_batching"),
        *("optimization", "parameters", "model_warmup", "response_cache", "default_model_filename", "nothing"),
    ]
    for _ in range(COUNT):
        document = {rng.choice(names): rng.choice(VALUES) for _ in range(2)}
        document["input"] = [{rng.choice(("name", "dims", "format", "data_type", "reshape")): rng.choice(VALUES)}]
        try:
            found: Parsed | None = parse_document(document, "m")
        except ModelConfigError as error:
            assert str(error).startswith("config: ")
            found = None
        assert found is None or found.origin == "config"
