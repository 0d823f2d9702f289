#!/bin/bash
# Runs a command with the extensions of a sanitizer build: tools/sanitized.sh asan|tsan COMMAND ...
# The sanitizer's runtime has to be in the process before Python is, hence the preload.
set -euo pipefail
variant=$1
shift
cd "$(dirname "$0")/.."
case $variant in
    asan)
        preload="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so) $(gcc -print-file-name=libstdc++.so.6)"
        # Python keeps memory at exit by design, so leaks are left to the tests' own counters.
        export ASAN_OPTIONS="detect_leaks=0:abort_on_error=1:strict_string_checks=1${ASAN_OPTIONS:+:$ASAN_OPTIONS}"
        export UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1${UBSAN_OPTIONS:+:$UBSAN_OPTIONS}"
        ;;
    tsan)
        preload="$(gcc -print-file-name=libtsan.so)"
        export TSAN_OPTIONS="halt_on_error=1:second_deadlock_stack=1${TSAN_OPTIONS:+:$TSAN_OPTIONS}"
        ;;
    *)
        echo "sanitized.sh: expected asan or tsan, got '$variant'" >&2
        exit 64
        ;;
esac
[ -d "build/$variant/lib" ] || { echo "sanitized.sh: build/$variant/lib is missing: make $variant" >&2; exit 69; }
export PYTHONMALLOC=malloc
export PYTHONPATH="$PWD/build/$variant/lib"
export HEADRACE_VARIANT=$variant
LD_PRELOAD="$preload" exec "$@"
