"""log.py: lines that no value can forge, and a writer that neither raises nor waits."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from server import log


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    yield reader, writer
    os.close(reader)
    os.close(writer)


@pytest.fixture
def open_logger(pipe: tuple[int, int]) -> Iterator[Any]:
    opened: list[log.Logger] = []

    def open_one(**options: Any) -> log.Logger:
        opened.append(log.Logger(pipe[1], **options))
        return opened[-1]

    yield open_one
    for logger in opened:
        logger.close()


def read(pipe: tuple[int, int]) -> bytes:
    try:
        return os.read(pipe[0], 1 << 20)
    except BlockingIOError:
        return b""


def test_json_line(pipe: tuple[int, int], open_logger: Any) -> None:
    open_logger(role="worker-0").info("worker_ready", "listening", port=8000, ratio=0.5, models=["a", "b"], tls=None)
    line = read(pipe)
    assert line.endswith(b"}\n")
    record = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", record.pop("ts"))
    assert list(record.items()) == [
        ("level", "info"),
        ("event", "worker_ready"),
        ("msg", "listening"),
        ("pid", os.getpid()),
        ("role", "worker-0"),
        ("port", 8000),
        ("ratio", 0.5),
        ("models", ["a", "b"]),
        ("tls", None),
    ]


def test_text_line(pipe: tuple[int, int], open_logger: Any) -> None:
    open_logger(role="supervisor", log_format="text").warning("child_died", "restarting", cause="signal 9", slot=1)
    line = read(pipe).decode()
    assert re.fullmatch(
        r'\d\d:\d\d:\d\d\.\d{3} WARNING supervisor child_died restarting cause="signal 9" slot=1\n', line
    )


HOSTILE = [
    "a\nlevel=error forged",
    "a\r\n{}",
    "\x1b[2J\x1b]0;title\x07",
    "\x00\x7f\x80\x9b31m",
    "line\u2028separator\u2029",
    "\u202eright to left\u2066",
    "\ud800 lone surrogate",
    'quote " backslash \\',
    "",
]


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("value", HOSTILE)
def test_values_cannot_forge_lines_or_drive_a_terminal(
    pipe: tuple[int, int], open_logger: Any, log_format: str, value: str
) -> None:
    open_logger(log_format=log_format, role=value).info(value, value, field=value)
    line = read(pipe)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    text = line[:-1].decode("utf-8")
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", text)
    if log_format == "json":
        assert json.loads(line)["field"] == value


class Hostile:
    def __str__(self) -> str:
        raise RuntimeError("no text")


def recursive() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


VALUES: dict[str, object] = {
    "raises": Hostile(),
    "contains itself": recursive(),
    "too many digits": 10**5000,
    "nested": {1: {2: object()}},
    "not finite": float("nan"),
    "bytes": b"\xff",
    "set": {1, 2},
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_any_value_gives_one_line_and_no_exception(
    pipe: tuple[int, int], open_logger: Any, log_format: str, value: object
) -> None:
    logger = open_logger(log_format=log_format)
    logger.error("event", field=value)
    line = read(pipe)
    assert line.count(b"\n") == 1
    assert logger.dropped_count == 0
    if log_format == "json":
        assert json.loads(line, parse_constant=pytest.fail)["event"] == "event"


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("filling", ["x", "é", "\x1b", "\U0001f600"])
def test_long_values_are_cut_so_that_a_line_is_one_atomic_write(
    pipe: tuple[int, int], open_logger: Any, log_format: str, filling: str
) -> None:
    huge = filling * 100_000
    open_logger(log_format=log_format, role=huge).info(huge, huge, **{f"field{i}": huge for i in range(20)})
    line = read(pipe)
    assert 100 < len(line) <= log.MAX_LINE_BYTES
    assert line.count(b"\n") == 1
    if log_format == "json":
        assert json.loads(line)["level"] == "info"


def test_a_full_pipe_drops_and_counts_and_the_next_line_says_so(pipe: tuple[int, int], open_logger: Any) -> None:
    logger = open_logger(log_format="json")
    written = 0
    while not logger.dropped_count:  # would hang here if a write waited for the reader
        logger.info("fill", padding="x" * 900)
        written += 1
    logger.info("also dropped", padding="x" * 900)
    assert logger.dropped_count == 2
    lines = read(pipe).splitlines()
    assert len(lines) == written - 1
    logger.info("after")
    logger.info("later")
    after, later = (json.loads(line) for line in read(pipe).splitlines())
    assert after["dropped"] == 2
    assert "dropped" not in later
    assert os.get_blocking(pipe[1]), "the descriptor given is shared with others: its flags are not ours to change"


def test_a_reader_that_is_gone_drops_the_line() -> None:
    reader, writer = os.pipe()
    logger = log.Logger(writer)
    os.close(reader)
    logger.info("event")
    assert logger.dropped_count == 1
    logger.close()
    os.close(writer)


def test_a_closed_descriptor_drops_the_line() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    os.close(writer)
    logger = log.Logger(writer)
    logger.info("event")
    assert logger.dropped_count == 1


def test_a_socket_that_is_full_drops() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        logger = log.Logger(ours.fileno())
        for _ in range(100_000):
            logger.info("fill", padding="x" * 900)
            if logger.dropped_count:
                break
        assert logger.dropped_count == 1


def test_levels(pipe: tuple[int, int], open_logger: Any) -> None:
    logger = open_logger(level="warning")
    logger.debug("no")
    logger.info("no")
    logger.warning("yes")
    logger.error("yes")
    assert [json.loads(line)["event"] for line in read(pipe).splitlines()] == ["yes", "yes"]
    assert (logger.enabled("info"), logger.enabled("error")) == (False, True)
    assert logger.dropped_count == 0


def test_fields_do_not_replace_the_line_s_own_keys(pipe: tuple[int, int], open_logger: Any) -> None:
    open_logger().info("event", ts="x", level="y", event="z", pid=1)
    record = json.loads(read(pipe))
    assert (record["level"], record["event"], record["pid"]) == ("info", "event", os.getpid())
    assert (record["field_ts"], record["field_level"], record["field_event"], record["field_pid"]) == ("x", "y", "z", 1)


@pytest.mark.parametrize(
    ("environ", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_a_terminal_gets_text_and_colour_unless_told_otherwise(environ: dict[str, str], coloured: bool) -> None:
    ours, theirs = os.openpty()
    try:
        log.Logger(theirs, role="r", environ=environ).info("event")
        line = os.read(ours, 4096)
    finally:
        os.close(ours)
        os.close(theirs)
    assert b"event" in line
    assert not line.startswith(b"{")
    assert (b"\x1b[" in line) is coloured


@pytest.mark.parametrize("option", [{"log_format": "xml"}, {"level": "loud"}])
def test_unknown_options_name_the_known_ones(option: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"expected one of .*, got "):
        log.Logger(**option)  # type: ignore[arg-type]


def test_setup_replaces_the_process_s_logger(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "_logger", None)
    log.setup(role="executor-0", log_format="json", fd=pipe[1])
    log.error("first")
    replaced = log.setup(role="executor-1", log_format="json", fd=pipe[1], level="debug")
    log.debug("second")
    replaced.close()
    assert [json.loads(line)["role"] for line in read(pipe).splitlines()] == ["executor-0", "executor-1"]
    assert log.current() is replaced
