"""Logging in under strict names, at the hub's own address alone: what all methods inherit."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from jupyterhub.auth import Authenticator
from tornado import web
from traitlets import Unicode

from hub.auth import overrides
from hub.auth.names import is_valid


def refuse_elsewhere(handler: Any, address: str) -> None:
    """Refuse a request that came to another host than the hub's own.

    Raises
    ------
    tornado.web.HTTPError
        403, naming the right address.
    """
    if address and handler.request.host_name != urlsplit(address).hostname:
        raise web.HTTPError(403, f"Log in at {address}")


class StrictNames(Authenticator):
    """A mixin: names become a Unix account, a host name, a path; nothing else may pass.

    And people log in at the hub's own address alone: JupyterHub answers on every user's
    origin, too, where a session would be at hand for the pages of that user's server.
    """

    address = Unicode("", config=True, help="The hub's own address; empty: any will do.")

    def get_handlers(self, app: Any) -> list[Any]:
        """Return the stricter ones of JupyterHub's own handlers, then the login's."""
        return [*overrides.handlers(), *super().get_handlers(app)]

    async def get_authenticated_user(self, handler: Any, data: Any) -> Any:
        """Authenticate, at the hub's own address.

        Raises
        ------
        tornado.web.HTTPError
            403: the browser is at another one.
        """
        refuse_elsewhere(handler, self.address)
        return await super().get_authenticated_user(handler, data)

    def normalize_username(self, username: str) -> str:
        """Lower-case an ASCII name; others stay, and are refused.

        Unicode's lower case would turn look-alikes into letters (the Kelvin sign into k).
        """
        return username.lower() if username.isascii() else username

    def validate_username(self, username: str) -> bool:
        """Whether JupyterHub may know a user of this name."""
        return is_valid(username)
