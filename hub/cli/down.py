"""``labhub down``."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from hub.cli.common import print_problems, read_settings, waiting
from hub.labfile.schema import Settings
from hub.state.paths import Paths
from labkit.base.problems import Problem, ProblemsError

if TYPE_CHECKING:
    from hub.portal.control import UserServer

_WAIT = 60  # seconds for all user servers


@click.command()
@click.option("--keep-servers", is_flag=True, help="Leave user servers running.")
@click.option("--yes", is_flag=True, help="Do not ask before user servers are stopped.")
def down(keep_servers: bool, yes: bool) -> None:
    """Stop the portal: the user servers, then culler, hub and proxy.

    On a terminal it names the user servers that would be stopped and asks first. With
    --keep-servers they go on, unreachable until the next `up`, which finds them again.

    \b
    Examples:
      labhub down
      labhub down --keep-servers && git pull && labhub up    an upgrade
    """  # noqa: D301
    from hub.supervisor.client import Supervisor

    paths = Paths.from_environment()
    supervisor = Supervisor(paths)
    running = supervisor.running()
    servers = [] if keep_servers else _known_servers(paths)
    if servers:
        names = ", ".join(str(server) for server in servers)
        if sys.stdin.isatty() and not yes:
            click.confirm(f"User servers run: {names}. Stop them too?", abort=True)
        _stop_servers(read_settings(paths), paths)
    if running:
        with waiting("portal") as say:
            say("stopping")
            supervisor.shutdown()
        click.echo("  The portal is down.")
    else:
        click.echo("  The portal was not running.")
    if not keep_servers:
        _remove_walls(paths)
    if keep_servers:
        _say_what_goes_on(paths)


def _known_servers(paths: Paths) -> list[UserServer]:
    from hub.portal.control import user_servers

    try:
        return user_servers(paths)
    except ProblemsError as error:
        text = "are not known, as the hub's database cannot be read"
        hint = "leave them running, if there are any: labhub down --keep-servers"
        raise ProblemsError([*error.problems, Problem("user servers", text, hint)]) from None


def _say_what_goes_on(paths: Paths) -> None:
    from hub.portal.control import user_servers

    try:
        names = ", ".join(str(server) for server in user_servers(paths))
    except ProblemsError as error:
        print_problems(error.problems)
        click.echo("  User servers go on, if there are any. The next `up` finds them again.")
        return
    if names:
        click.echo(f"  User servers go on: {names}. The next `up` finds them again.")


def _remove_walls(paths: Paths) -> None:
    """Take the firewall's rules and the groups away: nothing of the portal is left running."""
    # Only root has made any.
    if os.geteuid() == 0 and paths.lab_file.exists():
        from hub import targets

        targets.of(read_settings(paths), paths).end_servers()


def _stop_servers(settings: Settings, paths: Paths) -> None:
    """Stop every user server: by the hub, or, where it does not answer, without it."""
    from hub import targets
    from hub.portal.control import Control, ControlError, user_servers

    with waiting("user servers") as say:

        def progress(left: list[UserServer]) -> None:
            say(f"stopping {', '.join(map(str, left))}" if left else "stopped")

        servers = user_servers(paths)
        try:
            left = Control(settings, paths).stop_servers(servers, progress, _WAIT)
        except ControlError as error:
            if targets.of(settings, paths).can_end_servers:
                say("the hub does not answer; ending them without it")
                _remove_walls(paths)
                return
            names = ", ".join(map(str, servers))
            text = f"cannot be stopped now: {error}"
            hint = "start the portal ('labhub up'), or leave them: labhub down --keep-servers"
            raise ProblemsError([Problem(f"user servers {names}", text, hint)]) from None
    if left:
        text = f"did not stop within {_WAIT} s"
        hint = "call 'labhub down' again, or leave them: labhub down --keep-servers"
        raise ProblemsError([Problem(", ".join(map(str, left)), text, hint)])
