"""From what a sign-on service says about a person to a user of the portal."""

from __future__ import annotations

import os
import re
from typing import Any

from oauthenticator.oauth2 import OAuthCallbackHandler, OAuthenticator, OAuthLoginHandler
from tornado import web
from tornado.httpclient import HTTPClientError
from traitlets import List, Unicode, default

from hub.auth import unix
from hub.auth.first_admin import Promises
from hub.auth.names import RULE, is_valid, shown
from hub.auth.strict_names import StrictNames

SESSION_DAYS = 1.0
_DOT_INSIDE = re.compile(r"(?<=[a-z0-9])\.(?=[a-z0-9])")
_GROUP = re.compile(r"[^\x00-\x1f\x7f]{1,255}")


class PlainRefusal(web.HTTPError):  # type: ignore[misc]
    """A refusal that the person reads, in full sentences."""

    def __init__(self, message: str, status: int = 403) -> None:
        super().__init__(status, "%s", message)
        self.jupyterhub_message = message


class _OnTheLoginPage:
    """A mixin for handlers: what went wrong is shown where one can try again."""

    def render_template(self: Any, name: str, **ns: Any) -> Any:
        if name == "error.html":
            ns["login_error"] = ns.get("message") or ns.get("status_message", "")
            ns["authenticator"] = self.authenticator
            ns["authenticator_login_url"] = self.authenticator.login_url(self.hub.base_url)
            name = "login.html"
        return super().render_template(name, **ns)  # type: ignore[misc]


class LoginHandler(_OnTheLoginPage, OAuthLoginHandler):  # type: ignore[misc]
    """``/hub/oauth_login``: off to the sign-on service."""

    async def get(self) -> None:
        """Learn the service's addresses where they are not known yet, then go there."""
        await self.authenticator.prepare()
        super().get()


class CallbackHandler(_OnTheLoginPage, OAuthCallbackHandler):  # type: ignore[misc]
    """``/hub/oauth_callback``: back from the sign-on service."""

    async def get(self) -> None:
        """Check what came back and log in."""
        await self.authenticator.prepare()
        await super().get()


class SignOn(StrictNames, OAuthenticator):
    """A mixin in front of oauthenticator's classes.

    A person is who they are by the service's own lasting id (``sub``), kept with the user at
    the first login: a name that the service gives to somebody else later, or two accounts
    whose names become one here, are refused.
    """

    login_handler = LoginHandler
    callback_handler = CallbackHandler

    mail_domains = List(
        Unicode(), config=True, help="With exactly one, ada@domain becomes the user ada."
    )
    groups_claim = Unicode(config=True, help="The claim that lists a person's groups.")
    unix_group = Unicode("labhub", config=True, help="The portal's Unix accounts are in it.")

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.promises = Promises()

    @default("custom_403_message")
    def _say_whom_to_ask(self) -> str:
        return (
            "You signed in, but you are not on the list of people who may use this portal."
            " Ask an administrator to add you."
        )

    async def prepare(self) -> None:
        """Be ready to send a person to the sign-on service."""

    async def authenticate(self, handler: Any, data: Any = None, **kwargs: Any) -> Any:
        """Return the person whom the service sent back.

        Raises
        ------
        PlainRefusal
            With what the service said and what to do about it.
        """
        try:
            model = await super().authenticate(handler, data, **kwargs)
        except HTTPClientError as error:
            raise PlainRefusal(
                f"The sign-on service refused this portal (status {error.code}). An administrator"
                " finds the reason in the hub's log; often the client's secret is wrong.",
                503,
            ) from error
        if not model:
            return model
        name = model["name"]
        known = handler.find_user(name)
        model["user_info"] = {"sub": self._lasting_id(model)}
        before = (known.user_info or {}).get("sub") if known else None
        if before not in (None, model["user_info"]["sub"]):
            self.log.warning(
                "User %s is bound to %s, now came %s", name, before, model["user_info"]
            )
            raise PlainRefusal(
                f"The name {name} belongs to somebody else here, or to an earlier account of yours"
                " at the sign-on service. An administrator can free it by removing the user"
                f" {name}; their files stay."
            )
        if os.geteuid() == 0 and unix.taken(name, self.unix_group):
            raise PlainRefusal(
                f"This machine has an account {name} of its own. If it is yours, an administrator"
                f" can hand it over: usermod --append --groups {self.unix_group} {name}"
            )
        if self.promises.keep(handler):
            self.log.info("%s becomes an administrator by the one-time link", name)
            model["admin"] = True
        return model

    def user_info_to_username(self, user_info: dict[str, Any]) -> str:
        """Turn the claim into a user name.

        Raises
        ------
        PlainRefusal
            It cannot become one; the text says which claim had which value.
        """
        claim, value = self._claimed(user_info)
        if value is None or value == "":
            raise PlainRefusal(
                f"The sign-on service sent no {claim!r}, from which this portal takes the user"
                " name. An administrator can name another claim"
                " (authentication.oauth.username_claim) or ask for more scopes."
            )
        name = self._name(value) if isinstance(value, str) else ""
        if not is_valid(name):
            raise PlainRefusal(
                f"The sign-on service calls you {shown(value)} (claim {claim!r}), which cannot be"
                f" a user name here. {RULE} An administrator can name another claim"
                " (authentication.oauth.username_claim)"
                + (" or your mail domain (hosted_domains)." if "@" in str(value) else ".")
            )
        return name

    def _claimed(self, user_info: dict[str, Any]) -> tuple[str, Any]:
        claim = str(self.username_claim)
        return claim, user_info.get(claim)

    def _name(self, value: str) -> str:
        name = self.normalize_username(value)
        if len(self.mail_domains) == 1:
            name = name.removesuffix(f"@{self.mail_domains[0].lower()}")
        return _DOT_INSIDE.sub("-", name)

    def _lasting_id(self, model: dict[str, Any]) -> str:
        info = model["auth_state"][self.user_auth_state_key]
        subject = info.get("sub") or info.get("id")
        if not subject:
            raise PlainRefusal("The sign-on service sent no lasting id ('sub') for you.")
        return str(subject)

    async def check_allowed(self, username: str, auth_model: Any) -> Any:
        """Add the mail domain's people to those whom oauthenticator allows."""
        if await super().check_allowed(username, auth_model):
            return True
        if auth_model is None or len(self.mail_domains) != 1:
            return False
        _, value = self._claimed(auth_model["auth_state"][self.user_auth_state_key])
        return str(value).lower().endswith(f"@{self.mail_domains[0].lower()}")

    async def get_user_groups(self, auth_state: dict[str, Any]) -> set[str]:
        """Return the groups that the claim lists; what is no group's name is left out."""
        info = auth_state[self.user_auth_state_key]
        value: Any = info.get(self.groups_claim)
        if value is None:  # a.b.c: nested claims
            value = info
            for part in self.groups_claim.split("."):
                value = value.get(part) if isinstance(value, dict) else None
        names = [value] if isinstance(value, str) else value if isinstance(value, list) else []
        return {g for g in names if isinstance(g, str) and _GROUP.fullmatch(g)}

    async def refresh_user(self, user: Any, handler: Any = None, **kwargs: Any) -> Any:
        """Ask for a new sign-on each day, so that who left the lab is out by tomorrow."""
        if handler is not None and handler.get_cookie(handler.hub.cookie_name):
            young = handler.get_secure_cookie(handler.hub.cookie_name, max_age_days=SESSION_DAYS)
            if young is None:
                return False
        return await super().refresh_user(user, handler, **kwargs)
