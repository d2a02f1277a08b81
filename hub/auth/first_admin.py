"""The one-time link: how the first person gets in, without any default password."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
from datetime import timedelta
from typing import Any

from jupyterhub import orm
from sqlalchemy import inspect

from hub.auth import unix
from hub.auth.signup_people import approved_admins
from hub.labfile.schema import Settings
from hub.state.database import HubDatabase
from hub.state.paths import Paths
from labkit.base import files
from labkit.base.problems import Problem, ProblemsError

LIFETIME = timedelta(hours=24)
PAGE = "link"
_FILE = "login_link.json"
_PROMISE_COOKIE = "labhub-first-admin"
_PROMISE_SECONDS = 15 * 60


def new_link(paths: Paths, settings: Settings, again: bool = False) -> str:
    """Make a one-time link; an earlier one that nobody used ends.

    Parameters
    ----------
    paths : Paths
        Where the portal keeps its state: only the token's hash is written, mode 0600.
    settings : Settings
        The lab file.
    again : bool
        Make one although there is an administrator: for the command line, whose caller can
        read and write the state folder anyhow.

    Returns
    -------
    str
        The address. The token stands behind a ``#``, which browsers keep to themselves: it
        reaches no log, no proxy and no preview of a link.

    Raises
    ------
    ProblemsError
        There is an administrator who can log in.
    """
    known = [] if again or method_of(settings) == "owner" else administrators(paths, settings)
    if known:
        raise ProblemsError(
            [
                Problem(
                    "administrators",
                    f"{', '.join(known)} can log in already",
                    "log in as one of them, or ask for a link all the same: labhub login",
                )
            ]
        )
    token = secrets.token_urlsafe(32)
    record = {"hash": _hash(token), "expires": time.time() + LIFETIME.total_seconds()}
    paths.secrets.mkdir(mode=0o700, parents=True, exist_ok=True)
    files.write_atomic(paths.secrets / _FILE, json.dumps(record), mode=0o600, sync=True)
    return f"{settings.url}/hub/{PAGE}#{token}"


def is_good(paths: Paths, token: str) -> bool:
    """Whether a token is the one that waits, and in time; does not use it up."""
    try:
        record = json.loads((paths.secrets / _FILE).read_text())
        known, expires = str(record["hash"]), float(record["expires"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return hmac.compare_digest(_hash(token), known) and time.time() < expires


def spend(paths: Paths, token: str) -> bool:
    """Use a token up: true for one caller, once."""
    if not is_good(paths, token):
        return False
    try:
        (paths.secrets / _FILE).unlink()
    except FileNotFoundError:
        return False
    return True


def administrators(paths: Paths, settings: Settings) -> list[str]:
    """Return the administrators who can log in; those in the lab file alone may be nobody yet."""
    method = method_of(settings)
    named: list[str] = []
    database = HubDatabase.of(settings, paths)
    if database.exists():
        with database.session() as db:
            if method == "signup":
                return approved_admins(db)
            if inspect(db.get_bind()).has_table(orm.User.__tablename__):
                query = db.query(orm.User.name).filter(orm.User.admin)
                named = [str(name) for (name,) in query]
    if method == "signup":
        return []
    if method == "pam":
        group = settings.authentication.unix_group
        everybody = {*named, *settings.admins}
        return sorted(
            name
            for name in everybody
            if unix.refusal(name) is None
            and (name in settings.admins or unix.is_member(name, group))
        )
    return sorted({*named, *settings.admins})


def method_of(settings: Settings) -> str:
    """Return the method in force."""
    return settings.authentication.effective_method


class Promises:
    """For sign-on: the browser that used the link makes its next login an administrator's.

    Kept in memory for a quarter of an hour, and for one login.
    """

    def __init__(self) -> None:
        self._open: dict[str, float] = {}

    def make(self, handler: Any) -> None:
        """Promise it to the browser behind a request."""
        token = secrets.token_urlsafe(32)
        self._open = {_hash(token): time.monotonic() + _PROMISE_SECONDS}
        handler._set_cookie(
            _PROMISE_COOKIE, token, path=handler.hub.base_url, max_age=_PROMISE_SECONDS
        )

    def keep(self, handler: Any) -> bool:
        """Whether the promise was made to this browser; it ends with the answer."""
        token = (handler.get_secure_cookie(_PROMISE_COOKIE) or b"").decode("ascii", "replace")
        if not token:
            return False
        handler.clear_cookie(_PROMISE_COOKIE, path=handler.hub.base_url)
        return time.monotonic() < self._open.pop(_hash(token), 0.0)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
