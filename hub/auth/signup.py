"""Sign up with a name and a password; an administrator lets people in."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from nativeauthenticator import NativeAuthenticator
from traitlets import Unicode, default

from hub.auth import overrides, unix
from hub.auth.guard import PasswordGuard, RightPasswordError
from hub.auth.lockout import Lockout
from hub.auth.names import RULE
from hub.auth.passwords import matches
from hub.auth.signup_pages import PasswordHandler, PeopleHandler, SignupHandler
from hub.auth.signup_people import People, make_table
from hub.auth.strict_names import StrictNames

SIGNUPS = 10  # from one address ...
SIGNUPS_WAIT = 3600.0  # ... within an hour


class SignupAuthenticator(StrictNames, PasswordGuard, NativeAuthenticator):
    """NativeAuthenticator's database, with pages and rules of the portal's own.

    Its pages need what JupyterHub 6 no longer has (``statsd``); it lets in without approval
    whoever first signs up under an administrator's name, approves by GET, and hashes in the
    hub's event loop.
    """

    unix_group = Unicode("labhub", config=True, help="The portal's Unix accounts are in it.")

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.signups = Lockout(SIGNUPS, SIGNUPS_WAIT)

    @default("db")
    def _same_session_as_the_hub(self) -> Any:
        return self._deprecated_db_session

    @default("any_allow_config")
    def _approval_is_a_rule(self) -> bool:
        return True

    def add_new_table(self) -> None:
        """Make NativeAuthenticator's table where it is missing."""
        make_table(self.db.get_bind())

    @property
    def people(self) -> People:
        """Who signed up."""
        return People(self.db)

    def get_handlers(self, app: Any) -> list[Any]:
        """Return the login, sign-up, approval and password pages."""
        return [
            *overrides.handlers(),
            *super(NativeAuthenticator, self).get_handlers(app),
            (r"/signup", SignupHandler),
            (r"/people", PeopleHandler),
            (r"/password", PasswordHandler),
        ]

    async def check_password(self, handler: Any, name: str, password: str) -> Any:  # noqa: ARG002
        """Compare with the hash; a name that nobody has takes as long."""
        known = self.people.password_hash(name)
        if not await asyncio.to_thread(matches, password, known):
            return None
        person = self.people.find(name)
        if person is None or not person.approved:
            raise RightPasswordError(
                "Your request still waits for an administrator's approval. Try again later."
            )
        return name

    def check_allowed(self, username: str, authentication: Any = None) -> bool:  # noqa: ARG002
        """Let in who was approved."""
        person = self.people.find(username)
        return person is not None and person.approved

    async def refresh_user(self, user: Any, handler: Any = None) -> bool:  # noqa: ARG002
        """End the session of a person who is no longer approved."""
        return self.check_allowed(user.name)

    async def authenticate(self, handler: Any, data: dict[str, str]) -> Any:
        """Go through the guard, not through NativeAuthenticator's own counting."""
        return await PasswordGuard.authenticate(self, handler, data)

    def validate_username(self, username: str) -> bool:
        """Apply the portal's rule alone, which is the stricter one."""
        return StrictNames.validate_username(self, username)

    def name_problems(self, name: str) -> list[str]:
        """Say why nobody can sign up under a name; nothing where they can."""
        if not self.validate_username(name):
            return [RULE]
        # Where servers run under Unix accounts, a name means an account.
        if self.people.find(name) or (os.geteuid() == 0 and unix.taken(name, self.unix_group)):
            return [f"The name {name} is taken: choose another one."]
        return []
