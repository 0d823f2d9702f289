"""All protocols and several models at once on one port: each answer is that of its own request.

HEADRACE_STRESS=N makes it N * 10^5 requests.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import onnx_writer
from tests.support.server import running

pytestmark = pytest.mark.slow
STRESS = int(os.environ.get("HEADRACE_STRESS") or 0)
COUNT = 100_000 * STRESS or 2_000
TIMEOUT_S = 60 + COUNT // 100
MODELS = {
    "sum": onnx_writer.add_sub(),
    "vary": onnx_writer.identity("INT64", [-1, -1]),
    "upper": onnx_writer.upper_case(),
}
ROOT = Path(__file__).resolve().parents[2]


def test_every_answer_is_its_own(tmp_path: Path) -> None:
    root = onnx_writer.write_repository(tmp_path, MODELS)
    with running(root, "--workers", "2", "--max-batch-size", "16") as server:
        driver = [sys.executable, "-m", "tests.support.mixed_driver", server.host, str(server.port), str(COUNT)]
        done = subprocess.run(driver, cwd=ROOT, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        print(result)
        assert not result["mistakes"], result
        assert len(result["right"]) == 8
        assert set(result["right"].values()) == {COUNT // 8}, result
