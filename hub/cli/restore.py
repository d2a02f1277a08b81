"""``labhub restore``."""

from __future__ import annotations

from pathlib import Path

import click

from hub.state import audit
from hub.state.paths import Paths
from labkit.base.problems import Problem, ProblemsError


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--yes", is_flag=True, help="Do not ask.")
def restore(file: Path, yes: bool) -> None:
    """Put a backup back, while the portal is down.

    What is there now is kept in the state folder's backups/.

    \b
    Example:
      labhub down && labhub restore labhub-2026-11-20.tar.gz && labhub up
    """  # noqa: D301
    from hub.runtime import backups
    from hub.supervisor.client import Supervisor

    paths = Paths.from_environment()
    if Supervisor(paths).running():
        text, hint = "runs, and would overwrite what is restored", "stop it first: labhub down"
        raise ProblemsError([Problem("the portal", text, hint)])
    if not yes:
        click.confirm(f"Replace the portal's state in {paths.state} by {file}?", abort=True)
    aside = backups.restore(paths, file)
    audit.record(paths, "restore a backup", str(file))
    click.echo(f"Restored. What was there is in {aside}\nStart the portal: labhub up")
