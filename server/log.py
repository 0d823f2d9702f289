"""Structured log lines on stderr: text on a terminal, one JSON object a line otherwise.

    log.setup(role="worker-0", log_format="auto")
    log.info("worker_ready", "listening", port=8000)

Every line has ts (RFC 3339, UTC, nanoseconds), level, event, msg (if given), pid, role, then the caller's fields. Any
process and thread may log; no lock is held, since one line is one write.

A log line never raises and never waits for a reader: when stderr cannot take the line at once (a full pipe, a stopped
terminal) the line is dropped and counted, and the next line that gets through carries `dropped`. Lines are at most
PIPE_BUF bytes, which makes the write to a pipe atomic; longer ones are cut. Control characters are escaped, so no value
can forge a line or drive a terminal.
"""

from __future__ import annotations

import json
import math
import os
import select
import stat
import time
from collections.abc import Callable, Mapping

#: Bits of the word that says what is logged; a server's processes share one (Logger.follow). Debug lines are logged
#: where the number above them, the verbosity, is not 0.
ERROR_BIT, WARNING_BIT, INFO_BIT = 1, 2, 4
_VERBOSITY_SHIFT = 8
MAX_VERBOSITY = (1 << 24) - 1
_BITS = {"debug": MAX_VERBOSITY << _VERBOSITY_SHIFT, "info": INFO_BIT, "warning": WARNING_BIT, "error": ERROR_BIT}

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
FORMATS = ("auto", "text", "json")
MAX_LINE_BYTES = 4096
MAX_VALUE_CHARS = 1024
MAX_NAME_CHARS = 96

