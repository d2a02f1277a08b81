"""``labkit env``: packages and environments of one's own, from a terminal."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from labkit.environments import named
from labkit.environments.personal import Personal

PERSONAL = "personal"


def add(commands: Any) -> None:
    """Add the command ``env`` to labkit's.

    Parameters
    ----------
    commands : argparse subparsers
        labkit's commands.
    """
    about = "packages and environments of your own"
    parser = commands.add_parser(
        "env",
        help=about,
        description=f"{about.capitalize()}. What `pip install` puts there lies in the personal "
        "environment, over the lab's; further environments stand by themselves, each a kernel.",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, run: Any, about: str) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = actions.add_parser(name, help=about, description=about)
        added.set_defaults(run=run)
        return added

    action("list", _list, "list your environments")
    added = action("create", _create, "make an environment with packages and a kernel of its own")
    added.add_argument("name")
    added.add_argument("packages", nargs="*", help='as pip takes them, e.g. "cellpose>=3"')
    added.add_argument("--python", default=named.LAB_VERSION, help="version of Python")
    added = action("remove", _remove, "remove an environment, after a question")
    added.add_argument("name")
    added.add_argument("--yes", action="store_true", help="do not ask")
    added = action("freeze", _freeze, "print what is installed, for a requirements file")
    added.add_argument("name", nargs="?", default=PERSONAL, help="else the personal one")
    added = action("reset", _reset, "take all packages out of the personal environment")
    added.add_argument("--yes", action="store_true", help="do not ask")


def _list(_: argparse.Namespace) -> int:
    personal = Personal()
    own = personal.freeze()
    print(f"{PERSONAL}  {_count(len(own))} over the lab's {personal.lab.name}  {personal.folder}")
    for shadow in personal.shadows():
        print(f"  hides the lab's: {shadow}")
    for one in named.environments():
        print(f"{one.name}  {_count(len(one.freeze()))}  {one.folder}")
    return 0


def _count(number: int) -> str:
    return "1 package" if number == 1 else f"{number or 'no'} packages"


def _create(arguments: argparse.Namespace) -> int:
    made = named.create(arguments.name, arguments.packages, arguments.python)
    print(f"{made.name} is ready: reload the page, and choose the kernel Python 3 ({made.name}).")
    print(f"More packages: {made.python} -m pip install PACKAGE")
    return 0


def _remove(arguments: argparse.Namespace) -> int:
    one = named.find(arguments.name)
    if arguments.yes or _agreed(f"Remove {one.folder} with {_count(len(one.freeze()))}?"):
        named.remove(one.name)
        print(f"{one.name} is removed.")
    return 0


def _freeze(arguments: argparse.Namespace) -> int:
    chosen = Personal() if arguments.name == PERSONAL else named.find(arguments.name)
    for line in chosen.freeze():
        print(line)
    return 0


def _reset(arguments: argparse.Namespace) -> int:
    personal = Personal()
    own = personal.freeze()
    if own and not arguments.yes and not _agreed(f"Remove {_count(len(own))}: {' '.join(own)}?"):
        return 0
    personal.reset()
    print(f"{_count(len(own)).capitalize()} removed. Restart kernels that run.")
    if own:
        print(f"To have them again: pip install {' '.join(own)}")
    return 0


def _agreed(question: str) -> bool:
    if not sys.stdin.isatty():
        print(f"{question} Nothing was removed: say --yes.", file=sys.stderr)
        return False
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
