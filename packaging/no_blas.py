"""Builds the library that takes OpenBLAS's place in the executable (no_blas.c says why)."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

#: The BLAS that numpy's wheels carry, by name inside the bundle, and what only that library needs.
BLAS = "numpy.libs/libscipy_openblas64_*"
ONLY_FOR_BLAS = ["*libgfortran-*", "*libquadmath-*"]
PREFIX = "scipy_"
PROVIDED = {"scipy_cblas_sdot64_", "scipy_cblas_ddot64_"}
SOURCE = Path(__file__).with_name("no_blas.c")


def wanted_symbols(libraries: Iterable[Path]) -> list[str]:
    """Names that the libraries leave to BLAS."""
    found: set[str] = set()
    for library in libraries:
        listed = subprocess.run(
            ["nm", "--dynamic", "--undefined-only", str(library)], check=True, capture_output=True, text=True
        ).stdout
        found |= {name for line in listed.splitlines() if (name := line.split()[-1]).startswith(PREFIX)}
    return sorted(found)


def build(users: Iterable[Path], work: Path) -> Path:
    """Compiles the stand-in with all that `users` (numpy's extensions) want; returns the shared library."""
    absent = [name for name in wanted_symbols(users) if name not in PROVIDED]
    if not absent:
        raise SystemExit("no_blas: expected numpy's extensions to name functions of BLAS, found none")
    work.mkdir(parents=True, exist_ok=True)
    (work / "absent.h").write_text("".join(f"ABSENT({name})\n" for name in absent), encoding="utf-8")
    library = work / "no_blas.so"
    command = ["gcc", "-shared", "-fPIC", "-O2", "-s", f"-I{work}", str(SOURCE), "-o", str(library)]
    subprocess.run(command, check=True)
    return library
