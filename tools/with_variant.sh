#!/bin/bash
# Runs a command with the extensions of another build than release: tools/with_variant.sh debug|asan|tsan COMMAND ...
# A sanitizer's runtime has to be in the process before Python is, hence the preload.
set -euo pipefail
variant=$1
shift
cd "$(dirname "$0")/.."
preload=
case $variant in
    debug) ;;
    asan)
        preload="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so) $(gcc -print-file-name=libstdc++.so.6)"
        # Python keeps memory at exit by design, so leaks are left to the tests' own counters.
        export PYTHONMALLOC=malloc
        export ASAN_OPTIONS="detect_leaks=0:abort_on_error=1:strict_string_checks=1${ASAN_OPTIONS:+:$ASAN_OPTIONS}"
        export UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1${UBSAN_OPTIONS:+:$UBSAN_OPTIONS}"
        ;;
    tsan)
        preload="$(gcc -print-file-name=libtsan.so)"
        export PYTHONMALLOC=malloc
        export TSAN_OPTIONS="halt_on_error=1:second_deadlock_stack=1${TSAN_OPTIONS:+:$TSAN_OPTIONS}"
        ;;
    *)
        echo "with_variant.sh: expected debug, asan or tsan, got '$variant'" >&2
        exit 64
        ;;
esac
[ -d "build/$variant/lib" ] || { echo "with_variant.sh: build/$variant/lib is missing: make $variant" >&2; exit 69; }
export PYTHONPATH="$PWD/build/$variant/lib"
export HEADRACE_VARIANT=$variant
LD_PRELOAD="$preload" exec "$@"
