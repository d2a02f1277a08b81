"""``labhub backup``."""

from __future__ import annotations

from pathlib import Path

import click

from hub.state import audit
from hub.state.paths import Paths
from labkit.base.problems import ProblemsError


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
def backup(file: Path | None) -> None:
    """Save the hub's database, the secrets and the lab file, also while the portal runs.

    FILE is a new .tar.gz; default: one in the state folder's backups/. Only you can read
    it: it holds the secrets. Homes, Unix accounts and logs are not in it.

    \b
    Example:
      labhub backup /mnt/backup/labhub-$(date +%F).tar.gz
    """  # noqa: D301
    from hub.runtime import backups

    paths = Paths.from_environment()
    made = backups.create(paths, file)
    audit.record(paths, "make a backup", str(made.file))
    click.echo(str(made.file))
    click.echo("Homes and Unix accounts are not in it; keep it where only you can read.", err=True)
    if made.left_out:
        click.echo("The backup is good for all else, but these apps are NOT in it:", err=True)
        raise ProblemsError(made.left_out)
