"""``labhub app``."""

from __future__ import annotations

import time
from typing import Any

import click

from hub.cli.common import json_option, print_json, read_settings, waiting
from hub.state import audit
from hub.state.paths import Paths
from labkit.base.units import format_duration

_STATES = {"running": "green", "starting": "yellow", "failed": "red"}


@click.group()
def app() -> None:
    """Add, remove and list the web apps behind the login.

    An app is a folder with a service.yaml (docs/reference/service-yaml.md). The portal is
    not restarted, and nobody's server either.

    \b
    Example:
      labhub app add /srv/lab/plates
    """  # noqa: D301


@app.command()
@click.argument("source")
@click.option(
    "--group",
    "groups",
    multiple=True,
    help="Who may open it, instead of those that its service.yaml names; may be repeated.",
)
@click.option(
    "--everybody", is_flag=True, help="Everybody who can log in may open it (not Shiny and Dash)."
)
@click.option("--name", help="Shiny and Dash: its name in the address, instead of the folder's.")
@click.option("--title", help="Shiny and Dash: on its card.")
def add(
    source: str, groups: tuple[str, ...], everybody: bool, name: str | None, title: str | None
) -> None:
    """Put an app behind the login, or take up a changed one.

    SOURCE is the app's folder, of which a copy is made, or the name of an app that comes with
    the portal. A folder without a service.yaml but with app.R (Shiny) or app.py (Dash) is run
    as members' apps are (docs/how-to/apps-of-your-own.md).

    \b
    Examples:
      labhub app add /srv/lab/plates
      labhub app add label-studio --group imaging
      labhub app add ~/dose-response --group screening --title "Dose response"
    """  # noqa: D301
    from hub.apps import install
    from hub.apps.members import local
    from hub.cli.up import build
    from hub.environments.build import exists
    from hub.runtime.apps import apply

    if groups and everybody:
        raise click.UsageError("--group and --everybody do not go together")
    if everybody and local.is_webapp(source):
        raise click.UsageError("an app with app.R or app.py is for groups: name them by --group")
    paths = Paths.from_environment()
    settings = read_settings(paths)
    chosen = groups or (() if everybody else None)
    if local.is_webapp(source):
        added = local.add(source, name, chosen, title, settings, paths)
    elif name or title:
        raise click.UsageError("--name and --title are for folders with app.R or app.py")
    else:
        added = install.add(source, chosen, settings, paths)
    audit.record(paths, "add an app", added.name)
    environment = "dash" if added.kind == "dash" else added.service.environment
    if exists(environment):
        build([environment], paths)
    with waiting(f"app {added.name}") as say:
        say("putting it into force")
        running = apply(settings, paths)
    who = ", ".join(added.groups) or "everybody who can log in"
    click.echo(f"  {added.service.title} is for {who}")
    click.echo(f"  {added.url(settings)}" if running else "  The next `labhub up` starts it.")


@app.command()
@click.argument("name")
@click.option("--delete-data", is_flag=True, help="Delete all that it has stored, for good.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove(name: str, delete_data: bool, yes: bool) -> None:
    """Take an app away: it is stopped, and nobody can open it. What it has stored stays.

    \b
    Example:
      labhub app remove plates
    """  # noqa: D301
    from hub.apps import install
    from hub.apps.app_paths import AppPaths
    from hub.runtime.apps import apply

    paths = Paths.from_environment()
    settings = read_settings(paths)
    data = AppPaths(paths).data(name)
    if not yes:
        what = f"delete {data} with all its files" if delete_data else "keep its data"
        click.confirm(f"Take {name} away and {what}?", abort=True)
    install.remove(name, settings, paths)
    audit.record(paths, "remove an app", name)
    apply(settings, paths)
    if delete_data:
        install.forget(name, paths)
    kept = f"; {data} stays" if data.exists() else ""
    click.echo(f"{name} is no longer an app of this portal{kept}")


@app.command(name="list")
@json_option
def list_(as_json: bool) -> None:
    """List the apps, with who may open them and whether they run.

    One that is stopped starts when somebody opens it.

    \b
    Example:
      labhub app list
    """  # noqa: D301
    from hub.apps import catalogue
    from hub.cli.common import print_problems

    paths = Paths.from_environment()
    settings = read_settings(paths)
    apps, problems = catalogue.read(settings, paths)
    rows = [_row(one, settings, paths) for one in apps]
    off = sorted(set(catalogue.shipped()) - {one.name for one in apps})
    if as_json:
        print_json({"apps": rows, "off": off})
        return
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        state = click.style(f"{row['state']:<9}", fg=_STATES.get(row["state"]))
        click.echo(f"  {row['name']:<{width}}  {state} {', '.join(row['groups']) or 'everybody'}")
    print_problems(problems)
    if off:
        click.echo(f"  Not on: {', '.join(off)} (labhub app add NAME)")


@app.command()
@click.argument("name")
@json_option
def status(name: str, as_json: bool) -> None:
    """Show one app: its address, state and the end of its log.

    \b
    Example:
      labhub app status cellxgene
    """  # noqa: D301
    from hub import targets
    from hub.apps import catalogue

    paths = Paths.from_environment()
    settings = read_settings(paths)
    one = catalogue.find(name, settings, paths)
    row = _row(one, settings, paths)
    lines = targets.of(settings, paths).app_runtime.log(name, 15).splitlines()
    if as_json:
        print_json({**row, "log": lines})
        return
    click.echo(f"  {one.service.title}: {row['url']}")
    seconds = row["since_seconds"]
    since = f" for {format_duration(int(seconds))}" if seconds is not None else ""
    pid = f", pid {row['pid']}" if row["pid"] else ""
    click.echo(f"  {row['state']}{since}{pid}")
    click.echo(f"  for {', '.join(row['groups']) or 'everybody who can log in'}")
    click.echo(f"  code {one.folder}, data {row['data']}")
    if lines:
        click.echo(f"  the end of its log (labhub logs app-{name}):")
    for line in lines:
        click.echo(f"    {line}")


def _row(one: Any, settings: Any, paths: Paths) -> dict[str, Any]:
    from hub import targets
    from hub.apps.app_paths import AppPaths

    now = targets.of(settings, paths).app_runtime.status(one.name)
    return {
        "name": one.name,
        "title": one.service.title,
        "url": one.url(settings),
        "groups": list(one.groups),
        "own": one.own,
        "state": now.state,
        "pid": now.pid,
        "since_seconds": int(time.time() - now.since) if now.since is not None else None,
        "data": str(AppPaths(paths).data(one.name)),
    }
