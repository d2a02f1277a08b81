"""The Unix accounts that the portal may use: who may have a server, and as whom."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hub.labfile.fields import USER_NAME
from hub.sandbox.quotas import QuotaError, file_system
from hub.state import trash
from labkit.base.problems import LabkitError

FIRST_UID = 1000
_NOBODY = (65534, 65535)
_MADE_HERE = "Labhub user"  # in the account's comment: made by the portal
_TIMEOUT = 60  # seconds


class AccountError(LabkitError):
    """An account was refused, or could not be made; the text is fit for the person."""


@dataclass(frozen=True)
class Account:
    """One person of the lab, as the machine knows them.

    Attributes
    ----------
    name : str
        Login name.
    uid : int
        Number.
    home : Path
        Home folder.
    locked : bool
        No password is set: they cannot log in by one.
    made_here : bool
        The portal made it, and may remove it.
    """

    name: str
    uid: int
    home: Path
    locked: bool
    made_here: bool


class Accounts:
    """The accounts in the portal's Unix group.

    Parameters
    ----------
    group : str
        Its members are the lab.
    homes : Path
        Where new homes are made.
    """

    def __init__(self, group: str = "labhub", homes: Path = Path("/home")) -> None:
        self.group = group
        self.homes = homes

    # -- who may have a server --------------------------------------------------------

    def check(self, name: str) -> pwd.struct_passwd:
        """Return a person's account, for those who logged in with its password.

        Raises
        ------
        AccountError
            No such account, or one of the system's own.
        """
        entry = _entry(_allowed(name))
        if entry is None:
            raise AccountError(f"there is no account {name!r} on this machine")
        if entry.pw_uid < FIRST_UID or entry.pw_uid in _NOBODY:
            raise AccountError(f"{name!r} is an account of the system, not of a person")
        return entry

    def ensure(self, name: str) -> pwd.struct_passwd:
        """Return a person's account, for those who proved otherwise who they are.

        A new name becomes a new account without a password. One that exists is used only
        if it is in the portal's group: who signs up as ``ubuntu`` must not become it.

        Raises
        ------
        AccountError
            The name is not allowed, or its account is not the portal's to give.
        """
        if _entry(_allowed(name)) is None:
            self._create(name)
        entry = self.check(name)
        if not self.is_member(entry):
            raise AccountError(
                f"the name {name!r} is taken on this machine; an administrator can hand the"
                f" account over with: labhub user add {name}"
            )
        return entry

    def is_member(self, entry: pwd.struct_passwd) -> bool:
        """Whether an account is in the portal's group."""
        try:
            group = grp.getgrnam(self.group)
        except KeyError:
            return False
        return entry.pw_gid == group.gr_gid or entry.pw_name in group.gr_mem

    # -- what an administrator does ---------------------------------------------------

    def add(self, name: str, password: str | None = None) -> Account:
        """Let a person in: make the account, or take one that exists into the group.

        Parameters
        ----------
        name : str
            Login name.
        password : str, optional
            Set it; without, an account that exists keeps its own.

        Raises
        ------
        AccountError
            The name is not allowed, or the system refused.
        """
        entry = _entry(_allowed(name))
        if entry is None:
            self._create(name)
        else:
            self.check(name)
            self._make_group()
            if entry.pw_gecos == _MADE_HERE:
                _run(["usermod", "--expiredate", "", name])
            _run(["usermod", "--append", "--groups", self.group, name])
        if password is not None:
            self.set_password(name, password)
        return self._account(self.check(name))

    def set_password(self, name: str, password: str) -> None:
        """Set the password of a member; it travels by stdin alone.

        Raises
        ------
        AccountError
            Not a member, or the password was refused.
        """
        self._member(name)
        if not password or any(ord(character) < 32 for character in password):
            raise AccountError("a password must not be empty or contain control characters")
        _run(["chpasswd"], f"{name}:{password}\n")

    def remove(self, name: str, keep_home: bool = True) -> None:
        """Take a person out.

        With ``keep_home`` nothing is lost and nothing can be inherited: an account that the
        portal made is locked, so that neither its home nor its number go to the next person;
        `add` opens it again. An account that the portal did not make only leaves the group.

        Raises
        ------
        AccountError
            Not a member; still has processes; or the home of an account that is not the
            portal's own should go.
        """
        entry = self._member(name)
        made_here = entry.pw_gecos == _MADE_HERE
        if keep_home:
            if made_here:
                _run(["usermod", "--lock", "--expiredate", "1", name])
            _run(["gpasswd", "--delete", name, self.group])
        elif made_here:
            self._delete(entry)
        else:
            raise AccountError(
                f"the portal did not make the account {name!r}: remove it with"
                f" 'userdel --remove {name}', or keep its home"
            )

    def empty_trash(self) -> None:
        """Go on to delete the homes of people who are gone; returns at once.

        Raises
        ------
        OSError
            It cannot be started.
        """
        trash.empty(self._trash)

    @property
    def _trash(self) -> Path:
        return self.homes / ".labhub-trash"

    def _delete(self, entry: pwd.struct_passwd) -> None:
        """Delete an account; its home is deleted in the background, whatever its owner made it.

        `userdel` alone recurses as root, and ends in the midst of a large or deep home.
        """
        home = Path(entry.pw_dir)
        self._trash.mkdir(mode=0o700, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f"{entry.pw_name}-", dir=self._trash)) / "home"
        with contextlib.suppress(FileNotFoundError):
            home.rename(aside)
        try:
            home.mkdir(mode=0o700)  # userdel wants to find one
            os.chown(home, entry.pw_uid, entry.pw_gid)
            _run(["userdel", "--remove", entry.pw_name])
        except (OSError, AccountError):
            with contextlib.suppress(OSError):
                home.rmdir()
                aside.rename(home)
            raise
        self.empty_trash()

    def list(self) -> list[Account]:
        """Return the members of the portal's group, by name."""
        try:
            group = grp.getgrnam(self.group)
        except KeyError:
            return []
        entries = {entry.pw_name: entry for entry in pwd.getpwall()}
        members = {name for name, entry in entries.items() if entry.pw_gid == group.gr_gid}
        members.update(name for name in group.gr_mem if name in entries)
        return [self._account(entries[name]) for name in sorted(members)]

    # ---------------------------------------------------------------------------------

    def _member(self, name: str) -> pwd.struct_passwd:
        entry = self.check(name)
        if not self.is_member(entry):
            raise AccountError(f"{name!r} is not a user of this portal")
        return entry

    def _create(self, name: str) -> None:
        home = self.homes / name
        if home.is_symlink() or home.exists():
            raise AccountError(
                f"the folder {home} is already there, of somebody who is gone: an administrator"
                " must move it away first"
            )
        self._make_group()
        command = ["useradd", "--create-home", "--base-dir", str(self.homes)]
        with contextlib.suppress(QuotaError):
            if file_system(self.homes).kind == "btrfs":  # which limits subvolumes alone
                command.append("--btrfs-subvolume-home")
        command += ["--key", "HOME_MODE=0700", "--key", "UMASK=077", "--shell", "/bin/bash"]
        command += ["--user-group", "--groups", self.group, "--comment", _MADE_HERE, name]
        _run(command)
        home.chmod(0o700)

    def _make_group(self) -> None:
        _run(["groupadd", "--force", "--system", self.group])

    def _account(self, entry: pwd.struct_passwd) -> Account:
        return Account(
            name=entry.pw_name,
            uid=entry.pw_uid,
            home=Path(entry.pw_dir),
            locked=_locked(entry.pw_name),
            made_here=entry.pw_gecos == _MADE_HERE,
        )


