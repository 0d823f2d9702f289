"""`headrace inspect`: an ONNX file's inputs, outputs, opset, size and batchability, from its header alone."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from server.cli_parser import CommandError, Parser
from server.log import escape
from server.models import batchability, external_data
from server.models.batchability import Batching, shape_text
from server.models.onnx_file import ModelFileError, OnnxModel, TensorInfo, read_model
from server.models.repository import MODEL_FILE, unsupported_reason
from server.supervisor.banner import align

#: Operators listed before the rest is summed up.
LISTED_OPERATORS = 8


def run(arguments: list[str]) -> int:
    parser = Parser(
        "inspect",
        "Prints what an ONNX file says about itself. No session is created and no weight is read.",
        ["headrace inspect model.onnx", "headrace inspect --json model.onnx | jq .batching"],
    )
    parser.add_argument("model", metavar="MODEL", type=Path, help="an .onnx file, or a directory with model.onnx")
    parser.add_argument("--json", action="store_true", help="as one JSON object")
    options = parser.parse(arguments)
    path = options.model / MODEL_FILE if options.model.is_dir() else options.model
    try:
        model = read_model(path)
        external_data.check(model)
    except ModelFileError as error:
        raise CommandError(f"{path} {error}", os.EX_DATAERR) from None
    except FileNotFoundError:
        raise CommandError(f"found: no file {path}; expected: an .onnx file", os.EX_NOINPUT) from None
    except PermissionError:
        raise CommandError(f"found: {path}; expected: permission to read it", os.EX_NOPERM) from None
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}", os.EX_NOINPUT) from None
    verdict = batchability.verdict(model)
    write = _json if options.json else _text
    sys.stdout.write(write(model, verdict, unsupported_reason(model)))
    return os.EX_OK


def _json(model: OnnxModel, verdict: Batching, unsupported: str | None) -> str:
    def tensors(items: tuple[TensorInfo, ...]) -> list[dict[str, object]]:
        return [{"name": item.name, "datatype": item.dtype, "shape": item.shape and list(item.shape)} for item in items]

    document = {
        "path": str(model.path),
        "file_bytes": model.file_bytes,
        "ir_version": model.ir_version,
        "opsets": {domain or "ai.onnx": version for domain, version in model.opsets.items()},
        "producer": model.producer,
        "graph": model.graph_name,
        "inputs": tensors(model.inputs),
        "outputs": tensors(model.outputs),
        "nodes": model.node_count,
        "operators": model.op_counts,
        "initializers": model.initializer_count,
        "external_data": sorted({entry.location for entry in model.external_data}),
        "batching": {"batched": verdict.batched, "reason": verdict.reason},
        "served": unsupported is None,
        "unsupported": unsupported,
    }
    return json.dumps(document, indent=1) + "\n"


def _text(model: OnnxModel, verdict: Batching, unsupported: str | None) -> str:
    opsets = ", ".join(f"{escape(domain) or 'ai.onnx'} {version}" for domain, version in model.opsets.items())
    operators = list(model.op_counts.items())
    shown = ", ".join(f"{count} {escape(name)}" for name, count in operators[:LISTED_OPERATORS])
    rest = sum(count for _, count in operators[LISTED_OPERATORS:])
    rows = [
        ["file", f"{escape(str(model.path))}, {size_text(model.file_bytes)}"],
        ["format", f"IR {model.ir_version}, opset {opsets or 'none'}, made by {escape(model.producer) or 'unknown'}"],
        ["graph", f"{model.node_count} nodes ({shown}{f', {rest} others' if rest else ''})"],
        ["weights", f"{model.initializer_count} initializers"],
    ]
    locations = sorted({entry.location for entry in model.external_data})
    if locations:
        more = " ..." if len(locations) > 5 else ""
        rows.append(["", f"external data in {escape(', '.join(locations[:5]))}{more}"])
    for kind, tensors in (("input", model.inputs), ("output", model.outputs)):
        rows += [[kind, _tensor(tensor)] for tensor in tensors]
    rows.append(["batching", f"{'yes' if verdict.batched else 'no'}: {escape(verdict.reason)}"])
    if unsupported is not None:
        rows.append(["served", f"no: {escape(unsupported)}"])
    return "\n".join(align(rows)) + "\n"


def _tensor(tensor: TensorInfo) -> str:
    shape = "shape unknown" if tensor.shape is None else shape_text(tensor.shape)
    return escape(f"{tensor.name}  {tensor.dtype} {shape}")


def size_text(count: int) -> str:
    """Bytes for people: 512 bytes, 29.3 kB, 1.2 MB."""
    if count < 1000:
        return f"{count} bytes"
    value, unit = count / 1000, "kB"
    for larger in ("MB", "GB"):
        if value >= 1000:
            value, unit = value / 1000, larger
    return f"{value:.1f} {unit}"
