"""Which addresses the banner shows, and under which names."""

from __future__ import annotations

import pytest

from server.config import ServeConfig
from server.option_values import OFF, SAME
from server.supervisor.announce import addresses, exposure
from server.supervisor.banner import Address

HOST = "127.0.0.1"


@pytest.mark.parametrize(
    ("config", "ports", "expected"),
    [
        (
            ServeConfig(),
            {"http": 1, "grpc": 2, "metrics": 3},
            [Address("http", HOST, 1), Address("grpc", HOST, 2), Address("metrics", HOST, 3)],
        ),
        # One port: it has all three names.
        (
            ServeConfig(metrics_port=SAME),
            {"http": 1},
            [Address("http", HOST, 1), Address("grpc", HOST, 1), Address("metrics", HOST, 1)],
        ),
        (
            ServeConfig(grpc_host="::1", metrics_host="::", host="0.0.0.0"),
            {"http": 1, "grpc": 2, "tfs_grpc": 4, "metrics": 3},
            [
                Address("http", "0.0.0.0", 1),
                Address("grpc", "::1", 2),
                Address("tfs-grpc", "::1", 4),
                Address("metrics", "::", 3),
            ],
        ),
        # No HTTP port: the first there is speaks HTTP.
        (
            ServeConfig(http_port=OFF, metrics_port=OFF, grpc_host="::1"),
            {"grpc": 2},
            [Address("http", "::1", 2), Address("grpc", "::1", 2)],
        ),
        (
            ServeConfig(http_port=OFF, metrics_port=SAME),
            {"uds:/run/a": 0, "uds:/run/b": 0},
            [Address("http", path="/run/a"), Address("uds:/run/b", path="/run/b")],
        ),
    ],
)
def test_addresses(config: ServeConfig, ports: dict[str, int], expected: list[Address]) -> None:
    assert list(addresses(config, ports)) == expected


@pytest.mark.parametrize(
    ("config", "names"),
    [
        (ServeConfig(), None),
        (ServeConfig(host="::1", grpc_host="::1", metrics_host="::1"), None),
        (ServeConfig(host="0.0.0.0", grpc_host="0.0.0.0", metrics_host="0.0.0.0"), "http, grpc, metrics"),
        (ServeConfig(metrics_host="::"), "metrics"),
    ],
)
def test_what_other_hosts_can_reach_is_said(config: ServeConfig, names: str | None) -> None:
    notes = exposure(addresses(config, {"http": 1, "grpc": 2, "metrics": 3, "uds:/run/a": 0}))
    assert notes == ((f"{names}: on every interface of this host, without TLS or authentication",) if names else ())
