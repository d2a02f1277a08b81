"""The gate's own pages: an app that is starting, is down, or is not for this person.

People get a page in the portal's look, programs get JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from jinja2 import DictLoader, Environment, select_autoescape
from markupsafe import Markup
from tornado import web
from tornado.httputil import HTTPHeaders, HTTPServerRequest

if TYPE_CHECKING:
    from services.gate.app_registry import AppRoute
    from services.gate.config import Portal

HERE = Path(__file__).resolve().parent
_LOOK = HERE.parents[1] / "hub" / "static"  # the portal's own style: one look for all pages
_SHARED = HERE.parents[1] / "labkit" / "server" / "data" / "static"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

# Why, what a person reads, and what they can do.
_REASONS = {
    "login": ("Log in first", "Open the app in a browser, or send a token of the portal's."),
    "not-allowed": (
        "This app is not for you",
        "It is for other groups of the lab. Ask who looks after the portal to let you in.",
    ),
    "foreign": (
        "This request came from another page",
        "Only the app's own pages may ask for that. Open the app itself and do it there.",
    ),
    "hub-away": (
        "The portal is just restarting",
        "The app waits until it can tell who you are. Try again in a moment.",
    ),
    "app": (
        "The app closed the connection",
        "It may have ended just now; it is started again by itself. Try again in a moment.",
    ),
}
_STATUS = {
    400: ("That address was not understood", "Open the app from the portal's home page."),
    404: (
        "There is no such app",
        "It may have been taken away. The home page shows what there is.",
    ),
    405: ("The app is not asked in this way", "Open it from the portal's home page."),
    421: ("This app has another address", "Open it from the portal's home page."),
}
_ELSE = ("Something went wrong", "Try again; if it stays, tell who looks after the portal.")


def _read(folder: Path, *names: str) -> dict[str, str]:
    return {name: (folder / name).read_text(encoding="utf-8") for name in names}


# Read at the start: the gate may not be able to later, under its own account.
_FILES = {
    **_read(_LOOK, "labhub.css", "logo.svg"),
    **_read(HERE / "static", "gate.js"),
    **_read(_SHARED, "messages.js"),
}
_NAMES = ("frame.html", "starting.html", "message.html", "away.html")
_TEMPLATES = Environment(
    loader=DictLoader(_read(HERE / "templates", *_NAMES)),
    autoescape=select_autoescape(),
)


def is_page(request: HTTPServerRequest) -> bool:
    """Return whether a person looks at the answer, not a script or a program."""
    if request.headers.get("Sec-Fetch-Dest", "document") not in ("document", "iframe", "frame"):
        return False
    return "text/html" in request.headers.get("Accept", "")


def not_ready(handler: web.RequestHandler, route: AppRoute, admin: bool) -> None:
    """Write what there is to say of an app that does not answer yet, or not at all."""
    down = route.upstream.state == "down"
    title = route.app.title
    if down:
        message = f"{title} did not start: {route.upstream.reason}"
        advice = "Try again. If it stays so, tell who looks after the portal."
        if admin:
            advice = f"Try again. Its log says why: labhub app status {route.app.name}"
    else:
        message = f"{title} is starting"
        advice = "It takes a few seconds. Try again then."
    _answer(handler, 503, "starting.html", message, advice, route, down=down)


def refuse(handler: web.RequestHandler, status: int, reason: str, route: AppRoute | None) -> None:
    """Write why a request ends here.

    Parameters
    ----------
    handler : RequestHandler
        The request; its answer has not begun.
    status : int
        The HTTP status.
    reason : str
        One of those above, or what the app itself has said.
    route : AppRoute or None
        The app, where there is one.
    """
    message, advice = _REASONS.get(reason) or _STATUS.get(status) or _ELSE
    _answer(handler, status, "message.html", message, advice, route)


def _answer(
    handler: web.RequestHandler,
    status: int,
    template: str,
    message: str,
    advice: str,
    route: AppRoute | None,
    down: bool = False,
) -> None:
    handler.set_status(status)
    closing = handler._headers.get("Connection")
    handler._headers = HTTPHeaders(
        {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    )
    if closing:  # a body that was not read: see Relay.set_default_headers
        handler.set_header("Connection", closing)
    if status == 503:
        handler.set_header("Retry-After", "2")
    if not is_page(handler.request):
        handler.set_header("Content-Type", "application/json")
        handler.finish(json.dumps({"message": f"{message}.", "advice": advice}))
        return
    portal: Portal = handler.application.settings["portal"]
    static = f"{route.app.prefix}.labhub/" if route else ""
    handler.set_header("Content-Type", "text/html; charset=utf-8")
    handler.set_header("Content-Security-Policy", _POLICY)
    handler.finish(
        _TEMPLATES.get_template(template).render(
            lab=portal.lab,
            contact=portal.contact,
            home=f"{portal.url}/hub/home",
            base=static,
            app=route.app.title if route else "",
            down=down,
            title=message,
            advice=advice,
            status=status,
            # Where a page may be opened again; a form's address must not be.
            again=urlsplit(handler.request.uri or "").path
            if handler.request.method == "GET"
            else "",
        )
    )


def away(portal: Portal, messages: Sequence[Mapping[str, Any]]) -> str:
    """Return the page for who asks the portal while its hub is away; it needs no other file.

    Parameters
    ----------
    portal : Portal
        Says whose portal it is.
    messages : sequence of mapping
        What the administrators say to everybody.
    """
    return _TEMPLATES.get_template("away.html").render(
        lab=portal.lab,
        contact=portal.contact,
        messages=messages,
        style=Markup(_FILES["labhub.css"]),  # noqa: S704 - the portal's own file
    )


class Static(web.RequestHandler):
    """The style and script of these pages; the same for everybody."""

    def get(self, name: str) -> None:
        """Answer with one of the files."""
        if name not in _FILES:
            raise web.HTTPError(404)
        self.set_header("Content-Type", f"{_TYPES[Path(name).suffix]}; charset=utf-8")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Cache-Control", "no-cache")
        self.finish(_FILES[name])

    def write_error(self, status_code: int, **_: object) -> None:
        """Say no more than the status."""
        self.finish(f"{status_code}")
