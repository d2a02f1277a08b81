"""CellxGene as a process that outlives the kernel: start it, find it again, wait, stop it."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import secrets
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from labkit.base import cgroups, files
from labkit.base.ports import BLOCKED
from labkit.base.units import format_duration
from labkit.viewers import paths, sockets
from labkit.viewers.cellxgene.errors import CellxGeneError, PortTakenError, StartFailedError
from labkit.viewers.cellxgene.failures import explain, port_taken

_LOCK_TIMEOUT = 120.0  # seconds: another kernel starts its viewer

Progress = Callable[[str], None]

# What its page asks for first, below /api/v0.2/.
FIRST = ("schema", "config", "colors", "layout/obs")
_HOST = "127.0.0.1"
_PORTS_TRIED = 100
_SERVE = Path(__file__).with_name("serve.py")
# What the viewer inherits; everything else (hub token, PYTHONPATH, proxies) stays out of it.
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "OMP_NUM_THREADS", "USER")


@dataclass(frozen=True)
class Record:
    """A viewer that was started, as its state file tells.

    Attributes
    ----------
    pid, created : int, float
        The process and its time of creation (seconds since 1970): together they name it.
    port : int
        On 127.0.0.1, or the number of the socket in its place (`labkit.viewers.sockets`).
    key : str
        Identity of the data shown and how.
    lineage : str
        Identity of what stays when the data is worked on: where it is, its title, its cells.
    title : str
        Name of the data.
    shape : tuple of int
        Cells x genes.
    served : str
        The file that CellxGene reads.
    labels : str
        Folder of the user's labels; empty where they are switched off.
    memory : int
        Bytes it was expected to need.
    changes, notes : list
        What was changed for it: [where, what] pairs; and what is worth knowing.
    """

    pid: int
    created: float
    port: int
    key: str
    lineage: str
    title: str
    shape: tuple[int, int]
    served: str
    labels: str
    memory: int
    changes: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def log(self) -> Path:
        """The log of the process."""
        return _folder() / f"{self.port}.log"

    @property
    def process(self) -> psutil.Process | None:
        """The process, or None once it has ended."""
        try:
            process = psutil.Process(self.pid)
            if process.create_time() != self.created or process.status() == "zombie":
                return None
        except psutil.NoSuchProcess:
            return None
        return process


def _folder() -> Path:
    """State of this machine: homes are shared by machines and by servers with own process ids."""
    space = Path("/proc/self/ns/pid").stat().st_ino
    return paths.private_folder(paths.state_folder("cellxgene") / f"{socket.gethostname()}-{space}")


@contextmanager
def _lock() -> Iterator[None]:
    """Let one kernel at a time choose a port and write down what it started."""
    with files.locked(_folder() / "lock", _LOCK_TIMEOUT, "the list of viewers"):
        yield


def running() -> list[Record]:
    """Return the viewers of this user that run on this machine, by port."""
    records = []
    for path in sorted(_folder().glob("*.json")):
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            record = Record(**{**fields, "shape": tuple(fields["shape"])})
        except (OSError, ValueError, TypeError, KeyError):
            continue  # removed meanwhile, or written by another version of labkit
        if record.process is None:
            path.unlink(missing_ok=True)
        else:
            records.append(record)
    return sorted(records, key=lambda record: record.port)


def find(key: str) -> Record | None:
    """Return the running viewer of that data, if there is one."""
    return next((record for record in running() if record.key == key), None)


def start(
    *,
    port: int,
    python: Path,
    config: Callable[[int], dict[str, Any]],
    record: Callable[[int, float, int], Record],
    cookie_path: Callable[[int], str],
    lost: Collection[int] = (),
) -> Record:
    """Start CellxGene on the port, or on the next free one, and return at once.

    Parameters
    ----------
    port : int
        The port asked for.
    python : Path
        Python of CellxGene's environment.
    config : callable
        Makes CellxGene's configuration for a port.
    record : callable
        Makes the record from process id, time of creation and port.
    cookie_path : callable
        Makes the path that CellxGene's cookie is bound to, for a port.
    lost : collection of int
        Ports that other programs took from earlier starts.

    Returns
    -------
    Record
        What was started. It may find its port taken: `wait_until_ready`.

    Raises
    ------
    CellxGeneError
        There is no free port.
    StartFailedError
        The process could not be started.
    """
    with _lock():
        # Between its start and its listening a viewer's port still looks free.
        reserved = {one.port for one in running()} | set(lost)
        chosen = _free_port(port, reserved)
        folder = _folder()
        settings = config(chosen)
        settings["server"]["app"]["flask_secret_key"] = secrets.token_hex(32)
        path = folder / f"{chosen}.config"
        # JSON is YAML, which is what CellxGene reads.
        paths.write_private(path, json.dumps(settings, ensure_ascii=False))
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        environment |= {
            "LABKIT_COOKIE_PATH": cookie_path(chosen),
            "NUMBA_CACHE_DIR": str(paths.private_folder(paths.cache_folder("cellxgene") / "numba")),
        }
        try:
            done = subprocess.run(
                [
                    python,
                    "-I",
                    "-W",
                    "ignore::FutureWarning",
                    _SERVE,
                    path,
                    folder / f"{chosen}.log",
                ],
                env=environment,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=60,
                check=True,
            )
        except (subprocess.SubprocessError, OSError) as error:
            said = getattr(error, "stderr", "") or ""
            raise StartFailedError(f"CellxGene could not be started: {error}\n{said}") from error
        pid = int(done.stdout)
        try:
            created = psutil.Process(pid).create_time()
        except psutil.NoSuchProcess:
            created = 0.0  # dead already: wait_until_ready tells why
        started = record(pid, created, chosen)
        paths.write_private(folder / f"{chosen}.json", json.dumps(asdict(started)))
        return started


def _free_port(first: int, reserved: set[int]) -> int:
    last = min(first + _PORTS_TRIED, 65536)
    for port in range(first, last):
        if port not in reserved | BLOCKED and is_free(port):
            return port
    raise CellxGeneError(
        f"All ports from {first} to {last - 1} are busy.\n"
        "Next step: stop viewers you no longer need (`labkit.cellxgene.stop_all()`), or choose "
        "another port: `labkit.cellxgene(data, port=6005)`."
    )


def is_free(port: int) -> bool:
    """Return whether nothing listens on the port of 127.0.0.1, or on the socket in its place."""
    path = sockets.of_port(port)
    if path is not None and sockets.answers(path):
        return False
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
    return True


def host(port: int) -> str:
    """Return where CellxGene listens, as its configuration names it."""
    path = sockets.of_port(port)
    return _HOST if path is None else f"unix://{path}"


class _PortConnection(http.client.HTTPConnection):
    """To a port of this machine, and never to itself.

    Where nobody listens yet on a port that the kernel gives to clients, it may give that very port
    to our own end: such a connection reads what it has written, and holds the port.
    """

    def connect(self) -> None:
        super().connect()
        if self.sock.getsockname() == self.sock.getpeername():
            # at once: else the port stays taken for a minute
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close()
            raise ConnectionRefusedError(f"nobody listens on port {self.port}")


class _SocketConnection(http.client.HTTPConnection):
    """To a Unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def ask(port: int, path: str, timeout: float = 30) -> tuple[int, bytes]:
    """Ask CellxGene on that port; return status and body. Never through a web proxy."""
    place = sockets.of_port(port)
    connection = (
        _PortConnection(_HOST, port, timeout=timeout)
        if place is None
        else _SocketConnection(place, timeout)
    )
    try:
        connection.request("GET", path, headers={"Accept": "*/*", "Accept-Encoding": "gzip"})
        answer = connection.getresponse()
        body = answer.read()
        if answer.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        return answer.status, body
    finally:
        connection.close()


