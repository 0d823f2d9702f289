"""Settings: precedence, every bad value refused by name, and that the tables agree with each other."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

import pytest

from server import config, hostinfo
from server.config import OPTIONS, ServeConfig, is_on_terminal, load, misspelt
from server.errors import ConfigurationError
from server.option_values import OFF, SAME, Value


def resolve(**flags: Value) -> ServeConfig:
    return load(flags, environ={}, usable_cores=2)


def test_every_field_is_an_option_with_the_same_default() -> None:
    fields = {field.name: field.default for field in dataclasses.fields(ServeConfig)}
    assert fields.pop("path") is None
    assert fields.pop("sources") == ()
    assert list(fields) == [option.name for option in OPTIONS]
    for option in OPTIONS:
        if option.default is not None:
            assert fields[option.name] == option.default
        else:
            assert option.shown_default
        assert option.metavar or option.is_switch


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_defaults_and_names(option: config.Option) -> None:
    if option.is_list:
        assert option.parse("") == option.default == ()
    elif option.default is not None:
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


@pytest.mark.parametrize(
    ("quota", "flags", "expected"),
    [
        # One thread computes on a quota of 1.5, beside the workers.
        (1.5, {}, (2, 1, 1)),
        (3.9, {}, (4, 3, 3)),
        (3.9, {"instances": 2}, (4, 1, 3)),
        (None, {}, (4, 8, 8)),
        (None, {"compute_cores": 3}, (4, 3, 3)),
        # Whoever says how many gets as many, however many models there are.
        (1.5, {"intra_op_threads": 6}, (2, 6, 0)),
        (1.5, {"intra_op_threads": 6, "compute_cores": 2}, (2, 6, 2)),
        (1.5, {"compute_cores": 0}, (2, 1, 0)),
    ],
)
def test_threads_within_a_quota(
    quota: float | None, flags: dict[str, Value], expected: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hostinfo, "processors", lambda: hostinfo.Processors(8, quota))
    found = load(flags, environ={})
    assert (found.workers, found.intra_op_threads, found.compute_cores) == expected


def test_defaults_from_this_machine() -> None:
    found = load({}, path=Path("models"), environ={})
    assert 1 <= found.workers <= 4
    assert found.path == Path("models")


@pytest.mark.parametrize("streams", [(), (0,), (1,), (2,), (0, 1, 2)])
def test_one_stream_that_is_a_terminal_is_enough(monkeypatch: pytest.MonkeyPatch, streams: tuple[int, ...]) -> None:
    monkeypatch.setattr(os, "isatty", lambda stream: stream in streams)
    assert is_on_terminal() == bool(streams)


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
        ("HTTP_PORT", "none", "a whole number from 0 to 65535 or off"),
        ("PORT", "off", "a whole number from 0 to 65535, got 'off'"),
        ("METRICS_PORT", "http", "a whole number from 0 to 65535 or off or same"),
        ("MAX_CONNECTION_AGE", "0.5", "seconds 0, or from 1 to"),
        ("MAX_CONCURRENT_STREAMS", "0", "a whole number from 1 to 1000"),
        ("UDS", "/" + "x" * 107, "the path of a socket with at most 107 bytes .*, got 108"),
        ("UDS", "/run/\N{LATIN SMALL LETTER E WITH ACUTE}" + "x" * 101, "at most 107 bytes .*, got 108"),
        ("UDS", "/run/headrace/", "the path of a socket"),
        ("ALLOW_CLIENT_SHM", "maybe", "1 or 0, got 'maybe'"),
        ("CORS", "example.org", r"\* or an origin such as https://example.org"),
        ("CORS", "https://example.org/path", "an origin"),
        ("LOAD_MODEL", "a/b", "the name of a model"),
        ("MODEL_CONTROL_MODE", "auto", "one of none, poll, explicit"),
        ("REPOSITORY_POLL_SECS", "0", "a whole number from 1"),
        ("SLO_P99_MS", "20ms", "milliseconds, 0 or from 0.001 to 3600000, got '20ms'"),
        ("SLO_P99_MS", "nan", "milliseconds, 0 or from"),
    ],
)
def test_bad_variables(name: str, text: str, expected: str) -> None:
    with pytest.raises(ConfigurationError, match=f"HEADRACE_{name}: expected .*{expected}"):
        load({}, environ={f"HEADRACE_{name}": text}, usable_cores=1)


def test_two_servers_on_one_port() -> None:
    with pytest.raises(ConfigurationError, match="two different ports, got 9000"):
        resolve(http_port=9000, metrics_port=9000)
    assert resolve(http_port=0, metrics_port=0).metrics_port == 0


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, (8000, 8001, 8002)),
        ({"http_port": 0}, (0, 0, 8002)),
        ({"http_port": 9000}, (9000, 8001, 8002)),
        ({"http_port": OFF}, (OFF, 8001, 8002)),
        ({"port": 9000}, (9000, 9000, SAME)),
        ({"port": 0}, (0, 0, SAME)),
        ({"port": 9000, "http_port": 9000, "metrics_port": 9000}, (9000, 9000, SAME)),
        ({"port": 9000, "metrics_port": 8002}, (9000, 9000, 8002)),
        ({"port": 9000, "metrics_port": OFF}, (9000, 9000, OFF)),
        ({"port": 8002}, (8002, 8002, SAME)),
    ],
)
def test_ports_that_follow_from_others(flags: dict[str, int], expected: tuple[int, int, int]) -> None:
    found = resolve(**flags)
    assert (found.http_port, found.grpc_port, found.metrics_port) == expected


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ({"port": 9000, "http_port": 9001}, "--port, --http-port: expected one port for everything, got 9000 and 9001"),
        ({"port": 9000, "grpc_port": 0}, "--port, --grpc-port: expected one port"),
        ({"rest_api_port": 8002}, "--rest-api-port, --metrics-port: expected two different ports"),
        ({"http_port": OFF, "grpc_port": OFF}, "--http-port: expected at least one port or --uds"),
        ({"load_model": ("a",)}, "--load-model: expected --model-control-mode explicit"),
    ],
)
def test_settings_that_contradict_each_other(flags: dict[str, Value], text: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(text)):
        resolve(**flags)


def test_a_socket_alone_is_an_address() -> None:
    assert resolve(http_port=OFF, grpc_port=OFF, uds=("/run/a",)).uds == ("/run/a",)


def test_what_kubernetes_sets_for_a_service_of_our_name_is_no_port() -> None:
    assert load({}, environ={"HEADRACE_PORT": "tcp://10.0.0.1:8000"}, usable_cores=1).http_port == 8000
    assert load({}, environ={"HEADRACE_PORT": "9000"}, usable_cores=1).http_port == 9000


def test_hosts_follow_the_host() -> None:
    found = resolve(host="::1", metrics_host="127.0.0.1")
    assert (found.host, found.grpc_host, found.metrics_host) == ("::1", "::1", "127.0.0.1")


def test_switches_and_lists_of_the_environment() -> None:
    environ = {
        "HEADRACE_ALLOW_CLIENT_SHM": "1",
        "HEADRACE_KSERVE_V1_STATUS": "false",
        "HEADRACE_UDS": "/run/a, /run/b",
        "HEADRACE_CORS": "https://example.org,http://[::1]:8080",
        "HEADRACE_MODEL_CONTROL_MODE": "explicit",
        "HEADRACE_LOAD_MODEL": "*",
    }
    found = load({}, environ=environ, usable_cores=1)
    assert (found.allow_client_shm, found.kserve_v1_status) == (True, False)
    assert (found.uds, found.cors) == (("/run/a", "/run/b"), ("https://example.org", "http://[::1]:8080"))
    assert found.load_model == ("*",)
    assert load({"allow_client_shm": False}, environ=environ, usable_cores=1).allow_client_shm is False


def test_misspelt_variables() -> None:
    environ = {"HEADRACE_WORKER": "2", "HEADRACE_HTTP_PORTS": "1", "HEADRACE_SERVICE_HOST": "10.0.0.1", "PATH": "/bin"}
    assert misspelt(environ | {"HEADRACE_WORKERS": "2"}) == [
        ("HEADRACE_HTTP_PORTS", "HEADRACE_HTTP_PORT"),
        ("HEADRACE_WORKER", "HEADRACE_WORKERS"),
    ]
    assert misspelt({"HEADRACE_WORKERS": "2"}) == []
