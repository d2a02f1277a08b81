"""``labhub up``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from hub.cli.common import config_option, print_problems, waiting
from hub.environments import build as environments
from hub.labfile import read
from hub.labfile.schema import Settings
from hub.state import create
from hub.state.environments_link import is_here, link_environments
from hub.state.paths import REPOSITORY, Paths
from labkit.base import files
from labkit.base.problems import Problem, ProblemsError


@click.command()
@config_option
def up(config: Path | None) -> None:
    """Start the portal, or put a changed lab file into force.

    Makes what is missing: environments, the first lab file, secrets. Then it starts the
    proxy, the hub and the culler, and waits until the portal answers. What runs and is up
    to date is left alone; user servers are never touched. An interrupted `up` goes on where
    it was.

    \b
    Examples:
      sudo ./labhub up
      ./labhub up --config ~/lab/lab.yaml    keep the lab file in your own git
    """  # noqa: D301
    from hub.runtime import preflight
    from hub.sandbox import shared_folders

    paths = Paths.from_environment()
    first = config or (
        paths.lab_file if paths.lab_file.exists() else REPOSITORY / "config" / "lab.yaml"
    )
    settings = read.read(first)
    follow_lab_file(settings, paths)
    create.make_folders(paths)
    here = preflight.servers_run_here(settings, paths)
    shared_folders.make(settings, on_this_machine=here)
    problems = preflight.problems(settings, paths)
    print_problems(p for p in problems if p.warning)
    if any(not p.warning for p in problems):
        raise ProblemsError([p for p in problems if not p.warning])
    if create.make_lab_file(paths, config):
        click.echo(f"  The lab file is {paths.lab_file}: edit it, then call `up` again.")
    create.make_secrets(paths, settings.secrets.mounted)
    build(preflight.wanted_environments(settings, paths), paths)
    done = _start(settings, paths)
    _greet(settings, paths, fresh="hub" in done)


def follow_lab_file(settings: Settings, paths: Paths) -> None:
    """Keep the environments where the lab file says, for this and every later command."""
    folder = settings.shared_environments
    named = os.environ.get("LABHUB_ENVS")
    if folder is None or not is_here(folder) or (named and Path(named) != folder):
        return  # `preflight` tells of a variable that says something else
    link_environments(paths, folder)
    if paths.envs != folder:
        # The hub's own environment is elsewhere now: begin again with the one that is used.
        os.execv(REPOSITORY / "labhub", ["labhub", *sys.argv[1:]])  # noqa: S606 - no shell


def build(names: list[str], paths: Paths) -> None:
    """Make environments current, showing what is done.

    Raises
    ------
    ProblemsError
        One of them cannot be made, or names what is missing.
    BuildError
        One of them failed.
    """
    missing = [n for n in names if not environments.Environments(paths).is_current(n)]
    for number, name in enumerate(missing, 1):
        with waiting(f"environment {name} ({number} of {len(missing)})") as say:
            environments.Environments(paths, say).build(name)


def _start(settings: Settings, paths: Paths) -> dict[str, str]:
    from hub.runtime import ready, supervise
    from hub.supervisor.client import Supervisor

    supervisor = Supervisor(paths)
    fresh = not supervisor.running()
    with waiting("portal") as say:
        done = supervise.up(settings, paths)
        try:
            ready.wait(settings, supervisor, say)
        except ready.NotReadyError as error:
            log = paths.log / f"{error.program}.log"
            lines = files.tail(log, 15).splitlines()
            if fresh:
                supervisor.shutdown()
                after = "nothing is left running"
            else:
                after = "the supervisor goes on trying; 'labhub down' ends it"
            tail = "\n".join(f"        {line}" for line in lines)
            problem = Problem(str(log), f"{error} ({after}); its log ends with:", f"\n{tail}")
            raise ProblemsError([problem]) from None
    for name, what in done.items():
        click.echo(f"  {name} {what}")
    if not done:
        click.echo("  Nothing to do: all runs and is up to date.")
    return done


def _greet(settings: Settings, paths: Paths, fresh: bool) -> None:
    click.echo(f"\n  {settings.lab.name} is at {click.style(settings.url, bold=True)}")
    link = _first_link(settings, paths) if fresh else None
    if link:
        click.echo(
            "\n  To log in for the first time, open this link within 24 hours; it works once:\n"
            f"\n    {click.style(link, bold=True)}\n"
        )
        if settings.url.startswith("http://localhost") and "SSH_CONNECTION" in os.environ:
            port = settings.bind[1]
            click.echo(
                "  You are here by SSH: on your own computer call first\n"
                f"    ssh -L {port}:localhost:{port} {os.uname().nodename}\n"
            )


def _first_link(settings: Settings, paths: Paths) -> str | None:
    """Return a one-time link where nobody could log in as an administrator without."""
    from hub.auth import first_admin

    try:
        return first_admin.new_link(paths, settings)
    except ProblemsError:
        return None
