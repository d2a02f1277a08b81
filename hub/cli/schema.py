"""``labhub schema``."""

from __future__ import annotations

import click

from hub import labfile


@click.command()
@click.argument("what", type=click.Choice(["lab", "service"]), default="lab")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print its reference page instead.")
def schema(what: str, as_markdown: bool) -> None:
    """Print the JSON schema of the lab file, or of an app's service.yaml, for editors.

    \b
    Example:
      labhub schema > lab.schema.json
    """  # noqa: D301
    from hub import reference
    from hub.services import reference as services
    from hub.services.declaration import Service

    if as_markdown:
        click.echo((reference if what == "lab" else services).markdown(), nl=False)
    elif what == "lab":
        click.echo(labfile.json_schema(), nl=False)
    else:
        click.echo(labfile.schema_of(Service, "An app's service.yaml"), nl=False)
