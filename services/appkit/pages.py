"""Pages in the portal's look: one frame, one style, and an error that says what to do next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aiohttp import web
from jinja2 import Environment, FileSystemLoader

from labkit import server as labkit_server
from services.appkit.keys import PERSON, PORTAL

_OWN = Path(__file__).parent
_SHARED = Path(labkit_server.__file__).parent / "data"
_ADVICE = {
    400: "Go back and try again.",
    403: "Ask who looks after the portal.",
    404: "It may have been moved or taken away.",
    405: "It is not asked in this way.",
    500: "Try again in a moment. If it stays so, tell who looks after the portal.",
    503: "Wait a moment, then reload the page.",
}
_KEPT = ("Retry-After", "Allow")  # headers of an error that its answer has, too
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)


class Pages:
    """The pages of one app.

    Parameters
    ----------
    title : str
        What the app is called.
    folder : Path, optional
        The app's own, with ``templates`` and ``static``.
    icon : str
        A file of the static ones.
    styles : sequence of str
        Files of the static ones, after the portal's own style.
    shared : sequence of str
        Pictures and scripts of the portal's that it shows, too.
    made : mapping of str to (str, str)
        Static files that are made at the start: content type and text, by name.
    layout : str
        The template that errors extend.
    overview : str
        What a link to the app's first page says.
    advice : mapping of int to str
        What a person does about an error, by its HTTP status; the kit's own where none is said.
    """

    def __init__(
        self,
        title: str,
        folder: Path | None = None,
        *,
        icon: str = "server.svg",
        styles: Sequence[str] = (),
        shared: Sequence[str] = ("server.svg",),
        made: Mapping[str, tuple[str, str]] | None = None,
        layout: str = "app.html",
        overview: str = "Back to the beginning",
        advice: Mapping[int, str] | None = None,
    ) -> None:
        static = sorted((folder / "static").iterdir()) if folder else []
        self._files = {name: _SHARED / "static" / name for name in ("labkit.css", *shared)}
        self._files |= {path.name: path for path in static}
        self._made = dict(made or {})
        self._advice = {**_ADVICE, **(advice or {})}
        self._values = {
            "app": title,
            "icon": icon,
            "styles": ("labkit.css", *styles),
            "layout": layout,
            "overview": overview,
        }
        templates = [_OWN / "templates", _SHARED / "templates"]
        self._templates = Environment(
            loader=FileSystemLoader([folder / "templates", *templates] if folder else templates),
            autoescape=True,
            trim_blocks=True,
        )

    def policy(self, request: web.Request) -> str:  # noqa: ARG002 - for a subclass's
        """Return the Content-Security-Policy of all answers that have none of their own."""
        return POLICY

    def show(
        self, request: web.Request, template: str, status: int = 200, **values: Any
    ) -> web.Response:
        """Return a page.

        Parameters
        ----------
        request : aiohttp.web.Request
            What it answers.
        template : str
            The app's own, or the kit's ``page.html`` with ``heading`` and ``text``.
        status : int
            HTTP status.
        **values
            What the template shows besides.
        """
        portal = request.app[PORTAL]
        text = self._templates.get_template(template).render(
            prefix=portal.prefix,
            static=f"{portal.prefix}_/static/",
            lab=portal.lab,
            home=portal.home,
            who=request[PERSON],
            **self._values,
            **values,
        )
        headers = {"Cache-Control": "no-store"}
        return web.Response(text=text, status=status, content_type="text/html", headers=headers)

    def error(self, request: web.Request, problem: web.HTTPException) -> web.Response:
        """Return an error: a page for people, JSON for programs and for who is not known."""
        advice = self._advice.get(problem.status, "")
        text = problem.text or problem.reason
        kept = {name: value for name, value in problem.headers.items() if name in _KEPT}
        if PERSON not in request or "text/html" not in request.headers.get("Accept", ""):
            body = {"message": text, "advice": advice}
            return web.json_response(body, status=problem.status, headers=kept)
        response = self.show(request, "error.html", problem.status, text=text, advice=advice)
        response.headers.update(kept)
        return response

    async def static(self, request: web.Request) -> web.StreamResponse:
        """Answer with a script, a style or a picture of these pages."""
        name = request.match_info["file"]
        if name in self._made:
            kind, text = self._made[name]
            return web.Response(text=text, content_type=kind)
        if name not in self._files:
            raise web.HTTPNotFound
        return web.FileResponse(self._files[name])
