"""Run a program as the owner of a server, whose job it concerns.

Where the hub is root it gives up its rights for the program. Where it has an account of its
own, one narrow rule of sudo lets it start `as_user.py`, and nothing else, as a member of the
portal's group.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from hub.labfile.schema import Settings
from hub.sandbox import AccountError, accounts_of
from hub.slurm import as_user
from hub.slurm.commands import Account, execute
from labkit.slurm.commands import TIMEOUT, environment, find

HELPER = Path(as_user.__file__).resolve()
PYTHON = "/usr/bin/python3"
SUDO = "/usr/bin/sudo"
TAIL = 8192  # bytes


def account_of(settings: Settings, name: str) -> Account:
    """Return the account of a person who may have servers.

    Raises
    ------
    AccountError
        There is none, it is the system's, or who has it did not prove that by its password and
        it is not in the portal's group.
    """
    accounts = accounts_of(settings)
    entry = accounts.check(name)
    by_password = settings.authentication.effective_method == "pam"
    if not by_password and entry.pw_uid != os.geteuid() and not accounts.is_member(entry):
        raise AccountError(
            f"{name!r} is not in the group {accounts.group!r}, whose members may have servers"
        )
    return Account.of(name)


def sudo_command() -> list[str]:
    """Return what the rule of sudo allows, word for word."""
    return [PYTHON, "-I", "-S", str(HELPER)]


async def as_owner(
    account: Account,
    program: str,
    args: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    stdin: str = "",
    timeout: float = TIMEOUT,
) -> str:
    """Run a program as an account and return what it printed.

    Parameters
    ----------
    account : Account
        Whose rights it gets.
    program : str
        One of `as_user.PROGRAMS`.
    args : sequence of str
        Its arguments.
    env : mapping of str to str, optional
        All of its variables; default: `labkit.slurm.commands.environment`.
    stdin : str
        Its input.
    timeout : float
        Seconds.

    Raises
    ------
    SlurmUnavailableError, SlurmRefusedError
        As `hub.slurm.commands.run_slurm`.
    """
    if program not in as_user.PROGRAMS:
        raise ValueError(f"{program!r} is not run for users; only {', '.join(as_user.PROGRAMS)}")
    variables = dict(environment() if env is None else env)
    command = [find(program), *args]
    me = os.geteuid()
    if me == 0:
        return await execute(command, variables, account=account, stdin=stdin, timeout=timeout)
    if me == account.uid:
        return await execute(command, variables, stdin=stdin, timeout=timeout)
    # By stdin: arguments and variables of sudo can be seen by everybody.
    order = json.dumps({"command": command, "env": variables, "stdin": stdin})
    words = [SUDO, "-n", "-u", account.name, "--", *sudo_command()]
    return await execute(words, {"PATH": "/usr/bin:/bin"}, stdin=order, timeout=timeout)


async def read_tail(account: Account, path: str) -> str:
    """Return the end of a file as its owner may read it.

    The hub itself must not open it: its owner could put a link to anybody's file there.

    Raises
    ------
    SlurmUnavailableError
        It cannot be read.
    """
    return await as_owner(account, "tail", ["-c", str(TAIL), "--", path], timeout=5.0)
