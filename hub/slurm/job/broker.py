"""Run srun, salloc and sattach outside of a server's own network, where nodes can connect to them.

These commands wait for connections from nodes, and nothing connects to a network namespace.
`hub.slurm.job.shim` is laid over each of them, for the server and what it starts alone, and asks
a process that was begun before the namespace was entered. It gives its owner, and nobody else,
no more than `sbatch` does: a command of SLURM's on the node, under the same account.

Part of the job script, as `hub.slurm.job.node`.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import select
import shlex
import shutil
import signal
import socket
import struct
import sys
import tempfile
import termios
import time
from typing import Any

from hub.slurm.job.node import die_with_parent, say

COMMANDS = ("srun", "salloc", "sattach")
FOLDERS = ("/opt/slurm/bin", "/usr/local/slurm/bin", "/usr/local/bin", "/usr/bin", "/bin")
MS_NOSUID, MS_NODEV, MS_BIND = 0x2, 0x4, 0x1000  # linux/mount.h
GRACE = 10.0  # seconds that a command has to end when whoever called it is gone
REQUEST_MOST = 16 << 20  # bytes; the kernel lets arguments and environment be less
BLOCK = 1 << 16
UNUSABLE = "srun and salloc will not work in this server's own network, use sbatch"


class Broker:
    """The process outside; it must begin before the network namespace is entered.

    It ends, and removes its folder, with the process that made it.
    """

    def __init__(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="labhub-srun-")
        self.programs = commands()
        listener = socket.socket(socket.AF_UNIX)
        try:
            listener.bind(f"{self.folder}/broker")
        except OSError:
            shutil.rmtree(self.folder)
            raise
        listener.listen(64)
        alive, self._alive = os.pipe()
        if os.fork() == 0:
            try:
                os.close(self._alive)
                _serve(listener, alive, {name: places[0] for name, places in self.programs.items()})
            finally:
                shutil.rmtree(self.folder, ignore_errors=True)
                os._exit(0)
        listener.close()
        os.close(alive)

    def cover(self, shim: str) -> None:
        """Lay a program over the commands, in this process' own mount namespace.

        The commands themselves are found beside it, for other clusters than the server's.

        Parameters
        ----------
        shim : str
            The text of `hub.slurm.job.shim`.

        Raises
        ------
        OSError
            The node does not let it.
        """
        programs = f"{self.folder}/programs"
        os.mkdir(programs)  # noqa: PTH102 - short
        # In memory: the node's own folders may forbid programs in them, and nothing is left.
        _mount("tmpfs", programs, "tmpfs", MS_NOSUID | MS_NODEV)
        program = f"{programs}/shim.py"
        _create(program, shim)
        for name, places in self.programs.items():
            words = [sys.executable, "-I", "-S", program, f"{self.folder}/broker", name]
            words.append(os.environ.get("SLURM_CONF", ""))
            call = f"{programs}/call-{name}"
            _create(call, f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
            _create(f"{programs}/{name}", "")
            _mount(places[0], f"{programs}/{name}")
            for place in places:
                _mount(call, place)


def commands() -> dict[str, list[str]]:
    """Return where each command is on this node, the one that a shell would take first."""
    found: dict[str, list[str]] = {}
    for folder in [*os.environ.get("PATH", "").split(os.pathsep), *FOLDERS]:
        for name in COMMANDS:
            place = shutil.which(name, path=folder) if folder else None
            real = os.path.realpath(place) if place else ""
            if real and real not in found.setdefault(name, []):
                found[name].append(real)
    return {name: places for name, places in found.items() if places}


def _create(path: str, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o700), "w") as stream:
        stream.write(text)


def _mount(source: str, target: str, kind: str | None = None, flags: int = MS_BIND) -> None:
    mount = ctypes.CDLL(None, use_errno=True).mount
    words = [word if word is None else word.encode() for word in (source, target, kind)]
    if mount(*words, ctypes.c_ulong(flags), None):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


def _serve(listener: socket.socket, alive: int, programs: dict[str, str]) -> None:
    """Give each caller a process of its own, as long as the launcher lives."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel takes up those that ended
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the launcher's end is the end here
    while True:
        readable = select.select([listener.fileno(), alive], [], [])[0]
        if alive in readable:
            return
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            if os.fork() == 0:
                with contextlib.suppress(OSError, ValueError, KeyError):
                    die_with_parent()
                    listener.close()
                    _answer(connection, programs)
                os._exit(0)
            connection.close()


def _answer(connection: socket.socket, programs: dict[str, str]) -> None:
    peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    if struct.unpack("3i", peer)[1] != os.getuid():
        return
    head, files, _, _ = socket.recv_fds(connection, 10, 3)
    size = int(head)
    if len(files) != 3 or not 0 < size <= REQUEST_MOST:
        return
    body = b""
    while len(body) < size:
        block = connection.recv(min(BLOCK, size - len(body)))
        if not block:
            return
        body += block
    request = json.loads(body)
    program = programs[request["argv"][0]]
    waking, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    pid = os.fork()
    if pid == 0:
        _become(program, request, files)
    for file in files:
        os.close(file)
    status = _wait(pid, connection, waking)
    connection.sendall(b"%d" % (128 - status if status < 0 else status))


def _become(program: str, request: dict[str, Any], files: list[int]) -> None:
    """Turn this process into the command."""
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        # Its caller's end is told as a signal; this is for the broker's own.
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG, linux/prctl.h
        os.setsid()
        for target, file in enumerate(files):
            os.dup2(file, target)
            os.close(file)
        with contextlib.suppress(OSError):  # no terminal, or the one of another session
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        os.umask(request["umask"])
        os.chdir(request["folder"])
        os.execve(program, request["argv"], request["env"])  # noqa: S606 - no shell
    except OSError as error:
        os.write(2, f"{os.path.basename(program)}: {error.strerror}: {error.filename}\n".encode())  # noqa: PTH119
    finally:
        os._exit(127)


def _wait(pid: int, connection: socket.socket, waking: int) -> int:
    """Hand signals on to a command until it ends; return its status, negative for a signal."""
    watched: list[int] = [connection.fileno(), waking]
    limit: float | None = None
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        left = None if limit is None else max(0.0, limit - time.monotonic())
        readable = select.select(watched, [], [], left)[0]
        if waking in readable:
            os.read(waking, BLOCK)
        if connection.fileno() in readable:
            numbers = connection.recv(BLOCK)
            if not numbers:  # whoever called it is gone
                watched.remove(connection.fileno())
                limit = time.monotonic() + GRACE
                numbers = bytes([signal.SIGTERM])
            for number in numbers:
                with contextlib.suppress(OSError):
                    os.killpg(pid, number)
        elif limit is not None and time.monotonic() >= limit:
            limit = None
            with contextlib.suppress(OSError):
                os.killpg(pid, signal.SIGKILL)


def begin() -> Broker | None:
    """Begin the process outside; None where the node has none of the commands."""
    if not commands():
        return None
    try:
        return Broker()
    except OSError as error:
        say(f"{UNUSABLE}: {error.strerror or error}")
        return None
