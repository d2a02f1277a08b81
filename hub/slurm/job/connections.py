"""Who may connect to a user server in its job, and what is handed on to it.

Part of the job script, as `hub.slurm.job.node`.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import struct
import threading
import time

from hub.slurm.job.node import LaunchError, say

BLOCK = 1 << 18
CONNECTIONS = 1024  # at once


def take(first: int, last: int, offset: int, host: str = "") -> socket.socket:
    """Take a free port of a range; two jobs of one node begin at different ones."""
    count = last - first + 1
    for number in range(count):
        taken = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        # Without SO_REUSEADDR nobody else can be on the port.
        try:
            taken.bind((host, first + (offset + number) % count))
        except OSError:
            taken.close()
            continue
        return taken
    raise LaunchError(f"no port from {first} to {last} is free on this node")


class Guard:
    """Tells the hub's connections from others.

    An address alone says nothing of who is behind it on the same machine, so of a connection
    from there the account is looked up, too.
    """

    def __init__(self, addresses: list[str], accounts: list[int]) -> None:
        self.addresses = {ipaddress.ip_address(text) for text in addresses}
        self.accounts = set(accounts)
        # Opened here, it goes on to show the node's connections from inside a namespace.
        self._table = open("/proc/net/tcp", "rb", buffering=0)  # noqa: SIM115, PTH123
        self._lock = threading.Lock()

    def admits(self, peer: tuple[str, int], here: tuple[str, int]) -> bool:
        """Whether a connection comes from the hub's host and, if that is here, its account."""
        if ipaddress.ip_address(peer[0]) not in self.addresses:
            return False
        account = self._account(_hexadecimal(peer), _hexadecimal(here))
        return account is None or account in self.accounts

    def is_mine(self, port: int) -> bool:
        """Whether it is my own process that listens on a port of 127.0.0.1."""
        return self._account(_hexadecimal(("127.0.0.1", port)), "00000000:0000") == os.getuid()

    def _account(self, near: str, far: str) -> int | None:
        """Return whose a socket of this machine is; None: there is none such."""
        with self._lock:
            self._table.seek(0)
            text = b""
            while block := self._table.read(BLOCK):
                text += block
        for line in text.decode().splitlines():
            fields = line.split()
            if fields[1:3] == [near, far]:
                return int(fields[7])
        return None


def _hexadecimal(place: tuple[str, int]) -> str:
    """Write an address as /proc/net/tcp does."""
    number = struct.unpack("=I", socket.inet_aton(place[0]))[0]
    return f"{number:08X}:{place[1]:04X}"


def relay(listener: socket.socket, inside: int, guard: Guard, alone: bool) -> None:
    """Hand connections of the hub on to the server, as long as this process lives."""
    slots = threading.BoundedSemaphore(CONNECTIONS)
    while True:
        try:
            connection, peer = listener.accept()
        except OSError:
            time.sleep(0.1)  # too many open files: some will be closed
            continue
        if not slots.acquire(blocking=False):
            connection.close()
            continue
        threading.Thread(
            target=_serve, args=(connection, peer, inside, guard, alone, slots), daemon=True
        ).start()


def _serve(
    connection: socket.socket,
    peer: tuple[str, int],
    inside: int,
    guard: Guard,
    alone: bool,
    slots: threading.BoundedSemaphore,
) -> None:
    try:
        with connection, contextlib.suppress(OSError):
            if not guard.admits(peer, connection.getsockname()):
                say(f"a connection from {peer[0]}, which is not the hub, was closed")
                return
            # Somebody else may have been quicker to take the server's port.
            if not alone and not guard.is_mine(inside):
                return
            with socket.create_connection(("127.0.0.1", inside)) as server:
                for end in (connection, server):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                back = threading.Thread(target=_copy, args=(server, connection), daemon=True)
                back.start()
                _copy(connection, server)
                back.join()
    finally:
        slots.release()


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Copy until the source ends, then say so to the target."""
    buffer = memoryview(bytearray(BLOCK))
    try:
        while count := source.recv_into(buffer):
            target.sendall(buffer[:count])
        target.shutdown(socket.SHUT_WR)
    except OSError:
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
