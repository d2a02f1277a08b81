"""Handlers of JupyterHub's own that are stricter here.

JupyterHub asks the authenticator's handlers first, and those of ``extra_handlers`` last: what
shall go before its own comes with the authenticator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from jupyterhub.apihandlers.users import UserServerAPIHandler, UserTokenListAPIHandler
from jupyterhub.handlers.login import LogoutHandler
from jupyterhub.orm import APIToken
from jupyterhub.utils import utcnow
from tornado import web

_TOKENS = 100  # that a person has asked for and that have not ended
_NOTE = 500  # characters of a token's note


def handlers() -> list[Any]:
    """Return them, for an authenticator's ``get_handlers``."""
    return [
        (r"/api/users/([^/]+)/tokens", Tokens),
        (r"/api/users/([^/]+)/servers/([^/]*)", NamedServer),
        (r"/logout", Logout),
    ]


class Logout(LogoutHandler):  # type: ignore[misc]
    """``/hub/logout``: a link. Where a page of another origin leads here, the person is asked."""

    async def get(self) -> None:
        """Log out, or ask."""
        if self._is_foreign():
            self.set_header("Cache-Control", "no-store")
            self.finish(await self.render_template("ask_logout.html"))
            return
        self.logged_out = self.current_user  # for the audit log
        await super().get()

    def _is_foreign(self) -> bool:
        site = self.request.headers.get("Sec-Fetch-Site")
        if site is not None:
            return site not in ("same-origin", "none")
        # An old browser does not say, but sends the page's address.
        sender = self.request.headers.get("Referer", "")
        return urlsplit(sender).netloc not in ("", self.request.host)


class Tokens(UserTokenListAPIHandler):  # type: ignore[misc]
    """``/hub/api/users/NAME/tokens``: limited in their notes and number."""

    async def post(self, user_name: str) -> None:
        """Make a token.

        Raises
        ------
        tornado.web.HTTPError
            The note is too long, or there are too many tokens.
        """
        body = self.get_json_body()
        note = body.get("note") if isinstance(body, dict) else None
        if note is not None and (not isinstance(note, str) or len(note) > _NOTE):
            raise web.HTTPError(400, f"A token's note is a text of at most {_NOTE} characters.")
        await super().post(user_name)

    def get_scope_filter(self, req_scope: str) -> Callable[..., bool]:
        """Return who may be given a token: somebody whom the asker may, and who has few."""
        may: Callable[..., bool] = super().get_scope_filter(req_scope)

        def check(user: Any, kind: str) -> bool:
            allowed = may(user, kind=kind)
            # After the rights: to a stranger it would say who has tokens.
            if allowed and self.request.method == "POST" and self._alive(user.id) >= _TOKENS:
                raise web.HTTPError(
                    409,
                    f"{user.name} has {_TOKENS} tokens, which is the most. Revoke some that are"
                    " not needed any more on the portal's Token page.",
                )
            return allowed

        return check

    def _alive(self, user: int) -> int:
        # Those of apps and servers come and go by themselves: they are another client's.
        asked_for = self.db.query(APIToken).filter_by(user_id=user, client_id="jupyterhub")
        now = utcnow(with_tz=False)
        alive = (APIToken.expires_at.is_(None)) | (APIToken.expires_at > now)
        return int(asked_for.filter(alive).count())


class NamedServer(UserServerAPIHandler):  # type: ignore[misc]
    """``/hub/api/users/NAME/servers/SERVER``: one that was refused at once was never made."""

    async def post(self, user_name: str, server_name: str = "") -> None:
        """Start a server.

        Raises
        ------
        tornado.web.HTTPError
            It is refused.
        """
        user = self.find_user(user_name)
        known = user is None or not server_name or server_name in user.orm_spawners
        try:
            await super().post(user_name, server_name)
        except web.HTTPError as error:
            if not known and 400 <= error.status_code < 500:
                self._forget(user, server_name)
            raise

    def _forget(self, user: Any, server_name: str) -> None:
        record = user.orm_spawners.get(server_name)
        spawner = user.spawners.get(server_name)
        if record is None or (spawner is not None and (spawner.active or spawner.pending)):
            return
        self.db.delete(record)
        user.spawners.pop(server_name, None)
        self.db.commit()
