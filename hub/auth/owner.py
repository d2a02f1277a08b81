"""Without root: the portal is for the person who started it, and knows no password."""

from __future__ import annotations

import os
import pwd
from typing import Any

from jupyterhub.auth import Authenticator
from tornado import web
from traitlets import Unicode, default

from hub.auth.names import is_valid
from hub.auth.strict_names import StrictNames


def owner_name() -> str:
    """Return the user name of the person who runs the portal.

    A Unix name that is no user name here (``Ada.L``) becomes ``owner``.
    """
    name = pwd.getpwuid(os.geteuid()).pw_name.lower()
    return name if is_valid(name) else "owner"


class OwnerAuthenticator(StrictNames, Authenticator):
    """One person, who comes in by the one-time link that ``labhub login`` prints."""

    owner = Unicode(config=True, help="The one user.")

    @default("any_allow_config")
    def _owner_is_a_rule(self) -> bool:
        return True

    def check_allowed(self, username: str, authentication: Any = None) -> bool:  # noqa: ARG002
        """Let the owner in."""
        return username == self.owner

    async def authenticate(self, handler: Any, data: dict[str, str]) -> None:  # noqa: ARG002
        """Refuse: there is no password that could be right.

        Raises
        ------
        tornado.web.HTTPError
            Always.
        """
        raise web.HTTPError(403, "Nobody logs in here by a password: use the one-time link.")

    async def add_user(self, user: Any) -> None:
        """Refuse everybody else.

        Raises
        ------
        ValueError
            The name is not the owner's.
        """
        if user.name != self.owner:
            raise ValueError(f"this portal is {self.owner}'s alone: other people need root")
