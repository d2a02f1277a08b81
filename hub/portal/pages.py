"""The portal's pages: templates, static files, and what every page knows."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tornado.web import StaticFileHandler
from traitlets.config import Config

from hub import targets
from hub.labfile.schema import Settings
from hub.portal.home import Home
from hub.portal.merge import append, update
from hub.sandbox.home_use import HomeUse
from hub.state.paths import REPOSITORY, Paths
from labkit import server as labkit_server

TEMPLATES = REPOSITORY / "hub" / "templates"
STATIC = REPOSITORY / "hub" / "static"
SHARED = Path(labkit_server.__file__).parent / "data" / "static"
MESSAGES = "messages.js"  # hub, gate, apps and people's servers show messages by one script
_MAIL = re.compile(r"^[^\s@<>]+@[^\s@<>]+$")


def configure(c: Config, settings: Settings, paths: Paths) -> None:
    """Set templates, logo and what they show; see `handlers` for the static files."""
    logo = settings.lab.logo or STATIC / "logo.svg"
    c.JupyterHub.redirect_to_server = False  # after login comes the home page
    append(c.JupyterHub, "template_paths", [str(TEMPLATES)])
    c.JupyterHub.logo_file = str(logo)
    homes = HomeUse() if targets.of(settings, paths).on_this_machine else None
    template_vars = {
        "lab": settings.lab,
        "hub_url": f"{settings.url}/hub/" if settings.isolation == "subdomain" else "/hub/",
        "contact_link": contact_link(settings.lab.contact),
        "assets": {
            **assets(STATIC),
            MESSAGES: f"{MESSAGES}?v={_digest(SHARED / MESSAGES)}",
            "logo": _digest(logo),
        },
        # A function: JupyterHub calls it with the user whom a page is for.
        "portal": lambda user: Home(settings, paths, user, homes) if user else None,
    }
    update(c.JupyterHub, "template_vars", template_vars)


def handlers(settings: Settings, paths: Paths) -> list[Any]:  # noqa: ARG001 - as every concern's
    """Return the handlers of the static files, for ``JupyterHub.extra_handlers``."""
    return [
        (rf"/lab-static/({re.escape(MESSAGES)})", Assets, {"path": str(SHARED)}),
        (r"/lab-static/(.*)", Assets, {"path": str(STATIC)}),
    ]


def assets(folder: Path) -> Mapping[str, str]:
    """Return each file's name with a digest, so that browsers may keep it for ever."""
    return {p.name: f"{p.name}?v={_digest(p)}" for p in sorted(folder.iterdir()) if p.is_file()}


def contact_link(contact: str | None) -> str | None:
    """Return where a contact leads: a web address, a mail address, or nowhere."""
    if contact and contact.startswith(("https://", "http://")):
        return contact
    if contact and _MAIL.match(contact):
        return f"mailto:{contact}"
    return None


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    except OSError:
        return "none"


class Assets(StaticFileHandler):
    """The pages' own style, scripts and pictures; the same for everybody."""

    def set_extra_headers(self, path: str) -> None:  # noqa: ARG002 - tornado's signature
        """Let browsers keep a file that is asked for by its digest."""
        self.set_header("X-Content-Type-Options", "nosniff")
        if "v" in self.request.arguments:
            self.set_header("Cache-Control", "public, max-age=31536000, immutable")
        else:  # a script that another one imports: ask each time whether it changed
            self.set_header("Cache-Control", "no-cache")
