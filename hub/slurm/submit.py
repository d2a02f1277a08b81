"""Submit a user server's job as its owner, so that none is ever lost."""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from hub.labfile.schema import Profile
from hub.labfile.slurm import JobOptions, Slurm
from hub.slurm.commands import Account, run_slurm
from hub.slurm.owner import as_owner
from labkit.slurm.commands import SlurmRefusedError, SlurmUnavailableError
from labkit.slurm.queue import Columns

_ID = re.compile(r"(\d+)(?:;[\w.-]+)?\s*")
_MARKED = Columns(("id", "comment"))
_PLAIN = re.compile(r"/[\w.@+/-]*")  # neither % nor \\, which SLURM would read


@dataclass(frozen=True)
class Order:
    """A job as it is asked for.

    Attributes
    ----------
    name : str
        The jobs of one portal have one name.
    partition : str
        Where.
    profile : Profile
        What it may use.
    log : str
        Its output, a file in its owner's home.
    wanted : JobOptions
        What it asks for besides its size.
    counts_memory : bool
        Whether the cluster counts memory; one that does not may know none of its nodes'.
    """

    name: str
    partition: str
    profile: Profile
    log: str
    wanted: JobOptions = field(default_factory=JobOptions)
    counts_memory: bool = True


def options(order: Order, settings: Slurm, home: str, mark: str) -> list[str]:
    """Return sbatch's arguments.

    Parameters
    ----------
    order : Order
        The job.
    settings : Slurm
        The lab file's section.
    home : str
        The owner's home.
    mark : str
        Names this one submission.

    Raises
    ------
    ValueError
        A path has characters that SLURM would not take as they are.
    """
    for path in (home, order.log):
        if not _PLAIN.fullmatch(path):
            raise ValueError(f"the path {path} has other characters than letters, digits and ._@+-")
    profile = order.profile
    words = [
        "--parsable",
        f"--job-name={order.name}",
        f"--comment={mark}",
        f"--partition={order.partition}",
        f"--time={minutes(settings.time_limit)}",
        "--nodes=1",
        "--ntasks=1",
        f"--cpus-per-task={max(1, math.ceil(profile.cpu))}",
        f"--chdir={home}",
        f"--output={order.log}",
        "--open-mode=truncate",
        "--input=/dev/null",
        # The variables are exactly those that it is given, the limits the node's own.
        "--export=ALL",
        "--propagate=NONE",
        # A server that starts a second time elsewhere would not be found.
        "--no-requeue",
    ]
    wanted = order.wanted
    if order.counts_memory:
        words.append(f"--mem={math.ceil(profile.memory / (1 << 20))}M")
    if profile.gpus:
        kind = f"{wanted.gpu_type}:" if wanted.gpu_type else ""
        words.append(f"--gres=gpu:{kind}{profile.gpus}")
    for name in ("account", "qos", "reservation", "constraint"):
        if value := getattr(wanted, name):
            words.append(f"--{name}={value}")
    if settings.own_nodes:
        words.append("--exclusive=user")
    return words


def minutes(limit: timedelta) -> int:
    """Return a time limit as SLURM counts it: in minutes, rounded up."""
    return max(1, math.ceil(limit.total_seconds() / 60))


async def submit(
    order: Order, settings: Slurm, account: Account, script: str, env: Mapping[str, str]
) -> str:
    """Submit a job as its owner and return its number.

    Parameters
    ----------
    order : Order
        The job.
    settings : Slurm
        The lab file's section.
    account : Account
        Its owner.
    script : str
        What it runs.
    env : mapping of str to str
        Its variables, secrets among them: they travel by sbatch's own.

    Raises
    ------
    SlurmRefusedError
        SLURM does not want it.
    SlurmUnavailableError
        SLURM does not answer, and has no such job as far as can be seen.
    """
    mark = f"labhub-{secrets.token_hex(8)}"
    words = options(order, settings, account.home, mark)
    try:
        said = await as_owner(account, "sbatch", words, env=env, stdin=script)
    except SlurmRefusedError:
        raise
    except SlurmUnavailableError:
        # The answer may have been lost on its way back, after the job was taken.
        found = await _find(order.name, account.name, mark)
        if found:
            return found
        raise
    number = _ID.fullmatch(said)
    if number:
        return number[1]
    found = await _find(order.name, account.name, mark)
    if found:
        return found
    raise SlurmUnavailableError(f"sbatch printed no job number: {said[:80]!r}")


async def _find(name: str, user: str, mark: str) -> str:
    """Return the job that carries a mark; empty where there is none, or no answer."""
    words = ["-h", "-a", f"--user={user}", f"--name={name}", f"--format={_MARKED.format}"]
    try:
        jobs = _MARKED.parse(await run_slurm("squeue", *words))
    except SlurmUnavailableError:
        return ""
    return next((job.id for job in jobs if job.comment.strip() == mark and job.id.isdecimal()), "")
