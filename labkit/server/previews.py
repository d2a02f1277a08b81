"""Shiny apps of a person's own, run for a look: an R process each, on a Unix socket.

A port of 127.0.0.1 would be open to everybody on a machine without walls between its people
(a cluster's node); the socket lies in a folder of the person's alone (0700).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import shutil
import signal
import tempfile
from asyncio.subprocess import Process
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

from labkit.base.remove import remove_tree
from labkit.base.units import format_duration

SCRIPT = Path(__file__).parent / "data" / "r" / "preview.R"
APPS = ("app.r", "server.r")  # what R looks for, in small letters
_MOST = 4  # an R process each, of 150 MB and more
_REMEMBERED = 20
_START = 120.0  # seconds; an app may load its data first
_KNOCK = 0.1
_TIMEOUT = 5.0
_TAIL = 8000  # bytes of what the app says
_LONGEST = 70  # bytes of the folder for temporary files: a socket's path has 107 at most
# The app needs nothing of the server's own: its tokens are among these.
_NOT_FOR_APPS = ("JUPYTER", "JPY_")
_NO_PACKAGE = re.compile(r"there is no package called .{1,8}?([A-Za-z][A-Za-z0-9.]*)")


class TooManyError(RuntimeError):
    """No more previews may run."""


def program() -> str:
    """Return R's program for scripts; empty where R is not installed."""
    return shutil.which("Rscript") or ""


def app_at(path: Path) -> Path | None:
    """Return what R can run as an app at a path: a folder, or one ``.R`` file; None: nothing."""
    if path.is_file():
        if path.name.lower() in APPS:
            return path.parent
        return path if path.suffix.lower() == ".r" else None
    with contextlib.suppress(OSError):  # no folder, or not to be read
        if any(name.lower() in APPS for name in os.listdir(path)):  # noqa: PTH208 - names alone
            return path
    return None


@dataclass
class Preview:
    """One app that was started.

    Attributes
    ----------
    name : str
        What its address ends with.
    app : Path
        Its folder or file.
    socket : Path
        Where it listens.
    state : str
        ``starting``, ``running``, ``failed`` (it never listened) or ``ended``.
    said : bytes
        The end of what it wrote.
    """

    name: str
    app: Path
    socket: Path
    state: str = "starting"
    said: bytes = b""
    process: Process | None = field(default=None, repr=False)

    @property
    def log(self) -> str:
        """The last lines of what the app wrote."""
        return self.said.decode("utf-8", "replace").strip()

    @property
    def advice(self) -> str:
        """What to do where it has failed."""
        missing = _NO_PACKAGE.search(self.log)
        if missing:
            return f'In R: install.packages("{missing[1]}")'
        return "Mend what R complains of, then open it again."


class Previews:
    """Runs the previews of one server and remembers the last ones."""

    def __init__(self) -> None:
        self._previews: OrderedDict[str, Preview] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    def all(self) -> list[Preview]:
        """Return them, the oldest first."""
        return list(self._previews.values())

    def get(self, name: str) -> Preview | None:
        """Return a preview by its name."""
        return self._previews.get(name)

    def begin(self, app: Path) -> Preview:
        """Start an app; one that runs already is returned as it is.

        Parameters
        ----------
        app : Path
            Its folder or file (`app_at`).

        Raises
        ------
        TooManyError
            As many run as may.
        """
        live = [one for one in self._previews.values() if one.state in ("starting", "running")]
        for preview in live:
            if preview.app == app:
                return preview
        if len(live) >= _MOST:
            raise TooManyError(f"{_MOST} previews run already: stop one of them first")
        preview = Preview(secrets.token_hex(8), app, _folder() / "s")
        self._previews[preview.name] = preview
        for old in [one for one in self._previews.values() if one not in (*live, preview)]:
            if len(self._previews) > _REMEMBERED:
                del self._previews[old.name]
        task = asyncio.ensure_future(self._run(preview))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return preview

    async def stop(self, preview: Preview) -> None:
        """End an app, with the processes that it has started."""
        while preview.process is None and preview.state == "starting":
            await asyncio.sleep(_KNOCK)
        process = preview.process
        for number in (signal.SIGTERM, signal.SIGKILL):
            if process is None or process.returncode is not None:
                return
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), _TIMEOUT)

    async def close(self) -> None:
        """End all of them."""
        await asyncio.gather(*map(self.stop, self._previews.values()))
        if self._tasks:  # what left the process' group may hold its output open
            await asyncio.wait(self._tasks, timeout=_TIMEOUT)

    async def _run(self, preview: Preview) -> None:
        try:
            preview.process = await asyncio.create_subprocess_exec(
                *(program(), SCRIPT, preview.app, preview.socket),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env={k: v for k, v in os.environ.items() if not k.startswith(_NOT_FOR_APPS)},
                start_new_session=True,
            )
            listens = asyncio.ensure_future(self._wait_until_it_listens(preview))
            await self._listen_to(preview, preview.process)
            await preview.process.wait()
            listens.cancel()
        except OSError as error:
            preview.said += str(error).encode()
        finally:
            try:
                await asyncio.to_thread(remove_tree, preview.socket.parent)
            finally:  # last: who sees that it is over finds nothing left of it
                preview.state = "ended" if preview.state == "running" else "failed"

    async def _listen_to(self, preview: Preview, process: Process) -> None:
        assert process.stdout is not None  # noqa: S101 - asked for
        while chunk := await process.stdout.read(4096):
            preview.said = (preview.said + chunk)[-_TAIL:]

    async def _wait_until_it_listens(self, preview: Preview) -> None:
        try:
            async with asyncio.timeout(_START):
                while not await _listens(preview.socket):
                    await asyncio.sleep(_KNOCK)
        except TimeoutError:
            preview.said += (
                f"\nIt did not begin to listen within {format_duration(_START)}.".encode()
            )
            await self.stop(preview)
        else:
            preview.state = "running"


def _folder() -> Path:
    """Make a folder of this person's alone, with a path that is short enough for a socket."""
    base = tempfile.gettempdir()
    if len(os.fsencode(base)) > _LONGEST:
        base = "/tmp"  # noqa: S108 - mkdtemp makes a folder of its own there, 0700
    return Path(tempfile.mkdtemp(prefix="labkit-shiny-", dir=base))


async def _listens(socket: Path) -> bool:
    try:
        _, writer = await asyncio.open_unix_connection(socket)
    except OSError:
        return False
    writer.close()
    return True
