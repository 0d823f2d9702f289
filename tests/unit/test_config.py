"""Settings: precedence, every bad value refused by name, and that the tables agree with each other."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from server import config
from server.config import OPTIONS, ServeConfig, load, misspelt
from server.errors import ConfigurationError


def resolve(**flags: config.Value) -> ServeConfig:
    return load(flags, environ={}, usable_cores=2)


def test_every_field_is_an_option_with_the_same_default() -> None:
    fields = {field.name: field.default for field in dataclasses.fields(ServeConfig)}
    assert fields.pop("path") is None
    assert list(fields) == [option.name for option in OPTIONS]
    for option in OPTIONS:
        if option.default is not None:
            assert fields[option.name] == option.default
        else:
            assert option.shown_default


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_defaults_and_names(option: config.Option) -> None:
    if option.default is not None:
        assert option.parse(str(option.default)) == option.default
    assert option.flag == "--" + option.variable.removeprefix("HEADRACE_").lower().replace("_", "-")
    assert option.help and not option.help.endswith(".")


def test_flag_over_variable_over_default() -> None:
    environ = {"HEADRACE_HTTP_PORT": "9000", "HEADRACE_INSTANCES": "3"}
    found = load({"http_port": 9001, "instances": None}, environ=environ, usable_cores=2)
    assert (found.http_port, found.instances, found.metrics_port) == (9001, 3, 8002)


def test_an_empty_variable_is_none() -> None:
    assert load({}, environ={"HEADRACE_HTTP_PORT": ""}, usable_cores=2).http_port == 8000


@pytest.mark.parametrize(
    ("cores", "instances", "workers", "threads"),
    [(1, 1, 1, 1), (2, 1, 2, 2), (3, 2, 3, 1), (64, 4, 4, 16), (2, 8, 2, 1)],
)
def test_defaults_from_the_machine(cores: int, instances: int, workers: int, threads: int) -> None:
    found = load({"instances": instances}, environ={}, usable_cores=cores)
    assert (found.workers, found.intra_op_threads) == (workers, threads)


def test_defaults_from_this_machine() -> None:
    found = load({}, path=Path("models"), environ={})
    assert 1 <= found.workers <= 4
    assert found.path == Path("models")


@pytest.mark.parametrize(("on_terminal", "delay_s"), [(True, 0.0), (False, 5.0)])
def test_drain_delay(on_terminal: bool, delay_s: float) -> None:
    assert load({}, environ={}, usable_cores=1, on_terminal=on_terminal).drain_delay_s == delay_s
    assert load({"drain_delay_s": 1.5}, environ={}, usable_cores=1, on_terminal=on_terminal).drain_delay_s == 1.5


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("HTTP_PORT", "65536", "a whole number from 0 to 65535"),
        ("HTTP_PORT", "-1", "a whole number from 0"),
        ("HTTP_PORT", "tcp://10.0.0.1:80", "a whole number"),
        ("WORKERS", "0", "a whole number from 1 to 62"),
        ("WORKERS", "1.5", "a whole number"),
        ("WORKERS", "٣", "a whole number"),
        ("WORKERS", "9" * 5000, "a whole number"),
        ("MAX_BATCH_SIZE", "4096", "a whole number from 1 to 4095"),
        ("DRAIN_TIMEOUT", "soon", "seconds from 0"),
        ("DRAIN_TIMEOUT", "nan", "seconds from 0"),
        ("DRAIN_TIMEOUT", "-1", "seconds from 0"),
        ("LOG_FORMAT", "xml", "one of auto, text, json"),
        ("HOST", "http://localhost", "a host name"),
        ("HOST", "local host", "a host name"),
        ("SERVER_NAME", "a\nb", "printable ASCII"),
        ("SERVER_NAME", "x" * 129, "1 to 128"),
    ],
)
def test_bad_variables(name: str, text: str, expected: str) -> None:
    with pytest.raises(ConfigurationError, match=f"HEADRACE_{name}: expected .*{expected}"):
        load({}, environ={f"HEADRACE_{name}": text}, usable_cores=1)


def test_two_servers_on_one_port() -> None:
    with pytest.raises(ConfigurationError, match="two different ports, got 9000"):
        resolve(http_port=9000, metrics_port=9000)
    assert resolve(http_port=0, metrics_port=0).metrics_port == 0


def test_misspelt_variables() -> None:
    environ = {"HEADRACE_WORKER": "2", "HEADRACE_HTTP_PORTS": "1", "HEADRACE_SERVICE_HOST": "10.0.0.1", "PATH": "/bin"}
    assert misspelt(environ | {"HEADRACE_WORKERS": "2"}) == [
        ("HEADRACE_HTTP_PORTS", "HEADRACE_HTTP_PORT"),
        ("HEADRACE_WORKER", "HEADRACE_WORKERS"),
    ]
    assert misspelt({"HEADRACE_WORKERS": "2"}) == []
