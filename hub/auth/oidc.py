"""OpenID Connect: the service's addresses from its issuer, and its signed id tokens."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import urlsplit

import jwt
from oauthenticator.generic import GenericOAuthenticator
from tornado.httpclient import HTTPClientError
from traitlets import Unicode

from hub.auth.identity import PlainRefusal, SignOn

WELL_KNOWN = "/.well-known/openid-configuration"
# Asymmetric alone: with HS256 the client's secret could sign, and "none" is no signature.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA")
_NEEDED = ("issuer", "authorization_endpoint", "token_endpoint", "jwks_uri")
_CLOCKS_DIFFER = 60  # seconds


class DiscoveryError(Exception):
    """The issuer's description cannot be used; the text says why."""


class OidcAuthenticator(SignOn, GenericOAuthenticator):
    """Generic OIDC; also AWS Cognito, Keycloak, Entra ID and others.

    The issuer is asked at the hub's start and, where that failed, at the next login: the hub
    runs, and those who are logged in work on, while the service is away.
    """

    issuer = Unicode(config=True, help="Where /.well-known/openid-configuration is found.")

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._description: dict[str, Any] = {}
        self._asking = asyncio.Lock()
        self._keys: jwt.PyJWKClient | None = None

    def get_handlers(self, app: Any) -> list[Any]:
        """Return the handlers, and ask the issuer meanwhile."""
        self._first = asyncio.get_running_loop().create_task(self._ask_at_start())
        return list(super().get_handlers(app))

    async def _ask_at_start(self) -> None:
        try:
            await self._discover()
        except DiscoveryError as error:
            self.log.error("Nobody can log in yet: %s. Asked again at the next login.", error)

    async def prepare(self) -> None:
        """Learn the service's addresses.

        Raises
        ------
        PlainRefusal
            503: the service cannot be reached or describes itself wrongly.
        """
        try:
            await self._discover()
        except DiscoveryError as error:
            self.log.error("%s", error)
            raise PlainRefusal(
                f"The sign-on service {self.issuer} cannot be used right now. Try again in a"
                " minute; an administrator finds the reason in the hub's log.",
                503,
            ) from error

    async def _discover(self) -> None:
        async with self._asking:
            if self._description:
                return
            url = self.issuer.rstrip("/") + WELL_KNOWN
            try:
                document = await self.httpfetch(url, connect_timeout=5, request_timeout=10)
            except (OSError, HTTPClientError, json.JSONDecodeError) as error:
                raise DiscoveryError(f"{url} cannot be read: {error}") from error
            self._use(checked(document, self.issuer))

    def _use(self, description: dict[str, Any]) -> None:
        self.authorize_url = description["authorization_endpoint"]
        self.token_url = description["token_endpoint"]
        self.userdata_url = description.get("userinfo_endpoint", "")
        ways = description.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        self.basic_auth = "client_secret_post" not in ways
        self._keys = jwt.PyJWKClient(description["jwks_uri"], lifespan=3600, timeout=10)
        self._description = description
        self.log.info("Sign-on by %s", description["issuer"])

    def _claimed(self, user_info: dict[str, Any]) -> tuple[str, Any]:
        verified = str(user_info.get("email_verified")).lower()  # Cognito sends a text
        if self.username_claim == "email" and verified != "true":
            raise PlainRefusal("Your e-mail address at the sign-on service is not verified yet.")
        return super()._claimed(user_info)

    async def token_to_user(self, token_info: dict[str, Any]) -> dict[str, Any]:
        """Return the claims of the id token and of userinfo, which must be of one person.

        Raises
        ------
        PlainRefusal
            The id token is missing or not what it should be.
        """
        token = token_info.get("id_token")
        if not token:
            raise PlainRefusal(
                "The sign-on service sent no id token. An administrator can add 'openid' to"
                " authentication.oauth.scope."
            )
        try:
            claims = await asyncio.to_thread(self._verified, token)
        except jwt.PyJWTError as error:
            self.log.error("Refused an id token of %s: %s", self.issuer, error)
            raise PlainRefusal(
                "The sign-on service's answer did not pass the checks. An administrator finds"
                " the reason in the hub's log."
            ) from error
        if not self.userdata_url:
            return claims
        more: dict[str, Any] = await super().token_to_user(token_info)
        if more.get("sub") != claims["sub"]:
            self.log.error("userinfo is of %r, the id token of %r", more.get("sub"), claims["sub"])
            raise PlainRefusal("The sign-on service spoke of two different people. Try again.")
        return {**claims, **more}

    def _verified(self, token: str) -> dict[str, Any]:
        if self._keys is None:
            raise jwt.InvalidTokenError("the issuer's keys are not known")
        claims: dict[str, Any] = jwt.decode(
            token,
            self._keys.get_signing_key_from_jwt(token),
            algorithms=list(ALGORITHMS),
            audience=self.client_id,
            issuer=self._description["issuer"],
            leeway=_CLOCKS_DIFFER,
            options={"require": ["exp", "iat", "iss", "aud", "sub"]},
        )
        if claims.get("azp", self.client_id) != self.client_id:
            raise jwt.InvalidTokenError("azp: the token was made for another client")
        return claims


def checked(description: Any, issuer: str) -> dict[str, Any]:
    """Return an issuer's description of itself.

    Raises
    ------
    DiscoveryError
        It lacks something, is of another issuer, or names an address without TLS.
    """
    if not isinstance(description, dict):
        raise DiscoveryError(f"{issuer}{WELL_KNOWN} holds no description")
    missing = [key for key in _NEEDED if not isinstance(description.get(key), str)]
    if missing:
        raise DiscoveryError(f"{issuer} does not tell its {', '.join(missing)}")
    if description["issuer"].rstrip("/") != issuer.rstrip("/"):
        raise DiscoveryError(
            f"{issuer} says that it is {description['issuer']}: write that into"
            " authentication.oauth.issuer, if it is right"
        )
    for key in (*_NEEDED, "userinfo_endpoint"):
        parts = urlsplit(description.get(key) or "https://")
        if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "::1", "localhost"):
            raise DiscoveryError(f"{issuer} names an address without https: {description[key]}")
    return description