def wait_until_ready(record: Record, timeout: float, progress: Progress) -> None:
    """Wait until CellxGene really answers with data.

    Raises
    ------
    PortTakenError
        Another program took its port.
    StartFailedError
        Where it dies, answers with errors, or does not answer in time; with the cause and the
        end of its log. The process is then stopped.
    """
    began = time.monotonic()
    killed_before = cgroups.own_oom_kills()
    reported = 0
    while True:
        if record.process is None:
            raise _failed(record, "CellxGene ended while it was starting", killed_before)
        try:
            status, _ = ask(record.port, "/health", timeout=5)
        except (OSError, http.client.HTTPException):
            status = 0
        if status == 200:
            break
        waited = time.monotonic() - began
        if waited > timeout:
            raise _failed(
                record, f"CellxGene did not answer within {format_duration(timeout)}", killed_before
            )
        if int(waited) >= reported + 3:
            reported = int(waited)
            progress(f"CellxGene is loading the data … {reported} s")
        time.sleep(0.1)
    # It may answer and still fail on the data: ask for what its page asks for first.
    for path in FIRST:
        try:
            status, _ = ask(record.port, f"/api/v0.2/{path}", timeout=max(30, timeout))
        except (OSError, http.client.HTTPException) as error:
            raise _failed(
                record, f"CellxGene broke off at '{path}' ({error})", killed_before
            ) from error
        if status != 200:
            raise _failed(record, f"CellxGene answered {status} to '{path}'", killed_before)


def _failed(record: Record, what: str, killed_before: int) -> StartFailedError:
    ended = record.process is None
    killed = cgroups.own_oom_kills() > killed_before
    stop(record)
    tail = log_tail(record)
    kind = PortTakenError if ended and port_taken(tail) else StartFailedError
    return kind(
        f"{what}.\nCause: {explain(tail, ended=ended, killed=killed)}\n"
        f"End of its log ({record.log}):\n{tail or '  (empty)'}"
    )


def log_tail(record: Record, lines: int = 20) -> str:
    """Return the last lines of a viewer's log."""
    return files.tail(record.log, lines)


def stop(record: Record, patience: float = 5) -> bool:
    """Stop a viewer and forget it; return whether it ran."""
    ran = record.process is not None
    for number in (signal.SIGTERM, signal.SIGKILL):
        process = record.process
        if process is None:
            break
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)
        deadline = time.monotonic() + patience
        # Its threads may hold the port a moment longer than the process is there.
        while (record.process or not is_free(record.port)) and time.monotonic() < deadline:
            time.sleep(0.02)
    folder = _folder()
    with _lock():
        state = folder / f"{record.port}.json"
        # The port may belong to a newer viewer by now.
        if state.exists() and json.loads(state.read_text())["pid"] == record.pid:
            state.unlink()
            (folder / f"{record.port}.config").unlink(missing_ok=True)
    return ran
