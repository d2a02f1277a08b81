"""``labhub restart``."""

from __future__ import annotations

import click

from hub.cli.common import read_settings, waiting
from hub.state.paths import Paths
from labkit.base.problems import Problem, ProblemsError

PROGRAMS = ("hub", "proxy", "gate", "culler", "all")


@click.command()
@click.argument("program", type=click.Choice(PROGRAMS), default="hub")
def restart(program: str) -> None:
    """Restart the hub, the proxy, the gate or the culler; user servers go on.

    A restart of the proxy ends open connections; browsers connect again by themselves.

    \b
    Example:
      labhub restart hub
    """  # noqa: D301
    paths = Paths.from_environment()
    settings = read_settings(paths)
    from hub.runtime import ready
    from hub.runtime.supervise import programs
    from hub.supervisor.client import Supervisor

    supervisor = Supervisor(paths)
    known = supervisor.info()
    if not known:
        raise ProblemsError([Problem("the portal", "is down", "start it with: labhub up")])
    names = [n for n in programs(settings) if n in known and program in (n, "all")]
    if not names:
        raise ProblemsError([Problem(program, "is not part of this portal")])
    with waiting(f"restart of {', '.join(names)}") as say:
        supervisor.stop(reversed(names))
        supervisor.start(names)
        try:
            ready.wait(settings, supervisor, say)
        except ready.NotReadyError as error:
            hint = f"see: labhub logs {error.program}"
            raise ProblemsError([Problem(error.program, str(error), hint)]) from None
    click.echo(f"  {', '.join(names)} restarted")
