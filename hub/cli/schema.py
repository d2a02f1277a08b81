"""``labhub schema``."""

from __future__ import annotations

import click

from hub import labfile


@click.command()
def schema() -> None:
    """Print the lab file's JSON schema: editors then complete and check the file.

    \b
    Example:
      labhub schema > lab.schema.json
    """  # noqa: D301
    click.echo(labfile.json_schema(), nl=False)
