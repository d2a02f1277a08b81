"""``labhub render``."""

from __future__ import annotations

from io import StringIO

import click

from hub.cli.common import read_settings
from hub.paths import Paths


@click.command()
@click.argument("what", type=click.Choice(["settings", "supervisor"]), default="settings")
def render(what: str) -> None:
    """Print the settings in force, defaults included, or the supervisor's configuration.

    No secret is in either of them.

    \b
    Example:
      labhub render supervisor
    """  # noqa: D301
    paths = Paths.from_environment()
    settings = read_settings(paths)
    if what == "supervisor":
        from hub.supervise import render as supervisor

        click.echo(supervisor(settings, paths), nl=False)
        return
    from ruamel.yaml import YAML

    out = StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.dump(settings.model_dump(mode="json"), out)
    click.echo(out.getvalue(), nl=False)
