"""The page for an app that does not answer: which one, why, and what to do."""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import TYPE_CHECKING

import aiohttp
from tornado import web
from tornado.httputil import HTTPHeaders

if TYPE_CHECKING:
    from jupyter_server.base.handlers import JupyterHandler


class Unreachable(web.HTTPError):
    """The app could not be asked, or broke off before it answered.

    Parameters
    ----------
    host, port : str, int
        Where the app should be.
    unix_socket : str or None
        Its socket, where it has one instead of a port.
    cause : aiohttp.ClientError
        What happened.
    """

    def __init__(
        self, host: str, port: int | str, unix_socket: str | None, cause: aiohttp.ClientError
    ) -> None:
        self.port = None if unix_socket or host not in ("localhost", "127.0.0.1") else int(port)
        if unix_socket:
            self.place = "this app's socket"
        elif self.port is not None:
            self.place = f"port {self.port}"
        else:
            self.place = f"{host}:{port}"
        match cause:
            case aiohttp.ServerTimeoutError() | asyncio.TimeoutError():
                status, self.text = 504, f"{self.place} did not answer in time"
            case aiohttp.ClientConnectorError():
                status, self.text = 503, f"Nothing listens on {self.place}"
            case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError():
                status, self.text = 502, f"The app on {self.place} closed the connection"
            case _:
                status, self.text = 502, f"The app on {self.place} did not answer as a web app does"
        super().__init__(status, "%s: %s", self.text, type(cause).__name__)

    @property
    def advice(self) -> str:
        """What the person can do."""
        if self.status_code == HTTPStatus.SERVICE_UNAVAILABLE:
            return (
                "The app may still be starting, or it has ended. Start it again where you "
                "started it, in the notebook or a terminal, and look there at what it said."
            )
        if self.status_code == HTTPStatus.GATEWAY_TIMEOUT:
            return "It may be busy or hang. Look at what it says where you started it."
        return (
            "It may have crashed, or it speaks something else than HTTP. Look at what it said "
            "where you started it."
        )


def write(handler: JupyterHandler, error: Unreachable) -> None:
    """Write the page, or a line of JSON for a program that asks.

    Parameters
    ----------
    handler : JupyterHandler
        The request; its answer has not begun.
    error : Unreachable
        What happened.
    """
    handler._headers = HTTPHeaders({"Cache-Control": "no-store", "Retry-After": "3"})
    if "text/html" not in handler.request.headers.get("Accept", ""):
        handler.set_header("Content-Type", "application/json")
        handler.write(json.dumps({"message": f"{error.text}.", "advice": error.advice}))
        return
    prefix = handler.base_url
    handler.set_header("Content-Type", "text/html; charset=utf-8")
    handler.set_header("Content-Security-Policy", PAGE_POLICY)
    handler.write(
        handler.settings["labkit_jinja2_env"]
        .get_template("unreachable.html")
        .render(
            static=f"{prefix}static/labkit/",
            watch=f"{prefix}labkit/api/port/{error.port}" if error.port else "",
            title=error.text,
            advice=error.advice,
            address=handler.request.path,
            page=f"{prefix}labkit/",
        )
    )


PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
