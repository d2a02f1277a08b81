"""What the handlers find in the app, by typed keys."""

from __future__ import annotations

from aiohttp import web

from services.appkit.identity import Person
from services.docs.library import Library

LIBRARY: web.AppKey[Library] = web.AppKey("library", Library)
PREFIX: web.AppKey[str] = web.AppKey("prefix", str)
SECRET: web.AppKey[str] = web.AppKey("secret", str)
PERSON: web.RequestKey[Person] = web.RequestKey("person", Person)
