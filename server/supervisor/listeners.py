"""Listening sockets: one per worker and port, bound with SO_REUSEPORT and kept open by the supervisor for life.

Unix-domain sockets cannot be shared that way: the workers have one together.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from server.config import BY_NAME, ServeConfig
from server.errors import ConfigurationError
from server.option_values import OFF, SAME
from server.supervisor.unix_listener import open_unix_listeners

BACKLOG = 4096


class ListenError(ConfigurationError):
    """A port cannot be had; the text names who holds it and what to do."""


def open_listeners(host: str, port: int, count: int, *, flag: str) -> list[socket.socket]:
    """`count` listening TCP sockets on one address; port 0 takes a free one, the same for all. Raises ListenError."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except socket.gaierror as error:
        raise ListenError(
            f"cannot resolve the address {host!r}: {error.strerror}; give an IP address of this host", key="--host"
        ) from None
    # Without SO_REUSEPORT first: with it, the kernel would let a second server share the port in silence.
    try:
        with _socket(family, reuse_port=False) as probe:
            probe.bind(address)
            address = (address[0], probe.getsockname()[1], *address[2:])
    except OSError as error:
        raise ListenError(_refused(error, host, port, flag), key=flag) from None
    listeners: list[socket.socket] = []
    try:
        for _ in range(count):
            listener = _socket(family, reuse_port=True)
            listeners.append(listener)
            listener.bind(address)
            listener.listen(BACKLOG)
    except OSError as error:
        for listener in listeners:
            listener.close()
        raise ListenError(_refused(error, host, port, flag), key=flag) from None
    return listeners


#: What a port is for, its settings in config, and the host's; the first that is open is the one that is shown first.
_PORTS = (
    ("http", "http_port", "host"),
    ("grpc", "grpc_port", "grpc_host"),
    ("rest_api", "rest_api_port", "host"),
    ("tfs_grpc", "tfs_grpc_port", "grpc_host"),
)


def open_all_listeners(config: ServeConfig) -> dict[str, list[socket.socket]]:
    """The listeners, one for each worker, by what they are for: "http", "grpc", "rest_api", "tfs_grpc", "metrics" and
    "uds:PATH", each if it is to be opened and no port of the same number is open already. All but "metrics" speak
    everything. Raises ConfigurationError (ListenError for a port); nothing stays open then.
    """
    listeners: dict[str, list[socket.socket]] = {}
    taken = set()
    try:
        for name, setting, host_setting in _PORTS:
            port, host = getattr(config, setting), getattr(config, host_setting) or config.host
            if port == OFF or (port == 0 and name != "http") or (host, port) in taken:
                continue
            taken.add((host, port))
            listeners[name] = open_listeners(host, port, config.workers, flag=_flag(config, setting))
        if config.metrics_port not in (OFF, SAME):
            host = config.metrics_host or config.host
            listeners["metrics"] = open_listeners(host, config.metrics_port, config.workers, flag="--metrics-port")
        for path in dict.fromkeys(config.uds):
            listeners[f"uds:{path}"] = open_unix_listeners(path, config.workers, BACKLOG)
    except ConfigurationError:
        for opened in listeners.values():
            for listener in opened:
                listener.close()
        raise
    return listeners


def bound(listeners: Mapping[str, Sequence[socket.socket]]) -> dict[str, int]:
    """The number of each port; a Unix-domain socket has 0."""
    return {
        name: 0 if sockets[0].family == socket.AF_UNIX else sockets[0].getsockname()[1]
        for name, sockets in listeners.items()
    }


def _flag(config: ServeConfig, setting: str) -> str:
    return "--port" if config.port != OFF and setting == "http_port" else BY_NAME[setting].flag


def _socket(family: int, *, reuse_port: bool) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Inherited by its connections: a client that vanished without a word is noticed within two minutes, whatever it
    # was in the middle of.
    for level, option, value in (
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
    ):
        listener.setsockopt(level, option, value)
    if reuse_port:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    return listener


def _refused(error: OSError, host: str, port: int, flag: str) -> str:
    if error.errno == errno.EADDRINUSE:
        holder = holder_of(port)
        who = f" by {holder}" if holder else ""
        return (
            f"port {port} on {host} is already in use{who}; stop it, choose another port, or {flag} 0 for any free one"
        )
    if error.errno == errno.EACCES:
        return f"port {port} on {host} may not be bound by this user; use a port above 1023"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is not an address of this host; use 127.0.0.1, or 0.0.0.0 for every interface"
    return f"cannot listen on {host}:{port}: {error.strerror}"


def holder_of(port: int) -> str | None:
    """`nginx (pid 123)`: the process that listens on a TCP port, as far as this user may see; else None."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                columns = line.split()
                if columns[3] == "0A" and int(columns[1].rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{columns[9]}]")
    if not inodes:
        return None
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            for fd in (process / "fd").iterdir():
                if os.readlink(fd) in inodes:
                    return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
    return None
