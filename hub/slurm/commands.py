"""SLURM's programs on the hub's event loop, also as another account: `labkit.slurm` around them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from labkit.slurm.commands import TIMEOUT, answer, environment, find, silent, unstartable


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

    @classmethod
    def of_uid(cls, uid: int) -> Account:
        """Look an account up by its number; KeyError where there is none."""
        return cls.of(pwd.getpwuid(uid).pw_name)


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
    SlurmUnavailableError
        It is missing, took too long or failed.
    SlurmRefusedError
        SLURM has turned the request down.
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
    SlurmUnavailableError, SlurmRefusedError
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
        raise unstartable(name, error) from error
    try:
        async with asyncio.timeout(timeout):
            out, err = await process.communicate(stdin.encode())
    except TimeoutError:
        raise silent(name, timeout) from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    code = -1 if process.returncode is None else process.returncode
    return answer(name, code, out.decode(errors="replace"), err.decode(errors="replace"))
