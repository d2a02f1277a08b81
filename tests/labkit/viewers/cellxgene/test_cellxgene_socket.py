"""CellxGene on a node that people share: on a socket of its owner's, not on a port."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import labkit
from labkit.viewers import sockets
from labkit.viewers.cellxgene import process
from tests.conftest import needs_env, needs_root
from tests.labkit.server.conftest import Server
from tests.labkit.viewers.cellxgene.helpers import Answers

if TYPE_CHECKING:
    import anndata as ad

CONNECT = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
SHARED = {"LABHUB_NETWORK": "shared"}


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABHUB_NETWORK", "shared")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    running = Server(env=SHARED)
    try:
        running.start()
        yield running
    finally:
        running.stop()


@needs_env("cellxgene")
@needs_root
def test_a_viewer_listens_on_a_socket_that_nobody_else_can_enter(
    shared: None, home: Path, port: int, adata: ad.AnnData, server: Server
) -> None:
    card = labkit.cellxgene(adata, port)
    path = sockets.of_port(port)
    assert path is not None
    assert stat.S_ISSOCK(path.stat().st_mode)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    # The address in the browser is as ever.
    with server.client() as client:
        assert client.get(f"proxy/{port}/health").status_code == 200
        assert client.get(f"proxy/{port}/api/v0.2/schema").json()["schema"] == Answers(card).schema
        assert client.get(f"labkit/api/port/{port}").json() == {"listening": True}
    words = [sys.executable, "-c", CONNECT, str(path)]
    assert subprocess.run(words, check=False).returncode == 0  # its owner
    tried = subprocess.run(
        ["/usr/bin/python3", *words[1:]], user=65534, group=65534, capture_output=True, check=False
    )
    assert b"PermissionError" in tried.stderr
    card.stop()
    assert process.is_free(port)
    assert sockets.listening(port) is None


def test_ports_are_used_where_loopback_is_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("", "own"):
        monkeypatch.setenv("LABHUB_NETWORK", value)
        assert sockets.folder() is None
        assert process.host(5005) == "127.0.0.1"


def test_a_port_or_socket_in_use_is_not_free(shared: None, port: int) -> None:
    path = sockets.of_port(port)
    assert path is not None
    assert process.is_free(port)
    with socket.socket(socket.AF_UNIX) as app:
        app.bind(str(path))
        app.listen()
        assert not process.is_free(port)
    assert process.is_free(port)  # what it left is removed
    assert not path.exists()
    with socket.socket() as app:
        app.bind(("127.0.0.1", port))
        app.listen()
        assert not process.is_free(port)


@pytest.mark.parametrize("trap", ["a link", "open to others", "somebody else's"])
def test_a_folder_that_is_a_trap_is_not_used(
    shared: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, trap: str
) -> None:
    uid = 4_000_000_000 - os.getpid()  # nobody's
    place = Path(f"/tmp/labhub-{uid}")
    if trap == "a link":
        place.symlink_to(tmp_path)
    else:
        place.mkdir(mode=0o700)
    try:
        if trap == "open to others":
            place.chmod(0o755)
        if trap != "somebody else's" and os.geteuid() == 0:
            os.chown(place, uid, uid, follow_symlinks=False)
        monkeypatch.setattr(os, "geteuid", lambda: uid)
        with pytest.raises(RuntimeError, match="made by somebody else"):
            sockets.folder()
        assert sockets.listening(5005) is None
    finally:
        place.unlink() if place.is_symlink() else place.rmdir()
