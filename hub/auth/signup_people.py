"""The people of the sign-up method: who asked, who was let in, and their passwords."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from jupyterhub import orm
from nativeauthenticator.orm import UserInfo
from sqlalchemy import inspect
from sqlalchemy.orm import Session

from hub.auth.passwords import hashed
from hub.state.database import HubDatabase
from hub.state.paths import Paths


@dataclass(frozen=True)
class Person:
    """One row of the sign-up database.

    Attributes
    ----------
    name : str
        User name.
    email : str
        As the person wrote it; nobody checked it. May be empty.
    approved : bool
        Whether an administrator let them in.
    """

    name: str
    email: str
    approved: bool


class People:
    """The sign-up database.

    Parameters
    ----------
    db : Session
        A session on the hub's database: the hub's own, or one of `opened`.
    """

    def __init__(self, db: Session) -> None:
        self._db = db

    def find(self, name: str) -> Person | None:
        """Return a person, or None."""
        row = self._row(name)
        return _person(row) if row else None

    def password_hash(self, name: str) -> bytes | None:
        """Return what to check a password against; None where there is nobody."""
        row = self._row(name)
        return bytes(row.password) if row else None

    def list(self) -> list[Person]:
        """Return everybody, by name."""
        rows = self._db.query(UserInfo).populate_existing().order_by(UserInfo.username)
        return [_person(row) for row in rows]

    def waiting(self) -> int:
        """Return how many people wait for approval."""
        return int(self._db.query(UserInfo).filter(UserInfo.is_authorized.is_(False)).count())

    def add(
        self, name: str, password: str | bytes, email: str = "", approved: bool = False
    ) -> None:
        """Add a person, or give one who is there a new password and standing.

        Parameters
        ----------
        name : str
            A valid user name.
        password : str or bytes
            The password, or its hash.
        email : str
            What the person wrote; empty is fine.
        approved : bool
            Whether they may log in at once.
        """
        row = self._row(name)
        if row is None:
            row = UserInfo(username=name)
            self._db.add(row)
        row.password = password if isinstance(password, bytes) else hashed(password)
        row.email = email or row.email
        row.is_authorized = approved
        self._db.commit()

    def approve(self, name: str, approved: bool = True) -> bool:
        """Let a person in, or no longer; False where there is nobody of this name."""
        row = self._row(name)
        if row is None:
            return False
        row.is_authorized = approved
        self._db.commit()
        return True

    def set_password(self, name: str, password: str | bytes) -> bool:
        """Set a password (or its hash); False where there is nobody of this name."""
        row = self._row(name)
        if row is None:
            return False
        row.password = password if isinstance(password, bytes) else hashed(password)
        self._db.commit()
        return True

    def remove(self, name: str) -> bool:
        """Forget a person; their files stay. False where there is nobody of this name."""
        row = self._row(name)
        if row is None:
            return False
        self._db.delete(row)
        self._db.commit()
        return True

    def _row(self, name: str) -> UserInfo | None:
        # The command line may have written since the hub last read.
        query = self._db.query(UserInfo).populate_existing()
        return query.filter(UserInfo.username == name).first()


@contextmanager
def opened(paths: Paths) -> Iterator[People]:
    """Open the sign-up database outside the hub, also while the hub runs.

    Raises
    ------
    FileNotFoundError
        The hub has not run yet.
    """
    database = HubDatabase.in_force(paths)
    if not database.exists():
        raise FileNotFoundError(f"{database.place} is not there: start the portal once")
    with database.session() as db:
        make_table(db.get_bind())
        yield People(db)


def make_table(bind: object) -> None:
    """Make the table where it is missing."""
    UserInfo.metadata.tables[UserInfo.__tablename__].create(bind, checkfirst=True)


def approved_admins(db: Session) -> list[str]:
    """Return the administrators who can log in."""
    if not inspect(db.get_bind()).has_table(UserInfo.__tablename__):
        return []
    query = db.query(orm.User.name).join(UserInfo, UserInfo.username == orm.User.name)
    rows = query.filter(orm.User.admin, UserInfo.is_authorized).order_by(orm.User.name)
    return [str(name) for (name,) in rows]


def end_sessions(db: Session, user: orm.User) -> None:
    """End a person's logins and tokens everywhere; running servers stay until stopped."""
    user.cookie_id = secrets.token_hex(16)
    for token in list(user.api_tokens):
        db.delete(token)
    db.commit()


def _person(row: UserInfo) -> Person:
    return Person(str(row.username), str(row.email or ""), bool(row.is_authorized))
