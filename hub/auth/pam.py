"""Log in with the Unix account of this machine."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from jupyterhub import orm
from jupyterhub.auth import PAMAuthenticator
from traitlets import Unicode, default

from hub.auth import unix
from hub.auth.guard import PasswordGuard, RightPasswordError
from hub.auth.strict_names import StrictNames

# PAM takes as long for a name that does not exist as for a wrong password. This one has a
# character that no account can have.
_NOBODY = "labhub:nobody"


class UnixAuthenticator(StrictNames, PasswordGuard, PAMAuthenticator):
    """PAM, for the members of one Unix group and the lab file's admins.

    System accounts and those without a shell never get as far as their password.
    """

    unix_group = Unicode("labhub", config=True, help="Members of this Unix group may log in.")

    @default("any_allow_config")
    def _group_is_a_rule(self) -> bool:
        return True

    @default("executor")
    def _threads_for_slow_refusals(self) -> ThreadPoolExecutor:
        # PAM makes a wrong password wait about 3 seconds, in the thread.
        return ThreadPoolExecutor(16, thread_name_prefix="pam")

    async def check_password(self, handler: Any, name: str, password: str) -> Any:
        """Ask PAM, then look at the group."""
        refusal = await asyncio.to_thread(unix.refusal, name)
        if refusal:
            self.log.warning("Login as %s refused: %s", name, refusal)
        data = {"username": _NOBODY if refusal else name, "password": password}
        authenticated = await self.unguarded(handler, data)
        if authenticated is None or refusal:
            return None
        if not await asyncio.to_thread(self._may_enter, name):
            raise RightPasswordError(
                f"Your Unix account is not in the group {self.unix_group}, which may use this"
                f" portal. An administrator can add it: labhub user add {name} --no-password"
            )
        return authenticated

    async def unguarded(self, handler: Any, data: dict[str, str]) -> str | None:
        """Ask PAM alone: no lock-out, no group."""
        authenticated: str | None = await PAMAuthenticator.authenticate(self, handler, data)
        return authenticated

    def check_allowed(self, username: str, authentication: Any = None) -> bool:  # noqa: ARG002
        """Let the group's members and the lab file's admins in."""
        return unix.refusal(username) is None and self._may_enter(username)

    async def refresh_user(self, user: Any, handler: Any = None) -> bool:  # noqa: ARG002
        """End the session of a person who was taken out of the group."""
        return await asyncio.to_thread(self.check_allowed, user.name)

    async def add_user(self, user: Any) -> None:
        """Refuse a name without a Unix account; at start, only say so.

        Raises
        ------
        ValueError
            An administrator or a login brings a name that cannot log in.
        """
        refusal = unix.refusal(user.name) if self.validate_username(user.name) else "invalid name"
        if refusal and isinstance(user, orm.User):  # from the database or the lab file
            self.log.warning("User %s cannot log in: %s", user.name, refusal)
        elif refusal:
            raise ValueError(f"{user.name} cannot be a user: {refusal}")

    def _may_enter(self, name: str) -> bool:
        return name in self.admin_users or unix.is_member(name, self.unix_group)
