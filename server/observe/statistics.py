"""The V2 statistics document (Triton `extension_statistics.md`), from the same counters as the metrics.

perf_analyzer subtracts two of these documents: the counts of the three compute stages are one number, the executed
requests, and the queue's count moves with them.
"""

from __future__ import annotations

from collections.abc import Iterable

from server.observe.snapshot import BATCH_SIZE_BOUNDS_ROWS, Block, Snapshot
from server.protocol import v2
from server.protocol.served import ServedModel

_NONE = {"count": 0, "ns": 0}


def document(models: Iterable[ServedModel], snapshot: Snapshot) -> bytes:
    """GET /v2/models/stats and /v2/models/M[/versions/V]/stats: one entry per model version, in the given order."""
    return v2.dumps({"model_stats": [_model(model, snapshot) for model in models]})


def _model(model: ServedModel, snapshot: Snapshot) -> dict[str, object]:
    block = snapshot.models.get((model.name, model.version)) or Block(model.name, model.version)
    memory_bytes = snapshot.executor_bytes.get((model.name, model.version), 0)
    executed_count = block.execute.observed_count()
    return {
        "name": model.name,
        "version": model.version,
        "last_inference": block.last_inference_ms,
        "inference_count": block.rows_count,
        "execution_count": block.exec_count,
        "inference_stats": {
            "success": {"count": block.success_count, "ns": block.request.sum_ns},
            "fail": {"count": sum(block.failure_counts), "ns": block.failure_ns},
            "queue": {"count": block.queue.observed_count(), "ns": block.queue.sum_ns},
            "compute_input": {"count": executed_count, "ns": block.parse_ns},
            "compute_infer": {"count": executed_count, "ns": block.execute.sum_ns},
            "compute_output": {"count": executed_count, "ns": block.reply_ns},
            "cache_hit": _NONE,
            "cache_miss": _NONE,
        },
        "response_stats": {},
        "batch_stats": _batch_stats(block),
        "memory_usage": [{"type": "CPU", "id": 0, "byte_size": memory_bytes}] if memory_bytes else [],
    }


def _batch_stats(block: Block) -> list[dict[str, object]]:
    """Run time by batch size; nothing where the executor does not keep it, rather than invented zeros."""
    if not block.batch_size_ns:
        return []
    return [
        {
            "batch_size": size_rows,
            "compute_input": {"count": count, "ns": 0},
            "compute_infer": {"count": count, "ns": ns},
            "compute_output": {"count": count, "ns": 0},
        }
        for size_rows, count, ns in zip(BATCH_SIZE_BOUNDS_ROWS, block.batch_sizes, block.batch_size_ns, strict=True)
        if count
    ]
