"""Sign-on by somebody else's accounts: one table, one function for all providers."""

from __future__ import annotations

from typing import Any

from oauthenticator.cilogon import CILogonOAuthenticator
from oauthenticator.github import GitHubOAuthenticator
from oauthenticator.globus import GlobusOAuthenticator
from oauthenticator.google import GoogleOAuthenticator
from traitlets.config import Config

from hub.auth.identity import SignOn
from hub.auth.oidc import OidcAuthenticator
from hub.labfile.schema import OAuth, Settings
from hub.state import secrets
from hub.state.paths import Paths
from labkit.base.problems import Problem, ProblemsError

SECRET = "oauth_client_secret"  # noqa: S105 - a file's name
GROUPS_FROM = ("oidc", "cognito", "cilogon")


class CognitoAuthenticator(OidcAuthenticator):
    """AWS Cognito: OIDC whose groups are in the id token alone."""


class GitHubAuthenticator(SignOn, GitHubOAuthenticator):
    """GitHub, github.com."""


class GoogleAuthenticator(SignOn, GoogleOAuthenticator):
    """Google accounts, of one Workspace domain."""

    def user_info_to_username(self, user_info: dict[str, Any]) -> str:
        """Keep what oauthenticator's own checks look for."""
        user_info["domain"] = str(user_info.get("email", "")).rpartition("@")[2].lower()
        return super().user_info_to_username(user_info)


class GlobusAuthenticator(SignOn, GlobusOAuthenticator):
    """Globus Auth.

    oauthenticator cuts ``@domain`` off whatever the domain: here only of the lab's own.
    """


class CILogonAuthenticator(SignOn, CILogonOAuthenticator):
    """CILogon, by the identity providers of the lab file."""

    def _claimed(self, user_info: dict[str, Any]) -> tuple[str, Any]:
        claim = next(iter(self.idps.values()))["username_derivation"]["username_claim"]
        # Refuses a person of an identity provider that the lab file does not name.
        CILogonOAuthenticator.user_info_to_username(self, {claim: "-", **user_info})
        return claim, user_info.get(claim)


CLASSES: dict[str, type[SignOn]] = {
    "oidc": OidcAuthenticator,
    "cognito": CognitoAuthenticator,
    "github": GitHubAuthenticator,
    "google": GoogleAuthenticator,
    "globus": GlobusAuthenticator,
    "cilogon": CILogonAuthenticator,
}
SERVICES = {
    "oidc": "your account",
    "cognito": "AWS Cognito",
    "github": "GitHub",
    "google": "Google",
    "globus": "Globus",
    "cilogon": "CILogon",
}
CLAIMS = {"oidc": "preferred_username", "cognito": "username", "cilogon": "eppn"}


def configure(c: Config, settings: Settings, paths: Paths, oauth: OAuth) -> None:
    """Set the provider's authenticator and all its traits.

    Raises
    ------
    ProblemsError
        The client's secret is missing or a sample.
    """
    method = settings.authentication.method
    chosen = CLASSES[method]
    c.JupyterHub.authenticator_class = chosen
    t = c[chosen.__name__]
    t.client_id = oauth.client_id
    t.client_secret = _client_secret(settings, paths)
    t.oauth_callback_url = callback_url(settings)
    t.enable_pkce = True
    t.login_service = oauth.login_service or SERVICES[method]
    t.allow_all = oauth.allow_all
    t.allowed_users = set(oauth.allowed_users)
    t.allow_existing_users = False
    t.mail_domains = list(oauth.hosted_domains)
    t.unix_group = settings.authentication.unix_group
    t.auth_refresh_age = 60
    if "scope" in oauth.model_fields_set or method in ("oidc", "cognito"):
        t.scope = list(oauth.scope)
    if method != "cilogon":
        claim = oauth.username_claim or CLAIMS.get(method)
        if claim:
            t.username_claim = claim
    if oauth.groups_claim:
        t.manage_groups = True
        t.groups_claim = oauth.groups_claim
        t.allowed_groups = set(oauth.allowed_groups)
    _specialities(t, method, oauth)


def _specialities(t: Any, method: str, oauth: OAuth) -> None:
    if method in ("oidc", "cognito"):
        t.issuer = oauth.issuer
    elif method == "github":
        t.allowed_organizations = set(oauth.allowed_organizations)
        if oauth.allowed_organizations and "scope" not in oauth.model_fields_set:
            t.scope = ["read:org"]
    elif method == "google":
        t.hosted_domain = list(oauth.hosted_domains)
    elif method == "cilogon":
        claim = oauth.username_claim or CLAIMS["cilogon"]
        entry = {"username_derivation": {"username_claim": claim}}
        t.idps = {idp: dict(entry) for idp in oauth.allowed_idps}


def callback_url(settings: Settings) -> str:
    """Return the address to register with the provider."""
    return f"{settings.url}/hub/oauth_callback"


def _client_secret(settings: Settings, paths: Paths) -> str:
    what = "the client's secret from the provider"
    return secrets.read(paths, SECRET, what, settings.secrets.mounted)


def problems(settings: Settings, paths: Paths) -> list[Problem]:
    """Return what keeps people from signing on, as far as the lab file shows it."""
    oauth = settings.authentication.oauth
    if oauth is None:
        return []
    method, place = settings.authentication.method, "authentication.oauth"
    problems: list[Problem] = []
    try:
        _client_secret(settings, paths)
    except ProblemsError as error:
        problems.extend(error.problems)
    if oauth.groups_claim and method not in GROUPS_FROM:
        text = f"{method} sends no groups; {', '.join(GROUPS_FROM)} do"
        problems.append(Problem(f"{place}.groups_claim", text, "remove it"))
    if oauth.groups_claim and settings.groups:
        text = "with groups_claim, all groups come from the provider"
        problems.append(Problem("groups", text, "remove groups, or groups_claim"))
    if oauth.allowed_groups and not oauth.groups_claim:
        text = "allowed_groups needs groups_claim, the claim that lists them"
        problems.append(Problem(f"{place}.allowed_groups", text, "add groups_claim: groups"))
    if oauth.allowed_organizations and method != "github":
        text = f"{method} has no organizations"
        problems.append(Problem(f"{place}.allowed_organizations", text, "remove it"))
    if method == "google" and len(oauth.hosted_domains) != 1:
        text = "Google's user names are e-mail addresses: name the one domain to take off"
        hint = "hosted_domains: [uni.example]"
        problems.append(Problem(f"{place}.hosted_domains", text, hint))
    elif len(oauth.hosted_domains) > 1:
        text = "ada@a.example and ada@b.example would both become ada: name one domain"
        problems.append(Problem(f"{place}.hosted_domains", text, "keep one"))
    if method == "cilogon" and not oauth.allowed_idps:
        text = "cilogon needs the entity ids of the identity providers whose people may come"
        hint = "find them on https://cilogon.org/idplist/"
        problems.append(Problem(f"{place}.allowed_idps", text, hint))
    if oauth.issuer and not oauth.issuer.startswith("https://"):
        host = oauth.issuer.partition("://")[2].partition("/")[0].rpartition(":")[0]
        if not oauth.issuer.startswith("http://") or host not in ("127.0.0.1", "localhost"):
            text = "tokens would travel in clear"
            problems.append(Problem(f"{place}.issuer", text, "the issuer must begin with https://"))
    return problems
