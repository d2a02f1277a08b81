"""``labhub user``."""

from __future__ import annotations

import sys

import click

from hub.cli.common import json_option, print_json, read_settings
from hub.state import audit
from hub.state.paths import Paths

stdin_option = click.option(
    "--password-stdin", is_flag=True, help="Read the password from the first line of stdin."
)


@click.group()
def user() -> None:
    """Add, remove and list the people of the portal.

    Unix accounts where people log in by them, the sign-up list where they sign up.
    Passwords are asked for on the terminal or read from stdin, never given as arguments.
    """


@user.command()
@click.argument("name")
@stdin_option
@click.option("--no-password", is_flag=True, help="Set none: the account keeps the one it has.")
def add(name: str, password_stdin: bool, no_password: bool) -> None:
    """Let a person in: make their account, or take an existing one in.

    \b
    Examples:
      labhub user add ada
      labhub user add ada --no-password        ada has an account on this machine
      echo "$NEW" | labhub user add ada --password-stdin
    """  # noqa: D301
    from hub.auth import accounts

    if password_stdin and no_password:
        raise click.UsageError("--password-stdin and --no-password do not go together")
    paths = Paths.from_environment()
    settings = read_settings(paths)
    people = accounts.directory(settings, paths)
    accounts.check_new(name, None)
    password = None if no_password else _password(name, password_stdin)
    accounts.check_new(name, password)
    people.add(name, password)
    audit.record(paths, "add a user", name)
    click.echo(f"{name} can log in at {settings.url}")


@user.command()
@click.argument("name")
@stdin_option
def passwd(name: str, password_stdin: bool) -> None:
    """Give a person a new password.

    \b
    Example:
      labhub user passwd ada
    """  # noqa: D301
    from hub.auth import accounts

    paths = Paths.from_environment()
    settings = read_settings(paths)
    people = accounts.directory(settings, paths)
    password = _password(name, password_stdin)
    accounts.check_new(name, password)
    people.set_password(name, password)
    audit.record(paths, "set a password", name)
    click.echo(f"{name} has a new password")


@user.command()
@click.argument("name")
@click.option("--delete-home", is_flag=True, help="Delete the account and all files of its home.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove(name: str, delete_home: bool, yes: bool) -> None:
    """Take a person out: stop their servers, end their tokens, close their account.

    The home stays, and so does the locked account, so that nobody inherits the files;
    `labhub user add` opens it again. --delete-home deletes both for good.

    \b
    Example:
      labhub user remove ada
    """  # noqa: D301
    from hub.auth import accounts
    from hub.runtime.people import entries, forget

    paths = Paths.from_environment()
    settings = read_settings(paths)
    people = accounts.directory(settings, paths)
    known = {entry.name: entry for entry in entries(settings, paths)}
    if name not in known:
        raise click.ClickException(f"{name!r} is not a user of this portal: labhub user list")
    home = known[name].home
    if not yes:
        what = f"delete {home} with all its files" if delete_home and home else "keep the home"
        running = f", stop {known[name].servers} servers" if known[name].servers else ""
        click.confirm(f"Take {name} out{running} and {what}?", abort=True)
    forget(name, settings, paths)
    people.remove(name, keep_home=not delete_home)
    audit.record(paths, "remove a user", name)
    if delete_home:  # what their servers have said is theirs, too
        for log in paths.server_logs(name):
            log.unlink(missing_ok=True)
    kept = f"; {home} stays" if home and not delete_home else ""
    click.echo(f"{name} is no longer a user of this portal{kept}")


@user.command(name="list")
@json_option
def list_(as_json: bool) -> None:
    """List the people of the portal.

    \b
    Example:
      labhub user list --json | jq -r '.[] | select(.admin) | .name'
    """  # noqa: D301
    from hub.runtime.people import entries

    paths = Paths.from_environment()
    settings = read_settings(paths)

    people = entries(settings, paths)
    if as_json:
        print_json([entry.as_dict() for entry in people])
        return
    if not people:
        click.echo("Nobody yet: labhub user add NAME")
        return
    width = max(len(entry.name) for entry in people)
    for entry in people:
        notes = [
            "administrator" if entry.admin else "",
            "" if entry.can_log_in else "cannot log in: no password or not approved",
            f"{entry.servers} servers" if entry.servers else "",
        ]
        click.echo(f"{entry.name:<{width}}  {', '.join(filter(None, notes))}".rstrip())


def _password(name: str, from_stdin: bool) -> str:
    if from_stdin:
        line = sys.stdin.readline()
        if not line.strip():
            raise click.UsageError("--password-stdin: stdin is empty")
        return line.rstrip("\r\n")
    if not sys.stdin.isatty():
        raise click.UsageError("no terminal to ask on: give the password by --password-stdin")
    password: str = click.prompt(
        f"New password for {name}", hide_input=True, confirmation_prompt="Again"
    )
    return password
