"""Where the accounts of the portal's people are kept, by the way in which they log in."""

from __future__ import annotations

from typing import Any, Protocol

from hub.auth import signup_people
from hub.auth.names import RULE, is_valid
from hub.auth.passwords import problems as password_problems
from hub.labfile.schema import Settings
from hub.sandbox import AccountError, accounts_of
from hub.state.database import HubDatabase
from hub.state.paths import Paths
from labkit.base.problems import Problem, ProblemsError


class Directory(Protocol):
    """Where the people of one way to log in are kept."""

    def add(self, name: str, password: str | None) -> None:
        """Let a person in; without a password one who is there keeps theirs."""

    def set_password(self, name: str, password: str) -> None:
        """Give a person a new password."""

    def remove(self, name: str, keep_home: bool) -> None:
        """Take a person out."""

    def rows(self) -> list[tuple[str, bool, str]]:
        """Return name, whether they can log in, and home of everybody."""


class UnixDirectory:
    """Unix accounts of this machine, in the portal's group."""

    def __init__(self, settings: Settings) -> None:
        self._accounts = accounts_of(settings)

    def add(self, name: str, password: str | None) -> None:
        """Make an account, or take one that exists into the group."""
        self._accounts.add(name, password)

    def set_password(self, name: str, password: str) -> None:
        """Give a member a new password."""
        self._accounts.set_password(name, password)

    def remove(self, name: str, keep_home: bool) -> None:
        """Lock the account or, without its home, delete it."""
        self._accounts.remove(name, keep_home)

    def rows(self) -> list[tuple[str, bool, str]]:
        """Return the members."""
        return [(a.name, not a.locked, str(a.home)) for a in self._accounts.list()]


class SignupDirectory:
    """The sign-up database; a person's Unix account is made when their server starts."""

    def __init__(self, settings: Settings, paths: Paths) -> None:
        self._accounts = accounts_of(settings)
        self._paths = paths

    def add(self, name: str, password: str | None) -> None:
        """Add a person who needs no approval, or approve one who waits."""
        with self._opened() as known:
            if password is not None:
                known.add(name, password, approved=True)
            elif not known.approve(name):
                raise _no_such(name)

    def set_password(self, name: str, password: str) -> None:
        """Give a person a new password."""
        with self._opened() as known:
            if not known.set_password(name, password):
                raise _no_such(name)

    def remove(self, name: str, keep_home: bool) -> None:
        """Forget a person, and lock or delete the account that their server had."""
        with self._opened() as known:
            if not known.remove(name):
                raise _no_such(name)
        if any(account.name == name for account in self._accounts.list()):
            self._accounts.remove(name, keep_home)

    def rows(self) -> list[tuple[str, bool, str]]:
        """Return everybody who signed up."""
        homes = {account.name: str(account.home) for account in self._accounts.list()}
        with self._opened() as known:
            return [(p.name, p.approved, homes.get(p.name, "")) for p in known.list()]

    def _opened(self) -> Any:
        database = HubDatabase.in_force(self._paths)
        if not database.exists():
            text, hint = "the portal has not run yet", "start it once: labhub up"
            raise ProblemsError([Problem(database.place, text, hint)])
        return signup_people.opened(self._paths)


def directory(settings: Settings, paths: Paths) -> Directory:
    """Return where the lab file's people are kept.

    Raises
    ------
    ProblemsError
        People are kept elsewhere, by the identity provider or as the portal's one owner.
    """
    method = settings.authentication.effective_method
    if method == "pam":
        return UnixDirectory(settings)
    if method == "signup":
        return SignupDirectory(settings, paths)
    if method == "owner":
        text = "this portal runs without root and is for the person who started it"
        hint = "for several people start it as root: sudo ./labhub up"
    else:
        text = f"people come from the identity provider ({method}), not from this command"
        hint = "let them in by authentication.oauth in the lab file, then: labhub up"
    raise ProblemsError([Problem("authentication.method", text, hint)])


def check_new(name: str, password: str | None) -> None:
    """Refuse a name or a password that the portal would not take.

    Raises
    ------
    ProblemsError
        With all that is wrong.
    """
    problems = [] if is_valid(name) else [Problem(repr(name), "cannot be a user name", RULE)]
    if password is not None:
        problems += [
            Problem("password", text) for text in password_problems(password, password, name)
        ]
    if problems:
        raise ProblemsError(problems)


def _no_such(name: str) -> AccountError:
    return AccountError(f"nobody of the name {name!r} has signed up; see: labhub user list")
