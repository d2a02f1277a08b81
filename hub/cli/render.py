"""``labhub render``."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import click

from hub.cli.common import config_option, read_settings
from hub.labfile import read
from hub.labfile.schema import Settings
from hub.state.paths import Paths
from labkit.base.problems import Problem, ProblemsError


@click.command()
@click.argument("what", default="settings")
@config_option
def render(what: str, config: Path | None) -> None:
    """Print the settings in force, defaults included, or what is made from them.

    WHAT is settings, supervisor (its configuration), or of target slurm: parallelcluster (AWS's
    configuration), sudoers (the rule with which a hub that is not root starts jobs). No secret
    is in any of them.

    \b
    Examples:
      labhub render supervisor
      labhub render parallelcluster --config lab.yaml > cluster.yaml
    """  # noqa: D301
    paths = Paths.from_environment()
    settings = read.read(config) if config else read_settings(paths)
    if what == "supervisor":
        from hub.runtime.supervise import render as supervisor

        click.echo(supervisor(settings, paths), nl=False)
        return
    if what != "settings":
        click.echo(_of_target(what, settings, paths), nl=False)
        return
    from ruamel.yaml import YAML

    out = StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.dump(settings.model_dump(mode="json"), out)
    click.echo(out.getvalue(), nl=False)


def _of_target(what: str, settings: Settings, paths: Paths) -> str:
    from hub import targets

    rendered = targets.of(settings, paths).rendered()
    if what not in rendered:
        possible = ", ".join(["settings", "supervisor", *rendered])
        text = "is nothing that can be made for the target of this lab file"
        raise ProblemsError([Problem(what, text, f"there are: {possible}")])
    return rendered[what]()
