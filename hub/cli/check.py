"""``labhub check``."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import click

from hub.cli.common import config_option, json_option, print_json, print_problems
from hub.labfile import read
from hub.runtime import preflight
from hub.state.paths import REPOSITORY, Paths
from labkit.base.problems import Problem, ProblemsError


@click.command()
@config_option
@json_option
def check(config: Path | None, as_json: bool) -> None:
    """Name every problem of the lab file and this machine, each with its place and a hint.

    Changes nothing. Exits with 0 where the portal can run (warnings or not), else with 1.

    \b
    Example:
      labhub check --config ~/lab/lab.yaml
    """  # noqa: D301
    paths = Paths.from_environment()
    file = config or paths.lab_file
    if config is None and not file.exists():
        file = REPOSITORY / "config" / "lab.yaml"
    reported = problems(file, paths)
    bad = [problem for problem in reported if not problem.warning]
    if as_json:
        rows = [dataclasses.asdict(problem) for problem in reported]
        print_json({"ok": not bad, "file": str(file), "problems": rows})
    else:
        print_problems(reported)
        warnings = len(reported) - len(bad)
        aside = f", {warnings} warning{'s' if warnings > 1 else ''}" if warnings else ""
        if bad:
            click.echo(f"\n{file}: {len(bad)} problem{'s' if len(bad) > 1 else ''}{aside}")
        else:
            click.echo(f"{file}: no problem{aside}")
    sys.exit(bool(bad))


def problems(file: Path, paths: Paths) -> list[Problem]:
    """Return the problems of a lab file; those of the machine only where it can be read."""
    try:
        settings = read.read(file)
    except ProblemsError as error:
        return list(error.problems)
    return preflight.problems(settings, paths)
