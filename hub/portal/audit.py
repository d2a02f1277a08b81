"""The audit log: who changed what at the portal, as what, from where; one JSON object a line.

It is written by the hub for every request that changes something, whoever sent it and however it
ended, and by the command line. Only root (without root: the portal's owner) can read it.
"""

from __future__ import annotations

import json
import logging
import re
from logging.handlers import RotatingFileHandler
from typing import Any
from urllib.parse import urlsplit

from jupyterhub import orm
from jupyterhub.log import log_request
from jupyterhub.user import User
from tornado import web
from traitlets.config import Config

from hub.auth.guard import address
from hub.auth.names import shown
from hub.portal.merge import update
from hub.state.audit import entry
from hub.state.paths import Paths
from labkit.base.log_limit import LogLimit

_BYTES, _FILES = 20 << 20, 20  # of one file, and how many
_NAME = "labhub.audit"
_ACTIONS = tuple(
    (re.compile(rf"(?:{method}) /hub/{path}/?"), action)
    for method, path, action in (
        ("POST", r"login", "log in"),
        ("GET", r"oauth_callback", "log in"),
        ("POST", r"link", "log in by the one-time link"),
        ("GET", r"logout", "log out"),
        ("POST", r"signup", "sign up"),
        ("POST", r"people", "decide on a sign-up"),
        ("POST", r"password", "change the password"),
        ("POST", r"messages", "change the messages"),
        ("POST", r"spawn(?:/.*)?", "start a server"),
        ("POST", r"api/users/[^/]+/servers?(?:/[^/]*)?", "start a server"),
        ("DELETE", r"api/users/[^/]+/servers?(?:/[^/]*)?", "stop a server"),
        ("POST", r"api/users/[^/]+/tokens", "make a token"),
        ("DELETE", r"api/users/[^/]+/tokens/[^/]*", "revoke a token"),
        ("POST", r"api/users(?:/[^/]+)?", "add users"),
        ("PATCH", r"api/users/[^/]+", "change a user or their rights"),
        ("DELETE", r"api/users/[^/]+", "remove a user"),
        ("POST|PUT|PATCH|DELETE", r"api/groups.*", "change a group"),
        ("POST|PATCH|DELETE", r"api/(?:shares|share-codes).*", "share a server"),
        ("PUT", r"api/labhub/webapps/[^/]+/package", "publish an app"),
        ("PATCH", r"api/labhub/webapps/[^/]+", "change an app"),
        ("DELETE", r"api/labhub/webapps/[^/]+", "remove an app"),
    )
)
# Programs' own, many times a minute; they change nobody's rights.
_ROUTINE = re.compile(
    r"POST /hub/api/(?:users/[^/]+/activity|oauth2/token|proxy|labhub/services/[^/]+/run)"
    r"|POST /hub/api/labhub/webapps/[^/]+/check|POST /hub/error/.*"
)
_SAFE = ("GET", "HEAD", "OPTIONS")


def configure(c: Config, paths: Paths) -> None:
    """Have the hub write the audit log."""
    audit = Audit(paths)
    update(c.JupyterHub, "tornado_settings", {"log_function": audit.log_request})


class Audit:
    """Writes the audit log.

    Parameters
    ----------
    paths : Paths
        Where the portal keeps its state.
    """

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._log: logging.Logger | None = None

    def log_request(self, handler: web.RequestHandler) -> None:
        """Log a request as JupyterHub does, and in the audit log where it changes something."""
        log_request(handler)
        request = handler.request
        what = action(request.method or "", urlsplit(request.uri or "").path)
        if not what:
            return
        who, kind = _person(handler)
        # Each person's lines have a limit of their own: nobody floods those of others away.
        self._logger().getChild(who or "nobody").info(
            entry(
                what,
                who=who,
                kind=kind,
                target=request.path,
                status=handler.get_status(),
                source=address(handler),
            )
        )

    def _logger(self) -> logging.Logger:
        if self._log is None:
            self._log = logging.getLogger(_NAME)
            self._log.setLevel(logging.INFO)
            self._log.propagate = False
            handler = RotatingFileHandler(
                self._paths.audit_log, maxBytes=_BYTES, backupCount=_FILES, encoding="utf-8"
            )
            handler.setFormatter(logging.Formatter("%(message)s"))
            handler.addFilter(_Limit())
            self._log.handlers = [handler]
        return self._log


class _Limit(LogLimit):
    """Says how many lines were left out as a field: each line stays JSON."""

    def note(self, text: str, left_out: int) -> str:
        return json.dumps({**json.loads(text), "left_out_before": left_out})


def action(method: str, path: str) -> str:
    """Return what a request does, in words; empty where it changes nothing."""
    text = f"{method} {path}"
    for pattern, words in _ACTIONS:
        if pattern.fullmatch(text):
            return words
    if method in _SAFE or _ROUTINE.fullmatch(text):
        return ""
    return f"{method.lower()} something else"


def _person(handler: web.RequestHandler) -> tuple[str, str]:
    """Return who asked, and as what."""
    try:
        who: Any = getattr(handler, "logged_out", None) or handler.current_user
    except (web.HTTPError, RuntimeError):
        who = None
    if who is None:
        typed = handler.get_body_argument("username", "")
        return "", f"nobody, as {shown(typed)}" if typed else "nobody"
    way = "by a token" if getattr(handler, "_token_authenticated", False) else "in a browser"
    if isinstance(who, orm.Service):
        return str(who.name), "service"
    if isinstance(who, User) and who.admin:
        return str(who.name), f"administrator, {way}"
    return str(who.name), f"user, {way}"
