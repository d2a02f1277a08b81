"""``labhub message``."""

from __future__ import annotations

import getpass
import os
import time

import click

from hub.cli.common import json_option, print_json, read_settings
from hub.state import audit, messages
from hub.state.paths import Paths


@click.command()
@click.argument("text", required=False)
@click.option("--until", metavar="TIME", help="When it goes by itself: 18:00, a date, or 2h.")
@click.option("--group", "groups", multiple=True, help="Only for this group; may be repeated.")
@click.option("--maintenance", is_flag=True, help="No new servers until the message has gone.")
@click.option("--from", "begins", metavar="TIME", help="When the maintenance begins, else now.")
@click.option("--list", "listing", is_flag=True, help="Show what is shown now.")
@click.option("--remove", metavar="ID", help="Take one back; `all` for all of them.")
@json_option
def message(
    text: str | None,
    until: str | None,
    groups: tuple[str, ...],
    maintenance: bool,
    begins: str | None,
    listing: bool,
    remove: str | None,
    as_json: bool,
) -> None:
    """Show a message on every page of the portal and in JupyterLab, within half a minute.

    With --maintenance nobody but administrators can start a server from then on; servers that
    run go on, and the page Messages says whose they are. Messages outlive a restart, and the
    gate shows those for everybody while the hub is down.

    \b
    Examples:
      labhub message "The freezer room is closed today." --until 18:00
      labhub message "New microscope data is in /data/m2" --group imaging --until 2d
      labhub message "We update the portal." --maintenance --from 17:00 --until 19:00
      labhub message --list
      labhub message --remove all
    """  # noqa: D301
    if sum((text is not None, listing, remove is not None)) != 1:
        raise click.UsageError("give one of: a text, --list, --remove ID")
    if text is None and (until or groups or maintenance or begins):
        raise click.UsageError("--until, --group, --maintenance and --from go with a text")
    if begins and not maintenance:
        raise click.UsageError("--from goes with --maintenance")
    paths = Paths.from_environment()
    settings = read_settings(paths)
    board = messages.board(paths)
    if listing:
        _list(board, as_json)
        return
    if remove is not None:
        _remove(board, remove)
        audit.record(paths, "take back a message", remove)
        return
    unknown = sorted(set(groups) - set(settings.groups))
    if unknown:
        click.echo(f"  {', '.join(unknown)}: not in the lab file; shown to a group of that name")
    now = time.time()
    author = os.environ.get("SUDO_USER") or getpass.getuser()
    added = board.add(
        text or "",
        author,
        until=_moment(until, now),
        groups=groups,
        begins=_moment(begins, now) or now if maintenance else None,
    )
    audit.record(paths, "show a message", added.id)
    ends = f"until {messages.clock_time(added.until)}" if added.until else "until it is taken back"
    click.echo(f"{added.id}: shown {ends}; take it back: labhub message --remove {added.id}")
    if added.begins:
        click.echo(f"No new servers from {messages.clock_time(added.begins)}.")


def _moment(text: str | None, now: float) -> float | None:
    if text is None:
        return None
    try:
        return messages.parse_moment(text, now)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _list(board: messages.MessageBoard, as_json: bool) -> None:
    current = board.current()
    if as_json:
        fields = [{**one.as_shown(), "groups": one.groups, "author": one.author} for one in current]
        print_json(fields)
        return
    if not current:
        click.echo("No messages.")
    for one in current:
        notes = [
            f"for {', '.join(one.groups)}" if one.groups else "",
            f"maintenance from {messages.clock_time(one.begins)}" if one.begins else "",
            f"until {messages.clock_time(one.until)}" if one.until else "",
        ]
        ends = "; ".join(filter(None, notes))
        click.echo(f"{one.id}  {one.text}" + (f"  ({ends})" if ends else ""))


def _remove(board: messages.MessageBoard, identity: str) -> None:
    wanted = [one.id for one in board.current()] if identity == "all" else [identity]
    gone = [one for one in wanted if board.remove(one)]
    if not gone and identity != "all":
        raise click.ClickException(f"there is no message {identity!r}: labhub message --list")
    click.echo(f"Taken back: {len(gone)}")
