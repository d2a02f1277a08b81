"""Run SLURM's programs: argument lists, a clean environment, and honest errors."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from labkit.base.problems import LabkitError

TIMEOUT = 30.0  # seconds
# Beside PATH: where ParallelCluster and hand-built clusters have SLURM.
_PLACES = ("/opt/slurm/bin", "/usr/local/bin", "/usr/bin", "/bin")
_REFUSED = re.compile(
    r"invalid|not permitted|denied|violates|unavailable|not available|exceed|too (?:many|large)|"
    r"unrecognized|unknown|cannot be|can not be|not allowed|must be|no such|limit|"
    r"already completing|is not in a state",
    re.IGNORECASE,
)
# These win over the words above: nobody has judged the request.
_SILENT = re.compile(
    r"unable to contact|timed out|connection refused|connection (?:failure|reset)|munge|"
    r"zero bytes|authentication|protocol|backup controller|resolve|try again|"
    r"temporarily|socket|credential",
    re.IGNORECASE,
)


class SlurmUnavailable(LabkitError):
    """SLURM gave no usable answer: nothing is known, and nothing may be concluded.

    After a submission or a cancellation it may have been obeyed all the same.
    """


class SlurmRefused(SlurmUnavailable):
    """SLURM judged the request and turned it down; the text is its reason."""


@dataclass(frozen=True)
class Account:
    """As whom a program runs.

    Attributes
    ----------
    name : str
        Login name.
    uid, gid : int
        Numbers of the account.
    groups : tuple of int
        All its groups.
    home, shell : str
        As the account database has them.
    """

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    shell: str

    @classmethod
    def of(cls, name: str) -> Account:
        """Look an account up; KeyError where there is none."""
        entry = pwd.getpwnam(name)
        groups = tuple(sorted(set(os.getgrouplist(name, entry.pw_gid))))
        return cls(name, entry.pw_uid, entry.pw_gid, groups, entry.pw_dir, entry.pw_shell)


def find(program: str) -> str:
    """Return the path of one of SLURM's programs.

    Raises
    ------
    SlurmUnavailable
        It is not installed.
    """
    places = os.pathsep.join([os.environ.get("PATH", ""), *_PLACES])
    found = shutil.which(program, path=places)
    if found is None:
        raise SlurmUnavailable(
            f"the program {program} is not on this machine: install SLURM's client"
            " (Debian: slurm-client), or put its folder into PATH"
        )
    return found


def environment() -> dict[str, str]:
    """Return the variables for SLURM's programs.

    Options by variable (SBATCH_*, SQUEUE_*, SLURM_JOB_ID, ...) would change what they do or
    print: only the place of slurm.conf is handed on.
    """
    env = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "SLURM_TIME_FORMAT": "%s"}
    if conf := os.environ.get("SLURM_CONF"):
        env["SLURM_CONF"] = conf
    return env


async def run_slurm(program: str, *args: str, timeout: float = TIMEOUT) -> str:
    """Run one of SLURM's programs as the hub's own account and return what it printed.

    Times are printed in seconds since 1970 (``SLURM_TIME_FORMAT=%s``).

    Parameters
    ----------
    program : str
        For example ``squeue``.
    *args : str
        Its arguments; no shell is between.
    timeout : float
        Seconds after which it is killed.

    Raises
    ------
    SlurmUnavailable
        It is missing, took too long or failed.
    SlurmRefused
        It failed with a reason that speaks of the request itself.
    """
    return await execute([find(program), *args], environment(), timeout=timeout)


async def execute(
    command: list[str],
    env: Mapping[str, str],
    *,
    account: Account | None = None,
    stdin: str = "",
    timeout: float = TIMEOUT,
) -> str:
    """Run a command, as another account where the hub is root, and return its output.

    Parameters
    ----------
    command : list of str
        Absolute path and arguments.
    env : mapping of str to str
        All of its variables; its values are never logged.
    account : Account, optional
        Whose rights it gets; needs root.
    stdin : str
        Its input.
    timeout : float
        Seconds after which it is killed.

    Raises
    ------
    SlurmUnavailable, SlurmRefused
        As `run_slurm`.
    """
    name = Path(command[0]).name
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=dict(env),
            cwd="/",
            start_new_session=True,
            umask=0o077,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=account.groups if account else None,
        )
    except OSError as error:
        raise SlurmUnavailable(f"{name} cannot be started: {error.strerror}") from error
    try:
        async with asyncio.timeout(timeout):
            out, err = await process.communicate(stdin.encode())
    except TimeoutError:
        raise SlurmUnavailable(f"{name} did not answer within {timeout:g} s") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode:
        said = " ".join(err.decode(errors="replace").split())[-500:]
        text = f"{name}: {said or f'ended with status {process.returncode}'}"
        if _REFUSED.search(said) and not _SILENT.search(said):
            raise SlurmRefused(text)
        raise SlurmUnavailable(text)
    return out.decode(errors="replace")
