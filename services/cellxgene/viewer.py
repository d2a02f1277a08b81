"""One CellxGene process: started on a Unix socket, watched, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import aiohttp
import psutil
from yarl import URL

from labkit.base import cgroups, files
from labkit.base.problems import LabkitError
from labkit.base.remove import remove_tree
from labkit.base.units import format_duration
from labkit.viewers import cellxgene as viewers
from labkit.viewers.cellxgene.failures import explain
from labkit.viewers.cellxgene.process import FIRST
from labkit.viewers.paths import private_folder, write_private
from services.cellxgene.answers import Answer, Key

SERVE = Path(viewers.__file__).with_name("serve.py")
_SOCKET_LENGTH = 100
_INHERITED = ("PATH", "LANG", "LC_ALL", "TMPDIR", "TZ", "OMP_NUM_THREADS")
_TIMEOUT = 5.0
State = Literal["starting", "ready", "failed", "stopped"]


class ViewerError(LabkitError):
    """CellxGene does not show the data; the text says why."""


@dataclass(frozen=True)
class Shown:
    """What a viewer shows.

    Attributes
    ----------
    title : str
        In CellxGene's corner.
    cells, genes : int
        The shape.
    need : int
        Memory it is expected to take, in bytes.
    fetch : callable
        Returns the h5ad file; called in a thread with a function to say how it goes.
    """

    title: str
    cells: int
    genes: int
    need: int
    fetch: Callable[[Callable[[str], None]], Path]


@dataclass
class Viewer:
    """One process, from its start to its end.

    Attributes
    ----------
    key : Key
        Which version of which dataset.
    shown : Shown
        What it shows.
    folder : Path
        Private: configuration, socket and log.
    state, step, error : str
        How it is, what it does, and why it failed.
    """

    key: Key
    shown: Shown
    folder: Path
    state: State = "starting"
    step: str = "Waiting for its turn"
    error: str = ""
    began: float = field(default_factory=time.monotonic)
    used: float = field(default_factory=time.monotonic)
    busy: int = 0
    process: asyncio.subprocess.Process | None = None
    task: asyncio.Task[None] | None = None
    _session: aiohttp.ClientSession | None = None
    _kills_before: int = 0

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self.folder / "socket"

    @property
    def log(self) -> Path:
        """What it says."""
        return self.folder / "log"

    @property
    def alive(self) -> bool:
        """Whether there is a process."""
        return self.process is not None and self.process.returncode is None

    @contextlib.contextmanager
    def using(self) -> Iterator[None]:
        """Count as in use, so that it is not stopped meanwhile."""
        self.busy += 1
        try:
            yield
        finally:
            self.busy -= 1
            self.used = time.monotonic()

    def memory(self) -> int:
        """Return the memory it holds, in bytes."""
        if self.process is None or not self.alive:
            return 0
        with contextlib.suppress(psutil.Error):
            return int(psutil.Process(self.process.pid).memory_info().rss)
        return 0

    @property
    def session(self) -> aiohttp.ClientSession:
        """Connections to its socket."""
        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(str(self.socket), limit=0, force_close=True),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
            )
        return self._session

    @staticmethod
    def url(target: str) -> URL:
        """Return the address of a path, which is encoded already."""
        return URL(f"http://cellxgene/{target}", encoded=True)

    async def ask(self, target: str) -> Answer:
        """Return the answer to a GET, whole.

        Raises
        ------
        aiohttp.ClientError
            It is not there, or broke off.
        """
        headers = {"Accept-Encoding": "gzip"}
        with self.using():
            async with self.session.get(self.url(target), headers=headers) as answer:
                return Answer(
                    status=answer.status,
                    content_type=answer.headers.get("Content-Type", "application/octet-stream"),
                    encoding=answer.headers.get("Content-Encoding", ""),
                    body=await answer.read(),
                )

    async def start(self, python: Path, path: Path, most_compared: int | None) -> None:
        """Start the process; it ends with this one.

        Parameters
        ----------
        python : Path
            Python of CellxGene's environment.
        path : Path
            The h5ad file.
        most_compared : int or None
            Cells that may be compared at once; None sets no limit.
        """
        private_folder(self.folder)
        if len(os.fsencode(self.socket)) > _SOCKET_LENGTH:
            raise ViewerError(f"{self.socket} is too long for a socket: choose a shorter folder.")
        config = {
            "server": {
                "app": {
                    "host": f"unix://{self.socket}",
                    "port": 1,
                    "verbose": True,
                    "open_browser": False,
                    "flask_secret_key": secrets.token_hex(32),
                },
                "single_dataset": {"datapath": str(path), "title": self.shown.title},
                "limits": {"diffexp_cellcount_max": most_compared},
            },
            # Labels are one person's own work: `labkit.cellxgene` is for that.
            "dataset": {"user_annotations": {"enable": False, "gene_sets": {"readonly": True}}},
        }
        write_private(self.folder / "config", json.dumps(config))
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        environment |= {"HOME": str(self.folder), "NUMBA_CACHE_DIR": str(self._numba())}
        words = ["-I", "-W", "ignore::FutureWarning", str(SERVE), str(self.folder / "config")]
        self._kills_before = cgroups.own_oom_kills()
        with self.log.open("wb") as log:
            self.process = await asyncio.create_subprocess_exec(
                str(python),
                *words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                env=environment,
                cwd=self.folder,
                start_new_session=True,
            )

    def _numba(self) -> Path:
        return private_folder(self.folder.parent / "numba")  # compiled once for all

    async def wait_until_it_shows(self, seconds: float) -> None:
        """Wait until CellxGene really answers with data.

        Raises
        ------
        ViewerError
            It ended, answered with errors, or did not answer in time.
        """
        try:
            async with asyncio.timeout(seconds):
                while not await self._healthy():
                    if not self.alive:
                        raise self.failed("CellxGene ended while it was loading the data")
                    await asyncio.sleep(0.05)
                # It may answer and still fail on the data.
                for path in FIRST:
                    answer = await self.ask(f"api/v0.2/{path}")
                    if answer.status != 200:
                        raise self.failed(f"CellxGene answered {answer.status} to '{path}'")
        except TimeoutError:
            raise self.failed(
                f"CellxGene did not answer within {format_duration(seconds)}"
            ) from None
        except aiohttp.ClientError as error:
            raise self.failed(f"CellxGene broke off ({type(error).__name__})") from error

    async def _healthy(self) -> bool:
        if not self.socket.exists():
            return False
        with contextlib.suppress(aiohttp.ClientError):
            return (await self.ask("health")).status == 200
        return False

    def failed(self, what: str) -> ViewerError:
        """Return the error that says what happened and why."""
        killed = cgroups.own_oom_kills() > self._kills_before
        cause = explain(self.tail(), ended=not self.alive, killed=killed)
        return ViewerError(f"{what}: {cause}")

    def tail(self, lines: int = 20) -> str:
        """Return the end of the log."""
        return files.tail(self.log, lines)

    async def stop(self) -> None:
        """End the process and close the connections."""
        if self.state != "failed":
            self.state = "stopped"
        process = self.process
        for number in (signal.SIGTERM, signal.SIGKILL):
            if process is None or process.returncode is not None:
                break
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), _TIMEOUT)
        if self._session is not None:
            await self._session.close()
        await asyncio.to_thread(remove_tree, self.folder)
