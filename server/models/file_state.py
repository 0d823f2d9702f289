"""What the system says of a file: differs whenever the file does, short of somebody who sets clocks."""

from __future__ import annotations

from pathlib import Path

#: Device, inode, size, time of the last change; one number for a file that is not there, or not to be looked at.
FileState = tuple[int, ...]
#: Of a file that is not there.
ABSENT: FileState = (0,)


def file_state(path: Path) -> FileState:
    """Of what `path` leads to."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return ABSENT
    except (OSError, ValueError) as error:
        return (getattr(error, "errno", None) or 1,)
    return (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)


def is_same(now: FileState, before: FileState) -> bool:
    """Whether a file still has the size and the time that it had. Its inode does not count: some mounted object stores
    number a file anew whenever they look at it.
    """
    return len(now) == len(before) > 1 and now[2:] == before[2:]
