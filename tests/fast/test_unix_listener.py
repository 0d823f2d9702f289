"""Sockets in the file system: what is at the path before, who may connect, and what is said when it cannot be."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.errors import ConfigurationError
from server.supervisor import unix_listener
from server.supervisor.unix_listener import open_unix_listeners


@pytest.fixture
def opened() -> Iterator[list[socket.socket]]:
    sockets: list[socket.socket] = []
    yield sockets
    for one in sockets:
        one.close()


def test_all_descriptors_accept_on_one_socket(tmp_path: Path, opened: list[socket.socket]) -> None:
    path = tmp_path / "socket"
    opened += open_unix_listeners(str(path), 3, 16)
    assert stat.S_IMODE(path.lstat().st_mode) == 0o660
    for listener in opened:
        assert listener.getsockname() == str(path) and not listener.get_inheritable()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"x")
            accepted, _ = listener.accept()
            with accepted:
                assert accepted.recv(1) == b"x"
        listener.close()


def test_a_path_left_behind_is_replaced(tmp_path: Path, opened: list[socket.socket]) -> None:
    path = str(tmp_path / "socket")
    for dead in open_unix_listeners(path, 1, 16):
        dead.close()
    opened += open_unix_listeners(path, 1, 16)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)


def test_a_path_that_somebody_listens_on_is_not(tmp_path: Path, opened: list[socket.socket]) -> None:
    path = str(tmp_path / "socket")
    opened += open_unix_listeners(path, 1, 1)
    waiting = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) for _ in range(4)]
    opened += waiting
    for full in (False, True):
        with pytest.raises(ConfigurationError, match=f"--uds: another server listens on {path}; stop it or choose"):
            open_unix_listeners(path, 1, 16)
        if not full:
            assert errno.EAGAIN in [client.connect_ex(path) for client in waiting]


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_anything_else_stays(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "thing"
    if kind == "file":
        path.write_text("precious", encoding="utf-8")
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigurationError, match=f"--uds: {path} exists and is not a socket; remove it or choose"):
        open_unix_listeners(str(path), 1, 16)
    assert path.is_symlink() or path.exists()


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=f"--uds: {tmp_path}/none is not a directory; create it or choose"):
        open_unix_listeners(str(tmp_path / "none" / "socket"), 1, 16)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.EACCES, r"may not be created by this user \(uid \d+\); choose a directory where it may"),
        (errno.EROFS, r"may not be created by this user"),
        (errno.ENAMETOOLONG, "cannot listen on /run/x: File name too long"),
    ],
)
def test_errors_of_the_system(monkeypatch: pytest.MonkeyPatch, code: int, said: str) -> None:
    def fail(path: str) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(unix_listener, "_locked", fail)
    with pytest.raises(ConfigurationError, match=f"--uds: .*{said}"):
        open_unix_listeners("/run/x", 1, 16)
