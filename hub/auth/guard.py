"""The door in front of every password: lock-out, known browsers, even answers."""

from __future__ import annotations

import asyncio
import ipaddress
import math
import secrets
from abc import abstractmethod
from collections.abc import Hashable
from typing import Any

from jupyterhub.auth import Authenticator
from sqlalchemy.exc import SQLAlchemyError
from tornado import web
from traitlets import Float, Integer

from hub.auth.lockout import Lockout
from hub.auth.names import is_valid, shown
from labkit.base.units import format_duration

BROWSER_COOKIE = "labhub-browser"
BROWSER_DAYS = 90
ADDRESS_FAILURES = 4  # times an account's
ADDRESS_WAIT = 6
LONGEST_PASSWORD = 1024


class RightPasswordError(web.HTTPError):  # type: ignore[misc]
    """The password was right, and the person must not come in yet; the text says why."""

    def __init__(self, message: str) -> None:
        super().__init__(403, "%s", message)
        self.jupyterhub_message = message


class ClosedError(web.HTTPError):  # type: ignore[misc]
    """The door is closed for a while."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(429, "%s", message)
        self.jupyterhub_message = message
        self.headers = {"Retry-After": str(math.ceil(seconds))}


class PasswordGuard(Authenticator):
    """A mixin for authenticators that check passwords; they write `check_password`.

    Wrong passwords are counted for the account and, four times as many for six times as
    long, for the address. A browser that has logged in to the account before is known by a
    signed cookie and has a count of its own (OWASP's "device cookies"), so that strangers
    who guess at an account do not lock its owner out. All is counted alike for names that do
    not exist.
    """

    failures = Integer(5, config=True, help="Wrong passwords until logins are refused.")
    wait = Float(600, config=True, help="Seconds that the door stays closed.")
    slowest_answer = Float(1.0, config=True, help="A refusal takes at least these seconds.")

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._accounts = Lockout(self.failures, self.wait)
        self._addresses = Lockout(self.failures * ADDRESS_FAILURES, self.wait * ADDRESS_WAIT)

    @abstractmethod
    async def check_password(self, handler: Any, name: str, password: str) -> Any:
        """Return what ``authenticate`` returns; None where the password is wrong.

        Parameters
        ----------
        handler : tornado.web.RequestHandler
            The request.
        name : str
            A valid user name, which need not exist.
        password : str
            What was typed.

        Raises
        ------
        RightPasswordError
            The password is right, but the person may not come in.
        """

    async def authenticate(self, handler: Any, data: dict[str, str]) -> Any:
        """Check a name and a password, unless the door is closed.

        Raises
        ------
        ClosedError
            The door is closed.
        """
        if "username" not in data:
            raise web.HTTPError(400, "The form has no user name")
        name = self.normalize_username(data["username"])
        password = data.get("password", "")
        counters = self._counters(handler, name)
        self._refuse_while_closed(counters)
        for lockout, key in counters:
            lockout.begin(key)
        loop = asyncio.get_running_loop()
        end = loop.time() + self.slowest_answer
        authenticated = None
        try:
            if is_valid(name) and password and len(password) <= LONGEST_PASSWORD:
                authenticated = await self.check_password(handler, name, password)
        except RightPasswordError:
            self._succeeded(counters)
            raise
        except SQLAlchemyError:
            for lockout, key in counters:
                lockout.give_back(key)  # nobody has looked at the password
            raise
        if authenticated is None:
            self.log.warning("Wrong name or password for %s from %s", shown(name), address(handler))
            await asyncio.sleep(end - loop.time())
            return None
        self._succeeded(counters)
        self._remember(handler, name)
        return authenticated

    def _counters(self, handler: Any, name: str) -> list[tuple[Lockout, Hashable]]:
        known = self._known_browser(handler, name)
        if known and not self._accounts.closed_for(known):
            return [(self._accounts, known)]
        counters: list[tuple[Lockout, Hashable]] = [(self._addresses, address(handler))]
        if is_valid(name):
            counters.append((self._accounts, name))
        return counters

    def _refuse_while_closed(self, counters: list[tuple[Lockout, Hashable]]) -> None:
        left = max(lockout.closed_for(key) for lockout, key in counters)
        if not left:
            return
        message = (
            f"Too many failed attempts. Try again in {format_duration(60 * math.ceil(left / 60))}"
            " or from a browser that has logged in before."
        )
        raise ClosedError(message, left)

    def _succeeded(self, counters: list[tuple[Lockout, Hashable]]) -> None:
        for lockout, key in counters:
            if lockout is self._addresses:
                lockout.give_back(key)  # one person's success does not clear the others
            else:
                lockout.forget(key)

    def _known_browser(self, handler: Any, name: str) -> tuple[str, str] | None:
        value = handler.get_secure_cookie(BROWSER_COOKIE, max_age_days=BROWSER_DAYS) or b""
        owner, _, token = value.decode("ascii", "replace").partition(":")
        return (name, token) if token and owner == name else None

    def _remember(self, handler: Any, name: str) -> None:
        known = self._known_browser(handler, name)
        token = known[1] if known else secrets.token_hex(16)
        handler._set_cookie(
            BROWSER_COOKIE,
            f"{name}:{token}",
            path=handler.hub.base_url,
            expires_days=BROWSER_DAYS,
        )


def address(handler: Any) -> str:
    """Return where a request comes from; of an IPv6 address the /64, which one person has.

    tornado believes ``X-Real-IP``, which the proxy passes on as it came: anybody could
    write a new address for each attempt. The last entry of ``X-Forwarded-For`` is the
    proxy's own; entries of this machine stand for further proxies on it.
    """
    chain = handler.request.headers.get("X-Forwarded-For", "").split(",")
    address = None
    for entry in reversed(chain):
        try:
            address = ipaddress.ip_address(entry.strip())
        except ValueError:
            break
        address = getattr(address, "ipv4_mapped", None) or address
        if not address.is_loopback:
            break
    if address is None:
        return "this machine"
    if address.version == 6:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
