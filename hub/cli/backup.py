"""``labhub backup``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from hub.cli.common import print_problems, read_settings, waiting
from hub.labfile.backup import check_address
from hub.state import audit
from hub.state.paths import Paths
from labkit.base.problems import Problem, ProblemsError

_Command = TypeVar("_Command", bound=Callable[..., Any])


def address_option(name: str, text: str) -> Callable[[_Command], _Command]:
    """Return an option that takes the address of a repository."""
    return click.option(name, "address", metavar="ADDRESS", callback=_address, help=text)


def _address(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    try:
        return value if value is None else check_address(value)
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from None


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@address_option("--to", "Another place: a repository of restic; default: backup.to in lab.yaml.")
@click.option("--new", is_flag=True, help="Make the repository first.")
def backup(file: Path | None, address: str | None, new: bool) -> None:
    """Save the hub's database, the secrets and the lab file, also while the portal runs.

    With backup.to in the lab file, or --to: at that place, encrypted, with people's homes
    where the lab file says so (backup.homes); it is read back and compared.

    Else into FILE, a new .tar.gz; default: one in the state folder's backups/. Only you can
    read it: it holds the secrets. Homes, Unix accounts and logs are not in it.

    \b
    Examples:
      labhub backup /mnt/backup/labhub-$(date +%F).tar.gz
      labhub backup --new --to sftp:labhub@nas:/backup/labhub
    """  # noqa: D301
    paths = Paths.from_environment()
    if file is None and address is None:
        address = _named_place(paths)
    if file is not None and (address or new):
        raise click.UsageError("Name a file or another place, not both.")
    if address is not None:
        _elsewhere(paths, address, new)
        return
    if new:
        raise click.UsageError("--new needs --to, or backup.to in the lab file.")
    from hub.runtime import backups

    made = backups.create(paths, file)
    audit.record(paths, "make a backup", str(made.file))
    click.echo(str(made.file))
    click.echo("Homes and Unix accounts are not in it; keep it where only you can read.", err=True)
    if made.left_out:
        click.echo("The backup is good for all else, but these apps are NOT in it:", err=True)
        raise ProblemsError(made.left_out)


def _named_place(paths: Paths) -> str | None:
    """Return the place that the lab file names; a backup is most needed where it is wrong."""
    if not paths.lab_file.exists():
        return None
    try:
        return read_settings(paths).backup.to
    except ProblemsError as error:
        print_problems(error.problems)
        click.echo("The lab file cannot be read, so this backup stays on this machine.", err=True)
        return None


def _elsewhere(paths: Paths, address: str, new: bool) -> None:
    from hub.runtime import remote_backup

    settings = read_settings(paths)
    if new:
        password = remote_backup.make_repository(paths, address)
        audit.record(paths, "make a place for backups", address)
        click.echo(
            f"Made {address}. Its password is in {password}: keep a copy of it away from this\n"
            "machine. Without it nobody, you included, can read these backups.",
            err=True,
        )
    with waiting("saving") as say:
        record = remote_backup.create(paths, settings, address, say)
    audit.record(paths, "make a backup", address)
    homes = f" and {record.homes} homes" if settings.backup.homes else ""
    click.echo(f"Saved the portal{homes} at {address}; the portal's archive was read back.")
    if record.problems:
        click.echo("The backup is good for all else, but:", err=True)
        raise ProblemsError([Problem("backup", text) for text in record.problems])
