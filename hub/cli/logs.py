"""``labhub logs``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from urllib.parse import quote

import click

from hub.state.paths import Paths

PROGRAMS = ("hub", "proxy", "gate", "culler", "supervisor", "audit")


@click.command()
@click.argument("what", default="hub")
@click.option("-f", "--follow", is_flag=True, help="Go on as lines are written, until Ctrl-C.")
@click.option("-n", "--lines", default=50, show_default=True, help="How many of the last lines.")
def logs(what: str, follow: bool, lines: int) -> None:
    """Show the log of a program or of a person's server.

    WHAT is hub, proxy, gate, culler, supervisor, audit (who changed what), app-NAME (an app
    behind the login),
    build-NAME (an environment's last build), a user's name, or USER/SERVER for a named server.

    \b
    Examples:
      labhub logs -f            the hub's
      labhub logs ada -n 200    of ada's server
    """  # noqa: D301
    paths = Paths.from_environment()
    file = log_file(paths, what)
    if not file.is_file():
        known = sorted(p.stem for p in paths.log.glob("*.log"))
        servers = sorted(p.stem.replace("+", "/") for p in (paths.log / "servers").glob("*.log"))
        names = ", ".join([*known, *servers]) or "none: the portal has not run yet"
        raise click.ClickException(f"there is no log {file}. There are: {names}")
    sys.stdout.flush()
    # tail -F goes on with the new file after the log was rotated.
    words = ["tail", f"--lines={max(lines, 0)}", *(["-F"] if follow else []), "--", str(file)]
    os.execvp(words[0], words)  # noqa: S606 - an argument list


def log_file(paths: Paths, what: str) -> Path:
    """Return where a log is; every name is quoted, so that none leads out of the folder."""
    if what in PROGRAMS or what.startswith(("build-", "app-")):
        return paths.log / f"{quote(what, safe='')}.log"
    user, _, server = what.partition("/")
    file = paths.server_log(user, server)
    # A server that an earlier version has started still writes here.
    earlier = paths.log / "servers" / f"{quote(f'{user}--{server}', safe='')}.log"
    return earlier if server and not file.exists() and earlier.exists() else file
