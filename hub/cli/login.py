"""``labhub login``."""

from __future__ import annotations

import click

from hub.cli.common import read_settings
from hub.state.paths import Paths


@click.command()
def login() -> None:
    """Print a new one-time login link for an administrator.

    For the first administrator, for one who cannot log in any more, and, in a portal
    without root, for its owner. It works once, within 24 hours; an earlier one ends.

    \b
    Example:
      labhub login
    """  # noqa: D301
    paths = Paths.from_environment()
    settings = read_settings(paths)
    from hub.auth import first_admin

    link = first_admin.new_link(paths, settings, again=True)
    click.echo(link)
    click.echo("It works once, within 24 hours.", err=True)
