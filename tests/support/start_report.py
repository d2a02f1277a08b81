"""How far a user server came that does not start: for the message of the test that waits for it."""

from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from hub.state.paths import Paths

if TYPE_CHECKING:
    from tests.support.portal import Portal

# Lines of the hub's log that tell of requests which went well.
_ACCESS = re.compile(r" JupyterHub log:\d+\] [23]\d\d ")
_READING = 2.0  # seconds for the progress: what it says at once is all that was
_END = 3000  # characters of a log


def start_report(portal: Portal, name: str, server: str) -> str:
    """Return a start's phases, the server's own log, and what the hub says beside its requests."""
    suffix = f"-{server}" if server else ""
    logs = {
        "the server's log": Paths(portal.state, portal.envs).server_log(name, server),
        "the job's log": Path(f"/home/{name}/.labhub-server{suffix}.log"),
    }
    parts = {"its start": "\n".join(_phases(portal, name, server))}
    for title, path in logs.items():
        if path.exists():
            parts[title] = path.read_text(errors="replace")[-_END:]
    lines = [one for one in portal.hub_log().splitlines() if not _ACCESS.search(one)]
    parts["the hub's log"] = "\n".join(lines)[-_END:]
    return "\n".join(f"--- {title}\n{text or '(empty)'}" for title, text in parts.items())


def _phases(portal: Portal, name: str, server: str) -> list[str]:
    """Return what the page of a server that starts has been told up to now."""
    path = f"/users/{name}/servers/{server}" if server else f"/users/{name}/server"
    headers = {"Authorization": f"token {portal.admin_token}"}
    url = f"{portal.url}/hub/api{path}/progress"
    lines: list[str] = []
    end = time.monotonic() + _READING
    with (
        contextlib.suppress(httpx.HTTPError),
        portal.http.stream("GET", url, headers=headers, timeout=_READING) as stream,
    ):
        for line in stream.iter_lines():
            if line.startswith("data:"):
                lines.append(line.removeprefix("data:").strip()[:_END])
            if time.monotonic() > end:
                break
    return lines
