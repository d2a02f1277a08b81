"""The lines of the audit log, and those that the command line writes; see `hub.portal.audit`."""

from __future__ import annotations

import getpass
import json
import os
import time

from hub.state.paths import Paths


def entry(
    what: str, *, who: str, kind: str, target: str, status: int | None = None, source: str = ""
) -> str:
    """Return one line of the audit log.

    Parameters
    ----------
    what : str
        What was done, in words.
    who, kind : str
        Who did it, and as what.
    target : str
        To whom or what.
    status : int, optional
        The HTTP status that it ended with.
    source : str
        The address that it came from.
    """
    now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    fields = {"time": now, "who": who, "as": kind, "action": what, "target": target[:200]}
    if status is not None:
        fields |= {"status": str(status), "from": source}
    return json.dumps(fields)


def record(paths: Paths, what: str, target: str) -> None:
    """Note what an administrator has done by the command line.

    Parameters
    ----------
    paths : Paths
        Where the portal keeps its state.
    what : str
        What was done, in words.
    target : str
        To whom or what.
    """
    login = os.environ.get("SUDO_USER") or getpass.getuser()
    line = entry(what, who=login, kind="command line", target=target) + "\n"
    paths.log.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(paths.audit_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(handle, line.encode())
    finally:
        os.close(handle)
