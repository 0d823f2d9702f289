"""Log and trace settings: what may be set, what it does to the word and to models that follow the server."""

from __future__ import annotations

from typing import Any

import pytest

from server import errors, log
from server.protocol import log_settings, trace_settings
from server.protocol.trace_settings import Setting


@pytest.mark.parametrize("level", list(log.LEVELS))
def test_the_first_settings_are_those_of_the_level(level: str) -> None:
    found = log_settings.document(log.word_of(level))
    rank = log.LEVELS[level]
    assert (found["log_info"], found["log_warning"], found["log_error"]) == (rank <= 20, rank <= 30, True)
    assert found["log_verbose_level"] == (1 if level == "debug" else 0)
    assert list(found) == list(log_settings.NAMES)


def test_each_level_is_its_own() -> None:
    word = log_settings.applied(log.word_of("info"), {"log_info": False, "log_verbose_level": 3, "log_error": False})
    logger = log.Logger(2)
    logger.follow(lambda: word)
    assert {level: logger.enabled(level) for level in log.LEVELS} == {
        "debug": True,
        "info": False,
        "warning": True,
        "error": False,
    }
    assert log_settings.applied(word, log_settings.changes(log_settings.document(log.word_of("info")))) == log.word_of(
        "info"
    )


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        ({"log_file": "/tmp/x"}, "log file location can not be updated"),
        ({"log_format": "default"}, "'log_format' stays 'ISO8601'"),
        ({"log_info": 1}, "'log_info': expected true or false"),
        ({"log_verbose_level": True}, "expected a whole number"),
        ({"log_verbose_level": -1}, "expected a whole number"),
        ({"log_verbose_level": 1 << 24}, "expected a whole number"),
        ({"log_infos": True}, "unknown log setting 'log_infos'"),
    ],
)
def test_log_settings_that_are_refused(wanted: dict[str, Any], text: str) -> None:
    with pytest.raises(errors.InvalidArgumentError, match=text):
        log_settings.changes(wanted)


def test_null_leaves_a_log_setting() -> None:
    assert log_settings.changes({"log_info": None, "log_file": None, "log_error": True}) == {"log_error": True}


@pytest.mark.parametrize(
    ("wanted", "changed"),
    [
        ({"trace_level": ["TIMESTAMPS"]}, {"trace_level": "TIMESTAMPS"}),
        ({"trace_level": "OFF"}, {"trace_level": "OFF"}),
        ({"trace_rate": "5", "trace_count": -1}, {"trace_rate": 5, "trace_count": -1}),
        ({"log_frequency": 0, "trace_count": "-1"}, {"log_frequency": 0, "trace_count": -1}),
        ({"trace_rate": None, "trace_file": None, "trace_mode": "triton"}, {"trace_rate": None}),
    ],
)
def test_trace_changes(wanted: dict[str, Any], changed: dict[str, Any]) -> None:
    assert trace_settings.changes(wanted) == changed


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        ({"trace_file": "/tmp/x"}, "trace file location can not be updated"),
        ({"trace_mode": "opentelemetry"}, "'trace_mode' stays 'triton'"),
        ({"trace_level": ["TENSORS"]}, "'trace_level': expected"),
        ({"trace_level": ["OFF", "TIMESTAMPS"]}, "'trace_level': expected"),
        ({"trace_level": []}, "'trace_level': expected"),
        ({"trace_rate": 0}, "unable to parse 'trace_rate'"),
        ({"trace_rate": "1.5"}, "unable to parse 'trace_rate'"),
        ({"trace_rate": True}, "unable to parse 'trace_rate'"),
        ({"trace_count": "-2"}, "unable to parse 'trace_count'"),
        ({"trace_count": "9" * 5000}, "unable to parse 'trace_count'"),
        ({"log_frequency": "--1"}, "unable to parse 'log_frequency'"),
        ({"x": 1}, "unknown trace setting 'x'"),
    ],
)
def test_trace_settings_that_are_refused(wanted: dict[str, Any], text: str) -> None:
    with pytest.raises(errors.InvalidArgumentError, match=text):
        trace_settings.changes(wanted)


def test_a_model_follows_the_server_in_what_it_does_not_set() -> None:
    own = trace_settings.updated({}, {"trace_rate": 7, "trace_count": None})
    server = Setting().of({"trace_level": "TIMESTAMPS", "trace_rate": 3})
    assert server.of(own) == Setting("TIMESTAMPS", 7)
    assert trace_settings.updated(own, {"trace_rate": None}) == {}
    assert trace_settings.document(server, 4) == {
        "trace_file": "",
        "trace_level": ["TIMESTAMPS"],
        "trace_rate": "3",
        "trace_count": "4",
        "log_frequency": "0",
        "trace_mode": "triton",
    }
