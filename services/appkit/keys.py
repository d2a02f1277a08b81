"""What the handlers find in an app and in a request, by typed keys; `app` has one more."""

from __future__ import annotations

from aiohttp import web

from services.appkit.launch import Portal
from services.appkit.person import Person

PORTAL: web.AppKey[Portal] = web.AppKey("portal", Portal)
PERSON: web.RequestKey[Person] = web.RequestKey("person", Person)
