"""Jobs of this portal that no hub knows: what a lost database or a killed sbatch leaves."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from hub.sandbox.instance import Instance
from hub.slurm.commands import run_slurm
from hub.slurm.poller import COLUMNS, over, parse
from hub.state.database import HubDatabase
from hub.state.paths import Paths
from labkit.slurm.queue import Job


def job_name(paths: Paths) -> str:
    """Return the name of all jobs of one portal: by it they are known as its own."""
    return f"labhub-{Instance.of(paths).id}"


def waiting_file(paths: Paths) -> Path:
    """Return the file with the jobs that the hub has still to cancel."""
    return paths.run / "slurm-cancel.json"


def known(paths: Paths) -> set[str]:
    """Return the jobs that the hub knows, from its database and its list of cancellations."""
    found = set(jobs_of(paths).values())
    with contextlib.suppress(OSError, ValueError):
        found |= set(json.loads(waiting_file(paths).read_text()))
    return found


def job_of(paths: Paths, user: str, server: str = "") -> str:
    """Return the job of a person's server; empty where none runs."""
    return jobs_of(paths).get((user, server), "")


def jobs_of(paths: Paths) -> dict[tuple[str, str], str]:
    """Return the servers' jobs, by user and server, also while the hub is down."""
    query = (
        "SELECT users.name, spawners.name, spawners.state FROM spawners"
        " JOIN users ON users.id = spawners.user_id WHERE spawners.state IS NOT NULL"
    )
    found = {}
    for user, server, state in HubDatabase.in_force(paths).rows(query):
        job = (json.loads(state) or {}).get("job_id")
        if job:
            found[user, server] = str(job)
    return found


async def portal_rows(paths: Paths) -> dict[str, Job]:
    """Return the jobs of this portal that SLURM lists, by number.

    Raises
    ------
    SlurmUnavailableError
        SLURM does not answer.
    """
    text = await run_slurm("squeue", "-h", "-a", f"--name={job_name(paths)}", "-o", COLUMNS.format)
    return parse(text)


async def orphans(paths: Paths) -> list[Job]:
    """Return the portal's jobs that no hub knows, the oldest first.

    A job that was submitted just now may not be known yet.

    Raises
    ------
    SlurmUnavailableError
        SLURM does not answer.
    """
    every = await portal_rows(paths)
    mine = known(paths)
    rows = [row for row in every.values() if not over(row) and row.id not in mine]
    return sorted(rows, key=lambda row: row.submitted or 0.0)
