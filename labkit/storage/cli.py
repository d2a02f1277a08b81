"""``labkit data``: data on disks and in S3, from a terminal."""

from __future__ import annotations

import argparse
import sys
from datetime import datetime
from typing import Any

from labkit import storage
from labkit.base.units import format_size


def add(commands: Any) -> None:
    """Add the command ``data`` to labkit's.

    Parameters
    ----------
    commands : argparse subparsers
        labkit's commands.
    """
    about = "list, copy and check data on disks and in S3"
    parser = commands.add_parser(
        "data",
        help=about,
        description=f"{about.capitalize()}. An address is a path or s3://bucket/key; what ends "
        "with / is all that is below it.",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, run: Any, about: str) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = actions.add_parser(name, help=about, description=about)
        added.set_defaults(run=run)
        added.add_argument("address")
        return added

    added = action("list", _list, "list a folder")
    added.add_argument("-r", "--deep", action="store_true", help="with all that is below it")
    added = action("copy", _copy, "copy a file or a folder; checked, and whole or not at all")
    added.add_argument("target", help="where to; what ends with / gets the names")
    action("checksum", _checksum, "print the SHA-256")
    action("versions", _versions, "list the versions of an object")
    added = action("restore", _restore, "make an earlier version the current one")
    added.add_argument("version", help="as `versions` lists it")
    added = action("link", _link, "print a link for somebody without an account")
    added.add_argument("--valid", default="1h", help='how long: "2 days" (1h)')


def _list(arguments: argparse.Namespace) -> int:
    for entry in storage.entries(arguments.address, deep=arguments.deep):
        size = "" if entry.is_folder else format_size(entry.size)
        when = "" if entry.is_folder else _when(entry.changed)
        print(f"{size:>10}  {when:16}  {entry.address}")
    return 0


def _copy(arguments: argparse.Namespace) -> int:
    last = -1

    def tell(progress: storage.Progress) -> None:
        nonlocal last
        percent = 100 * progress.size_done // max(1, progress.size)
        if percent != last and sys.stderr.isatty():
            last = percent
            end = "\n" if progress.files_done == progress.files else ""
            said = f"{progress.files_done:,} of {progress.files:,} files, {percent} %"
            print(f"\r{said}", end=end, file=sys.stderr)

    done = storage.copy(arguments.address, arguments.target, tell)
    print(f"{done.files:,} files, {format_size(done.size)}.")
    return 0


def _checksum(arguments: argparse.Namespace) -> int:
    print(f"{storage.checksum(arguments.address)}  {arguments.address}")
    return 0


def _versions(arguments: argparse.Namespace) -> int:
    for one in storage.versions(arguments.address):
        said = " ".join(
            word for word, so in (("current", one.current), ("deleted", one.deleted)) if so
        )
        print(f"{one.id}  {_when(one.changed)}  {format_size(one.size):>10}  {said}".rstrip())
    return 0


def _restore(arguments: argparse.Namespace) -> int:
    storage.restore(arguments.address, arguments.version)
    print(f"{arguments.version} is the current version of {arguments.address}.")
    return 0


def _link(arguments: argparse.Namespace) -> int:
    print(storage.link(arguments.address, arguments.valid))
    return 0


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")
