"""``labhub status``."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from hub.cli.common import json_option, print_json, print_problems, read_settings
from hub.state.paths import Paths
from labkit.base.problems import ProblemsError
from labkit.base.units import format_duration

if TYPE_CHECKING:
    from hub.portal.control import UserServer


@click.command()
@json_option
def status(as_json: bool) -> None:
    """Show what runs: the portal's programs and the user servers.

    Exits with 0 where all of the portal runs and answers, else with 1.

    \b
    Example:
      labhub status --json | jq .programs
    """  # noqa: D301
    from hub.portal.control import user_servers
    from hub.runtime import ready
    from hub.runtime.supervise import programs
    from hub.supervisor.client import Supervisor

    paths = Paths.from_environment()
    states = Supervisor(paths).info()
    settings = read_settings(paths) if paths.lab_file.exists() else None
    now = time.time()
    rows: dict[str, Any] = {}
    for name in programs(settings) if settings else ("proxy", "hub"):
        program = states.get(name)
        rows[name] = {
            "state": program.state.lower() if program else "stopped",
            "pid": program.pid if program and program.pid else None,
            "since_seconds": int(now - program.since) if program and program.since else None,
        }
    answers = ready.answers(settings) if settings and states else False
    servers: list[UserServer] | None = None
    try:
        servers = user_servers(paths)
    except ProblemsError as error:  # the programs are shown all the same
        print_problems(error.problems)
    well = (
        answers and servers is not None and all(row["state"] == "running" for row in rows.values())
    )
    if as_json:
        print_json(
            {
                "ok": well,
                "url": settings.url if settings else None,
                "answers": answers,
                "state": str(paths.state),
                "programs": rows,
                "servers": None if servers is None else [asdict(one) for one in servers],
            }
        )
        sys.exit(not well)
    for name, row in rows.items():
        state = click.style(
            f"{row['state']:<9}", fg="green" if row["state"] == "running" else "red"
        )
        seconds = row["since_seconds"]
        since = f"for {format_duration(int(seconds))}" if seconds is not None else ""
        pid = f"pid {row['pid']}" if row["pid"] else ""
        click.echo(f"  {name:<8}{state} {since:<19} {pid}".rstrip())
    if settings and states:
        click.echo(f"\n  {settings.url} {'answers' if answers else 'does not answer'}")
    elif not states:
        click.echo("\n  The portal is down; start it with: labhub up")
    click.echo(f"  User servers: {_listed(servers)}")
    sys.exit(not well)


def _listed(servers: list[UserServer] | None) -> str:
    if servers is None:
        return "not known"
    names = ", ".join(str(server) for server in servers[:10])
    more = f" and {len(servers) - 10} more" if len(servers) > 10 else ""
    return f"{len(servers)}{f' ({names}{more})' if servers else ''}"
