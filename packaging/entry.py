"""Start of the executable: the same as `python -m server`.

The one-file executable is two processes: the first unpacks into a temporary directory, starts the second (this one),
hands signals on and removes the directory at the end. It holds no state, but whoever kills it with SIGKILL means the
server: the second then ends as after SIGTERM and removes the directory itself.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import sys

from server.cli import main

PR_SET_PDEATHSIG = 1


def unpacked_directory() -> str | None:
    """The temporary directory of the one-file executable; None in the one-directory one, whose files are to stay."""
    folder: str = getattr(sys, "_MEIPASS", "")
    beside = os.path.dirname(os.path.realpath(sys.executable))
    return folder if folder and os.path.dirname(os.path.realpath(folder)) != beside else None


def run() -> int:
    folder = unpacked_directory()
    if folder is None:
        return main()
    own, parent = os.getpid(), os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    try:
        return main()
    finally:
        # Forked children come by here too if they ever return: the directory is the first one's to remove.
        if os.getpid() == own and os.getppid() != parent:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(run())
