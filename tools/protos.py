"""Compiles protos/ into one descriptor set, imports included: `python tools/protos.py PATH`.

The set is in the tree, so that building and serving need no protobuf compiler; a test compares it with its sources.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"


def compile_to(path: Path) -> None:
    """Writes the set; SystemExit when a source is wrong."""
    from grpc_tools import _proto, protoc

    sources = sorted(str(source.relative_to(PROTOS)) for source in PROTOS.rglob("*.proto"))
    well_known = str(Path(next(iter(_proto.__path__))))
    options = [f"-I{PROTOS}", f"-I{well_known}", "--include_imports", f"--descriptor_set_out={path}"]
    status = protoc.main(["protoc", *options, *sources])
    if status:
        raise SystemExit(status)


if __name__ == "__main__":
    compile_to(Path(sys.argv[1]))
