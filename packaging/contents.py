"""What the executable holds: the rules that headrace.spec applies to PyInstaller's findings.

A table of contents entry is PyInstaller's (name inside the bundle, file it comes from, kind).
"""

from __future__ import annotations

import fnmatch
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import no_blas

Entry = tuple[str, str, str]

#: Modules that something names but no serving process loads.
EXCLUDED_MODULES = [
    # tools of onnxruntime and what only they need
    "onnxruntime.backend",
    "onnxruntime.datasets",
    "onnxruntime.quantization",
    "onnxruntime.tools",
    "onnxruntime.transformers",
    "flatbuffers",
    "onnx",
    "sympy",
    # gRPC's own library is a test oracle only
    "grpc",
    # building, testing, packaging
    "Cython",
    "distutils",
    "doctest",
    "ensurepip",
    "hypothesis",
    "lib2to3",
    "mypy",
    "numpy.distutils",
    "numpy.f2py",
    "numpy.testing",
    "pdb",
    "pip",
    "pkg_resources",
    "pydoc",
    "pydoc_data",
    "pytest",
    "setuptools",
    "unittest",
    "venv",
    "wheel",
    # parts of numpy that only programs call
    "numpy.fft",
    "numpy.polynomial",
    "numpy.random",
    # parts of the standard library that no server needs
    "curses",
    "decimal",
    "fractions",
    "idlelib",
    "multiprocessing",
    "readline",
    "sqlite3",
    "statistics",
    "tkinter",
    "turtle",
    "xmlrpc",
]

#: Binaries left out, by name inside the bundle.
EXCLUDED_BINARIES = [
    # The Python module of onnxruntime has the whole library linked in; this is a second copy for programs in C.
    "onnxruntime/capi/libonnxruntime.so*",
    *no_blas.ONLY_FOR_BLAS,
    "python3.*/lib-dynload/_codecs_*",
    "python3.*/lib-dynload/_multibytecodec*",
    "*/_tests/*",
    "*/tests/*",
    "numpy/_core/_multiarray_tests*",
    "numpy/_core/_operand_flag_tests*",
    "numpy/_core/_rational_tests*",
    "numpy/_core/_struct_ufunc_tests*",
    "numpy/_core/_umath_tests*",
]

#: Data left out, by name inside the bundle: sources, headers, tests, type stubs, records of the installation.
EXCLUDED_DATA = [
    "*.c",
    "*.h",
    "*.pxd",
    "*.pyi",
    "*.pyx",
    "*/tests/*",
    "numpy/doc/*",
    "onnxruntime/backend/*",
    "onnxruntime/datasets/*",
    "onnxruntime/quantization/*",
    "onnxruntime/tools/*",
    "onnxruntime/transformers/*",
]
#: Packages whose version (`headrace version -v`) and licence go in.
NAMED_PACKAGES = ("onnxruntime", "onnxruntime-gpu", "numpy", "uvloop")
_RECORDS = ("METADATA", "LICENSE*", "LICENCE*", "COPYING*", "NOTICE*")

#: Binaries whose symbols are stripped. Those that were patched after linking (numpy.libs, onnxruntime) are left as
#: they are: strip can misalign their segments, and they come stripped.
STRIPPED_BINARIES = ["server/_fast/*", "uvloop/*", "libpython*", "lib-dynload/*"]

#: numpy's extensions that are linked against BLAS.
BLAS_USERS = ["numpy/_core/_multiarray_umath*", "numpy/linalg/*"]

_SOURCES = (".py", ".pyx")
_IMPORT = re.compile(
    r"^\s*(?:import|from)\s+(?!libc\b|libcpp\b|posix\b|cpython\b|cython\b)(\w[\w.]*)(?:\s+import\b|\s*$)", re.MULTILINE
)
_PACKAGE_CODE = (".py", ".pyi", ".pyx", ".pxd", ".h", ".c", ".cpp", ".so", ".pyc")


def matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def hidden_imports(root: Path) -> list[str]:
    """Every module of server, as the command line imports late, and what extensions import: that is in no bytecode."""
    files = sorted(path.relative_to(root) for path in (root / "server").rglob("*") if path.suffix in _SOURCES)
    names = {".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in files}
    for path in files:
        if path.suffix == ".pyx":
            names |= set(_IMPORT.findall((root / path).read_text(encoding="utf-8")))
    return sorted(names - {"server.__main__"})


def data_files(root: Path) -> list[tuple[str, str]]:
    """(file, folder inside the bundle) of all under server that is not code: the demo model, build information."""
    return [
        (str(path), str(path.parent.relative_to(root)))
        for path in sorted((root / "server").rglob("*"))
        if path.is_file() and path.suffix not in _PACKAGE_CODE and "__pycache__" not in path.parts
    ]


def package_records() -> list[tuple[str, str]]:
    """(file, folder inside the bundle) of the metadata and licences of the packages that are shipped."""
    found = []
    for name in NAMED_PACKAGES:
        try:
            files = metadata.files(name) or []
        except metadata.PackageNotFoundError:
            continue
        for file in files:
            if ".dist-info" in file.parts[0] and any(fnmatch.fnmatchcase(file.name, pattern) for pattern in _RECORDS):
                found.append((str(file.locate()), str(file.parent)))
        folder = Path(str(metadata.distribution(name).locate_file(name)))
        found += [
            (str(folder / text), name) for text in ("LICENSE", "ThirdPartyNotices.txt") if (folder / text).is_file()
        ]
    return found


def stripped(source: Path, work: Path, name: str) -> Path:
    """A copy of a binary without its symbols; the binary itself where strip is not there."""
    tool = shutil.which("strip")
    if tool is None:
        return source
    copy = work / "stripped" / name
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, copy)
    subprocess.run([tool, "--strip-unneeded", str(copy)], check=True)
    return copy


def trim_binaries(entries: Iterable[Entry], work: Path) -> list[Entry]:
    """The binaries that go in: stripped copies of those that may be, and the stand-in for BLAS in its place."""
    found = [entry for entry in entries if not matches(entry[0], EXCLUDED_BINARIES)]
    blas = no_blas.build((Path(source) for name, source, _ in found if matches(name, BLAS_USERS)), work)
    kept = []
    for name, source, kind in found:
        if matches(name, [no_blas.BLAS]) and kind != "SYMLINK":
            source = str(blas)
        elif kind != "SYMLINK" and matches(name, STRIPPED_BINARIES):
            source = str(stripped(Path(source), work, name))
        kept.append((name, source, kind))
    return kept


def trim_data(entries: Iterable[Entry]) -> list[Entry]:
    return [entry for entry in entries if not matches(entry[0], EXCLUDED_DATA)]


def report(binaries: Iterable[Entry], data: Iterable[Entry], path: Path) -> None:
    """Writes the unpacked size of each part, largest first, and of each file over 1 MB."""
    parts: dict[str, int] = defaultdict(int)
    large = []
    for name, source, kind in [*binaries, *data]:
        if kind == "SYMLINK" or not Path(source).is_file():
            continue
        size_bytes = Path(source).stat().st_size
        parts[name.partition("/")[0] if "/" in name else "(top)"] += size_bytes
        if size_bytes > 1_000_000:
            large.append((size_bytes, name))
    lines = [f"{sum(parts.values()) / 1e6:9.2f} MB  all"]
    lines += [f"{size / 1e6:9.2f} MB  {part}" for part, size in sorted(parts.items(), key=lambda item: -item[1])]
    lines += ["", *(f"{size / 1e6:9.2f} MB  {name}" for size, name in sorted(large, reverse=True))]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
