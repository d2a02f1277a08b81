"""What this machine's account database says about a name."""

from __future__ import annotations

import grp
import os
import pwd

FIRST_UID = 1000
NOBODY_UID = 65534
_CLOSED_SHELLS = frozenset({"nologin", "false"})


def exists(name: str) -> bool:
    """Whether there is a Unix account of this name."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def refusal(name: str) -> str | None:
    """Say why nobody may use the portal as this Unix account; None where one may.

    Parameters
    ----------
    name : str
        A valid user name (`hub.auth.names.is_valid`).
    """
    try:
        account = pwd.getpwnam(name)
    except KeyError:
        return "there is no such Unix account"
    if account.pw_uid < FIRST_UID or account.pw_uid >= NOBODY_UID:
        return f"it is a system account (uid {account.pw_uid})"
    shell = account.pw_shell or "/bin/sh"
    if os.path.basename(shell) in _CLOSED_SHELLS:  # noqa: PTH119 - a string, not a file
        return f"its shell is {shell}"
    return None


def is_member(name: str, group: str) -> bool:
    """Whether an account is in a Unix group."""
    try:
        account = pwd.getpwnam(name)
        gid = grp.getgrnam(group).gr_gid
    except KeyError:
        return False
    return gid in os.getgrouplist(name, account.pw_gid)


def taken(name: str, group: str) -> bool:
    """Whether a name belongs to an account of this machine that is not the portal's.

    A person whom somebody else vouches for (sign-up, an OIDC provider) must not become
    the owner of such an account's files, nor inherit its rights.
    """
    return exists(name) and (refusal(name) is not None or not is_member(name, group))
