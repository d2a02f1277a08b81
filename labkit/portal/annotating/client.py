"""Talk to Label Studio."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlencode, urlsplit

from labkit.portal.client import AppClient, AppError

_PAGE = 500


class AnnotationError(AppError):
    """Label Studio refused, failed, or cannot be reached."""


class Client(AppClient):
    """Label Studio, as one person."""

    app = "label-studio"
    api = "api/"
    what = "Label Studio"
    error = AnnotationError

    def projects(self) -> Iterator[dict[str, Any]]:
        """Yield the projects that the person may see."""
        yield from self._pages("projects/", "results")

    def tasks(self, project: int) -> Iterator[dict[str, Any]]:
        """Yield a project's tasks."""
        yield from self._pages("tasks", "tasks", project=project, fields="all")

    def people(self) -> dict[int, str]:
        """Return the names of the users, by number."""
        return {int(one["id"]): str(one["username"]) for one in self.ask("GET", "users/")}

    def upload(self, project: int, files: Iterable[tuple[str, bytes]]) -> list[str]:
        """Bring files into a project; return the paths that its tasks name them by."""
        files = list(files)
        kind, content = _form(files)
        answer = self.post(f"projects/{project}/import?commit_to_project=false", content, kind)
        ids = [int(number) for number in answer["file_upload_ids"]]
        query = urlencode({"ids": ids})
        uploads = self.ask("GET", f"projects/{project}/file-uploads?{query}")
        by_id = {
            int(entry["id"]): f"/services/{self.app}/data/{entry['file']}" for entry in uploads
        }
        if len(files) != len(ids) or set(ids) - set(by_id):
            raise self.error(f"Label Studio took {len(by_id)} of {len(files)} pictures. Try again.")
        return [by_id[number] for number in ids]

    def url(self, project: int) -> str:
        """Return the address of a project for a browser."""
        return f"{public_origin(self.app)}/services/{self.app}/projects/{project}/data"

    def _pages(self, path: str, key: str, **query: Any) -> Iterator[dict[str, Any]]:
        page = 1
        while True:
            answer = self.ask(
                "GET", f"{path}?{urlencode({**query, 'page': page, 'page_size': _PAGE})}"
            )
            entries = answer[key]
            yield from entries
            if len(entries) < _PAGE:
                return
            page += 1


def public_origin(app: str) -> str:
    """Return the origin at which a browser finds an app, as this server's own address tells."""
    hub = urlsplit(os.environ.get("JUPYTERHUB_PUBLIC_HUB_URL", ""))
    own = urlsplit(os.environ.get("JUPYTERHUB_PUBLIC_URL", ""))
    if not hub.netloc:
        return ""
    if own.netloc == hub.netloc:  # isolation: path
        return f"{hub.scheme}://{hub.netloc}"
    return f"{hub.scheme}://{app}--service.{hub.netloc}"


def _form(files: list[tuple[str, bytes]]) -> tuple[str, bytes]:
    """Return content type and body of a form with files (RFC 7578)."""
    line = secrets.token_hex(16)
    parts = [
        f'--{line}\r\nContent-Disposition: form-data; name="{number}"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n".encode()
        + content
        + b"\r\n"
        for number, (name, content) in enumerate(files)
    ]
    return f"multipart/form-data; boundary={line}", b"".join([*parts, f"--{line}--\r\n".encode()])
