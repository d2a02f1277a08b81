"""The people of the portal and what they have in the hub: listing them, and forgetting one."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from jupyterhub import orm

from hub.auth.accounts import directory
from hub.labfile.schema import Settings
from hub.portal.control import Control, user_servers
from hub.state.database import HubDatabase
from hub.state.paths import Paths
from hub.supervisor.client import Supervisor


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
    database = HubDatabase.of(settings, paths)
    if not database.exists():
        return False
    with database.session() as db:
        user = orm.User.find(db, name)
        if user is None:
            return False
        db.delete(user)
        db.commit()
    return True


def _hub_users(paths: Paths) -> dict[str, bool]:
    """Return the hub's users, and whether they are administrators."""
    rows = HubDatabase.in_force(paths).rows("SELECT name, admin FROM users")
    return {str(name): bool(admin) for name, admin in rows}
