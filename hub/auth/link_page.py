"""``/hub/link``: what a one-time link opens."""

from __future__ import annotations

import asyncio
from typing import Any

from jupyterhub.handlers.base import BaseHandler

from hub.auth import first_admin, unix
from hub.auth.names import RULE, is_valid
from hub.auth.passwords import SHORTEST, hashed, matches, problems
from hub.auth.signup_pages import two_passwords
from hub.auth.strict_names import refuse_elsewhere
from hub.labfile.schema import Settings
from hub.sandbox import AccountError, accounts_of
from hub.state.paths import Paths

_USED = (
    "This link was used already, is older than a day, or a newer one was made."
    " Make another one with: labhub login"
)


class LinkHandler(BaseHandler):  # type: ignore[misc]
    """Confirm, and come in.

    The token comes behind the ``#`` of the address, which no server sees; the page's script
    puts it into the form. Nothing happens before the form is sent, so that a preview of the
    link does not use it up.
    """

    def initialize(self, settings: Settings, paths: Paths) -> None:
        """Take what the portal is made of."""
        self.lab_settings = settings
        self.paths = paths
        self.method = first_admin.method_of(settings)

    async def get(self) -> None:
        """Show the form."""
        self.set_header("Cache-Control", "no-store")
        await self._show()

    async def post(self) -> None:
        """Do what the link is for; the base class checks ``_xsrf``."""
        refuse_elsewhere(self, self.authenticator.address)
        token = self.get_body_argument("token", "")[:200]
        if not first_admin.is_good(self.paths, token):
            self.log.warning("A one-time link was refused (%s)", self.request.remote_ip)
            await self._show([_USED], 403)
            return
        if self.method == "owner":
            if first_admin.spend(self.paths, token):
                await self._enter(self.authenticator.owner)
            else:
                await self._show([_USED], 403)
        elif self.method in ("pam", "signup"):
            await self._make_administrator(token)
        elif first_admin.spend(self.paths, token):
            self.authenticator.promises.make(self)
            self.redirect(self.authenticator.login_url(self.hub.base_url))
        else:
            await self._show([_USED], 403)

    async def _make_administrator(self, token: str) -> None:
        name = self.authenticator.normalize_username(
            self.get_body_argument("username", "", strip=False)
        )
        password, again = two_passwords(self)
        known = is_valid(name) and self._is_known(name)
        if not is_valid(name):
            wrong = [RULE]
        elif known:
            wrong = await self._own_account(name, password)
        else:
            wrong = problems(password, again, name)
            if self.method == "signup" and unix.exists(name):
                wrong += self.authenticator.name_problems(name)
        if wrong:
            await self._show(wrong, 400, name, token)
            return
        if not first_admin.spend(self.paths, token):
            await self._show([_USED], 403)
            return
        try:
            if self.method == "signup" and known:
                self.authenticator.people.approve(name)
            elif self.method == "signup":
                secret = await asyncio.to_thread(hashed, password)
                self.authenticator.people.add(name, secret, approved=True)
            else:
                accounts = accounts_of(self.lab_settings)
                await asyncio.to_thread(accounts.add, name, None if known else password)
        except AccountError as error:
            self.log.error("The first administrator could not be made: %s", error)
            await self._show([f"{error}. Then make another link: labhub login"], 400, name)
            return
        await self._enter(name)

    def _is_known(self, name: str) -> bool:
        if self.method == "signup":
            return self.authenticator.people.find(name) is not None
        return unix.exists(name)

    async def _own_account(self, name: str, password: str) -> list[str]:
        """Say why an account that exists cannot become the administrator's."""
        if self.method == "signup":
            known = self.authenticator.people.password_hash(name)
            right = await asyncio.to_thread(matches, password, known)
        else:
            refusal = unix.refusal(name)
            if refusal:
                return [f"The account {name} cannot be used: {refusal}."]
            data = {"username": name, "password": password}
            right = await self.authenticator.unguarded(self, data) is not None
        if right:
            return []
        return [
            f"There is an account {name} already: give its own password, or choose another"
            f" name. To set a new password: labhub user passwd {name}"
        ]

    async def _enter(self, name: str) -> None:
        model: dict[str, Any] = {"name": name, "admin": True}
        user = await self.auth_to_user(model)
        self.set_login_cookie(user)
        self.log.info("%s came in by the one-time link", name)
        self.redirect(f"{self.hub.base_url}home")

    async def _show(
        self, wrong: list[str] | None = None, status: int = 200, name: str = "", token: str = ""
    ) -> None:
        self.set_status(status)
        page = await self.render_template(
            "link.html",
            problems=wrong or [],
            method=self.method,
            login_service=self.authenticator.login_service,
            username=name[:64],
            token=token,
            shortest=SHORTEST,
            hide_login=True,
        )
        self.finish(page)
