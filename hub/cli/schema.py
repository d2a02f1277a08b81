"""``labhub schema``."""

from __future__ import annotations

import click

from hub.labfile import read


@click.command()
@click.argument("what", type=click.Choice(["lab", "service"]), default="lab")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print its reference page instead.")
def schema(what: str, as_markdown: bool) -> None:
    """Print the JSON schema of the lab file, or of an app's service.yaml, for editors.

    \b
    Example:
      labhub schema > lab.schema.json
    """  # noqa: D301
    from hub.apps import reference as services
    from hub.apps.declaration import Service
    from hub.labfile import reference

    if as_markdown:
        click.echo((reference if what == "lab" else services).markdown(), nl=False)
    elif what == "lab":
        click.echo(read.json_schema(), nl=False)
    else:
        click.echo(read.schema_of(Service, "An app's service.yaml"), nl=False)
