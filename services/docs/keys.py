"""What the handlers find in the app beside the kit's, by a typed key."""

from __future__ import annotations

from aiohttp import web

from services.docs.library import Library

LIBRARY: web.AppKey[Library] = web.AppKey("library", Library)
