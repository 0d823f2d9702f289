"""Builds the extensions of server/_fast: one .pyx is one extension.

Environment:
    FAST_BUILD    release (default), debug, asan, tsan or coverage. Each variant but release has its own tree
                  build/VARIANT/lib, used through PYTHONPATH; release builds in place.
    FAST_MODULES  comma-separated module names: build only these.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

VARIANT = os.environ.get("FAST_BUILD", "release")
ONLY = {name for name in os.environ.get("FAST_MODULES", "").split(",") if name}

COMMON_FLAGS = ["-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-missing-field-initializers", "-fvisibility=hidden"]
VARIANT_FLAGS: dict[str, tuple[list[str], list[str]]] = {
    "release": (["-O2", "-march=x86-64-v2", "-g1"], []),
    "debug": (["-O0", "-g", "-DHEADRACE_FAILPOINTS=1"], []),
    "asan": (
        ["-O1", "-g", "-fsanitize=address,undefined", "-fno-omit-frame-pointer", "-DHEADRACE_FAILPOINTS=1"],
        ["-fsanitize=address,undefined"],
    ),
    "tsan": (["-O1", "-g", "-fsanitize=thread", "-DHEADRACE_FAILPOINTS=1"], ["-fsanitize=thread"]),
    "coverage": (["-O0", "-g", "--coverage", "-DHEADRACE_FAILPOINTS=1"], ["--coverage"]),
}
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "initializedcheck": False,
    "cdivision": True,
    "freethreading_compatible": False,
    "binding": False,
    "embedsignature": False,
}
#: Modules that call the C++17 standard library (std::from_chars, std::to_chars).
CPLUSPLUS = {"infer_classes", "infer_json_fill", "infer_json_reply", "string_tensor", "tfs_json_reply"}
#: Modules that call a shared library of the system.
LIBRARIES = {
    "content_coding": ["z"],
    "h2_frames": ["nghttp2"],
    "h2_session": ["nghttp2"],
    "h2_stream": ["nghttp2"],
    "http2_rest": ["nghttp2"],
}


def extensions() -> list[Extension]:
    """One Extension per server/_fast/*.pyx, and per tests/stress/*.pyx outside the release build."""
    compile_flags, link_flags = VARIANT_FLAGS[VARIANT]
    sources = sorted(Path("server/_fast").glob("*.pyx"))
    if VARIANT != "release":
        sources += sorted(Path("tests/stress").glob("*.pyx"))
    result = []
    for source in sources:
        if ONLY and source.stem not in ONLY:
            continue
        cplusplus = source.stem in CPLUSPLUS
        standard = "-std=c++17" if cplusplus else "-std=gnu11"
        result.append(
            Extension(
                # Top-level for tests: pytest fixes the path of the package tests before PYTHONPATH is asked.
                source.stem if source.parts[0] == "tests" else ".".join(source.with_suffix("").parts),
                [str(source)],
                include_dirs=["server/_fast"],
                language="c++" if cplusplus else "c",
                libraries=LIBRARIES.get(source.stem, []),
                extra_compile_args=[standard, "-D_GNU_SOURCE", *COMMON_FLAGS, *compile_flags],
                extra_link_args=link_flags,
                depends=sorted(str(header) for header in Path("server/_fast").glob("*.h")),
                define_macros=[("HEADRACE_VARIANT", f'"{VARIANT}"')],
            )
        )
    return result


def main() -> None:
    if VARIANT not in VARIANT_FLAGS:
        raise SystemExit(f"FAST_BUILD={VARIANT!r}: expected one of {', '.join(VARIANT_FLAGS)}")
    modules = cythonize(
        extensions(),
        build_dir=f"build/{VARIANT}/cython",
        compiler_directives=DIRECTIVES,
        nthreads=0 if re.search(r"\b(asan|tsan)\b", VARIANT) else 2,
        include_path=["."],
        quiet=True,
    )
    setup(
        ext_modules=modules,
        script_args=None,
        options={
            "build": {"build_base": f"build/{VARIANT}", "build_lib": f"build/{VARIANT}/lib"},
            "build_ext": {"parallel": 2, "inplace": VARIANT == "release"},
        },
    )


main()
