"""``labhub doctor``."""

from __future__ import annotations

import dataclasses
import sys

import click

from hub.cli.common import json_option, print_json, print_problems
from hub.state.paths import REPOSITORY, Paths

FIRST = "-"


@click.command()
@json_option
@click.option(
    "--node",
    is_flag=False,
    flag_value=FIRST,
    metavar="[PARTITION]",
    help="slurm: also run a small job in a partition (the first), and try from its node.",
)
@click.option(
    "--advisories", is_flag=True, help="Also ask OSV for known holes in all that is locked."
)
def doctor(as_json: bool, node: str | None, advisories: bool) -> None:
    """Look into versions, ports, disk, permissions, clock, names, database and apps.

    Changes nothing. Exits with 0 where nothing is wrong (warnings or not), else with 1.

    \b
    Examples:
      sudo ./labhub doctor
      sudo ./labhub doctor --node            on SLURM: can a node reach the hub?
      sudo ./labhub doctor --node gpu        the same in another partition
      ./labhub doctor --advisories     every lock file: Python, npm, Java; needs the internet
    """  # noqa: D301
    from hub.labfile import read
    from hub.runtime import doctor as doctors

    paths = Paths.from_environment()
    file = paths.lab_file if paths.lab_file.exists() else REPOSITORY / "config" / "lab.yaml"
    settings = read.read(file)
    findings = doctors.examine(settings, paths)
    if node is not None:
        findings.append(doctors.node(settings, paths, "" if node == FIRST else node))
    if advisories:
        findings.append(doctors.known_holes())
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
