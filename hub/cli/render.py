"""``labhub render``."""

from __future__ import annotations

import os
import pwd
from io import StringIO
from pathlib import Path

import click

from hub.cli.common import config_option, read_settings
from hub.labfile import read
from hub.state.paths import Paths

CHOICES = ["settings", "supervisor", "parallelcluster", "sudoers"]


@click.command()
@click.argument("what", type=click.Choice(CHOICES), default="settings")
@config_option
def render(what: str, config: Path | None) -> None:
    """Print the settings in force, defaults included, or what is made from them.

    The supervisor's configuration, AWS ParallelCluster's, or the rule of sudo with which a hub
    that is not root starts jobs. No secret is in any of them.

    \b
    Examples:
      labhub render supervisor
      labhub render parallelcluster --config lab.yaml > cluster.yaml
    """  # noqa: D301
    paths = Paths.from_environment()
    settings = read.read(config) if config else read_settings(paths)
    if what == "parallelcluster":
        from hub.deploy.parallelcluster.render import render as cluster

        click.echo(cluster(settings), nl=False)
        return
    if what == "sudoers":
        from hub.slurm.checks import sudoers

        click.echo(sudoers(settings, pwd.getpwuid(os.geteuid()).pw_name), nl=False)
        return
    if what == "supervisor":
        from hub.runtime.supervise import render as supervisor

        click.echo(supervisor(settings, paths), nl=False)
        return
    from ruamel.yaml import YAML

    out = StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.dump(settings.model_dump(mode="json"), out)
    click.echo(out.getvalue(), nl=False)