_COLOURS = {"debug": "\x1b[2m", "info": "\x1b[32m", "warning": "\x1b[33m", "error": "\x1b[31m"}
_RESET = "\x1b[0m"
# C0, DEL, C1, the line separators of Unicode, and the marks that reorder a line on a terminal.
_UNSAFE = {
    code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    for code in (*range(0x20), *range(0x7F, 0xA0), *range(0x2028, 0x202F), *range(0x2066, 0x206A))
}
_UNSAFE |= {ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t"}
_JSON_UNSAFE = {0x7F: "\\u007f"}


def escape(text: str) -> str:
    """Text safe for one line of a terminal: control and reordering characters as backslash escapes."""
    return text.translate(_UNSAFE).encode("utf-8", "backslashreplace").decode("utf-8")


def rfc3339(wall_ns: int) -> str:
    """`2026-01-31T23:59:59.000000001Z`."""
    seconds, ns = divmod(wall_ns, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{ns:09d}Z"


def word_of(level: str) -> int:
    """The word that logs this level and what is above it."""
    word = sum(_BITS[name] for name, rank in LEVELS.items() if rank >= LEVELS[level] and name != "debug")
    return with_verbosity(word, 1 if level == "debug" else 0)


def verbosity(word: int) -> int:
    """Triton's log_verbose_level: 0 for no debug lines."""
    return word >> _VERBOSITY_SHIFT


def with_verbosity(word: int, level: int) -> int:
    return (word & ~_BITS["debug"]) | level << _VERBOSITY_SHIFT


class Logger:
    """Writes lines to one file descriptor; see the module's text for what it promises."""

    def __init__(
        self,
        fd: int = 2,
        *,
        role: str = "",
        log_format: str = "auto",
        level: str = "info",
        environ: Mapping[str, str] | None = None,
    ) -> None:
        if log_format not in FORMATS:
            raise ValueError(f"log format: expected one of {', '.join(FORMATS)}, got {log_format!r}")
        if level not in LEVELS:
            raise ValueError(f"log level: expected one of {', '.join(LEVELS)}, got {level!r}")
        environ = os.environ if environ is None else environ
        terminal = _isatty(fd)
        self.role = _clip(role, MAX_NAME_CHARS)
        self.text = log_format == "text" or (log_format == "auto" and terminal)
        self.colour = terminal and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
        word = word_of(level)
        self._word: Callable[[], int] = lambda: word
        self.dropped_count = 0
        self._unreported_count = 0
        self._given_fd = fd
        self._fd = _unblocking(fd)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLOUT)

    def close(self) -> None:
        """Give back the descriptor opened for a pipe; lines after this go to the one given. Needed only by tests."""
        if self._fd != self._given_fd:
            self._poll.unregister(self._fd)
            os.close(self._fd)
            self._fd = self._given_fd
            self._poll.register(self._fd, select.POLLOUT)

    def follow(self, word: Callable[[], int]) -> None:
        """From now on `word` is asked before each line which levels are logged."""
        self._word = word

    def enabled(self, level: str) -> bool:
        """Whether a line of this level would be written; for callers whose fields cost something."""
        return bool(self._word() & _BITS.get(level, ERROR_BIT))

    def debug(self, event: str, msg: str = "", /, **fields: object) -> None:
        self.log("debug", event, msg, fields)

    def info(self, event: str, msg: str = "", /, **fields: object) -> None:
        self.log("info", event, msg, fields)

    def warning(self, event: str, msg: str = "", /, **fields: object) -> None:
        self.log("warning", event, msg, fields)

    def error(self, event: str, msg: str = "", /, **fields: object) -> None:
        self.log("error", event, msg, fields)

    def log(self, level: str, event: str, msg: str, fields: Mapping[str, object]) -> None:
        """One line if its level is logged, or a count in `dropped_count`; never raises."""
        if self.enabled(level):
            self.write(level, event, msg, fields)

    def write(self, level: str, event: str, msg: str, fields: Mapping[str, object]) -> None:
        """The same whatever is logged: a line that was asked for."""
        try:
            reported_count = self._unreported_count
            try:
                line = self._line(level, event, msg, fields, reported_count)
            except Exception:  # a field's own __str__ raised, or it contains itself
                line = self._line(level, event, msg, {"unprintable": sorted(map(str, fields))}, reported_count)
            if self._write(line):
                self._unreported_count -= reported_count
                return
        except Exception:  # whatever the caller's objects do, serving goes on
            pass
        self.dropped_count += 1
        self._unreported_count += 1

    def _line(self, level: str, event: str, msg: str, fields: Mapping[str, object], dropped_count: int) -> bytes:
        fields = {**fields, "dropped": dropped_count} if dropped_count else fields
        write = self._text if self.text else self._json
        return write(rfc3339(time.time_ns()), level, _clip(str(event), MAX_NAME_CHARS), _clip(str(msg)), fields)

    def _json(self, ts: str, level: str, event: str, msg: str, fields: Mapping[str, object]) -> bytes:
        head: dict[str, object] = {"ts": ts, "level": level, "event": event}
        if msg:
            head["msg"] = msg
        head["pid"] = os.getpid()
        if self.role:
            head["role"] = self.role
        record = dict(head)
        for key, value in fields.items():
            record[f"field_{key}" if key in head else key] = _json_value(value)
        line = _dumps(record)
        while len(line) >= MAX_LINE_BYTES:  # drop the longest value until it fits: the line must stay JSON
            key = max((name for name in record if name not in _KEPT), key=lambda name: len(str(record[name])))
            del record[key]
            record["truncated"] = True
            line = _dumps(record)
        return line + b"\n"

    def _text(self, ts: str, level: str, event: str, msg: str, fields: Mapping[str, object]) -> bytes:
        name = f"{level.upper():7}"
        if self.colour:
            name = f"{_COLOURS.get(level, '')}{name}{_RESET}"
        parts = [ts[11:23], name, escape(self.role) if self.role else str(os.getpid()), escape(event)]
        if msg:
            parts.append(escape(msg))
        parts += [f"{escape(key)}={_text_value(value)}" for key, value in fields.items()]
        line = " ".join(parts).encode("utf-8", "backslashreplace")
        if len(line) >= MAX_LINE_BYTES:
            line = line[: MAX_LINE_BYTES - 4].decode("utf-8", "ignore").encode() + b"..."
        return line + b"\n"

    def _write(self, line: bytes) -> bool:
        """True if the whole line was taken at once."""
        try:
            ready = self._poll.poll(0)
            if not ready or not ready[0][1] & select.POLLOUT:
                return False
            written = os.write(self._fd, line)
        except (OSError, ValueError):
            return False
        return written == len(line)


_KEPT = frozenset({"ts", "level", "event", "pid", "role", "truncated", "dropped"})


def _isatty(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False


def _unblocking(fd: int) -> int:
    """A descriptor for the same file whose writes do not wait, or fd itself where there is none.

    O_NONBLOCK belongs to the open file description, which stderr shares with the shell and with other programs of the
    pipe: setting it there breaks them. A pipe opened anew through /proc has a description of its own. Other kinds are
    asked by poll() before each write, which is enough where one page fits.
    """
    try:
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        pass
    return fd


def _clip(text: str, limit_chars: int = MAX_VALUE_CHARS) -> str:
    return text if len(text) <= limit_chars else text[: limit_chars - 3] + "..."


def _json_value(value: object) -> object:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, list | tuple):
        return [_json_value(item) for item in value[:64]]
    if isinstance(value, dict):
        return {_clip(str(key)): _json_value(item) for key, item in list(value.items())[:64]}
    return _clip(str(value))


def _dumps(record: Mapping[str, object]) -> bytes:
    # ASCII only: surrogates, separators and reordering marks come out as \uXXXX.
    return json.dumps(record, separators=(",", ":")).translate(_JSON_UNSAFE).encode("ascii")


def _text_value(value: object) -> str:
    text = escape(_clip(str(value)))
    if text and not any(c in text for c in ' "='):
        return text
    return '"' + text.replace('"', '\\"') + '"'


_logger: Logger | None = None


def setup(*, role: str = "", log_format: str = "auto", level: str = "info", fd: int = 2) -> Logger:
    """Configure the process's logger and return it; called again (after a fork, in a test) it replaces the former."""
    global _logger
    if _logger is not None:
        _logger.close()
    _logger = Logger(fd, role=role, log_format=log_format, level=level)
    return _logger


def current() -> Logger:
    """The process's logger; with defaults if `setup` was not called."""
    return _logger if _logger is not None else setup()


def debug(event: str, msg: str = "", /, **fields: object) -> None:
    current().log("debug", event, msg, fields)


def info(event: str, msg: str = "", /, **fields: object) -> None:
    current().log("info", event, msg, fields)


def warning(event: str, msg: str = "", /, **fields: object) -> None:
    current().log("warning", event, msg, fields)


def error(event: str, msg: str = "", /, **fields: object) -> None:
    current().log("error", event, msg, fields)
