"""The people of the portal, by the way in which they log in."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Protocol

from jupyterhub import orm

from hub.auth import signup_people
from hub.auth.names import RULE, is_valid
from hub.auth.passwords import problems as password_problems
from hub.labfile.schema import Settings
from hub.portal.control import Control, user_servers
from hub.sandbox import AccountError, accounts_of
from hub.state.paths import Paths
from hub.supervisor.client import Supervisor
from labkit.base.problems import Problem, ProblemsError


@dataclass(frozen=True)
class Entry:
    """One person, for ``labhub user list``.

    Attributes
    ----------
    name : str
        User name.
    can_log_in : bool
        False: no password is set, or nobody has approved them.
    admin : bool
        Administrator of the portal.
    servers : int
        User servers that run now.
    home : str
        Home folder; empty where there is none yet.
    """

    name: str
    can_log_in: bool
    admin: bool
    servers: int
    home: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)


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
        if not self._paths.database.exists():
            text, hint = "the portal has not run yet", "start it once: labhub up"
            raise ProblemsError([Problem(str(self._paths.database), text, hint)])
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


def entries(settings: Settings, paths: Paths) -> list[Entry]:
    """Return everybody; where an identity provider has them, those who have been here."""
    known = _hub_users(paths)
    running: dict[str, int] = {}
    for server in user_servers(paths):
        running[server.user] = running.get(server.user, 0) + 1
    if settings.authentication.effective_method in ("pam", "signup"):
        rows = directory(settings, paths).rows()
    else:
        rows = [(name, True, "") for name in known]
    admins = {name for name, admin in known.items() if admin} | set(settings.admins)
    return [
        Entry(name, can_log_in, name in admins, running.get(name, 0), home)
        for name, can_log_in, home in sorted(rows)
    ]


def forget(name: str, settings: Settings, paths: Paths) -> bool:
    """Stop a person's servers and delete their hub user, with its tokens and rights.

    Who later gets the same name starts anew.

    Returns
    -------
    bool
        Whether the hub knew the person.

    Raises
    ------
    ControlError
        The hub runs, but does not answer.
    """
    if Supervisor(paths).running():
        return Control(settings, paths).delete_user(name)
    if not paths.database.exists():
        return False
    with orm.new_session_factory(f"sqlite:///{paths.database}")() as db:
        user = orm.User.find(db, name)
        if user is None:
            return False
        db.delete(user)
        db.commit()
    return True


def check_new(name: str, password: str | None) -> None:
    """Refuse a name or a password that the portal would not take.

    Raises
    ------
    ProblemsError
        With all that is wrong.
    """
    found = [] if is_valid(name) else [Problem(repr(name), "cannot be a user name", RULE)]
    if password is not None:
        found += [Problem("password", text) for text in password_problems(password, password, name)]
    if found:
        raise ProblemsError(found)


def _hub_users(paths: Paths) -> dict[str, bool]:
    """Return the hub's users, and whether they are administrators."""
    import sqlite3

    if not paths.database.exists():
        return {}
    db = sqlite3.connect(f"{paths.database.as_uri()}?mode=ro", uri=True, timeout=5)
    try:
        return {name: bool(admin) for name, admin in db.execute("SELECT name, admin FROM users")}
    except sqlite3.OperationalError:
        return {}
    finally:
        db.close()


def _no_such(name: str) -> AccountError:
    return AccountError(f"nobody of the name {name!r} has signed up; see: labhub user list")
