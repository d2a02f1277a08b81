"""``labhub login``."""

from __future__ import annotations

import click

from hub.cli.common import read_settings
from hub.paths import Paths


@click.command()
def login() -> None:
    r"""Print a new one-time login link for an administrator.

    For the first administrator, for one who cannot log in any more, and, in a portal
    without root, for its owner. It works once, within 24 hours; an earlier one ends.

    \b
    Example:
      labhub login
    """
    from hub.auth import first_admin

    paths = Paths.from_environment()
    link = first_admin.new_link(paths, read_settings(paths), again=True)
    click.echo(link)
    click.echo("It works once, within 24 hours.", err=True)
