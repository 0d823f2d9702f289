"""The model's share of the floor: a process that runs one ONNX model in a loop and says what a run costs.

c_ort(B) is the CPU time of one IOBinding run at batch B, in process, warm, one intra-op thread without spinning, with
inputs and outputs bound once. The process is kept for a whole session, so that it can be measured inside the same block
as the server: one JSON command a line on stdin, one JSON answer a line on stdout.

    {"batch": 8, "seconds": 0.1}     -> {"batch": 8, "cpu_us": 5.1, "wall_us": 5.1, "wall_p50_us": 4.9, "runs": 19000}
    {"input": [0.1, ...]}            -> {"output": [...]}              one row, to check the server's answer
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from perf import stats


class OrtFloor:
    """The other side of the pipe: starts the process on one core, asks, stops it."""

    def __init__(self, model: Path, cpu: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "perf.ort_floor", str(model)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).resolve().parent.parent,
            env={**os.environ, "ORT_DISABLE_TELEMETRY": "1"},
            preexec_fn=lambda: os.sched_setaffinity(0, {cpu}),
        )

    def __enter__(self) -> OrtFloor:
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.kill()
        self._process.communicate()

    def _ask(self, command: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the ONNX Runtime floor died; its message is above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def run(self, batch: int, seconds: float = 0.1) -> dict[str, float]:
        return self._ask({"batch": batch, "seconds": seconds})

    def cpu_us(self, mean_batch: float, seconds: float = 0.1) -> float:
        """CPU-µs of one run at a mean batch size, between the two whole sizes around it."""
        low = max(1, int(mean_batch))
        sizes = [low, low + 1] if mean_batch > low else [low]
        return stats.interpolate({size: self.run(size, seconds)["cpu_us"] for size in sizes}, mean_batch)

    def output(self, values: list[float]) -> list[float]:
        output: list[float] = self._ask({"input": values})["output"]
        return output


def _serve(path: str) -> None:
    import numpy as np
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    source, target = session.get_inputs()[0], session.get_outputs()[0]
    rng = np.random.default_rng(1)
    bound: dict[int, Any] = {}

    def binding(batch: int) -> Any:
        if batch not in bound:
            x = rng.random((batch, source.shape[1]), dtype=np.float32)
            y = np.zeros((batch, target.shape[1]), dtype=np.float32)
            made = session.io_binding()
            made.bind_ortvalue_input(source.name, ort.OrtValue.ortvalue_from_numpy(x))
            made.bind_ortvalue_output(target.name, ort.OrtValue.ortvalue_from_numpy(y))
            bound[batch] = made
        return bound[batch]

    def measure(batch: int, seconds: float) -> dict[str, float]:
        io = binding(batch)
        run = session.run_with_iobinding
        for _ in range(5):
            run(io)
        began = time.perf_counter_ns()
        run(io)
        chunk = max(1, int(1e6 / max(1, time.perf_counter_ns() - began)))  # about a millisecond of runs
        walls, runs = [], 0
        cpu_began = time.process_time_ns()
        began = last = time.perf_counter_ns()
        while last - began < seconds * 1e9 or runs < 5:
            for _ in range(chunk):
                run(io)
            now = time.perf_counter_ns()
            walls.append((now - last) / chunk / 1e3)
            last, runs = now, runs + chunk
        cpu_us = (time.process_time_ns() - cpu_began) / runs / 1e3
        wall_us = (last - began) / runs / 1e3
        return {
            "batch": batch,
            "cpu_us": cpu_us,
            "wall_us": wall_us,
            "wall_p50_us": statistics.median(walls),
            "runs": runs,
        }

    for line in sys.stdin:
        command = json.loads(line)
        if "input" in command:
            row = np.array([command["input"]], dtype=np.float32)
            answer = {"output": session.run([target.name], {source.name: row})[0][0].tolist()}
        else:
            answer = measure(int(command["batch"]), float(command["seconds"]))
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1])
