"""How a file goes to a browser: as what, and what it may do there.

No script runs here: neither in a page of ours, which has none, nor in a document. So a document
cannot act for whoever reads it, also where all of the portal is on one origin.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import quote

from aiohttp import web

_TEXT = "text/plain; charset=utf-8"
_KINDS = {
    **dict.fromkeys((".html", ".htm"), "text/html; charset=utf-8"),
    **dict.fromkeys((".txt", ".csv", ".tsv", ".json", ".yaml", ".yml", ".log"), _TEXT),
    **dict.fromkeys((".py", ".r", ".sh", ".md", ".markdown", ".xml", ".js"), _TEXT),
    ".css": "text/css; charset=utf-8",
    ".pdf": "application/pdf",
    ".png": "image/png",
    **dict.fromkeys((".jpg", ".jpeg"), "image/jpeg"),
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".avif": "image/avif",
    ".svg": "image/svg+xml",
    ".ico": "image/x-icon",
    ".mp4": "video/mp4",
    ".webm": "video/webm",
    ".mp3": "audio/mpeg",
    ".ogg": "audio/ogg",
    ".wav": "audio/wav",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".ttf": "font/ttf",
    ".otf": "font/otf",
}
_NEVER = "script-src 'none'; object-src 'none'; base-uri 'none'; frame-src 'none'"


def page_policy(place: str) -> str:
    """Return what a page of ours may load: pictures and style of this app, no script at all.

    Parameters
    ----------
    place : str
        The app's origin and prefix.
    """
    return (
        f"default-src 'none'; style-src {place}_/static/; img-src {place}; media-src {place}; "
        f"{_NEVER}; form-action {place}_/search; frame-ancestors 'self'"
    )


def _document_policy(place: str) -> str:
    # No allow-scripts, no allow-forms. Without its origin its own pictures would be refused.
    return (
        "sandbox allow-same-origin allow-popups allow-popups-to-escape-sandbox allow-downloads; "
        f"default-src 'none'; style-src {place} 'unsafe-inline'; img-src {place} data:; "
        f"font-src {place} data:; media-src {place}; {_NEVER}; form-action 'none'; "
        "frame-ancestors 'self'"
    )


_PICTURE_POLICY = f"sandbox; default-src 'none'; style-src 'unsafe-inline'; {_NEVER}"
# A browser's own viewer does not work in a sandbox; it keeps a PDF's scripts to itself.
_PDF_POLICY = "default-src 'none'; style-src 'unsafe-inline'; object-src 'self'; script-src 'none'"


class OpenFile(web.FileResponse):
    """Sends a file that is open already: its name may be somebody else's by now.

    Parameters
    ----------
    stream : BinaryIO
        The file; closed when it was sent.
    headers : dict
        More of the answer's.
    """

    def __init__(self, stream: BinaryIO, headers: dict[str, str]) -> None:
        self._stream = stream
        super().__init__(f"/proc/self/fd/{stream.fileno()}", headers=headers)

    async def prepare(self, request: web.BaseRequest) -> Any:
        """Send it, or the part that is asked for."""
        with self._stream:
            return await super().prepare(request)


def send(stream: BinaryIO, name: str, place: str) -> web.StreamResponse:
    """Return the answer that is a file.

    Parameters
    ----------
    stream : BinaryIO
        The file, open for reading.
    name : str
        Its path, for its kind.
    place : str
        The app's origin and prefix.
    """
    suffix = PurePosixPath(name).suffix.lower()
    kind = _KINDS.get(suffix)
    headers = {
        "Content-Type": kind or "application/octet-stream",
        "Content-Security-Policy": _PICTURE_POLICY,
        "Cache-Control": "private, no-cache",
    }
    if suffix in (".html", ".htm"):
        headers["Content-Security-Policy"] = _document_policy(place)
    elif suffix == ".pdf":
        headers["Content-Security-Policy"] = _PDF_POLICY
    elif kind is None:
        file = quote(PurePosixPath(name).name)
        headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{file}"
    return OpenFile(stream, headers)
