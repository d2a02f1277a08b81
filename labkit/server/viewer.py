"""The page that opens a file of the user's in CellxGene."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import sys
import time
from collections import OrderedDict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from jupyter_server.auth.decorator import authorized
from tornado import web

from labkit.base import cgroups
from labkit.server.file_finder import SECONDS, find_everywhere
from labkit.server.pages import Api, Page

OPENER = "labkit_opener"
_KINDS = (".h5ad", ".zarr")
_REMEMBERED = 20


@dataclass
class Opening:
    """One attempt to open data: what the page shows while it waits."""

    path: str
    steps: list[str] = field(default_factory=list)
    state: str = "working"
    error: str = ""
    kind: str = ""
    port: int | None = None
    changes: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Opener:
    """Runs the attempts, one process each, and remembers the last ones."""

    def __init__(self) -> None:
        self._openings: OrderedDict[str, Opening] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, path: Path, force: bool) -> str:
        """Begin to open data; return the attempt's name. One that works on it is joined."""
        for name, opening in self._openings.items():
            if opening.state == "working" and opening.path == str(path):
                return name
        name = secrets.token_hex(8)
        opening = self._openings[name] = Opening(str(path))
        while len(self._openings) > _REMEMBERED:
            self._openings.popitem(last=False)
        task = asyncio.ensure_future(self._run(opening, force))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return name

    def get(self, name: str) -> Opening | None:
        """Return an attempt by its name."""
        return self._openings.get(name)

    async def _run(self, opening: Opening, force: bool) -> None:
        killed_before = cgroups.own_oom_kills()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "labkit.server.open_viewer",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=1 << 20,
        )
        assert process.stdin is not None  # noqa: S101 - asked for above
        assert process.stdout is not None  # noqa: S101
        process.stdin.write(json.dumps({"path": opening.path, "force": force}).encode())
        process.stdin.close()
        try:
            async for line in process.stdout:
                with contextlib.suppress(ValueError):
                    self._note(opening, json.loads(line))
            status = await process.wait()
        except asyncio.CancelledError:
            process.kill()
            raise
        if opening.state == "working":
            opening.state = "failed"
            opening.error = _why_it_ended(status, cgroups.own_oom_kills() - killed_before)

    @staticmethod
    def _note(opening: Opening, said: dict[str, Any]) -> None:
        if "step" in said:
            opening.steps.append(str(said["step"]))
            del opening.steps[:-50]
        elif "error" in said:
            opening.state, opening.error = "failed", str(said["error"])
            opening.kind = str(said.get("kind", ""))
        elif "port" in said:
            opening.state, opening.port = "ready", int(said["port"])
            opening.changes, opening.notes = said["changes"], said["notes"]


def _why_it_ended(status: int, killed: int) -> str:
    """Return why a process that left no word has ended, as far as it was measured.

    Parameters
    ----------
    status : int
        Its exit status; below zero: the signal.
    killed : int
        Processes of this server that the kernel has killed meanwhile, for want of memory.
    """
    if killed:
        return (
            "The memory of your server ran out, and it was killed. Stop kernels you no longer "
            "need, or take a server with more memory."
        )
    how = f"signal {-status}" if status < 0 else f"status {status}"
    return (
        f"It ended without a word ({how}); no kill for want of memory was counted. Open the data "
        "in a notebook, which shows the whole error: labkit.cellxgene(path)."
    )


class ViewerPage(Page):
    """Choose data and open it."""

    template = "cellxgene.html"


class Files(Api):
    """The data in the user's home."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """Answer with what was found."""
        found, complete = await asyncio.to_thread(
            find_everywhere,
            Path.home(),
            time.monotonic() + SECONDS,
            lambda name: name.endswith(_KINDS),
        )
        self.finish({"files": [asdict(one) for one in found], "complete": complete})


class Openings(Api):
    """Attempts to open data."""

    @web.authenticated
    @authorized
    async def post(self) -> None:
        """Begin one: ``{"path": ..., "force": false}``, the path relative to the home."""
        asked = self.fields()
        place = self.place(asked.get("path"))
        if not place.name.lower().endswith(_KINDS):
            raise web.HTTPError(400, "CellxGene opens .h5ad files and .zarr folders")
        opener: Opener = self.settings[OPENER]
        self.set_status(202)
        self.finish({"id": opener.begin(place, asked.get("force") is True)})


class OneOpening(Api):
    """How an attempt goes."""

    @web.authenticated
    @authorized
    async def get(self, name: str) -> None:
        """Answer with its steps, and how it ended."""
        opener: Opener = self.settings[OPENER]
        opening = opener.get(name)
        if opening is None:
            raise web.HTTPError(404, "This attempt is no longer known")
        self.finish(asdict(opening))


def rules() -> list[tuple[str, type]]:
    """Return the addresses, below the server's base address."""
    return [
        (r"/labkit/cellxgene/?", ViewerPage),
        (r"/labkit/api/cellxgene/files", Files),
        (r"/labkit/api/cellxgene/open", Openings),
        (r"/labkit/api/cellxgene/open/([0-9a-f]{16})", OneOpening),
    ]
