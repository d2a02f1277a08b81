"""``labhub doctor``."""

from __future__ import annotations

import dataclasses
import sys

import click

from hub.cli.common import json_option, print_json, print_problems
from hub.state.paths import REPOSITORY, Paths


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Look into versions, ports, disk, permissions, clock, names, database and apps.

    Changes nothing. Exits with 0 where nothing is wrong (warnings or not), else with 1.

    \b
    Example:
      sudo ./labhub doctor
    """  # noqa: D301
    from hub.labfile import read
    from hub.runtime import doctor as doctors

    paths = Paths.from_environment()
    file = paths.lab_file if paths.lab_file.exists() else REPOSITORY / "config" / "lab.yaml"
    findings = doctors.examine(read.read(file), paths)
    well = all(finding.ok for finding in findings)
    if as_json:
        rows = [{**dataclasses.asdict(finding), "ok": finding.ok} for finding in findings]
        print_json({"ok": well, "findings": rows})
        sys.exit(not well)
    for finding in findings:
        word, color = ("ok", "green") if finding.ok else ("problem", "red")
        if finding.ok and finding.problems:
            word, color = "warning", "yellow"
        mark = click.style(f"{word:<8}", fg=color)
        click.echo(f"{mark} {finding.topic}: {finding.detail}")
        sys.stdout.flush()
        print_problems(finding.problems)
    sys.exit(not well)
