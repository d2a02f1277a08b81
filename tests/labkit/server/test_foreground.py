"""A command in front of a terminal keeps the server; a program that waits for its user does not."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from labkit.server import foreground
from tests.labkit.server.conftest import TOKEN, Server
from tests.support.job_helpers import until


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(env={"LABHUB_CULL_IDLE_SECONDS": "7200", "SHELL": "/bin/bash"}) as running:
        yield running


class Terminal:
    """An open tab with a terminal."""

    def __init__(self, server: Server) -> None:
        import websocket

        with server.client() as client:
            self.name = client.post("api/terminals").json()["name"]
        parts = urlsplit(server.base)
        self.socket = websocket.create_connection(
            f"ws://{parts.netloc}{parts.path}terminals/websocket/{self.name}",
            header=[f"Authorization: token {TOKEN}"],
            socket=socket.create_connection(("127.0.0.1", parts.port), timeout=60),
        )

    def type(self, text: str) -> None:
        self.socket.send(json.dumps(["stdin", text]))


def busy(server: Server) -> list[Any]:
    return [one for one in server.status()["busy"] if one["kind"] == "terminal"]


def named(server: Server, name: str) -> list[psutil.Process]:
    assert server.process is not None
    below = psutil.Process(server.process.pid).children(recursive=True)
    return [one for one in below if one.name() == name]


def test_a_command_keeps_the_server_until_it_ends(server: Server) -> None:
    terminal = Terminal(server)
    assert busy(server) == []
    terminal.type("sleep 300\r")
    until(lambda: busy(server))
    (reason,) = busy(server)
    assert reason["text"] == "sleep 300"
    assert reason["since"] > 0
    assert "stops" in server.status()
    terminal.type("\x03")
    until(lambda: not busy(server))
    terminal.type("less /etc/passwd\r")
    until(lambda: named(server, "less"))
    assert busy(server) == []
    terminal.type("q")
    until(lambda: not named(server, "less"))
    terminal.type("sleep 300 &\r")  # behind the terminal: nobody waits for it
    until(lambda: named(server, "sleep"))
    assert busy(server) == []


@pytest.mark.parametrize(
    ("words", "waits"),
    [
        (["/usr/bin/vim", "notes.txt"], True),
        (["-bash"], True),
        (["bash", "-l"], True),
        (["bash", "align.sh"], False),
        (["/home/ada/.local/share/labkit/python/personal-3.11/bin/python"], True),
        (["python", "-c", "train()"], False),
        (["python", "-m", "train"], False),
        (["bwa-mem2", "mem", "ref.fa"], False),
        ([], False),
    ],
)
def test_what_waits_for_its_user(words: list[str], waits: bool) -> None:
    assert foreground.waits(words) is waits
