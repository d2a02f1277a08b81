"""What the commands share: how problems, tables and waiting are shown."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from hub.labfile import read
from hub.labfile.schema import Settings
from hub.state.paths import Paths
from labkit.base.files import LockTimeoutError
from labkit.base.problems import LabkitError, Problem, ProblemsError
from labkit.base.units import format_duration

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for a machine.")
config_option = click.option(
    "--config",
    envvar="LABHUB_CONFIG",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A lab file kept elsewhere, for example in your own git (or LABHUB_CONFIG).",
)


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    click.echo(json.dumps(value, indent=2))


def print_problems(problems: Iterable[Problem]) -> None:
    """Print problems on stderr, each with a hint below it."""
    for problem in problems:
        kind, color = ("warning", "yellow") if problem.warning else ("problem", "red")
        click.echo(
            f"{click.style(kind, fg=color, bold=True)} {problem.where}: {problem.text}", err=True
        )
        if problem.hint:
            click.echo(f"        {problem.hint}", err=True)


def told(error: Exception) -> bool:
    """Tell a person about an error that is meant for them; False where it is a bug."""
    if isinstance(error, ProblemsError):
        print_problems(error.problems)
        return True
    if isinstance(error, (LabkitError, LockTimeoutError)):
        click.echo(f"{click.style('problem', fg='red', bold=True)} {error}", err=True)
        return True
    return False


def read_settings(paths: Paths) -> Settings:
    """Read the lab file in force.

    Raises
    ------
    ProblemsError
        It is wrong, or there is none yet.
    """
    if not paths.lab_file.exists():
        hint = "start the portal once: labhub up"
        raise ProblemsError([Problem(str(paths.lab_file), "there is no lab file yet", hint)])
    return read.read(paths.lab_file)


@contextlib.contextmanager
def waiting(text: str) -> Iterator[Callable[[str], None]]:
    """Show a line that says what is waited for, with the seconds so far.

    On a terminal the line moves; elsewhere each new text is a line of its own.
    """
    start = time.monotonic()
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task(text, total=None)
            yield lambda more: progress.update(task, description=f"{text}: {more}")
    else:
        last = ""

        def say(more: str) -> None:
            nonlocal last
            if more != last:
                last = more
                click.echo(f"  {text}: {more}", err=True)

        yield say
    taken = time.monotonic() - start
    if taken > 1:
        click.echo(f"  {text}: done after {format_duration(taken)}", err=True)
