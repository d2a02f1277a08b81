"""Who is let in: Unix accounts, sign-up, sign-on by OIDC/OAuth, or the owner alone.

One module per method (`pam`, `signup`, `oauth`, `owner`), over what all share: `names` (which
names there are), `strict_names` (logging in under them), `guard` and `lockout` (wrong passwords),
`first_admin` (the one-time link). They are imported where they are used: JupyterHub and all
methods' libraries cost more than a second, which commands like ``labhub check`` do without.
"""

from __future__ import annotations

import os
from typing import Any

from traitlets.config import Config

from hub.auth.names import is_valid
from hub.labfile.schema import Settings
from hub.state.paths import Paths
from labkit.base.problems import Problem, ProblemsError


def configure(c: Config, settings: Settings, paths: Paths, *, as_one_account: bool) -> None:
    """Set the authenticator and its traits.

    Parameters
    ----------
    c : Config
        JupyterHub's configuration object.
    settings : Settings
        The lab file.
    paths : Paths
        Where the portal keeps its state.
    as_one_account : bool
        Without root all user servers would run as the portal's account.

    Raises
    ------
    ProblemsError
        With all that keeps people from logging in.
    """
    from hub.auth.owner import OwnerAuthenticator, owner_name
    from hub.auth.pam import UnixAuthenticator
    from hub.auth.signup import SignupAuthenticator

    everything = problems(settings, paths, as_one_account=as_one_account)
    errors = [problem for problem in everything if not problem.warning]
    if errors:
        raise ProblemsError(errors)
    method = settings.authentication.effective_method
    if settings.isolation == "subdomain":
        c.StrictNames.address = settings.url
    if method == "owner":
        c.JupyterHub.authenticator_class = OwnerAuthenticator
        c.OwnerAuthenticator.owner = owner_name()
    elif settings.authentication.oauth is not None:
        from hub.auth import oauth

        oauth.configure(c, settings, paths, settings.authentication.oauth)
    else:
        chosen = UnixAuthenticator if method == "pam" else SignupAuthenticator
        c.JupyterHub.authenticator_class = chosen
        c[chosen.__name__].unix_group = settings.authentication.unix_group
        c[chosen.__name__].auth_refresh_age = 60
        c[chosen.__name__].auth_refresh_strict = True  # tokens of who is out are worth nothing
        c.PasswordGuard.failures = settings.authentication.lockout.failures
        c.PasswordGuard.wait = settings.authentication.lockout.wait.total_seconds()


def handlers(settings: Settings, paths: Paths) -> list[Any]:
    """Return the one-time link's page, for ``JupyterHub.extra_handlers``."""
    from hub.auth.first_admin import PAGE
    from hub.auth.link_page import LinkHandler

    return [(rf"/{PAGE}", LinkHandler, {"settings": settings, "paths": paths})]


def template_vars(settings: Settings) -> dict[str, Any]:
    """Return what the pages know about logging in, for ``JupyterHub.template_vars``."""
    return {"login_method": settings.authentication.effective_method}


def problems(settings: Settings, paths: Paths, *, as_one_account: bool) -> list[Problem]:
    """Return what keeps people from logging in, for `configure` and ``labhub check``.

    Parameters
    ----------
    settings : Settings
        The lab file.
    paths : Paths
        Where the portal keeps its state.
    as_one_account : bool
        Without root all user servers would run as the portal's account.
    """
    method = settings.authentication.effective_method
    problems: list[Problem] = []
    if settings.authentication.oauth is not None:
        from hub.auth import oauth

        problems += oauth.problems(settings, paths)
    problems += [
        Problem("admins", f"{name} cannot be a user", "name an account of a person")
        for name in settings.admins
        if not is_valid(name)
    ]
    problems += [
        Problem(f"groups.{group}", f"{name} cannot be a user", "name an account of a person")
        for group, members in settings.groups.items()
        for name in members
        if not is_valid(name)
    ]
    place, root = "authentication.method", os.geteuid() == 0
    if not root and (method == "pam" or (as_one_account and method != "owner")):
        text = f"{method} needs root: without, all servers here would run as one account"
        problems.append(Problem(place, text, "run labhub as root, or choose method: owner"))
    if method == "owner" and root:
        text = "owner is for a portal without root: its user would be root"
        problems.append(Problem(place, text, "choose method: pam, or run labhub as yourself"))
    return problems
