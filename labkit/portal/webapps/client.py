"""Talk to the portal about members' apps."""

from __future__ import annotations

import os
from typing import Self
from urllib.parse import quote, urlsplit

from labkit.portal.client import AppError
from labkit.portal.publishing.client import PublishingClient


class WebAppError(AppError):
    """The portal refused, the app does not start, or one of them cannot be reached."""


class Client(PublishingClient):
    """The portal's hub, asked about members' apps as one person.

    Parameters
    ----------
    url : str
        The hub's API, ``http://.../hub/api``.
    token : str
        The person's hub token; a notebook server has one.
    """

    app = "apps of members"
    api = ""
    what = "the apps of members"
    error = WebAppError
    listing = ""
    one = "/"

    def __init__(self, url: str, token: str) -> None:
        super().__init__(url, token)
        self._base = urlsplit(url).path.rstrip("/")

    @classmethod
    def from_environment(cls) -> Self:
        """Return the client of the notebook server that this runs in.

        Raises
        ------
        WebAppError
            It is not one of the portal's.
        """
        url = os.environ.get("JUPYTERHUB_API_URL", "")
        token = os.environ.get("JUPYTERHUB_API_TOKEN", "")
        if not url or not token:
            raise WebAppError(
                "Publish apps from a notebook of the lab's portal: JUPYTERHUB_API_URL and "
                "JUPYTERHUB_API_TOKEN are not set here.\nNext step: run this in your server there."
            )
        return cls(url, token)

    def _place(self, path: str) -> str:
        return f"{self._base}/labhub/webapps{path}"

    def log(self, name: str, lines: int) -> str:
        """Return the end of an app's log."""
        answer = self.ask("GET", f"/{quote(name, safe='')}/log?lines={int(lines)}")
        return str(answer["log"])