def system_account(name: str, home: Path, about: str) -> pwd.struct_passwd:
    """Return an account of the portal's own, for a program; it is made where it is missing.

    Nobody can log in to it, and its number is below those of people.

    Parameters
    ----------
    name : str
        The account's name; up to 32 characters.
    home : Path
        Its home, which is not made.
    about : str
        Its comment.

    Raises
    ------
    AccountError
        The system refused, or the account belongs to somebody else.
    """
    entry = _entry(name)
    if entry is None:
        command = ["useradd", "--system", "--no-create-home", "--home-dir", str(home)]
        command += ["--shell", "/usr/sbin/nologin", "--user-group", "--comment", about, name]
        _run(command)
        entry = _entry(name)
    if entry is None or entry.pw_gecos != about or entry.pw_uid == 0:
        raise AccountError(f"the account {name!r} is not the portal's own")
    return entry


def remove_system_account(name: str, about: str) -> None:
    """Remove an account that `system_account` has made; its files stay.

    Raises
    ------
    AccountError
        The system refused.
    """
    entry = _entry(name)
    if entry is not None and entry.pw_gecos == about:
        _run(["userdel", name])


def _allowed(name: str) -> str:
    if not re.fullmatch(USER_NAME.strip("^$"), name) or name == "root":
        raise AccountError(
            "a name has 1 to 31 small letters, digits, '-' and '_', and begins with a letter"
        )
    return name


def _entry(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def _locked(name: str) -> bool:
    try:
        for line in Path("/etc/shadow").read_text().splitlines():
            account, password, *_ = line.split(":")
            if account == name:
                return not password or password[0] in "!*"
    except OSError:
        pass
    return True


def _run(command: list[str], secret: str | None = None) -> None:
    """Run a command of the shadow suite; ``secret`` goes to its stdin."""
    try:
        done = subprocess.run(
            command,
            input=secret if secret is not None else "",
            text=True,
            capture_output=True,
            check=False,
            timeout=_TIMEOUT,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise AccountError(f"{command[0]}: {error}") from error
    if done.returncode:
        raise AccountError(f"{command[0]}: {done.stderr.strip() or 'failed'}")
