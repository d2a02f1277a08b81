"""Label Studio's addresses: two of its files expect to be at the root of their origin."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from core import urls as theirs
from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseNotFound
from django.urls import path
from django.views.decorators.http import last_modified

_PREFIX = settings.APP_PREFIX.encode()
# What is replaced in which file of its pages. A file without these words is served as it is.
_PATCHED = {
    "main.css": ((b"url(/static/", b"url(" + _PREFIX + b"static/"),),
    # It would ask the makers for hints to show; the page goes on with its own where that fails.
    "main.js": ((b'fetch("/heidi-tips"', b'Promise.reject("none"'),),
}
_KINDS = {".css": "text/css", ".js": "text/javascript"}


def _file(name: str) -> Path:
    return Path(settings.REACT_APP_ROOT, name)


@lru_cache
def _content(name: str) -> bytes:
    text = _file(name).read_bytes()
    for old, new in _PATCHED[name]:
        text = text.replace(old, new)
    return text


def _changed(_: HttpRequest, name: str) -> datetime:
    return datetime.fromtimestamp(int(_file(name).stat().st_mtime), UTC)


@last_modified(_changed)  # type: ignore[untyped-decorator]
def patched(_: HttpRequest, name: str) -> HttpResponse:
    """Answer with one of the files."""
    return HttpResponse(_content(name), content_type=_KINDS[Path(name).suffix])


def no_tips(_: HttpRequest) -> HttpResponse:
    """Fetch nothing from the makers of Label Studio."""
    return HttpResponseNotFound()


urlpatterns: list[Any] = [
    *(
        path(f"react-app/{name}", patched, {"name": name})
        for name in _PATCHED
        if _file(name).exists()
    ),
    path("heidi-tips/", no_tips),
    *theirs.urlpatterns,
]
