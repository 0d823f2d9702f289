"""The cost table of a running server, and a latency target from its configuration."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support import exposition, onnx_writer, server, triton_repository

TARGET = 'parameters { key: "slo_p99_ms" value { string_value: "7.5" } }\nmax_batch_size: 48'


def test_every_batch_size_has_its_cost_from_the_start(tmp_path: Path) -> None:
    triton_repository.put(tmp_path, "aimed", onnx_writer.mlp(), TARGET)
    triton_repository.put(tmp_path, "wrong", onnx_writer.mlp(), TARGET.replace("7.5", "7,5"))
    with server.running(tmp_path) as running:
        page = running.get("/metrics", port=running.metrics_port).body
        config = json.loads(running.get("/v2/models/aimed/config").body)
        index = running.post("/v2/repository/index", {}).body.decode()
    costs = {
        (dict(labels)["model"], int(dict(labels)["batch"]), dict(labels)["estimate"]): value
        for (name, labels), value in exposition.values(exposition.parse(page)).items()
        if name == "headrace_batch_cost_seconds"
    }
    assert {key[1] for key in costs if key[0] == "aimed"} == {1, 2, 4, 8, 16, 32, 48}
    assert all(0 < costs[model, rows, "mean"] <= costs[model, rows, "upper"] < 10 for model, rows, _ in costs)
    assert config["parameters"] == {"slo_p99_ms": {"string_value": "7.5"}}
    assert "config.pbtxt line 1: parameters{slo_p99_ms}: expected milliseconds" in index
