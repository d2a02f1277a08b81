"""``labhub slurm``."""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from hub.cli.common import json_option, print_json, read_settings
from hub.labfile.schema import Settings
from hub.state.paths import Paths
from labkit.base.problems import Problem, ProblemsError
from labkit.base.units import format_duration

if TYPE_CHECKING:
    from labkit.slurm.queue import Job


@click.group()
def slurm() -> None:
    """Look after the user servers' jobs on SLURM.

    \b
    Example:
      sudo ./labhub slurm list
    """  # noqa: D301


@slurm.command("list")
@json_option
def list_jobs(as_json: bool) -> None:
    """List all user servers: whose, the job, its state, node, time left, and why it waits.

    \b
    Example:
      sudo ./labhub slurm list
    """  # noqa: D301
    from hub.slurm.listing import server_jobs
    from hub.slurm.orphans import jobs_of, portal_rows

    paths = Paths.from_environment()
    _section(paths)
    servers = jobs_of(paths)
    rows = asyncio.run(portal_rows(paths)) if servers else {}
    jobs = server_jobs(servers, rows)
    if as_json:
        print_json([asdict(one) for one in jobs])
        return
    for one in jobs:
        name = f"{one.user}/{one.server}" if one.server else one.user
        place = one.node or one.partition
        left = f"{one.time_left} left" if one.time_left else ""
        click.echo(
            f"{name:<24} {one.job:<9} {one.state:<11} {place:<16} {left:<14} {one.reason}".rstrip()
        )
    if not jobs:
        click.echo("no server has a job", err=True)


@slurm.command()
@json_option
def orphans(as_json: bool) -> None:
    """List the portal's jobs that its hub does not know.

    They cost the cluster's time and nobody can reach them: stop them.

    \b
    Example:
      sudo ./labhub slurm orphans
    """  # noqa: D301
    from hub.slurm.poller import COLUMNS

    rows = _orphans(Paths.from_environment())
    if as_json:
        print_json([{name: getattr(row, name) for name in COLUMNS.names} for row in rows])
        return
    for row in rows:
        age = format_duration(time.time() - row.submitted) if row.submitted else "?"
        click.echo(f"{row.id:<10} {row.user:<16} {row.state:<12} {row.partition:<16} {age}")
    text = "labhub slurm stop JOB... or --all" if rows else "no job without its hub"
    click.echo(text, err=True)


@slurm.command()
@click.argument("jobs", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Stop every orphan.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def stop(jobs: tuple[str, ...], everything: bool, yes: bool) -> None:
    """Stop jobs that `labhub slurm orphans` lists, and no others.

    \b
    Examples:
      sudo ./labhub slurm stop 1042
      sudo ./labhub slurm stop --all
    """  # noqa: D301
    from hub.slurm.commands import Account
    from hub.slurm.owner import as_owner

    if bool(jobs) == everything:
        raise click.UsageError("Name jobs, or say --all.")
    orphans = {row.id: row for row in _orphans(Paths.from_environment())}
    wrong = [job for job in jobs if job not in orphans]
    if wrong:
        raise ProblemsError(
            [Problem(job, "is no orphan of this portal", "labhub slurm orphans") for job in wrong]
        )
    wanted = list(orphans) if everything else list(dict.fromkeys(jobs))
    if wanted and not yes:
        whose = ", ".join(f"{job} ({orphans[job].user})" for job in wanted)
        click.confirm(f"Stop {whose}?", abort=True)
    for job in wanted:
        asyncio.run(as_owner(Account.of(orphans[job].user), "scancel", ["--", job]))
        click.echo(f"{job} stopped")


@slurm.command()
@click.argument("user")
@click.argument("more")
@click.option("--server", default="", help="A named server; default: the person's unnamed one.")
def extend(user: str, more: str, server: str) -> None:
    """Give a person's running server more time.

    SLURM lets only its operators do so (root and SlurmUser are), and not beyond the
    partition's own limit.

    \b
    Example:
      sudo ./labhub slurm extend ada 2h
    """  # noqa: D301
    from hub.slurm.extend import extend as extend_job
    from hub.slurm.orphans import job_of
    from labkit.base.units import parse_duration

    paths = Paths.from_environment()
    _section(paths)
    try:
        wanted = parse_duration(more)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="MORE") from None
    job = job_of(paths, user, server)
    if not job:
        raise ProblemsError([Problem(user, "has no such running server", "labhub status")])
    ends = asyncio.run(extend_job(job, wanted))
    click.echo(
        f"{user}: {more} more, until {time.strftime('%H:%M', time.localtime(ends))} (job {job})"
    )


def _section(paths: Paths) -> Settings:
    from hub import targets
    from hub.targets.slurm import SlurmTarget

    settings = read_settings(paths)
    if not isinstance(targets.of(settings, paths), SlurmTarget):
        sys.exit("labhub: the lab file's target is not slurm")
    return settings


def _orphans(paths: Paths) -> list[Job]:
    from hub.slurm.orphans import orphans as find

    _section(paths)
    return asyncio.run(find(paths))
