#!/bin/sh
# Checks that this machine can build headrace: python3 >= 3.11 with venv and headers, gcc, g++, the
# headers of libnghttp2 and zlib.
# As root on a Debian system what is missing is installed; otherwise it is named in one line and the exit code is 69.
# Usage: tools/prerequisites.sh [PYTHON [COMMAND ...]], where each further command is in a package of its own name.
#        tools/prerequisites.sh --optional   names what some tests want and is missing; installs and fails nothing
set -eu
if [ "${1-}" = --optional ]; then
    for name in node npm; do
        command -v "$name" >/dev/null 2>&1 || echo "headrace: optional and missing: $name (tests of the client grpc-js;" \
            "on Debian or Ubuntu: sudo apt-get install nodejs npm)" >&2
    done
    exit 0
fi
python=${1:-python3}
[ $# = 0 ] || shift
commands=$*

missing() {
    if ! command -v "$python" >/dev/null 2>&1; then
        printf ' python3 python3-venv python3-dev'
    else
        "$python" -c 'import ensurepip, venv' >/dev/null 2>&1 || printf ' python3-venv'
        "$python" - <<'PY' >/dev/null 2>&1 || printf ' python3-dev'
import os, sysconfig
raise SystemExit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))
PY
    fi
    # Without a compiler the headers are named with it: both come in one go.
    printf '#include <nghttp2/nghttp2.h>\n' | gcc -E -x c - >/dev/null 2>&1 || printf ' libnghttp2-dev'
    printf '#include <zlib.h>\n' | gcc -E -x c - >/dev/null 2>&1 || printf ' zlib1g-dev'
    for name in gcc g++ $commands; do
        command -v "$name" >/dev/null 2>&1 || printf ' %s' "$name"
    done
}

wanted=$(missing)
if [ -n "$wanted" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "headrace: installing$wanted" >&2
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >&2
    # shellcheck disable=SC2086 -- a list of package names
    apt-get install -y -qq --no-install-recommends $wanted libc6-dev >&2
    wanted=$(missing)
fi
if [ -n "$wanted" ]; then
    echo "headrace: missing:$wanted; on Debian or Ubuntu: sudo apt-get install -y$wanted libc6-dev" >&2
    exit 69
fi
if ! "$python" -c 'import sys; raise SystemExit(sys.version_info < (3, 11))'; then
    echo "headrace: expected Python 3.11 or newer, $python is $("$python" -V 2>&1); name another: make PYTHON=python3.12" >&2
    exit 69
fi
