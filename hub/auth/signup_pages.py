"""The pages of the sign-up method: ask to be let in, let people in, change a password."""

from __future__ import annotations

import asyncio
import os
import re
from typing import Any

from jupyterhub.handlers.base import BaseHandler
from jupyterhub.scopes import needs_scope
from tornado import web

from hub.auth import unix
from hub.auth.guard import LONGEST_PASSWORD, address
from hub.auth.passwords import SHORTEST, hashed, matches, problems
from hub.auth.signup_people import end_sessions

MOST_WAITING = 200
_MAIL = re.compile(r"[A-Za-z0-9.+_-]{1,60}@[A-Za-z0-9._-]{1,60}\.[A-Za-z]{2,7}")


class SignupHandler(BaseHandler):  # type: ignore[misc]
    """``/hub/signup``: a name, a password, an e-mail address to be known by."""

    async def get(self) -> None:
        """Show the form."""
        if self.current_user:
            self.redirect(self.get_next_url(self.current_user))
            return
        await self._show()

    async def post(self) -> None:
        """Keep the request until an administrator decides."""
        authenticator = self.authenticator
        where = address(self)
        if authenticator.signups.closed_for(where):
            await self._show(["Too many requests from your network. Try again in an hour."], 429)
            return
        name = authenticator.normalize_username(self.get_body_argument("username", "", strip=False))
        password, again = two_passwords(self)
        email = self.get_body_argument("email", "")
        wrong = [*authenticator.name_problems(name), *problems(password, again, name)]
        if email and not _MAIL.fullmatch(email):
            wrong.append("The e-mail address does not look like one.")
        if not wrong and authenticator.people.waiting() >= MOST_WAITING:
            wrong.append("Too many requests are waiting. Ask an administrator to look at them.")
        if wrong:
            await self._show(wrong, 400, name, email)
            return
        authenticator.signups.begin(where)
        secret = await asyncio.to_thread(hashed, password)
        if authenticator.people.find(name):  # while we were counting
            await self._show(authenticator.name_problems(name), 400, name, email)
            return
        authenticator.people.add(name, secret, email)
        self.log.info("%s asks to be let in", name)
        self.finish(await self.render_template("signup.html", asked=name, hide_login=True))

    async def _show(
        self, wrong: list[str] | None = None, status: int = 200, name: str = "", email: str = ""
    ) -> None:
        self.set_status(status)
        page = await self.render_template(
            "signup.html",
            problems=wrong or [],
            username=name[:64],
            email=email[:128],
            shortest=SHORTEST,
        )
        self.finish(page)


class PeopleHandler(BaseHandler):  # type: ignore[misc]
    """``/hub/people``: let people in, refuse them, put them out, give a new password."""

    @needs_scope("admin:users")  # type: ignore[untyped-decorator]
    async def get(self) -> None:
        """Show who waits and who is in."""
        await self._show()

    @needs_scope("admin:users")  # type: ignore[untyped-decorator]
    async def post(self) -> None:
        """Do one of them, for one person; the base class checks ``_xsrf``."""
        people = self.authenticator.people
        name = self.get_body_argument("name", "")
        action = self.get_body_argument("action", "")
        person = people.find(name)
        if person is None:
            await self._show(["Nobody of this name is there any more."], 404)
            return
        mine = self.current_user is not None and name == self.current_user.name
        if mine and action in ("close", "refuse"):
            await self._show(["You cannot put yourself out."], 400)
            return
        if action == "approve":
            people.approve(name)
        elif action == "close":
            people.approve(name, False)
            await self._put_out(name)
        elif action == "refuse" and not person.approved:
            people.remove(name)
            await self._put_out(name)
        elif action == "password":
            password, again = two_passwords(self)
            wrong = problems(password, again, name)
            if wrong:
                await self._show(wrong, 400)
                return
            people.set_password(name, await asyncio.to_thread(hashed, password))
            if not mine:
                self._end_sessions(name)
        else:
            raise web.HTTPError(400, "No such action")
        self.log.info("%s: %s by %s", name, action, self.current_user.name)
        self.redirect(f"{self.hub.base_url}people#person-{name}")

    async def _put_out(self, name: str) -> None:
        user = self.find_user(name)
        if user is None:
            return
        self._end_sessions(name)
        for server, spawner in list(user.spawners.items()):
            if spawner.active and not spawner.pending:
                await self.stop_single_user(user, server)

    def _end_sessions(self, name: str) -> None:
        user = self.find_user(name)
        if user is not None:
            end_sessions(self.db, user.orm_user)

    async def _show(self, wrong: list[str] | None = None, status: int = 200) -> None:
        self.set_status(status)
        everybody = self.authenticator.people.list()
        admins = set(self.authenticator.admin_users)
        root = os.geteuid() == 0
        page = await self.render_template(
            "people.html",
            problems=wrong or [],
            waiting=[p for p in everybody if not p.approved],
            approved=[p for p in everybody if p.approved],
            would_be_admin=admins,
            has_account={p.name for p in everybody if root and unix.exists(p.name)},
            shortest=SHORTEST,
            page="people",
        )
        self.finish(page)


class PasswordHandler(BaseHandler):  # type: ignore[misc]
    """``/hub/password``: change one's own password."""

    @web.authenticated
    async def get(self) -> None:
        """Show the form."""
        await self._show()

    @web.authenticated
    async def post(self) -> None:
        """Change it; other browsers are logged out."""
        user = self.current_user
        authenticator = self.authenticator
        counter = ("password", user.name)
        if authenticator.signups.closed_for(counter):
            await self._show(["Too many attempts. Try again in an hour."], 429)
            return
        old = self.get_body_argument("old", "", strip=False)[:LONGEST_PASSWORD]
        password, again = two_passwords(self)
        authenticator.signups.begin(counter)
        known = authenticator.people.password_hash(user.name)
        if not await asyncio.to_thread(matches, old, known):
            await self._show(["That is not your present password."], 400)
            return
        authenticator.signups.forget(counter)
        wrong = problems(password, again, user.name)
        if wrong:
            await self._show(wrong, 400)
            return
        authenticator.people.set_password(user.name, await asyncio.to_thread(hashed, password))
        user.orm_user.cookie_id = os.urandom(16).hex()
        self.db.commit()
        self.set_hub_cookie(user)
        await self._show(done=True)

    async def _show(
        self, wrong: list[str] | None = None, status: int = 200, done: bool = False
    ) -> None:
        self.set_status(status)
        page = await self.render_template(
            "password.html", problems=wrong or [], done=done, shortest=SHORTEST, page="password"
        )
        self.finish(page)


def two_passwords(handler: Any) -> tuple[str, str]:
    """Return a new password and its repetition as they were typed.

    tornado's own reading would turn control characters into spaces.
    """

    def field(key: str) -> str:
        value: bytes = handler.request.body_arguments.get(key, [b""])[-1]
        return value.decode("utf-8", "replace")[:LONGEST_PASSWORD]

    return field("password"), field("password_again")
