"""``labhub restore``."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path

import click

from hub.cli.backup import address_option
from hub.cli.common import read_settings
from hub.state import audit
from hub.state.paths import Paths
from labkit.base.problems import Problem, ProblemsError


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path, exists=True))
@address_option("--from", "Another place, as of `labhub backup --to`; default: backup.to.")
@click.option("--day", type=click.DateTime(["%Y-%m-%d"]), help="As it was at the end of this day.")
@click.option("--homes", is_flag=True, help="All homes that were saved; the portal may run.")
@click.option("--home", "names", multiple=True, metavar="NAME", help="This person's home alone.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def restore(
    file: Path | None,
    address: str | None,
    day: datetime | None,
    homes: bool,
    names: tuple[str, ...],
    yes: bool,
) -> None:
    """Put a backup back, while the portal is down.

    What is there now is kept in the state folder's backups/. From another place, the
    repository's password must be in secrets/backup_password of the state folder.

    Homes go into the homes of new accounts; where somebody has files already, into a new
    folder of the home (restored-...).

    \b
    Examples:
      labhub down && labhub restore labhub-2026-11-20.tar.gz && labhub up
      labhub restore --from sftp:labhub@nas:/backup/labhub
      labhub restore --home ada --day 2026-11-20
    """  # noqa: D301
    paths = Paths.from_environment()
    if file is not None and (address or day or homes or names):
        raise click.UsageError("A file has neither days nor homes, and is no other place.")
    if file is None and address is None:
        address = read_settings(paths).backup.to
        if address is None:
            raise click.UsageError("Name a file, or another place by --from.")
    wanted = day.date() if day else None
    if homes or names:
        _homes(paths, str(address), names, wanted)
        return
    _portal(paths, file, address, wanted, yes)


def _portal(
    paths: Paths, file: Path | None, address: str | None, day: date | None, yes: bool
) -> None:
    from hub.runtime import backups, remote_backup
    from hub.supervisor.client import Supervisor

    if Supervisor(paths).running():
        text, hint = "runs, and would overwrite what is restored", "stop it first: labhub down"
        raise ProblemsError([Problem("the portal", text, hint)])
    source = str(file or address)
    if not yes:
        click.confirm(f"Replace the portal's state in {paths.state} by {source}?", abort=True)
    if file is not None:
        aside = backups.restore(paths, file)
    else:
        aside = remote_backup.restore(paths, source, day)
    audit.record(paths, "restore a backup", source)
    click.echo(f"Restored. What was there is in {aside}\nStart the portal: labhub up")


def _homes(paths: Paths, address: str, names: tuple[str, ...], day: date | None) -> None:
    from hub.runtime import remote_backup

    folders, problems = remote_backup.restore_homes(
        paths, read_settings(paths), address, names, day
    )
    for folder in folders:
        audit.record(paths, "restore a home", str(folder))
        click.echo(str(folder))
    if problems:
        raise ProblemsError(problems)
