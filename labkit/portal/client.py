"""Talk to one of the portal's apps from a notebook, through the gate. Standard library."""

from __future__ import annotations

import http.client
import json
import os
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.parse import urlsplit

from labkit.base.problems import LabkitError, Problem
from labkit.portal import wire

_PIECE = 1 << 20
_TIMEOUT = 90.0  # the service itself may have to start first


class AppError(LabkitError):
    """The app refused, failed, or cannot be reached.

    Attributes
    ----------
    status : int
        HTTP status; 0 where there was no answer.
    problems : tuple of Problem
        What it found, where it named its reasons one by one.
    """

    def __init__(self, text: str, status: int = 0, problems: tuple[Problem, ...] = ()) -> None:
        self.status = status
        self.problems = problems
        super().__init__(text)


def own_context() -> ssl.SSLContext:
    """Return how hub and gate are reached by TLS: with this server's certificate, if any."""
    context = ssl.create_default_context(cafile=os.environ.get("JUPYTERHUB_SSL_CLIENT_CA"))
    if certificate := os.environ.get("JUPYTERHUB_SSL_CERTFILE"):
        context.load_cert_chain(certificate, os.environ.get("JUPYTERHUB_SSL_KEYFILE"))
    return context


class AppClient:
    """One app, one person; a subclass names the app.

    Parameters
    ----------
    url : str
        Address of the services' host, ``http://...``, without a path.
    token : str
        The person's hub token; a notebook server has one.
    """

    #: Name of the app, path of its API below its prefix, how people call it, what it raises.
    app: ClassVar[str]
    api: ClassVar[str]
    what: ClassVar[str]
    error: ClassVar[type[AppError]] = AppError

    def __init__(self, url: str, token: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise self.error(f"{url!r} is no address of the portal's services.")
        self._host, self._port = parts.hostname, parts.port
        self._secure = parts.scheme == "https"
        self._token = token

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._host!r})"  # without the token

    @classmethod
    def from_environment(cls) -> Self:
        """Return the client of the notebook server that this runs in.

        Raises
        ------
        AppError
            It is not one of the portal's.
        """
        url = os.environ.get("LABHUB_SERVICES_URL", "")
        token = os.environ.get("JUPYTERHUB_API_TOKEN", "")
        if not url or not token:
            raise cls.error(
                f"Use {cls.what} from a notebook of the lab's portal: "
                "LABHUB_SERVICES_URL and JUPYTERHUB_API_TOKEN are not set here.\nNext step: run "
                "this in your server there. If you are in it, restart it: it is older than the app."
            )
        return cls(url, token)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Send JSON, return JSON; None where the answer is empty.

        Parameters
        ----------
        method : str
            ``GET``, ``POST``, ``PATCH`` or ``DELETE``.
        path : str
            Below the service's API, e.g. ``datasets/pbmc``.
        body : optional
            Sent as JSON.

        Raises
        ------
        AppError
            It refused or cannot be reached.
        """
        headers = {"Content-Type": "application/json"} if body is not None else {}
        content = json.dumps(body).encode() if body is not None else None
        for last in (False, True):
            try:
                return self._exchange(method, path, content, headers)
            except AppError as error:
                # The service is starting, or was just replaced.
                if last or error.status not in (502, 503) or method not in ("GET", "POST"):
                    raise
                time.sleep(2)
        raise AssertionError("the second try returns or raises")

    def send(self, path: str, file: Path, tell: Callable[[int], None]) -> Any:
        """Send a file, piece by piece; return the answer.

        Parameters
        ----------
        path : str
            Below the service's API.
        file : Path
            What is sent.
        tell : callable
            Called with the number of bytes sent so far.
        """
        size = file.stat().st_size
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        with file.open("rb") as stream:

            def pieces() -> Any:
                sent = 0
                while piece := stream.read(_PIECE):
                    yield piece
                    sent += len(piece)
                    tell(sent)

            return self._exchange("PUT", path, pieces(), headers)

    def post(self, path: str, content: bytes, kind: str) -> Any:
        """Send bytes of a content type; return the answer's JSON."""
        return self._exchange("POST", path, content, {"Content-Type": kind})

    def fetch(self, path: str) -> bytes:
        """Return a file of the app."""
        content: bytes = self._exchange("GET", path, None, {"Accept": "*/*"})
        return content

    def _place(self, path: str) -> str:
        return f"/services/{self.app}/{self.api}{path}"

    def _connect(self) -> http.client.HTTPConnection:
        if self._secure:
            return http.client.HTTPSConnection(
                self._host, self._port, timeout=_TIMEOUT, context=own_context()
            )
        return http.client.HTTPConnection(self._host, self._port, timeout=_TIMEOUT)

    def _exchange(self, method: str, path: str, content: Any, headers: dict[str, str]) -> Any:
        connection = self._connect()
        sent = {
            "Accept": "application/json",
            **headers,
            "Authorization": f"token {self._token}",
        }
        early = False
        try:
            try:
                connection.request(method, self._place(path), body=content, headers=sent)
            except (BrokenPipeError, ConnectionResetError):
                early = True  # it has answered before all was sent: the answer says why
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise self.error(
                f"The app of {self.what} cannot be reached ({_said(error)}).\n"
                "Next step: try again in a minute; if it stays so, tell an administrator."
            ) from error
        finally:
            connection.close()
        if early and answer.status < 400:
            raise self.error("The app closed the connection. Try again.")
        if answer.status < 300 and sent["Accept"] != "application/json":
            return body
        return self._read(answer.status, answer.getheader("Content-Type", ""), body)

    def _read(self, status: int, kind: str, body: bytes) -> Any:
        """Return what an answer says, or raise what it refuses."""
        answer: Any = None
        if "json" in kind:
            try:
                answer = json.loads(body)
            except ValueError:
                answer = None
        if status < 300:
            return answer
        if not isinstance(answer, dict):
            answer = {}
        problems = wire.problems(answer)
        raise self.error(self._text(status, answer, problems), status, problems)

    def _text(self, status: int, answer: dict[str, Any], problems: tuple[Problem, ...]) -> str:
        if problems:
            return "\n".join(["Refused:", *(f"  {problem}" for problem in problems)])
        if not answer and status in (401, 403, 404):
            return (
                f"The portal does not let you use {self.what}, or has no such app.\n"
                "Next step: restart your server (File > Hub Control Panel); if it stays so, ask an "
                "administrator."
            )
        advice = answer.get("advice") or ""
        said = answer.get("message") or answer.get("detail") or f"The app answered {status}."
        return f"{said} {advice}".strip()


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
