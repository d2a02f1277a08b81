"""Whose page sends a request: the rule of the gate, and of the proxy in people's servers."""

from __future__ import annotations

from tornado.httputil import HTTPHeaders


def is_foreign(headers: HTTPHeaders, method: str, origin: str, *, websocket: bool) -> bool:
    """Return whether a page of another origin sends this request with somebody's cookie.

    Links from elsewhere are welcome; anything that changes or reads from elsewhere is not.

    Parameters
    ----------
    headers : HTTPHeaders
        The request's.
    method : str
        Its method.
    origin : str
        The app's own: ``https://host:port``.
    websocket : bool
        It asks for a WebSocket.
    """
    sender = headers.get("Origin")
    safe = method in ("GET", "HEAD", "OPTIONS") and not websocket
    if sender is not None and sender != origin:
        return True
    site, mode = headers.get("Sec-Fetch-Site"), headers.get("Sec-Fetch-Mode")
    if site in ("cross-site", "same-site"):
        return mode != "navigate" or not safe
    # A browser names itself by one of the two in whatever may change something.
    return websocket and sender is None
